"""Diagnosing a failing batch: fresh answers under every arm, in pairs, from the ledger where they were paid for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from driftline.consumers.prompt import Prompt
from driftline.consumers.proposing import Answer, ProposalRequest, ProposerFailure
from driftline.detectors import Moved
from driftline.replay import Candidate, ForcedResult, Ledger, Limits, RecordedSubject, Segment, Spending
from driftline.replay.diagnosing import BatchDiagnosis
from driftline.replay.diagnosis_plan import Diagnosing, default_repeats
from driftline.replay.diagnosis_result import DiagnosisResult, diagnosis_data
from driftline.schemas import Decision, UsageError

NOON = datetime(2026, 9, 22, 12, tzinfo=UTC)
STILL = Moved(actions=False, changed_and_accepted=0, text=None, same_text=0, batch=12)
NEXT = Candidate("acme/next")
OTHER_PROMPT = Prompt("the other prompt, and {{ reference }}")
BOTH = Candidate("acme/next", OTHER_PROMPT)
HOT = Candidate("acme/next", parameters={"temperature": 1})
ALL = Candidate("acme/next", OTHER_PROMPT, {"temperature": 1})
Diagnose = Callable[..., DiagnosisResult]


class Answers:
    """Answers `no` where a model or prompt is bad, else `yes`; at a cent a call, and remembers every request."""

    def __init__(self, bad: str = "", lost: str = "") -> None:
        self.bad, self.lost = bad, lost
        self.requests: list[ProposalRequest] = []

    async def propose(self, request: ProposalRequest) -> Answer:
        self.requests.append(request)
        seen = f"{request.model} {dict(request.parameters)} {request.messages}"
        if self.lost and self.lost in seen:
            return Answer(None, ProposerFailure.TIMEOUT)
        return Answer("no" if self.bad and self.bad in seen else "yes", cost_usd=0.01)


class Slow(Answers):
    """As `Answers`, but the first calls come back last."""

    async def propose(self, request: ProposalRequest) -> Answer:
        answer = await super().propose(request)
        for _ in range(max(0, 60 - len(self.requests))):
            await asyncio.sleep(0)
        return answer


@pytest.fixture
def diagnose(ledger: Ledger, quiz: RecordedSubject, questions: Callable[..., Segment]) -> Diagnose:
    """Diagnose a batch of quiz questions."""

    def run(proposer: Any, number: int = 12, candidate: Candidate = NEXT, **given: Any) -> DiagnosisResult:
        limits = Limits(**{name: value for name, value in given.items() if name in Limits.__slots__})
        batch = given.get("batch") or questions(max(1, number))
        asked = Diagnosing(
            run_id="run",
            batch=replace(batch, decisions=batch.decisions[:number]),
            subject=quiz,
            incumbent=given.get("incumbent", Candidate(incumbent=True)),
            candidate=candidate,
            repeats=given.get("repeats", 1),
            moved=STILL,
            limits=limits,
        )
        now = given.get("now", NOON)
        diagnosis = BatchDiagnosis(asked, proposer, ledger, lambda: now, given.get("spending"))
        return asyncio.run(diagnosis.run())

    return run


def test_a_candidate_that_fails_the_batch_again_is_confirmed(diagnose: Diagnose) -> None:
    found = diagnose(Answers(bad="acme/next"), concurrency=1)
    assert (found.diagnosis.conclusion, found.exit_code, found.stopped_because) == ("candidate", 1, "alarm")
    assert (found.cause.name, found.advice.name) == ("model", "pin")
    assert len(found.decisions) == found.diagnosis.alarm_after == 8
    assert (found.paid_calls, found.overspent_calls) == (16, 0)
    assert found.cost_usd == pytest.approx(0.16)


def test_a_batch_that_both_pass_afresh_is_not_the_models_fault(diagnose: Diagnose) -> None:
    found = diagnose(Answers(), repeats=12)
    assert (found.diagnosis.conclusion, found.exit_code) == ("not the model", 0)
    assert found.cause.name == "unknown"


def test_a_diagnosis_never_reads_what_the_test_saw(
    diagnose: Diagnose, replay: Callable[..., ForcedResult], questions: Callable[..., Segment]
) -> None:
    """The test's answers are in the same ledger: all of them bad, which is why the batch was picked."""
    replay(questions(12), Answers(bad="acme/next"), read_on=True)
    fresh = Answers()
    found = diagnose(fresh)
    assert (len(fresh.requests), found.from_ledger) == (24, 0)
    assert found.diagnosis.shift == 0.0


