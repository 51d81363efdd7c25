"""The turns of a run: which decision comes when, and what has come back so far."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from driftline.consumers.proposing import Answer, ProposerFailure
from driftline.detectors import SequentialJudge, planned_order
from driftline.replay.levels import JudgedAnswer
from driftline.replay.result import Limits, Pair
from driftline.replay.segment import LoggedDecision, Segment

NOT_ASKED = Answer(None, ProposerFailure.NOT_RECORDED, "not asked: the log has no outcome to hold an answer against")
NOT_PAID = Answer(None, ProposerFailure.NOT_RECORDED, "not asked: the budget has ended")


@dataclass
class Run:
    """What a run accumulates."""

    judge: SequentialJudge
    room: asyncio.Semaphore
    """A permit for each turn that may be taken ahead of the evidence."""
    arrived: dict[int, tuple[JudgedAnswer, JudgedAnswer]] = field(default_factory=dict)
    """Both arms of the turns that wait for theirs."""
    pairs: list[Pair] = field(default_factory=list)
    """Those whose turn has come, in planned order."""
    taken: int = 0
    """Turns that were begun."""
    stopped_at: int | None = None
    """Pairs up to the verdict; None while it is not in."""
    from_ledger: int = 0


def planned_decisions(segment: Segment, limits: Limits) -> list[LoggedDecision]:
    """The decisions in the order in which they enter, which is fixed before any call; no more than may be paid."""
    order = planned_order([logged.decision.workflow for logged in segment.decisions], limits.order_seed)
    return [segment.decisions[index] for index in order][: limits.calls_max]


def drop_unpaid(pairs: list[Pair]) -> None:
    """The run ends where its budget ended; a hole before that stays, as a call that was lost."""
    while pairs and pairs[-1].candidate.answer is NOT_PAID:
        pairs.pop()
