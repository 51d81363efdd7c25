"""Judging replay divergence: e-processes, confidence sequences and the sequential judge (numpy alone)."""

from driftline.detectors.adaptive import Standing, next_stratum
from driftline.detectors.bernstein import RunningMeanInterval
from driftline.detectors.betting import BettingEProcess, BettingEProcesses
from driftline.detectors.combine import e_bh, global_e_value
from driftline.detectors.diagnosis import Advice, Cause, Diagnosis, FailingBatch, Moved, advise, cause_of
from driftline.detectors.edetector import EDetector
from driftline.detectors.excess import FloorEvidence, FloorReading, excess_mismatch, floor_reading
from driftline.detectors.intervals import MeanExceeds, betting_interval, mismatch_interval
from driftline.detectors.judge import SequentialJudge
from driftline.detectors.mmd import MmdEProcess, SpreadEProcess, mmd_statistic, spread_difference
from driftline.detectors.order import planned_order
from driftline.detectors.outcomes import (
    ArmOutcome,
    Decision,
    Interval,
    JudgeSummary,
    LevelSummary,
    Noise,
    Observation,
    StratumSummary,
)
from driftline.detectors.planning import PowerEstimate, events_needed, power_by_simulation
from driftline.detectors.rank import SoftRank, SoftRanks
from driftline.detectors.reliability import Decomposition, Reliability, RepeatedEvent, decompose
from driftline.detectors.strata_planning import StratumChange, power_over_strata, smallest_detectable_change
from driftline.detectors.swap import SwapLearner
from driftline.detectors.tally import Tally
from driftline.detectors.walk import Slope

__all__ = [
    "Advice",
    "ArmOutcome",
    "BettingEProcess",
    "BettingEProcesses",
    "Cause",
    "Decision",
    "Decomposition",
    "Diagnosis",
    "EDetector",
    "FailingBatch",
    "FloorEvidence",
    "FloorReading",
    "Interval",
    "JudgeSummary",
    "LevelSummary",
    "MeanExceeds",
    "MmdEProcess",
    "Moved",
    "Noise",
    "Observation",
    "PowerEstimate",
    "Reliability",
    "RepeatedEvent",
    "RunningMeanInterval",
    "SequentialJudge",
    "Slope",
    "SoftRank",
    "SoftRanks",
    "SpreadEProcess",
    "Standing",
    "StratumChange",
    "StratumSummary",
    "SwapLearner",
    "Tally",
    "advise",
    "betting_interval",
    "cause_of",
    "decompose",
    "e_bh",
    "events_needed",
    "excess_mismatch",
    "floor_reading",
    "global_e_value",
    "mismatch_interval",
    "mmd_statistic",
    "next_stratum",
    "planned_order",
    "power_by_simulation",
    "power_over_strata",
    "smallest_detectable_change",
    "spread_difference",
]
