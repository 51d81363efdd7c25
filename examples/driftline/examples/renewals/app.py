"""Contract renewals: a model proposes what becomes of a contract that comes due, and a policy has the last word.

Copy this folder to start an app of your own: `schemas/` are its contracts, `prompts/` what the model is told,
`policy.toml` what the verifier holds it to, `crm.py` what it does in the outside world.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from driftline.consumers import App, Boundary, Fold, Policy, Prompt, Proposal, Refusal, rule
from driftline.consumers.effectors import Effector
from driftline.examples.renewals.crm import record_renewal
from driftline.schemas import Event
from driftline.schemas.names import EFFECT_REPORTED

HERE = Path(__file__).parent
RENEWAL_DUE = "driftline.renewals.RenewalDue"
OUTCOMES = (
    "driftline.renewals.ContractRenewed",
    "driftline.renewals.ContractRenewedWithOffer",
    "driftline.renewals.ContractRestructured",
    "driftline.renewals.ContractChurned",
    "driftline.renewals.RenewalEscalated",
)
RENEWED = OUTCOMES[:3]
"""After these the customer has a new contract."""


@rule("discount-cap", version="1")
def discount_cap(proposal: Proposal, context: Mapping[str, Any], policy: Mapping[str, Any]) -> Refusal | None:
    """No discount above the cap passes without a person."""
    discount, cap = proposal.payload.get("discount_pct"), policy["discount"]["cap_pct"]
    if discount is None or discount <= cap:
        return None
    return Refusal("/discount_pct", f"<= {cap}", str(discount), f"discounts over {cap} % need a person")


@rule("price-floor", version="1")
def price_floor(proposal: Proposal, context: Mapping[str, Any], policy: Mapping[str, Any]) -> Refusal | None:
    """A restructured contract keeps a share of its charges."""
    charges = proposal.payload.get("new_monthly_charges")
    floor = round(policy["restructure"]["floor_share"] * context["event"]["monthly_charges"], 2)
    if charges is None or charges >= floor:
        return None
    return Refusal("/new_monthly_charges", f">= {floor}", str(charges), "the new charges are too low")


def fold(row: Mapping[str, Any], event: Event) -> Mapping[str, Any]:
    """How often a customer's contract came due, and what became of it last."""
    if event.record == RENEWAL_DUE:
        return {**row, "times_due": row.get("times_due", 0) + 1}
    if event.record == EFFECT_REPORTED:
        return row  # no outcome, but news of one
    return {**row, "last_outcome": event.record}


app = App(
    name="renewals",
    facts=[RENEWAL_DUE],
    boundaries=[
        Boundary(
            name="renewal",
            on=["renewal-due.month-to-month", "renewal-due.one-year", "renewal-due.two-year"],
            prompt=Prompt.from_file(HERE / "prompts" / "v1.md"),
            proposer="sim/renewals",
            proposes=OUTCOMES,
            verifiers=[Policy.from_file(HERE / "policy.toml", discount_cap, price_floor)],
        )
    ],
    schemas=HERE / "schemas",
    fold=Fold(fold, version="1"),
    effectors=[Effector("crm", on=RENEWED, act=record_renewal)],
)
