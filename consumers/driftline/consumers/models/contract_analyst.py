"""The simulated contract analyst: what `sim/contracts…` proposes in the 90 days before a contract ends.

It scores signals, makes offers and closes cases by the rules of the example's prompts, with noise of known size. On
top of it come the mistakes that a spine is there for: it offers a second time, and again after a close (`TEMPTED`).
Told what is legal, it keeps to it in `HEED_SHARE` of these cases; told nothing, it does as it is tempted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from driftline.consumers.models.draws import Draws
from driftline.consumers.models.renewal_analyst import (
    DISCOUNT_STEP_PCT,
    NEIGHBOUR_SHARE,
    OVER_CEILING_SHARE,
    RATIONALES,
    TERMS_MONTHS,
    TWO_YEAR,
)

NAMESPACE = "driftline.contracts"
SCORED, OFFERED, PERSON = "SignalsScored", "OfferSent", "HumanRequested"
CLOSED, NOTHING = "ContractClosed", "NothingDone"
SETTLED = frozenset({"closed", "expired", "human_required"})
"""States in which nothing is left for the analyst to do."""

RISK_OF_LEAVING, RISK_OF_MOVING, RISK_OF_OFFER, RISK_MIDDLE = 85, 70, 30, 50
VALUED_MONTHS, LOYAL_MONTHS = 24, 48
END_OF_LIFE_RISK, LOYAL_RISK = 15, 10
RISK_STEP = 5
RISK_STRAY_SHARE = 0.10
"""Probability of one step up; as much of one step down."""
NEAR_SHARE = 0.1
"""Of the offered price: who is no further from it is worth a person's time."""


class Situation(StrEnum):
    """In what an analyst may be tempted."""

    CLOSED_BEFORE = "a case that is settled"
    DECLINED = "an offer that was declined"
    UNANSWERED = "an offer without a reply"
    OUTREACH = "outreach"
    SCORING = "signals"
    ANSWERED = "an offer that was accepted"


TEMPTED: Mapping[Situation, Mapping[str, float]] = {
    Situation.CLOSED_BEFORE: {OFFERED: 0.08, CLOSED: 0.04},
    Situation.DECLINED: {OFFERED: 0.25},
    Situation.UNANSWERED: {OFFERED: 0.10, CLOSED: 0.03},
}
"""Probability of a record other than the rule's; an offer in these cases is one too many."""
SWAPS: Mapping[str, Mapping[str, float]] = {
    OFFERED: {CLOSED: 0.02, PERSON: 0.01},
    CLOSED: {OFFERED: 0.04},
    PERSON: {OFFERED: 0.04},
}
"""At outreach: probability that a case of one action is decided as its neighbour."""
HEED_SHARE = 0.97
"""Of the proposals that `legal` does not name, those that it takes back by itself."""
MERGER_SHARE = 0.01
"""Offers that would swallow another contract of the customer."""
OLD_PRODUCT_SHARE = 0.05
"""Offers of the product that has ended, to those who have it."""


@dataclass(frozen=True, slots=True)
class ContractHabits:
    """In what one version of the analyst differs from another; the defaults are the incumbent."""

    two_year_extra_pct: float = 0.0
    """Points added to every discount of a two-year contract."""
    fence_share: float = 0.0
    """Share of answers wrapped in a code fence."""
    rationales: tuple[str, ...] = RATIONALES
    spread: float = 1.0
    """Factor on the steps by which numbers stray, and on the rates of `SWAPS`."""


@dataclass(frozen=True, slots=True)
class Brief:
    """What the analyst reads of the message."""

    task: str
    event: Mapping[str, Any]
    row: Mapping[str, Any]
    legal: Sequence[str] | None
    """Short names of the records that the row's state allows; None where nothing was said of it."""

    @classmethod
    def of(cls, value: Mapping[str, Any]) -> Brief | None:
        """The brief in a JSON object, or None where it is none."""
        task, event, row = value.get("task"), value.get("event"), value.get("row")
        if task not in {"score", "outreach", "close"} or not isinstance(event, dict) or not isinstance(row, dict):
            return None
        legal = value.get("legal")
        short = [str(name).rpartition(".")[2] for name in legal] if isinstance(legal, list) else None
        return cls(str(task), event, row, short)

    @property
    def customer(self) -> Mapping[str, Any]:
        """What the window's opening told of the customer; empty where it told nothing."""
        known: Mapping[str, Any] = self.row.get("customer", {})
        return known

    @property
    def risk(self) -> int:
        """The risk in the row; the middle where nothing was scored."""
        return int(self.row.get("risk", RISK_MIDDLE))

    @property
    def offered_price(self) -> float | None:
        """Monthly charges after the discount of the offer that is out; None where none is."""
        offer, charges = self.row.get("offer"), self.customer.get("monthly_charges")
        if self.row.get("state") != "offer_sent" or offer is None or charges is None:
            return None
        return round(float(charges * (1 - offer["discount_pct"] / 100)), 2)

    @property
    def situation(self) -> Situation:
        """Where the case stands."""
        if self.task == "score":
            return Situation.SCORING
        if self.row.get("state") in SETTLED:
            return Situation.CLOSED_BEFORE
        if self.task == "outreach":
            return Situation.OUTREACH
        return self._reply()

    def _reply(self) -> Situation:
        price, pays_at_most = self.offered_price, self.event.get("pays_at_most")
        if price is None or pays_at_most is None:
            return Situation.UNANSWERED
        return Situation.ANSWERED if pays_at_most >= price else Situation.DECLINED


