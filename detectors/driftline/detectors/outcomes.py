"""What the judge is told about an event, and what it says in the end."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Decision = Literal["diverged", "equivalent"]
Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class ArmOutcome:
    """One arm's answer to one event, after the real parser and verifier.

    `accepted` is the verdict in [0, 1]. `features` describe the action (one-hot as `{"action=refund": 1.0}`, numbers
    in any unit). `hashes` maps a level to the hash of the answer at that level; a level absent from both arms counts
    as agreement, absent from one as mismatch. `state` describes the state after the event, by default one-hot by
    `hashes["state"]`; `level_features` what an answer is at any further level, by default one-hot by its hash.

    Raises:
        ValueError: `accepted` is outside [0, 1], or a feature is not a finite number.
    """

    accepted: float
    features: Mapping[str, float]
    hashes: Mapping[str, str]
    state: Mapping[str, float] | None = None
    level_features: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0.0 <= self.accepted <= 1.0:
            raise ValueError(f"accepted must be in [0, 1], got {self.accepted}")
        for features in (self.features, self.state or {}, *self.level_features.values()):
            for name, value in features.items():
                if not math.isfinite(value):
                    raise ValueError(f"feature {name!r} is not a finite number")


@dataclass(frozen=True, slots=True)
class Observation:
    """An event judged in pairs: the baseline's outcome and the candidate's, in one stratum ("boundary/stream").

    `floor` holds what runs of the incumbent answered to the same event: what the candidate would be one of, had
    nothing changed.
    """

    stratum: str
    baseline: ArmOutcome
    candidate: ArmOutcome
    floor: tuple[ArmOutcome, ...] = ()


@dataclass(frozen=True, slots=True)
class Noise:
    """The noise floor at one level: how often runs of the incumbent differ from one another.

    `mismatch` is the mean over `events` (those with at least two runs) of the share of pairs of runs that differ,
    `excess` the mean of how much more often the candidate differs from the runs than they do from one another; each
    with its interval for the mean over events of this kind.
    """

    events: int
    mismatch: float
    interval: Interval
    excess: float
    excess_interval: Interval


@dataclass(frozen=True, slots=True)
class LevelSummary:
    """One level over all events that were read; a rate, change or flip is None where the level is not the verdict.

    `interval` is for the net change of the verdict, for any other level for the share of events that differ; it is
    over everything read, `interval_at_stop` over what had been read at the decision. Both are for the mean over
    events of this kind, so a plan that was read whole keeps its width: the next week is not the last one. `decides`
    says whether the level's `e_value` counts for the decision; it is None for a level that the judge does not know.
    Shares are None as long as nothing was read, `noise` where no event had a floor.
    """

    level: str
    events: int
    mismatch: float | None
    baseline_rate: float | None
    candidate_rate: float | None
    change: float | None
    change_at_stop: float | None
    interval: Interval
    interval_at_stop: Interval
    flips_down: int | None
    flips_up: int | None
    e_value: float | None
    decides: bool = True
    noise: Noise | None = None


@dataclass(frozen=True, slots=True)
class StratumSummary:
    """One level of one stratum; fields as in `LevelSummary`. `named` says that e-BH rejects it at the stop."""

    stratum: str
    level: str
    events: int
    events_at_stop: int
    e_value: float | None
    named: bool
    change: float | None
    change_at_stop: float | None
    mismatch: float | None
    interval: Interval
    interval_at_stop: Interval
    decides: bool = True
    noise: Noise | None = None


@dataclass(frozen=True, slots=True)
class JudgeSummary:
    """The whole of a judgement. `decision` None means that the evidence did not suffice: inconclusive, never equal.

    `events` were read, `events_at_stop` of them before the decision. `note` limits what the decision means.
    """

    decision: Decision | None
    note: str
    e_value: float
    events: int
    events_at_stop: int
    levels: tuple[LevelSummary, ...]
    strata: tuple[StratumSummary, ...]
