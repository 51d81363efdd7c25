"""What no proposal of the contracts example gets past: deterministic rules with their parameters in `policy.toml`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from driftline.consumers import Policy, Proposal, Refusal, rule


@rule("discount-cap", version="1")
def discount_cap(proposal: Proposal, context: Mapping[str, Any], policy: Mapping[str, Any]) -> Refusal | None:
    """No discount above the customer's cap; an override may lower the cap, never lift it."""
    discount = proposal.payload.get("discount_pct")
    customer = context["row"].get("customer", {}).get("customer_id")
    general = policy["discount"]["cap_pct"]
    cap = min(general, policy["discount"]["overrides"].get(customer, general))
    if discount is None or discount <= cap:
        return None
    return Refusal("/discount_pct", f"<= {cap}", str(discount), f"discounts of this customer end at {cap} %")


@rule("price-floor", version="1")
def price_floor(proposal: Proposal, context: Mapping[str, Any], policy: Mapping[str, Any]) -> Refusal | None:
    """What the customer pays after the discount is not below the floor; without known charges nothing is promised."""
    discount = proposal.payload.get("discount_pct")
    if not discount:
        return None
    charges = context["row"].get("customer", {}).get("monthly_charges")
    if charges is None:
        return Refusal("/discount_pct", "known charges", str(discount), "no charges are known", retryable=False)
    floor = policy["price"]["floor"]
    if charges * (1 - discount / 100) >= floor:
        return None
    most = max(0.0, int((1 - floor / charges) * 1000) / 10)
    return Refusal("/discount_pct", f"<= {most}", str(discount), f"the price would fall below {floor} dollars")


@rule("no-mergers", version="1")
def no_mergers(proposal: Proposal, context: Mapping[str, Any], policy: Mapping[str, Any]) -> Refusal | None:
    """Contracts are merged by people alone: the case goes to one at once."""
    merged = proposal.payload.get("merges_contracts")
    if not merged:
        return None
    return Refusal("/merges_contracts", "[]", str(merged), "a merger of contracts needs a person", retryable=False)


@rule("product-sold", version="1")
def product_sold(proposal: Proposal, context: Mapping[str, Any], policy: Mapping[str, Any]) -> Refusal | None:
    """Nobody is offered a product that has reached its end of life."""
    retired = context["row"].get("retired")
    if retired is None or proposal.payload.get("product") != retired["product"]:
        return None
    return Refusal("/product", retired["successor"], retired["product"], "the product has reached its end of life")


@rule("risk-range", version="1")
def risk_range(proposal: Proposal, context: Mapping[str, Any], policy: Mapping[str, Any]) -> Refusal | None:
    """A risk is a number from 0 to the maximum."""
    risk, most = proposal.payload.get("risk"), policy["risk"]["max"]
    if risk is None or 0 <= risk <= most:
        return None
    return Refusal("/risk", "at least 0" if risk < 0 else f"<= {most}", str(risk), "a risk is a number of percent")


@rule("known-outcome", version="1")
def known_outcome(proposal: Proposal, context: Mapping[str, Any], policy: Mapping[str, Any]) -> Refusal | None:
    """A case is closed with an outcome that the books know."""
    outcome, known = proposal.payload.get("outcome"), policy["closing"]["outcomes"]
    if outcome is None or outcome in known:
        return None
    return Refusal("/outcome", " or ".join(known), outcome, "no such outcome")


RULES = (discount_cap, price_floor, no_mergers, product_sold, risk_range, known_outcome)
POLICY = Policy.from_file(Path(__file__).parent / "policy.toml", *RULES)
"""Held by every boundary: a rule looks at the fields that it is about, whatever the record."""
