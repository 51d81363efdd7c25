"""A run's dollars: a call is made only where its price fits, whatever else is in flight."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence

from driftline.consumers.proposing import Answer, ProposalRequest
from driftline.replay.segment import LoggedDecision

ROUNDING_USD = 1e-9
"""What sums of prices may be off by; far below the price of a token."""
FIRST_CALLS_MAX = 4
"""In flight to a model of which no answer has come yet: what it writes is an estimate until then."""


class Room(float):
    """Dollars that a call may cost, and what they were made of."""

    __slots__ = ("estimate", "model")

    def __new__(cls, model: str, estimate: float, beyond: float) -> Room:
        """Room for a call of a model: its estimate, and what others of the model have cost beyond theirs."""
        room = super().__new__(cls, estimate + beyond)
        room.model, room.estimate = model, estimate
        return room

    model: str
    estimate: float


def _nothing(logged: LoggedDecision, request: ProposalRequest) -> float:
    return 0.0


class Spending:
    """What one run has paid and may still pay. Not for several event loops.

    Calls are admitted in the order in which they ask. One that does not fit beside those in flight waits for them;
    when nothing is in flight and it still does not fit, it is refused, and so is every later one. So at which call
    a budget ends depends on prices alone, not on what came back when.

    Where a call costs more than was estimated, later ones of its model are given so much more room; until a model's
    first answer has come, no more than `FIRST_CALLS_MAX` calls of it are in flight.

    Not guaranteed: the limit itself, nor that timing counts for nothing, where a call costs more than the room that
    was made for it. `overrun` tells by how much the limit was passed.

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
        self._reserved: list[Room] = []
        self._beyond: dict[str, float] = {}
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

    @property
    def overrun(self) -> str:
        """What to say of a limit that was passed; empty where it was held."""
        if self.usd_max is None or self._paid <= self.usd_max + ROUNDING_USD:
            return ""
        why = "calls cost more than the room that was made for them"
        return f"the run has cost ${self._paid:.4f}, more than its budget of ${self.usd_max:g}: {why}"

    async def admit(self, logged: LoggedDecision, request: ProposalRequest) -> float | None:
        """Room for a call, to be given back by `settle`; None when it must not be made."""
        if self.usd_max is None:
            return 0.0
        estimate = self._room(logged, request)
        async with self._turn:
            while not self._ended:
                room = Room(request.model, estimate, self._beyond.get(request.model, 0.0))
                if self._fits(room):
                    self._reserved.append(room)
                    return room
                self._ended = not self._reserved
                if self._reserved:
                    self._settled.clear()
                    await self._settled.wait()
        return None

    def settle(self, room: float, answers: Sequence[Answer]) -> None:
        """Take back the room of a call and count what its rounds have cost: what was told; at least the room, where
        an answer tells nothing."""
        self._reserved = [other for other in self._reserved if other is not room]
        told = sum(answer.cost_usd or 0.0 for answer in answers)
        untold = any(answer.failure is None and answer.cost_usd is None for answer in answers)
        self._paid += max(told, room) if untold else told
        if isinstance(room, Room) and any(answer.failure is None or answer.cost_usd for answer in answers):
            self._beyond[room.model] = max(self._beyond.get(room.model, 0.0), told - room.estimate)
        self._settled.set()

    def _fits(self, room: Room) -> bool:
        if room and room.model not in self._beyond and self._in_flight(room.model) >= FIRST_CALLS_MAX:
            return False
        limit = math.inf if self.usd_max is None else self.usd_max
        return self._paid + sum(self._reserved) + room <= limit + ROUNDING_USD

    def _in_flight(self, model: str) -> int:
        return sum(room.model == model for room in self._reserved)
