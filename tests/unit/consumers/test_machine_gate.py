"""What moves no row of a state machine: a boundary's word from another source, and what nobody asks for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from driftline.consumers import App, Boundary, Fold, Machine, Prompt, Transition
from driftline.consumers.effectors import Effector
from driftline.consumers.rows import Rows
from driftline.consumers.spine import EventLog, StateMachine, Taken
from driftline.schemas import Event
from driftline.schemas.names import ESCALATED, TRANSITION_ACCEPTED, TRANSITION_REJECTED, TRANSITION_REQUESTED

NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)
OUTSIDE = ["driftline-publish", "driftline:other/sell", "driftline:shop/timer", "driftline:shop/effector/mail"]


@pytest.fixture
def shop(tmp_path: Path) -> App:
    """Born on the state machine; what leads on from `open` is a boundary's or a person's."""
    machine = Machine(
        "init",
        ["closed"],
        [
            Transition("init", "shop.Asked", "open"),
            Transition("open", "shop.Offered", "closed"),
            Transition("open", ESCALATED, "waiting"),
            Transition("waiting", "approve", "closed"),
        ],
    )
    boundary = Boundary("sell", ["shop.Asked"], Prompt("hello"), "acme/seller", ["shop.Offered"])
    return App("shop", [boundary], tmp_path, ["shop.Asked"], spine="state-machine", machine=machine)


def event(record: str, source: str = "web", **data: Any) -> Event:
    return Event(f"{record} of {source}", record, source, "w", NOON, record, data)


def request(by: str, expected_version: int = 2) -> Event:
    data: dict[str, Any] = {"transition": "approve", "expected_version": expected_version, "by": by, "reason": ""}
    return event(TRANSITION_REQUESTED, **data)


def take(app: App, *events: Event) -> tuple[Rows, Sequence[Taken]]:
    """The rows after some events of one workflow, and what each did."""
    spine, rows, taken = StateMachine(app), Rows(app.row_fold), []
    for offset, one in enumerate(events):
        taken.append(spine.take(rows, b"w", one, offset))
        if taken[-1].moved:
            rows.keep(b"w", taken[-1].row)
    return rows, taken


def state(rows: Rows) -> str | None:
    row = rows.get(b"w")
    return None if row is None else row.state


@pytest.mark.parametrize("source", OUTSIDE)
@pytest.mark.parametrize("record", ["shop.Offered", ESCALATED])
def test_what_only_a_boundary_commits_moves_no_row_and_is_not_decided_where_another_source_says_it(
    shop: App, record: str, source: str
) -> None:
    rows, (_, taken) = take(shop, event("shop.Asked"), event(record, source))
    assert (state(rows), taken.moved, taken.decides) == ("open", False, False)


def test_what_an_app_takes_from_outside_and_from_its_boundaries_moves_the_row_whoever_says_it(shop: App) -> None:
    both = replace(shop, facts=["shop.Asked", "shop.Offered"])
    rows, _ = take(both, event("shop.Asked"), event("shop.Offered"))
    assert state(rows) == "closed"


def test_what_an_effector_reports_moves_the_row_though_a_boundary_may_say_the_same(shop: App) -> None:
    mail = Effector("mail", on=["shop.Offered"], act=lambda event, key: {}, result="shop.Offered")
    rows, _ = take(
        replace(shop, effectors=[mail]), event("shop.Asked"), event("shop.Offered", "driftline:shop/effector/mail")
    )
    assert state(rows) == "closed"


def test_a_record_that_is_no_boundarys_moves_the_row_though_it_is_not_among_the_facts(shop: App) -> None:
    rows, (_, taken) = take(shop, event("shop.Asked"), event("shop.Noted"))
    assert (state(rows), taken.moved, taken.decides) == ("open", True, True)


def test_on_the_event_log_what_anybody_says_is_a_fact_as_any_other(shop: App) -> None:
    app = replace(shop, spine="event-log", machine=None, fold=Fold(lambda row, event: {"last": event.record}, "1"))
    taken = EventLog(app).take(Rows(app.row_fold), b"w", event("shop.Offered", "driftline-publish"), 0)
    assert (taken.moved, taken.decides) == (True, True)


@pytest.mark.parametrize("by", ["", " \n", "driftline:shop/sell", "driftline:"])
def test_a_request_that_nobody_answers_for_is_refused_and_moves_nothing(shop: App, by: str) -> None:
    rows, (*_, taken) = take(shop, event("shop.Asked"), event(ESCALATED, "driftline:shop/sell"), request(by))
    [answer] = taken.emitted
    refused = json.loads(answer.data["rejection"])
    assert answer.record == TRANSITION_REJECTED
    assert (refused["code"], refused["path"], refused["actual"]) == ("policy_violation", "/by", by)
    assert (state(rows), taken.moved) == ("open", False)


def test_a_request_that_somebody_answers_for_is_carried_out(shop: App) -> None:
    facts = replace(shop, facts=["shop.Asked", ESCALATED])
    rows, (*_, taken) = take(facts, event("shop.Asked"), event(ESCALATED), request("driftliner"))
    assert [one.record for one in taken.emitted] == [TRANSITION_ACCEPTED]
    assert state(rows) == "closed"
