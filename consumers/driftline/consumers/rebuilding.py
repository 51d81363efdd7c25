"""Rebuilding rows: for the event-log spine a row is a cache of the fold, and the log has the last word."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from driftline.consumers.app import App
from driftline.consumers.control import read_controls
from driftline.consumers.restoring import RowRestorer
from driftline.consumers.rows import Row, Rows, row_record
from driftline.consumers.stopped import require_stopped, standing_of
from driftline.log import (
    CommitRefused,
    GroupConsumer,
    KafkaReader,
    Outgoing,
    Position,
    Settings,
    TransactionalWriter,
    Unfinished,
)
from driftline.schemas import Codec, UsageError
from driftline.schemas.control import STATE_MACHINE

RECORDS_A_TRANSACTION = 1_000
JOIN_S_MAX = 30.0
"""A broker lets a new group wait for further members for 3 s by default; a member that died is forgotten in 10 s."""
JOIN_POLL_S = 0.1


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

    What writes is the one member of the app's group meanwhile, and commits the rows with the group's positions as
    they stand, which the coordinator takes from a member of the present generation alone (KIP-447): a process of the
    app that starts in between waits until the transaction has ended, and ends the rebuilding. No row that such a
    process has written is written over.

    Args:
        app: Whose rows.
        settings: Where the log is.
        codec: Reads events and rows, and writes rows.
        clock: Seconds from any origin, never going back.

    Raises:
        UsageError: The app keeps no rows; it, or its log, is on the state-machine spine, where rows are the truth
            and the log in its order does not make them; or it still runs: its processes alone may write rows then.
        EnvironmentUnreachable: A broker or the registry does not answer.
    """

    def __init__(
        self, app: App, settings: Settings, codec: Codec, clock: Callable[[], float] = time.monotonic
    ) -> None:
        if app.row_fold is None:
            raise UsageError(f"app {app.name} keeps no rows", "give it a fold")
        self._app = app
        self._settings = settings
        self._codec = codec
        self._clock = clock
        self._reader = KafkaReader(settings)
        self._require_event_log()
        require_stopped(self._app, self._settings)

    def run(self, write: bool) -> Iterator[RebuiltPartition]:
        """Go through the partitions; with `write` the rows that differ are brought to what the log folds to.

        Raises:
            UsageError: The fold fails on an event, the group's position was lost or reset, or a process of the app
                was started meanwhile; what was written by then is what the log folds to.
            EnvironmentUnreachable: A broker or the registry does not answer; doing it again goes on.
        """
        partitions = sorted(self._reader.span(self._app.topics.events).ranges)
        return self._write_all(partitions) if write else map(self._compare, partitions)

    def _require_event_log(self) -> None:
        cut = read_controls(self._reader, self._app.topics, self._codec).state.spine
        if self._app.machine is not None or (cut is not None and cut.spine == STATE_MACHINE):
            what = f"{self._app.name} is on the state-machine spine: its rows are the truth and no cache of the log"
            raise UsageError(what, "leave them as they are; an upgrade of theirs goes into Fold(..., upgrades=...)")

    def _compare(self, partition: int) -> RebuiltPartition:
        standing = standing_of(self._app, self._settings, partition)
        found = self._fold(RowRestorer(self._app, self._reader, self._codec), partition, standing)
        require_stopped(self._app, self._settings)
        if standing_of(self._app, self._settings, partition) != standing:
            what = f"{self._app.topics.events}[{partition}] was decided on meanwhile"
            raise UsageError(what, "stop the app and compare again")
        return found.told

    def _write_all(self, partitions: Sequence[int]) -> Iterator[RebuiltPartition]:
        writer = TransactionalWriter(self._settings, f"driftline.{self._app.name}.rebuild")
        try:
            with _owning(self._app, self._settings, partitions, self._clock) as owner:
                self._require_event_log()  # a cut-over that saw nobody in the group has written its switch by now
                restorer = RowRestorer(self._app, self._reader, self._codec, owner.beat)
                for partition in partitions:
                    found = self._fold(restorer, partition, owner.standing(partition))
                    for start in range(0, len(found.records), RECORDS_A_TRANSACTION):
                        owner.commit(writer, partition, found.records[start : start + RECORDS_A_TRANSACTION])
                    yield found.told
        finally:
            writer.close()

    def _fold(self, restorer: RowRestorer, partition: int, standing: Unfinished) -> _Folded:
        stored = dict(restorer.checked(partition, standing).items())
        rows, times_ms = Rows(self._app.row_fold), {}
        for record in restorer.folding(rows, partition, standing):
            times_ms[record.key or b""] = record.timestamp_ms
        folded = dict(rows.items())
        differing = [key for key in (folded | stored) if folded.get(key) != stored.get(key)]
        names = tuple(sorted(key.decode(errors="replace") for key in differing))
        records = [self._record(partition, key, folded.get(key), times_ms) for key in differing]
        return _Folded(RebuiltPartition(partition, len(folded), names), records)

    def _record(self, partition: int, key: bytes, row: Row | None, times_ms: Mapping[bytes, int]) -> Outgoing:
        """A row, or the tombstone of one that no event of the log accounts for."""
        topic = self._app.topics.state
        if row is None:
            return Outgoing(topic, key, None, 1, (), partition)
        return row_record(topic, partition, key, times_ms[key], row, self._codec)


