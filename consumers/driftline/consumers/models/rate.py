"""How fast one model may be called: requests and tokens a minute, kept by leaky buckets."""

from __future__ import annotations

import asyncio

from aiolimiter import AsyncLimiter

BURST_SHARE = 0.1
"""Of a minute's worth, what may go at once: any minute sees at most 1.1 times its limit."""
PERIOD_S = 60.0


class Rate:
    """Lets calls through in the order in which they come.

    What a call costs in tokens is known when it has been answered, so it is the next one that waits for it. Not
    guaranteed: that calls which are already under way stay within the tokens of their minute.

    Args:
        requests_per_minute: None for no limit.
        tokens_per_minute: None for no limit; read and written ones count alike.
    """

    def __init__(self, requests_per_minute: float | None, tokens_per_minute: float | None) -> None:
        self._requests = _limiter(requests_per_minute)
        self._tokens = _limiter(tokens_per_minute)
        self._owed = 0.0
        self._turn = asyncio.Lock()

    async def admit(self) -> None:
        """Wait until a call may be made."""
        if self._requests is None and self._tokens is None:
            return
        async with self._turn:
            await self._pay()
            if self._requests is not None:
                await self._requests.acquire()

    def charge(self, tokens: int) -> None:
        """Count what a call took."""
        self._owed += tokens

    async def _pay(self) -> None:
        while self._tokens is not None and self._owed > 0:
            part = min(self._owed, self._tokens.max_rate)
            await self._tokens.acquire(part)
            self._owed -= part


def _limiter(per_minute: float | None) -> AsyncLimiter | None:
    if per_minute is None:
        return None
    burst = max(1.0, per_minute * BURST_SHARE)
    return AsyncLimiter(burst, PERIOD_S * burst / per_minute)
