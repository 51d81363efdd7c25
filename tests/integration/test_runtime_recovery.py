"""The runtime killed, fenced and rebalanced on a real Kafka: every input is decided exactly once.

The file is also the program that is killed: `python test_runtime_recovery.py APP BOOTSTRAP REGISTRY POINT`.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition
from confluent_kafka.admin import AdminClient

from driftline.consumers import Answer, App, ProposalRequest
from driftline.consumers.batch import Batch
from driftline.consumers.committing import OUTAGE_S_MAX, Committer
from driftline.consumers.deciding import Decided
from driftline.consumers.partition import OwnedPartition
from driftline.consumers.prepare import prepare
from driftline.consumers.rows import Rows
from driftline.consumers.runtime import RunSummary, Runtime, RuntimeLimits
from driftline.examples.renewals.app import OUTCOMES
from driftline.examples.renewals.app import app as renewals
from driftline.log import (
    CommitRefused,
    GroupConsumer,
    Outgoing,
    Record,
    Settings,
    TransactionalWriter,
    Unfinished,
    WriterFenced,
)
from driftline.log.clients import REQUEST_TIMEOUT_S
from driftline.log.membership import is_member
from driftline.log.writer import TRANSACTION_TIMEOUT_MS, Transaction
from driftline.producers import Publisher
from driftline.producers.renewals import synthetic_renewals
from driftline.schemas import Codec, KafkaUnreachable, Registry

pytestmark = pytest.mark.integration

EVENTS = 30
RENEWED = json.dumps({"type": OUTCOMES[0], "payload": {"term_months": 12, "rationale": "as it stands"}})
NOBODY = "nowhere:0"
"""Runs to the end."""


SESSION = {"session.timeout.ms": 6_000}
"""The least that a broker takes: who is gone without a word keeps its partitions for so long."""


@pytest.fixture(scope="module")
def cluster(cluster: Settings) -> Settings:
    return cluster.model_copy(update={"kafka": {**cluster.kafka, **SESSION}})


class Renewing:
    """A proposer that renews every contract, and does something before each answer."""

    def __init__(self, before: Callable[[int], None] = lambda call: None) -> None:
        self._before = before
        self.calls = 0

    async def propose(self, request: ProposalRequest) -> Answer:
        self.calls += 1
        self._before(self.calls)
        return Answer(RENEWED)


def make_runtime(app: App, settings: Settings, proposer: Renewing, slot: int = 0) -> Runtime:
    """A runtime whose transactions hold two events at most."""
    limits = RuntimeLimits(batch_max=2)
    return Runtime(app, settings, proposer, lambda: datetime.now(UTC), slot, limits=limits)


def die(*_: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def main(app_name: str, bootstrap: str, registry: str, point: str) -> None:
    """Run the app to its end, or die at a point: the n-th time that something is about to happen or has happened."""
    where, _, number = point.partition(":")
    settings = Settings(bootstrap_servers=bootstrap, registry_url=registry)
    proposer = Renewing(lambda call: die() if where == "proposing" and call == int(number) else None)
    if where in HOOKS:
        name, before = HOOKS[where]
        _hook(name, before, int(number))
    make_runtime(replace(renewals, name=app_name), settings, proposer).run(until_end=True)


HOOKS = {
    "before-producing": ("send", True),
    "before-positions": ("send_positions", True),
    "before-commit": ("commit", True),
    "after-commit": ("commit", False),
}
"""Steps of a transaction: die before or after the n-th.

