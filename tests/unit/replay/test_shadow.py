"""Mode `shadow`: decisions are judged in the order in which they came, until a verdict, a limit or a stop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from driftline.consumers.proposing import Answer, ProposalRequest
from driftline.consumers.verifier_spec import SpecJudge
from driftline.detectors.bernstein import RunningMeanInterval
from driftline.replay import Candidate, ForcedResult, Ledger, Limits, LoggedDecision, RecordedSubject, Segment
from driftline.replay.arms import Incumbent
from driftline.replay.identity import shadow_id_of
from driftline.replay.shadow import ShadowReplay
from driftline.replay.spending import Spending
from driftline.schemas import Decision

NOON = datetime(2026, 9, 22, 12, tzinfo=UTC)
Shadow = Callable[..., tuple[ShadowReplay, ForcedResult]]


class Batches:
    """Hands out batches; a callable among them is called in its place. What comes after the last is an endless
    silence."""

    def __init__(self, *batches: Sequence[LoggedDecision] | Callable[[], None]) -> None:
        self.left = list(batches)
        self.polls = 0

    def poll(self, timeout_s: float) -> Sequence[LoggedDecision]:
        self.polls += 1
        batch = self.left.pop(0) if self.left else ()
        if callable(batch):
            batch()
            return ()
        return batch


class Says:
    """Answers alike, the later calls of a batch first."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.asked: list[str] = []
        self.began = threading.Event()

    async def propose(self, request: ProposalRequest) -> Answer:
        self.asked.append(request.key.decision_id)
        self.began.set()
        for _ in range(20 - len(self.asked) % 8):
            await asyncio.sleep(0)
        return Answer(self.text, cost_usd=0.01)


@pytest.fixture
def shadow(ledger: Ledger, quiz: RecordedSubject) -> Shadow:
    """Follow batches; time goes by a second a poll."""

    def run(tail: Batches, proposer: Says, **given: Any) -> tuple[ShadowReplay, ForcedResult]:
        limits = Limits(**{name: value for name, value in given.items() if name in Limits.__slots__})
        replay = ShadowReplay(
            "run",
            "quiz",
            tail,
            quiz,
            Candidate("acme/next"),
            proposer,
            ledger,
            limits,
            lambda: NOON,
            Spending(limits.usd_max, ledger.paid_usd("run"), lambda logged, request: 0.01),
            follow_s=given.get("follow_s"),
            clock=lambda: float(tail.polls),
            incumbent=given.get("incumbent"),
        )
        if "prepare" in given:
            given["prepare"](replay)
        return replay, asyncio.run(replay.run())

    return run


def stopped_while_asking(tail: Batches, model: Says) -> Callable[[ShadowReplay], None]:
    """Have the last batch stop the replay, once a call is in flight: what came may not be taken up before."""

    def prepare(replay: ShadowReplay) -> None:
        def stop() -> None:
            assert model.began.wait(60)
            replay.stop()

        tail.left.append(stop)

    return prepare


@pytest.fixture
def hundred(questions: Callable[..., Segment]) -> Sequence[LoggedDecision]:
    return questions(100).decisions


def test_it_ends_with_the_verdict_in_the_order_in_which_decisions_came(
    shadow: Shadow, hundred: Sequence[LoggedDecision]
) -> None:
    came = list(reversed(hundred))
    _, result = shadow(Batches(came[:30], (), came[30:]), Says("no"), concurrency=8)
    assert (result.verdict, result.stopped_because) == ("diverged", "alarm")
    assert [pair.logged for pair in result.pairs] == came[: len(result.pairs)]
    assert result.paid_calls < 30


def test_the_result_does_not_depend_on_how_the_decisions_were_batched(
    shadow: Shadow, hundred: Sequence[LoggedDecision]
) -> None:
    _, at_once = shadow(Batches(hundred), Says("no"), concurrency=8)
    _, one_by_one = shadow(Batches(*([one] for one in hundred)), Says("no"), concurrency=8)
    assert one_by_one.judged.e_value == at_once.judged.e_value
    assert one_by_one.paid_calls == at_once.paid_calls


def test_it_ends_when_its_time_is_over(shadow: Shadow, hundred: Sequence[LoggedDecision]) -> None:
    _, result = shadow(Batches(hundred[:5]), Says("yes"), follow_s=200.0)
    assert (result.verdict, result.stopped_because, len(result.pairs)) == ("inconclusive", "time_ended", 5)


def test_it_ends_when_its_calls_are_spent(shadow: Shadow, hundred: Sequence[LoggedDecision]) -> None:
    model = Says("yes")
    _, result = shadow(Batches(hundred), model, calls_max=12)
    assert (result.stopped_because, len(model.asked)) == ("budget_ended", 12)


def test_it_ends_when_its_dollars_are_spent(shadow: Shadow, hundred: Sequence[LoggedDecision]) -> None:
    model = Says("yes")
    _, result = shadow(Batches(hundred), model, usd_max=0.07)
    assert (result.stopped_because, len(model.asked), len(result.pairs)) == ("budget_ended", 7, 7)


def test_a_stop_lets_calls_in_flight_come_to_their_end(shadow: Shadow, hundred: Sequence[LoggedDecision]) -> None:
    model, tail = Says("yes"), Batches(hundred[:3])
    _, result = shadow(tail, model, prepare=stopped_while_asking(tail, model))
    assert result.stopped_because == "interrupted"
    assert len(result.pairs) == len(model.asked) > 0


def test_nothing_that_comes_is_no_verdict(shadow: Shadow) -> None:
    replay, result = shadow(Batches(), Says("yes"), follow_s=3.0)
    assert (result.verdict, result.stopped_because, list(replay.decisions)) == ("inconclusive", "time_ended", [])