@dataclass(frozen=True, slots=True)
class _Folded:
    """A partition folded anew, and the records that bring its rows to that."""

    told: RebuiltPartition
    records: Sequence[Outgoing]


@contextmanager
def _owning(
    app: App, settings: Settings, partitions: Collection[int], clock: Callable[[], float]
) -> Iterator[_Owner]:
    """Own the partitions in the app's group; as soon as the block ends they are another member's."""
    owner = _Owner(app, settings, partitions)
    try:
        owner.join(clock)
        yield owner
    finally:
        owner.leave()


class _Owner:
    """The one member of an app's group that owns the whole events topic, and decides nothing."""

    def __init__(self, app: App, settings: Settings, partitions: Collection[int]) -> None:
        self._app = app
        self._partitions = frozenset(partitions)
        self._member = GroupConsumer(settings, app.group, app.topics.events)
        self._standing: dict[int, Unfinished] = {}

    def join(self, clock: Callable[[], float]) -> None:
        """Wait until every partition is this member's."""
        self._member.open(self._gain, lambda gone: None)
        deadline = clock() + JOIN_S_MAX
        while self._member.owned != self._partitions:
            if clock() > deadline:
                raise self._overtaken()
            self._member.poll(1, JOIN_POLL_S)

    def leave(self) -> None:
        """Leave the group."""
        self._member.close()

    def standing(self, partition: int) -> Unfinished:
        """Where a partition stands; nobody moves it while it is this member's."""
        return self._standing[partition]

    def beat(self) -> None:
        """Stay in the group.

        Raises:
            UsageError: Another member has come.
        """
        self._member.pause(self._partitions)
        self._member.poll(1, 0.0)  # for the membership alone
        if self._member.owned != self._partitions:
            raise self._overtaken()

    def commit(self, writer: TransactionalWriter, partition: int, records: Sequence[Outgoing]) -> None:
        """Write rows of a partition, if it is still this member's.

        Raises:
            UsageError: Another member has come; nothing of these rows is visible.
        """
        self.beat()
        while self._member.group_metadata is None:  # a rebalance that left everything here
            self.beat()
        stands = self._standing[partition]
        position = Position(self._app.topics.events, partition, stands.base, stands.metadata())
        try:
            writer.commit(records, [position], self._member.group_metadata)
        except CommitRefused as error:
            if error.stale_group or error.fenced:
                raise self._overtaken() from error
            raise

    def _gain(self, gained: Mapping[int, Unfinished | None]) -> None:
        self._standing |= {partition: stands or Unfinished(0, 0) for partition, stands in gained.items()}

    def _overtaken(self) -> UsageError:
        return UsageError(
            f"a process of {self._app.name} came into the group {self._app.group} meanwhile, and no further row is "
            "written",
            "stop it and rebuild again; what was written by then is what the log folds to",
        )
