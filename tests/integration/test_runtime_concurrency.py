"""Many keys decided at once on a real Kafka: in key order, exactly once, in bounded memory, whatever hangs."""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from confluent_kafka import Consumer, TopicPartition

from driftline.consumers import Answer, App, ProposalRequest
from driftline.consumers.control import make_setting, write_setting
from driftline.consumers.deciding import Decided
from driftline.consumers.lanes import Lanes
from driftline.consumers.partition import OwnedPartition
from driftline.consumers.prepare import prepare
from driftline.consumers.runtime import Runtime, RuntimeLimits
from driftline.examples.renewals.app import OUTCOMES
from driftline.examples.renewals.app import app as renewals
from driftline.log import KafkaReader, Record, Settings, TopicAdmin
from driftline.log.positions import read_metadata
from driftline.producers import Publisher
from driftline.producers.renewals import synthetic_renewals
from driftline.schemas import Codec, Event, Registry, UsageError
from driftline.schemas.control import Kill, Throttle

pytestmark = pytest.mark.integration

ANSWER = Answer(json.dumps({"type": OUTCOMES[0], "payload": {"term_months": 12, "rationale": "as it stands"}}))
PATIENCE_S = 60
"""Bounds a failing test; nothing waits for it in a passing one."""


SESSION = {"session.timeout.ms": 6_000}
"""The least that a broker takes: who is gone without a word keeps its partitions for so long."""


@pytest.fixture(scope="module")
def cluster(cluster: Settings) -> Settings:
    return cluster.model_copy(update={"kafka": {**cluster.kafka, **SESSION}})


class Proposer:
    """Notes who is in flight; subclasses hold answers back."""

    def __init__(self) -> None:
        self.in_flight: Counter[str] = Counter()
        self.most = 0
        self.calls: list[str] = []

    async def propose(self, request: ProposalRequest) -> Answer:
        workflow = request.key.workflow
        self.calls.append(workflow)
        self.in_flight[workflow] += 1
        assert self.in_flight[workflow] == 1, "two decisions of one key at once"
        self.most = max(self.most, self.in_flight.total())
        await self.hold(request)
        self.in_flight[workflow] -= 1
        return ANSWER

    async def hold(self, request: ProposalRequest) -> None:
        await asyncio.sleep(0)


class TogetherOnly(Proposer):
    """Answers nobody before so many ask at once."""

    def __init__(self, crowd: int) -> None:
        super().__init__()
        self._crowd = crowd
        self._enough = asyncio.Event()

    async def hold(self, request: ProposalRequest) -> None:
        if self.in_flight.total() >= self._crowd:
            self._enough.set()
        await asyncio.wait_for(self._enough.wait(), PATIENCE_S)


class Hanging(Proposer):
    """Never answers for some workflows."""

    def __init__(self, hung: set[str]) -> None:
        super().__init__()
        self._hung = hung

    async def hold(self, request: ProposalRequest) -> None:
        if request.key.workflow in self._hung:
            await asyncio.Event().wait()


@pytest.fixture
def app(cluster: Settings, app_name: str) -> App:
    app = replace(renewals, name=app_name)
    prepare(app, cluster)
    return app


def publish(app: App, settings: Settings, events: int, workflows: int | None = None) -> list[Event]:
    """Publish renewals, of so many workflows where that is given."""
    found = list(synthetic_renewals(events, 1))
    if workflows is not None:
        found = [replace(event, workflow=f"w{n % workflows}") for n, event in enumerate(found)]
    with Publisher(app.name, app.schemas, settings, source="crm") as publisher:
        for event in found:
            publisher.publish_event(event)
    return found


def runtime(app: App, settings: Settings, proposer: Proposer, slot: int = 0, **limits: float) -> Runtime:
    bounds = RuntimeLimits(**limits)  # type: ignore[arg-type]
    return Runtime(app, settings, proposer, lambda: datetime.now(UTC), slot, limits=bounds)


