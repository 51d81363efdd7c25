"""Rows of the state machine that a partition of the event log makes, as it stands or as of an offset of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b

from driftline.consumers.app import App
from driftline.consumers.machine_rows import ANSWERS
from driftline.consumers.restoring import RowRestorer
from driftline.consumers.rows import Row, Rows
from driftline.consumers.spine import StateMachine, is_stray
from driftline.log import LogReader, Span, Unfinished, to_event
from driftline.schemas import Codec
from driftline.schemas.names import CLOCK_TICKED

_NOT_OF_ROWS = (CLOCK_TICKED, *ANSWERS)


@dataclass(frozen=True, slots=True)
class SeededPartition:
    """The rows that a partition of the log makes on the state machine."""

    partition: int
    standing: Unfinished
    """What of the partition is in them: what the group has finished."""
    rows: Rows
    times_ms: Mapping[bytes, int]
    """Event time of the last event of each, milliseconds."""

    @property
    def offset(self) -> int:
        """First offset that is not in them."""
        return self.standing.base

    @property
    def hash(self) -> str:
        """Hash of every row: its key, state, version and data, in the order of the keys."""
        digest = blake2b(digest_size=16)
        for key, row in sorted(self.rows.items()):
            for part in (key, str(row.version).encode(), row.fold_version.encode(), row.json.encode()):
                digest.update(len(part).to_bytes(8, "big") + part)
        return digest.hexdigest()


def seed_up_to(app: App, reader: LogReader, codec: Codec, partition: int, offset: int) -> SeededPartition:
    """The rows that the events of a partition below an offset make: as the cut-over's, whatever came after them.

    Not guaranteed: that they are those of a cut-over at that offset which found later events decided already, as of
    a process that was killed; the control topic keeps no more than the offset.

    Args:
        app: On the state-machine spine.
        reader: Reads the log.
        codec: Reads events.
        partition: Of the events topic.
        offset: The first that is not in them; the event log must have decided everything below it.

    Raises:
        UsageError: The fold fails on an event.
        EnvironmentUnreachable: A broker or the registry does not answer.
    """
    return seed_partition(app, reader, codec, partition, Unfinished(offset, offset))


def seed_partition(
    app: App, reader: LogReader, codec: Codec, partition: int, standing: Unfinished
) -> SeededPartition:
    """The rows that what is finished of a partition makes.

    Raises:
        UsageError: The fold fails on an event.
        EnvironmentUnreachable: A broker or the registry does not answer.
    """
    rows, times_ms, spine = Rows(app.row_fold), dict[bytes, int](), StateMachine(app)
    dead = RowRestorer(app, reader, codec).dead(partition)
    for record in reader.read(Span(app.topics.events, {partition: (0, standing.end)})):
        if not standing.is_finished(record.at.offset) or record.at.offset in dead:
            continue
        key, event = record.key or b"", to_event(record, codec)
        if event.record in _NOT_OF_ROWS or is_stray(app, rows.get(key), event) or spine.is_ungated(event):
            continue
        rows.keep(key, rows.fold(key, event, record.at.offset))
        times_ms[key] = record.timestamp_ms
    return SeededPartition(partition, standing, rows, times_ms)


def lost_or_changed(seeded: SeededPartition, stored: Rows) -> list[bytes]:
    """Workflows whose row on the state topic is neither the one that was built nor a later one."""
    there = dict(stored.items())
    return sorted(key for key, row in seeded.rows.items() if not _holds(there.get(key), row))


def _holds(stored: Row | None, built: Row) -> bool:
    if stored is None:
        return False
    later = stored.version > built.version or stored.fold_version != built.fold_version
    return later or stored == built
