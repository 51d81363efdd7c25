"""The engine, driven by hand with scripted answers."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from driftline.consumers import (
    Answer,
    Budget,
    Input,
    OnExhausted,
    Outcome,
    ProposalRequest,
    ProposerFailure,
    decide,
)
from driftline.consumers.boundary import BoundBoundary
from driftline.consumers.engine import answer_of
from driftline.consumers.parsing import ANSWER_CHARACTERS_MAX
from driftline.consumers.proposing import FailedCall
from driftline.schemas import NotCanonical, UsageError, Verdict, canonical_json, content_hash

GOOD = '{"type": "shop.RefundGranted", "payload": {"order": "A1", "amount": 40, "count": 1, "reason": "late"}}'
TOO_MUCH = GOOD.replace("40", "90")
INSANE = GOOD.replace("40", "5000")
NOW = datetime(2026, 11, 21, tzinfo=UTC)

Bind = Callable[..., BoundBoundary]
Give = Callable[..., Input]
Drive = Callable[[Input, Sequence[Answer | str]], tuple[Outcome, list[ProposalRequest]]]


def test_a_good_proposal_is_accepted_at_once(bound: Bind, given: Give, drive: Drive) -> None:
    outcome, asked = drive(given(bound()), [GOOD])
    (event,) = outcome.emitted
    assert (outcome.verdict, len(asked)) == (Verdict.ACCEPTED, 1)
    assert (event.record, event.data["amount"]) == ("shop.RefundGranted", 40)
    assert (event.workflow, event.causation_id, event.source) == ("c-17", "e1", "driftline:shop/refund")
    assert (event.time, event.traceparent) == (outcome.given.event.time, "00-trace-01")


def test_a_rejected_proposal_is_mended(bound: Bind, given: Give, drive: Drive) -> None:
    outcome, asked = drive(given(bound()), [TOO_MUCH, GOOD])
    assert outcome.verdict is Verdict.ACCEPTED
    assert [len(attempt.rejections) for attempt in outcome.attempts] == [1, 0]
    assert [request.key.attempt for request in asked] == [1, 2]


def test_the_model_sees_its_answer_and_a_structured_rejection(bound: Bind, given: Give, drive: Drive) -> None:
    _, (first, second) = drive(given(bound()), [TOO_MUCH, GOOD])
    assert list(second.messages[:-2]) == list(first.messages)
    said, told = second.messages[-2:]
    assert said == {"role": "assistant", "content": TOO_MUCH}
    assert told["role"] == "user"
    feedback = json.loads(told["content"])
    assert (feedback["status"], feedback["committed"]) == ("rejected", False)
    (rejection,) = feedback["rejections"]
    assert (rejection["code"], rejection["path"]) == ("policy_violation", "/payload/amount")
    assert (rejection["expected"], rejection["actual"]) == ("<= 40", "90")
    assert (rejection["rule_id"], rejection["rule_version"]) == ("within-paid", "1")


def test_every_rejection_is_fed_back_in_the_order_of_the_attempts(bound: Bind, given: Give, drive: Drive) -> None:
    _, asked = drive(given(bound()), ["no idea", TOO_MUCH, GOOD])
    roles = [message["role"] for message in asked[-1].messages]
    assert roles == ["system", "user", "assistant", "user", "assistant", "user"]
    codes = [json.loads(asked[-1].messages[at]["content"])["rejections"][0]["code"] for at in (3, 5)]
    assert codes == ["not_json", "policy_violation"]


def test_exhausted_attempts_escalate_to_a_person(bound: Bind, given: Give, drive: Drive) -> None:
    outcome, _ = drive(given(bound(max_attempts=2)), [TOO_MUCH, "no idea"])
    (event,) = outcome.emitted
    assert (outcome.verdict, event.record) == (Verdict.ESCALATED, "driftline.Escalated")
    assert event.data["codes"] == ["not_json"]
    assert (event.data["attempts"], event.data["decision_id"]) == (2, outcome.given.decision_id)
    assert event.data["message"]
    assert (outcome.action_type, outcome.action_payload) == (None, None)


def test_exhausted_attempts_reject_where_the_boundary_says_so(bound: Bind, given: Give, drive: Drive) -> None:
    outcome, _ = drive(given(bound(max_attempts=1, on_exhausted=OnExhausted.REJECT)), [TOO_MUCH])
    assert (outcome.verdict, outcome.emitted) == (Verdict.REJECTED, ())


def test_exhausted_attempts_of_a_boundary_that_sends_them_to_the_dead_topic_commit_nothing(
    bound: Bind, given: Give, drive: Drive
) -> None:
    outcome, _ = drive(given(bound(max_attempts=1, on_exhausted=OnExhausted.DEAD)), [TOO_MUCH])
    assert (outcome.verdict, outcome.emitted) == (Verdict.REJECTED, ())


def test_a_rejection_that_is_not_retryable_ends_at_once(bound: Bind, given: Give, drive: Drive) -> None:
    outcome, asked = drive(given(bound(max_attempts=5)), [INSANE])
    assert (outcome.verdict, len(asked)) == (Verdict.ESCALATED, 1)


def test_a_call_that_failed_is_an_attempt_and_is_not_spoken_of(bound: Bind, given: Give, drive: Drive) -> None:
    timeout = Answer(None, ProposerFailure.TIMEOUT, "no answer within 60 s", latency_ms=60_000.0)
    outcome, (first, second) = drive(given(bound()), [timeout, GOOD])
    failed = outcome.attempts[0]
    assert (failed.failure, failed.raw_response, failed.latency_ms) == ("timeout", None, 60_000.0)
    assert failed.rejections[0].code == "no_answer"
    assert list(second.messages) == list(first.messages)
    assert second.key != first.key


LOST = FailedCall(1, ProposerFailure.TIMEOUT, "no answer within 60 s", latency_ms=60_000.0)
BUSY = FailedCall(2, ProposerFailure.RATE_LIMITED, "RateLimitError 429", model_requested="test/other")


def test_failed_calls_before_an_answer_are_attempts_of_their_own(bound: Bind, given: Give, drive: Drive) -> None:
    outcome, _ = drive(given(bound()), [Answer(GOOD, earlier=(LOST, BUSY), model_requested="test/other")])
    first, second, third = outcome.attempts
    assert outcome.verdict is Verdict.ACCEPTED
    assert [attempt.number for attempt in outcome.attempts] == [1, 2, 3]
    assert (first.failure, first.raw_response, first.latency_ms) == ("timeout", None, 60_000.0)
    assert [attempt.model_requested for attempt in outcome.attempts] == [None, "test/other", "test/other"]
    assert (second.rejections[0].code, second.rejections[0].message) == ("no_answer", "RateLimitError 429")
    assert (third.raw_response, third.rejections) == (GOOD, ())


def test_a_failed_call_is_recorded_alike_before_an_answer_and_in_place_of_one(
    bound: Bind, given: Give, drive: Drive
) -> None:
    alone = Answer(None, LOST.failure, LOST.failure_detail, latency_ms=LOST.latency_ms)
    before, _ = drive(given(bound()), [Answer(GOOD, earlier=(LOST,))])
    instead, _ = drive(given(bound()), [alone, GOOD])
    assert before.attempts == instead.attempts


def test_the_next_call_has_a_number_that_no_failed_call_had(bound: Bind, given: Give, drive: Drive) -> None:
    _, asked = drive(given(bound()), [Answer(TOO_MUCH, earlier=(LOST, BUSY)), GOOD])
    assert [request.key.attempt for request in asked] == [1, 4]


def test_failed_calls_that_were_too_many_to_keep_leave_their_numbers_free(
    bound: Bind, given: Give, drive: Drive
) -> None:
    last = replace(LOST, attempt=900)
    outcome, asked = drive(given(bound()), [Answer(TOO_MUCH, earlier=(LOST, last)), GOOD])
    assert [attempt.number for attempt in outcome.attempts] == [1, 900, 901, 902]
    assert asked[1].key.attempt == 902


def test_failed_calls_count_as_none_of_the_attempts(bound: Bind, given: Give, drive: Drive) -> None:
    outcome, _ = drive(given(bound(max_attempts=2)), [Answer(TOO_MUCH, earlier=(LOST, BUSY)), GOOD])
    assert (outcome.verdict, len(outcome.attempts)) == (Verdict.ACCEPTED, 4)


def test_failed_calls_are_not_spoken_of(bound: Bind, given: Give, drive: Drive) -> None:
    _, plain = drive(given(bound()), [TOO_MUCH, GOOD])
    _, troubled = drive(given(bound()), [Answer(TOO_MUCH, earlier=(LOST, BUSY)), GOOD])
    assert troubled[1].messages == plain[1].messages


def test_without_a_fallback_the_record_reads_as_it_did_before_there_were_any(
    bound: Bind, given: Give, drive: Drive
) -> None:
    outcome, _ = drive(given(bound()), [TOO_MUCH, GOOD])
    assert '"model_requested":"test/scripted"' in outcome.decision(NOW).model_dump_json()
    assert all("model_requested" not in attempt.model_dump_json() for attempt in outcome.attempts)


def test_the_fallbacks_of_a_boundary_travel_with_each_request(bound: Bind, given: Give, drive: Drive) -> None:
    _, asked = drive(given(bound(fallbacks=["test/two", "test/three"])), [TOO_MUCH, GOOD])
    assert [list(request.fallbacks) for request in asked] == [["test/two", "test/three"]] * 2


@pytest.mark.parametrize("fallbacks", ["test/two", ["test/scripted"], ["test/two", "test/two"]])
def test_fallbacks_that_are_no_list_of_other_models_are_refused(bound: Bind, fallbacks: object) -> None:
    with pytest.raises(UsageError, match="boundary refund: `fallbacks` is a list of models"):
        bound(fallbacks=fallbacks)


def test_one_proposal_over_and_over_ends_also_where_calls_failed_in_between(
    bound: Bind, given: Give, drive: Drive
) -> None:
    answers: list[Answer | str] = [TOO_MUCH, Answer(TOO_MUCH, earlier=(replace(LOST, attempt=2),)), TOO_MUCH]
    outcome, asked = drive(given(bound(max_attempts=9)), answers)
    codes = [rejection.code for rejection in outcome.attempts[-1].rejections]
    assert (len(asked), codes) == (3, ["policy_violation", "repeated_proposal"])


def test_one_proposal_over_and_over_ends_before_the_attempts_do(bound: Bind, given: Give, drive: Drive) -> None:
    outcome, _ = drive(given(bound(max_attempts=9)), [TOO_MUCH, TOO_MUCH.replace(": 90", ":90.0"), TOO_MUCH])
    codes = [rejection.code for rejection in outcome.attempts[-1].rejections]
    assert (outcome.verdict, codes) == (Verdict.ESCALATED, ["policy_violation", "repeated_proposal"])


def test_what_an_attempt_may_cost_ends_a_decision(bound: Bind, given: Give, drive: Drive) -> None:
    dear = bound(max_attempts=9, budget=Budget(cost_usd_max=0.5))
    outcome, _ = drive(given(dear), [Answer("no idea", cost_usd=0.3), Answer("still none", cost_usd=0.3)])
    codes = [rejection.code for rejection in outcome.attempts[-1].rejections]
    assert codes == ["not_json", "budget_exceeded"]


def test_an_acceptable_proposal_that_is_paid_for_is_never_refused_for_its_cost(
    bound: Bind, given: Give, drive: Drive
) -> None:
    outcome, _ = drive(given(bound(budget=Budget(cost_usd_max=0.1))), [Answer(GOOD, cost_usd=0.9)])
    assert outcome.verdict is Verdict.ACCEPTED


def test_equal_coordinates_give_equal_ids(bound: Bind, given: Give, drive: Drive) -> None:
    one, _ = drive(given(bound()), [GOOD])
    again, _ = drive(given(bound()), [TOO_MUCH, GOOD.replace("late", "lost")])
    assert one.given.decision_id == again.given.decision_id
    assert one.emitted[0].id == again.emitted[0].id


@pytest.mark.parametrize("differs", ["app", "boundary", "offset"])
def test_decision_ids_differ_with_every_coordinate(bound: Bind, given: Give, differs: str) -> None:
    one = given(bound())
    others = {
        "app": given(bound(), app="shop2"),
        "boundary": given(bound(name="other")),
        "offset": given(bound(), offset=8),
    }
    assert one.decision_id != others[differs].decision_id


def test_a_second_record_of_one_fact_gets_another_decision_and_the_same_derived_event(
    bound: Bind, given: Give, drive: Drive
) -> None:
    one, _ = drive(given(bound(), offset=7), [GOOD])
    copy, _ = drive(given(bound(), offset=8), [GOOD])
    assert one.given.decision_id != copy.given.decision_id
    assert one.emitted[0].id == copy.emitted[0].id


def test_the_decision_names_all_that_it_depended_on(bound: Bind, given: Give, drive: Drive) -> None:
    with_parameters = bound(parameters={"temperature": 0.2})
    outcome, (request, _) = drive(given(with_parameters), [TOO_MUCH, GOOD])
    decision = outcome.decision(NOW)
    assert decision.context_value() == {
        "event": {"order": "A1", "paid": 40},
        "stream": "shop.RefundRequested",
        "row": {"refunds": 2},
    }
    assert decision.context_hash == content_hash(decision.context)
    assert decision.prompt_hash == with_parameters.boundary.prompt.hash
    assert decision.verifier_version == with_parameters.judge.version
    assert (decision.model_requested, decision.parameters) == (request.model, '{"temperature":0.2}')
    assert (decision.app, decision.boundary, decision.stream) == ("shop", "refund", "shop.RefundRequested")
    assert (str(decision.input), decision.input.event_id) == ("shop.events[1]@7", "e1")
    assert (decision.row_version_before, decision.decided_at) == (3, NOW)
    assert [attempt.raw_response for attempt in decision.attempts] == [TOO_MUCH, GOOD]
    assert decision.action_payload == canonical_json(json.loads(GOOD)["payload"])
    assert decision.committed_event_ids == (outcome.emitted[0].id,)


def test_the_prompt_sees_exactly_what_a_replay_reads_back(bound: Bind, given: Give) -> None:
    one = given(bound())
    event = replace(one.event, data={"z": 450.0, "a": [1.0, {"y": 1, "b": 2}]})
    shuffled = given(bound(), event=event)
    assert json.dumps(shuffled.context) == json.dumps(json.loads(shuffled.context_json))


def test_a_recorded_attempt_gives_back_its_answer(bound: Bind, given: Give, drive: Drive) -> None:
    answer = Answer(GOOD, model_reported="m", fingerprint="f", facts={"reference": "1"}, cost_usd=0.1, latency_ms=2.0)
    answer = replace(answer, model_requested="test/other")
    outcome, _ = drive(given(bound()), [answer])
    assert answer_of(outcome.attempts[0]) == answer


def test_a_context_that_cannot_be_recorded_is_refused_before_anything_is_asked(bound: Bind, given: Give) -> None:
    one = given(bound())
    large = given(bound(), event=replace(one.event, data={"order": 2**60}))
    with pytest.raises(NotCanonical):
        next(decide(large))


def test_a_lone_surrogate_is_fed_back_as_the_record_has_it(bound: Bind, given: Give, drive: Drive) -> None:
    outcome, asked = drive(given(bound()), ["a \ud800 b", GOOD])
    assert outcome.attempts[0].raw_response == "a \\ud800 b"
    assert asked[1].messages[-2]["content"] == outcome.attempts[0].raw_response
    assert all(str(message["content"]).encode() for message in asked[1].messages)


def test_an_endless_answer_is_rejected_and_its_record_is_judged_alike(bound: Bind, given: Give, drive: Drive) -> None:
    endless = GOOD[:-2] + " " * 2 * ANSWER_CHARACTERS_MAX + "}}"
    outcome, _ = drive(given(bound(max_attempts=1)), [endless])
    (attempt,) = outcome.attempts
    assert attempt.rejections[0].code == "not_json"
    assert len(attempt.raw_response or "") == ANSWER_CHARACTERS_MAX + 1
    again, _ = drive(given(bound(max_attempts=1)), [answer_of(attempt)])
    assert again.attempts[0].rejections == attempt.rejections


def test_a_provider_may_say_anything_of_its_answer(bound: Bind, given: Give, drive: Drive) -> None:
    outcome, _ = drive(given(bound()), [Answer(GOOD, facts={"logprob": float("-inf"), "seen": 2**70})])
    assert answer_of(outcome.attempts[0]).facts == {"logprob": float("-inf"), "seen": 2**70}


def test_the_key_of_a_call_is_the_decision_the_workflow_and_the_seed(bound: Bind, given: Give, drive: Drive) -> None:
    one = given(bound(), seed=11)
    _, (request,) = drive(one, [GOOD])
    assert (request.key.decision_id, request.key.workflow, request.key.seed) == (one.decision_id, "c-17", 11)


def test_parameters_that_cannot_be_recorded_are_refused_when_the_boundary_is_made(bound: Bind) -> None:
    with pytest.raises(UsageError, match="boundary refund: parameters: not canonical JSON"):
        bound(parameters={"seed": 2**60})


@pytest.mark.parametrize("changes", [{"max_attempts": 0}, {"on": []}, {"proposes": []}])
def test_a_boundary_that_can_decide_nothing_is_refused(bound: Bind, changes: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="boundary refund: needs"):
        bound(**changes)


def test_importing_the_engine_imports_no_kafka_no_event_loop_and_no_model() -> None:
    code = (
        "import sys, driftline.consumers, driftline.consumers.engine\n"
        "heavy = ('confluent_kafka', 'litellm', 'driftline.log', 'driftline.consumers.runtime', 'httpx')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