def decided(app: App, settings: Settings) -> dict[str, list[int]]:
    """Offsets of the decided inputs by workflow, in the order of their decisions."""
    codec, reader = Codec(Registry(settings.require_registry()), app.contracts), KafkaReader(settings)
    found = defaultdict(list)
    for record in reader.read(reader.span(app.topics.decisions)):
        decision = codec.decode(record.value).value
        found[decision["workflow"]].append(decision["input"]["offset"])
    return found


def check_order(app: App, settings: Settings, events: int) -> None:
    offsets = decided(app, settings)
    assert sum(map(len, offsets.values())) == events
    assert all(found == sorted(set(found)) for found in offsets.values())


def test_a_thousand_decisions_are_in_flight_at_once(cluster: Settings, app: App) -> None:
    publish(app, cluster, 1_000)
    proposer = TogetherOnly(1_000)
    runtime(app, cluster, proposer, in_flight_max=1_000).run(until_end=True)
    assert proposer.most == 1_000
    check_order(app, cluster, 1_000)


def test_one_decision_of_a_key_at_a_time_and_in_offset_order(cluster: Settings, app: App) -> None:
    publish(app, cluster, 300, workflows=7)
    proposer = Proposer()
    runtime(app, cluster, proposer).run(until_end=True)
    assert proposer.most <= 7
    check_order(app, cluster, 300)


def test_no_more_than_the_limit_are_in_flight(cluster: Settings, app: App) -> None:
    publish(app, cluster, 100)
    proposer = TogetherOnly(5)
    runtime(app, cluster, proposer, in_flight_max=5).run(until_end=True)
    assert proposer.most == 5


def test_a_full_buffer_pauses_and_nothing_is_lost(cluster: Settings, app: App) -> None:
    publish(app, cluster, 200)
    found = runtime(app, cluster, Proposer(), in_flight_max=4, buffered_max=8)
    most = []
    found.run(until_end=True, on_commit=lambda summary: most.append(found.held))
    assert max(most) <= 8
    check_order(app, cluster, 200)


def standing(app: App, settings: Settings) -> dict[int, tuple[int, ...]]:
    """The unfinished offsets of each partition as they are committed."""
    consumer = Consumer({"bootstrap.servers": settings.require_bootstrap(), "group.id": app.group})
    asked = [TopicPartition(app.topics.events, p) for p in range(settings.partitions)]
    found = {p.partition: read_metadata(p.metadata, p.offset).offsets for p in consumer.committed(asked, 30)}
    consumer.close()
    return found


def test_a_hung_key_stops_nobody_else_and_alone_is_decided_again(cluster: Settings, app: App) -> None:
    events = publish(app, cluster, 120)
    hung = {event.workflow for event in events[:3]}
    first = runtime(app, cluster, Hanging(hung), drain_s_max=0.0)
    first.run(stop=lambda: first.summary.decisions.total() == 117)
    assert sum(map(len, standing(app, cluster).values())) == 3
    after = Proposer()
    runtime(app, cluster, after).run(until_end=True)
    assert set(after.calls) == hung
    assert len(after.calls) == 3
    check_order(app, cluster, 120)


class UntilStopping(Proposer):
    """Answers nobody before the runtime lets nothing begin any more."""

    found: Runtime

    async def hold(self, request: ProposalRequest) -> None:
        while not self.found.stopping:
            await asyncio.sleep(0)


def test_a_stop_lets_what_is_in_flight_finish_and_begins_nothing(cluster: Settings, app: App) -> None:
    publish(app, cluster, 60)
    proposer = UntilStopping()
    proposer.found = found = runtime(app, cluster, proposer, in_flight_max=10)
    found.run(stop=lambda: proposer.in_flight.total() == 10)
    assert len(proposer.calls) == found.summary.decisions.total() == 10


