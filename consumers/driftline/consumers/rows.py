"""Rows: the folded state of each workflow, written with the decisions and restored from `<app>.state`."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from heapq import heappop, heappush
from typing import Any

from driftline.consumers.fold import STATE, TIMERS, Fold
from driftline.log import Outgoing, Record
from driftline.schemas import Codec, Event, UsageError, canonical_json, to_json_data
from driftline.schemas.names import ROW, TIMER_FIRED

LAST_KEPT = 1_000
"""Rows restored last whose offsets are held against the group's position."""
Held = bytes | tuple[str, int, int, str]
"""A row in memory: a record's value as it was restored, or canonical JSON, version, offset and fold version."""


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
        """When each timer of the row is due, event time.

        Raises:
            ValueError: One has no time with a zone.
        """
        return {name: _due(name, text) for name, text in self.data.get(TIMERS, {}).items()}


@dataclass(frozen=True, slots=True)
class DueTimer:
    """A timer that is due."""

    key: bytes
    name: str
    row_version: int
    due_at: datetime


class Rows:
    """The rows of one partition. Its owner alone writes them and decides one key at a time: they are never stale.

    Rows lie in memory as text, or as the bytes that they were restored from, and are read when they are asked for:
    as data they would take three times the room.
    """

    def __init__(self, fold: Fold | None, codec: Codec | None = None) -> None:
        self._fold = fold
        self._codec = codec
        self._rows: dict[bytes, Held] = {}
        self._last: deque[bytes] = deque(maxlen=LAST_KEPT)
        self._timers: list[tuple[datetime, bytes, str]] = []
        """A heap of what may be due; what the row has dropped since is passed over when it comes up."""
        self._told: set[tuple[bytes, str]] = set()
        """Timers that were given out as due and whose row has not moved on since."""

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
        self._rows[key] = row.json, row.version, row.as_of, row.fold_version
        if TIMERS in row.data or (held is not None and _may_have_timers(held)):
            self._keep_timers(key, row, None if held is None else self._read(held))

    def due(self, until: datetime) -> list[DueTimer]:
        """Timers that are due by then, earliest first; each once, unless its row moves on and still has it."""
        found = []
        while self._timers and self._timers[0][0] <= until:
            due_at, key, name = heappop(self._timers)
            row = self.get(key)
            if row is not None and row.timers.get(name) == due_at and (key, name) not in self._told:
                self._told.add((key, name))
                found.append(DueTimer(key, name, row.version, due_at))
        return found

    def items(self) -> Iterator[tuple[bytes, Row]]:
        """Every workflow with its row."""
        return ((key, self._read(held)) for key, held in self._rows.items())

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def last_seen(self) -> list[int]:
        """Offsets that the rows had seen that were restored last, of at most `LAST_KEPT` of them."""
        return [self._read(held).as_of for held in self._last]

    @property
    def current(self) -> bool:
        """Whether every row was made by the app's present fold version."""
        return self._fold is None or all(self._version(held) == self._fold.version for held in self._rows.values())

    def upgrade(self) -> None:
        """Bring rows of earlier versions to the present one; they keep their own version number.

        Raises:
            UsageError: There is no upgrade from a row's version, or it fails.
        """
        for key, held in self._rows.items():
            if self._fold is not None and self._version(held) != self._fold.version:
                row = self._read(held)
                data = _upgraded(self._fold, row, key)
                self._rows[key] = canonical_json(data), row.version, row.as_of, self._fold.version

    @classmethod
    def restored(cls, fold: Fold | None, records: Iterable[Record], codec: Codec) -> Rows:
        """The rows of a partition from the records of its state topic, in offset order."""
        rows = cls(fold, codec)
        for record in records:
            key, value = record.key, record.value
            if key is None:
                continue
            if value is None:
                rows._rows.pop(key, None)
            else:
                rows._rows[key] = value
                rows._last.append(value)
        for key, held in rows._rows.items():
            if _may_have_timers(held):
                rows._keep_timers(key, rows._read(held), None)
        return rows

    def _read(self, held: Held) -> Row:
        if isinstance(held, tuple):
            text, version, as_of, fold_version = held
        else:
            value = self._require_codec().decode(held).value
            text, version, as_of = value["data"], value["version"], value["as_of"]
            fold_version = value["fold_version"]
        row = Row(json.loads(text), version, as_of, fold_version)
        row.__dict__["json"] = text  # it is canonical: what was written is what would be made again
        return row

    def _version(self, held: Held) -> str:
        return held[3] if isinstance(held, tuple) else str(self._require_codec().decode(held).value["fold_version"])

    def _require_codec(self) -> Codec:
        if self._codec is None:
            raise AssertionError("rows that were restored have a codec")
        return self._codec

    def _keep_timers(self, key: bytes, row: Row, before: Row | None) -> None:
        running = {} if before is None else before.timers
        timers = row.timers
        for name in running.keys() | timers.keys():
            told = (key, name) in self._told
            self._told.discard((key, name))
            if name in timers and (told or running.get(name) != timers[name]):
                heappush(self._timers, (timers[name], key, name))


def _may_have_timers(held: Held) -> bool:
    """Whether the name stands anywhere in the row; seldom wrong, and then only slower."""
    return TIMERS in held[0] if isinstance(held, tuple) else TIMERS.encode() in held


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
        timers = {name: _due(name, text) for name, text in folded.get(TIMERS, {}).items()}
        if event.record == TIMER_FIRED and timers.get(event.data["timer"]) == event.data["due_at"]:
            folded[TIMERS] = {name: text for name, text in folded[TIMERS].items() if name != event.data["timer"]}
    except Exception as error:
        raise UsageError(
            f"the fold fails on the {event.type} {event.id} of {event.workflow}: {error!r}", "mend the app's fold"
        ) from error
    return folded


def _upgraded(fold: Fold, row: Row, key: bytes) -> dict[str, Any]:
    upgrade = fold.upgrades.get(row.fold_version)
    if upgrade is None:
        raise UsageError(
            f"the row of {key.decode(errors='replace')} was made by version {row.fold_version}, the app is at "
            f"{fold.version}, and rows are the truth",
            f"give Fold(..., upgrades={{{row.fold_version!r}: function}})",
        )
    try:
        data: dict[str, Any] = to_json_data(upgrade(row.data))
    except Exception as error:
        raise UsageError(f"the upgrade from row version {row.fold_version} fails: {error!r}", "mend it") from error
    return data


def _due(name: str, text: Any) -> datetime:
    due = datetime.fromisoformat(text)
    if due.tzinfo is None:
        raise ValueError(f"the timer {name} is due at {text}, which has no zone")
    return due