def test_a_decision_that_comes_twice_counts_once(shadow: Shadow, hundred: Sequence[LoggedDecision]) -> None:
    model = Says("yes")
    _, result = shadow(Batches(hundred[:4], hundred[2:6]), model, follow_s=200.0)
    assert len(model.asked) == len(set(model.asked)) == 6
    assert result.repeated_decisions == 2


def test_a_stream_that_the_app_does_not_declare_is_passed_over_and_told(
    shadow: Shadow, questions: Callable[..., Segment], make_question: Callable[..., Decision]
) -> None:
    came = questions(decisions=[make_question(0), make_question(1, stream="retired"), make_question(2)]).decisions
    replay, result = shadow(Batches(came), Says("yes"), follow_s=200.0)
    assert (replay.passed_over, len(result.pairs)) == (1, 2)


def test_what_was_asked_before_an_interruption_is_not_paid_again(
    shadow: Shadow, hundred: Sequence[LoggedDecision]
) -> None:
    first, second = Says("yes"), Says("yes")
    shadow(Batches(hundred[:10]), first, follow_s=200.0)
    _, result = shadow(Batches(hundred[:20]), second, follow_s=200.0)
    assert len(first.asked) == len(second.asked) == 10
    assert (result.from_ledger, len(result.pairs)) == (10, 20)


BESIDE = Incumbent(Candidate(incumbent=True), 2)


def test_the_incumbent_is_asked_beside_the_candidate_as_decisions_come(
    shadow: Shadow, hundred: Sequence[LoggedDecision]
) -> None:
    model = Says("no")
    _, result = shadow(Batches(hundred[:30], (), hundred[30:]), model, concurrency=8, incumbent=BESIDE)
    assert result.environment is not None
    assert (result.verdict, result.environment.verdict) == ("diverged", "diverged")
    assert result.paid_calls + result.overspent_calls == len(model.asked)
    assert all(len(pair.floor) == 2 for pair in result.pairs)


def test_its_calls_are_those_of_every_arm_and_a_decision_is_never_half_asked(
    shadow: Shadow, hundred: Sequence[LoggedDecision]
) -> None:
    model = Says("yes")
    _, result = shadow(Batches(hundred), model, calls_max=17, incumbent=BESIDE)
    assert (result.stopped_because, len(model.asked), len(result.pairs)) == ("budget_ended", 15, 5)


def test_a_stop_lets_the_incumbent_answer_what_the_candidate_was_asked(
    shadow: Shadow, hundred: Sequence[LoggedDecision]
) -> None:
    model, tail = Says("yes"), Batches(hundred[:3])
    _, result = shadow(tail, model, prepare=stopped_while_asking(tail, model), incumbent=BESIDE)
    assert result.stopped_because == "interrupted"
    assert {pair.calls for pair in result.pairs} == {3}
    assert len(model.asked) == 3 * len(result.pairs)


def test_its_interval_holds_for_the_mean_so_far_where_traffic_drifts(
    shadow: Shadow, hundred: Sequence[LoggedDecision]
) -> None:
    """The first forty decisions agree, the others do not: the interval holds the mean of all that was read."""
    turned = {logged.decision.decision_id for logged in hundred[40:]}

    class Turns(Says):
        async def propose(self, request: ProposalRequest) -> Answer:
            answer = await super().propose(request)
            return Answer("no", cost_usd=0.01) if request.key.decision_id in turned else answer

    _, result = shadow(Batches(hundred), Turns("yes"), follow_s=200.0)
    pairs = [pair for pair in result.pairs if not pair.lost]
    mean = RunningMeanInterval(0.05)
    for pair in pairs:
        mean.update(-1.0 if pair.logged.decision.decision_id in turned else 0.0)
    verdict = next(level for level in result.judged.levels if level.level == "verdict")
    assert result.verdict == "diverged"
    assert verdict.interval == mean.interval
    assert verdict.interval[0] < -sum(pair.logged.decision.decision_id in turned for pair in pairs) / len(pairs)
    assert [one.interval for one in result.judged.strata if one.level == "verdict" and one.events] == [mean.interval]


def test_the_intervals_of_the_contrasts_hold_where_traffic_drifts_too(
    shadow: Shadow, hundred: Sequence[LoggedDecision]
) -> None:
    """The candidate answers as the log, the incumbent of today does not: both sides differ, each its way."""

    class Moved(Says):
        async def propose(self, request: ProposalRequest) -> Answer:
            answer = await super().propose(request)
            return Answer("no", cost_usd=0.01) if request.key.arm == "incumbent" else answer

    _, result = shadow(Batches(hundred[:20]), Moved("yes"), follow_s=200.0, incumbent=BESIDE)
    assert result.environment is not None
    assert result.change is not None
    for contrast, difference in ((result.environment, -1.0), (result.change, 1.0)):
        mean = RunningMeanInterval(0.05)
        at_stop = mean.interval
        for number in range(contrast.judged.events):
            mean.update(difference)
            at_stop = mean.interval if number < contrast.judged.events_at_stop else at_stop
        verdict = next(level for level in contrast.judged.levels if level.level == "verdict")
        assert contrast.verdict == "diverged"
        assert (verdict.interval, verdict.interval_at_stop) == (mean.interval, at_stop)


def test_runs_under_other_rules_are_other_runs(quiz: RecordedSubject) -> None:
    """One that was judged otherwise would take the place of the first, and its alert would count as told."""
    stricter = replace(quiz, spec=SpecJudge.parse('[streams.quiz]\naccept = "non-empty"\n'))
    names = {shadow_id_of(subject, Candidate("acme/next"), Limits(), {0: 0}) for subject in (quiz, quiz, stricter)}
    assert len(names) == 2
