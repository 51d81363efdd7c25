"""The app of the benchmarks: one boundary, a prompt, a policy rule, a fold, and events of twelve fields."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from driftline.consumers import App, Boundary, Fold, Policy, Prompt, Proposal, Refusal, rule
from driftline.schemas import Event

HERE = Path(__file__).parent
DUE, RENEWED, STREAM = "bench.RenewalDue", "bench.ContractRenewed", "renewal-due"
POLICY = "cap_pct = 30\n"
PROPOSAL = json.dumps(
    {"type": RENEWED, "payload": {"term_months": 12, "discount_pct": 12.5, "rationale": "in line with its peers"}}
)
"""What the proposers of the benchmarks answer."""
WORKFLOWS = 10_000
"""Keys in use: rows are kept in memory, one each."""
NOTE = "Called about the last bill, asked for a cheaper plan, was told of the offers, and will think about it. " * 4
STARTED = datetime(2026, 7, 1, tzinfo=UTC)


@rule("discount-cap", version="1")
def discount_cap(proposal: Proposal, context: Mapping[str, Any], policy: Mapping[str, Any]) -> Refusal | None:
    discount, cap = proposal.payload["discount_pct"], policy["cap_pct"]
    if discount is None or discount <= cap:
        return None
    return Refusal("/discount_pct", f"<= {cap}", str(discount), f"discounts over {cap} % need a person")


def fold(row: Mapping[str, Any], event: Event) -> Mapping[str, Any]:
    if event.record == DUE:
        return {**row, "times_due": row.get("times_due", 0) + 1}
    return {**row, "last_outcome": event.record}


def make_app(name: str, rows: bool = True) -> App:
    """The app under a name of its own; without `rows` it keeps none."""
    boundary = Boundary(
        name="renewal",
        on=[STREAM],
        prompt=Prompt.from_file(HERE / "prompt.md"),
        proposer="bench/instant",
        proposes=[RENEWED],
        verifiers=[Policy((discount_cap,), POLICY)],
        parameters={"temperature": 0},
    )
    return App(name, [boundary], HERE / "schemas", [DUE], Fold(fold, version="1") if rows else None)


def events(first: int, last: int) -> Iterator[Event]:
    """The events of these numbers, each of about 500 bytes in Avro."""
    for number in range(first, last):
        workflow = f"customer-{number % WORKFLOWS:06d}"
        at = STARTED + timedelta(milliseconds=number)
        data = {
            "customer_id": workflow,
            "contract": "Month-to-month",
            "tenure_months": number % 72,
            "monthly_charges": 20.05 + number % 90,
            "total_charges": 820.5 + number % 900,
            "internet_service": "Fiber optic",
            "payment_method": "Electronic check",
            "paperless": number % 2 == 0,
            "churn_signal": number % 5 == 0,
            "renewal_on": "2026-08-01",
            "due_at": at,
            "note": NOTE,
        }
        yield Event(f"due-{number:09d}", STREAM, "crm", workflow, at, DUE, data)
