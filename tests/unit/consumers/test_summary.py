"""What a run tells of itself."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from driftline.consumers.summary import RunSummary
from driftline.schemas import Attempt, Decision, InputCoordinates, Rejection

TIME = datetime(2026, 7, 1, tzinfo=UTC)


def decided(attempts: Sequence[Attempt], verdict: str) -> Decision:
    at = InputCoordinates(topic="shop.events", partition=0, offset=7, event_id="e", event_time=TIME)
    return Decision(
        decision_id="d",
        app="shop",
        boundary="refund",
        stream="asked",
        workflow="w",
        input=at,
        context="{}",
        context_hash="c",
        prompt_hash="p",
        model_requested="acme/down",
        parameters="{}",
        attempts=tuple(attempts),
        verdict=verdict,
        verifier_version="v",
        decided_at=TIME,
    )


NO_ANSWER = Rejection(code="no_answer", rule_id="parse", message="InternalServerError 500: Connection error.")
FAILED = Attempt(number=1, failure="provider_error", rejections=(NO_ANSWER,))


def test_calls_that_gave_no_answer_are_counted_with_their_cause() -> None:
    """A provider that is down must not read as a model that answers badly."""
    summary = RunSummary()
    summary.count(decided([FAILED] * 3, "escalated"))
    assert summary.failures == {"provider_error": 3}
    assert summary.last_failure == "InternalServerError 500: Connection error."


def test_a_decision_is_mended_by_a_second_answer_and_not_by_a_call_that_failed_before_it() -> None:
    answered = Attempt(number=2, raw_response="{}")
    summary = RunSummary()
    summary.count(decided([FAILED, answered], "accepted"))
    assert summary.mended == 0
    summary.count(decided([answered, answered], "accepted"))
    assert summary.mended == 1
