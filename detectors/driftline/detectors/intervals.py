"""Betting confidence sequences: how much, valid at whatever moment the reading stops."""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from driftline.detectors.betting import Floats, log_mean_exp

# Stakes as shares of the largest stake that a hypothesised mean admits, mixed with equal weights.
SHARES: tuple[float, ...] = (0.01, 0.02, 0.04, 0.07, 0.12, 0.2, 0.3, 0.45, 0.6, 0.8, 0.95)

# The end points are found to within this share of the width of the bounds.
END_POINT_TOLERANCE = 1e-5

# Sums of thousands of doubles are compared with this slack, in units of the bounds' width.
SUM_SLACK = 1e-9


def betting_interval(
    differences: ArrayLike,
    alpha: float = 0.05,
    population: int | None = None,
    bounds: tuple[float, float] = (-1.0, 1.0),
    running: bool = True,
) -> tuple[float, float]:
    """Return a 1 - alpha confidence interval for the mean, as a confidence sequence at its end.

    The interval is valid wherever the reading stopped and however that was decided. `running` intersects it with
    those at every earlier moment: narrower, and it may exclude the mean of the values at hand. Without it, that mean
    always lies inside. Without `population` the mean is E[x_i | past], the same for all i.
    With `population=N` the values are the first draws, in random order and without replacement, from N values
    whose mean is wanted; at `len(differences) == N` the interval is that mean.

    Not guaranteed: an unbiased centre; simultaneity over several intervals; coverage if the draws are whole
    workflows of several correlated records (then it is approximate).

    Source: Waudby-Smith & Ramdas 2024, "Estimating means of bounded random variables by betting", sections 4
    and 5, with a fixed mixture in place of the predictable plug-in.

    Raises:
        ValueError: a value lies outside `bounds`, `alpha` outside (0, 1), or more values than `population`.
    """
    low, high = bounds
    values = np.asarray(differences, dtype=np.float64)
    if not 0.0 < alpha < 1.0:
        raise ValueError(f"alpha must be in (0, 1), got {alpha}")
    if not low < high or not np.all((values >= low) & (values <= high)):
        raise ValueError(f"every value must lie within the bounds {bounds}")
    if population is not None and values.size > population:
        raise ValueError(f"{values.size} values are more than the population of {population}")
    if not values.size:
        return (low, high)
    unit = (values - low) / (high - low)
    lower = _lower_end(unit, alpha / 2, population, running)
    upper = 1.0 - _lower_end(1.0 - unit, alpha / 2, population, running)
    # The intersection can be empty (with a chance of at most alpha): then the gap between the ends is returned.
    lower, upper = min(lower, upper), max(lower, upper)
    return (low + (high - low) * lower, low + (high - low) * upper)


def mismatch_interval(
    mismatches: ArrayLike, alpha: float = 0.05, population: int | None = None, running: bool = True
) -> tuple[float, float]:
    """`betting_interval` for a rate: values are 1 where the arms differ and 0 where they agree."""
    return betting_interval(mismatches, alpha, population, bounds=(0.0, 1.0), running=running)


class MeanExceeds:
    """Whether a mean is shown to exceed `threshold`, one value at a time and in memory that does not grow.

    `shown` is True from the moment at which the lower end of `betting_interval` at level 2 * `alpha` is at least
    `threshold`; it never turns back. Values and threshold are in [0, 1]; `population` as there.
    """

    __slots__ = ("_log_capital", "_log_needed", "_n", "_population", "_sum", "_threshold", "shown")

    def __init__(self, threshold: float, alpha: float, population: int | None = None) -> None:
        self._threshold = threshold
        self._log_needed = math.log(1.0 / alpha)
        self._population = population
        self._log_capital = np.zeros(len(SHARES))
        self._n, self._sum = 0, 0.0
        self.shown = threshold <= 0.0 or population == 0

    def update(self, value: float) -> None:
        """Take one value in [0, 1]."""
        if self.shown:
            return
        mean = self._threshold
        if self._population is not None:
            mean = (self._population * self._threshold - self._sum) / (self._population - self._n)
        self._n, self._sum = self._n + 1, self._sum + value
        if mean < 1.0:
            self._log_capital += np.log1p(_SHARES * (value / mean - 1.0))
            self.shown = float(log_mean_exp(self._log_capital)) >= self._log_needed
        if self._population is not None:
            left = self._population * self._threshold - self._sum
            self.shown = self.shown or left <= SUM_SLACK * self._population


_SHARES = np.asarray(SHARES)


def _lower_end(unit: Floats, alpha: float, population: int | None, running: bool) -> float:
    """The largest mean in [0, 1] that is rejected as too small; every smaller one is rejected too."""
    low, high = 0.0, 1.0
    if population is not None:
        low = float(unit.sum()) / population
        high = low + (population - unit.size) / population
    whole = population is None and not running
    log_capital = _unordered(unit) if whole else _ordered(unit, population, running)
    log_needed = math.log(1.0 / alpha)
    while high - low > END_POINT_TOLERANCE:
        middle = (low + high) / 2
        if log_capital(middle) >= log_needed:
            low = middle
        else:
            high = middle
    return low


def _remaining_mean(unit: Floats, population: int | None) -> tuple[Floats, Floats]:
    """Coefficients (a, b): if the mean is m, the i-th draw has mean a_i + b_i * m given the draws before."""
    if population is None:
        return np.zeros(unit.size), np.ones(unit.size)
    left = population - np.arange(unit.size, dtype=np.float64)
    before = np.concatenate([[0.0], np.cumsum(unit)[:-1]])
    return -before / left, population / left


def _ordered(unit: Floats, population: int | None, running: bool) -> Callable[[float], float]:
    """The log capital of betting that the values exceed a mean: the largest ever reached, or that at the end."""
    offset, weight = _remaining_mean(unit, population)

    def log_capital(mean: float) -> float:
        logs = np.log1p(np.outer(_SHARES, unit / (offset + weight * mean) - 1.0))
        if not running:
            return float(log_mean_exp(logs.sum(axis=1)))
        return float(np.max(log_mean_exp(np.cumsum(logs, axis=1), axis=0)))

    return log_capital


def _unordered(unit: Floats) -> Callable[[float], float]:
    """The same at the end, where order does not count: thousands of flips are three values and their counts."""
    values, counts = np.unique(unit, return_counts=True)

    def log_capital(mean: float) -> float:
        return float(log_mean_exp(np.log1p(np.outer(_SHARES, values / mean - 1.0)) @ counts))

    return log_capital
