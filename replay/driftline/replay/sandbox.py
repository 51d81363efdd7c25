"""A sandbox: one workflow lived again from its outside facts alone, and committed nowhere.

What a boundary commits in it takes the place that the log gave to the event of the same derived id, whatever that
said: the same decisions in the same interleaving make the same rows. What has no place on the log follows at once.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from io import BytesIO
from typing import Any, Protocol

from fastavro import schemaless_reader, schemaless_writer

from driftline.consumers.app import App
from driftline.consumers.boundary import BoundBoundary
from driftline.consumers.engine import Input, Outcome
from driftline.consumers.row_timers import DueTimer
from driftline.consumers.rows import Rows
from driftline.consumers.spine import fired, spine_of
from driftline.replay.segment import LoggedDecision
from driftline.replay.workflows import LoggedEvent, Workflow, settle_in, take_in
from driftline.schemas import (
    ContractError,
    Contracts,
    Event,
    InputCoordinates,
    NotCanonical,
    Shape,
    canonical_json,
    content_hash,
    to_json_data,
)
from driftline.schemas.names import ESCALATED, TIMER_FIRED

AT_ONCE_MAX = 100
"""Events of one sandbox that have no place on the log; more of them is a candidate that feeds itself."""
LOST, UNPAID, FOREIGN, RUNAWAY, UNRECORDED = "lost", "unpaid", "foreign_cause", "runaway", "unrecorded_read"
"""Why a sandbox may end early: a call came to nothing; the budget ended; a fact was caused in another workflow, which
this sandbox does not hold; what it commits leads to more and more; the log has no answer of a tool that was asked."""


class EndedEarly(Exception):
    """A sandbox cannot go on; `why` is one of the reasons above."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


class Decides(Protocol):
    """An arm that decides in sandboxes."""

    def bound(self, bound: BoundBoundary, logged: LoggedDecision | None) -> BoundBoundary:
        """The boundary as the arm has it: its model, prompt and parameters."""

    async def decide(self, given: Input, logged: LoggedDecision | None) -> Outcome:
        """Decide one event.

        Raises:
            EndedEarly: A call was lost or may not be paid.
        """


@dataclass(frozen=True, slots=True)
class SandboxDecision:
    """What an arm decided of an event."""

    logged: LoggedDecision | None
    """What the log decided at the same place; None where the log has nothing there."""
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class SandboxRun:
    """What came of a workflow in a sandbox."""

    workflow: Workflow
    decisions: tuple[SandboxDecision, ...]
    committed: tuple[Event, ...]
    """Everything that boundaries committed, in order."""
    row: str | None
    """The final row as canonical JSON; None where the app keeps none."""
    facts_fed: int
    facts_withheld: int
    ended: str | None
    """Why it ended early; None when it came to the end of its workflow."""

    @property
    def complete(self) -> bool:
        """Whether there is an outcome to compare. A runaway is one: nothing that it would do next mends it."""
        return self.ended in (None, RUNAWAY)


@dataclass
class Sameness:
    """Whether two events say the same: the same id and record, and equal in every field that is compared."""

    contracts: Contracts
    _shapes: dict[str, Shape | None] = field(default_factory=dict)

    def same(self, one: Event, other: Event) -> bool:
        """Whether the world outside could not tell one from the other."""
        return one.id == other.id and self.hash(one.record, one.data) == self.hash(other.record, other.data)

    def hash(self, record: str, payload: Mapping[str, Any]) -> str:
        """Hash at the level of the action. Of an escalation: who escalates; how often and why it failed is told."""
        data = to_json_data(payload)
        if record == ESCALATED:
            data = {"boundary": data["boundary"]}
        elif (shape := self._shape(record)) is not None and not shape.mismatches(data):
            data = shape.compared(data)
        return content_hash(canonical_json([record, data]))

    def _shape(self, record: str) -> Shape | None:
        if record not in self._shapes:
            try:
                self._shapes[record] = Shape(self.contracts.require(record))
            except ContractError:
                self._shapes[record] = None
        return self._shapes[record]


