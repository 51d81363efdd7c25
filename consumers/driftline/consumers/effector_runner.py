"""Running one effector on Kafka: read what was committed, act, and report exactly once.

The effect lies outside of every transaction: it is done at least once, under one key. Its report and the position of
the group are committed together: a report is there exactly once, however often the process dies in between.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from driftline.consumers.app import App
from driftline.consumers.control import ControlReader
from driftline.consumers.effecting import Acting, Stopped
from driftline.consumers.effectors import Effector, check_effectors
from driftline.consumers.machine_rows import ANSWERS
from driftline.consumers.sources import SPINE, source_of
from driftline.consumers.start import check_start
from driftline.log import (
    CommitRefused,
    GroupConsumer,
    Outgoing,
    Position,
    Record,
    Settings,
    TransactionalWriter,
    to_event,
    to_outgoing,
)
from driftline.log.events import INPUT_BYTES_MAX
from driftline.schemas import (
    DriftlineError,
    Event,
    Undecodable,
    UsageError,
)
from driftline.schemas.cloudevents import from_headers
from driftline.schemas.names import EFFECT_REPORTED

RECORDS_MAX = 100
"""Read ahead of what is acted on; most are no effector's business and are passed over by their headers."""
BATCH_S_MAX = 1.0
"""A batch takes no further effect after this: effects that are not committed yet are what a crash repeats."""
POLL_S = 0.5
"""How long an empty poll waits; bounds how late a stop is seen."""
REFUSALS_MAX = 3
"""Refused commits in a row; further ones would be refused too. A stale group is none of them: it ends by itself."""


@dataclass
class EffectorSummary:
    """Counts of one run, of what was committed."""

    done: int = 0
    """Effects reported as done."""
    failed: int = 0
    """Effects reported as failed for good."""
    skipped: int = 0
    """Records that were not for this effector, those that do not decode included."""
    calls: int = 0
    """Calls of the effector so far, tries again and repeats after a refused commit included."""
    transactions: int = 0
    """Committed ones."""
    refused_commits: int = 0
    """Transactions that were aborted; their effects were done again under their keys."""
    killed: bool = False
    """Whether the run ended, or stands still, because the app is killed."""


@dataclass
class _Batch:
    """What one transaction will hold."""

    reports: list[Outgoing] = field(default_factory=list)
    done: int = 0
    skipped: int = 0
    positions: dict[int, int] = field(default_factory=dict)
    trouble: DriftlineError | None = None
    """What kept the next event from being accounted for; raised once the batch is committed."""


