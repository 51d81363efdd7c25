"""The incumbent of today beside the candidate: what moved is told apart, and each arm's answers are its own."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import pytest

from driftline.consumers.proposing import Answer, ProposalRequest, ProposerFailure
from driftline.replay import AppSubject, Candidate, ForcedResult, Ledger, Limits, RecordedSubject, Segment
from driftline.replay.alerting import alerts_of
from driftline.replay.arms import Asking, Incumbent, calls_of
from driftline.replay.identity import run_id_of
from driftline.replay.incumbent import incumbent_parts
from driftline.replay.testing import OwnModels
from driftline.replay.turns import planned_decisions
from driftline.schemas import ArmRef, Decision, ReplayCompleted, UsageError

NOON = datetime(2026, 9, 22, 12, tzinfo=UTC)
CANDIDATE, LOG = Candidate("acme/next"), Candidate(incumbent=True)
ALONE, THREE = Incumbent(LOG), Incumbent(LOG, 3)
ARMS = tuple(ArmRef(model=name, prompt_hash="p", verifier_version="v") for name in ("log", "today", "next"))
Replay = Callable[..., ForcedResult]
Questions = Callable[..., Segment]


NEVER = 0.001
"""A delta within which no run of these lengths is shown to be equivalent: every decision is read."""


class Arms:
    """Answers `yes` or what is told of an arm, a cent a call; calls of `lost` come to nothing."""

    def __init__(self, told: Mapping[str, str] | None = None, lost: frozenset[tuple[str, str]] = frozenset()) -> None:
        self.told = told or {}
        self.lost = lost
        self.asked: list[ProposalRequest] = []

    async def propose(self, request: ProposalRequest) -> Answer:
        self.asked.append(request)
        if (request.key.arm, request.key.decision_id) in self.lost:
            return Answer(None, ProposerFailure.TIMEOUT)
        return Answer(self.told.get(request.key.arm, "yes"), cost_usd=0.01)


class WrongIn(Arms):
    """The incumbent answers `no` to some decisions."""

    def __init__(self, decisions: set[str], told: Mapping[str, str] | None = None) -> None:
        super().__init__(told)
        self.decisions = decisions

    async def propose(self, request: ProposalRequest) -> Answer:
        answer = await super().propose(request)
        wrong = request.key.arm == "incumbent" and request.key.decision_id in self.decisions
        return Answer("no", cost_usd=0.01) if wrong else answer


class Slow(Arms):
    """The later calls of a batch come back first."""

    async def propose(self, request: ProposalRequest) -> Answer:
        answer = await super().propose(request)
        for _ in range(20 - len(self.asked) % 8):
            await asyncio.sleep(0)
        return answer


class Wavering(Arms):
    """Every arm answers by the toss of a coin of its own."""

    async def propose(self, request: ProposalRequest) -> Answer:
        await super().propose(request)
        toss = Random(f"{request.key.arm}{request.key.replicate}{request.key.decision_id}").random()
        return Answer("yes" if toss < 0.7 else "no", cost_usd=0.01)


def alerts(segment: Segment, result: ForcedResult) -> list[str]:
    log, today, candidate = ARMS
    raised = alerts_of(segment, log, candidate, result, Limits(), NOON, incumbent=today)
    return [alert.kind for alert in raised]


def sides(result: ForcedResult) -> tuple[str, str]:
    assert result.environment is not None
    assert result.change is not None
    return result.environment.verdict, result.change.verdict


def test_the_incumbent_is_asked_what_the_log_asked_and_as_often_as_the_floor_says(
    replay: Replay, questions: Questions
) -> None:
    models = Arms()
    tried = Candidate("acme/next", parameters={"temperature": 1})
    result = replay(questions(5), models, candidate=tried, incumbent=THREE)
    asked = Counter((one.model, one.key.arm, one.key.replicate, *one.parameters) for one in models.asked)
    assert asked == {
        ("acme/next", "candidate", 0, "temperature"): 5,
        ("acme/last", "incumbent", 0): 5,
        ("acme/last", "incumbent", 1): 5,
        ("acme/last", "incumbent", 2): 5,
    }
    assert [len(pair.floor) for pair in result.pairs] == [3] * 5
    assert result.paid_calls == 20
    assert result.cost_usd == pytest.approx(0.20)


def test_a_provider_that_moved_is_an_environment_drift_and_no_word_on_the_candidate(
    replay: Replay, questions: Questions
) -> None:
    segment = questions(60)
    result = replay(segment, Arms({"incumbent": "no", "candidate": "no"}), incumbent=ALONE)
    assert result.verdict == "diverged"
    assert sides(result) == ("diverged", "inconclusive")
    assert alerts(segment, result) == ["ReplayCompleted", "EnvironmentDriftAlert"]


def test_a_candidate_that_differs_from_an_incumbent_which_stayed_is_a_divergence(
    replay: Replay, questions: Questions
) -> None:
    segment = questions(60)
    result = replay(segment, Arms({"candidate": "no"}), incumbent=ALONE)
    assert sides(result) == ("inconclusive", "diverged")
    assert alerts(segment, result) == ["ReplayCompleted", "DivergenceAlert"]


def test_an_environment_drift_is_raised_whatever_the_candidate_does(replay: Replay, questions: Questions) -> None:
    """The candidate answers as the log did, the incumbent of today is the odd one out."""
    segment = questions(200)
    result = replay(segment, Arms({"incumbent": "no"}), incumbent=ALONE)
    assert sides(result)[0] == "diverged"
    assert "EnvironmentDriftAlert" in alerts(segment, result)


def test_without_an_incumbent_a_divergence_is_raised_as_ever(replay: Replay, questions: Questions) -> None:
    segment = questions(60)
    result = replay(segment, Arms({"candidate": "no"}))
    assert (result.environment, result.change) == (None, None)
    assert alerts(segment, result) == ["ReplayCompleted", "DivergenceAlert"]


def test_an_environment_drift_alert_shows_decisions_that_the_incumbent_decides_otherwise_today(
    replay: Replay, questions: Questions
) -> None:
    segment, (log, today, candidate) = questions(60), ARMS
    result = replay(segment, Arms({"incumbent": "no"}), incumbent=ALONE)
    *_, drift = alerts_of(segment, log, candidate, result, Limits(), NOON, incumbent=today)
    assert drift.kind == "EnvironmentDriftAlert"
    assert (drift.incumbent, drift.change) == (today, -1.0)
    assert drift.e_value >= 20
    assert len(drift.examples) == 5


def test_what_completed_tells_the_noise_of_the_incumbents_own_runs_and_none_without_them(
    replay: Replay, questions: Questions
) -> None:
    segment, (log, today, candidate) = questions(60), ARMS
    with_floor = replay(segment, Wavering(), incumbent=THREE, read_on=True)
    completed, *_ = alerts_of(segment, log, candidate, with_floor, Limits(), NOON, incumbent=today)
    assert isinstance(completed, ReplayCompleted)
    assert 0.2 < (completed.noise_lo or 0) < (completed.noise or 0) < (completed.noise_hi or 0) < 0.7
    alone, *_ = alerts_of(segment, log, candidate, replay(segment, Arms({})), Limits(), NOON)
    assert isinstance(alone, ReplayCompleted)
    assert alone.noise is None


def test_a_run_goes_on_behind_its_alarm_until_the_cause_is_known_and_no_further(
    replay: Replay, questions: Questions
) -> None:
    """The incumbent is wrong at first as the candidate is, so that the change shows later than the verdict."""
    first = {logged.decision.decision_id for logged in planned_decisions(questions(60), Limits())[:3]}
    models = WrongIn(first, {"candidate": "no"})
    result = replay(questions(60), models, incumbent=ALONE, concurrency=1)
    assert result.judged.events_at_stop < len(result.pairs)
    assert result.paid_calls == len(models.asked) == 2 * len(result.pairs)
    assert sides(result) == ("inconclusive", "diverged")


def test_nothing_is_read_to_show_that_the_environment_stayed(replay: Replay, questions: Questions) -> None:
    """The incumbent wavers once, which its contrast would need many more decisions to live down."""
    first = planned_decisions(questions(400), Limits())[0].decision.decision_id
    result = replay(questions(400), WrongIn({first}), incumbent=ALONE, concurrency=1)
    assert result.verdict == "equivalent"
    assert len(result.pairs) == result.judged.events_at_stop
    assert sides(result) == ("inconclusive", "inconclusive")


def test_what_the_incumbent_lost_costs_its_own_contrasts_and_not_the_verdict(
    replay: Replay, questions: Questions
) -> None:
    lost = frozenset(("incumbent", f"d{number}") for number in range(100))
    result = replay(questions(100), Arms({"candidate": "no"}, lost), incumbent=ALONE)
    assert (result.verdict, result.coverage) == ("diverged", 1.0)
    assert result.environment is not None
    assert (result.environment.stopped_because, sides(result)) == ("coverage", ("inconclusive", "inconclusive"))
    assert alerts(questions(100), result) == ["ReplayCompleted"]


def test_what_the_candidate_lost_leaves_the_contrast_of_log_and_incumbent(
    replay: Replay, questions: Questions
) -> None:
    lost = frozenset(("candidate", f"d{number}") for number in range(40))
    result = replay(questions(40), Arms({"incumbent": "no"}, lost), incumbent=ALONE)
    assert (result.verdict, result.stopped_because) == ("inconclusive", "coverage")
    assert sides(result)[0] == "diverged"


def test_where_the_log_has_no_outcome_no_arm_is_asked(
    replay: Replay, questions: Questions, make_question: Callable[..., Decision], lost_attempt: Callable[..., object]
) -> None:
    decisions = [make_question(number, [lost_attempt(1)] if number < 3 else []) for number in range(40)]
    models = Arms()
    result = replay(questions(decisions=decisions), models, incumbent=THREE)
    assert {one.key.decision_id for one in models.asked} == {f"d{number}" for number in range(3, 40)}
    assert result.paid_calls == 4 * 37 == len(models.asked)


def test_answers_of_all_arms_in_flight_at_the_stop_are_paid_told_and_no_evidence(
    replay: Replay, questions: Questions
) -> None:
    models = Slow({"candidate": "no"})
    result = replay(questions(200), models, incumbent=THREE, concurrency=7)
    assert result.overspent_calls > 0
    assert result.paid_calls + result.overspent_calls == len(models.asked)
    assert result.cost_usd == pytest.approx(0.01 * len(models.asked))


@pytest.mark.parametrize("concurrency", [1, 2, 8])
def test_how_many_calls_are_in_flight_changes_no_contrast(
    concurrency: int, replay: Replay, questions: Questions, ledger: Ledger
) -> None:
    def run(at_once: int) -> ForcedResult:
        given = {"incumbent": THREE, "concurrency": at_once, "run_id": f"r{at_once}", "delta": 0.2}
        return replay(questions(120), Wavering(), candidate=Candidate("acme/n", parameters={"n": at_once}), **given)

    one, result = run(5), run(concurrency)
    assert result.judged.e_value == one.judged.e_value
    assert (result.environment, result.change) == (one.environment, one.change)


def test_another_candidate_finds_the_incumbents_answers_in_the_ledger(replay: Replay, questions: Questions) -> None:
    replay(questions(30), Arms(), incumbent=THREE, run_id="first", delta=NEVER)
    other = Arms()
    result = replay(
        questions(30), other, candidate=Candidate("acme/other"), incumbent=THREE, run_id="second", delta=NEVER
    )
    assert {one.key.arm for one in other.asked} == {"candidate"}
    assert (len(other.asked), result.paid_calls, result.from_ledger) == (30, 120, 90)


def test_a_larger_floor_pays_only_for_the_runs_that_are_new(replay: Replay, questions: Questions) -> None:
    replay(questions(30), Arms(), incumbent=ALONE, delta=NEVER)
    more = Arms()
    replay(questions(30), more, incumbent=THREE, delta=NEVER)
    asked = Counter((one.key.arm, one.key.replicate) for one in more.asked)
    assert asked == {("incumbent", 1): 30, ("incumbent", 2): 30}


def test_answers_of_both_arms_count_for_a_day_where_they_are_held_against_one_another(
    replay: Replay, questions: Questions, ledger: Ledger
) -> None:
    replay(questions(30), Arms(), incumbent=ALONE, delta=NEVER)
    on_time, late = Arms(), Arms()
    replay(questions(30), on_time, incumbent=ALONE, now=NOON + timedelta(days=1), delta=NEVER)
    replay(questions(30), late, incumbent=ALONE, now=NOON + timedelta(days=1, milliseconds=1), delta=NEVER)
    assert on_time.asked == []
    assert Counter(one.key.arm for one in late.asked) == {"incumbent": 30, "candidate": 30}
    assert {held.model: (held.answers, held.retired) for held in ledger.stats()} == {
        "acme/last": (60, 30),
        "acme/next": (60, 30),
    }


def test_a_candidate_alone_is_asked_once_for_good(replay: Replay, questions: Questions) -> None:
    replay(questions(30), Arms(), delta=NEVER)
    late = Arms()
    replay(questions(30), late, now=NOON + timedelta(days=90), delta=NEVER)
    assert late.asked == []


def test_an_environment_that_moved_after_the_candidate_was_asked_is_not_laid_to_it(
    replay: Replay, questions: Questions
) -> None:
    """The candidate was tried alone; later, when everybody answers otherwise, the incumbent is asked as well."""
    replay(questions(60), Arms(), delta=NEVER)
    moved = Arms({"candidate": "no", "incumbent": "no"})
    result = replay(questions(60), moved, incumbent=THREE, now=NOON + timedelta(days=9), read_on=True)
    assert sides(result) == ("diverged", "equivalent")
    assert alerts(questions(60), result) == ["ReplayCompleted", "EnvironmentDriftAlert"]


def test_a_model_as_candidate_and_as_incumbent_never_shares_an_answer(replay: Replay, questions: Questions) -> None:
    models = Arms()
    same = Candidate("acme/last")
    replay(questions(30), models, candidate=same, incumbent=THREE, delta=NEVER)
    assert len(models.asked) == 4 * 30


def test_the_simulators_incumbent_draws_anew_in_every_run_and_for_every_purpose(
    renewals_history: Segment, renewals_subject: AppSubject
) -> None:
    decision = renewals_history.decisions[0].decision
    askings = [Asking("incumbent", purpose, run) for purpose in ("floor", "spread") for run in range(2)]
    keys = {LOG.request(decision, renewals_subject, "r", 0, asking).key for asking in askings}
    assert len(keys) == len(askings)


def test_max_calls_counts_the_calls_of_every_arm(replay: Replay, questions: Questions) -> None:
    models = Arms()
    result = replay(questions(40), models, incumbent=THREE, calls_max=22)
    assert (len(result.pairs), len(models.asked)) == (5, 20)
    assert result.stopped_because == "budget_ended"


def test_max_calls_that_hold_not_one_decision_are_refused(replay: Replay, questions: Questions) -> None:
    with pytest.raises(UsageError, match="--max-calls 3 does not hold one decision, which takes 4"):
        replay(questions(40), Arms(), incumbent=THREE, calls_max=3)


def test_a_floor_of_no_run_is_refused() -> None:
    with pytest.raises(UsageError, match="at least one run"):
        Incumbent(LOG, 0)


def test_a_run_without_an_incumbent_keeps_its_id_and_every_floor_has_its_own(
    questions: Questions, quiz: RecordedSubject
) -> None:
    given = (questions(3), quiz, CANDIDATE, Limits())
    beside = [None, ALONE, THREE, Incumbent(Candidate("acme/last", incumbent=True))]
    ids = [run_id_of(*given, incumbent) for incumbent in beside]
    assert len(set(ids)) == 4
    assert ids[0] == run_id_of(*given)


def test_the_candidate_is_asked_before_the_incumbent() -> None:
    """Where a budget ends within a decision, what it still held was for the verdict."""
    assert [call.asking.arm for call in calls_of(CANDIDATE, ALONE)] == ["candidate", "incumbent"]


@pytest.mark.parametrize(
    ("told", "cause"),
    [
        ({"candidate": "no"}, "model"),
        ({"incumbent": "no", "candidate": "no"}, "environment"),
        ({}, "none"),
    ],
)
def test_a_report_names_the_cause(told: Mapping[str, str], cause: str, replay: Replay, questions: Questions) -> None:
    segment = questions(400)
    result = replay(segment, Arms(told), incumbent=ALONE)
    found = incumbent_parts(segment, CANDIDATE, ARMS, result, 0.05)["attribution"]  # type: ignore[arg-type]
    assert found["cause"] == cause
    assert [found["contrasts"][side]["arms"] for side in ("environment", "candidate")] == [
        ["log", "today today"],
        ["today today", "next"],
    ]


@pytest.mark.parametrize(("incumbent", "source", "arms"), [(ALONE, "incumbent", 2), (THREE, "replicates", 3)])
def test_the_noise_floor_is_of_the_incumbents_runs_or_of_the_log_and_one_of_them(
    incumbent: Incumbent, source: str, arms: int, replay: Replay, questions: Questions
) -> None:
    segment = questions(60)
    result = replay(segment, Wavering(), incumbent=incumbent, delta=0.001, read_on=True)
    floor = incumbent_parts(segment, CANDIDATE, ARMS, result, 0.05)["noise_floor"]  # type: ignore[arg-type]
    assert (floor["source"], len(floor["arms"]), floor["events"]) == (source, arms, 60)
    assert 0 < floor["levels"]["verdict"]["mismatch"] < 1


def test_a_noise_floor_keeps_several_decisions_of_one_workflow_apart(
    replay: Replay, questions: Questions, make_question: Callable[..., Decision]
) -> None:
    segment = questions(decisions=[make_question(number, workflow=f"w{number % 2}") for number in range(12)])
    result = replay(segment, Arms(), incumbent=THREE)
    floor = incumbent_parts(segment, CANDIDATE, ARMS, result, 0.05)["noise_floor"]  # type: ignore[arg-type]
    assert floor["events"] == 12


def test_the_incumbent_against_itself_is_not_diverged_in_eight_orders_of_fresh_answers(
    replay: Replay, renewals_history: Segment, renewals_subject: AppSubject, tmp_path: Path
) -> None:
    verdicts: Counter[str] = Counter()
    for seed in range(8):
        ledger = Ledger(tmp_path / f"{seed}.sqlite")
        result = replay(
            renewals_history,
            OwnModels(),
            subject=renewals_subject,
            candidate=Candidate("sim/renewals"),
            incumbent=ALONE,
            order_seed=seed,
            run_id=f"r{seed}",
            ledger=ledger,
        )
        ledger.close()
        verdicts.update([result.verdict, *sides(result)])
    assert verdicts["diverged"] == 0
