"""What a state machine would have said of an event log's decisions, one by one; asks no model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from driftline.consumers.app import App
from driftline.consumers.machine_rows import illegal, state_of
from driftline.consumers.row_timers import DueTimer
from driftline.consumers.rows import Rows
from driftline.consumers.sources import TIMER, source_of
from driftline.consumers.spine import StateMachine, Taken, fired
from driftline.log import LogReader
from driftline.replay.segment import LoggedDecision, Selection
from driftline.replay.workflows import History, LoggedEvent, Workflow, load_workflows, settle_in, take_in
from driftline.schemas import Codec, Decision, Event, Verdict
from driftline.schemas.names import ESCALATED, TIMER_FIRED

EXAMPLES_MAX = 3
ILLEGAL, NOT_ASKED = "illegal_transition", "not_asked"
"""What the machine says otherwise: it refuses, or an escalation leads nowhere, so that the case would stay where it
is; no model would have been asked, since the row's state allows nothing that the boundary proposes, or what was
decided on is a timer that the row does not have."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Decisions that the state machine takes otherwise in the same way."""

    boundary: str
    stream: str
    state: str
    """The row's, on the state machine, before the decision."""
    proposed: str
    """What the log committed."""
    why: str
    """`illegal_transition` or `not_asked`."""
    expected: str
    """What would have been legal."""
    decisions: int
    examples: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SpineCheck:
    """What came out."""

    decisions: int
    agree: int
    differences: tuple[Difference, ...]
    """Commonest first."""
    states: Mapping[str, int]
    """Workflows by the state that the machine has them in at the end."""

    @property
    def verdict(self) -> str:
        """`equivalent` where every decision is taken as it was."""
        return "equivalent" if self.agree == self.decisions else "diverged"


def check_spines(reader: LogReader, codec: Codec, app: App, selection: Selection) -> SpineCheck:
    """Walk the workflows of a segment on the state machine, by what the event log decided.

    Each decision meets the row that the machine has by then. A record that the log committed and the machine refuses
    moves no row of the machine's: what follows from it is told too.

    Timers are the row's own, as in a sandbox. One that the log has too fires where it lies there, whatever version
    the log's row had; any other before the first event that comes after it is due, and at the end, as far as the
    log's clock came.

    Args:
        reader: Reads the log.
        codec: Decodes events.
        app: On the state-machine spine.
        selection: Which workflows: those that begin in it.

    Raises:
        UsageError: No workflow with a decision begins in the segment, or the fold fails.
        EnvironmentUnreachable: A broker or the registry does not answer.
    """
    return check_history(app, load_workflows(reader, codec, app, selection))


def check_history(app: App, history: History) -> SpineCheck:
    """As `check_spines`, over workflows that were read."""
    checking = _Checking(app, history.ticked)
    for workflow in history.workflows:
        checking.walk(workflow)
    return checking.result()


def check_data(app: str, result: SpineCheck) -> dict[str, Any]:
    """The result as JSON data."""
    return {"app": app, "verdict": result.verdict, **asdict(result)}


Kind = tuple[str, str, str, str, str, str]


