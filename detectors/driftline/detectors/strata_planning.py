"""What a replay of several strata will need, before anything is spent."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from driftline.detectors.betting import Floats, log_mean_exp, mixture_coefficients
from driftline.detectors.planning import PATHS_AT_A_TIME, PowerEstimate, check_shares, check_test, estimated

# Numbers held at a time, so that memory stays small for long plans of many strata: 32 MB.
CELLS_AT_A_TIME = 4_000_000
# The smallest detectable change is told in steps of one hundredth.
CHANGE_STEPS = 100


@dataclass(frozen=True, slots=True)
class StratumChange:
    """What is assumed of one stratum: shares as in `events_needed`, and how many of its events are planned.

    Raises:
        ValueError: a share is outside its range, or `events` is negative.
    """

    discordant_share: float
    majority_share: float
    events: int

    def __post_init__(self) -> None:
        check_shares(self.discordant_share, self.majority_share)
        if self.events < 0:
            raise ValueError(f"events must not be negative, got {self.events}")


def power_over_strata(
    strata: Sequence[StratumChange],
    *,
    alpha: float = 0.05,
    weight: float = 1.0,
    min_effect: float = 0.0,
    paths: int = 1000,
    seed: int = 0,
) -> PowerEstimate:
    """Simulate the two-sided signed e-process in several strata, and count the alarms of all together.

    The e-value of a stratum is weight * e + (1 - weight), as in `power_by_simulation`; over the strata half the mean
    and half the product is taken, as `global_e_value` does, and an alarm is 1 / alpha at any event. Events come as a
    random permutation of all. Changes of opposite direction count alike, because the process is two-sided.
    `median_events` counts the events of all strata.

    Not guaranteed: the power of other statistics; that a stratum is named, which needs more events than the alarm.

    Raises:
        ValueError: there is no stratum, or `alpha` or `weight` is out of its range.
    """
    check_test(alpha, len(strata), weight)
    rng = np.random.default_rng(seed)
    events = sum(stratum.events for stratum in strata)
    cells = max(events, len(strata) * mixture_coefficients().size)
    block = min(PATHS_AT_A_TIME, max(1, CELLS_AT_A_TIME // cells))
    stops: list[float] = []
    for start in range(0, paths, block):
        stops.extend(_stops_over_strata(strata, min(block, paths - start), alpha, weight, min_effect, rng))
    return estimated(stops)


def smallest_detectable_change(
    events: Sequence[int],
    noise: float,
    *,
    power: float = 0.8,
    alpha: float = 0.05,
    weight: float = 1.0,
    min_effect: float = 0.0,
    paths: int = 200,
    seed: int = 0,
) -> float | None:
    """Return the smallest net change of the acceptance rate that is found with a chance of `power`, in hundredths.

    All strata, of `events[i]` events each, change alike; `noise` is the share of verdicts that differ with nothing
    changed, half of them each way. None where even the largest change is not found.

    Not guaranteed: the last hundredth. It is found by bisection over simulations with a standard error of
    sqrt(power * (1 - power) / paths) each.

    Raises:
        ValueError: as `power_over_strata`; also `noise` outside [0, 1) or `power` outside (0, 1).
    """
    if not 0.0 <= noise < 1.0 or not 0.0 < power < 1.0:
        raise ValueError("noise must be in [0, 1) and power in (0, 1)")

    def found(step: int) -> bool:
        change = step / CHANGE_STEPS
        discordant = min(1.0, noise + change)
        majority = (noise / 2 + change) / (noise + change)
        strata = [StratumChange(discordant, majority, count) for count in events]
        simulated = power_over_strata(
            strata, alpha=alpha, weight=weight, min_effect=min_effect, paths=paths, seed=seed
        )
        return simulated.power >= power

    low, high = 0, int((1.0 - noise) * CHANGE_STEPS + 1e-9)
    if high < 1 or not found(high):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if found(middle) else (middle, high)
    return high / CHANGE_STEPS


def _stops_over_strata(
    strata: Sequence[StratumChange],
    paths: int,
    alpha: float,
    weight: float,
    min_effect: float,
    rng: np.random.Generator,
) -> list[float]:
    """After how many events each path alarms; infinite where it does not."""
    labels, differences = _draw(strata, paths, rng)
    capital = _StrataCapital(paths, len(strata), weight, min_effect)
    times = np.full(paths, np.inf)
    for event in range(labels.shape[1]):
        betting = np.isinf(times)
        if not min_effect:
            # Without a smallest effect a difference of 0 wins and loses nothing.
            betting &= differences[:, event] != 0
        moved = np.flatnonzero(betting)
        e_values = capital.bet(moved, labels[moved, event], differences[moved, event])
        times[moved[e_values >= 1.0 / alpha]] = event + 1
    return [float(time) for time in times]


def _draw(
    strata: Sequence[StratumChange], paths: int, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int8]]:
    """The stratum and the difference of every event; shape (paths, events) each."""
    in_turn = np.repeat(np.arange(len(strata)), [stratum.events for stratum in strata])
    labels = rng.permuted(np.tile(in_turn, (paths, 1)), axis=1)
    discordant = np.array([stratum.discordant_share for stratum in strata])
    up = discordant * [stratum.majority_share for stratum in strata]
    draws = rng.random(labels.shape)
    differences = (draws < up[labels]).astype(np.int8)
    differences[(draws >= up[labels]) & (draws < discordant[labels])] = -1
    return labels, differences


class _StrataCapital:
    """Capital of many paths over many strata, with mean and product of their e-values kept up to date."""

    def __init__(self, paths: int, strata: int, weight: float, min_effect: float) -> None:
        coefficients = mixture_coefficients(min_effect)
        drag = np.abs(coefficients) * min_effect
        self._rows = np.log1p(np.outer([-1.0, 0.0, 1.0], coefficients) - drag)
        self._capital = np.zeros((paths, strata, coefficients.size))
        self._log_e = np.zeros((paths, strata))
        self._sum = np.full(paths, float(strata))
        self._log_product = np.zeros(paths)
        self._weight = weight

    def bet(self, paths: NDArray[np.int64], labels: NDArray[np.int64], differences: NDArray[np.int8]) -> Floats:
        """Bet on one event of each of these paths and return its global e-value.

        A path that alarmed is not fed again, so that no e-value comes near the largest double.
        """
        self._capital[paths, labels] += self._rows[differences + 1]
        own = log_mean_exp(self._capital[paths, labels], axis=1)
        log_e = np.log(self._weight * np.exp(own) + (1.0 - self._weight))
        before = self._log_e[paths, labels]
        self._log_e[paths, labels] = log_e
        self._sum[paths] += np.exp(log_e) - np.exp(before)
        self._log_product[paths] += log_e - before
        mean = self._sum[paths] / self._log_e.shape[1]
        return np.asarray((mean + np.exp(self._log_product[paths])) / 2, dtype=np.float64)
