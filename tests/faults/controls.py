"""Negative controls: workers that are known to be wrong, so that a clean report means something."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from confluent_kafka import KafkaException
from tests.faults import load, tracing
from tests.faults.checker import Report
from tests.faults.clients import Doom, TracedProducer
from tests.faults.faults import Scene, die_at
from tests.faults.proxy import END_TXN, Rule
from tests.faults.stand import Ground, Stand
from tests.faults.tracing import Trace
from tests.faults.worker import AT_LEAST_ONCE, RENEWED

from driftline.log import Outgoing, decision_record, to_outgoing
from driftline.schemas import Codec, Decision, Event, InputCoordinates, Registry, Verdict

ROUNDS = 3
SETTLE_S_MAX = 60.0
STEP_S_MAX = 10.0
SOCKET_TIMEOUT_MS = 1_000
OUTCOME = "driftline.renewals.ContractRenewed"
NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)


@dataclass(frozen=True)
class Control:
    """What the checker said of a worker that is known to be wrong, or of its right twin."""

    name: str
    wrong: bool
    """Whether it must be caught."""
    violations: Sequence[str]

    @property
    def as_expected(self) -> bool:
        """Whether the wrong one was caught, or the right one was not."""
        return bool(self.violations) == self.wrong


def run_controls(ground: Ground, seed: int) -> list[Control]:
    """Each control on an app of its own."""
    return [
        _control("at least once: produce, flush, commit offsets", True, at_least_once(ground, seed)),
        _control("transactions, producer used on after a slow EndTxn", True, slow_end(ground, "reusing", True)),
        _control("the same with a new producer after it", False, slow_end(ground, "renewing", False)),
    ]


def _control(name: str, wrong: bool, report: Report) -> Control:
    return Control(name, wrong, [str(violation) for violation in report.violations])


def at_least_once(ground: Ground, seed: int) -> Report:
    """The campaign's kills, of workers that commit offsets without a transaction."""
    chance = random.Random(f"at-least-once/{seed}")
    stand = Stand(ground, "at-least-once", chance, mode=AT_LEAST_ONCE)
    inputs = load.Load(stand.app.name, stand.settings, events=60, over_s=1.0)
    scene = Scene(stand, load.Raw(stand.app.name, stand.settings), chance)
    try:
        stand.fleet.start()
        for number in range(ROUNDS):
            publishing = inputs.begin(number, chance)
            die_at(tracing.COMMIT)(scene)
            publishing.join()
            stand.settle(SETTLE_S_MAX)
        return stand.report()
    finally:
        inputs.close()
        stand.close()


def slow_end(ground: Ground, app: str, reuse: bool) -> Report:
    """KIP-890's hanging request: an EndTxn that is delayed past the client's patience ends the next transaction.

    1. commit transaction 1; the first EndTxn is held, the client times out and sends another, which commits;
    2. write transaction 2, let the held EndTxn go; 3. abort transaction 2; 4. write the same again, and commit.

    Args:
        ground: Where.
        app: Name of the app.
        reuse: Whether the producer of transaction 1 goes on with transaction 2; else a new one takes the id over.
    """
    stand = Stand(ground, app, random.Random(app), partitions=1, mode=AT_LEAST_ONCE)
    loop = _Loop(stand)
    try:
        events = loop.publish(2)
        producer = loop.producer()
        held = ground.proxy.add(Rule(END_TXN, hold_s=60.0))
        loop.write(producer, events[0])
        producer.commit_transaction(STEP_S_MAX)
        assert held.caught.is_set()
        producer = producer if reuse else loop.producer()
        loop.write(producer, events[1])
        ground.proxy.release(held)
        loop.await_decisions(2 if reuse else 1)
        loop.abort(producer)
        producer = loop.producer()
        loop.write(producer, events[1])
        producer.commit_transaction(STEP_S_MAX)
        stand.settle(STEP_S_MAX)
        return stand.report()
    finally:
        stand.close()


