"""The harness: re-runs a segment in mode `forced`, feeds the judge in planned order, stops as soon as it knows.

Calls are made ahead of the evidence, but evidence enters in an order that was fixed before any call: a result that
comes ahead of its turn waits (DETECTION, rule 10: fed in order of completion, a model against itself alarms).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from driftline.consumers.proposing import Answer, ProposalRequest, Proposer, ProposerFailure
from driftline.detectors import Observation, SequentialJudge, planned_order
from driftline.replay.arms import Candidate, as_logged, drifted, judge_answer, judge_logged
from driftline.replay.ledger import AnswerKey, Ledger
from driftline.replay.levels import EXIT_FAMILY, LOST, JudgedAnswer
from driftline.replay.result import COVERAGE_MIN, ForcedResult, Limits, Pair, Progress
from driftline.replay.segment import LoggedDecision, Segment
from driftline.replay.subject import Subject
from driftline.schemas.cloudevents import format_time

__all__ = ["ForcedReplay", "ForcedResult", "Limits", "Pair", "Progress"]

AHEAD_FACTOR = 4
"""Calls may run ahead of the evidence by so many times the concurrency: one that hangs lets the others go on for a
while, and bounds what is paid for nothing should the test stop at it."""

NOT_ASKED = Answer(None, ProposerFailure.NOT_RECORDED, "not asked: the log has no outcome to hold an answer against")


@dataclass
class _Run:
    """What a run accumulates."""

    judge: SequentialJudge
    room: asyncio.Semaphore
    """A permit for each turn that may be taken ahead of the evidence."""
    arrived: dict[int, tuple[JudgedAnswer, JudgedAnswer]] = field(default_factory=dict)
    """Both arms of the turns that wait for theirs."""
    pairs: list[Pair] = field(default_factory=list)
    """Those whose turn has come, in planned order."""
    taken: int = 0
    """Turns that were begun."""
    stopped_at: int | None = None
    """Pairs up to the verdict; None while it is not in."""
    from_ledger: int = 0


class ForcedReplay:
    """One run in mode `forced`: each decision with its recorded context, its first attempt asked again.

    Args:
        run_id: Names the run; the same plan has the same id, so that the same command resumes it.
        segment: The decisions.
        subject: Today's rules.
        candidate: What is tried.
        proposer: Answers the calls.
        ledger: Where answers are written before they count.
        limits: What the run may do.
        now: The wall clock, for the ledger alone.
    """

    def __init__(
        self,
        run_id: str,
        segment: Segment,
        subject: Subject,
        candidate: Candidate,
        proposer: Proposer,
        ledger: Ledger,
        limits: Limits,
        now: Callable[[], datetime],
    ) -> None:
        self._run_id = run_id
        self._subject = subject
        self._candidate = candidate
        self._proposer = proposer
        self._ledger = ledger
        self._limits = limits
        self._now = now
        order = planned_order([logged.decision.workflow for logged in segment.decisions], limits.order_seed)
        self._planned = [segment.decisions[index] for index in order][: limits.calls_max]
        self._cut_short = len(self._planned) < len(segment.decisions)
        self._strata = segment.planned()
        self._repeated = segment.repeated

    async def run(self, on_progress: Callable[[Progress], None] = lambda progress: None) -> ForcedResult:
        """Ask, judge, decide.

        What was answered before an interruption is in the ledger, is not paid again and counts as it stands there.
        Not guaranteed: that a provider does not charge for calls that were in flight at an interruption.

        Raises:
            UsageError: A boundary or prompt is gone, a prompt lacks a variable, or the model does not exist. Where
                all decisions of a stream lack it, nothing was paid yet; else what was paid is in the ledger.
        """
        self._check()
        run = _Run(self._new_judge(), asyncio.Semaphore(AHEAD_FACTOR * self._limits.concurrency))
        try:
            async with asyncio.TaskGroup() as workers:
                for _ in range(min(self._limits.concurrency, len(self._planned))):
                    workers.create_task(self._work(run, on_progress))
        except BaseExceptionGroup as failed:
            raise failed.exceptions[0] from None  # the others stopped because of it, or say the same
        self._recall_overspent(run)
        return self._result(run)

    def _check(self) -> None:
        """Make one request of each kind, so that what cannot be asked is known before anything is paid."""
        kinds = {(logged.stratum, logged.decision.prompt_hash): logged for logged in self._planned}
        for logged in kinds.values():
            self._subject.judge(logged.decision)
            request, _ = self._request(logged)
            self._subject.require_judgeable(logged.decision, request.model)

    def _new_judge(self) -> SequentialJudge:
        return SequentialJudge(
            list(self._strata),
            planned=self._strata,
            alpha=self._limits.alpha,
            delta=self._limits.delta,
            min_effect=self._limits.min_effect,
            indicators=self._subject.indicators,
            exit_levels=EXIT_FAMILY,
            locate=self._limits.locate,
        )

    async def _work(self, run: _Run, on_progress: Callable[[Progress], None]) -> None:
        """Take turn after turn; one worker is one call in flight."""
        while True:
            await run.room.acquire()
            turn = self._take_turn(run)
            if turn is None:
                run.room.release()  # whoever waits for room must see it too
                return
            index, logged = turn
            request, key = self._request(logged)
            baseline = judge_logged(logged, self._subject)
            known = NOT_ASKED if baseline.lost else self._known(key, run)
            answer = await self._ask(request, key) if known is None else known
            run.arrived[index] = baseline, judge_answer(answer, logged.decision, self._subject)
            self._feed(run)
            on_progress(self._progress(run))
            if known is not None:
                await asyncio.sleep(0)  # nothing was waited for; Ctrl-C and the other workers get their turn too

    def _take_turn(self, run: _Run) -> tuple[int, LoggedDecision] | None:
        """The next turn; none after the verdict, unless the run reads on."""
        stopped = run.stopped_at is not None and not self._limits.read_on
        if stopped or run.taken == len(self._planned):
            return None
        run.taken += 1
        return run.taken - 1, self._planned[run.taken - 1]

    def _known(self, key: AnswerKey, run: _Run) -> Answer | None:
        known = self._ledger.get(key)
        run.from_ledger += known is not None
        return known

    async def _ask(self, request: ProposalRequest, key: AnswerKey) -> Answer:
        """Ask, and write the answer to the ledger before it counts. A lost call is asked again next time.

        Between the answer and the ledger nothing is awaited: no cancellation falls in between.
        """
        answer = as_logged(await self._proposer.propose(request))
        if answer.failure in LOST:
            return answer
        return self._ledger.put(key, answer, self._run_id, format_time(self._now()))

    def _request(self, logged: LoggedDecision) -> tuple[ProposalRequest, AnswerKey]:
        request = self._candidate.request(logged.decision, self._subject, self._run_id, self._limits.order_seed)
        return request, self._candidate.key(logged.decision, self._subject, request)

    def _feed(self, run: _Run) -> None:
        """Hand the judge every pair whose turn has come."""
        while (arms := run.arrived.pop(len(run.pairs), None)) is not None:
            self._add(run, len(run.pairs), *arms)
            run.room.release()

    def _add(self, run: _Run, index: int, baseline: JudgedAnswer, candidate: JudgedAnswer) -> None:
        logged, lost = self._planned[index], baseline.lost or candidate.lost
        run.pairs.append(Pair(index, logged, baseline, candidate, evidence=run.stopped_at is None and not lost))
        if lost:
            return
        observation = Observation(logged.stratum, baseline.outcome(), candidate.outcome())
        if run.stopped_at is not None:
            run.judge.observe_after_stop(observation)
            return
        run.judge.observe(observation)
        if run.judge.done:
            run.stopped_at = len(run.pairs)

    def _recall_overspent(self, run: _Run) -> None:
        """Count what this run paid beyond its stop before it was interrupted, so that resuming hides no cost."""
        if run.stopped_at is None or self._limits.read_on:
            return
        last = run.stopped_at + AHEAD_FACTOR * self._limits.concurrency
        for index in range(run.taken, min(last, len(self._planned))):
            logged = self._planned[index]
            known = self._ledger.get(self._request(logged)[1], paid_by=self._run_id)
            baseline = judge_logged(logged, self._subject)
            if known is not None and not baseline.lost:
                run.from_ledger += 1
                self._add(run, index, baseline, judge_answer(known, logged.decision, self._subject))

    def _progress(self, run: _Run) -> Progress:
        return Progress(
            planned=len(self._planned),
            read=len(run.pairs),
            paid_calls=run.stopped_at or len(run.pairs),
            e_value=run.judge.e_value,
            decision=run.judge.decision,
        )

    def _result(self, run: _Run) -> ForcedResult:
        until_stop = run.pairs[: run.stopped_at]
        paid = sum(pair.asked for pair in until_stop)
        coverage = sum(pair.evidence for pair in until_stop) / len(until_stop) if until_stop else 0.0
        verdict, because = self._verdict(run.judge, coverage)
        free = self._candidate.is_free
        later = 0 if free else sum(pair.asked for pair in run.pairs) - paid
        return ForcedResult(
            run_id=self._run_id,
            verdict=verdict,
            stopped_because=because,
            judged=run.judge.summary(),
            alarm_after=run.judge.alarm_after,
            pairs=run.pairs,
            paid_calls=paid,
            from_ledger=run.from_ledger,
            overspent_calls=0 if self._limits.read_on else later,
            estimate_calls=later if self._limits.read_on else 0,
            cost_usd=_cost_usd(until_stop if free else run.pairs),
            coverage=coverage,
            repeated_decisions=self._repeated,
            verifier_drift=sum(drifted(pair.logged.decision, pair.baseline) for pair in run.pairs),
        )

    def _verdict(self, judge: SequentialJudge, coverage: float) -> tuple[str, str]:
        if coverage < COVERAGE_MIN:
            return "inconclusive", "coverage"
        if judge.decision == "diverged":
            return "diverged", "alarm"
        if judge.decision == "equivalent":
            return "equivalent", "equivalent"
        return "inconclusive", "budget_ended" if self._cut_short else "segment_ended"


def _cost_usd(pairs: list[Pair]) -> float | None:
    prices = [pair.candidate.answer.cost_usd for pair in pairs if not pair.candidate.lost]
    return None if None in prices else sum(price or 0.0 for price in prices)
