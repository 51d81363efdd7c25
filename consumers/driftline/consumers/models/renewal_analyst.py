"""The simulated renewal analyst: what `sim/renewals…` proposes for a customer whose contract is due.

A renewal is decided by the rule of the reference implementation of arXiv 2605.20173, with noise of known size.
The rates of `SWAPS` are balanced for the proportions of the telco data: as many cases go from one action to its
neighbour as come back, so that more noise changes which cases are decided otherwise and not the shares.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from driftline.consumers.models.draws import Draws

NAMESPACE = "driftline.renewals"
CEILING_PCT_DEFAULT = 30.0
"""Where the prompt states no ceiling."""

RENEWED, OFFERED, RESTRUCTURED = "ContractRenewed", "ContractRenewedWithOffer", "ContractRestructured"
CHURNED, ESCALATED = "ContractChurned", "RenewalEscalated"

SWAPS: Mapping[str, Mapping[str, float]] = {
    RENEWED: {OFFERED: 0.028},
    OFFERED: {RENEWED: 0.039, RESTRUCTURED: 0.005},
    RESTRUCTURED: {OFFERED: 0.039},
    CHURNED: {ESCALATED: 0.009},
    ESCALATED: {CHURNED: 0.070},
}
"""Probability that a case of one action is decided as its neighbour; 3 % of all cases of the telco data."""

DISCOUNT_BANDS: Mapping[float, float] = {10.0: 0.20, 15.0: 0.30, 20.0: 0.30, 25.0: 0.20}
"""Discount that an account stands at, and the share of accounts that do."""
DISCOUNT_STEP_PCT = 2.5
NEIGHBOUR_SHARE = 0.04
"""Probability of one step up; as much of one step down."""
OVER_CEILING_SHARE = 0.04
RESTRUCTURED_SHARE = 0.85
RESTRUCTURED_STEP = 0.05
PROSE_SHARE = 0.01
"""Answers that are a sentence and not JSON."""
TWO_YEAR = "Two year"
TERMS_MONTHS = {"Month-to-month": 12, "One year": 12, TWO_YEAR: 24}

RATIONALES = (
    "Tenure and charges are in the usual range for this contract.",
    "The account history supports this outcome.",
    "Chosen from the contract type, the tenure and the monthly charges.",
    "In line with how comparable customers were handled.",
)
REWORDED_RATIONALES = (
    "Weighing loyalty against price sensitivity, this is the most balanced way forward for the customer.",
    "Considering the relationship so far, this step serves both sides best.",
    "Our view of the account, its duration and its value leads us to this recommendation.",
)


@dataclass(frozen=True, slots=True)
class Habits:
    """In what one version of the analyst differs from another; the defaults are the incumbent."""

    two_year_extra_pct: float = 0.0
    """Points added to every discount of a two-year contract."""
    fence_share: float = 0.0
    """Share of answers wrapped in a code fence."""
    rationales: tuple[str, ...] = RATIONALES
    spread: float = 1.0
    """Factor on the steps by which numbers stray, and on the rates of `SWAPS`; symmetric, so that means stay."""


@dataclass(frozen=True, slots=True)
class Renewal:
    """What the analyst reads of the event."""

    customer_id: str
    contract: str
    monthly_charges: float
    churn_signal: bool

    @classmethod
    def of(cls, value: Mapping[str, Any]) -> Renewal | None:
        """The renewal in a JSON object, or None where it is none."""
        charges, churn = value.get("monthly_charges"), value.get("churn_signal")
        if isinstance(charges, bool) or not isinstance(charges, (int, float)) or not isinstance(churn, bool):
            return None
        if not isinstance(value.get("customer_id"), str) or not isinstance(value.get("contract"), str):
            return None
        return cls(value["customer_id"], value["contract"], float(charges), churn)


def reference_action(renewal: Renewal) -> str:
    """The record that the projection rule gives."""
    monthly = renewal.contract == "Month-to-month"
    if renewal.churn_signal:
        return CHURNED if monthly else ESCALATED
    if renewal.monthly_charges > 95 and monthly:
        return RESTRUCTURED
    return OFFERED if renewal.monthly_charges > 70 else RENEWED


def propose(renewal: Renewal, ceiling_pct: float, habits: Habits, draws: Draws) -> dict[str, Any]:
    """A proposal: the type of a record and its payload."""
    rule = reference_action(renewal)
    swaps = {other: rate * habits.spread for other, rate in SWAPS[rule].items()}
    action = draws.weighted("action", {**swaps, rule: 1.0})
    payload = {**_terms(action, renewal, ceiling_pct, habits, draws), "rationale": _rationale(habits, draws)}
    return {"type": f"{NAMESPACE}.{action}", "payload": payload}


def prose(proposal: Mapping[str, Any]) -> str:
    """The proposal as a sentence, which no parser takes for JSON."""
    record = str(proposal["type"]).rpartition(".")[2]
    return f"I would record {record} for this customer. {proposal['payload']['rationale']}"


def standing_discount_pct(customer_id: str) -> float:
    """The discount that an account stands at: a function of the customer alone, in the shares of `DISCOUNT_BANDS`.

    Being independent of everything that the rule looks at, it keeps the mean discount free of the action noise.
    """
    digest = hashlib.blake2b(customer_id.encode("utf-8", "surrogatepass"), digest_size=4, person=b"driftline-band")
    left = int.from_bytes(digest.digest(), "big") / (1 << 32)
    for band, share in DISCOUNT_BANDS.items():
        left -= share
        if left < 0:
            return band
    return max(DISCOUNT_BANDS)


def _terms(action: str, renewal: Renewal, ceiling_pct: float, habits: Habits, draws: Draws) -> dict[str, Any]:
    term_months = TERMS_MONTHS.get(renewal.contract, 12)
    if action == RENEWED:
        return {"term_months": term_months}
    if action == OFFERED:
        return {"term_months": term_months, "discount_pct": _discount_pct(renewal, ceiling_pct, habits, draws)}
    if action == RESTRUCTURED:
        share = RESTRUCTURED_SHARE + RESTRUCTURED_STEP * habits.spread * _stray("charges", draws)
        return {"new_monthly_charges": round(renewal.monthly_charges * share, 2)}
    if action == ESCALATED:
        return {"reason": "The customer may leave before the contract ends."}
    return {}


def _discount_pct(renewal: Renewal, ceiling_pct: float, habits: Habits, draws: Draws) -> float:
    standing = min(standing_discount_pct(renewal.customer_id), ceiling_pct)
    headroom = min(ceiling_pct - standing, standing)
    discount = standing + min(DISCOUNT_STEP_PCT * habits.spread, headroom) * _stray("discount", draws)
    if draws.chance("over ceiling", OVER_CEILING_SHARE):
        discount = ceiling_pct + DISCOUNT_STEP_PCT * draws.pick("how far over", (1, 2))
    if renewal.contract == TWO_YEAR:
        discount += habits.two_year_extra_pct
    return min(discount, 100.0)


def _stray(name: str, draws: Draws) -> int:
    """-1, 0 or 1: which neighbour is chosen, symmetric."""
    return draws.weighted(name, {-1: NEIGHBOUR_SHARE, 1: NEIGHBOUR_SHARE, 0: 1.0})


def _rationale(habits: Habits, draws: Draws) -> str:
    if draws.chance("usual words", 0.7):
        return habits.rationales[0]
    return draws.pick("words", habits.rationales)
