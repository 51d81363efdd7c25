"""Judging replay divergence: e-processes, confidence sequences and the sequential judge (numpy alone)."""

from driftline.detectors.betting import BettingEProcess, BettingEProcesses
from driftline.detectors.combine import e_bh, global_e_value
from driftline.detectors.intervals import MeanExceeds, betting_interval, mismatch_interval
from driftline.detectors.judge import SequentialJudge
from driftline.detectors.order import planned_order
from driftline.detectors.outcomes import (
    ArmOutcome,
    Decision,
    Interval,
    JudgeSummary,
    LevelSummary,
    Observation,
    StratumSummary,
)
from driftline.detectors.planning import PowerEstimate, events_needed, power_by_simulation
from driftline.detectors.rank import SoftRank
from driftline.detectors.swap import SwapLearner
from driftline.detectors.tally import Tally

__all__ = [
    "ArmOutcome",
    "BettingEProcess",
    "BettingEProcesses",
    "Decision",
    "Interval",
    "JudgeSummary",
    "LevelSummary",
    "MeanExceeds",
    "Observation",
    "PowerEstimate",
    "SequentialJudge",
    "SoftRank",
    "StratumSummary",
    "SwapLearner",
    "Tally",
    "betting_interval",
    "e_bh",
    "events_needed",
    "global_e_value",
    "mismatch_interval",
    "planned_order",
    "power_by_simulation",
]
