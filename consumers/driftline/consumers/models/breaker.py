"""The circuit breaker of one model: after failures in a row nobody calls it, but one probe at a time.

A state machine and nothing else: it waits for nobody, and reads the time from the clock that it is given.
Source: Nygard, Release It! (2nd edition, 2018), "Circuit Breaker".
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum


class BreakerState(StrEnum):
    """Whether a model is called."""

    CLOSED = "closed"
    """It is; calls pass."""
    OPEN = "open"
    """It is in trouble: no call passes until a probe is due."""
    HALF_OPEN = "half_open"
    """One probe is under way, and decides."""


@dataclass(frozen=True, slots=True)
class Permit:
    """Leave to make one call; to be handed back with what became of it."""

    epoch: int
    """The breaker's when the call was let in: a call that outlives it says nothing of today."""
    probe: bool


class Breaker:
    """Opens after failures in a row, and closes when a probe is answered.

    The pause between probes doubles up to its maximum. What a call brings that was let in before the breaker last
    opened or closed changes nothing.

    Args:
        failures_max: This many failures in a row open it.
        probe_s: From opening to the first probe.
        probe_s_max: Between probes at most, unless a provider asks for more.
        clock: Seconds from any origin, never going back.
    """

    def __init__(self, failures_max: int, probe_s: float, probe_s_max: float, clock: Callable[[], float]) -> None:
        self._failures_max = failures_max
        self._probe_s = probe_s
        self._probe_s_max = probe_s_max
        self._clock = clock
        self._state = BreakerState.CLOSED
        self._epoch = 0
        self._failures = 0
        self._pause_s = probe_s
        self._due = 0.0

    @property
    def state(self) -> BreakerState:
        """Open until a probe is let in, also when one is due."""
        return self._state

    @property
    def opens_in_s(self) -> float:
        """Seconds until a call may pass: 0 when one may, infinity while a probe is under way."""
        if self._state is BreakerState.CLOSED:
            return 0.0
        return math.inf if self._state is BreakerState.HALF_OPEN else max(0.0, self._due - self._clock())

    def enter(self) -> Permit | None:
        """Leave to make a call; None when none may be made now."""
        if self.opens_in_s > 0:
            return None
        probe = self._state is BreakerState.OPEN
        if probe:
            self._state = BreakerState.HALF_OPEN
        return Permit(self._epoch, probe)

    def succeeded(self, permit: Permit) -> bool:
        """The model answered; whether that closed the breaker."""
        if permit.epoch != self._epoch:
            return False
        self._failures = 0
        if not permit.probe:
            return False
        self._pause_s = self._probe_s
        return self._turn(BreakerState.CLOSED)

    def failed(self, permit: Permit, retry_after_s: float = 0.0) -> bool:
        """The call failed; whether that opened the breaker, or left it open for longer.

        Args:
            permit: Of the call.
            retry_after_s: How long the provider asks not to be called.
        """
        if permit.epoch != self._epoch:
            return False
        self._failures += 1
        if permit.probe:
            self._pause_s = min(2 * self._pause_s, self._probe_s_max)
        elif self._failures < self._failures_max:
            return False
        return self._turn(BreakerState.OPEN, max(self._pause_s, retry_after_s))

    def abandoned(self, permit: Permit) -> bool:
        """The call was given up and says nothing; whether another one may probe at once instead of it."""
        if not permit.probe or permit.epoch != self._epoch:
            return False
        return self._turn(BreakerState.OPEN)

    def _turn(self, state: BreakerState, probe_in_s: float = 0.0) -> bool:
        self._state = state
        self._epoch += 1
        self._failures = 0
        self._due = self._clock() + probe_in_s
        return True
