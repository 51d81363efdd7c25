"""The harness: re-runs a segment in mode `forced`, feeds the judge in planned order, stops as soon as it knows.

Calls are made ahead of the evidence, but evidence enters in an order that was fixed before any call: a result that
comes ahead of its turn waits (DETECTION, rule 10: fed in order of completion, a model against itself alarms).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from datetime import datetime
from typing import Any

from driftline.consumers.proposing import Answer, ProposalRequest, Proposer
from driftline.detectors import Observation, SequentialJudge
from driftline.replay.arms import Candidate, as_logged, drifted, judge_answer, judge_logged
from driftline.replay.ledger import AnswerKey, Ledger
from driftline.replay.levels import EXIT_FAMILY, LOST, JudgedAnswer
from driftline.replay.result import COVERAGE_MIN, ForcedResult, Limits, Pair, Progress
from driftline.replay.segment import LoggedDecision, Segment
from driftline.replay.spending import Spending
from driftline.replay.subject import Subject
from driftline.replay.turns import NOT_ASKED, NOT_PAID, Run, drop_unpaid, planned_decisions
from driftline.schemas.cloudevents import format_time

__all__ = ["ForcedReplay", "ForcedResult", "Limits", "Pair", "Progress"]

AHEAD_FACTOR = 4
"""Calls may run ahead of the evidence by so many times the concurrency: one that hangs lets the others go on for a
while, and bounds what is paid for nothing should the test stop at it."""


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
        spending: Lets calls through while the run's budget lasts; None for no budget.
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
        spending: Spending | None = None,
    ) -> None:
        self._run_id = run_id
        self._subject = subject
        self._candidate = candidate
        self._proposer = proposer
        self._ledger = ledger
        self._limits = limits
        self._now = now
        self._spending = spending or Spending()
        self._planned = planned_decisions(segment, limits)
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
        run = Run(self._new_judge(), asyncio.Semaphore(AHEAD_FACTOR * self._limits.concurrency))
        try:
            async with asyncio.TaskGroup() as workers:
                for work in self._tasks(run, on_progress):
                    workers.create_task(work)
        except BaseExceptionGroup as failed:
            raise failed.exceptions[0] from None  # the others stopped because of it, or say the same
        drop_unpaid(run.pairs)
        self._recall_overspent(run)
        return self._result(run)

    def _tasks(self, run: Run, on_progress: Callable[[Progress], None]) -> list[Coroutine[Any, Any, None]]:
        workers = min(self._limits.concurrency, len(self._planned))
        return [self._work(run, on_progress) for _ in range(workers)]

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

    async def _work(self, run: Run, on_progress: Callable[[Progress], None]) -> None:
        """Take turn after turn; one worker is one call in flight."""
        while True:
            await run.room.acquire()
            turn = await self._take_turn(run)
            if turn is None:
                run.room.release()  # whoever waits for room must see it too
                return
            index, logged = turn
            request, key = self._request(logged)
            baseline = judge_logged(logged, self._subject)
            known = NOT_ASKED if baseline.lost else self._known(key, run)
            answer = await self._pay(logged, request, key) if known is None else known
            run.arrived[index] = baseline, judge_answer(answer, logged.decision, self._subject)
            self._feed(run)
            on_progress(self._progress(run))
            if known is not None or answer is NOT_PAID:
                await asyncio.sleep(0)  # nothing was waited for; Ctrl-C and the other workers get their turn too

    async def _take_turn(self, run: Run) -> tuple[int, LoggedDecision] | None:
        """The next turn; none after the verdict, unless the run reads on."""
        stopped = run.stopped_at is not None and not self._limits.read_on
        if stopped or run.taken == len(self._planned):
            return None
        run.taken += 1
        return run.taken - 1, self._planned[run.taken - 1]

    def _known(self, key: AnswerKey, run: Run) -> Answer | None:
        """What was answered before. Past the end of the budget only what this run itself has paid: how far others
        have read on depends on what they found."""
        known = self._ledger.get(key, paid_by=self._run_id if self._spending.ended else None)
        run.from_ledger += known is not None
        return known

    async def _pay(self, logged: LoggedDecision, request: ProposalRequest, key: AnswerKey) -> Answer:
        """Ask, if the budget allows it; what a recording costs was paid by whoever recorded it."""
        if self._candidate.is_free:
            return await self._ask(request, key)
        room = await self._spending.admit(logged, request)
        if room is None:
            return NOT_PAID
        answer = None
        try:
            answer = await self._ask(request, key)
        finally:
            self._spending.settle(room, answer)
        return answer

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

    def _feed(self, run: Run) -> None:
        """Hand the judge every pair whose turn has come."""
        while (arms := run.arrived.pop(len(run.pairs), None)) is not None:
            self._add(run, len(run.pairs), *arms)
            run.room.release()

    def _add(self, run: Run, index: int, baseline: JudgedAnswer, candidate: JudgedAnswer) -> None:
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

    def _recall_overspent(self, run: Run) -> None:
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

    def _progress(self, run: Run) -> Progress:
        return Progress(
            planned=len(self._planned),
            read=len(run.pairs),
            paid_calls=run.stopped_at or len(run.pairs),
            e_value=run.judge.e_value,
            decision=run.judge.decision,
            spent_usd=self._spending.paid_usd,
            usd_max=self._spending.usd_max,
        )

    def _result(self, run: Run) -> ForcedResult:
        until_stop = run.pairs[: run.stopped_at]
        paid = sum(pair.asked for pair in until_stop)
        coverage = sum(pair.evidence for pair in until_stop) / len(until_stop) if until_stop else 0.0
        verdict, because = self._verdict(run.judge, coverage if until_stop else 1.0)
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
        return "inconclusive", self._ended_because()

    def _ended_because(self) -> str:
        """Why there is no more evidence, where there is no verdict."""
        return "budget_ended" if self._cut_short or self._spending.ended else "segment_ended"


def _cost_usd(pairs: list[Pair]) -> float | None:
    prices = [pair.candidate.answer.cost_usd for pair in pairs if not pair.candidate.lost]
    return None if None in prices else sum(price or 0.0 for price in prices)