The first transaction of a run holds the artifacts, and is written, not sent."""


def _hook(name: str, before: bool, number: int) -> None:
    step, count = getattr(Transaction, name), itertools.count(1)

    def hooked(*args: Any) -> Any:
        now = next(count) == number
        if now and before:
            die()
        found = step(*args)
        if now:
            die()
        return found

    setattr(Transaction, name, hooked)


def start(app: App, settings: Settings, point: str) -> int:
    """Run the program until it ends or is killed; its exit code."""
    arguments = [app.name, settings.require_bootstrap(), settings.require_registry(), point]
    command = [sys.executable, str(Path(__file__)), *arguments]
    clients = {**os.environ, "DRIFTLINE_KAFKA": json.dumps(settings.kafka)}
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120, env=clients)
    assert done.returncode in {0, -signal.SIGKILL}, done.stderr
    return done.returncode


def publish(app: App, settings: Settings, seed: int = 1) -> None:
    with Publisher(app.name, app.schemas, settings, source="crm") as publisher:
        for event in synthetic_renewals(EVENTS, seed):
            publisher.publish_event(event)


def make_app(name: str, settings: Settings) -> App:
    """An app of its own, with events to decide."""
    app = replace(renewals, name=name)
    prepare(app, settings)
    publish(app, settings)
    return app


@pytest.fixture
def app(cluster: Settings, app_name: str) -> App:
    return make_app(app_name, cluster)


def committed(settings: Settings, topic: str) -> Iterator[Any]:
    """Every committed message of a topic, by a consumer that shares nothing with the runtime."""
    consumer = Consumer(
        {
            "bootstrap.servers": settings.require_bootstrap(),
            **settings.kafka,
            "group.id": "checker",
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "enable.auto.commit": False,
        }
    )
    open_ = set(range(settings.partitions))
    consumer.list_topics(topic, timeout=30)  # or `assign` waits half a second for its leaders
    consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in open_])
    while open_:
        message = consumer.poll(30)
        assert message is not None, f"{topic} went silent"
        error = message.error()
        if error is None:
            yield message
        else:
            assert error.code() == KafkaError._PARTITION_EOF, error
            open_.discard(message.partition())
    consumer.close()


def header(message: Any, name: str) -> str:
    return str(dict(message.headers())[name].decode())


def check_exactly_once(app: App, settings: Settings, events: int = EVENTS) -> None:
    """Every input decided once, in order per key; every outcome there once; every row of its last event."""
    codec = Codec(Registry(settings.require_registry()), app.contracts)
    messages = list(committed(settings, app.topics.events))
    inputs = [message for message in messages if header(message, "ce_source") == "crm"]
    decisions = [codec.decode(message.value()).value for message in committed(settings, app.topics.decisions)]
    decided = [(decision["input"]["partition"], decision["input"]["offset"]) for decision in decisions]
    assert Counter(decided) == Counter((message.partition(), message.offset()) for message in inputs)
    assert len(decided) == events
    by_key = defaultdict(list)
    for decision in decisions:
        by_key[decision["workflow"]].append(decision["input"]["offset"])
    assert all(offsets == sorted(offsets) for offsets in by_key.values())
    outcomes = Counter(header(message, "ce_id") for message in messages if header(message, "ce_source") != "crm")
    assert outcomes == Counter(id_ for decision in decisions for id_ in decision["committed_event_ids"])
    rows = {message.key(): codec.decode(message.value()).value for message in committed(settings, app.topics.state)}
    assert {key: row["as_of"] for key, row in rows.items()} == {m.key(): m.offset() for m in messages}
    assert Counter(row["version"] for row in rows.values()) == Counter(Counter(m.key() for m in messages).values())


KILLS: Mapping[str, Sequence[str]] = {
    "before the first answer": ["proposing:1"],
    "within a batch": ["proposing:12"],
    "before the records are produced": ["before-producing:3"],
    "before the positions are sent": ["before-positions:3"],
    "before the commit": ["before-commit:3"],
    "after the commit": ["after-commit:4"],
    "twice": ["after-commit:3", "before-commit:4"],
}


@pytest.fixture(scope="module")
def killed(cluster: Settings) -> Iterator[Mapping[str, Future[App]]]:
    """Apps whose process was killed and started again until it came to the end, all at once: a group waits 10 s."""
    with ThreadPoolExecutor(len(KILLS)) as pool:
        yield {
            story: pool.submit(_kill_and_finish, f"killed{number}", points, cluster)
            for number, (story, points) in enumerate(KILLS.items())
        }


def _kill_and_finish(name: str, points: Sequence[str], settings: Settings) -> App:
    app = make_app(name, settings)
    for point in points:
        assert start(app, settings, point) == -signal.SIGKILL
    assert start(app, settings, NOBODY) == 0
    return app


@pytest.mark.parametrize("story", KILLS)
def test_a_killed_process_is_taken_up_where_it_was(
    cluster: Settings, killed: Mapping[str, Future[App]], story: str
) -> None:
    check_exactly_once(killed[story].result(200), cluster)


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as threads:
        yield threads


def test_a_second_process_in_the_same_slot_fences_the_first(
    cluster: Settings, app: App, threads: ThreadPoolExecutor
) -> None:
    deciding, go_on = threading.Event(), threading.Event()

    def block(call: int) -> None:
        deciding.set()
        assert go_on.wait(60)

    first: Future[RunSummary] = threads.submit(make_runtime(app, cluster, Renewing(block)).run, True)
    assert deciding.wait(60)
    second = make_runtime(app, cluster, Renewing())
    second.run(stop=lambda: True)
    go_on.set()
    with pytest.raises(CommitRefused, match="another process may run with the same app and slot") as caught:
        first.result(60)
    assert (caught.value.fenced, caught.value.exit_code) == (True, os.EX_TEMPFAIL)
    make_runtime(app, cluster, Renewing()).run(until_end=True)
    check_exactly_once(app, cluster)


class Clock:
    """A clock that tests advance."""

    def __init__(self) -> None:
        self.time = 0.0

    def __call__(self) -> float:
        return self.time


class Slot:
    """A process slot: its place in the group, its transactional id, and a batch to be committed."""

    def __init__(self, app: App, settings: Settings) -> None:
        place = f"driftline.{app.name}.0"
        self._partitions = settings.partitions
        self.clock = Clock()
        self.writer = TransactionalWriter(settings, place)
        self.inbox = GroupConsumer(settings, app.group, app.topics.events)
        self.inbox.open(lambda standing: None, lambda partitions: None, instance=place)
        still_in = partial(is_member, settings, app.group)
        self._committer = Committer(self.writer, self.inbox, app.topics.events, still_in, clock=self.clock)

    def batch(self) -> Batch:
        """Of the next record; until there is one, the slot joins the group."""
        records: list[Record] = []
        while not records or self.inbox.group_metadata is None or len(self.inbox.owned) < self._partitions:
            records += self.inbox.poll(1, 0.05)
        at = records[0].at
        owner, batch = OwnedPartition(at.partition, Unfinished(at.offset, at.offset), Rows(None)), Batch()
        owner.tracker.take(at.offset)
        batch.add(Decided(owner, records[0], []))
        return batch

    def commit_late(self, batch: Batch, monkeypatch: pytest.MonkeyPatch) -> bool:
        """Commit; the first try takes as long as a transaction may."""
        plain, late = Transaction.send, iter([TRANSACTION_TIMEOUT_MS / 1000])

        def send(transaction: Transaction, records: Sequence[Outgoing]) -> None:
            self.clock.time += next(late, 0.0)
            plain(transaction, records)

        with monkeypatch.context() as patched:
            patched.setattr(Transaction, "send", send)
            return self._committer.commit(batch)

    def close(self) -> None:
        self.inbox.close()
        self.writer.close()


@pytest.fixture
def slots(cluster: Settings, app: App) -> Iterator[Callable[[], Slot]]:
    with ExitStack() as closing:

        def make() -> Slot:
            slot = Slot(app, cluster)
            closing.callback(slot.close)
            return slot

        yield make


def test_a_process_that_wakes_after_its_successor_came_leaves_it_the_transactional_id(
    slots: Callable[[], Slot], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = slots()
    batch = first.batch()
    first.writer.open()
    second = slots()
    second.writer.open()
    other = second.batch()
    with pytest.raises(WriterFenced, match="its place in the group is lost") as caught:
        first.commit_late(batch, monkeypatch)
    assert caught.value.exit_code == os.EX_TEMPFAIL
    assert second.commit_late(other, monkeypatch)
    assert second.writer.producers_replaced == 0


def test_a_member_whose_transaction_outlived_its_timeout_takes_the_id_back_and_commits(
    cluster: Settings, slots: Callable[[], Slot], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The coordinator tells such a one what it tells whom another producer has fenced."""
    slot = slots()
    batch = slot.batch()
    slot.writer.open()
    TransactionalWriter(cluster, slot.writer.transactional_id).open()
    assert slot.commit_late(batch, monkeypatch)
    assert slot.writer.producers_replaced == 1