class Sandbox:
    """One workflow, one arm; run once.

    1. Facts from outside are fed as they lie on the log; one whose cause did not happen here, or happened
    otherwise, is withheld. 2. The spine takes each event into the row. 3. Where a boundary decides its type, the arm
    decides it. 4. What that commits is fed where the log has the event of its id, else at once. An event that the
    log passed over is passed over when it is the same. 5. Timers are the row's own. One that the log has too fires
    where it lies there, as late as the log's clock was; any other before the first event that comes after it is due,
    and at the end, as far as the clock came.

    Args:
        app: Whose code.
        workflow: What is lived again.
        arm: Decides.
        sameness: Compares events.
        seed: Of the simulator's randomness.
        until: Event time that the log's clock came to; None where nobody told it.
    """

    def __init__(
        self,
        app: App,
        workflow: Workflow,
        arm: Decides,
        sameness: Sameness,
        seed: int = 0,
        until: datetime | None = None,
    ) -> None:
        self._app, self._workflow, self._arm, self._sameness, self._seed = app, workflow, arm, sameness, seed
        self._spine = spine_of(app)
        self._until = until
        self._key = workflow.name.encode()
        self._rows = Rows(app.row_fold)
        self._logged = {logged.event.id: logged.event for logged in workflow.events}
        fired_then = [logged for logged in workflow.events if logged.event.record == TIMER_FIRED]
        self._timers = {logged.event.id: logged for logged in reversed(fired_then)}
        """Timers that fired on the log: what the sandbox's own lead to is held against what was decided then. Of one
        that was told twice the first counts; the other was void."""
        self._timer_places = Counter(map(_timer_of, fired_then))
        """Places on the log that are still to come, by name and due time of the timer."""
        self._places = Counter(logged.event.id for logged in workflow.events if logged.committed)
        """Places on the log that are still to come, by event id."""
        self._waiting: dict[str, deque[Event]] = {}
        self._happened: dict[str, Event] = {}
        self._decisions: list[SandboxDecision] = []
        self._committed: list[Event] = []
        self._fed = self._withheld = self._at_once = 0

    async def run(self) -> SandboxRun:
        """Live the workflow to its end, or as far as it goes.

        Raises:
            UsageError: The app's fold, a prompt or a rule fails on what happened.
        """
        ended = None
        try:
            for logged in self._workflow.events:
                await self._fire_until(logged.event.time)
                await self._come_to(logged)
            if self._until is not None:
                await self._fire_until(self._until)
        except EndedEarly as early:
            ended = early.why
        row = self._rows.get(self._key)
        return SandboxRun(
            self._workflow,
            tuple(self._decisions),
            tuple(self._committed),
            None if row is None else row.json,
            self._fed,
            self._withheld,
            ended,
        )

    async def _fire_until(self, time: datetime) -> None:
        """Let the row's timers fire that the log has no place for; one may start another."""
        while self._until is not None and (due := self._rows.due(min(time, self._until))):
            for timer in due:
                if not self._timer_places[timer.name, timer.due_at]:
                    await self._fire(timer)

    async def _fire_at(self, logged: LoggedEvent) -> None:
        """Let the timer fire that the log has here, if it runs here too. What was void there is passed over."""
        name, due_at = place = _timer_of(logged)
        self._timer_places[place] -= 1
        row = self._rows.get(self._key)
        if row is None or row.timers.get(name) != due_at:
            return
        if row.version == logged.event.data["row_version"] or not self._timer_places[place]:
            await self._fire(DueTimer(self._key, name, row.version, due_at))

    async def _fire(self, timer: DueTimer) -> None:
        event = fired(self._app, timer)
        await self._feed(event, self._timers.get(event.id))

    async def _come_to(self, logged: LoggedEvent) -> None:
        if logged.event.record == TIMER_FIRED:
            await self._fire_at(logged)
            return
        if logged.committed:
            self._places[logged.event.id] -= 1
            waiting = self._waiting.get(logged.event.id)
            if waiting:
                await self._feed(waiting.popleft(), logged)
        elif self._is_caused(logged.event):
            self._fed += 1
            await self._feed(logged.event, logged)
        else:
            self._withheld += 1

    def _is_caused(self, fact: Event) -> bool:
        """Whether what led to a fact has happened here as it did then. What the log does not know came from outside.

        Raises:
            EndedEarly: It was caused in another workflow.
        """
        cause = fact.causation_id
        if cause in self._workflow.foreign_causes:
            raise EndedEarly(FOREIGN)
        then = None if cause is None else self._logged.get(cause)
        if then is None:
            return True
        now = self._happened.get(then.id)
        return now is not None and self._sameness.same(now, then)

    async def _feed(self, event: Event, place: LoggedEvent | None) -> None:
        self._happened[event.id] = event
        if place is not None and place.passed_over and self._sameness.same(event, place.event):
            return
        at = self._at(event, place)
        bound = self._app.by_stream.get(event.type)
        logged = None if place is None or bound is None else _of_boundary(bound, place.decision)
        taken = take_in(self._spine, self._rows, self._key, event, at.offset)
        if taken is None:
            return
        for emitted in taken.emitted:
            await self._commit(as_read(emitted, self._app.contracts))
        if bound is None or not taken.decides:
            return
        outcome = await self._decide(event, at, self._arm.bound(bound, logged), logged)
        if outcome is not None:
            self._decisions.append(SandboxDecision(logged, outcome))
            committed = [as_read(emitted, self._app.contracts) for emitted in outcome.emitted]
            settle_in(self._spine, self._rows, self._key, committed, at.offset)
            for emitted in committed:
                await self._commit(emitted)

    async def _decide(
        self, event: Event, at: InputCoordinates, bound: BoundBoundary, logged: LoggedDecision | None
    ) -> Outcome | None:
        """None where nothing may follow, or the context cannot be recorded (the runtime calls such an input dead)."""
        row = self._rows.get(self._key)
        legal = self._spine.legal(row, bound.boundary.proposes)
        if legal is not None and not legal:
            return None
        data, version = ({}, None) if row is None else (row.data, row.version)
        given = Input(self._app.name, bound, event, at, data, version, self._seed, legal)
        try:
            _ = given.context_json
        except NotCanonical:
            return None
        return await self._arm.decide(given, logged)

    async def _commit(self, event: Event) -> None:
        """Let an event wait for its place on the log, or feed it now."""
        self._committed.append(event)
        waiting = self._waiting.setdefault(event.id, deque())
        if self._places[event.id] > len(waiting):
            waiting.append(event)
            return
        self._at_once += 1
        if self._at_once > AT_ONCE_MAX:
            raise EndedEarly(RUNAWAY)
        await self._feed(event, None)

    def _at(self, event: Event, place: LoggedEvent | None) -> InputCoordinates:
        """Where the input lies; one that the log does not have gets coordinates that no topic has."""
        if place is None:
            topic, partition, offset = f"sandbox:{event.id}", self._workflow.events[0].at.partition, self._at_once
        else:
            topic, partition, offset = place.at.topic, place.at.partition, place.at.offset
        return InputCoordinates(
            topic=topic, partition=partition, offset=offset, event_id=event.id, event_time=event.time
        )


def _timer_of(logged: LoggedEvent) -> tuple[str, datetime]:
    """Name and due time of a timer that fired."""
    return logged.event.data["timer"], logged.event.data["due_at"]


def _of_boundary(bound: BoundBoundary, logged: LoggedDecision | None) -> LoggedDecision | None:
    """A decision, unless another boundary took it: of another event that the log has at this place."""
    return logged if logged is not None and logged.decision.boundary == bound.boundary.name else None


def as_read(event: Event, contracts: Contracts) -> Event:
    """A committed event as a consumer reads it: its payload by way of Avro, defaults and number types included."""
    schema = contracts.require(event.record).parsed
    written = BytesIO()
    schemaless_writer(written, schema, event.data, strict_allow_default=True, disable_tuple_notation=True)
    written.seek(0)
    data: Any = schemaless_reader(written, schema, None)
    return replace(event, data=data)
