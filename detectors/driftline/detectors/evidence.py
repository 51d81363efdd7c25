"""The e-processes and the equivalence watch of one stratum."""

from collections.abc import Mapping, Sequence

import numpy as np

from driftline.detectors.betting import BettingEProcess, Floats, log_mean_exp
from driftline.detectors.combine import log_weighted_mean
from driftline.detectors.excess import AGREEMENT, VERDICT, FloorEvidence, FloorReading
from driftline.detectors.intervals import MeanExceeds
from driftline.detectors.outcomes import ArmOutcome, Observation
from driftline.detectors.swap import SwapLearner

EXIT_LEVELS = ("verdict", "action", "state")
LEVELS = ("bytes", "canonical", "arguments", "action", "verdict", "state")

# Shares of a level's e-value that its own statistic (signed, swap learner), soft rank and excess mismatch have where
# there is a floor. A statistic with share w needs ln(1 / w) / growth more events than alone. None of the three is
# said to be likelier than the others, so they share alike: a strong change of a rate pays ln 3, less than two
# discordant events, and gets it back from the two others, which see it as well; small drifts are seen by soft rank
# and excess alone, and a candidate that is sharper than the incumbent by the excess alone.
FLOOR_WEIGHTS = (1 / 3, 1 / 3, 1 / 3)


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
    """E-processes of all levels of one stratum, each level an average with weights fixed at construction.

    Verdict: the signed difference. Action: half the swap learner on `features`, half the mean over the signed
    indicators (all of it the learner where there are none). Any other: the swap learner on what describes that level.
    With a floor this is `FLOOR_WEIGHTS[0]` of the level, and soft rank and excess mismatch have the rest.
    """

    __slots__ = ("_floor", "_indicators", "_learners", "_verdict")

    def __init__(self, indicators: int, min_effect: float, floor: bool = False) -> None:
        self._verdict = BettingEProcess(min_effect)
        self._learners = {level: SwapLearner(min_effect=min_effect) for level in LEVELS if level != VERDICT}
        self._indicators = [BettingEProcess(min_effect) for _ in range(indicators)]
        self._floor = {level: FloorEvidence(min_effect) for level in LEVELS} if floor else {}

    def update(
        self,
        observation: Observation,
        differences: Sequence[float],
        readings: Mapping[str, FloorReading] | None = None,
    ) -> None:
        """Bet on one event; `differences` as `signed_differences` gives them, `readings` as `floor_readings` does.

        An event without a floor leaves soft ranks and excesses as they are.
        """
        self._verdict.update(differences[0])
        for process, difference in zip(self._indicators, differences[1:], strict=True):
            process.update(difference)
        baseline, candidate = observation.baseline, observation.candidate
        for level, learner in self._learners.items():
            learner.update(_features(baseline, candidate, level), _features(candidate, baseline, level))
        if readings is not None:
            for level, evidence in self._floor.items():
                evidence.update(readings.get(level, AGREEMENT), len(observation.floor))

    def log_e_values(self, levels: Sequence[str]) -> Floats:
        """Logarithms of the current e-values of `levels`, which are some of `LEVELS`; shape (levels,)."""
        return np.array([self._log_e_value(level) for level in levels])

    def _log_e_value(self, level: str) -> float:
        own = self._own(level)
        if level not in self._floor:
            return own
        return log_weighted_mean((own, *self._floor[level].log_e_values), FLOOR_WEIGHTS)

    def _own(self, level: str) -> float:
        if level == VERDICT:
            return self._verdict.log_e_value
        learnt = self._learners[level].log_e_value
        if level != "action" or not self._indicators:
            return learnt
        signed = float(log_mean_exp(np.array([process.log_e_value for process in self._indicators])))
        return float(log_mean_exp(np.array([learnt, signed])))


class EquivalenceWatch:
    """Whether the intervals of several mean differences all lie inside +-delta, updated event by event.

    Agrees with `betting_interval(..., alpha, population)` at every event, in memory that does not grow; once inside,
    always inside, because the intervals only shrink. A stratum with a population of 0 is inside from the start.
    Of `excesses` further means the upper end alone has to lie below delta: less noise than there was is no harm.
    """

    __slots__ = ("_excesses", "_sides")

    def __init__(self, statistics: int, delta: float, alpha: float, population: int, excesses: int = 0) -> None:
        threshold = (1.0 - delta) / 2
        self._sides = [
            (MeanExceeds(threshold, alpha / 2, population), MeanExceeds(threshold, alpha / 2, population))
            for _ in range(statistics)
        ]
        self._excesses = [MeanExceeds(threshold, alpha / 2, population) for _ in range(excesses)]

    @property
    def inside(self) -> bool:
        """Whether every interval lies inside +-delta, and every excess below delta."""
        shown = all(above.shown and below.shown for above, below in self._sides)
        return shown and all(below.shown for below in self._excesses)

    def update(self, differences: Sequence[float], excesses: Sequence[float] | None = None) -> None:
        """Take the differences of one event, each in [-1, 1]; `excesses` is None where the event has no floor.

        An excess that was not measured stays unknown: it is never taken for small.
        """
        for (above, below), difference in zip(self._sides, differences, strict=True):
            above.update((1.0 + difference) / 2)
            below.update((1.0 - difference) / 2)
        if excesses is not None:
            for below, excess in zip(self._excesses, excesses, strict=True):
                below.update((1.0 - excess) / 2)


_NOTHING: Mapping[str, float] = {}


def _features(of: ArmOutcome, other: ArmOutcome, level: str) -> Mapping[str, float]:
    """What describes an answer at a level; nothing where both arms agree there, for nothing is to be learnt."""
    if level == "action":
        return of.features
    own = of.hashes.get(level)
    if level == "state" and of.state is not None:
        return of.state
    if own == other.hashes.get(level):
        return _NOTHING
    if level in of.level_features:
        return of.level_features[level]
    return {} if own is None else {own: 1.0}
