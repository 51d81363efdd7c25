"""The second phase: what rates cannot see, four fresh answers a decision can, and only where a stratum is open."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from random import Random

import pytest

from driftline.consumers.proposing import Answer, ProposalRequest, ProposerFailure
from driftline.replay import AppSubject, Candidate, ForcedResult, Ledger, Limits, Progress, Segment
from driftline.replay.arms import Incumbent
from driftline.replay.spread import spread_limits
from driftline.replay.testing import OwnModels
from driftline.schemas import Attempt, Decision

ALONE = Incumbent(Candidate(incumbent=True))
CANDIDATE = Candidate("acme/next")
NEVER = 0.001
"""A delta within which nothing is shown to be equivalent in runs of these lengths."""
Replay = Callable[..., ForcedResult]


def coin(*what: object) -> str:
    return "yes" if Random("/".join(map(str, what))).random() < 0.5 else "no"


class Sharpened:
    """The incumbent tosses a coin at each call; the candidate has tossed one for each decision, once and for all."""

    def __init__(self, sharp: bool = True) -> None:
        self.sharp = sharp
        self.asked: list[ProposalRequest] = []

    async def propose(self, request: ProposalRequest) -> Answer:
        self.asked.append(request)
        key = request.key
        once = self.sharp and key.arm.startswith("candidate")
        text = coin("sharp", key.decision_id) if once else coin(key.arm, key.replicate, key.decision_id)
        return Answer(text, cost_usd=0.01)


@pytest.fixture
def coins(questions: Callable[..., Segment], make_question: Callable[..., Decision]) -> Segment:
    """Decisions that were logged by the toss of a coin."""
    attempts = [[Attempt(number=1, raw_response=coin("log", number))] for number in range(120)]
    return questions(decisions=[make_question(number, attempt) for number, attempt in enumerate(attempts)])


def test_a_candidate_that_only_spreads_less_is_found_by_four_fresh_answers_a_decision(
    replay: Replay, coins: Segment
) -> None:
    models = Sharpened()
    first = replay(coins, models, incumbent=ALONE, delta=NEVER, mmd=False)
    assert (first.verdict, first.stopped_because) == ("inconclusive", "segment_ended")
    assert (first.open_strata, first.spread_calls) == (("recorded/quiz",), 0)
    result = replay(coins, models, incumbent=ALONE, delta=NEVER, mmd=True)
    assert (result.verdict, result.stopped_because) == ("diverged", "alarm")
    assert result.change is not None
    assert result.change.verdict == "diverged"
    assert result.judged.e_value >= 20 > first.judged.e_value
    assert {stratum.named for stratum in result.judged.strata if stratum.level == "action"} == {True}


def test_its_answers_are_fresh_and_every_one_of_them_is_counted(replay: Replay, coins: Segment) -> None:
    models = Sharpened()
    result = replay(coins, models, incumbent=ALONE, delta=NEVER, mmd=True, concurrency=7)
    assert result.spread_calls > 0
    assert len(models.asked) == result.paid_calls + result.overspent_calls
    assert result.cost_usd == pytest.approx(0.01 * len(models.asked))
    most = Counter((one.key.decision_id, one.key.arm, one.key.replicate) for one in models.asked)
    assert set(most.values()) == {1}


def test_a_run_that_goes_on_from_the_ledger_pays_nothing_and_says_the_same(replay: Replay, coins: Segment) -> None:
    given = {"incumbent": ALONE, "delta": NEVER, "mmd": True, "concurrency": 7}
    first, again = replay(coins, Sharpened(), **given), Sharpened()
    resumed = replay(coins, again, **given)
    assert again.asked == []
    assert resumed.judged == first.judged
    assert resumed.change == first.change
    assert (resumed.paid_calls, resumed.overspent_calls) == (first.paid_calls, first.overspent_calls)


def test_without_a_budget_nothing_further_is_asked_unless_it_is_said(replay: Replay, coins: Segment) -> None:
    result = replay(coins, Sharpened(), incumbent=ALONE, delta=NEVER)
    assert (result.verdict, result.spread_calls) == ("inconclusive", 0)
    assert result.open_strata


def test_what_is_left_of_a_budget_is_spent_on_what_is_open_and_never_passed(replay: Replay, coins: Segment) -> None:
    models = Sharpened(sharp=False)
    result = replay(coins, models, incumbent=ALONE, delta=NEVER, calls_max=301)
    assert len(models.asked) == result.paid_calls == 240 + 60
    assert (result.spread_calls, result.verdict, result.stopped_because) == (60, "inconclusive", "budget_ended")


def test_a_budget_that_ended_in_the_first_phase_leaves_no_second(replay: Replay, coins: Segment) -> None:
    result = replay(coins, Sharpened(), incumbent=ALONE, delta=NEVER, calls_max=200)
    assert (result.spread_calls, result.stopped_because) == (0, "budget_ended")


def test_a_verdict_leaves_nothing_to_ask(replay: Replay, questions: Callable[..., Segment]) -> None:
    class Wrong:
        async def propose(self, request: ProposalRequest) -> Answer:
            return Answer("no" if request.key.arm == "candidate" else "yes")

    result = replay(questions(60), Wrong(), incumbent=ALONE, mmd=True)
    assert (result.verdict, result.spread_calls, result.open_strata) == ("diverged", 0, ())


def test_a_recording_answers_every_asking_alike_and_is_never_asked_again() -> None:
    recorded = Candidate("recorded/answers.jsonl#acme/next")
    asked_today = Incumbent(Candidate("recorded/answers.jsonl#acme/last", incumbent=True))
    assert spread_limits(Limits(mmd=True), recorded, ALONE) is None
    assert spread_limits(Limits(mmd=True), CANDIDATE, asked_today) is None
    assert spread_limits(Limits(mmd=True), CANDIDATE, None) is not None


def test_by_default_it_wants_an_incumbent_and_a_budget() -> None:
    for limits in (Limits(calls_max=9), Limits(usd_max=1.0)):
        assert spread_limits(limits, CANDIDATE, ALONE) is not None
        assert spread_limits(limits, CANDIDATE, None) is None
    assert spread_limits(Limits(), CANDIDATE, ALONE) is None
    assert spread_limits(Limits(calls_max=9, mmd=False), CANDIDATE, ALONE) is None


def test_progress_goes_on_counting_calls_and_stays_at_the_segments_end(replay: Replay, coins: Segment) -> None:
    told: list[Progress] = []
    result = replay(coins, Sharpened(), incumbent=ALONE, delta=NEVER, mmd=True, on_progress=told.append)
    assert told[-1].paid_calls == result.paid_calls
    assert told[-1].read == told[-1].planned == len(result.pairs)


def test_the_incumbent_against_itself_is_not_diverged_after_both_phases_in_eight_orders(
    replay: Replay, renewals_history: Segment, renewals_subject: AppSubject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    verdicts: Counter[str] = Counter()
    for seed in range(8):
        ledger = Ledger(tmp_path_factory.mktemp("fresh") / "ledger.sqlite")
        result = replay(
            renewals_history,
            OwnModels(),
            subject=renewals_subject,
            candidate=Candidate("sim/renewals"),
            incumbent=ALONE,
            order_seed=seed,
            run_id=f"r{seed}",
            ledger=ledger,
            delta=NEVER,
            mmd=True,
        )
        ledger.close()
        assert result.change is not None
        assert result.spread_calls == 4 * len(result.pairs) or result.verdict == "diverged"
        verdicts.update([result.verdict, result.change.verdict])
    assert verdicts["diverged"] <= 1


def test_fresh_answers_of_a_candidate_within_the_smallest_effect_are_no_alarm(replay: Replay, coins: Segment) -> None:
    """A coin and its one side are half of all probability apart: the smallest effect that is worth an alarm."""
    result = replay(coins, Sharpened(), incumbent=ALONE, delta=NEVER, mmd=True, min_effect=0.5)
    assert result.spread_calls > 0
    assert result.verdict == "inconclusive"


class Rejected(Sharpened):
    """Every answer of every arm is wrong; the candidate is sharper in which of two it gives."""

    async def propose(self, request: ProposalRequest) -> Answer:
        answer = await super().propose(request)
        return replace(answer, text="no" if answer.text == "no" else "never")


def test_a_level_is_named_by_its_own_answers(
    replay: Replay, questions: Callable[..., Segment], make_question: Callable[..., Decision]
) -> None:
    """Actions alone moved: no verdict did in any answer."""
    logged = [[Attempt(number=1, raw_response=coin("log", one).replace("yes", "never"))] for one in range(120)]
    segment = questions(decisions=[make_question(number, attempt) for number, attempt in enumerate(logged)])
    result = replay(segment, Rejected(), incumbent=ALONE, delta=NEVER, mmd=True)
    assert result.verdict == "diverged"
    named = {stratum.level: stratum.named for stratum in result.judged.strata}
    assert (named["action"], named["verdict"]) == (True, False)
    assert next(one.e_value for one in result.judged.strata if one.level == "verdict") == pytest.approx(1.0)


class LosesFresh(Sharpened):
    """A fifth of the candidate's fresh answers come to nothing."""

    async def propose(self, request: ProposalRequest) -> Answer:
        answer = await super().propose(request)
        key = request.key
        is_lost = key.arm == "candidate/spread" and int(key.decision_id.removeprefix("d")) % 5 == 0
        return Answer(None, ProposerFailure.TIMEOUT) if is_lost else answer


def test_fresh_answers_of_too_few_decisions_make_no_verdict_of_any_arm(replay: Replay, coins: Segment) -> None:
    result = replay(coins, LosesFresh(), incumbent=ALONE, delta=NEVER, mmd=True)
    assert (result.verdict, result.stopped_because) == ("inconclusive", "coverage")
    assert result.coverage < 0.9
    assert result.change is not None
    assert (result.change.verdict, result.change.stopped_because) == ("inconclusive", "coverage")
