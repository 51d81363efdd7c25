"""Rebuilding rows: for the event-log spine a row is a cache of the fold, and the log has the last word."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from driftline.consumers.app import App
from driftline.consumers.control import read_controls
from driftline.consumers.restoring import RowRestorer
from driftline.consumers.rows import Row, Rows, row_record
from driftline.consumers.stopped import require_stopped, standing_of
from driftline.log import KafkaReader, Outgoing, Settings, TransactionalWriter
from driftline.schemas import Codec, UsageError
from driftline.schemas.control import STATE_MACHINE

RECORDS_A_TRANSACTION = 1_000


@dataclass(frozen=True, slots=True)
class RebuiltPartition:
    """What rebuilding found in one partition."""

    partition: int
    workflows: int
    """Workflows with finished events."""
    differing: tuple[str, ...]
    """Those whose row is not what the log folds to: missing, another, or left over."""


class Rebuilder:
    """Folds the finished events of an app anew and compares the rows with those of the state topic.

    Args:
        app: Whose rows.
        settings: Where the log is.
        codec: Reads events and rows, and writes rows.

    Raises:
        UsageError: The app keeps no rows; it, or its log, is on the state-machine spine, where rows are the truth
            and the log in its order does not make them; or it still runs: its processes alone may write rows then.
        EnvironmentUnreachable: A broker or the registry does not answer.
    """

    def __init__(self, app: App, settings: Settings, codec: Codec) -> None:
        if app.row_fold is None:
            raise UsageError(f"app {app.name} keeps no rows", "give it a fold")
        self._app = app
        self._settings = settings
        self._codec = codec
        self._reader = KafkaReader(settings)
        self._require_event_log()
        require_stopped(self._app, self._settings)
        self._restorer = RowRestorer(app, self._reader, codec)

    def run(self, write: bool) -> Iterator[RebuiltPartition]:
        """Go through the partitions; with `write` the rows that differ are brought to what the log folds to.

        Raises:
            UsageError: The fold fails on an event, or the group's position was lost or reset.
            EnvironmentUnreachable: A broker or the registry does not answer; doing it again goes on.
        """
        partitions = sorted(self._reader.span(self._app.topics.events).ranges)
        for partition in partitions:
            yield self._rebuild(partition, write)

    def _require_event_log(self) -> None:
        cut = read_controls(self._reader, self._app.topics, self._codec).state.spine
        if self._app.machine is not None or (cut is not None and cut.spine == STATE_MACHINE):
            what = f"{self._app.name} is on the state-machine spine: its rows are the truth and no cache of the log"
            raise UsageError(what, "leave them as they are; an upgrade of theirs goes into Fold(..., upgrades=...)")

    def _rebuild(self, partition: int, write: bool) -> RebuiltPartition:
        standing = standing_of(self._app, self._settings, partition)
        stored = dict(self._restorer.checked(partition, standing).items())
        rows, times_ms = Rows(self._app.row_fold), {}
        for record in self._restorer.folding(rows, partition, standing):
            times_ms[record.key or b""] = record.timestamp_ms
        folded = dict(rows.items())
        differing = [key for key in (folded | stored) if folded.get(key) != stored.get(key)]
        if write:
            require_stopped(self._app, self._settings)
            if standing_of(self._app, self._settings, partition) != standing:
                what = f"{self._app.topics.events}[{partition}] was decided on meanwhile"
                raise UsageError(what, "stop the app and rebuild again")
            self._write(partition, {key: folded.get(key) for key in differing}, times_ms)
        names = tuple(sorted(key.decode(errors="replace") for key in differing))
        return RebuiltPartition(partition, len(folded), names)

    def _write(self, partition: int, rows: dict[bytes, Row | None], times_ms: dict[bytes, int]) -> None:
        topic = self._app.topics.state
        writer = TransactionalWriter(self._settings, f"driftline.{self._app.name}.rebuild")
        try:
            records = [self._record(topic, partition, key, row, times_ms) for key, row in rows.items()]
            for start in range(0, len(records), RECORDS_A_TRANSACTION):
                writer.commit(records[start : start + RECORDS_A_TRANSACTION])
        finally:
            writer.close()

    def _record(
        self, topic: str, partition: int, key: bytes, row: Row | None, times_ms: dict[bytes, int]
    ) -> Outgoing:
        """A row, or the tombstone of one that no event of the log accounts for."""
        if row is None:
            return Outgoing(topic, key, None, 1, (), partition)
        return row_record(topic, partition, key, times_ms[key], row, self._codec)
