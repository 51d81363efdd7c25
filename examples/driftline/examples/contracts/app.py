"""Contract renewal over 90 days: signals are scored, offers go out, customers reply, cases are closed or handed on.

The boundaries are written once. `app` runs them on the event-log spine (P3), `state_machine_app` on the state-machine
spine (P5); the names differ, because one name is one log, and a log has one spine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from driftline.consumers import App, Boundary, Fold, Machine, Prompt, Timer, Transition
from driftline.consumers.effectors import Effector
from driftline.examples.contracts.outbox import send_contract
from driftline.examples.contracts.policy import POLICY
from driftline.schemas import Event
from driftline.schemas.names import ESCALATED, TIMER_FIRED, TRANSITION_ACCEPTED

HERE = Path(__file__).parent
NAMESPACE = "driftline.contracts"
WINDOW_OPENED, SIGNAL_REPORTED, PRODUCT_END_OF_LIFE, OUTREACH_DUE, CUSTOMER_REPLIED, DECISION_DUE = FACTS = (
    f"{NAMESPACE}.WindowOpened",
    f"{NAMESPACE}.SignalReported",
    f"{NAMESPACE}.ProductEndOfLife",
    f"{NAMESPACE}.OutreachDue",
    f"{NAMESPACE}.CustomerReplied",
    f"{NAMESPACE}.DecisionDue",
)
SIGNALS_SCORED, OFFER_SENT, HUMAN_REQUESTED, CONTRACT_CLOSED, NOTHING_DONE = (
    f"{NAMESPACE}.SignalsScored",
    f"{NAMESPACE}.OfferSent",
    f"{NAMESPACE}.HumanRequested",
    f"{NAMESPACE}.ContractClosed",
    f"{NAMESPACE}.NothingDone",
)
OFFER_STANDS = timedelta(days=30)
SIGNALS_KEPT = 8
"""Of each customer, the latest: a row stays small however long a workflow lives."""

MACHINE = Machine(
    initial="init",
    terminal=["closed", "expired"],
    transitions=[
        Transition("init", WINDOW_OPENED, "window_open"),
        Transition("window_open", SIGNALS_SCORED, "scoring"),
        Transition("window_open", HUMAN_REQUESTED, "human_required"),
        Transition("scoring", SIGNALS_SCORED, "scoring"),
        Transition("scoring", OFFER_SENT, "offer_sent"),
        Transition("scoring", CONTRACT_CLOSED, "closed"),
        Transition("scoring", HUMAN_REQUESTED, "human_required"),
        Transition("offer_sent", NOTHING_DONE, "offer_sent"),
        Transition("offer_sent", CONTRACT_CLOSED, "closed"),
        Transition("offer_sent", HUMAN_REQUESTED, "human_required"),
        Transition("offer_sent", "timer:expiry", "expired"),
        Transition("*", ESCALATED, "human_required"),
        Transition("human_required", "approve", "closed"),
        Transition("human_required", "reject", "expired"),
    ],
    timers=[Timer("expiry", "offer_sent", OFFER_STANDS)],
)
STATE_AFTER: Mapping[str, str] = {
    WINDOW_OPENED: "window_open",
    SIGNALS_SCORED: "scoring",
    OFFER_SENT: "offer_sent",
    CONTRACT_CLOSED: "closed",
    HUMAN_REQUESTED: "human_required",
    ESCALATED: "human_required",
    TIMER_FIRED: "expired",
}
"""On the event log: the state that a record leaves a customer in, wherever the customer was."""


def fold(row: Mapping[str, Any], event: Event) -> Mapping[str, Any]:
    """What is known of a customer; on both spines alike."""
    data = event.data
    if event.record == WINDOW_OPENED:
        return {**row, "customer": dict(data)}
    if event.record == SIGNAL_REPORTED:
        signals = [*row.get("signals", []), {"kind": data["kind"], "severity": data["severity"]}]
        return {**row, "signals": signals[-SIGNALS_KEPT:]}
    if event.record == PRODUCT_END_OF_LIFE:
        return {**row, "retired": {"product": data["product"], "successor": data["successor"]}}
    if event.record == TRANSITION_ACCEPTED:
        return {**row, "person": {"transition": data["transition"], "by": data["by"]}}
    return {**row, **_said(row, event)}


def _said(row: Mapping[str, Any], event: Event) -> Mapping[str, Any]:
    """What a reply, or a record that a boundary commits, says of a customer."""
    data = event.data
    if event.record == SIGNALS_SCORED:
        return {"risk": data["risk"]}
    if event.record == OFFER_SENT:
        offer = {name: data[name] for name in ("discount_pct", "product", "term_months")}
        return {"offer": offer, "offers": row.get("offers", 0) + 1}
    if event.record == CUSTOMER_REPLIED:
        return {"pays_at_most": data["pays_at_most"]}
    if event.record == CONTRACT_CLOSED:
        return {"outcome": data["outcome"]}
    return {}


def fold_with_state(row: Mapping[str, Any], event: Event) -> Mapping[str, Any]:
    """The fold of the event log: the state is what the last record left, the timer is set by hand.

    Nothing here refuses a record that comes out of turn: on the event log it has been committed.
    """
    folded = dict(fold(row, event))
    state = STATE_AFTER.get(event.record)
    if state is None:
        return folded
    folded.pop("timers", None)
    timers = {"timers": {"expiry": (event.time + OFFER_STANDS).isoformat()}} if state == "offer_sent" else {}
    return {**folded, "state": state, **timers}


def _boundary(name: str, on: list[str], proposes: list[str]) -> Boundary:
    prompt = Prompt.from_file(HERE / "prompts" / f"{name}.md")
    return Boundary(name, on, prompt, "sim/contracts", proposes, [POLICY])


app = App(
    name="contracts",
    facts=FACTS,
    boundaries=[
        _boundary("score", ["signal-reported", "product-end-of-life"], [SIGNALS_SCORED]),
        _boundary("outreach", ["outreach-due"], [OFFER_SENT, HUMAN_REQUESTED, CONTRACT_CLOSED, NOTHING_DONE]),
        _boundary(
            "close",
            ["customer-replied", "decision-due"],
            [CONTRACT_CLOSED, HUMAN_REQUESTED, NOTHING_DONE, OFFER_SENT],
        ),
    ],
    schemas=HERE / "schemas",
    fold=Fold(fold_with_state, version="1"),
)
state_machine_app = replace(
    app,
    name="contracts-machine",
    spine="state-machine",
    machine=MACHINE,
    fold=Fold(fold, version="1"),
    effectors=[Effector("contract", on=[TRANSITION_ACCEPTED], act=send_contract)],
)
