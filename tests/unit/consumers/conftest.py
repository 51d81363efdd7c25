"""A shop's boundary over refunds, and a way to drive the engine by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from driftline.consumers import (
    Answer,
    Boundary,
    Input,
    Outcome,
    Policy,
    Prompt,
    Proposal,
    ProposalRequest,
    Refusal,
    decide,
    rule,
)
from driftline.consumers.boundary import BoundBoundary
from driftline.schemas import Contract, Contracts, Event, InputCoordinates

GRANTED = {
    "type": "record",
    "name": "shop.RefundGranted",
    "fields": [
        {"name": "order", "type": "string"},
        {"name": "amount", "type": "double", "scale": [0, 100]},
        {"name": "count", "type": "long", "default": 1},
        {"name": "reason", "type": "string", "compare": "free-text"},
    ],
}
REFUSED = {
    "type": "record",
    "name": "shop.RefundRefused",
    "fields": [{"name": "reason", "type": "string", "compare": "free-text"}],
}
TIME = datetime(2026, 7, 1, 12, tzinfo=UTC)


@rule("within-paid", version="1")
def within_paid(proposal: Proposal, context: Mapping[str, Any], policy: Mapping[str, Any]) -> Refusal | None:
    amount, paid = proposal.payload.get("amount", 0.0), context["event"]["paid"]
    if amount > 1_000:
        return Refusal("/amount", "a sane amount", str(amount), "this is no refund", retryable=False)
    return None if amount <= paid else Refusal("/amount", f"<= {paid}", str(amount), "more than was paid")


def make_bound(granted: Mapping[str, Any] = GRANTED, **changes: Any) -> BoundBoundary:
    """The shop's boundary, with what a test changes of it."""
    given: dict[str, Any] = {
        "name": "refund",
        "on": ["shop.RefundRequested"],
        "prompt": Prompt("Decide refunds.\n---user---\n{{ event | tojson }}"),
        "proposer": "test/scripted",
        "proposes": ["shop.RefundGranted", "shop.RefundRefused"],
        "verifiers": [Policy([within_paid], "limit = 1")],
        **changes,
    }
    boundary = Boundary(**given)
    contracts = Contracts(
        [Contract("shop.RefundGranted", [dict(granted)]), Contract("shop.RefundRefused", [REFUSED])]
    )
    return BoundBoundary(boundary, boundary.chain(contracts))


def make_input(bound: BoundBoundary, *, offset: int = 7, paid: float = 40.0, **changes: Any) -> Input:
    """An input of the shop's boundary."""
    event = Event(
        id="e1",
        type="shop.RefundRequested",
        source="web",
        workflow="c-17",
        time=TIME,
        record="shop.RefundRequested",
        data={"order": "A1", "paid": paid},
        traceparent="00-trace-01",
    )
    at = InputCoordinates(topic="shop.events", partition=1, offset=offset, event_id=event.id, event_time=TIME)
    given: dict[str, Any] = {"app": "shop", "bound": bound, "event": event, "at": at, "row": {"refunds": 2}}
    return Input(**{**given, "row_version": 3, **changes})


def drive_by_hand(given: Input, answers: Sequence[Answer | str]) -> tuple[Outcome, list[ProposalRequest]]:
    """Run the engine over scripted answers: the outcome, and what was asked."""
    deciding, asked = decide(given), []
    request = next(deciding)
    for answer in answers:
        assert isinstance(request, ProposalRequest)
        asked.append(request)
        try:
            request = deciding.send(Answer(answer) if isinstance(answer, str) else answer)
        except StopIteration as finished:
            assert len(asked) == len(answers), "the engine ended before the script"
            return finished.value, asked
    raise AssertionError(f"the engine asks for an answer {len(asked) + 1}")


@pytest.fixture(scope="session")
def bound() -> Callable[..., BoundBoundary]:
    return make_bound


@pytest.fixture
def given() -> Callable[..., Input]:
    return make_input


@pytest.fixture
def drive() -> Callable[[Input, Sequence[Answer | str]], tuple[Outcome, list[ProposalRequest]]]:
    return drive_by_hand
