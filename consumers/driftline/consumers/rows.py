"""Rows: the folded state of each workflow, written with the decisions and restored from `<app>.state`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from driftline.consumers.app import Fold
from driftline.log import Outgoing, Record
from driftline.schemas import Codec, Event, UsageError, canonical_json, parse_json, to_json_data
from driftline.schemas.names import ROW


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


class Rows:
    """The rows of one partition. Its owner alone writes them and decides one key at a time: they are never stale."""

    def __init__(self, fold: Fold | None) -> None:
        self._fold = fold
        self._rows: dict[bytes, Row] = {}

    def get(self, key: bytes) -> Row | None:
        """The row of a workflow; None before its first event."""
        return self._rows.get(key)

    def fold(self, key: bytes, event: Event, offset: int) -> Row | None:
        """The row with one more event folded in, not kept yet; None where the app keeps no rows.

        Raises:
            UsageError: The fold raised; it names the event.
        """
        if self._fold is None:
            return None
        row = self._rows.get(key)
        data = _apply(self._fold, {} if row is None else row.data, event)
        version = 1 if row is None else row.version + 1
        return Row(data, version, offset, self._fold.version)

    def keep(self, key: bytes, row: Row | None) -> None:
        """Make a folded row the workflow's row."""
        if row is not None:
            self._rows[key] = row

    def items(self) -> Iterable[tuple[bytes, Row]]:
        """Every workflow with its row."""
        return self._rows.items()

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def current(self) -> bool:
        """Whether every row was made by the app's present fold version."""
        return self._fold is None or all(row.fold_version == self._fold.version for row in self._rows.values())

    @classmethod
    def restored(cls, fold: Fold | None, records: Iterable[Record], codec: Codec) -> Rows:
        """The rows of a partition from the records of its state topic, in offset order."""
        rows = cls(fold)
        for record in records:
            if record.key is None:
                continue
            if record.value is None:
                rows._rows.pop(record.key, None)
                continue
            value = codec.decode(record.value).value
            row = Row(parse_json(value["data"]), value["version"], value["as_of"], value["fold_version"])
            rows._rows[record.key] = row
        return rows


def row_record(topic: str, partition: int, key: bytes, timestamp_ms: int, row: Row, codec: Codec) -> Outgoing:
    """The record of a row: on the partition of the event that made it, stamped with its time.

    Raises:
        NotCanonical: The fold made a number or a text that canonical JSON refuses.
    """
    value = {
        "state": row.data.get("state") if isinstance(row.data.get("state"), str) else None,
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
    except Exception as error:
        raise UsageError(
            f"the fold fails on the {event.type} {event.id} of {event.workflow}: {error!r}", "mend the app's fold"
        ) from error
    return folded
