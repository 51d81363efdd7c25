"""Restoring the rows of a partition: from its state topic, and from the log where the state topic lags behind."""

from __future__ import annotations

from driftline.consumers.app import App
from driftline.consumers.dead import input_offset
from driftline.consumers.rows import Rows
from driftline.log import LogReader, Span, to_event
from driftline.schemas import Codec, UsageError


class RowRestorer:
    """Restores rows when a partition is assigned, and when a commit was refused.

    Not guaranteed: that rows folded anew reach the state topic before the next event of their workflow.
    """

    def __init__(self, app: App, reader: LogReader, codec: Codec, rows: Rows) -> None:
        self._app = app
        self._reader = reader
        self._codec = codec
        self._rows = rows

    def restore(self, partition: int, position: int) -> None:
        """Make the rows those of all events before the position.

        1. read the state topic to its latest offset; 2. drop rows of another fold version; 3. fold the events after
        the last one that any row has seen: all of them where a fold is new, none where it was running.

        Raises:
            UsageError: The fold fails on an event, or the group's position lies before what the rows have seen.
            EnvironmentUnreachable: A broker or the registry does not answer.
        """
        fold = self._app.fold
        if fold is None:
            return
        state = self._reader.read_to_latest(self._app.topics.state, partition)
        self._rows.restore(partition, state, self._codec)
        if self._rows.versions(partition) - {fold.version}:
            self._rows.drop([partition])
        start = self._rows.as_of(partition) + 1
        if start > position:
            raise _lost_position(f"{self._app.topics.events}[{partition}]", self._app.group, start, position)
        if start < position:
            self._fold(partition, start, position)

    def _fold(self, partition: int, start: int, stop: int) -> None:
        dead = self._dead(partition)
        for record in self._reader.read(Span(self._app.topics.events, {partition: (start, stop)})):
            if record.at.offset not in dead:
                key = record.key or b""
                row = self._rows.fold(partition, key, to_event(record, self._codec), record.at.offset)
                self._rows.keep(partition, key, row)

    def _dead(self, partition: int) -> set[int]:
        """Offsets of the events that were never folded, since they went to the dead topic."""
        records = self._reader.read_to_latest(self._app.topics.dead, partition)
        return {offset for offset in map(input_offset, records) if offset is not None}


def _lost_position(place: str, group: str, start: int, position: int) -> UsageError:
    """Rows and position are committed together: one that lies behind the other was lost or reset since."""
    return UsageError(
        f"{place}: the rows have seen offset {start - 1}, but the group {group} would go on from {position}: "
        "its position was lost or reset, and events would be decided a second time",
        f"set it to {start} with kafka-consumer-groups --reset-offsets, or give the app a new name",
    )
