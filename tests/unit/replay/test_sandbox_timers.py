"""Timers in a sandbox: the log's own decisions lead to the log's own row, however late its clock was told."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta

import pytest
from tests.unit.consumers import test_spine
from tests.unit.consumers.test_spine import NOON, Partition, Seller, fact, tick

from driftline.consumers import App
from driftline.consumers.boundary import BoundBoundary
from driftline.consumers.deciding import drive
from driftline.consumers.engine import Input, Outcome
from driftline.log import Coordinates
from driftline.replay.sandbox import Sameness, Sandbox, SandboxRun
from driftline.replay.segment import LoggedDecision
from driftline.replay.workflows import Workflow, build_history
from driftline.schemas import Event
from driftline.schemas.names import TIMER_FIRED

shop = test_spine.shop
ANSWERS = ("shop.Offered", "shop.Offered")


class Same:
    """Decides as the log did."""

    def __init__(self) -> None:
        self.seller = Seller(*ANSWERS)

    def bound(self, bound: BoundBoundary, logged: LoggedDecision | None) -> BoundBoundary:
        return bound

    async def decide(self, given: Input, logged: LoggedDecision | None) -> Outcome:
        return await drive(given, self.seller)


def lived(app: App, events: Sequence[Event]) -> tuple[Partition, Workflow]:
    """A partition that decided these, and the workflow as the log has it."""
    partition = Partition(app, Seller(*ANSWERS))
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
    [workflow] = build_history(app, [placed], decided).workflows
    return partition, workflow


def again(app: App, workflow: Workflow, ticked_days: float | None) -> SandboxRun:
    until = None if ticked_days is None else NOON + timedelta(days=ticked_days)
    return asyncio.run(Sandbox(app, workflow, Same(), Sameness(app.contracts), until=until).run())


LATE = fact("shop.Offered", 60 * 24 * 40)
"""Ten days after the timer is due; the clock is told only after it."""


@pytest.mark.parametrize("events", [[tick(30)], [LATE, tick(41)], [tick(29), LATE], []], ids=len)
def test_the_decisions_of_the_log_make_the_row_of_the_log(shop: App, events: list[Event]) -> None:
    partition, workflow = lived(shop, [fact("shop.Asked"), *events])
    ticked = max((event.data["ticked_at"] for event in events if "ticked_at" in event.data), default=None)
    run = again(shop, workflow, None if ticked is None else (ticked - NOON) / timedelta(days=1))
    assert run.row == partition.row().json
    assert (run.facts_fed, run.facts_withheld, run.ended) == (workflow.facts, 0, None)


def test_timers_are_no_facts_from_outside(shop: App) -> None:
    partition, workflow = lived(shop, [fact("shop.Asked"), tick(30)])
    assert len(partition.of(TIMER_FIRED)) == workflow.facts == 1


def test_a_timer_that_was_told_twice_is_held_against_the_first(shop: App) -> None:
    partition, workflow = lived(shop, [fact("shop.Asked"), tick(30)])
    [fired] = [logged for logged in workflow.events if logged.event.record == TIMER_FIRED]
    void = Workflow(workflow.name, [*workflow.events, fired])
    assert again(shop, void, 30).row == partition.row().json


def test_a_timer_that_only_the_sandbox_has_fires_as_far_as_the_clock_came(shop: App) -> None:
    _, workflow = lived(shop, [fact("shop.Asked")])
    states = [again(shop, workflow, days).row for days in (29, 30)]
    assert ["expired" in (row or "") for row in states] == [False, True]
