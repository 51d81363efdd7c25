"""The contracts example without a broker: its facts, its policy, its fold and its table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from fastavro import schemaless_reader, schemaless_writer

from driftline.console.contracts_demo import unlawful
from driftline.consumers.judging import Case, Proposal
from driftline.examples.contracts.app import (
    CONTRACT_CLOSED,
    HUMAN_REQUESTED,
    MACHINE,
    NOTHING_DONE,
    OFFER_SENT,
    SIGNAL_REPORTED,
    SIGNALS_KEPT,
    SIGNALS_SCORED,
    WINDOW_OPENED,
    app,
    fold,
    fold_with_state,
    state_machine_app,
)
from driftline.examples.contracts.policy import POLICY
from driftline.producers.contracts import WINDOW_DAYS, days_of, synthetic_contracts, telco_contracts
from driftline.schemas import BadInput, Event, Shape, UsageError

NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)
CUSTOMERS = 300


@pytest.fixture(scope="module")
def facts() -> Sequence[Event]:
    return list(synthetic_contracts(CUSTOMERS, seed=3))


def by_customer(facts: Sequence[Event]) -> dict[str, list[Event]]:
    found: dict[str, list[Event]] = {}
    for fact in facts:
        found.setdefault(fact.workflow, []).append(fact)
    return found


def test_facts_come_in_event_time_order_and_are_the_same_for_the_same_seed(facts: Sequence[Event]) -> None:
    assert [fact.time for fact in facts] == sorted(fact.time for fact in facts)
    assert list(synthetic_contracts(CUSTOMERS, seed=3)) == facts
    assert len({fact.id for fact in facts}) == len(facts)


def test_every_customer_has_a_window_signals_an_outreach_and_a_decision_in_this_order(facts: Sequence[Event]) -> None:
    for of_customer in by_customer(facts).values():
        names = [fact.type for fact in of_customer]
        assert (names[0], names[-1]) == ("window-opened", "decision-due")
        signals = [place for place, name in enumerate(names) if name == "signal-reported"]
        assert 2 <= len(signals) <= 5
        assert max(signals) < names.index("outreach-due")


def test_the_days_are_counted_to_the_end_of_the_contract(facts: Sequence[Event]) -> None:
    days = {"window-opened": {90}, "outreach-due": {30}, "decision-due": {7}, "product-end-of-life": {47}}
    found: dict[str, set[int]] = {name: set() for name in days}
    for of_customer in by_customer(facts).values():
        end = of_customer[0].time + timedelta(days=WINDOW_DAYS)
        assert of_customer[0].data["contract_end"] == end.date().isoformat()
        for fact in of_customer:
            if fact.type in found:
                found[fact.type].add((end - fact.time).days)
    assert found == days


def test_a_product_ends_for_those_alone_who_have_it(facts: Sequence[Event]) -> None:
    has = {fact.workflow for fact in facts if fact.data.get("product") == "dsl-16" and fact.type == "window-opened"}
    told = {fact.workflow for fact in facts if fact.type == "product-end-of-life"}
    assert told == has
    assert 0.05 < len(told) / CUSTOMERS < 0.35


def test_some_customers_never_reply_and_no_fact_names_a_cause(facts: Sequence[Event]) -> None:
    replied = {fact.workflow for fact in facts if fact.type == "customer-replied"}
    assert 0.5 < len(replied) / CUSTOMERS < 0.9
    assert {fact.causation_id for fact in facts} == {None}


def test_every_fact_fits_its_contract_and_comes_back_from_avro(facts: Sequence[Event]) -> None:
    for fact in facts:
        contract = app.contracts[fact.record]
        assert Shape(contract).mismatches(dict(fact.data)) == []
        file = BytesIO()
        schemaless_writer(file, contract.parsed, dict(fact.data))
        file.seek(0)
        assert schemaless_reader(file, contract.parsed, None) == fact.data


def test_days_follow_each_other_without_a_gap_and_outlast_the_last_offer(facts: Sequence[Event]) -> None:
    days = list(days_of(facts))
    assert {later.end - day.end for day, later in pairwise(days)} == {timedelta(days=1)}
    assert [fact for day in days for fact in day.facts] == facts
    assert all(day.end - timedelta(days=1) <= fact.time < day.end for day in days for fact in day.facts)
    assert days[-1].end >= facts[-1].time + timedelta(days=30)


def test_days_without_facts_are_days_too() -> None:
    fact = next(synthetic_contracts(1, seed=1))
    later = Event("late", fact.type, fact.source, "w", fact.time + timedelta(days=3), fact.record, fact.data)
    assert [len(day.facts) for day in days_of([fact, later], after=timedelta(days=1))] == [1, 0, 0, 1, 0]
    assert list(days_of([])) == []


def test_what_is_wrong_with_the_customers_is_told_as_for_renewals(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="-1 customers"):
        synthetic_contracts(-1, 1)
    with pytest.raises(BadInput, match="no telco file at"):
        telco_contracts(tmp_path / "nowhere.csv")


ROW: Mapping[str, Any] = {"customer": {"customer_id": "c-1", "monthly_charges": 80.0, "product": "dsl-16"}}
OFFER: Mapping[str, Any] = {
    "discount_pct": 10,
    "product": "dsl-16",
    "term_months": 12,
    "merges_contracts": [],
    "rationale": "r",
}


def refused(
    payload: Mapping[str, Any], row: Mapping[str, Any] = ROW, record: str = OFFER_SENT
) -> list[tuple[Any, ...]]:
    found = POLICY.verify(Proposal(record, payload), Case({"row": row, "event": {}}))
    return [(rejection.rule_id, rejection.expected, rejection.retryable) for rejection in found]


def customer(name: str, charges: float = 80.0) -> Mapping[str, Any]:
    return {"customer": {**ROW["customer"], "customer_id": name, "monthly_charges": charges}}


def test_an_offer_within_the_rules_passes() -> None:
    assert refused({**OFFER, "discount_pct": 30}) == []


def test_a_discount_over_the_cap_is_refused_and_may_be_mended() -> None:
    assert refused({**OFFER, "discount_pct": 30.5}) == [("discount-cap", "<= 30", True)]


def test_an_override_lowers_the_cap_of_one_customer() -> None:
    assert refused({**OFFER, "discount_pct": 20}, customer("S7-000003")) == [("discount-cap", "<= 10", True)]


def test_no_override_lifts_the_cap() -> None:
    lifted = type(POLICY)(POLICY.rules, POLICY.text.replace('"S7-000003" = 10', '"S7-000003" = 50'))
    offer = Proposal(OFFER_SENT, {**OFFER, "discount_pct": 40})
    assert [one.rule_id for one in lifted.verify(offer, Case({"row": customer("S7-000003")}))] == ["discount-cap"]


def test_an_offer_below_the_price_floor_names_the_discount_that_keeps_it() -> None:
    assert refused(OFFER, customer("c-2", 19.0)) == [("price-floor", "<= 5.2", True)]
    assert refused({**OFFER, "discount_pct": 5.2}, customer("c-2", 19.0)) == []
    assert refused({**OFFER, "discount_pct": 1}, customer("c-2", 17.0)) == [("price-floor", "<= 0.0", True)]
    assert refused({**OFFER, "discount_pct": 0}, customer("c-2", 17.0)) == []


def test_without_known_charges_no_discount_is_promised() -> None:
    assert refused(OFFER, {}) == [("price-floor", "known charges", False)]


def test_a_merger_of_contracts_ends_the_attempts() -> None:
    assert refused({**OFFER, "merges_contracts": ["c-2"]}) == [("no-mergers", "[]", False)]


def test_a_product_that_has_ended_is_not_offered() -> None:
    ended = {**ROW, "retired": {"product": "dsl-16", "successor": "dsl-50"}}
    assert refused(OFFER, ended) == [("product-sold", "dsl-50", True)]
    assert refused({**OFFER, "product": "dsl-50"}, ended) == []


@pytest.mark.parametrize(("risk", "expected"), [(-1, "at least 0"), (101, "<= 100")])
def test_a_risk_out_of_range_is_refused(risk: int, expected: str) -> None:
    assert refused({"risk": risk}, record=SIGNALS_SCORED) == [("risk-range", expected, True)]


def test_an_unknown_outcome_is_refused() -> None:
    known = "renewed or renewed_with_offer or restructured or churned"
    assert refused({"outcome": "won"}, record=CONTRACT_CLOSED) == [("known-outcome", known, True)]
    assert refused({"outcome": "churned"}, record=CONTRACT_CLOSED) == []


def event(record: str, source: str = "driftline:contracts/close", **data: Any) -> Event:
    return Event("e", record, source, "w", NOON, record, data)


def test_a_row_keeps_the_latest_signals_alone() -> None:
    row: Mapping[str, Any] = {}
    for severity in range(SIGNALS_KEPT + 3):
        row = fold(row, event(SIGNAL_REPORTED, kind="usage", severity=severity))
    assert [signal["severity"] for signal in row["signals"]] == list(range(3, SIGNALS_KEPT + 3))


def test_the_event_logs_fold_starts_the_timer_with_the_offer_and_ends_it_with_the_close() -> None:
    offered = fold_with_state({}, event(OFFER_SENT, **OFFER))
    assert (offered["state"], offered["timers"]) == ("offer_sent", {"expiry": "2026-07-31T12:00:00+00:00"})
    assert fold_with_state(offered, event(NOTHING_DONE))["timers"] == offered["timers"]
    closed = fold_with_state(offered, event(CONTRACT_CLOSED, outcome="churned"))
    assert (closed["state"], "timers" in closed) == ("closed", False)


def test_the_spines_share_their_boundaries_and_not_their_log() -> None:
    assert state_machine_app.boundaries is app.boundaries
    assert (app.name, state_machine_app.name) == ("contracts", "contracts-machine")
    rendered = {"event": {}, "row": {}, "stream": "s"}
    for boundary in app.boundaries:
        told = boundary.prompt.messages(rendered)[1]["content"]
        said = boundary.prompt.messages({**rendered, "legal": ["x.Y"], "row_version": 4})[1]["content"]
        assert ("legal" in told, '"legal": ["x.Y"]' in said) == (False, True)


def test_what_the_table_does_not_allow_is_counted_and_what_changes_nothing_is_not() -> None:
    story = [
        event(WINDOW_OPENED, source="crm"),
        event(SIGNALS_SCORED),
        event(CONTRACT_CLOSED),
        event(NOTHING_DONE),
        event(OFFER_SENT),
        event(HUMAN_REQUESTED, source="somebody"),
        event(CONTRACT_CLOSED),
    ]
    assert Counter(one.record for one in unlawful(MACHINE, app, story)) == {OFFER_SENT: 1, CONTRACT_CLOSED: 1}


def test_the_readme_shows_the_table_that_there_is() -> None:
    readme = (app.schemas.parent / "README.md").read_text()
    assert MACHINE.mermaid() in readme