def reference_action(brief: Brief) -> str:
    """The record that the prompts' rules give."""
    situation = brief.situation
    if situation is Situation.SCORING:
        return SCORED
    if situation is Situation.OUTREACH:
        return _outreach(brief)
    if situation is Situation.DECLINED:
        price, pays_at_most = brief.offered_price or 0.0, brief.event["pays_at_most"]
        return PERSON if price - pays_at_most <= NEAR_SHARE * price else CLOSED
    return CLOSED if situation is Situation.ANSWERED else NOTHING


def reference_risk(brief: Brief) -> int:
    """How likely the customer leaves, from 0 to 100."""
    severities = [signal["severity"] for signal in brief.row.get("signals", [])]
    risk = sum(severities) / len(severities) if severities else 0.0
    risk += END_OF_LIFE_RISK if "retired" in brief.row else 0
    risk -= LOYAL_RISK if brief.customer.get("tenure_months", 0) > LOYAL_MONTHS else 0
    return min(max(round(risk), 0), 100)


def propose_contract(brief: Brief, ceiling_pct: float, habits: ContractHabits, draws: Draws) -> dict[str, Any]:
    """A proposal: the type of a record and its payload."""
    action = _heeding(_action(brief, habits, draws), brief, draws)
    payload = {**_terms(action, brief, ceiling_pct, habits, draws), "rationale": draws.pick("why", habits.rationales)}
    return {"type": f"{NAMESPACE}.{action}", "payload": payload}


def _outreach(brief: Brief) -> str:
    monthly = brief.customer.get("contract") == "Month-to-month"
    if brief.risk >= RISK_OF_LEAVING and monthly:
        return CLOSED
    if brief.risk >= RISK_OF_MOVING and not monthly and brief.customer.get("tenure_months", 0) >= VALUED_MONTHS:
        return PERSON
    return OFFERED if brief.risk >= RISK_OF_OFFER or "retired" in brief.row else CLOSED


def _action(brief: Brief, habits: ContractHabits, draws: Draws) -> str:
    rule = reference_action(brief)
    if brief.situation is Situation.OUTREACH:
        strayed = {other: rate * habits.spread for other, rate in SWAPS[rule].items()}
    else:
        strayed = {other: rate for other, rate in TEMPTED.get(brief.situation, {}).items() if other != rule}
    return draws.weighted("action", {**strayed, rule: 1.0})


def _heeding(action: str, brief: Brief, draws: Draws) -> str:
    """The action, or the rule's where the state does not allow it and the analyst sees that."""
    if not brief.legal or action in brief.legal or not draws.chance("heed", HEED_SHARE):
        return action
    preferred = (reference_action(brief), PERSON, brief.legal[0])
    return next(record for record in preferred if record in brief.legal)


def _terms(action: str, brief: Brief, ceiling_pct: float, habits: ContractHabits, draws: Draws) -> dict[str, Any]:
    if action == SCORED:
        risk = reference_risk(brief) + RISK_STEP * habits.spread * _stray("risk", RISK_STRAY_SHARE, draws)
        return {"risk": min(max(round(risk), 0), 100)}
    if action == OFFERED:
        return _offer(brief, ceiling_pct, habits, draws)
    if action == PERSON:
        return {"reason": "The customer may leave, and is worth a talk."}
    return {"outcome": _outcome(brief)} if action == CLOSED else {}


def _outcome(brief: Brief) -> str:
    if brief.situation is Situation.OUTREACH:
        return "churned" if brief.risk >= RISK_OF_MOVING else "renewed"
    if brief.situation is Situation.ANSWERED:
        moved = brief.row["offer"]["product"] != brief.customer.get("product")
        return "restructured" if moved else "renewed_with_offer"
    return str(brief.row.get("outcome", "churned"))


def _offer(brief: Brief, ceiling_pct: float, habits: ContractHabits, draws: Draws) -> dict[str, Any]:
    contract, customer_id = str(brief.customer.get("contract")), brief.customer.get("customer_id")
    return {
        "discount_pct": _discount_pct(brief, ceiling_pct, habits, draws),
        "product": _product(brief, draws),
        "term_months": TERMS_MONTHS.get(contract, 12),
        "merges_contracts": [f"{customer_id}-2"] if draws.chance("merger", MERGER_SHARE) else [],
    }


def _discount_pct(brief: Brief, ceiling_pct: float, habits: ContractHabits, draws: Draws) -> float:
    band = 10.0 if brief.risk < RISK_MIDDLE else 20.0 if brief.risk < RISK_OF_MOVING else 25.0
    standing = min(band, ceiling_pct)
    headroom = min(ceiling_pct - standing, standing)
    step = min(DISCOUNT_STEP_PCT * habits.spread, headroom)
    discount = standing + step * _stray("discount", NEIGHBOUR_SHARE, draws)
    if draws.chance("over ceiling", OVER_CEILING_SHARE):
        discount = ceiling_pct + DISCOUNT_STEP_PCT * draws.pick("how far over", (1, 2))
    if brief.customer.get("contract") == TWO_YEAR:
        discount += habits.two_year_extra_pct
    return min(discount, 100.0)


def _product(brief: Brief, draws: Draws) -> str:
    retired = brief.row.get("retired")
    if retired is None or draws.chance("old product", OLD_PRODUCT_SHARE):
        return str(brief.customer.get("product"))
    return str(retired["successor"])


def _stray(name: str, share: float, draws: Draws) -> int:
    """-1, 0 or 1: which neighbour is chosen, symmetric."""
    return draws.weighted(name, {-1: share, 1: share, 0: 1.0})