def test_a_broker_that_does_not_answer_the_start_of_a_new_producer_is_asked_again(
    slots: Callable[[], Slot], monkeypatch: pytest.MonkeyPatch
) -> None:
    slot = slots()
    batch = slot.batch()
    plain, answers = slot.writer.open, iter([False])

    def open_() -> None:
        if not next(answers, True):
            raise KafkaUnreachable("no Kafka answers")
        plain()

    monkeypatch.setattr(slot.writer, "open", open_)
    assert slot.commit_late(batch, monkeypatch)


def test_a_broker_that_answers_no_start_of_a_producer_ends_the_process_after_the_longest_outage(
    slots: Callable[[], Slot], monkeypatch: pytest.MonkeyPatch
) -> None:
    slot = slots()
    batch = slot.batch()

    def open_() -> None:
        slot.clock.time += REQUEST_TIMEOUT_S
        raise KafkaUnreachable("no Kafka answers")

    monkeypatch.setattr(slot.writer, "open", open_)
    with pytest.raises(KafkaUnreachable):
        slot.commit_late(batch, monkeypatch)
    assert OUTAGE_S_MAX < slot.clock.time <= OUTAGE_S_MAX + REQUEST_TIMEOUT_S


def partitions_of_members(settings: Settings, app: App) -> list[int]:
    """How many partitions each member of the group has."""
    admin = AdminClient({"bootstrap.servers": settings.require_bootstrap()})
    described = admin.describe_consumer_groups([app.group])[app.group].result(30)
    return [len(member.assignment.topic_partitions) for member in described.members]


