"""From a record of the events topic to the records that account for it: event, row, decision."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import chain, repeat
from typing import Any, TypeVar

from driftline.consumers.app import App
from driftline.consumers.asking_tools import Protect, ask_tools, unprotected
from driftline.consumers.boundary import OnExhausted
from driftline.consumers.conversing import Steps, ToolsAsked
from driftline.consumers.dead import record_bytes, to_dead
from driftline.consumers.engine import Input, Outcome, decide
from driftline.consumers.partition import OwnedPartition
from driftline.consumers.proposing import Answer, Proposer
from driftline.consumers.rows import Row, row_record
from driftline.consumers.spine import Taken, spine_of
from driftline.consumers.tracing import Tracer
from driftline.log import Outgoing, Record, decision_record, to_event, to_outgoing
from driftline.schemas import (
    Codec,
    Decision,
    Event,
    InputCoordinates,
    NotCanonical,
    Read,
    RegistryUnreachable,
    Shape,
    Undecodable,
    UndecodableReason,
    Verdict,
    canonical_json,
)
from driftline.schemas.cloudevents import epoch_ms

T = TypeVar("T")

_log = logging.getLogger("driftline.deciding")

RECORD_BYTES_MAX = 1_000_000
"""A larger record does not fit a topic of Kafka's default size, whose 1 MiB counts headers and key too."""
REGISTRY_WAITS_S = (0.5, 1.0, 2.0, 5.0)
"""Between tries while the registry does not answer; the last one again and again."""


@dataclass(frozen=True, slots=True)
class Framed:
    """An input that was read, with what it does to its workflow's row, not kept yet."""

    record: Record
    event: Event
    taken: Taken
    given: Input | None
    """What the engine decides; None where no boundary does."""


@dataclass(frozen=True, slots=True)
class Decided:
    """What one input led to: all that the log is to say of it."""

    owner: OwnedPartition
    record: Record
    outgoing: Sequence[Outgoing]
    decision: Decision | None = None
    """None where no boundary decides the event, and where it cannot be decided."""
    dead: UndecodableReason | None = None
    """Why the input went to the dead topic."""
    repeat: bool = False
    """Whether an event of the same id was decided before."""
    traceparent: str | None = None
    """Trace context of the decision."""


