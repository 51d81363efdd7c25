"""What a noise floor adds: is the candidate one of the incumbent's own runs, or does it differ more, or less?"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from driftline.detectors.betting import STAKES, BettingEProcess, log_mean_exp
from driftline.detectors.outcomes import ArmOutcome, Observation

VERDICT = "verdict"
# With fewer there is no pair of runs to rank the candidate with.
FLOOR_RUNS_MIN = 2


@dataclass(frozen=True, slots=True)
class FloorReading:
    """One event at one level, held against k runs of the incumbent.

    `rank` is the soft rank's E in [0, (k + 1) / 2], `excess` the excess mismatch in [-1, 1], `noise` the share of
    the pairs of runs that differ, in [0, 1]. If candidate and runs are exchangeable, they have means 1, 0, and the
    noise floor.
    """

    rank: float
    excess: float
    noise: float


AGREEMENT = FloorReading(rank=1.0, excess=0.0, noise=0.0)


def floor_reading(candidate: Hashable, floor: Sequence[Hashable]) -> FloorReading:
    """Return what one event says, its answers compared by equality; `floor` holds at least two.

    Raises:
        ValueError: `floor` holds fewer than two answers.
    """
    runs = len(floor)
    if runs < FLOOR_RUNS_MIN:
        raise ValueError(f"an excess needs at least {FLOOR_RUNS_MIN} runs of the incumbent, got {runs}")
    own = sum(candidate != answer for answer in floor)
    within = sum(one != other for index, one in enumerate(floor) for other in floor[:index])
    if not own and not within:
        return AGREEMENT
    noise = 2 * within / (runs * (runs - 1))
    return FloorReading(rank=(runs + 1) * own / (2 * (own + within)), excess=own / runs - noise, noise=noise)


def anchored_reading(baseline: Hashable, candidate: Hashable, run: Hashable) -> FloorReading:
    """Return what one event says where the incumbent has a single run A: the excess is D = 1[B != A] - 1[L != A].

    To exchange L and B turns its sign, whatever A is: if those two are exchangeable given the event, E[D | past] = 0,
    also where A is of another law, as after a drift of the environment. A single run has none to be ranked with.
    """
    own, noise = candidate != run, baseline != run
    if not own and not noise:
        return AGREEMENT
    return FloorReading(rank=1.0, excess=float(own) - float(noise), noise=float(noise))


def excess_mismatch(candidate: Hashable, floor: Sequence[Hashable]) -> float:
    """Return D = mean_j 1[B != F_j] - mean_{j<l} 1[F_j != F_l], in [-1, 1].

    If the candidate B and the runs F_j are exchangeable given the event, E[D | past] = 0. A candidate that spreads
    over more answers has a mean above 0, one that is sharper than the incumbent a mean below 0; other mismatch rates
    see neither.

    Raises:
        ValueError: `floor` holds fewer than two answers.
    """
    return floor_reading(candidate, floor).excess


def floor_readings(observation: Observation, planned: int = FLOOR_RUNS_MIN) -> Mapping[str, FloorReading] | None:
    """Return the reading of every level at which anything differs; a level left out is in agreement.

    None where fewer runs are there than a floor takes, which is two, or one where no more are `planned`: such an
    event has no floor.
    """
    baseline, candidate, floor = observation.baseline, observation.candidate, observation.floor
    if not floor or len(floor) < min(planned, FLOOR_RUNS_MIN):
        return None
    alone = planned < FLOOR_RUNS_MIN
    others, read = ((baseline, floor[0]), _beside_one) if alone else (floor, floor_reading)
    found = {VERDICT: read(candidate.accepted, [other.accepted for other in others])}
    for level in sorted(_levels(candidate, others)):
        found[level] = read(candidate.hashes.get(level), [other.hashes.get(level) for other in others])
    return {level: reading for level, reading in found.items() if reading is not AGREEMENT}


def _beside_one(candidate: Hashable, others: Sequence[Hashable]) -> FloorReading:
    baseline, run = others
    return anchored_reading(baseline, candidate, run)


class FloorEvidence:
    """Two e-processes for "the candidate is one more run of the incumbent", at one level and one paid call an event.

    The soft rank bets that the candidate is the odd one out; the excess mismatch bets on both signs, and so sees a
    candidate that varies less too. With `min_effect` m the null is wider: any law of the candidate's answer within
    total variation m of the incumbent's, given the event: E is divided by its largest mean then, 1 + m * (k + 1) / 2.

    Not guaranteed: anything if the runs were used to choose the events, or if one of them is the candidate.
    """

    __slots__ = ("_excess", "_log_rank", "_min_effect")

    def __init__(self, min_effect: float = 0.0) -> None:
        self._min_effect = min_effect
        self._log_rank = np.zeros(len(STAKES))
        self._excess = BettingEProcess(min_effect)

    @property
    def log_e_values(self) -> tuple[float, float]:
        """Natural logarithms of the current e-values of the soft rank and of the excess mismatch."""
        return float(log_mean_exp(self._log_rank)), self._excess.log_e_value

    def update(self, reading: FloorReading, runs: int) -> None:
        """Bet on one event that was held against `runs` runs of the incumbent."""
        if reading is AGREEMENT and not self._min_effect:
            return
        largest_mean = 1.0 + self._min_effect * (runs + 1) / 2
        self._log_rank += np.log1p(_STAKES * (reading.rank / largest_mean - 1.0))
        self._excess.update(reading.excess)


_STAKES = np.asarray(STAKES)


def _levels(candidate: ArmOutcome, others: Sequence[ArmOutcome]) -> set[str]:
    return set(candidate.hashes).union(*(other.hashes for other in others)) - {VERDICT}