class _Checking:
    def __init__(self, app: App, until: datetime | None) -> None:
        self._app, self._machine, self._spine = app, app.require_machine(), StateMachine(app)
        self._until = until
        self._decisions = self._agree = 0
        self._kinds: Counter[Kind] = Counter()
        self._examples: dict[Kind, list[str]] = {}
        self._states: Counter[str] = Counter()

    def walk(self, workflow: Workflow) -> None:
        life = _Life(self._app, self._spine, workflow, self._until)
        committed = {logged.event.id: logged.event for logged in workflow.events if logged.committed}
        for logged in workflow.events:
            taken = life.take(logged)
            if taken is None or logged.decision is None:
                continue
            if self._takes(logged.decision, life.state, taken.decides):
                ids = logged.decision.decision.committed_event_ids
                life.settle([committed[id_] for id_ in ids if id_ in committed], logged.at.offset)
        life.end()
        self._states[life.state] += 1

    def _takes(self, logged: LoggedDecision, state: str, asked: bool) -> bool:
        """Whether the machine would have committed what the log did; counts where not."""
        decision = logged.decision
        self._decisions += 1
        proposes = self._app.bound[decision.boundary].boundary.proposes
        legal = self._machine.legal(state, proposes) if asked else []
        record = _committed(decision)
        if legal and (record is None or record in self._machine.legal(state, [*proposes, ESCALATED])):
            self._agree += 1
            return True
        self._count(logged, state, record or decision.verdict, legal)
        return False

    def _count(self, logged: LoggedDecision, state: str, proposed: str, legal: Sequence[str]) -> None:
        decision = logged.decision
        expected = illegal(self._machine, state, 0, proposed, legal).expected
        why = ILLEGAL if legal else NOT_ASKED
        kind = decision.boundary, decision.stream, state, proposed, why, expected or ""
        self._kinds[kind] += 1
        examples = self._examples.setdefault(kind, [])
        if len(examples) < EXAMPLES_MAX:
            examples.append(str(logged.at))

    def result(self) -> SpineCheck:
        found = [
            Difference(*kind, decisions=count, examples=tuple(self._examples[kind]))
            for kind, count in self._kinds.items()
        ]
        found.sort(key=lambda one: (-one.decisions, one.examples))
        return SpineCheck(self._decisions, self._agree, tuple(found), dict(self._states.most_common()))


class _Life:
    """One workflow on the state machine."""

    def __init__(self, app: App, spine: StateMachine, workflow: Workflow, until: datetime | None) -> None:
        self._app, self._spine, self._until = app, spine, until
        self._rows, self._key = Rows(app.row_fold), workflow.name.encode()
        self._offset = workflow.events[0].at.offset
        timers = (logged.event for logged in workflow.events if self._is_timer(logged.event))
        self._places = Counter(map(_timer_of, timers))
        """Places on the log that are still to come, by name and due time of the timer."""

    @property
    def state(self) -> str:
        """The row's."""
        row = self._rows.get(self._key)
        return state_of(self._app.require_machine(), {} if row is None else row.data)

    def take(self, logged: LoggedEvent) -> Taken | None:
        """What an event does; None where canonical JSON refuses the row that it makes."""
        self._offset = logged.at.offset
        self._fire_until(logged.event.time)
        event = self._running(logged.event) if self._is_timer(logged.event) else logged.event
        if event is None:
            return Taken(self._rows.get(self._key), moved=False, decides=False)
        return take_in(self._spine, self._rows, self._key, event, self._offset)

    def settle(self, committed: Sequence[Event], offset: int) -> None:
        """Let what a decision committed move the row."""
        settle_in(self._spine, self._rows, self._key, committed, offset)

    def end(self) -> None:
        """Let fire what the log's clock has come to."""
        if self._until is not None:
            self._fire_until(self._until)

    def _fire_until(self, time: datetime) -> None:
        while self._until is not None and (due := self._rows.due(min(time, self._until))):
            for timer in due:
                if not self._places[timer.name, timer.due_at]:
                    take_in(self._spine, self._rows, self._key, fired(self._app, timer), self._offset)

    def _running(self, event: Event) -> Event | None:
        """The timer as the row has it; None where it does not run, or was void on the log and comes again."""
        name, due_at = place = _timer_of(event)
        self._places[place] -= 1
        row = self._rows.get(self._key)
        if row is None or row.timers.get(name) != due_at:
            return None
        if row.version != event.data["row_version"] and self._places[place]:
            return None
        return fired(self._app, DueTimer(self._key, name, row.version, due_at))

    def _is_timer(self, event: Event) -> bool:
        return event.record == TIMER_FIRED and event.source == source_of(self._app.name, TIMER)


def _timer_of(event: Event) -> tuple[str, datetime]:
    """Name and due time of a timer that fired."""
    return event.data["timer"], event.data["due_at"]


def _committed(decision: Decision) -> str | None:
    """The record that a decision committed; None where it committed none."""
    if decision.verdict == Verdict.ESCALATED:
        return ESCALATED
    return decision.action_type if decision.verdict == Verdict.ACCEPTED else None
