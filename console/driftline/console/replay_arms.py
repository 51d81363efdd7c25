"""The arms of a run: how they are named, who asks them, and what the incumbent adds to the report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from driftline.consumers.models.litellm_proposer import LiteLLMProposer
from driftline.consumers.models.sources import is_recorded
from driftline.consumers.proposing import Answer, ProposalRequest
from driftline.replay.arms import Candidate, Incumbent
from driftline.replay.asking import steady
from driftline.replay.identity import arm_of, arms_of
from driftline.replay.incumbent import incumbent_parts
from driftline.replay.result import ForcedResult, Limits
from driftline.replay.segment import Segment
from driftline.replay.subject import Subject
from driftline.schemas import ArmRef


@dataclass(frozen=True)
class Arms:
    """The arms of a run, as reports and alerts name them."""

    baseline: ArmRef
    candidate: ArmRef
    incumbent: ArmRef | None
    """None where it was not asked."""


class EveryArm:
    """Asks live models with retries and rates. A recording is never in trouble: what it lacks no retry brings."""

    def __init__(self, limits: Limits) -> None:
        self._recorded = LiteLLMProposer()
        self._live = steady(self._recorded, limits)

    async def propose(self, request: ProposalRequest) -> Answer:
        """As `Proposer.propose`."""
        return await (self._recorded if is_recorded(request.model) else self._live).propose(request)


def named_arms(segment: Segment, subject: Subject, candidate: Candidate, incumbent: Incumbent | None) -> Arms:
    """What is held against what, over the decisions of a segment."""
    beside = None if incumbent is None else arm_of(segment, subject, incumbent.arm)
    return Arms(*arms_of(segment, subject, candidate), beside)


def incumbent_report(
    segment: Segment, candidate: Candidate, arms: Arms, result: ForcedResult, limits: Limits
) -> dict[str, Any]:
    """What the incumbent adds to a report; nothing where it was not asked."""
    if arms.incumbent is None:
        return {}
    named = arms.baseline, arms.incumbent, arms.candidate
    runs = max((len(pair.floor) for pair in result.pairs), default=0)
    parts = incumbent_parts(segment, candidate, named, result, limits.alpha)
    return {"incumbent": {"model": arms.incumbent.model, "runs": runs}, **parts}
