"""Rows: the folded state of each workflow, written with the decisions and restored from `<app>.state`."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

from driftline.consumers.fold import STATE, TIMERS, Fold
from driftline.consumers.machine_rows import ACCEPTED
from driftline.consumers.row_bytes import FoldVersionCheck, timers_of
from driftline.consumers.row_timers import DueTimer, RowTimers, Timers, read_due
from driftline.log import Outgoing, Record
from driftline.schemas import Codec, Event, Undecodable, UsageError, canonical_json, to_json_data
from driftline.schemas.canonical import read_json
from driftline.schemas.names import ROW, TIMER_FIRED

LAST_KEPT = 1_000
"""Rows restored last whose offsets are held against the group's position."""
Held = bytes | tuple[bytes, int, int, str]
"""A row in memory: a record's value as it was restored, or canonical JSON in UTF-8, version, offset, fold version."""
_TIMERS_KEY = f'"{TIMERS}":'.encode()
"""How the timers stand in canonical JSON."""


@dataclass(frozen=True)
class Row:
    """The state of one workflow as of an offset of its events partition."""

    data: Mapping[str, Any]
    """JSON data."""
    version: int
    """Events that were folded in."""
    as_of: int
    """Offset of the last of them."""
    fold_version: str
    """Version of the fold that made it."""

    @cached_property
    def json(self) -> str:
        """The data as canonical JSON.

        Raises:
            NotCanonical: The fold made a number or a text that canonical JSON refuses.
        """
        return canonical_json(dict(self.data))

    @property
    def state(self) -> str | None:
        """Name of the state that the data names; None where it names none."""
        state = self.data.get(STATE)
        return state if isinstance(state, str) else None

    @property
    def timers(self) -> dict[str, datetime]:
        """When each timer of the row is due, event time, to the millisecond.

        Raises:
            ValueError: One has no time with a zone after 1970.
        """
        return _timers_in(self.data)


class Rows:
    """The rows of one partition. Its owner alone writes them and decides one key at a time: they are never stale.

    Rows lie in memory as text in UTF-8, or as the bytes that they were restored from, and are read when they are
    asked for: as data they would take three times the room.
    """

    def __init__(self, fold: Fold | None, codec: Codec | None = None) -> None:
        self._fold = fold
        self._codec = codec
        self._rows: dict[bytes, Held] = {}
        self._topic = ""
        """That they were restored from."""
        self._last: deque[bytes] = deque(maxlen=LAST_KEPT)
        self._timers = RowTimers(self._standing)

    def get(self, key: bytes) -> Row | None:
        """The row of a workflow; None before its first event."""
        held = self._rows.get(key)
        return None if held is None else self._read(held)

    def fold(self, key: bytes, event: Event, offset: int) -> Row | None:
        """The row with one more event folded in, not kept yet; None where the app keeps no rows.

        Raises:
            UsageError: The fold raised; it names the event.
        """
        return None if self._fold is None else self.fold_on(self.get(key), event, offset)

    def fold_on(self, row: Row | None, event: Event, offset: int) -> Row | None:
        """A row with one more event folded in; None where the app keeps no rows.

        Raises:
            UsageError: The fold raised, or set a timer to no time; it names the event.
        """
        if self._fold is None:
            return None
        data = _apply(self._fold, {} if row is None else row.data, event)
        version = 1 if row is None else row.version + 1
        return Row(data, version, offset, self._fold.version)

    def keep(self, key: bytes, row: Row | None) -> None:
        """Make a folded row the workflow's row."""
        if row is None:
            return
        held = self._rows.get(key)
        self._rows[key] = _hold(row)
        if TIMERS in row.data or (held is not None and _may_have_timers(held)):
            self._timers.moved(key, {} if held is None else self._running(held), row.timers)

    def due(self, until: datetime, most: int = sys.maxsize) -> list[DueTimer]:
        """Timers that are due by then, earliest first; each once, unless its row moves on and still has it."""
        return self._timers.due(until, most)

    def is_due(self, until: datetime) -> bool:
        """Whether there may be a timer that is due by then and was not given out."""
        return self._timers.is_due(until)

    def items(self) -> Iterator[tuple[bytes, Row]]:
        """Every workflow with its row."""
        return ((key, self._read(held)) for key, held in self._rows.items())

    def states(self) -> Iterator[tuple[bytes, str | None]]:
        """Every workflow with the state that its row names."""
        check = FoldVersionCheck(self._require_codec(), self._topic, "") if self._topic else None
        for key, held in self._rows.items():
            packed = check.state_in(held) if check is not None and isinstance(held, bytes) else None
            yield key, self._read(held).state if packed is None else packed.decode() or None

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def last_seen(self) -> list[int]:
        """Offsets that the rows had seen that were restored last, of at most `LAST_KEPT` of them."""
        return [self._read(held).as_of for held in self._last]

    @property
    def current(self) -> bool:
        """Whether every row was made by the app's present fold version."""
        return self._fold is None or not any(self._others(self._fold))

    def upgrade(self) -> None:
        """Bring rows of earlier versions to the present one; they keep their own version number.

        Raises:
            UsageError: There is no upgrade from a row's version, or it fails.
        """
        if self._fold is None:
            return
        for key in list(self._others(self._fold)):
            row = self._read(self._rows[key])
            self.keep(key, _upgraded(self._fold, row, key))

    @classmethod
    def restored(cls, fold: Fold | None, records: Iterable[Record], codec: Codec) -> Rows:
        """The rows of a partition from the records of its state topic, in offset order.

        Raises:
            UsageError: A record of the topic is no row.
        """
        rows = cls(fold, codec)
        table, last = rows._rows, rows._last
        for record in records:
            key, value = record.key, record.value
            if key is None:
                continue
            if value is None:
                table.pop(key, None)
            else:
                table[key] = value
                last.append(value)
                rows._topic = record.at.topic
        rows._timers.begin((key, rows._running(held)) for key, held in table.items() if _may_have_timers(held))
        return rows

    def _others(self, fold: Fold) -> Iterator[bytes]:
        """Keys of the rows that another fold version made."""
        check = FoldVersionCheck(self._require_codec(), self._topic, fold.version) if self._topic else None
        for key, held in self._rows.items():
            known = check.holds(held) if check is not None and isinstance(held, bytes) else None
            if not (self._read(held).fold_version == fold.version if known is None else known):
                yield key

    def _read(self, held: Held) -> Row:
        if isinstance(held, tuple):
            raw, version, as_of, fold_version = held
            text = raw.decode()
        else:
            value = self._decode(held)
            text, version, as_of = value["data"], value["version"], value["as_of"]
            fold_version = value["fold_version"]
        row = Row(read_json(text), version, as_of, fold_version)
        row.__dict__["json"] = text  # it is canonical: what was written is what would be made again
        return row

    def _running(self, held: Held) -> Timers:
        """The timers of a row; none of one that another fold made and that has something else there."""
        try:
            timers = timers_of(held[0] if isinstance(held, tuple) else held)
            return self._read(held).timers if timers is None else _due_times(timers)
        except (ValueError, TypeError, AttributeError):
            return {}

    def _decode(self, value: bytes) -> dict[str, Any]:
        """What a record of the state topic holds; one that is no row is no fault of the event that needs it."""
        try:
            decoded = self._require_codec().decode(value)
        except Undecodable as error:
            raise self._no_row(str(error)) from error
        if decoded.name != ROW:
            raise self._no_row(f"it is a {decoded.name}")
        return decoded.value

    def _no_row(self, why: str) -> UsageError:
        what = f"{self._topic} holds a record that is no row: {why}"
        return UsageError(what, "only the app writes there; `driftline state rebuild` mends the rows of an event log")

    def _standing(self, key: bytes) -> tuple[int, Timers]:
        row = self.get(key)
        return (0, {}) if row is None else (row.version, row.timers)

    def _require_codec(self) -> Codec:
        if self._codec is None:
            raise AssertionError("rows that were restored have a codec")
        return self._codec


