"""The breaker, with a clock that is set by hand."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from driftline.consumers.models import Breaker, BreakerState
from driftline.consumers.models.breaker import Permit


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    """Opens after three failures, probes after 5 s, then 10, 20, 20."""
    return Breaker(failures_max=3, probe_s=5.0, probe_s_max=20.0, clock=clock)


def let_in(breaker: Breaker) -> Permit:
    permit = breaker.enter()
    assert permit is not None
    return permit


@pytest.fixture
def opened(breaker: Breaker) -> Breaker:
    for _ in range(3):
        breaker.failed(let_in(breaker))
    return breaker


def test_it_opens_after_failures_in_a_row_and_lets_nobody_in(breaker: Breaker) -> None:
    turned = [breaker.failed(let_in(breaker)) for _ in range(3)]
    assert turned == [False, False, True]
    assert (breaker.state, breaker.enter()) == (BreakerState.OPEN, None)


def test_a_success_between_failures_begins_the_count_anew(breaker: Breaker) -> None:
    for settle in (breaker.failed, breaker.failed, breaker.succeeded, breaker.failed, breaker.failed):
        settle(let_in(breaker))
    assert breaker.state is BreakerState.CLOSED


def test_one_probe_is_let_in_when_it_is_due_and_no_other_beside_it(opened: Breaker, clock: Clock) -> None:
    assert opened.opens_in_s == 5.0
    clock.now += 5.0
    assert let_in(opened).probe
    assert (opened.state, opened.enter(), opened.opens_in_s) == (BreakerState.HALF_OPEN, None, math.inf)


def test_a_probe_that_is_answered_closes_it(opened: Breaker, clock: Clock) -> None:
    clock.now += 5.0
    assert opened.succeeded(let_in(opened))
    assert opened.state is BreakerState.CLOSED
    assert not let_in(opened).probe


def test_the_pause_between_probes_doubles_up_to_its_maximum_and_begins_anew_after_recovery(
    opened: Breaker, clock: Clock
) -> None:
    pauses = []
    for _ in range(4):
        pauses.append(opened.opens_in_s)
        clock.now += opened.opens_in_s
        opened.failed(let_in(opened))
    assert pauses == [5.0, 10.0, 20.0, 20.0]
    clock.now += 20.0
    opened.succeeded(let_in(opened))
    for _ in range(3):
        opened.failed(let_in(opened))
    assert opened.opens_in_s == 5.0


def test_a_provider_may_ask_for_a_longer_pause(breaker: Breaker) -> None:
    for _ in range(3):
        breaker.failed(let_in(breaker), retry_after_s=90.0)
    assert breaker.opens_in_s == 90.0


@pytest.mark.parametrize("settle", [Breaker.failed, Breaker.succeeded, Breaker.abandoned])
def test_a_call_from_before_it_opened_changes_nothing(
    breaker: Breaker, clock: Clock, settle: Callable[[Breaker, Permit], bool]
) -> None:
    late = let_in(breaker)
    for _ in range(3):
        breaker.failed(let_in(breaker))
    assert not settle(breaker, late)
    assert (breaker.state, breaker.opens_in_s) == (BreakerState.OPEN, 5.0)


def test_a_probe_that_was_given_up_leaves_room_for_the_next(opened: Breaker, clock: Clock) -> None:
    clock.now += 5.0
    assert opened.abandoned(let_in(opened))
    assert opened.state is BreakerState.OPEN
    assert let_in(opened).probe