def test_no_two_calls_of_a_decision_share_a_draw(diagnose: Diagnose) -> None:
    model = Answers()
    diagnose(model, candidate=BOTH, repeats=3)
    calls = [(request.key.decision_id, request.key.arm, request.key.replicate) for request in model.requests]
    assert len(set(calls)) == len(calls) == 12 * 4 * 3
    assert {request.key.run for request in model.requests} == {"run.diagnosis"}


def test_the_same_command_asks_nothing_again_and_says_the_same(diagnose: Diagnose) -> None:
    first, silent = diagnose(Slow(bad="acme/next")), Answers()
    again = diagnose(silent)
    assert silent.requests == []
    assert again == replace(first, from_ledger=again.paid_calls)
    assert again.overspent_calls == first.overspent_calls > 0


def test_answers_of_another_day_are_asked_anew_under_every_arm(diagnose: Diagnose) -> None:
    diagnose(Answers(bad="acme/next"), concurrency=1)
    later = Answers()
    found = diagnose(later, now=NOON + timedelta(days=2))
    assert (len(later.requests), found.from_ledger, found.diagnosis.shift) == (24, 0, 0.0)


def test_evidence_enters_in_planned_order_whatever_comes_back_first(diagnose: Diagnose, ledger: Ledger) -> None:
    steady = diagnose(Answers(bad="acme/next"))
    ledger.prune(before="9999")
    late = diagnose(Slow(bad="acme/next"))
    assert late.decisions == steady.decisions
    assert late.diagnosis == steady.diagnosis


@pytest.mark.parametrize(
    ("bad", "cause"), [("acme/next", "model"), ("the other prompt", "prompt")], ids=["model", "prompt"]
)
def test_crossed_arms_tell_the_model_from_the_prompt(bad: str, cause: str, diagnose: Diagnose) -> None:
    found = diagnose(Answers(bad=bad), number=14, candidate=BOTH)
    assert (found.diagnosis.conclusion, found.cause.name) == ("candidate", cause)
    assert set(found.parts) == {"model", "prompt"}
    assert found.parts[cause].conclusion == "candidate"


def test_a_parameter_that_is_guilty_alone_is_not_laid_to_the_model(diagnose: Diagnose) -> None:
    found = diagnose(Answers(bad="'temperature': 1"), number=14, candidate=HOT)
    assert (found.diagnosis.conclusion, found.cause.name) == ("candidate", "parameters")
    assert set(found.parts) == {"model", "parameters"}
    assert found.parts["model"].shift == 0.0


def test_a_candidate_that_changes_everything_is_told_apart_by_five_arms(diagnose: Diagnose) -> None:
    model = Answers(bad="the other prompt")
    found = diagnose(model, number=16, candidate=ALL)
    assert found.cause.name == "prompt"
    assert list(found.decisions[0].passed) == ["incumbent", "candidate", "model", "prompt", "parameters"]
    replicates = [(request.key.decision_id, request.key.arm, request.key.replicate) for request in model.requests]
    assert len(set(replicates)) == len(replicates) == 16 * 5


def test_a_part_that_the_log_had_already_is_no_part_of_the_candidate(diagnose: Diagnose) -> None:
    """The candidate names the log's own model, and changes a parameter."""
    model = Answers(bad="'temperature': 1")
    found = diagnose(model, candidate=Candidate("acme/last", parameters={"temperature": 1}), concurrency=1)
    assert (found.cause.name, dict(found.parts)) == ("parameters", {})
    assert "the parameters are all that the candidate changes" in found.cause.reason
    assert {request.key.replicate for request in model.requests} == {0, 1}


def test_a_prompt_alone_is_asked_of_the_incumbent_that_the_run_named(diagnose: Diagnose) -> None:
    model = Answers()
    diagnose(model, candidate=BOTH, incumbent=Candidate("acme/other", incumbent=True))
    prompted = {request.model for request in model.requests if "the other prompt" in str(request.messages)}
    assert prompted == {"acme/next", "acme/other"}


class Refuses(Answers):
    """As `Answers`, and refuses the new model without its own temperature."""

    async def propose(self, request: ProposalRequest) -> Answer:
        if request.model == "acme/next" and "temperature" not in request.parameters:
            raise UsageError("acme/next takes no other temperature")
        return await super().propose(request)