class Slow(Proposer):
    """Answers when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = threading.Event()
        self.go_on = threading.Event()

    async def hold(self, request: ProposalRequest) -> None:
        self.asked.set()
        await asyncio.to_thread(self.go_on.wait, PATIENCE_S)


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as threads:
        yield threads


def test_a_model_slower_than_the_poll_interval_costs_no_membership(cluster: Settings, app: App) -> None:
    publish(app, cluster, 2)
    interval = cluster.model_copy(update={"kafka": {**cluster.kafka, "max.poll.interval.ms": 6_000}})
    proposer = SlowerThan(7.0)
    found = runtime(app, interval, proposer)
    found.run(until_end=True)
    assert (len(proposer.calls), found.summary.refused_commits) == (2, 0)
    check_order(app, cluster, 2)


class SlowerThan(Proposer):
    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._seconds = seconds

    async def hold(self, request: ProposalRequest) -> None:
        await asyncio.sleep(self._seconds)


def test_a_revoked_partition_takes_what_is_in_flight_with_it_and_nothing_is_decided_twice(
    cluster: Settings, app: App, threads: ThreadPoolExecutor
) -> None:
    publish(app, cluster, 40)
    first_models, second_models = Slow(), Slow()
    second_models.go_on.set()
    first = runtime(app, cluster, first_models, slot=0, in_flight_max=40, revoke_s_max=0.0)
    second = runtime(app, cluster, second_models, slot=1)

    def all_decided() -> bool:
        return first.summary.decisions.total() + second.summary.decisions.total() == 40

    running = [threads.submit(first.run, stop=all_decided)]
    assert first_models.asked.wait(PATIENCE_S)
    running.append(threads.submit(second.run, stop=all_decided))
    assert second_models.asked.wait(PATIENCE_S)
    first_models.go_on.set()
    for one in running:
        one.result(PATIENCE_S)
    assert second.summary.decisions.total() > 0
    check_order(app, cluster, 40)


def set_control(app: App, settings: Settings, value: Kill | Throttle, number: int) -> None:
    codec = Codec(Registry(settings.require_registry()), app.contracts)
    setting = make_setting(value, "the test says so", "test", datetime.now(UTC))
    write_setting(setting, app.topics, settings, codec, f"{app.name}-{number}")


def test_while_killed_nothing_begins_and_nothing_is_committed(cluster: Settings, app: App) -> None:
    publish(app, cluster, 20)
    set_control(app, cluster, Kill(killed=True), 0)
    proposer = Proposer()
    killed = runtime(app, cluster, proposer)
    turns = itertools.count()
    killed.run(stop=lambda: killed.held == 20 and next(turns) > 5)
    assert (proposer.calls, killed.summary.transactions) == ([], 0)
    set_control(app, cluster, Kill(killed=False), 1)
    resumed = runtime(app, cluster, proposer)
    resumed.run(until_end=True)
    check_order(app, cluster, 20)


def test_what_finishes_after_the_kill_is_committed_after_the_resume_alone(
    cluster: Settings, app: App, threads: ThreadPoolExecutor
) -> None:
    publish(app, cluster, 5)
    proposer = Slow()
    found = runtime(app, cluster, proposer)
    running = threads.submit(found.run, True)
    assert proposer.asked.wait(PATIENCE_S)
    set_control(app, cluster, Kill(killed=True), 0)
    while not found.control.killed:
        assert not running.done()
    proposer.go_on.set()
    while proposer.in_flight.total():
        assert not running.done()
    assert not decided(app, cluster)
    set_control(app, cluster, Kill(killed=False), 1)
    running.result(PATIENCE_S)
    check_order(app, cluster, 5)


def test_the_control_topic_bounds_what_is_in_flight_and_its_offset_stands_on_each_decision(
    cluster: Settings, app: App
) -> None:
    publish(app, cluster, 30)
    set_control(app, cluster, Throttle(in_flight_max=3), 0)
    proposer = TogetherOnly(3)
    runtime(app, cluster, proposer).run(until_end=True)
    assert proposer.most == 3
    codec, reader = Codec(Registry(cluster.require_registry()), app.contracts), KafkaReader(cluster)
    records = reader.read(reader.span(app.topics.decisions))
    assert {codec.decode(record.value).value["control_offset"] for record in records} == {0}


class FailingAfter(Proposer):
    """Answers until so many were answered, and is then no model at all."""

    def __init__(self, answers: int) -> None:
        super().__init__()
        self._answers = answers

    async def hold(self, request: ProposalRequest) -> None:
        if len(self.calls) > self._answers:
            raise UsageError("there is no such model any more")


def test_a_decision_that_fails_ends_the_run_and_what_was_paid_is_kept(cluster: Settings, app: App) -> None:
    publish(app, cluster, 30)
    first = runtime(app, cluster, FailingAfter(12), in_flight_max=1)
    with pytest.raises(UsageError, match="no such model"):
        first.run(until_end=True)
    assert first.summary.decisions.total() == 12
    after = Proposer()
    runtime(app, cluster, after).run(until_end=True)
    assert len(after.calls) == 18
    check_order(app, cluster, 30)


class FailingOnThird(Proposer):
    """Fails on the third event of a workflow, not before it is released."""

    def __init__(self, workflow: str) -> None:
        super().__init__()
        self.workflow = workflow
        self.reached = threading.Event()
        self.release = threading.Event()

    async def hold(self, request: ProposalRequest) -> None:
        if request.key.workflow == self.workflow and self.calls.count(self.workflow) == 3:
            self.reached.set()
            await asyncio.to_thread(self.release.wait, PATIENCE_S)
            raise UsageError("a rule of the app fails")


class PolledBeforeItIsSeen:
    """Hands further events of the workflow to the lanes after its decision failed, before the runtime hears of it."""

    def __init__(self, lanes: Lanes[Decided], proposer: FailingOnThird) -> None:
        self._lanes = lanes
        self._proposer = proposer
        self._submit = lanes.submit

    def __call__(self, records: Sequence[tuple[OwnedPartition, Record]]) -> None:
        of_the_workflow = any(record.key == self._proposer.workflow.encode() for _, record in records)
        fails_now = of_the_workflow and self._proposer.reached.is_set() and not self._proposer.release.is_set()
        if fails_now:
            self._proposer.release.set()
            self._settle()
        self._submit(records)
        if fails_now:
            self._settle()

    def _settle(self) -> None:
        asyncio.run_coroutine_threadsafe(self._idle(), self._lanes._loop).result(PATIENCE_S)

    async def _idle(self) -> None:
        while self._lanes._ready or self._lanes._workers:
            await asyncio.sleep(0)


def test_behind_a_decision_that_failed_nothing_of_its_workflow_is_decided_before_it(
    cluster: Settings, app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = publish(app, cluster, 300, workflows=20)
    proposer = FailingOnThird(events[0].workflow)
    first = runtime(app, cluster, proposer, buffered_max=40)
    monkeypatch.setattr(first._lanes, "submit", PolledBeforeItIsSeen(first._lanes, proposer))
    with pytest.raises(UsageError, match="a rule of the app fails"):
        first.run(until_end=True)
    assert proposer.release.is_set()
    assert proposer.calls.count(proposer.workflow) == 3
    runtime(app, cluster, Proposer()).run(until_end=True)
    check_order(app, cluster, 300)


def forget_positions(app: App, settings: Settings) -> None:
    TopicAdmin(settings).delete_group(app.group)


def set_positions_back(app: App, settings: Settings) -> None:
    consumer = Consumer({"bootstrap.servers": settings.require_bootstrap(), "group.id": app.group})
    back = [TopicPartition(app.topics.events, partition, 1) for partition in range(settings.partitions)]
    consumer.commit(offsets=back, asynchronous=False)
    consumer.close()


@pytest.mark.parametrize("spoil", [forget_positions, set_positions_back])
def test_a_group_whose_positions_are_gone_or_old_decides_nothing_anew(
    cluster: Settings, app: App, spoil: Callable[[App, Settings], None]
) -> None:
    publish(app, cluster, 20)
    rowless = replace(app, fold=None)
    runtime(rowless, cluster, Proposer()).run(until_end=True)
    spoil(app, cluster)
    again = Proposer()
    with pytest.raises(UsageError, match="is decided, but the group"):
        runtime(rowless, cluster, again).run(until_end=True)
    assert not again.calls
