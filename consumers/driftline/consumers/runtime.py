"""The Kafka runtime: consume, decide, commit; in key order, with hundreds of model calls in flight, exactly once.

Two threads. This one talks to Kafka: it polls, hands records to the lanes, collects what they decided, and commits.
The lanes' one runs the event loop on which models are asked. What passes between them are records and results.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from driftline.consumers.app import App
from driftline.consumers.artifacts import app_artifacts
from driftline.consumers.backpressure import Backpressure
from driftline.consumers.batch import Batch
from driftline.consumers.committing import Committer
from driftline.consumers.control import ControlReader, ControlState, control_record, make_setting, read_controls
from driftline.consumers.cutting_over import require_same_spine, require_spine
from driftline.consumers.deciding import Decided, Decider
from driftline.consumers.ending import all_at_end
from driftline.consumers.garbage import rare_collections
from driftline.consumers.lanes import Lanes
from driftline.consumers.metrics import RuntimeMetrics
from driftline.consumers.partition import OwnedPartition
from driftline.consumers.proposing import Proposer
from driftline.consumers.reporting import HealthSink, Reporting
from driftline.consumers.restoring import RowRestorer
from driftline.consumers.start import check_start
from driftline.consumers.summary import RunSummary
from driftline.consumers.throttle import Throttle
from driftline.consumers.tracing import Tracer
from driftline.log import GroupConsumer, KafkaReader, Record, Settings, TransactionalWriter, Unfinished
from driftline.log.membership import is_member
from driftline.schemas import RegistryUnreachable, UsageError
from driftline.schemas.cloudevents import epoch_ms
from driftline.schemas.names import CLOCK_KEY

__all__ = ["RunSummary", "Runtime", "RuntimeLimits"]

_log = logging.getLogger("driftline.runtime")

IDLE_POLL_S = 0.5
"""How long a poll waits where nothing is in flight; bounds how late a stop is seen."""
BUSY_WAIT_S = 0.005
"""How long a turn waits for a result where decisions are in flight."""
TICK_KEY = CLOCK_KEY.encode()


@dataclass(frozen=True, slots=True)
class RuntimeLimits:
    """What bounds a process."""

    in_flight_max: int = 256
    """Decisions at once."""
    buffered_max: int = 10_000
    """Records taken up and not committed yet, those in flight included; then partitions are paused."""
    batch_max: int = 1_000
    """Inputs a transaction."""
    linger_ms_max: float = 20.0
    """How long a decided input waits for others to share its transaction."""
    revoke_s_max: float = 3.0
    """How long decisions in flight may delay a rebalance; what is not done then is decided by the next owner."""
    drain_s_max: float = 20.0
    """How long a stop waits for decisions in flight."""


class Runtime:
    """Runs one app in one process slot. Not for several threads.

    Args:
        app: What to run.
        settings: Where the log is.
        proposer: Answers the boundaries' requests.
        now: The wall clock, for `decided_at` alone.
        slot: Process slot; the transactional id is `driftline.<app>.<slot>` and survives restarts, and so does the
            place in the consumer group.
        seed: Of the simulator's randomness.
        limits: What bounds it.
        metrics: Where counts go.
        tracer: Where spans go; None takes OpenTelemetry's provider of the process.
        health: Who is told that it lives and is ready.
        clock: Seconds from any origin, never going back.
    """

    def __init__(
        self,
        app: App,
        settings: Settings,
        proposer: Proposer,
        now: Callable[[], datetime],
        slot: int = 0,
        seed: int = 0,
        limits: RuntimeLimits | None = None,
        metrics: RuntimeMetrics | None = None,
        tracer: Tracer | None = None,
        health: HealthSink | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.app = app
        self.summary = RunSummary()
        self.stopping = False
        """Whether nothing new begins any more, and only what is in flight is finished."""
        self._settings = settings
        self._now = now
        self._limits = limits or RuntimeLimits()
        self._clock = clock
        tracer = tracer or Tracer()
        self._reporting = Reporting(app.name, metrics, tracer, health)
        self._place = f"driftline.{app.name}.{slot}"
        self._codec = settings.codec(app.contracts)
        self._writer = TransactionalWriter(settings, self._place)
        self._inbox = GroupConsumer(settings, app.group, app.topics.events)
        still_in = partial(is_member, settings, app.group)
        refused, beat = self._count_refused, self._reporting.beat
        self._committer = Committer(
            self._writer, self._inbox, app.topics.events, still_in, refused, beat, clock=clock
        )
        self._control = ControlReader(settings, app.topics, self._codec)
        self._reader = KafkaReader(settings)
        self._restorer = RowRestorer(app, self._reader, self._codec, self._reporting.beat)
        self._throttle = Throttle()
        decider = Decider(app, self._codec, proposer, now, seed, lambda: self._control.state.offset, tracer)
        waited = self._reporting.metrics.observe_queue_age
        self._lanes: Lanes[Decided] = Lanes(
            decider.decide, self._limits.in_flight_max, self._throttle.admit, waited, _is_tick, clock
        )
        self._pressure = Backpressure(self._limits.buffered_max)
        self._owned: dict[int, OwnedPartition] = {}
        self._results: deque[Decided] = deque()
        self._batch = Batch()
        self._oldest_at = 0.0
        self._failure: BaseException | None = None
        self._on_commit: Callable[[RunSummary], None] = lambda summary: None

    def run(
        self,
        until_end: bool = False,
        stop: Callable[[], bool] = lambda: False,
        on_commit: Callable[[RunSummary], None] = lambda summary: None,
    ) -> RunSummary:
        """Consume, decide and commit until `stop()` says so, or with `until_end` until the group has read everything.

        A stop lets what is in flight finish, and commits it; so does a decision that raises, before its error comes
        out of here: what was paid is kept.

        Raises:
            ContractError: The registry does not hold the packaged schemas.
            UsageError: The topics are not as they must be, a prompt, rule or fold of the app fails on an event, or
                another process runs in the same slot.
            EnvironmentUnreachable: A broker or the registry does not answer; nothing uncommitted is visible.
        """
        self._on_commit = on_commit
        check_start(self.app, self._settings, self._codec)
        with ExitStack() as closing:
            closing.callback(self._writer.close)
            closing.callback(self._control.close)
            closing.callback(self._inbox.close)
            try:
                self._start()
                self._run(until_end, stop)
            except BaseException:
                self._lose(list(self._owned))  # leaving the group must not commit what may be wrong
                raise
        if self._failure is not None:
            raise self._failure
        return self.summary

    def _start(self) -> None:
        spine = self._control.open().spine
        self._writer.open()
        now = self._now()
        begun = require_spine(self.app, spine, self._used_before())
        records = app_artifacts(self.app, self._codec, epoch_ms(now))
        if begun is not None:
            setting = make_setting(begun, "the log's first start", self._place, now)
            records = [*records, control_record(setting, self.app.topics, self._codec, f"{self._place}.spine")]
        self._writer.commit(records)

    def _used_before(self) -> bool:
        topics = (self.app.topics.decisions, self.app.topics.state)
        return any(low < high for topic in topics for low, high in self._reader.span(topic).ranges.values())

    def _run(self, until_end: bool, stop: Callable[[], bool]) -> None:
        with self._lanes.running(), rare_collections():
            # Who stays keeps its place in the group over a restart; who goes at the end leaves it.
            self._inbox.open(self._gain, self._revoke, self._lose, None if until_end else self._place)
            while self._failure is None and not stop() and not (until_end and self._at_end()):
                self._turn()
            self._drain()

    @property
    def held(self) -> int:
        """Records taken up that are not in a batch yet."""
        return sum(owner.tracker.running for owner in self._owned.values())

    @property
    def control(self) -> ControlState:
        """What the control topic said when it was last looked at."""
        return self._control.state

    def _at_end(self) -> bool:
        """Whether this member is through, and so are the others: one may just have died with its partitions."""
        if self.held or self._batch.decided or not self._inbox.at_end():
            return False
        return all_at_end(self._reader, self._inbox, self.app.topics.events)

    def _turn(self) -> None:
        """Obey, poll, hand out, collect, commit what is due."""
        self._obey()
        deciding = self.held > len(self._results) and not self._control.state.killed
        due = bool(self._batch.decided or self._results) and not self._control.state.killed
        self._take_in(0.0 if deciding else BUSY_WAIT_S if due else IDLE_POLL_S)
        self._collect(BUSY_WAIT_S if deciding else 0.0)
        if self._is_due():
            self._commit()
        if self._reporting.turned(self._clock()):
            waiting = self.held - len(self._results) - self._lanes.in_flight
            self._reporting.show(self._owned, self._lanes.in_flight, waiting, self._inbox.lags())

    def _obey(self) -> None:
        """Follow the control topic: while the app is killed nothing begins and nothing is committed."""
        try:
            state = self._control.poll()
        except RegistryUnreachable as error:
            _log.warning("a control record waits for the schema registry: %s", error.message)
            state = self._control.state
        require_same_spine(self.app, state.spine)
        self._reporting.controlled(state)
        self._throttle.set(state.decisions_per_minute)
        allowed = self._limits.in_flight_max if state.in_flight_max is None else state.in_flight_max
        self._lanes.limit(0 if state.killed else min(allowed, self._limits.in_flight_max))

    def _take_in(self, timeout_s: float) -> None:
        """Poll for what there is room for; where there is none for long, with the partitions paused."""
        now_s = self._clock()
        refused = bool(self._batch.decided)
        if not self._pressure.room(self._owned, now_s) and not self._pressure.stalled(now_s) and not refused:
            return
        self._inbox.pause(self._pressure.paused(self._owned, now_s))
        taken = []
        for record in self._inbox.poll(self._pressure.poll_max(self._owned, now_s), timeout_s):
            owner = self._owned.get(record.at.partition)
            if owner is not None and self._take(owner, record):
                taken.append((owner, record))
        if taken:
            self._lanes.submit(taken)

    def _take(self, owner: OwnedPartition, record: Record) -> bool:
        try:
            return owner.tracker.take(record.at.offset)
        except ValueError as error:
            raise UsageError(
                f"{record.at} comes again: the position of {self.app.group} is not on the topic, which was made anew "
                "or cut",
                "set it with kafka-consumer-groups --reset-offsets, or give the app a new name",
            ) from error

    def _collect(self, timeout_s: float) -> None:
        """Take over what was decided; what belongs to a partition that was lost is dropped."""
        for decided in self._lanes.collect(timeout_s):
            if isinstance(decided, BaseException):
                self._failure = self._failure or decided
                self._lanes.limit(0)
                continue
            self._reporting.decided(decided)
            if decided.owner.live:
                if not self._results:
                    self._oldest_at = self._clock()
                self._results.append(decided)

    def _is_due(self) -> bool:
        waiting = len(self._results) + len(self._batch.decided)
        if not waiting:
            return False
        lingered = self._clock() - self._oldest_at >= self._limits.linger_ms_max / 1000
        return waiting >= self._limits.batch_max or lingered or self.held == len(self._results)

    def _commit(self) -> None:
        """Seal a batch of what is decided and commit it; without the group's metadata it waits for the next poll."""
        if self._inbox.group_metadata is None or self._control.state.killed:
            return
        while self._results and len(self._batch.decided) < self._limits.batch_max:
            self._batch.add(self._results.popleft())
        began = self._clock()
        if self._batch.decided and self._committer.commit(self._batch):
            self._note_committed(self._clock() - began)
            self._batch = Batch()
            self._on_commit(self.summary)

    def _note_committed(self, took_s: float) -> None:
        batch = self._batch
        self._inbox.expect_more(batch.partitions_of(self.app.topics.events))
        self.summary.count_batch(batch.decided)
        self._reporting.committed(batch.decided, len(batch.outgoing), took_s)

    def _count_refused(self, reason: str) -> None:
        self.summary.refused_commits += 1
        self._reporting.refused(reason)

    def _commit_all(self) -> None:
        while self._results or self._batch.decided:
            before = self.summary.transactions
            self._commit()
            if self.summary.transactions == before:
                return

    def _drain(self) -> None:
        """Let nothing begin any more, and commit what is in flight as it finishes, within the deadline."""
        self._lanes.limit(0)
        self.stopping = True
        deadline = self._clock() + self._limits.drain_s_max
        while self._is_unfinished() and self._clock() < deadline:
            self._control.poll()
            self._inbox.pause(self._owned)
            self._inbox.poll(1, 0.0)  # for the membership alone: what a new partition brings is not taken up
            self._collect(BUSY_WAIT_S)
            if self._is_due():
                self._commit()
        self._collect(0.0)
        self._commit_all()

    def _is_unfinished(self) -> bool:
        """Whether anything is in flight, or waits for its commit and may have one."""
        uncommitted = bool(self._results or self._batch.decided)
        return self._lanes.in_flight > 0 or (uncommitted and not self._control.state.killed)

    def _gain(self, standing: Mapping[int, Unfinished | None]) -> None:
        """Take partitions over. A cut-over that saw nobody in the group has written its switch by now."""
        require_same_spine(self.app, read_controls(self._reader, self.app.topics, self._codec).state.spine)
        for number, stands in standing.items():
            rows = self._restorer.restore(number, stands)
            self._owned[number] = OwnedPartition(number, stands or Unfinished(0, 0), rows)
        self._reporting.gained(standing)

    def _revoke(self, partitions: Collection[int]) -> None:
        """Finish or abandon what is in flight of partitions that move on after this, commit, and forget them."""
        going = [self._owned[number] for number in partitions if number in self._owned]
        for owner in going:
            owner.closing = True
        deadline = self._clock() + self._limits.revoke_s_max
        while any(owner.running for owner in going) and self._clock() < deadline:
            self._collect(BUSY_WAIT_S)
        self._collect(0.0)
        self._commit_all()
        self._lose(partitions)

    def _lose(self, partitions: Collection[int]) -> None:
        """Drop everything of the partitions: whoever owns them now decides their events."""
        for number in partitions:
            owner = self._owned.pop(number, None)
            if owner is not None:
                owner.closing, owner.live = True, False
                self._lanes.forget(owner)
        before = len(self._batch.decided) + len(self._results)
        self._batch.drop_lost()
        self._results = deque(decided for decided in self._results if decided.owner.live)
        self._reporting.lost(partitions, before - len(self._batch.decided) - len(self._results))


def _is_tick(record: Record) -> bool:
    """A tick makes due what the facts below it have begun, however long these take to be decided."""
    return record.key == TICK_KEY
