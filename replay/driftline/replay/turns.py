"""The turns of a run: which decision comes when, and what has come back so far."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from driftline.detectors import planned_order
from driftline.replay.levels import JudgedAnswer
from driftline.replay.result import NOT_PAID, Limits, Pair
from driftline.replay.segment import LoggedDecision, Segment
from driftline.schemas import UsageError


@dataclass
class Turn:
    """One decision, and what came back of the calls that it takes."""

    index: int
    logged: LoggedDecision
    baseline: JudgedAnswer
    calls: int
    begun: int = 0
    answers: dict[int, JudgedAnswer] = field(default_factory=dict)
    """By the call's place among those of a decision."""

    @property
    def complete(self) -> bool:
        """Whether all of its answers are there."""
        return len(self.answers) == self.calls

    def pair(self, evidence: bool) -> Pair:
        """The decision under all arms."""
        candidate, *floor = (self.answers[call] for call in range(self.calls))
        return Pair(self.index, self.logged, self.baseline, candidate, evidence, tuple(floor))


class Evidence(Protocol):
    """What decisions are read for."""

    @property
    def done(self) -> bool:
        """Whether no more is needed."""

    @property
    def e_value(self) -> float:
        """The evidence so far."""

    @property
    def decision(self) -> str | None:
        """`diverged`, `equivalent`, or None as long as it suffices for neither."""

    def observe(
        self, stratum: str, baseline: JudgedAnswer, first: JudgedAnswer, others: Sequence[JudgedAnswer]
    ) -> bool:
        """Take the next decision of the planned order: the log's answer and those of its calls; whether it counts."""

    def observe_after_stop(self, stratum: str, baseline: JudgedAnswer, first: JudgedAnswer) -> None:
        """Take what was paid and came too late to count."""


@dataclass
class Run:
    """What a run accumulates."""

    evidence: Evidence
    room: asyncio.Semaphore
    """A permit for each call that may be made ahead of the evidence."""
    dealing: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held by whoever takes the next call."""
    turn: Turn | None = None
    """The last that was begun."""
    arrived: dict[int, Turn] = field(default_factory=dict)
    """Turns that are complete and wait for theirs."""
    overspent: dict[int, Turn] = field(default_factory=dict)
    """Turns that came back after the stop."""
    pairs: list[Pair] = field(default_factory=list)
    """Those whose turn has come, in planned order."""
    taken: int = 0
    """Turns that were begun."""
    stopped_at: int | None = None
    """Pairs up to the verdict and its cause; None while they are not in."""
    calls: int = 0
    """Calls of those pairs."""
    from_ledger: int = 0

    def begun_turn(self, index: int) -> Turn | None:
        """A turn behind the stop, as far as it came; None where it was not begun."""
        last = self.turn if self.turn is not None and self.turn.index == index else None
        return self.overspent.get(index, last)


def planned_decisions(segment: Segment, limits: Limits, calls: int = 1) -> list[LoggedDecision]:
    """The decisions in the order in which they enter, which is fixed before any call; no more than may be paid.

    Args:
        segment: Where they come from.
        limits: The order's seed, and the calls that may be paid.
        calls: That each decision takes, whether the ledger holds some of them or not.

    Raises:
        UsageError: What may be paid does not hold one decision.
    """
    order = planned_order([logged.decision.workflow for logged in segment.decisions], limits.order_seed)
    if limits.calls_max is None:
        return [segment.decisions[index] for index in order]
    if limits.calls_max < calls:
        raise UsageError(
            f"--max-calls {limits.calls_max} does not hold one decision, which takes {calls}",
            "give more, or fewer runs of the incumbent with --floor",
        )
    return [segment.decisions[index] for index in order[: limits.calls_max // calls]]


def drop_unpaid(pairs: list[Pair]) -> None:
    """The run ends where its budget ended; a hole before that stays, as a call that was lost."""
    while pairs and pairs[-1].candidate.answer is NOT_PAID:
        pairs.pop()
