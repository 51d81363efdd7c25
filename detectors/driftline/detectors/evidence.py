"""The e-processes and the equivalence watch of one stratum."""

from collections.abc import Mapping, Sequence

import numpy as np

from driftline.detectors.betting import BettingEProcess, Floats, log_mean_exp
from driftline.detectors.intervals import MeanExceeds
from driftline.detectors.outcomes import ArmOutcome, Observation
from driftline.detectors.swap import SwapLearner

EXIT_LEVELS = ("verdict", "action", "state")


def clipped(value: float) -> float:
    """Return `value` held within [0, 1]."""
    return min(max(value, 0.0), 1.0)


def signed_differences(observation: Observation, indicators: Sequence[str]) -> list[float]:
    """Candidate minus baseline for the verdict and then for each indicator, held within [0, 1] in each arm."""
    baseline, candidate = observation.baseline, observation.candidate
    differences = [candidate.accepted - baseline.accepted]
    for name in indicators:
        before = clipped(baseline.features.get(name, 0.0))
        differences.append(clipped(candidate.features.get(name, 0.0)) - before)
    return differences


class StratumEvidence:
    """E-processes of the exit levels of one stratum, each level an average with weights fixed at construction.

    Verdict: the signed difference. Action: half the swap learner on `features`, half the mean over the signed
    indicators (all of it the learner where there are none). State: the swap learner on `state`.
    """

    __slots__ = ("_action", "_indicators", "_levels", "_state", "_verdict")

    def __init__(self, levels: Sequence[str], indicators: int, min_effect: float) -> None:
        self._levels = tuple(levels)
        self._verdict = BettingEProcess(min_effect)
        self._action = SwapLearner(min_effect=min_effect)
        self._indicators = [BettingEProcess(min_effect) for _ in range(indicators)]
        self._state = SwapLearner(min_effect=min_effect)

    def update(self, observation: Observation, differences: Sequence[float]) -> None:
        """Bet on one event; `differences` as `signed_differences` gives them."""
        self._verdict.update(differences[0])
        for process, difference in zip(self._indicators, differences[1:], strict=True):
            process.update(difference)
        baseline, candidate = observation.baseline, observation.candidate
        if "action" in self._levels:
            self._action.update(baseline.features, candidate.features)
        if "state" in self._levels:
            self._state.update(_state_features(baseline), _state_features(candidate))

    def log_e_values(self) -> Floats:
        """Logarithms of the current e-values; shape (levels,)."""
        return np.array([self._log_e_value(level) for level in self._levels])

    def _log_e_value(self, level: str) -> float:
        if level == "verdict":
            return self._verdict.log_e_value
        if level == "state":
            return self._state.log_e_value
        if not self._indicators:
            return self._action.log_e_value
        signed = float(log_mean_exp(np.array([process.log_e_value for process in self._indicators])))
        return float(log_mean_exp(np.array([self._action.log_e_value, signed])))


class EquivalenceWatch:
    """Whether the intervals of several mean differences all lie inside +-delta, updated event by event.

    Agrees with `betting_interval(..., alpha, population)` at every event, in memory that does not grow; once inside,
    always inside, because the intervals only shrink. A stratum with a population of 0 is inside from the start.
    """

    __slots__ = ("_sides",)

    def __init__(self, statistics: int, delta: float, alpha: float, population: int) -> None:
        threshold = (1.0 - delta) / 2
        self._sides = [
            (MeanExceeds(threshold, alpha / 2, population), MeanExceeds(threshold, alpha / 2, population))
            for _ in range(statistics)
        ]

    @property
    def inside(self) -> bool:
        """Whether every interval lies inside +-delta."""
        return all(above.shown and below.shown for above, below in self._sides)

    def update(self, differences: Sequence[float]) -> None:
        """Take the differences of one event, each in [-1, 1]."""
        for (above, below), difference in zip(self._sides, differences, strict=True):
            above.update((1.0 + difference) / 2)
            below.update((1.0 - difference) / 2)


def _state_features(outcome: ArmOutcome) -> Mapping[str, float]:
    if outcome.state is not None:
        return outcome.state
    return {outcome.hashes["state"]: 1.0} if "state" in outcome.hashes else {}
