"""A run's dollars: a call is made only where its price fits, whatever else is in flight."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from driftline.consumers.proposing import Answer, ProposalRequest
from driftline.replay.segment import LoggedDecision

ROUNDING_USD = 1e-9
"""What sums of prices may be off by; far below the price of a token."""


def _nothing(logged: LoggedDecision, request: ProposalRequest) -> float:
    return 0.0


class Spending:
    """What one run has paid and may still pay. Not for several event loops.

    Calls are admitted in the order in which they ask. One that does not fit beside those in flight waits for them;
    when nothing is in flight and it still does not fit, it is refused, and so is every later one. So at which call
    a budget ends depends on prices alone, not on what came back when.

    Not guaranteed: the limit itself, where a call costs more than the room that was made for it.

    Args:
        usd_max: What the run may cost in all; None for no limit.
        paid_usd: What it has cost before it was interrupted.
        room: Dollars that a call may cost.
    """

    def __init__(
        self,
        usd_max: float | None = None,
        paid_usd: float = 0.0,
        room: Callable[[LoggedDecision, ProposalRequest], float] = _nothing,
    ) -> None:
        self.usd_max = usd_max
        self._paid = paid_usd
        self._room = room
        self._reserved: list[float] = []
        self._turn = asyncio.Lock()
        self._settled = asyncio.Event()
        self._ended = False

    @property
    def paid_usd(self) -> float:
        """What the run has cost, earlier attempts at it included."""
        return self._paid

    @property
    def ended(self) -> bool:
        """Whether a call was refused."""
        return self._ended

    async def admit(self, logged: LoggedDecision, request: ProposalRequest) -> float | None:
        """Room for a call, to be given back by `settle`; None when it must not be made."""
        if self.usd_max is None:
            return 0.0
        room = self._room(logged, request)
        async with self._turn:
            while not self._ended and self._paid + sum(self._reserved) + room > self.usd_max + ROUNDING_USD:
                self._ended = not self._reserved
                if self._reserved:
                    self._settled.clear()
                    await self._settled.wait()
            if self._ended:
                return None
            self._reserved.append(room)
        return room

    def settle(self, room: float, answers: Sequence[Answer]) -> None:
        """Take back the room of a call and count what its rounds have cost: what was told; at least the room, where
        an answer tells nothing."""
        if room in self._reserved:
            self._reserved.remove(room)
        told = sum(answer.cost_usd or 0.0 for answer in answers)
        untold = any(answer.failure is None and answer.cost_usd is None for answer in answers)
        self._paid += max(told, room) if untold else told
        self._settled.set()
