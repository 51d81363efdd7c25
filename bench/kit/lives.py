"""The contracts app lived through in memory on either spine, and lived again: what a spine is judged by."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from driftline.console.contracts_demo import unlawful
from driftline.consumers import Answer, App, ProposalRequest, Proposer
from driftline.consumers.artifacts import Artifact
from driftline.consumers.boundary import BoundBoundary
from driftline.consumers.deciding import Decider, drive
from driftline.consumers.engine import Input, Outcome
from driftline.consumers.fold import STATE
from driftline.consumers.models.contract_analyst import Brief, ContractHabits, propose_contract
from driftline.consumers.models.draws import Draws
from driftline.consumers.models.renewal_analyst import CEILING_PCT_DEFAULT
from driftline.consumers.models.sim_feedback import last_proposal, mended, rejections_at_end
from driftline.consumers.partition import OwnedPartition
from driftline.consumers.rows import Rows
from driftline.examples.contracts.app import MACHINE
from driftline.log import Coordinates, Outgoing, Record, Unfinished, to_event, to_outgoing
from driftline.producers.contracts import Day
from driftline.producers.ticking import ticks
from driftline.replay.arms import Candidate, judge_answer, judge_logged
from driftline.replay.departures import compare
from driftline.replay.levels import ACTION, JudgedAnswer
from driftline.replay.sandbox import Sameness, Sandbox, SandboxRun
from driftline.replay.segment import LoggedDecision
from driftline.replay.subject import AppSubject
from driftline.replay.testing import OwnModels
from driftline.replay.workflows import History, Workflow, build_history, history_row
from driftline.schemas import Codec, Event, Registry
from driftline.schemas.names import CLOCK_TICKED, TIMER_FIRED

HANDED_OVER = "human_required"
ENDS = frozenset({*MACHINE.terminal, HANDED_OVER})
"""Where a customer's story may end: nobody but a person goes on from there."""
AS_LOGGED = Candidate(incumbent=True)
"""Asks what the log asked; who answers is the proposer's."""
End = tuple[str | None, str | None]
"""State and outcome of a last row."""
_ALMOST_ONE = 1 - 2**-53


class Faultless:
    """The analyst without a fault: every draw falls to the rule, and every rejection is obeyed."""

    async def propose(self, request: ProposalRequest) -> Answer:
        """As `Proposer.propose`, of the contracts app's prompts alone."""
        asked = str(request.messages[1]["content"]).rstrip().splitlines()[-1]
        brief = Brief.of(json.loads(asked))
        if brief is None:
            raise AssertionError(f"no prompt of the contracts app ends with {asked!r}")
        fresh = propose_contract(brief, CEILING_PCT_DEFAULT, ContractHabits(), _ByTheRule("", request.key))
        rejections = rejections_at_end(request.messages)
        told = fresh if rejections is None else mended(last_proposal(request.messages).proposal, rejections, fresh)
        return Answer(json.dumps(told))


class _ByTheRule(Draws):
    """Draws under which nothing happens that is not certain."""

    def uniform(self, name: str) -> float:
        return _ALMOST_ONE


@dataclass(frozen=True, slots=True)
class Again:
    """A version of the simulator asked once more: whatever is asked, it is this model's, with draws of its own."""

    model: str
    replicate: int
    seed: int
    models: Proposer = field(default_factory=OwnModels)

    async def propose(self, request: ProposalRequest) -> Answer:
        """As `Proposer.propose`."""
        key = replace(request.key, arm="again", replicate=self.replicate, seed=self.seed)
        return await self.models.propose(replace(request, model=self.model, key=key, fallbacks=()))


@dataclass(frozen=True, slots=True)
class _Arm:
    """An arm that decides in sandboxes with a proposer, and else as the code has it."""

    proposer: Proposer

    def bound(self, bound: BoundBoundary, logged: LoggedDecision | None) -> BoundBoundary:
        return bound

    async def decide(self, given: Input, logged: LoggedDecision | None) -> Outcome:
        return await drive(given, self.proposer)


