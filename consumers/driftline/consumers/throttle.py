"""The throttle of the control topic: how many decisions may begin in a minute."""

from __future__ import annotations

import asyncio

from aiolimiter import AsyncLimiter

RECHECK_S = 0.5
BURST_S = 1.0
"""So much of the rate may begin at once."""


class Throttle:
    """Awaited before each decision; the rate may change at any time, from any thread."""

    def __init__(self) -> None:
        self._per_minute: float | None = None
        self._limiter: AsyncLimiter | None = None

    def set(self, decisions_per_minute: float | None) -> None:
        """Let so many begin in a minute from now on; None is no limit."""
        if decisions_per_minute == self._per_minute:
            return
        self._per_minute = decisions_per_minute
        self._limiter = None if decisions_per_minute is None else _limiter(decisions_per_minute)

    async def admit(self) -> None:
        """Wait for a turn; a change of the rate reaches who waits within `RECHECK_S`."""
        while (limiter := self._limiter) is not None:
            try:
                await asyncio.wait_for(limiter.acquire(), RECHECK_S)
            except TimeoutError:
                continue
            return


def _limiter(per_minute: float) -> AsyncLimiter:
    per_burst = per_minute * BURST_S / 60
    return AsyncLimiter(1, 60 / per_minute) if per_burst < 1 else AsyncLimiter(per_burst, BURST_S)
