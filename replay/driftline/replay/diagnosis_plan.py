"""What a diagnosis will ask: its arms, its decisions and their order, all fixed before any call."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

from driftline.consumers.models.sources import is_recorded
from driftline.detectors import Moved, planned_order
from driftline.detectors.diagnosis import events_to_alarm
from driftline.replay.arms import Candidate
from driftline.replay.diagnosis_result import CANDIDATE, INCUMBENT
from driftline.replay.result import Limits
from driftline.replay.segment import LoggedDecision, Segment
from driftline.replay.subject import Subject
from driftline.schemas import Decision, UsageError

MODEL, PROMPT, PARAMETERS = "model", "prompt", "parameters"
REPLICATES_APART = 4
"""What the numbers of two repeats of one decision are apart at least; more where there are more arms."""
PURPOSE = "diagnosis"
PAIRS_WANTED = 64
"""Where the batch is smaller, its decisions are repeated: one answer of each would say little of a noisy one."""
REPEATS_MAX = 16
"""By default. More is only more evidence on the same few decisions."""


@dataclass(frozen=True)
class Diagnosing:
    """What is to be diagnosed.

    Attributes:
        run_id: The run that the batch failed in.
        batch: The failing decisions.
        subject: Today's rules.
        incumbent: What is asked in place of the log's answers, which the batch was picked by.
        candidate: Of the run.
        repeats: Of each decision under each arm; fixed before the first call.
        moved: What else of the run moved, for the advice.
        limits: `alpha`, `delta`, `order_seed`, `concurrency`, `calls_max` and rates.

    Raises:
        UsageError: A model is a recording: it has no answer but the one that the batch was picked by.
    """

    run_id: str
    batch: Segment
    subject: Subject
    incumbent: Candidate
    candidate: Candidate
    repeats: int
    moved: Moved
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if self.repeats < 1:
            raise UsageError("a decision is asked at least once", "give --repeats 1 or more")
        logged = {one.decision.model_requested for one in self.batch.decisions}
        for arm in (self.incumbent, self.candidate):
            for model in {arm.model} if arm.model else sorted(logged):
                if is_recorded(model):
                    mend = "diagnose a run of models that can be asked"
                    raise UsageError(f"{model} is a recording and has no fresh answer", mend)

    @property
    def arms(self) -> dict[str, Candidate]:
        """Name to what is asked: incumbent, candidate and, where several parts changed, each of them alone."""
        parts = self.changed
        alone = parts if len(parts) > 1 else {}
        return {INCUMBENT: self.incumbent, CANDIDATE: self.candidate, **alone}

    @property
    def changed(self) -> dict[str, Candidate]:
        """Name to what is asked where the incumbent takes over one part of the candidate alone."""
        return changed_parts(self.batch, self.incumbent, self.candidate)

    @property
    def by_repeat(self) -> bool:
        """Whether the batch is so small that decisions as bets could make no alarm: then repeats are the bets."""
        return len(self.planned) < events_to_alarm(self.limits.alpha)

    @property
    def bets(self) -> int:
        """Bets that can be made."""
        return len(self.planned) * (self.repeats if self.by_repeat else 1)

    @property
    def planned(self) -> list[LoggedDecision]:
        """The decisions in the order in which they enter, no more than `calls_max` calls allow."""
        decisions = self.batch.decisions
        order = planned_order([logged.decision.workflow for logged in decisions], self.limits.order_seed)
        most = self.limits.calls_max
        affordable = None if most is None else most // (len(self.arms) * self.repeats)
        return [decisions[index] for index in order][:affordable]


def changed_parts(batch: Segment, incumbent: Candidate, candidate: Candidate) -> dict[str, Candidate]:
    """Name to arm: the incumbent with each part alone in which the candidate differs from it in some decision.

    Args:
        batch: The decisions; what an arm leaves open is theirs.
        incumbent: Has a model of its own at most.
        candidate: What is tried.
    """
    tried = Candidate(candidate.model, candidate.prompt, candidate.parameters, incumbent=True)
    parts = {
        MODEL: replace(tried, prompt=None, parameters={}),
        PROMPT: replace(tried, model=incumbent.model, parameters={}),
        PARAMETERS: replace(tried, model=incumbent.model, prompt=None),
    }
    decisions = [logged.decision for logged in batch.decisions]
    return {
        name: arm for name, arm in parts.items() if any(_asks(arm, one) != _asks(incumbent, one) for one in decisions)
    }


def _asks(arm: Candidate, decision: Decision) -> tuple[str, str, dict[str, Any]]:
    """Model, prompt and parameters that an arm asks a decision with."""
    prompt = decision.prompt_hash if arm.prompt is None else arm.prompt.hash
    return arm.model or decision.model_requested, prompt, {**decision.parameters_value(), **arm.parameters}


def default_repeats(decisions: int) -> int:
    """As many as give a small batch enough pairs to overcome the noise within its decisions."""
    return max(1, min(REPEATS_MAX, math.ceil(PAIRS_WANTED / max(1, decisions))))


def diagnosis_id(run_id: str) -> str:
    """What a diagnosis is named as in the ledger, and to the simulator's randomness: no run has that name."""
    return f"{run_id}.{PURPOSE}"


def too_small(asked: Diagnosing) -> str:
    """Why a batch that can make no alarm is not asked."""
    if not asked.batch.decisions:
        return "the candidate failed nothing that the baseline passed"
    needed = events_to_alarm(asked.limits.alpha)
    mend = "give a higher --max-calls" if asked.limits.calls_max else "give more --repeats"
    return f"{asked.bets} pairs are to be asked, and fewer than {needed} cannot make an alarm: {mend}"