class EffectorRunner:
    """Runs one effector of an app in one process slot. Not for several threads.

    What it acts on: events of the effector's types whose source is a boundary of the app, and answers to requests for
    transitions whose source is its spine. In the order of the partition, so in the order of each workflow; one at a
    time. A killed app's effectors stand still as its boundaries do. Not guaranteed: that an effect is done once (its
    key is for that), nor anything of an event whose source somebody forged: who may write to the events topic may
    pass for a boundary.

    Args:
        app: Whose effector.
        effector: One of `app.effectors`.
        settings: Where the log is.
        now: The wall clock, for `reported_at` alone.
        slot: Process slot; the transactional id is `driftline.<app>.effector.<name>.<slot>` and survives restarts.
        clock: Seconds from any origin, never going back; bounds a batch.

    Raises:
        UsageError: The effector acts on answers to requests, which the app's spine never commits.
    """

    def __init__(
        self,
        app: App,
        effector: Effector,
        settings: Settings,
        now: Callable[[], datetime],
        slot: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        check_effectors(app.name, app.boundaries, [effector], answers=app.machine is not None)
        self.app = app
        self.effector = effector
        self.summary = EffectorSummary()
        self._settings = settings
        self._clock = clock
        self._group = f"driftline.{app.name}.effector.{effector.name}"
        self._codec = settings.codec(app.contracts)
        self._writer = TransactionalWriter(settings, f"{self._group}.{slot}")
        self._control = ControlReader(settings, app.topics, self._codec)
        self._sources = {source_of(app.name, boundary.name) for boundary in app.boundaries}
        self._spine = source_of(app.name, SPINE)
        self._acting = Acting(app.name, effector, now)
        self._owned: set[int] = set()
        self._pending: deque[Record] = deque()
        self._refusals = 0

    def run(
        self,
        until_end: bool = False,
        stop: Callable[[], bool] = lambda: False,
        on_commit: Callable[[EffectorSummary], None] = lambda summary: None,
    ) -> EffectorSummary:
        """Act on what is committed until `stop()` says so, or with `until_end` until every partition is read.

        With `until_end` the run of a killed app ends at once; `summary.killed` tells.

        Raises:
            ContractError: The registry does not hold the packaged schemas.
            UsageError: The topics are not as they must be, the effector failed otherwise than by `EffectFailed` or
                returned what cannot be reported, or another process runs in the same slot.
            EnvironmentUnreachable: A broker, the registry or the effector's own outside world does not answer. What
                was not reported is acted on again under the same key.
        """
        check_start(self.app, self._settings, self._codec)
        try:
            self._writer.open()
            self.summary.killed = self._control.open().killed
            ended = False
            while not stop() and not ended:
                if self.summary.killed:
                    ended = until_end
                    self.summary.killed = ended or self._control.poll(POLL_S).killed
                else:
                    ended = self._attend(until_end, stop, on_commit)
        finally:
            self._control.close()
            self._writer.close()
        return self.summary

    def _attend(
        self, until_end: bool, stop: Callable[[], bool], on_commit: Callable[[EffectorSummary], None]
    ) -> bool:
        """One membership of the group, until a stop, a kill or a refused commit; True at the end of the log.

        A new member goes on from the committed positions, which is where a refused commit leads back to.
        """
        inbox = GroupConsumer(self._settings, self._group, self.app.topics.events)
        try:
            inbox.open(self._gain, self._lose)
            while not self._stands_still(stop):
                if until_end and not self._pending and inbox.at_end():
                    return True
                self._poll(inbox)
                if not self._pending or inbox.group_metadata is None:
                    continue
                batch = self._act_on_pending(stop)
                if not self._commit(batch, inbox.group_metadata):
                    return False
                on_commit(self.summary)
                if batch.trouble is not None:
                    raise batch.trouble
        finally:
            inbox.close()
            self._lose(set(self._owned))
        return False

    def _stands_still(self, stop: Callable[[], bool]) -> bool:
        self.summary.killed = self._control.poll().killed
        return self.summary.killed or stop()

    def _poll(self, inbox: GroupConsumer) -> None:
        """Take in some records; also with enough in hand, since polling is what keeps the membership."""
        room = max(1, RECORDS_MAX - len(self._pending))
        found = inbox.poll(room, 0.0 if self._pending else POLL_S)
        self._pending.extend(record for record in found if record.at.partition in self._owned)

    def _act_on_pending(self, stop: Callable[[], bool]) -> _Batch:
        """Account for what is in hand, in order, until the batch is full or something is in the way."""
        batch, began = _Batch(), self._clock()
        while self._pending and not self._stands_still(stop):
            try:
                self._account(self._pending[0], batch, stop)
            except Stopped:
                break
            except DriftlineError as error:
                batch.trouble = error
                break
            self._pending.popleft()
            if self._clock() - began > BATCH_S_MAX:
                break
        return batch

    def _account(self, record: Record, batch: _Batch, stop: Callable[[], bool]) -> None:
        """Act on one record if it is for this effector, and put the report into the batch."""
        event = self._addressed(record)
        if event is None:
            batch.skipped += 1
        else:
            effect = self._acting.outcome(event, stop)
            batch.reports.append(self._report(effect.fact, record.at.partition))
            batch.done += effect.done
        batch.positions[record.at.partition] = record.at.offset + 1

    def _addressed(self, record: Record) -> Event | None:
        """The event, if a boundary of the app or its spine committed it and the effector acts on its type.

        What does not decode is none: the runtime puts it onto the dead topic.
        """
        try:
            envelope = from_headers(record.headers)
            committed = {self._spine} if envelope.type in ANSWERS else self._sources
            if envelope.source not in committed or envelope.type not in self.effector.on:
                return None
            return to_event(record, self._codec)
        except Undecodable:
            return None

    def _report(self, fact: Event, partition: int) -> Outgoing:
        """The record of a fact, beside its cause.

        Raises:
            UsageError: What the effector returned does not fit its record, or is larger than an event may be.
        """
        topic = self.app.topics.events
        if fact.record != EFFECT_REPORTED:
            self._codec.encode(topic, fact.record, fact.data, prove=True)
        report = to_outgoing(fact, topic, self._codec, partition)
        if len(report.value or b"") > INPUT_BYTES_MAX:
            raise UsageError(
                f"effector {self.effector.name} returned more than the {INPUT_BYTES_MAX} bytes that an event may have"
            )
        return report

    def _commit(self, batch: _Batch, group: Any) -> bool:
        """Commit the reports and the group's positions, together; False if they were refused.

        Raises:
            CommitRefused: Another process has the slot, or the broker refuses time and again.
        """
        if not batch.positions:
            return True
        topic = self.app.topics.events
        positions = [Position(topic, partition, offset) for partition, offset in batch.positions.items()]
        try:
            self._writer.commit(batch.reports, positions, group)
        except CommitRefused as error:
            self.summary.refused_commits += 1
            self._refusals += not error.stale_group
            if error.fenced or self._refusals >= REFUSALS_MAX:
                raise
            return False
        self._refusals = 0
        self._count(batch)
        return True

    def _count(self, batch: _Batch) -> None:
        self.summary.transactions += 1
        self.summary.done += batch.done
        self.summary.failed += len(batch.reports) - batch.done
        self.summary.skipped += batch.skipped
        self.summary.calls = self._acting.calls

    def _gain(self, standing: Mapping[int, Any]) -> None:
        self._owned.update(standing)

    def _lose(self, partitions: Collection[int]) -> None:
        """Forget everything of the partitions: whoever owns them now acts on their events."""
        self._owned -= set(partitions)
        self._pending = deque(record for record in self._pending if record.at.partition in self._owned)
