"""Mode `verify`: what today's rules say of recorded proposals, rule by rule, without a model."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from driftline.consumers import Answer, Case, Judge, Judgement, SpecJudge
from driftline.log import AppTopics, Coordinates, MemoryLog, Record
from driftline.replay import AppSubject, RecordedSubject, Segment, Selection, export_segment
from driftline.replay.testing import log_of
from driftline.replay.verify import Change, VerifyResult, verify_data, verify_file, verify_log
from driftline.schemas import Attempt, Contracts, Decision, Rejection, UsageError, Verdict

RULES = '[streams.quiz]\naccept = "{accept}"\n[streams.other]\naccept = "equals-reference"\n'
WRONG = Rejection(code="wrong_answer", rule_id="verifier-spec")
Verify = Callable[..., VerifyResult]


@pytest.fixture
def verify(contracts: Contracts) -> Verify:
    """Verify decisions that lie on a log by a spec."""

    def run(
        decisions: list[Decision], accept: str = "equals-reference", selection: Selection | None = None
    ) -> object:
        subject = RecordedSubject("quiz", SpecJudge.parse(RULES.format(accept=accept)), contracts)
        return verify_log(*log_of(decisions, contracts), subject, selection or Selection())

    return run  # type: ignore[return-value]


@pytest.fixture
def asked(make_question: Callable[..., Decision]) -> Callable[..., Decision]:
    """A question that was answered so, one attempt after another; the last is accepted unless it says no."""

    def make(number: int, *answers: str, **changed: object) -> Decision:
        attempts = [
            Attempt(number=n, raw_response=text, rejections=() if text == "yes" else (WRONG,))
            for n, text in enumerate(answers, 1)
        ]
        verdict = Verdict.ACCEPTED if answers[-1] == "yes" else Verdict.REJECTED
        return make_question(number, attempts, verdict=verdict, **changed)

    return make


def test_rules_that_are_those_of_then_change_nothing(verify: Verify, asked: Callable[..., Decision]) -> None:
    result = verify([asked(0, "yes"), asked(1, "no", "yes"), asked(2, "no", "no")])
    assert (result.verdict, result.changes) == ("equivalent", ())
    assert (result.decisions, result.accepted_then, result.accepted_now) == (3, 2, 2)


def test_a_decision_that_is_accepted_today_diverges_and_names_the_rule_of_then(
    verify: Verify, asked: Callable[..., Decision]
) -> None:
    result = verify([asked(0, "yes"), asked(1, "no"), asked(2, "no")], accept="non-empty")
    assert (result.verdict, result.newly_accepted, result.newly_rejected) == ("diverged", 2, 0)
    example = tuple(f"quiz.decisions[0]@{at}" for at in (1, 2))
    way = ("recorded", "quiz", "rejected", "accepted", "wrong_answer", "verifier-spec")
    assert result.changes == (Change(*way, decisions=2, examples=example),)


def test_a_decision_that_is_rejected_today_diverges_and_names_todays_rule(
    verify: Verify, asked: Callable[..., Decision]
) -> None:
    result = verify([asked(0, "yes"), asked(1, "yes")], accept="reference-flag")
    assert (result.verdict, result.newly_rejected, result.accepted_now) == ("diverged", 2, 0)
    assert (result.changes[0].code, result.changes[0].now) == ("wrong_answer", "rejected")


def test_an_earlier_attempt_that_would_do_today_is_told_and_is_no_divergence(
    verify: Verify, asked: Callable[..., Decision]
) -> None:
    result = verify([asked(0, "no", "yes")], accept="non-empty")
    assert (result.verdict, result.other_attempt) == ("equivalent", 1)


def test_another_rule_that_rejects_what_was_rejected_is_told_and_is_no_divergence(
    verify: Verify, asked: Callable[..., Decision], make_question: Callable[..., Decision]
) -> None:
    other = Attempt(number=1, raw_response="no", rejections=(Rejection(code="budget_exceeded", rule_id="budget"),))
    result = verify([make_question(0, [other], verdict=Verdict.REJECTED)])
    assert (result.verdict, result.other_rule) == ("equivalent", 1)
    assert (result.changes[0].then, result.changes[0].rule_id) == ("rejected", "verifier-spec")


def test_a_call_that_was_lost_is_no_answer_then_and_now(
    verify: Verify, make_question: Callable[..., Decision], lost_attempt: Callable[..., Attempt]
) -> None:
    result = verify([make_question(0, [lost_attempt(1)], verdict=Verdict.REJECTED)], accept="non-empty")
    assert (result.verdict, result.accepted_now) == ("equivalent", 0)


def test_a_verifier_is_shown_the_attempts_before_as_they_were_recorded(
    asked: Callable[..., Decision], contracts: Contracts
) -> None:
    seen: list[tuple[Sequence[Attempt], Mapping[str, Any]]] = []

    class Sees:
        version = "1"

        def judge(self, answer: Answer, case: Case) -> Judgement:
            seen.append((case.earlier, case.context))
            return Judgement() if answer.text == "yes" else Judgement((WRONG,))

    class Subject(RecordedSubject):
        def judge(self, decision: Decision) -> Judge:
            return Sees()

    decision = asked(0, "no", "perhaps", "yes")
    subject = Subject("quiz", SpecJudge.parse(RULES.format(accept="non-empty")), contracts)
    result = verify_log(*log_of([decision], contracts), subject, Selection())
    assert result.verdict == "equivalent"
    attempts, context = decision.attempts, decision.context_value()
    assert seen == [((), context), (attempts[:1], context), (attempts[:2], context)]


def test_only_what_is_selected_is_verified(verify: Verify, asked: Callable[..., Decision]) -> None:
    decisions = [asked(0, "no"), asked(1, "no", stream="other"), asked(2, "no", workflow="w9")]
    assert verify(decisions, selection=Selection(streams=frozenset({"other"}))).decisions == 1
    assert verify(decisions, selection=Selection(keys=frozenset({"w9"}))).decisions == 1
    assert verify(decisions, selection=Selection(offsets={0: (1, 3)})).decisions == 2


def test_an_empty_segment_is_no_verdict(verify: Verify, asked: Callable[..., Decision]) -> None:
    with pytest.raises(UsageError, match="the segment is empty"):
        verify([asked(0, "yes")], selection=Selection(keys=frozenset({"nobody"})))


def test_an_app_that_is_code_accepts_its_own_history_again(
    renewals_history: Segment, renewals_subject: AppSubject
) -> None:
    decisions = [logged.decision for logged in renewals_history.decisions]
    result = verify_log(*log_of(decisions, renewals_subject.contracts), renewals_subject, Selection())
    assert (result.decisions, result.verdict, result.changes) == (400, "equivalent", ())
    assert sum(result.verifier_versions.values()) == 400
    assert list(result.verifier_versions) == list(result.verifier_version.values())


def test_a_segment_file_is_verified_as_the_log_is(
    renewals_history: Segment, renewals_subject: AppSubject, tmp_path: Path
) -> None:
    export_segment(renewals_history, {}, tmp_path / "all.parquet")
    decisions = [logged.decision for logged in renewals_history.decisions]
    over_log = verify_log(*log_of(decisions, renewals_subject.contracts), renewals_subject, Selection())
    assert verify_file(tmp_path / "all.parquet", renewals_subject, Selection()) == over_log


def test_the_result_is_plain_json_data(verify: Verify, asked: Callable[..., Decision]) -> None:
    import json

    data = json.loads(json.dumps(verify_data("quiz", verify([asked(0, "no")], accept="non-empty"))))
    assert (data["mode"], data["verdict"], data["changes"][0]["decisions"]) == ("verify", "diverged", 1)


class Endless(MemoryLog):
    """A log that makes its records when they are read."""

    def __init__(self, inner: MemoryLog, topic: str, times: int) -> None:
        super().__init__()
        self._inner, self._topic, self._times = inner, topic, times

    def read(self, span: object, headers: bool = True) -> Iterator[Record]:
        (record,) = self._inner.read(self._inner.span(self._topic))
        for offset in range(self._times):
            yield replace(record, at=Coordinates(self._topic, 0, offset), value=bytes(record.value or b""))


def test_the_memory_of_a_long_history_is_that_of_a_short_one(
    asked: Callable[..., Decision], contracts: Contracts, quiz: RecordedSubject
) -> None:
    log, codec = log_of([asked(0, "no" * 5000)], contracts)
    topic = AppTopics("quiz").decisions

    def peak(decisions: int) -> int:
        tracemalloc.start()
        result = verify_log(Endless(log, topic, decisions), codec, quiz, Selection())
        assert result.decisions == decisions
        peaked = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peaked

    peak(10)  # what is made once
    assert peak(2000) < peak(200) + 10_000, "one decision alone takes more"
