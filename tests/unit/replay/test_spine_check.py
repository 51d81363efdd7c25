"""What the check of a state machine says of an event log: of cases that were handed on, and of timers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from tests.unit.consumers import test_spine
from tests.unit.consumers.test_spine import NOON, Partition, Seller, fact, tick

from driftline.consumers import App, Fold, Machine, Prompt, Transition
from driftline.consumers.boundary import OnExhausted
from driftline.log import Coordinates
from driftline.replay.segment import LoggedDecision
from driftline.replay.spine_check import ILLEGAL, NOT_ASKED, SpineCheck, check_history
from driftline.replay.workflows import History, build_history
from driftline.schemas import Event
from driftline.schemas.names import ESCALATED, TIMER_FIRED

shop = test_spine.shop
EXPIRES_AFTER = timedelta(days=30)
HANDED_ON: Sequence[Transition] = (
    Transition("open", ESCALATED, "with-a-person"),
    Transition("with-a-person", "approve", "closed"),
)


def fold_by_hand(row: Mapping[str, Any], event: Event) -> Mapping[str, Any]:
    """The event log's: every offer starts the timer anew."""
    if event.record == "shop.Offered":
        return {**row, "timers": {"expiry": (event.time + EXPIRES_AFTER).isoformat()}}
    return {**row, "last": event.record}


@pytest.fixture
def event_log_shop(shop: App) -> App:
    boundary = replace(shop.boundaries[0], prompt=Prompt("{{ row | tojson }}"))
    return replace(shop, spine="event-log", machine=None, boundaries=[boundary], fold=Fold(fold_by_hand, "1"))


def with_table(app: App, machine: Machine) -> App:
    return replace(app, spine="state-machine", machine=machine, fold=None)


def lived(app: App, seller: Seller, *events: Event) -> History:
    """What the event log made of these events."""
    partition = Partition(app, seller)
    partition.feed(*events)
    placed = [
        (Coordinates("shop.events", 0, offset), event)
        for offset, event in enumerate(partition.log)
        if event.workflow == "w"
    ]
    decided = {
        (0, one.record.at.offset): LoggedDecision(one.record.at, one.decision)
        for one in partition.decided
        if one.decision is not None
    }
    ticked = [event.data["ticked_at"] for event in partition.log if "ticked_at" in event.data]
    return replace(build_history(app, [placed], decided), ticked=max(ticked, default=None))


def told(check: SpineCheck) -> list[tuple[str, str, str, int]]:
    return [(one.state, one.proposed, one.why, one.decisions) for one in check.differences]


def day(number: float) -> int:
    """In minutes, as `fact` has it."""
    return int(number * 24 * 60)


def test_an_escalation_that_leads_nowhere_is_a_difference_and_with_a_way_to_a_person_it_is_none(
    shop: App, event_log_shop: App
) -> None:
    history = lived(event_log_shop, Seller("what?", "what?"), fact("shop.Asked"))
    stuck = check_history(with_table(shop, test_spine.MACHINE), history)
    assert (stuck.verdict, told(stuck)) == ("diverged", [("open", ESCALATED, ILLEGAL, 1)])
    machine = replace(test_spine.MACHINE, transitions=[*test_spine.MACHINE.transitions, *HANDED_ON])
    handed_on = check_history(with_table(shop, machine), history)
    assert (handed_on.verdict, handed_on.differences) == ("equivalent", ())
    assert handed_on.states == {"with-a-person": 1}


def test_a_decision_that_committed_nothing_is_taken_wherever_the_model_would_have_been_asked(
    shop: App, event_log_shop: App
) -> None:
    silent = [replace(event_log_shop.boundaries[0], on_exhausted=OnExhausted.REJECT)]
    history = lived(replace(event_log_shop, boundaries=silent), Seller("what?", "what?"), fact("shop.Asked"))
    assert check_history(with_table(shop, test_spine.MACHINE), history).verdict == "equivalent"