def test_a_part_that_cannot_be_asked_alone_is_unknown_and_costs_the_rest_nothing(diagnose: Diagnose) -> None:
    model = Refuses(bad="acme/next")
    found = diagnose(model, number=14, candidate=HOT)
    assert (found.diagnosis.conclusion, found.cause.name, found.coverage) == ("candidate", "unknown", 1.0)
    assert found.parts["model"].reason.startswith("it cannot be asked alone: acme/next takes no other temperature")
    assert found.paid_calls == len(model.requests)


def test_a_part_whose_answers_do_not_come_is_unknown_alone(diagnose: Diagnose) -> None:
    found = diagnose(Answers(lost="acme/next {}", bad="'temperature': 1"), number=14, candidate=HOT)
    assert (found.diagnosis.conclusion, found.cause.name, found.coverage) == ("candidate", "parameters", 1.0)
    assert found.parts["model"].reason == "only 50% of the answers came: too few to conclude from"


def test_a_handful_of_decisions_is_diagnosed_by_its_repeats(diagnose: Diagnose) -> None:
    found = diagnose(Answers(bad="acme/next"), number=3, repeats=default_repeats(3))
    assert (found.by_repeat, found.diagnosis.conclusion) == (True, "candidate")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"number": 0}, "failed nothing that the baseline passed"),
        ({"number": 3}, "3 pairs are to be asked, and fewer than 8 cannot make an alarm: give more --repeats"),
        ({"calls_max": 11}, "5 pairs are to be asked, and fewer than 8 cannot make an alarm: give a higher --max"),
    ],
)
def test_what_can_make_no_alarm_is_not_asked(given: dict[str, int], said: str, diagnose: Diagnose) -> None:
    model = Answers(bad="acme/next")
    found = diagnose(model, **given)
    assert (found.exit_code, found.stopped_because, model.requests) == (4, "too_small", [])
    assert said in found.diagnosis.reason


def test_no_more_calls_are_made_than_are_allowed(diagnose: Diagnose) -> None:
    model = Answers()
    found = diagnose(model, calls_max=21)
    assert (len(model.requests), found.stopped_because) == (20, "budget_ended")


def test_a_budget_ends_the_diagnosis_and_never_blames(diagnose: Diagnose) -> None:
    model = Answers(bad="acme/next")
    spending = Spending(0.05, 0.0, lambda logged, request: 0.01)
    found = diagnose(model, concurrency=1, spending=spending)
    assert (len(model.requests), found.stopped_because) == (5, "budget_ended")
    assert (found.diagnosis.conclusion, len(found.decisions)) == ("unknown", 2)


def test_answers_that_do_not_come_cost_coverage_and_prove_nothing(diagnose: Diagnose) -> None:
    found = diagnose(Answers(lost="acme/next"))
    assert (found.diagnosis.conclusion, found.stopped_because) == ("unknown", "coverage")
    assert found.coverage == 0.5


def test_a_call_that_was_lost_is_asked_again_next_time(diagnose: Diagnose) -> None:
    diagnose(Answers(lost="acme/next"))
    again = Answers(bad="acme/next")
    assert diagnose(again).diagnosis.conclusion == "candidate"
    assert {request.model for request in again.requests} == {"acme/next"}


def test_a_recording_has_no_fresh_answer(diagnose: Diagnose) -> None:
    with pytest.raises(UsageError, match="is a recording and has no fresh answer"):
        diagnose(Answers(), candidate=Candidate("recorded/answers.jsonl#acme/next"))


def test_nor_has_a_log_that_was_answered_from_one(
    diagnose: Diagnose, questions: Callable[..., Segment], make_question: Callable[..., Decision]
) -> None:
    played = questions(decisions=[make_question(0, model_requested="recorded/answers.jsonl#acme/last")])
    with pytest.raises(UsageError, match="is a recording and has no fresh answer"):
        diagnose(Answers(), batch=played)


def test_a_diagnosis_is_plain_json_data(diagnose: Diagnose) -> None:
    data = diagnosis_data(diagnose(Answers(bad="acme/next"), candidate=BOTH, number=14))
    assert (data["conclusion"], data["cause"]["name"], data["advice"]["name"]) == ("candidate", "model", "pin")
    assert data["passed"] == {"incumbent": 1.0, "candidate": 0.0, "model": 0.0, "prompt": 1.0}
    assert data["decisions"][0]["passed"]["candidate"] == [0.0]


@pytest.mark.parametrize(("decisions", "repeats"), [(0, 16), (1, 16), (17, 4), (64, 1), (900, 1)])
def test_the_smaller_the_batch_the_more_often_it_is_asked(decisions: int, repeats: int) -> None:
    assert default_repeats(decisions) == repeats
