"""What a state machine would have said of an event log's decisions, one by one; asks no model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from driftline.consumers.app import App
from driftline.consumers.machine_rows import illegal, state_of
from driftline.consumers.rows import Rows
from driftline.consumers.spine import StateMachine
from driftline.log import LogReader
from driftline.replay.segment import LoggedDecision, Selection
from driftline.replay.workflows import History, Workflow, load_workflows, settle_in, take_in
from driftline.schemas import Codec, Verdict

EXAMPLES_MAX = 3
ILLEGAL, NOT_ASKED = "illegal_transition", "not_asked"
"""What the machine says otherwise: it refuses; the row's state allows nothing that the boundary proposes, so that no
model would have been asked."""


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
    checking = _Checking(app)
    for workflow in history.workflows:
        checking.walk(workflow)
    return checking.result()


def check_data(app: str, result: SpineCheck) -> dict[str, Any]:
    """The result as JSON data."""
    return {"app": app, "verdict": result.verdict, **asdict(result)}


Kind = tuple[str, str, str, str, str, str]


class _Checking:
    def __init__(self, app: App) -> None:
        self._app, self._machine, self._spine = app, app.require_machine(), StateMachine(app)
        self._decisions = self._agree = 0
        self._kinds: Counter[Kind] = Counter()
        self._examples: dict[Kind, list[str]] = {}
        self._states: Counter[str] = Counter()

    def walk(self, workflow: Workflow) -> None:
        rows, key = Rows(self._app.row_fold), workflow.name.encode()
        committed = {logged.event.id: logged.event for logged in workflow.events if logged.committed}
        for logged in workflow.events:
            taken = take_in(self._spine, rows, key, logged.event, logged.at.offset)
            if taken is None or logged.decision is None:
                continue
            row = rows.get(key)
            state = state_of(self._machine, {} if row is None else row.data)
            if self._takes(logged.decision, state):
                ids = logged.decision.decision.committed_event_ids
                events = [committed[id_] for id_ in ids if id_ in committed]
                settle_in(self._spine, rows, key, events, logged.at.offset)
        row = rows.get(key)
        self._states[state_of(self._machine, {} if row is None else row.data)] += 1

    def _takes(self, logged: LoggedDecision, state: str) -> bool:
        """Whether the machine would have committed what the log did; counts where not."""
        decision = logged.decision
        self._decisions += 1
        boundary = self._app.bound[decision.boundary].boundary
        legal = self._machine.legal(state, boundary.proposes)
        accepted = decision.verdict == Verdict.ACCEPTED and decision.action_type is not None
        fits = not accepted or decision.action_type in legal
        if legal and fits:
            self._agree += 1
            return True
        self._count(logged, state, legal)
        return False

    def _count(self, logged: LoggedDecision, state: str, legal: Sequence[str]) -> None:
        decision = logged.decision
        proposed = decision.action_type or decision.verdict
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