def test_the_timer_of_the_log_ends_a_workflow_whatever_the_machine_refused_before(
    shop: App, event_log_shop: App
) -> None:
    """What it refused leaves its row at another version than the log's."""
    events = [fact("shop.Asked"), fact("shop.Noted"), tick(31)]
    history = lived(event_log_shop, Seller("shop.Offered", "shop.Closed"), *events)
    kept = [one for one in test_spine.MACHINE.transitions if one.on != "shop.Closed"]
    checked = check_history(with_table(shop, replace(test_spine.MACHINE, transitions=kept)), history)
    assert told(checked) == [("offered", "shop.Closed", NOT_ASKED, 1)]
    assert checked.states == {"expired": 1}


def test_where_the_log_started_a_timer_anew_the_machines_own_is_due_as_it_was_first_set(
    shop: App, event_log_shop: App
) -> None:
    """The machine refuses the second offer, and expires before the reply to it."""
    events = [fact("shop.Asked"), fact("shop.Noted", day(20)), fact("shop.Noted", day(40)), tick(41)]
    history = lived(event_log_shop, Seller("shop.Offered", "shop.Offered", "shop.Closed"), *events)
    checked = check_history(with_table(shop, test_spine.MACHINE), history)
    assert told(checked) == [("offered", "shop.Offered", ILLEGAL, 1), ("expired", "shop.Closed", NOT_ASKED, 1)]
    assert checked.states == {"expired": 1}


@pytest.mark.parametrize(("ticked", "state"), [(29, "offered"), (30, "expired")])
def test_a_timer_that_only_the_machine_has_fires_as_far_as_the_clock_came(
    shop: App, event_log_shop: App, ticked: int, state: str
) -> None:
    untimed = replace(event_log_shop, fold=Fold(lambda row, event: dict(row), "1"))
    history = lived(untimed, Seller("shop.Offered"), fact("shop.Asked"), tick(ticked))
    assert check_history(with_table(shop, test_spine.MACHINE), history).states == {state: 1}


def test_a_timer_that_the_row_left_behind_ends_nothing(shop: App, event_log_shop: App) -> None:
    """The log never dropped it: it fires there after the case was closed."""
    closing = [fact("shop.Asked"), fact("shop.Noted", day(1)), tick(31)]
    history = lived(event_log_shop, Seller("shop.Offered", "shop.Closed"), *closing)
    assert TIMER_FIRED in [one.event.record for one in history.workflows[0].events]
    checked = check_history(with_table(shop, test_spine.MACHINE), history)
    assert (checked.verdict, checked.states) == ("equivalent", {"closed": 1})


def test_what_was_decided_on_a_timer_that_the_machine_does_not_have_would_not_have_been_asked(
    shop: App, event_log_shop: App
) -> None:
    def nudging(row: Mapping[str, Any], event: Event) -> Mapping[str, Any]:
        due = {"timers": {"nudge": (event.time + timedelta(days=7)).isoformat()}}
        return {**row, **(due if event.record == "shop.Asked" else {})}

    on_nudges = [replace(event_log_shop.boundaries[0], on=["timer:nudge"])]
    nudged = replace(event_log_shop, boundaries=on_nudges, fold=Fold(nudging, "1"))
    history = lived(nudged, Seller("shop.Offered"), fact("shop.Asked"), tick(8))
    table = with_table(replace(shop, boundaries=on_nudges), test_spine.MACHINE)
    assert told(check_history(table, history)) == [("open", "shop.Offered", NOT_ASKED, 1)]


def test_a_timer_that_an_outsider_tells_moves_no_row_of_the_machines(shop: App, event_log_shop: App) -> None:
    data = {"timer": "expiry", "row_version": 2, "due_at": NOON + EXPIRES_AFTER}
    forged = Event("forged", "timer:expiry", "web", "w", NOON + timedelta(days=1), TIMER_FIRED, data)
    history = lived(event_log_shop, Seller("shop.Offered"), fact("shop.Asked"), forged, tick(2))
    assert check_history(with_table(shop, test_spine.MACHINE), history).states == {"offered": 1}
