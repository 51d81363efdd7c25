"""What a run tells of itself."""

from __future__ import annotations

from datetime import UTC, datetime

from driftline.consumers.summary import RunSummary
from driftline.schemas import Attempt, Decision, InputCoordinates, Rejection

TIME = datetime(2026, 7, 1, tzinfo=UTC)


def test_calls_that_gave_no_answer_are_counted_with_their_cause() -> None:
    """A provider that is down must not read as a model that answers badly."""
    refused = Rejection(code="no_answer", rule_id="parse", message="InternalServerError 500: Connection error.")
    attempts = tuple(Attempt(number=n, failure="provider_error", rejections=(refused,)) for n in (1, 2, 3))
    at = InputCoordinates(topic="shop.events", partition=0, offset=7, event_id="e", event_time=TIME)
    decision = Decision(
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
        attempts=attempts,
        verdict="escalated",
        verifier_version="v",
        decided_at=TIME,
    )
    summary = RunSummary()
    summary.count(decision)
    assert summary.failures == {"provider_error": 3}
    assert summary.last_failure == "InternalServerError 500: Connection error."
