"""Rows: the folded state of each workflow, written with the decisions and restored from `<app>.state`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from driftline.consumers.app import Fold
from driftline.log import Outgoing, Record
from driftline.schemas import Codec, Event, UsageError, canonical_json, parse_json, to_json_data
from driftline.schemas.cloudevents import epoch_ms
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
    """The rows of the partitions that this process owns. One writer, one key at a time: never stale."""

    def __init__(self, fold: Fold | None) -> None:
        self._fold = fold
        self._rows: dict[int, dict[bytes, Row]] = {}

    def get(self, partition: int, key: bytes) -> Row | None:
        """The row of a workflow; None before its first event."""
        return self._rows.get(partition, {}).get(key)

    def fold(self, partition: int, key: bytes, event: Event, offset: int) -> Row | None:
        """The row with one more event folded in, not kept yet; None where the app keeps no rows.

        An event at or below the row's offset was folded in before a restart and changes nothing.

        Raises:
            UsageError: The fold raised; it names the event.
        """
        if self._fold is None:
            return None
        row = self.get(partition, key)
        if row is not None and offset <= row.as_of:
            return row
        data = _apply(self._fold, {} if row is None else row.data, event)
        version = 1 if row is None else row.version + 1
        return Row(data, version, offset, self._fold.version)

    def keep(self, partition: int, key: bytes, row: Row | None) -> None:
        """Make a folded row the workflow's row."""
        if row is not None:
            self._rows.setdefault(partition, {})[key] = row

    def versions(self, partition: int) -> set[str]:
        """The fold versions that the rows of a partition were made with."""
        return {row.fold_version for row in self._rows.get(partition, {}).values()}

    def as_of(self, partition: int) -> int:
        """The last offset that was folded into any row of a partition; -1 where there is none."""
        return max((row.as_of for row in self._rows.get(partition, {}).values()), default=-1)

    def drop(self, partitions: Iterable[int]) -> None:
        """Forget partitions that were revoked."""
        for partition in partitions:
            self._rows.pop(partition, None)

    def restore(self, partition: int, records: Iterable[Record], codec: Codec) -> int:
        """Take over the rows of a partition from its records in offset order; how many there are."""
        rows: dict[bytes, Row] = {}
        for record in records:
            if record.key is None:
                continue
            if record.value is None:
                rows.pop(record.key, None)
                continue
            value = codec.decode(record.value).value
            rows[record.key] = Row(parse_json(value["data"]), value["version"], value["as_of"], value["fold_version"])
        self._rows[partition] = rows
        return len(rows)


def row_record(topic: str, record: Record, event: Event, row: Row, codec: Codec) -> Outgoing:
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
    return Outgoing(topic, record.key, encoded, epoch_ms(event.time), (), record.at.partition)


def _apply(fold: Fold, data: Mapping[str, Any], event: Event) -> dict[str, Any]:
    try:
        folded: dict[str, Any] = to_json_data(fold.function(data, event))
    except Exception as error:
        raise UsageError(
            f"the fold fails on the {event.type} {event.id} of {event.workflow}: {error!r}", "mend the app's fold"
        ) from error
    return folded
