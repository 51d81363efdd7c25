"""What counts as an outcome, what costs coverage, and what is the verifier's doing and not the candidate's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace as changed

import pytest

from driftline.consumers import Policy
from driftline.consumers.proposing import Answer, ProposalRequest, ProposerFailure
from driftline.examples.renewals.app import app as renewals
from driftline.examples.renewals.app import discount_cap, price_floor
from driftline.replay import AppSubject, Candidate, ForcedResult, Limits, Segment
from driftline.replay.levels import LOST
from driftline.replay.testing import OwnModels
from driftline.replay.turns import planned_decisions
from driftline.schemas import Attempt, Decision, Rejection

Replay = Callable[..., ForcedResult]
STRICTER = 'version = "2026-08"\n[discount]\ncap_pct = 15\n[restructure]\nfloor_share = 0.6\n'


class Answering:
    """Answers as told by decision, else `yes`."""

    def __init__(self, told: Mapping[str, Answer] | None = None) -> None:
        self.told = told or {}
        self.asked: list[str] = []

    async def propose(self, request: ProposalRequest) -> Answer:
        self.asked.append(request.key.decision_id)
        return self.told.get(request.key.decision_id, Answer("yes"))


def failing(numbers: range, failure: ProposerFailure) -> Answering:
    return Answering({f"d{number}": Answer(None, failure) for number in numbers})


@pytest.fixture
def stricter_subject(as_subject: Callable[..., AppSubject]) -> AppSubject:
    """The renewals app of today, whose policy has become stricter than the one of the history."""
    policy = Policy([discount_cap, price_floor], STRICTER)
    return as_subject(changed(renewals, boundaries=[changed(renewals.boundaries[0], verifiers=[policy])]))


def test_a_stricter_policy_shows_as_verifier_drift_and_not_as_divergence(
    replay: Replay, renewals_history: Segment, stricter_subject: AppSubject
) -> None:
    result = replay(
        renewals_history, OwnModels(), subject=stricter_subject, candidate=Candidate("sim/renewals"), read_on=True
    )
    assert result.verifier_drift > 0.1 * len(result.pairs)
    assert result.verdict != "diverged"


def test_an_unchanged_policy_shows_no_verifier_drift(
    replay: Replay, renewals_history: Segment, renewals_subject: AppSubject
) -> None:
    result = replay(renewals_history, OwnModels(), subject=renewals_subject, candidate=Candidate("sim/renewals"))
    assert result.verifier_drift == 0


def test_first_attempts_are_compared_where_the_log_has_several(
    replay: Replay, questions: Callable[..., Segment], make_question: Callable[..., Decision]
) -> None:
    mended = [
        Attempt(number=1, raw_response="no", rejections=(Rejection(code="wrong_answer"),)),
        Attempt(number=2, raw_response="yes"),
    ]
    result = replay(questions(decisions=[make_question(number, mended) for number in range(6)]), Answering())
    assert {pair.baseline.answer.text for pair in result.pairs} == {"no"}
    assert all(pair.baseline.hashes["verdict"] != pair.candidate.hashes["verdict"] for pair in result.pairs)


def test_an_attempt_behind_a_lost_one_answered_the_same_question_and_counts(
    replay: Replay,
    questions: Callable[..., Segment],
    make_question: Callable[..., Decision],
    lost_attempt: Callable[..., Attempt],
) -> None:
    attempts = [lost_attempt(1), lost_attempt(2, "rate_limited"), Attempt(number=3, raw_response="yes")]
    result = replay(questions(decisions=[make_question(number, attempts) for number in range(6)]), Answering())
    assert (result.coverage, result.verdict, result.verifier_drift) == (1.0, "equivalent", 0)


def test_where_the_log_has_no_outcome_nobody_is_asked_and_coverage_falls(
    replay: Replay,
    questions: Callable[..., Segment],
    make_question: Callable[..., Decision],
    lost_attempt: Callable[..., Attempt],
) -> None:
    decisions = [make_question(number, [lost_attempt(1)] if number < 3 else []) for number in range(10)]
    proposer = Answering()
    result = replay(questions(decisions=decisions), proposer)
    assert (len(proposer.asked), result.paid_calls) == (7, 7)
    assert (result.coverage, result.verdict, result.stopped_because) == (0.7, "inconclusive", "coverage")


@pytest.mark.parametrize("failure", sorted(LOST))
def test_lost_calls_below_nine_in_ten_make_the_verdict_inconclusive(
    failure: ProposerFailure, replay: Replay, questions: Callable[..., Segment]
) -> None:
    result = replay(questions(40), failing(range(5), failure))
    assert (result.verdict, result.stopped_because) == ("inconclusive", "coverage")
    assert result.coverage == 35 / 40
    assert result.judged.events == 35


class AlwaysWrong(Answering):
    """Says `no` to all that it does not lose."""

    async def propose(self, request: ProposalRequest) -> Answer:
        told = await super().propose(request)
        return told if told.failure else Answer("no")


def test_two_answers_lost_before_an_early_alarm_do_not_void_it(
    replay: Replay, questions: Callable[..., Segment]
) -> None:
    first = [logged.decision.decision_id for logged in planned_decisions(questions(200), Limits())[:2]]
    lost = AlwaysWrong({name: Answer(None, ProposerFailure.TIMEOUT) for name in first})
    result = replay(questions(200), lost, concurrency=1)
    assert (result.verdict, result.stopped_because) == ("diverged", "alarm")
    assert result.alarm_after is not None
    assert result.alarm_after < 18
    assert (result.coverage, len(result.pairs)) == (0.9, 20)


def test_a_run_may_be_told_to_read_so_many_decisions_at_least(
    replay: Replay, questions: Callable[..., Segment]
) -> None:
    result = replay(questions(200), AlwaysWrong(), concurrency=1, decisions_min=30)
    assert (result.verdict, len(result.pairs), result.paid_calls) == ("diverged", 30, 30)


def test_a_few_lost_calls_cost_coverage_and_no_more(replay: Replay, questions: Callable[..., Segment]) -> None:
    result = replay(questions(400), failing(range(20), ProposerFailure.TIMEOUT))
    assert 0.9 < result.coverage < 1
    assert result.verdict == "equivalent"


def test_a_lost_call_is_asked_again_by_the_next_run(replay: Replay, questions: Callable[..., Segment]) -> None:
    replay(questions(10), failing(range(3), ProposerFailure.RATE_LIMITED))
    again = Answering()
    result = replay(questions(10), again)
    assert sorted(again.asked) == ["d0", "d1", "d2"]
    assert result.coverage == 1.0


def test_all_calls_lost_is_inconclusive_and_has_no_rates(replay: Replay, questions: Callable[..., Segment]) -> None:
    result = replay(questions(5), failing(range(5), ProposerFailure.PROVIDER_ERROR))
    assert (result.coverage, result.verdict, result.judged.events) == (0.0, "inconclusive", 0)
    assert result.judged.e_value == 1.0


@pytest.mark.parametrize("failure", [ProposerFailure.REFUSED, ProposerFailure.EMPTY])
def test_a_refusal_is_an_outcome_and_diverges(
    failure: ProposerFailure, replay: Replay, questions: Callable[..., Segment]
) -> None:
    result = replay(questions(40), failing(range(40), failure))
    assert (result.verdict, result.coverage) == ("diverged", 1.0)


def test_white_space_counts_as_no_answer_in_both_arms(
    replay: Replay, questions: Callable[..., Segment], make_question: Callable[..., Decision]
) -> None:
    blank = [Attempt(number=1, raw_response="  \n", rejections=(Rejection(code="wrong_answer"),))]
    decisions = [make_question(number, blank) for number in range(5)]
    result = replay(questions(decisions=decisions), failing(range(5), ProposerFailure.EMPTY))
    levels = {level.level: level.mismatch for level in result.judged.levels}
    assert (levels["action"], levels["verdict"], levels["bytes"]) == (0.0, 0.0, 0.0)


def test_a_price_that_is_unknown_is_not_told_as_nothing(replay: Replay, questions: Callable[..., Segment]) -> None:
    assert replay(questions(5), Answering(), run_id="unpriced").cost_usd is None


def test_a_call_that_failed_does_not_hide_what_the_others_cost(
    replay: Replay, questions: Callable[..., Segment]
) -> None:
    told = {f"d{number}": Answer("yes", cost_usd=0.25) for number in range(40)}
    told["d7"] = Answer(None, ProposerFailure.TIMEOUT)
    assert replay(questions(40), Answering(told), read_on=True).cost_usd == 39 * 0.25


def test_what_utf_8_cannot_carry_is_compared_as_the_log_would_hold_it(
    replay: Replay, questions: Callable[..., Segment], make_question: Callable[..., Decision]
) -> None:
    text = "half a pair: \ud83d"
    decisions = [make_question(number, [Attempt(number=1, raw_response=text)]) for number in range(3)]
    told = {f"d{number}": Answer(text) for number in range(3)}
    for _ in ("from the model", "from the ledger"):
        result = replay(questions(decisions=decisions), Answering(told))
        assert {level.mismatch for level in result.judged.levels} == {0.0}
