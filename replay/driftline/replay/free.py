"""Mode `free`: whole workflows lived again from outside facts alone, each in a sandbox, and held against history.

Where does a workflow first depart, and how far does that travel? With an incumbent arm also: does it depart more, or
otherwise, than the log's own model does when it is asked again?
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from driftline.consumers.proposing import Proposer
from driftline.detectors import Interval, JudgeSummary, Observation, SequentialJudge, mismatch_interval, planned_order
from driftline.replay.arms import Candidate
from driftline.replay.departures import STATE, WorkflowResult, compare, outcome_of
from driftline.replay.free_arms import Desk, FreeArm
from driftline.replay.ledger import Ledger
from driftline.replay.levels import ACTION, VERDICT
from driftline.replay.result import COVERAGE_MIN, Limits
from driftline.replay.sandbox import UNPAID, Sameness, Sandbox
from driftline.replay.segment import LoggedDecision, log_order
from driftline.replay.spending import Spending
from driftline.replay.subject import AppSubject
from driftline.replay.workflows import History, Workflow
from driftline.schemas import UsageError

NO_INCUMBENT = (
    "rates against the log hold the model's own noise too: without an incumbent arm no verdict is given on them"
)
TYPE_PREFIX = "type="


@dataclass(frozen=True, slots=True)
class WorkflowPair:
    """One workflow under the arms."""

    index: int
    """Place in the planned order, from 0."""
    workflow: Workflow
    candidate: WorkflowResult
    incumbent: WorkflowResult | None
    """None in a run without an incumbent arm."""

    @property
    def evidence(self) -> bool:
        """Whether every arm came to the end of it."""
        return self.candidate.complete and (self.incumbent is None or self.incumbent.complete)

    @property
    def arms(self) -> list[WorkflowResult]:
        """The results of all arms."""
        return [self.candidate] if self.incumbent is None else [self.candidate, self.incumbent]


@dataclass(frozen=True, slots=True)
class Rate:
    """A share of workflows. The interval is for workflows like these, not for these alone."""

    workflows: int
    count: int
    interval: Interval

    @property
    def value(self) -> float | None:
        """The share; None of none."""
        return self.count / self.workflows if self.workflows else None


@dataclass(frozen=True)
class FreeResult:
    """What came out of a run."""

    run_id: str
    verdict: str
    """`diverged`, `equivalent` or `inconclusive`."""
    stopped_because: str
    """`alarm`, `equivalent`, `segment_ended`, `budget_ended`, `coverage` or `no_incumbent`."""
    note: str
    """What limits the verdict; empty where nothing does."""
    pairs: Sequence[WorkflowPair] = field(repr=False)
    """In planned order."""
    planned: int
    """Workflows that were to be run."""
    coverage: float
    """Share of the outside facts of the workflows read that were fed in workflows that came to their end; of two arms
    the lower one."""
    judged: JudgeSummary | None
    """Candidate against incumbent; None without one. Its `verdict` says whether a workflow stayed with history, its
    `action` what was committed."""
    calls: int
    """Answers used, of all arms."""
    from_ledger: int
    """How many of them the ledger had already."""
    cost_usd: float | None
    """Dollars of them; None when the price of one is unknown."""
    alpha: float

    def departed(self, incumbent: bool = False) -> Rate:
        """How many workflows departed from history, under an arm."""
        return self._rate([result.departure is not None for result in self._evidence(incumbent)])

    def state_changed(self, incumbent: bool = False) -> Rate:
        """How many ended with another row than on the log; of those whose app keeps rows."""
        known = [result.state_equal for result in self._evidence(incumbent)]
        return self._rate([not equal for equal in known if equal is not None])

    def _evidence(self, incumbent: bool) -> list[WorkflowResult]:
        results = [pair.incumbent if incumbent else pair.candidate for pair in self.pairs if pair.evidence]
        return [result for result in results if result is not None]

    def _rate(self, values: Sequence[bool]) -> Rate:
        interval = mismatch_interval([float(value) for value in values], self.alpha, running=False)
        return Rate(len(values), sum(values), interval)


def planned_workflows(history: History, limits: Limits) -> list[Workflow]:
    """The workflows in the order in which they enter, which is fixed before any call."""
    order = planned_order([workflow.name for workflow in history.workflows], limits.order_seed)
    return [history.workflows[index] for index in order]


class FreeReplay:
    """One run in mode `free`. It reads nothing and writes nowhere but into the ledger.

    Args:
        run_id: Names the run; the same plan has the same id, so that the same command resumes it.
        history: The workflows.
        subject: Today's code: boundaries, rules and fold.
        candidate: What is tried.
        proposer: Answers the calls.
        ledger: Where answers are written before they count.
        limits: What the run may do; `concurrency` is of workflows, each of which is one call at a time. All of it is
            read: a verdict ends no run.
        now: The wall clock, for the ledger alone.
        spending: Lets calls through while the run's budget lasts; None for no budget.
        incumbent: Whether the log's own model is asked again too, as arm A'.
    """

    def __init__(
        self,
        run_id: str,
        history: History,
        subject: AppSubject,
        candidate: Candidate,
        proposer: Proposer,
        ledger: Ledger,
        limits: Limits,
        now: Callable[[], datetime],
        spending: Spending | None = None,
        incumbent: bool = False,
    ) -> None:
        self._run_id = run_id
        self._subject = subject
        self._limits = limits
        self._planned = planned_workflows(history, limits)
        self._sameness = Sameness(subject.contracts)
        self._until = history.ticked
        self._desk = Desk(run_id, proposer, ledger, now, spending or Spending(), limits.calls_max)
        shared = (subject, self._desk, latest_decisions(history), limits.order_seed)
        self._candidate = FreeArm("candidate", *shared, candidate)
        self._incumbent = FreeArm("incumbent", *shared) if incumbent else None

    async def run(self, on_progress: Callable[[int, int], None] = lambda done, planned: None) -> FreeResult:
        """Live every workflow under every arm, compare, judge.

        What was answered before an interruption is in the ledger, is not paid again and counts as it stands there.

        Args:
            on_progress: Told how many workflows are done, and how many are planned.

        Raises:
            UsageError: A prompt, a rule or the fold of the app fails, a prompt lacks a variable that decisions on the
                log have not either (then nothing was paid), or the model does not exist.
        """
        self._check()
        found: dict[int, WorkflowPair] = {}
        turns = iter(range(len(self._planned)))
        try:
            async with asyncio.TaskGroup() as workers:
                for _ in range(min(self._limits.concurrency, len(self._planned))):
                    workers.create_task(self._work(turns, found, on_progress))
        except BaseExceptionGroup as failed:
            raise failed.exceptions[0] from None  # the others stopped because of it, or say the same
        return self._result([found[index] for index in sorted(found)])

    def _check(self) -> None:
        """Make one request of each kind, so that what cannot be asked is known before anything is paid."""
        kinds: dict[tuple[str, str, str], LoggedDecision] = {}
        for workflow in self._planned:
            for logged in workflow.decisions:
                decision = logged.decision
                kinds.setdefault((decision.boundary, decision.stream, decision.prompt_hash), logged)
        for logged in kinds.values():
            self._subject.judge(logged.decision)
            for arm in (self._candidate, self._incumbent):
                if arm is not None:
                    bound = arm.bound(self._subject.app.bound[logged.decision.boundary], logged)
                    bound.boundary.prompt.messages(logged.decision.context_value())

    async def _work(
        self, turns: Iterator[int], found: dict[int, WorkflowPair], on_progress: Callable[[int, int], None]
    ) -> None:
        """Take workflow after workflow; once the budget has ended, no more."""
        for index in turns:
            pair = await self._live(index)
            found[index] = pair
            on_progress(len(found), len(self._planned))
            if UNPAID in {result.run.ended for result in pair.arms}:
                return
            await asyncio.sleep(0)  # where nothing was waited for, Ctrl-C and the other workers get their turn too

    async def _live(self, index: int) -> WorkflowPair:
        workflow = self._planned[index]
        candidate = await self._result_of(workflow, self._candidate)
        incumbent = None if self._incumbent is None else await self._result_of(workflow, self._incumbent)
        return WorkflowPair(index, workflow, candidate, incumbent)

    async def _result_of(self, workflow: Workflow, arm: FreeArm) -> WorkflowResult:
        sandbox = Sandbox(self._subject.app, workflow, arm, self._sameness, self._limits.order_seed, self._until)
        return compare(self._subject.app, await sandbox.run(), self._sameness)

    def _result(self, pairs: Sequence[WorkflowPair]) -> FreeResult:
        read = until_unpaid(pairs)
        coverage = min(coverage_of([pair.candidate for pair in read]), _incumbent_coverage(read))
        judge = None if self._incumbent is None else self._judge(read)
        cut = len(read) < len(self._planned)
        verdict, because = verdict_of(judge, coverage, cut)
        return FreeResult(
            run_id=self._run_id,
            verdict=verdict,
            stopped_because=because,
            note=NO_INCUMBENT if judge is None else judge.note,
            pairs=read,
            planned=len(self._planned),
            coverage=coverage,
            judged=None if judge is None else judge.summary(),
            calls=self._desk.calls,
            from_ledger=self._desk.from_ledger,
            cost_usd=self._desk.cost_usd,
            alpha=self._limits.alpha,
        )

    def _judge(self, pairs: Sequence[WorkflowPair]) -> SequentialJudge:
        """Candidate against incumbent, a workflow an observation, in planned order."""
        strata = dict(sorted(Counter(workflow.stratum for workflow in self._planned).items()))
        judge = SequentialJudge(
            list(strata),
            planned=strata,
            alpha=self._limits.alpha,
            delta=self._limits.delta,
            min_effect=self._limits.min_effect,
            indicators=[name for name in self._subject.indicators if name.startswith(TYPE_PREFIX)],
            exit_levels=(VERDICT, ACTION) if self._subject.app.row_fold is None else (VERDICT, ACTION, STATE),
            locate=self._limits.locate,
        )
        for pair in pairs:
            if pair.evidence and pair.incumbent is not None:
                arms = outcome_of(pair.incumbent, self._sameness), outcome_of(pair.candidate, self._sameness)
                observation = Observation(pair.workflow.stratum, *arms)
                (judge.observe_after_stop if judge.done else judge.observe)(observation)
        return judge


def latest_decisions(history: History) -> dict[str, LoggedDecision]:
    """The latest decision of each boundary."""
    decisions = [logged for workflow in history.workflows for logged in workflow.decisions]
    return {logged.decision.boundary: logged for logged in sorted(decisions, key=log_order)}


def until_unpaid(pairs: Sequence[WorkflowPair]) -> list[WorkflowPair]:
    """The pairs up to the first that the budget cut short: which later ones it spared depends on their lengths."""
    for number, pair in enumerate(pairs):
        if pair.index != number or UNPAID in {result.run.ended for result in pair.arms}:
            return list(pairs[:number])
    return list(pairs)


def coverage_of(results: Sequence[WorkflowResult]) -> float:
    """Share of the outside facts that were fed in workflows that came to their end; 1 of none."""
    facts = sum(result.run.workflow.facts for result in results)
    return sum(result.run.facts_fed for result in results if result.complete) / facts if facts else 1.0


def verdict_of(judge: SequentialJudge | None, coverage: float, cut_short: bool) -> tuple[str, str]:
    """Verdict and reason: none is given below the stated coverage, nor without an incumbent arm."""
    if coverage < COVERAGE_MIN:
        return "inconclusive", "coverage"
    if judge is not None and judge.decision == "diverged":
        return "diverged", "alarm"
    if judge is not None and judge.decision == "equivalent":
        return "equivalent", "equivalent"
    if cut_short:
        return "inconclusive", "budget_ended"
    return "inconclusive", "no_incumbent" if judge is None else "segment_ended"


def require_app(subject: object) -> AppSubject:
    """The subject, if it is an app: to live a workflow again takes its boundaries and its fold.

    Raises:
        UsageError: It is an imported recording.
    """
    if not isinstance(subject, AppSubject):
        raise UsageError("free runs the code of an app, and an imported recording has none", "use --mode forced")
    return subject


def _incumbent_coverage(pairs: Sequence[WorkflowPair]) -> float:
    return coverage_of([pair.incumbent for pair in pairs if pair.incumbent is not None])