def _hold(row: Row) -> Held:
    return row.json.encode(), row.version, row.as_of, row.fold_version


def _may_have_timers(held: Held) -> bool:
    """Whether the name stands anywhere in the row; seldom wrong, and then only slower."""
    return _TIMERS_KEY in (held[0] if isinstance(held, tuple) else held)


def row_record(topic: str, partition: int, key: bytes, timestamp_ms: int, row: Row, codec: Codec) -> Outgoing:
    """The record of a row: on the partition of the event that made it, stamped with its time.

    Raises:
        NotCanonical: The fold made a number or a text that canonical JSON refuses.
    """
    value = {
        "state": row.state,
        "version": row.version,
        "as_of": row.as_of,
        "fold_version": row.fold_version,
        "data": row.json,
    }
    encoded = codec.encode(topic, ROW, value)
    return Outgoing(topic, key, encoded, timestamp_ms, (), partition)


def _apply(fold: Fold, data: Mapping[str, Any], event: Event) -> dict[str, Any]:
    try:
        folded: dict[str, Any] = to_json_data(fold.function(data, event))
        if TIMERS in folded:
            timers = _timers_in(folded)
            if event.record == TIMER_FIRED and timers.get(event.data["timer"]) == event.data["due_at"]:
                folded[TIMERS] = {name: due for name, due in folded[TIMERS].items() if name != event.data["timer"]}
    except Exception as error:
        raise UsageError(
            f"the fold fails on the {event.type} {event.id} of {event.workflow}: {error!r}", "mend the app's fold"
        ) from error
    return folded


def _timers_in(data: Mapping[str, Any]) -> dict[str, datetime]:
    return _due_times(data.get(TIMERS, {}))


def _due_times(timers: Mapping[str, str]) -> dict[str, datetime]:
    return {name: read_due(name, text) for name, text in timers.items()}


def _upgraded(fold: Fold, row: Row, key: bytes) -> Row:
    upgrade = fold.upgrades.get(row.fold_version)
    if upgrade is None:
        raise UsageError(
            f"the row of {key.decode(errors='replace')} was made by version {row.fold_version}, the app is at "
            f"{fold.version}, and rows are the truth",
            f"give Fold(..., upgrades={{{row.fold_version!r}: function}})",
        )
    try:
        answered = {name: row.data[name] for name in (ACCEPTED,) if name in row.data}
        data = to_json_data({**upgrade(row.data), **answered})
        upgraded = Row(data, row.version, row.as_of, fold.version)
        _ = upgraded.json, upgraded.timers
    except Exception as error:
        raise UsageError(f"the upgrade from row version {row.fold_version} fails: {error!r}", "mend it") from error
    return upgraded