async def live(app: App, days: Iterable[Day], proposer: Proposer, seed: int) -> History:
    """What an app makes of days on one partition: the facts of one, a tick at its end, then all that they lead to.

    It is the runtime's own decider that decides, one input after another; Kafka alone is left out.

    Raises:
        AssertionError: An input could not be decided.
    """
    partition = _Partition(app, proposer, seed)
    for day in days:
        await partition.live(day)
    return partition.history()


class _Partition:
    """One partition of an app's events in memory."""

    def __init__(self, app: App, proposer: Proposer, seed: int) -> None:
        self._app = app
        self._codec = Codec(Registry(f"mock://{app.name}"), app.contracts)
        for topic, record in app.subjects():
            self._codec.registry.ensure(topic, app.contracts.require(record))
        self._owner = OwnedPartition(0, Unfinished(0, 0), Rows(app.row_fold))
        self._decider = Decider(app, self._codec, proposer, self._now, seed)
        self._told: datetime | None = None
        self._length = 0
        self._waiting: deque[Record] = deque()
        self._events: dict[str, list[tuple[Coordinates, Event]]] = {}
        self._decided: dict[tuple[int, int], LoggedDecision] = {}

    async def live(self, day: Day) -> None:
        """Take the facts of a day and its end, and decide until nothing is left."""
        self._told = day.end
        for fact in day.facts:
            self._append(to_outgoing(fact, self._app.topics.events, self._codec, 0))
        for tick in ticks(self._app.name, [0], day.end, self._codec):
            self._append(tick)
        while self._waiting:
            await self._decide(self._waiting.popleft())

    def history(self) -> History:
        """The workflows with all that was decided of them."""
        return replace(build_history(self._app, self._events.values(), self._decided), ticked=self._told)

    async def _decide(self, record: Record) -> None:
        decided = await self._decider.decide(record, self._owner)
        if decided.dead is not None:
            raise AssertionError(f"{record.at} is dead: {decided.dead}")
        if decided.decision is not None:
            at = Coordinates(self._app.topics.decisions, 0, len(self._decided))
            self._decided[0, record.at.offset] = LoggedDecision(at, decided.decision)
        for outgoing in decided.outgoing:
            if outgoing.topic == self._app.topics.events:
                self._append(outgoing)

    def _append(self, outgoing: Outgoing) -> None:
        at = Coordinates(outgoing.topic, 0, self._length)
        record = Record(at, outgoing.key, outgoing.value, outgoing.timestamp_ms, outgoing.headers)
        self._length += 1
        self._waiting.append(record)
        event = to_event(record, self._codec)
        if event.record != CLOCK_TICKED:  # of no workflow
            self._events.setdefault(event.workflow, []).append((at, event))

    def _now(self) -> datetime:
        if self._told is None:
            raise AssertionError("nothing is decided before the first day")
        return self._told


@dataclass(frozen=True, slots=True)
class Trial:
    """What came of one customer, lived once."""

    departed: bool
    """From what the log decided; False of the log itself."""
    row_changed: bool
    end: End
    illegal: int
    """Records committed out of turn."""
    decisions: int
    calls: int
    """Of the model."""

    def succeeded(self, wanted: End | None) -> bool:
        """Whether the story ended where it may, out of turn nothing was committed, and the end is the wanted one.

        A case that a person got although the rule had closed it is no success: who hands over every case would else
        always succeed.
        """
        return self.end[0] in ENDS and not self.illegal and wanted in (None, self.end)


@dataclass(frozen=True, slots=True)
class Reply:
    """In what one first answer differs from the logged one, in its recorded context."""

    fact: str
    """Id of the event that was decided."""
    action: bool
    verdict: bool
    state: bool
    """Whether the answer would have left the customer in another state; a refused one leaves it as it was."""