class Decider:
    """Reads, folds and decides inputs; the caller sees to it that those of one key come in order, one at a time.

    Args:
        app: Whose inputs.
        codec: Reads and writes values.
        proposer: Answers the boundaries' requests.
        now: The wall clock, for `decided_at` alone.
        seed: Of the simulator's randomness.
        control: Offset of the control topic up to which settings are in force.
        tracer: Records the spans of decisions.
        sleep: Waits while the registry does not answer.
    """

    def __init__(
        self,
        app: App,
        codec: Codec,
        proposer: Proposer,
        now: Callable[[], datetime],
        seed: int = 0,
        control: Callable[[], int | None] = lambda: None,
        tracer: Tracer | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._app = app
        self._spine = spine_of(app)
        self._codec = codec
        self._proposer = proposer
        self._now = now
        self._seed = seed
        self._control = control
        self._tracer = tracer or Tracer()
        self._sleep = sleep
        self._shapes: dict[str, Shape] = {}

    async def decide(self, record: Record, owner: OwnedPartition) -> Decided:
        """Decide one input; one that cannot be decided leads to a record of the dead topic.

        While the registry does not answer for a schema that is not known yet, it waits: nothing is poison yet.

        Raises:
            UsageError: A prompt, a rule or the fold of the app fails on it, or no such model can be asked.
        """
        began_ns = self._now_ns() if self._tracer.on else 0
        try:
            framed = await self._frame(record, owner)
            outcome = None if framed.given is None else await drive(framed.given, self._proposer, self._shown)
            return self._account(framed, outcome and self._protected(outcome), owner, began_ns)
        except Undecodable as error:
            dead = to_dead(record, self._app.topics.dead, error)
            return Decided(owner, record, [dead], dead=error.reason)

    async def _frame(self, record: Record, owner: OwnedPartition) -> Framed:
        """Read an input and let the spine take it, without keeping the row that this makes."""
        event = await self._read(record)
        try:
            taken = self._spine.take(owner.rows, record.key or b"", event, record.at.offset)
            given = self._input(record, event, taken)
            _ = None if taken.row is None else taken.row.json, None if given is None else given.context_json
        except NotCanonical as error:
            raise Undecodable(UndecodableReason.NOT_CANONICAL, error.message) from error
        return Framed(record, event, taken, given)

    async def _read(self, record: Record) -> Event:
        """The event of a record. A schema that is met for the first time is asked for in a thread of its own."""
        if self._codec.knows(record.value):
            return to_event(record, self._codec)
        for wait_s in chain(REGISTRY_WAITS_S, repeat(REGISTRY_WAITS_S[-1])):
            try:
                return await asyncio.to_thread(to_event, record, self._codec)
            except RegistryUnreachable as error:
                _log.warning("%s waits for the schema registry: %s", record.at, error.message)
                await self._sleep(wait_s)
        raise AssertionError("the waits never end")

    def _shown(self, record: str, fields: Mapping[str, Any]) -> Mapping[str, Any]:
        """What a tool answered, as model and log may see it: a field that its record does not have has no tag.

        Raises:
            TypeError: It does not fit the record.
        """
        if record not in self._shapes:
            self._shapes[record] = Shape(self._app.contracts.require(record))
        if self._shapes[record].mismatches(dict(fields)):
            raise TypeError(f"no {record}")
        return self._codec.protect(record, fields)

    def _protected(self, outcome: Outcome) -> Outcome:
        """The outcome as it may be written: rows and decisions must not say what the events will not."""
        emitted = tuple(self._shielded(event) for event in outcome.emitted)
        if outcome.action_payload is None or emitted == outcome.emitted:
            return outcome
        return replace(outcome, emitted=emitted, action_payload=canonical_json(dict(emitted[0].data)))

    def _shielded(self, event: Event) -> Event:
        data = self._codec.protect(event.record, event.data)
        return event if data is event.data else replace(event, data=data)

    def _account(self, framed: Framed, outcome: Outcome | None, owner: OwnedPartition, began_ns: int) -> Decided:
        """Write down what the input led to, and keep its row where it has moved."""
        record, topics, key = framed.record, self._app.topics, framed.record.key or b""
        committed = () if outcome is None else outcome.emitted
        row = self._settled(framed, committed, owner)
        moved = framed.taken.moved or row is not framed.taken.row
        outgoing: list[Outgoing] = []
        decision = dead = traceparent = None
        if outcome is not None:
            after = None if row is None else row.version
            decision = outcome.decision(self._now(), self._control(), after)
            traceparent = self._trace(decision, began_ns, framed.event.traceparent)
            outgoing.append(decision_record(decision, topics.decisions, self._codec, traceparent))
        outgoing.extend(self._committed(framed.taken.emitted, record, framed.event.traceparent))
        outgoing.extend(self._committed(committed, record, traceparent))
        if row is not None and moved:
            time_ms = epoch_ms(framed.event.time)
            outgoing.append(row_record(topics.state, record.at.partition, key, time_ms, row, self._codec))
        _check_sizes(outgoing)
        if outcome is not None and _ends_dead(outcome):
            dead = UndecodableReason.EXHAUSTED
            outgoing.append(to_dead(record, topics.dead, Undecodable(dead, _last_words(outcome))))
        if moved:
            owner.rows.keep(key, row)
        return Decided(owner, record, outgoing, decision, dead, owner.is_repeat(framed.event.id), traceparent)

    def _settled(self, framed: Framed, committed: Sequence[Event], owner: OwnedPartition) -> Row | None:
        """The row with what is committed in it; where canonical JSON refuses it, the input is dead and nothing is."""
        row = self._spine.settle(owner.rows, framed.taken.row, committed, framed.record.at.offset)
        try:
            _ = None if row is None else row.json
        except NotCanonical as error:
            raise Undecodable(UndecodableReason.NOT_CANONICAL, error.message) from error
        return row

    def _committed(self, events: Sequence[Event], record: Record, traceparent: str | None) -> Iterator[Outgoing]:
        for event in events:
            traced = event if event.traceparent == traceparent else replace(event, traceparent=traceparent)
            yield to_outgoing(traced, self._app.topics.events, self._codec, record.at.partition)

    def _trace(self, decision: Decision, began_ns: int, traceparent: str | None) -> str | None:
        if not self._tracer.on:
            return traceparent
        return self._tracer.record(decision, began_ns, self._now_ns(), traceparent)

    def _now_ns(self) -> int:
        return int(self._now().timestamp() * 1e9)

    def _input(self, record: Record, event: Event, taken: Taken) -> Input | None:
        """What the engine is given: the event, and the row with the event in it."""
        bound = self._app.by_stream.get(event.type) if taken.decides else None
        if bound is None:
            return None
        legal = self._spine.legal(taken.row, bound.boundary.proposes)
        if legal is not None and not legal:
            return None  # whatever a model proposed could only be refused
        at = InputCoordinates(
            topic=record.at.topic,
            partition=record.at.partition,
            offset=record.at.offset,
            event_id=event.id,
            event_time=event.time,
        )
        data, version = ({}, None) if taken.row is None else (taken.row.data, taken.row.version)
        return Input(self._app.name, bound, event, at, data, version, self._seed, legal)


def _ends_dead(outcome: Outcome) -> bool:
    to_dead_topic = outcome.given.bound.boundary.on_exhausted is OnExhausted.DEAD
    return outcome.verdict is Verdict.REJECTED and to_dead_topic


def _last_words(outcome: Outcome) -> str:
    last = outcome.attempts[-1].rejections[0]
    return f"{len(outcome.attempts)} attempts; the last: {last.code} {last.message}"


def _check_sizes(outgoing: Sequence[Outgoing]) -> None:
    """What the broker would refuse time and again is found before the transaction begins."""
    for record in outgoing:
        size = record_bytes(record)
        if size > RECORD_BYTES_MAX:
            what = f"what it leads to on {record.topic} takes {size} bytes, at most {RECORD_BYTES_MAX}"
            raise Undecodable(UndecodableReason.OVERSIZE, what)


async def drive(given: Input, proposer: Proposer, protect: Protect = unprotected) -> Outcome:
    """Run the engine for one event: ask the proposer, and the tools that it asks for."""
    return await drive_steps(decide(given), proposer, protect)


async def drive_steps(steps: Steps[T], proposer: Proposer, protect: Protect = unprotected) -> T:
    """As `drive`, for the engine or a part of it: what the steps return."""
    wanted = next(steps)
    while True:
        if isinstance(wanted, ToolsAsked):
            told: Answer | Sequence[Read] = await ask_tools(wanted, protect)
        else:
            told = await proposer.propose(wanted)
        try:
            wanted = steps.send(told)
        except StopIteration as finished:
            result: T = finished.value
            return result
