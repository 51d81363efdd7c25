"""Diagnosing a run: its failing batch is asked afresh under every arm, and compared in pairs.

The answers are filed under the purpose `diagnosis`, so that none of them is one that the batch was picked by.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial

from driftline.consumers.proposing import Answer, ProposalRequest, Proposer, ProposerFailure
from driftline.detectors import Diagnosis, FailingBatch, advise, cause_of
from driftline.detectors.diagnosis import events_to_alarm
from driftline.replay.arms import Asking, judge_answer
from driftline.replay.asker import oldest
from driftline.replay.diagnosis_plan import PURPOSE, REPLICATES_APART, Diagnosing, diagnosis_id, too_small
from driftline.replay.diagnosis_result import CANDIDATE, INCUMBENT, DiagnosedDecision, DiagnosisResult, coverage_of
from driftline.replay.harness import AHEAD_FACTOR
from driftline.replay.ledger import AnswerKey, Ledger
from driftline.replay.levels import LOST
from driftline.replay.result import COVERAGE_MIN
from driftline.replay.rounds import Rounds, ask_on, rounds_of
from driftline.replay.spending import Spending
from driftline.schemas import UsageError
from driftline.schemas.cloudevents import format_time

WHOLE = (INCUMBENT, CANDIDATE)
"""The arms that the conclusion rests on."""
NOT_ASKED = Answer(None, ProposerFailure.PROVIDER_ERROR)
"""Of a part that cannot be asked alone: a model may take only the parameters that the candidate gives it."""


@dataclass(frozen=True, slots=True)
class _Call:
    index: int
    arm: str
    repeat: int


@dataclass
class _Work:
    """What a diagnosis accumulates."""

    calls: list[_Call]
    tests: dict[str, FailingBatch]
    room: asyncio.Semaphore
    """A permit for each call that may be made ahead of the evidence."""
    answers: dict[_Call, Answer] = field(default_factory=dict)
    read: list[DiagnosedDecision] = field(default_factory=list)
    taken: int = 0
    from_ledger: int = 0
    refused: dict[str, str] = field(default_factory=dict)
    """Part to why it cannot be asked alone."""

    @property
    def alarmed(self) -> bool:
        return all(test.alarmed for arm, test in self.tests.items() if arm not in self.refused)

    @property
    def made(self) -> dict[_Call, Answer]:
        """The calls that were made or taken from the ledger."""
        return {call: answer for call, answer in self.answers.items() if answer is not NOT_ASKED}


class BatchDiagnosis:
    """One diagnosis. What was asked before an interruption is in the ledger and for a day not paid again: both models
    answer for today, and an old answer of one is not held against a new one of the other.

    Not guaranteed: anything of a diagnosis that is repeated with other `repeats` or limits because of what the first
    one said: the first look counts.
    """

    def __init__(
        self,
        asked: Diagnosing,
        proposer: Proposer,
        ledger: Ledger,
        now: Callable[[], datetime],
        spending: Spending | None = None,
    ) -> None:
        self._asked = asked
        self._arms = asked.arms
        self._planned = asked.planned
        self._proposer = proposer
        self._ledger = ledger
        self._now = now
        self._not_before = oldest(now())
        self._spending = spending or Spending()

    async def run(self, on_progress: Callable[[int, int], None] = lambda done, planned: None) -> DiagnosisResult:
        """Ask until every arm's evidence suffices or the batch ends; a batch that can make no alarm is not asked.

        Args:
            on_progress: Told calls made and calls planned.

        Raises:
            UsageError: A boundary or prompt is gone, or a model does not exist.
        """
        alpha, delta = self._asked.limits.alpha, self._asked.limits.delta
        parts = [arm for arm in self._arms if arm not in WHOLE]
        few = self._asked.by_repeat
        tests = {arm: FailingBatch(alpha / len(parts), delta, few) for arm in parts}
        whole = FailingBatch(alpha, delta, few)
        work = _Work(self._calls(), {CANDIDATE: whole, **tests}, asyncio.Semaphore(self._ahead))
        if self._asked.bets < events_to_alarm(alpha):
            return self._result(work, "too_small")
        self._check()
        try:
            async with asyncio.TaskGroup() as workers:
                for _ in range(min(self._asked.limits.concurrency, len(work.calls))):
                    workers.create_task(self._ask_on(work, on_progress))
        except BaseExceptionGroup as failed:
            raise failed.exceptions[0] from None  # the others stopped because of it, or say the same
        self._recall_overspent(work)
        return self._result(work, self._ended_because(work))

    @property
    def _ahead(self) -> int:
        """Calls that may be made ahead of the evidence; at least those of one decision."""
        return max(AHEAD_FACTOR * self._asked.limits.concurrency, len(self._arms) * self._asked.repeats)

    def _calls(self) -> list[_Call]:
        """Every call, decision by decision, its arms taking turns: what the world does meanwhile, it does to all."""
        repeats = range(self._asked.repeats)
        return [_Call(i, arm, r) for i in range(len(self._planned)) for r in repeats for arm in self._arms]

    def _check(self) -> None:
        """Make one request of each kind, so that what cannot be asked is known before anything is paid."""
        kinds = {(one.stratum, one.decision.prompt_hash): index for index, one in enumerate(self._planned)}
        for index in kinds.values():
            for arm in self._arms:
                request, _ = self._request(_Call(index, arm, 0))
                self._asked.subject.require_judgeable(self._planned[index].decision, request.model)

    async def _ask_on(self, work: _Work, on_progress: Callable[[int, int], None]) -> None:
        while True:
            await work.room.acquire()
            if work.alarmed or self._spending.ended or work.taken == len(work.calls):
                work.room.release()  # whoever waits for room must see it too
                return
            call = work.calls[work.taken]
            work.taken += 1
            rounds = self._rounds(call)
            known = rounds.carry(self._get())
            work.from_ledger += known is not None
            answer = await self._pay(call, rounds, work) if known is None else known
            if answer is None:
                work.room.release()
            else:
                work.answers[call] = answer
                self._read(work)
                on_progress(len(work.answers), len(work.calls))
            if known is not None:
                await asyncio.sleep(0)  # nothing was waited for; Ctrl-C gets its turn too

    async def _pay(self, call: _Call, rounds: Rounds, work: _Work) -> Answer | None:
        """Ask, if the budget allows it, and write the answer to the ledger before it counts.

        Raises:
            UsageError: The incumbent or the candidate cannot be asked; a part that cannot is asked no more.
        """
        if call.arm in work.refused:
            return NOT_ASKED

        def put(key: AnswerKey, answer: Answer) -> Answer:
            payer, at = diagnosis_id(self._asked.run_id), format_time(self._now())
            return self._ledger.put(key, answer, payer, at, self._not_before)

        try:
            return await ask_on(rounds, self._planned[call.index], self._proposer, put, self._spending)
        except UsageError as error:
            if call.arm in WHOLE:
                raise
            work.refused[call.arm] = str(error)
            return NOT_ASKED

    def _rounds(self, call: _Call) -> Rounds:
        request, key = self._request(call)
        return rounds_of(self._planned[call.index].decision, self._asked.subject, request, key)

    def _get(self, paid_by: str | None = None) -> Callable[[AnswerKey], Answer | None]:
        return partial(self._ledger.get, paid_by=paid_by, not_before=self._not_before)

    def _request(self, call: _Call) -> tuple[ProposalRequest, AnswerKey]:
        arm, decision = self._arms[call.arm], self._planned[call.index].decision
        role = INCUMBENT if call.arm == INCUMBENT else CANDIDATE
        number = list(self._arms).index(call.arm)
        apart = max(REPLICATES_APART, len(self._arms))
        asking = Asking(role, PURPOSE, call.repeat * apart + number)
        run, seed = diagnosis_id(self._asked.run_id), self._asked.limits.order_seed
        request = arm.request(decision, self._asked.subject, run, seed, asking=asking)
        return request, arm.key(decision, self._asked.subject, request, asking=asking)

    def _read(self, work: _Work) -> None:
        """Feed every decision whose turn has come and whose answers are all there; after the alarms none."""
        while len(work.read) < len(self._planned) and not work.alarmed:
            index, repeats = len(work.read), range(self._asked.repeats)
            calls = {arm: [_Call(index, arm, repeat) for repeat in repeats] for arm in self._arms}
            if not all(call in work.answers for of_arm in calls.values() for call in of_arm):
                return
            passed = {arm: [self._passed(call, work) for call in of_arm] for arm, of_arm in calls.items()}
            read = DiagnosedDecision(self._planned[index], passed)
            work.read.append(read)
            for _ in range(len(calls) * len(repeats)):
                work.room.release()
            for arm, test in work.tests.items():
                if differences := read.differences(arm):
                    test.update(differences)

    def _recall_overspent(self, work: _Work) -> None:
        """Count what was paid beyond the alarm by an earlier start of the same command, so that no cost is hidden."""
        if not work.alarmed:
            return
        for call in work.calls[work.taken : work.taken + self._ahead]:
            known = self._rounds(call).carry(self._get(diagnosis_id(self._asked.run_id)))
            if known is not None:
                work.answers[call] = known
                work.from_ledger += 1

    def _passed(self, call: _Call, work: _Work) -> float | None:
        judged = judge_answer(work.answers[call], self._planned[call.index].decision, self._asked.subject)
        return None if judged.lost else float(judged.judgement.accepted)

    def _ended_because(self, work: _Work) -> str:
        if work.alarmed:
            return "alarm"
        cut_short = len(self._planned) < len(self._asked.batch.decisions)
        return "budget_ended" if cut_short or self._spending.ended else "batch_ended"

    def _result(self, work: _Work, because: str) -> DiagnosisResult:
        coverage = coverage_of(work.read, WHOLE)
        found = {arm: self._of_part(arm, work) for arm in self._arms if arm not in WHOLE}
        whole = work.tests[CANDIDATE].diagnosis()
        if because == "too_small":
            whole = replace(whole, reason=too_small(self._asked))
        elif coverage < COVERAGE_MIN:
            because, why = "coverage", f"only {coverage:.0%} of the answers came: too few to conclude from"
            whole = replace(whole, conclusion="unknown", reason=why)
        made = work.made
        prices = [one.cost_usd for one in made.values() if one.failure not in LOST or one.cost_usd is not None]
        parts = found or dict.fromkeys(self._asked.changed, whole)
        return DiagnosisResult(
            run_id=self._asked.run_id,
            diagnosis=whole,
            parts=found,
            cause=cause_of(whole, list(parts.items())),
            advice=advise(whole, self._asked.moved),
            decisions=work.read,
            batch=len(self._asked.batch.decisions),
            repeats=self._asked.repeats,
            by_repeat=self._asked.by_repeat,
            stopped_because=because,
            paid_calls=len(made),
            from_ledger=work.from_ledger,
            overspent_calls=sum(call.index >= len(work.read) for call in made) if work.alarmed else 0,
            cost_usd=None if None in prices else sum(price or 0.0 for price in prices),
            coverage=coverage,
        )

    def _of_part(self, arm: str, work: _Work) -> Diagnosis:
        """What is said of a part alone; unknown where it has too few answers, which costs the whole nothing."""
        part, coverage = work.tests[arm].diagnosis(), coverage_of(work.read, (INCUMBENT, arm))
        if arm in work.refused:
            return replace(part, conclusion="unknown", reason=f"it cannot be asked alone: {work.refused[arm]}")
        if coverage < COVERAGE_MIN:
            few = f"only {coverage:.0%} of the answers came: too few to conclude from"
            return replace(part, conclusion="unknown", reason=few)
        return part