class Lives:
    """One spine's history, and ways to ask it again.

    Args:
        app: The contracts app on a spine.
        history: What it made of the facts.
        seed: Of the simulator.
    """

    def __init__(self, app: App, history: History, seed: int) -> None:
        self.app, self.history, self._seed = app, history, seed
        prompts = [boundary.prompt for boundary in app.boundaries]
        self._subject = AppSubject(app, {p.hash: Artifact(p.hash, "prompt", p.name, p.text) for p in prompts})
        self._sameness = Sameness(app.contracts)

    @property
    def workflows(self) -> Sequence[Workflow]:
        """The customers, by name: the same order on every spine."""
        return sorted(self.history.workflows, key=lambda workflow: workflow.name)

    def logged(self, workflow: Workflow) -> Trial:
        """What came of a customer on the log."""
        decisions = [logged.decision for logged in workflow.decisions]
        committed = [logged.event for logged in workflow.events if logged.committed]
        return Trial(
            departed=False,
            row_changed=False,
            end=end_of(history_row(self.app, workflow)),
            illegal=len(out_of_turn(self.app, workflow, committed)),
            decisions=len(decisions),
            calls=sum(len(decision.attempts) for decision in decisions),
        )

    async def free(self, workflow: Workflow, proposer: Proposer) -> Trial:
        """What comes of a customer who is lived again from the facts alone."""
        arm = _Arm(proposer)
        sandbox = Sandbox(self.app, workflow, arm, self._sameness, self._seed, self.history.ticked)
        return self._trial(await sandbox.run())

    async def forced(self, workflow: Workflow, proposer: Proposer) -> list[Reply]:
        """How the decisions of a customer come out when each is asked again in its recorded context."""
        return [await self._reply(logged, proposer) for logged in workflow.decisions]

    async def _reply(self, logged: LoggedDecision, proposer: Proposer) -> Reply:
        decision, then = logged.decision, judge_logged(logged, self._subject)
        request = AS_LOGGED.request(decision, self._subject, "", self._seed)
        now = judge_answer(await proposer.propose(request), decision, self._subject)
        return Reply(
            fact=decision.input.event_id,
            action=now.hashes.get(ACTION) != then.hashes.get(ACTION),
            verdict=now.verdict != then.verdict,
            state=self._state_after(logged, now) != self._state_after(logged, then),
        )

    def _trial(self, run: SandboxRun) -> Trial:
        if run.ended is not None or run.facts_withheld:
            raise AssertionError(f"{run.workflow.name} was not lived to its end: {run.ended}")
        result = compare(self.app, run, self._sameness)
        return Trial(
            departed=result.departure is not None,
            row_changed=result.state_equal is False,
            end=end_of(run.row),
            illegal=len(out_of_turn(self.app, run.workflow, run.committed)),
            decisions=len(run.decisions),
            calls=sum(len(one.outcome.attempts) for one in run.decisions),
        )

    def _state_after(self, logged: LoggedDecision, judged: JudgedAnswer) -> str | None:
        """The state that an answer leaves a customer in, by the fold of the spine."""
        row, proposal, fold = logged.decision.context_value()["row"], judged.judgement.proposal, self.app.row_fold
        if fold is None or proposal is None or not judged.judgement.accepted:
            return _text(row.get(STATE))
        decision, record = logged.decision, proposal.type
        said = Event("", record, "", decision.workflow, decision.input.event_time, record, proposal.payload)
        return _text(fold.function(row, said).get(STATE))


def end_of(row: str | None) -> End:
    """State and outcome that a row tells; None where it tells none."""
    data = {} if row is None else json.loads(row)
    return _text(data.get(STATE)), _text(data.get("outcome"))


def out_of_turn(app: App, workflow: Workflow, committed: Sequence[Event]) -> list[Event]:
    """What boundaries committed of a customer although the life of a contract did not allow it, on whatever spine.

    The life is the table of the state machine, from the facts on; a record that it does not allow moves nothing in
    it. Not counted is a record that leaves the case as it is. Timers are left out: the last fact of a customer comes
    before any offer expires.
    """
    facts = [
        logged.event for logged in workflow.events if not logged.committed and logged.event.record != TIMER_FIRED
    ]
    return unlawful(MACHINE, app, sorted([*facts, *committed], key=lambda event: event.time))


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