class _Loop:
    """The steps of a consume-decide-commit loop, one at a time, through the proxy."""

    def __init__(self, stand: Stand) -> None:
        self._stand = stand
        self._trace = Trace(stand.ground.home / "traces" / stand.app.name / "loop.trace")
        self._codec = Codec(Registry(stand.settings.require_registry()), stand.app.contracts)

    def publish(self, count: int) -> list[Event]:
        """Put inputs on the log; their offsets are 0, 1, ..."""
        events = load.renewals(count, 1, random.Random(1))
        raw = load.Raw(self._stand.app.name, self._stand.settings)
        raw.put([raw.encode(event) for event in events])
        return events

    def producer(self) -> TracedProducer:
        """A producer that has taken the transactional id over."""
        made = TracedProducer(
            {
                "bootstrap.servers": f"127.0.0.1:{self._stand.ground.proxy.port}",
                "transactional.id": f"loop.{self._stand.app.name}",
                "transaction.timeout.ms": 30_000,
                "socket.timeout.ms": SOCKET_TIMEOUT_MS,
                "log_level": 0,
            },
            self._trace,
            Doom(),
        )
        made.init_transactions(STEP_S_MAX)
        return made

    def write(self, producer: TracedProducer, event: Event) -> None:
        """Begin a transaction and write what an input leads to."""
        producer.begin_transaction()
        for record in self._records(event):
            producer.produce(
                record.topic,
                record.value,
                record.key,
                headers=list(record.headers),
                partition=0,
                on_delivery=lambda error, message: None,
            )
        assert producer.flush(STEP_S_MAX) == 0

    def await_decisions(self, count: int) -> None:
        """Wait until so many decisions can be read as committed, or nothing more happens."""
        deadline = time.monotonic() + STEP_S_MAX / 5
        while time.monotonic() < deadline:
            self._stand.standing()
            if len(self._stand.seen.decisions) >= count:
                return

    def abort(self, producer: TracedProducer) -> None:
        """Abort, as a loop does whose batch was refused; that it may fail is no news to the checker."""
        try:
            producer.abort_transaction(STEP_S_MAX)
        except KafkaException as error:
            self._trace.note("abort failed", why=str(error))

    def _records(self, event: Event) -> list[Outgoing]:
        app, offset = self._stand.app, self._offset(event)
        emitted = Event(
            id=f"outcome of {event.id}",
            type=OUTCOME,
            source=f"driftline:{app.name}/renewal",
            workflow=event.workflow,
            time=NOON,
            record=OUTCOME,
            data={"term_months": 12, "rationale": "as it stands"},
        )
        at = InputCoordinates(
            topic=app.topics.events, partition=0, offset=offset, event_id=event.id, event_time=event.time
        )
        decision = _decision(app.name, event, at, emitted)
        return [
            decision_record(decision, app.topics.decisions, self._codec),
            to_outgoing(emitted, app.topics.events, self._codec),
        ]

    def _offset(self, event: Event) -> int:
        self._stand.standing()
        return next(seen.at[1] for seen in self._stand.seen.events if seen.id == event.id)


def _decision(app: str, event: Event, at: InputCoordinates, emitted: Event) -> Decision:
    facts: dict[str, Any] = {
        "decision_id": f"decision of {event.id}",
        "context": "{}",
        "context_hash": "-",
        "prompt_hash": "-",
        "model_requested": "control/none",
        "parameters": "{}",
        "verifier_version": "-",
    }
    return Decision(
        app=app,
        boundary="renewal",
        stream=event.type,
        workflow=event.workflow,
        input=at,
        attempts=(),
        verdict=Verdict.ACCEPTED,
        action_type=OUTCOME,
        action_payload=RENEWED,
        committed_event_ids=(emitted.id,),
        decided_at=datetime.now(UTC),
        **facts,
    )
