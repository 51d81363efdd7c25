"""The simulated contract analyst: its rules, and the mistakes that it makes at the rates that are told."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import pytest

from driftline.consumers.models import LiteLLMProposer
from driftline.consumers.models.contract_analyst import (
    HEED_SHARE,
    Brief,
    ContractHabits,
    propose_contract,
    reference_action,
    reference_risk,
)
from driftline.consumers.models.draws import Draws
from driftline.consumers.models.sim import CONTRACT_VERSIONS
from driftline.consumers.proposing import CallKey, ProposalRequest
from driftline.schemas import UsageError

pytestmark = pytest.mark.filterwarnings("ignore:.*using the `ReadOnly` qualifier:UserWarning")

CUSTOMER = {
    "customer_id": "c-1",
    "contract": "One year",
    "tenure_months": 30,
    "monthly_charges": 80.0,
    "product": "dsl-16",
}
OFFER = {"discount_pct": 10.0, "product": "dsl-16", "term_months": 12}
TRIES = 3000


def brief(task: str, event: Mapping[str, Any] | None = None, legal: Sequence[str] | None = None, **row: Any) -> Brief:
    return Brief(task, event or {}, {"customer": CUSTOMER, **row}, legal)


def offered(event: Mapping[str, Any], legal: Sequence[str] | None = None, **row: Any) -> Brief:
    return brief("close", event, legal, state="offer_sent", offer=OFFER, **row)


def proposed(given: Brief, version: str = "contracts", tries: int = TRIES) -> list[dict[str, Any]]:
    keys = (CallKey(f"d{number}", "w") for number in range(tries))
    habits = CONTRACT_VERSIONS[version]
    return [propose_contract(given, 30.0, habits, Draws(version, key)) for key in keys]


def shares(given: Brief, version: str = "contracts") -> dict[str, float]:
    found = Counter(one["type"].rpartition(".")[2] for one in proposed(given, version))
    return {name: count / TRIES for name, count in found.items()}


def test_the_risk_is_the_mean_severity_with_what_is_known_of_the_customer() -> None:
    signals = [{"kind": "usage", "severity": 40}, {"kind": "support", "severity": 60}]
    assert reference_risk(brief("score", signals=signals)) == 50
    assert reference_risk(brief("score", signals=signals, retired={})) == 65
    assert reference_risk(Brief("score", {}, {"signals": signals, "customer": {"tenure_months": 49}}, None)) == 40
    assert reference_risk(brief("score")) == 0


@pytest.mark.parametrize(
    ("row", "action"),
    [
        ({"risk": 90, "customer": {"contract": "Month-to-month"}}, "ContractClosed"),
        ({"risk": 90}, "HumanRequested"),
        ({"risk": 90, "customer": {**CUSTOMER, "tenure_months": 3}}, "OfferSent"),
        ({"risk": 30}, "OfferSent"),
        ({"risk": 29}, "ContractClosed"),
        ({"risk": 0, "retired": {"product": "dsl-16", "successor": "dsl-50"}}, "OfferSent"),
        ({"risk": 50, "state": "human_required"}, "NothingDone"),
    ],
)
def test_the_rule_at_outreach(row: Mapping[str, Any], action: str) -> None:
    assert reference_action(brief("outreach", **row)) == action


@pytest.mark.parametrize(
    ("event", "action"),
    [
        ({"pays_at_most": 72.0}, "ContractClosed"),
        ({"pays_at_most": 65.0}, "HumanRequested"),
        ({"pays_at_most": 60.0}, "ContractClosed"),
        ({"days_left": 7}, "NothingDone"),
    ],
)
def test_the_rule_at_the_close(event: Mapping[str, Any], action: str) -> None:
    assert reference_action(offered(event)) == action


@pytest.mark.parametrize(
    ("pays", "product", "outcome"),
    [(72, "dsl-16", "renewed_with_offer"), (72, "dsl-50", "restructured"), (50, "dsl-16", "churned")],
)
def test_the_outcome_says_what_the_customer_took(pays: float, product: str, outcome: str) -> None:
    given = brief("close", {"pays_at_most": pays}, state="offer_sent", offer={**OFFER, "product": product})
    closed = [one["payload"] for one in proposed(given, tries=50) if one["type"].endswith("ContractClosed")]
    assert {payload["outcome"] for payload in closed} == {outcome}


@pytest.mark.parametrize(
    ("given", "share"),
    [
        (offered({"pays_at_most": 50.0}), 0.25),
        (offered({"days_left": 7}), 0.10),
        (brief("close", {"days_left": 7}, state="closed", outcome="renewed"), 0.08),
    ],
)
def test_told_nothing_of_what_is_legal_it_offers_once_too_often_at_the_known_rate(given: Brief, share: float) -> None:
    assert shares(given)["OfferSent"] == pytest.approx(share, abs=0.03)


def test_told_what_is_legal_it_mostly_keeps_to_it() -> None:
    legal = ["NothingDone", "ContractClosed", "HumanRequested"]
    found = shares(offered({"pays_at_most": 50.0}, legal))
    assert 0 < found["OfferSent"] < 3 * 0.25 * (1 - HEED_SHARE)
    assert found["ContractClosed"] > 0.97


def test_where_the_rule_is_not_legal_a_person_is_asked() -> None:
    found = shares(brief("outreach", legal=["ContractClosed", "HumanRequested"], risk=50))
    assert found["HumanRequested"] > 0.9


def test_discounts_stray_and_pass_the_ceiling_at_the_known_rates() -> None:
    offers = [one["payload"] for one in proposed(brief("outreach", risk=40)) if one["type"].endswith("OfferSent")]
    discounts = Counter(offer["discount_pct"] for offer in offers)
    assert (discounts[7.5] + discounts[12.5]) / len(offers) == pytest.approx(0.08, abs=0.02)
    assert sum(count for discount, count in discounts.items() if discount > 30) / len(offers) == pytest.approx(
        0.04, abs=0.015
    )
    assert sum(bool(offer["merges_contracts"]) for offer in offers) / len(offers) == pytest.approx(0.01, abs=0.008)


def test_the_successor_is_offered_but_for_the_known_share() -> None:
    given = brief("outreach", risk=40, retired={"product": "dsl-16", "successor": "dsl-50"})
    offers = [one["payload"] for one in proposed(given) if one["type"].endswith("OfferSent")]
    old = sum(offer["product"] == "dsl-16" for offer in offers)
    assert old / len(offers) == pytest.approx(0.05, abs=0.015)


def mean_discount(version: str, contract: str) -> float:
    given = Brief("outreach", {}, {"risk": 40, "customer": {**CUSTOMER, "contract": contract}}, None)
    offers = [one["payload"]["discount_pct"] for one in proposed(given, version) if "OfferSent" in one["type"]]
    return fmean(offers)


def test_the_inflated_version_differs_in_two_year_discounts_alone() -> None:
    inflated, incumbent = (mean_discount(version, "Two year") for version in ("contracts-inflated", "contracts"))
    assert inflated - incumbent == pytest.approx(12, abs=0.6)
    same = mean_discount("contracts-inflated", "One year") - mean_discount("contracts", "One year")
    assert same == pytest.approx(0, abs=0.6)


def test_the_noisier_version_strays_twice_as_often_from_the_action() -> None:
    quiet, noisy = (shares(brief("outreach", risk=40), version) for version in ("contracts", "contracts-noisier"))
    assert 1 - quiet["OfferSent"] == pytest.approx(0.03, abs=0.01)
    assert 1 - noisy["OfferSent"] == pytest.approx(0.06, abs=0.015)


def test_the_reworded_version_differs_in_its_words_alone() -> None:
    assert CONTRACT_VERSIONS["contracts-reworded"] == ContractHabits(
        rationales=CONTRACT_VERSIONS["contracts-reworded"].rationales
    )
    words = [{one["payload"]["rationale"] for one in proposed(brief("score"), v, 200)} for v in CONTRACT_VERSIONS]
    assert words[0].isdisjoint(words[3])


def ask(content: str, version: str = "contracts") -> str:
    messages = [{"role": "user", "content": content}]
    request = ProposalRequest(f"sim/{version}", messages, CallKey("d", "w"))
    return asyncio.run(LiteLLMProposer().propose(request)).text or ""


@pytest.mark.parametrize("version", CONTRACT_VERSIONS)
def test_it_reads_the_outer_object_of_the_message_and_answers_alike_every_time(version: str) -> None:
    content = "Now:\n" + json.dumps({"task": "score", "event": {"a": {}}, "row": {"signals": [], "customer": {}}})
    assert json.loads(ask(content, version))["type"] == "driftline.contracts.SignalsScored"
    assert ask(content, version) == ask(content, version)


def test_a_prompt_without_a_task_is_the_users_mistake() -> None:
    with pytest.raises(UsageError, match="no user message holds a JSON object with task, event and row"):
        ask('{"customer_id": "c"}')