class Team:
    """Two runtimes of one app in different slots, until together they have decided so many events."""

    def __init__(self, app: App, settings: Settings, proposers: tuple[Renewing, Renewing], decisions: int) -> None:
        self.runtimes = [make_runtime(app, settings, one, slot) for slot, one in enumerate(proposers)]
        self.decisions = decisions

    def decided(self) -> list[int]:
        return [runtime.summary.decisions.total() for runtime in self.runtimes]

    def run(self, slot: int) -> RunSummary:
        return self.runtimes[slot].run(stop=lambda: sum(self.decided()) >= self.decisions)


def test_two_processes_share_the_partitions_and_decide_nothing_twice(
    cluster: Settings, app: App, threads: ThreadPoolExecutor
) -> None:
    make_runtime(app, cluster, Renewing()).run(until_end=True)
    team = Team(app, cluster, (Renewing(), Renewing()), EVENTS)
    running = [threads.submit(team.run, slot) for slot in (0, 1)]
    while partitions_of_members(cluster, app) != [1, 1]:
        assert not any(one.done() for one in running)
    publish(app, cluster, seed=2)
    for one in running:
        one.result(60)
    assert all(team.decided())
    make_runtime(app, cluster, Renewing()).run(until_end=True)  # what they had not folded yet
    check_exactly_once(app, cluster, 2 * EVENTS)


def test_a_process_that_joins_in_the_middle_takes_over_without_deciding_twice(
    cluster: Settings, app: App, threads: ThreadPoolExecutor
) -> None:
    in_the_middle, joined = threading.Event(), threading.Event()

    def wait_for_the_other(call: int) -> None:
        if call == 7:
            in_the_middle.set()
            assert joined.wait(60)

    team = Team(app, cluster, (Renewing(wait_for_the_other), Renewing()), EVENTS)
    first = threads.submit(team.run, 0)
    assert in_the_middle.wait(60)
    second = threads.submit(team.run, 1)
    while len(partitions_of_members(cluster, app)) < 2:
        assert not second.done()
    joined.set()
    first.result(60)
    second.result(60)
    make_runtime(app, cluster, Renewing()).run(until_end=True)
    check_exactly_once(app, cluster)


if __name__ == "__main__":
    main(*sys.argv[1:])
