"""Whether a sum of verdicts is a random walk: how its variance between runs grows with its length."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from driftline.detectors.betting import Floats
from driftline.detectors.outcomes import Interval

SlopeVerdict = Literal["independent calls", "whole-run shifts", "cannot tell"]

WINDOWS_MIN = 4
"""Windows of the largest size."""
SIZES_MIN = 3
"""Points that a slope is fitted to."""
NOISY_A_WINDOW_MIN = 2
"""Events whose runs differ in a largest window, on average: where they stand alone, every slope is 1."""
PERMUTATIONS = 400
"""Of the run labels, event by event."""
ROUNDING = 1e-12
"""What a mean of thirds and fifths may be off by; no mean of verdicts is so small."""
SLOPE_BETWEEN = 1.5
"""Half way from independent calls (1) to shifts of whole runs (2)."""


@dataclass(frozen=True, slots=True)
class Slope:
    """How the variance of a sum of t verdicts grows with t: slope of log Var y(t) against log t.

    1 where calls are independent, towards 2 where whole runs shift.

    Attributes:
        slope: Over windows small enough that there are several of them.
        interval: As wide as slopes spread where run labels are permuted event by event. It holds 1 with a chance of
            exactly 1 - alpha where calls are independent; further up it is only a guide.
        run_ratio: Variance of the sums over all events, which are one window, against what independent calls would
            give: 1 for those. A small shift shows here before it bends the slope.
        run_ratio_max: What that ratio stays below with a chance of 1 - alpha / 2, by the same permutations.
        verdict: `whole-run shifts` where the slope is above 1 or the ratio above its bound, each at alpha / 2.
        sizes: Of the windows.
        variances: Of their sums.
    """

    slope: float
    interval: Interval
    run_ratio: float
    run_ratio_max: float
    verdict: SlopeVerdict
    sizes: tuple[int, ...]
    variances: tuple[float, ...]


def variance_growth(verdicts: Floats, alpha: float, seed: int) -> Slope | None:
    """How Var y(t) grows with t; None where too few events vary for that. Windows double in size.

    Args:
        verdicts: Of events in log order that every run answered; shape (events, runs).
        alpha: Of the interval, and bound on reading independent calls as shifts of whole runs.
        seed: Of the permutations.
    """
    sizes = tuple(2**power for power in range((len(verdicts) // WINDOWS_MIN).bit_length()))
    if len(sizes) < SIZES_MIN:
        return None
    deviations = verdicts - verdicts.mean(axis=1, keepdims=True)
    noisy = int((np.abs(deviations) > ROUNDING).any(axis=1).sum())
    if noisy < NOISY_A_WINDOW_MIN * (len(verdicts) // sizes[-1]):
        return None
    rng = np.random.default_rng(seed)
    shuffled = (rng.permuted(deviations, axis=1) for _ in range(PERMUTATIONS))
    null = np.array([(_fitted(_variances(one, sizes)), _run_ratio(one)) for one in shuffled])
    low, high = np.quantile(null[:, 0], [alpha / 2, 1.0 - alpha / 2]).tolist()
    variances, ratio = _variances(deviations, sizes), _run_ratio(deviations)
    slope, ratio_max = _fitted(variances), float(np.quantile(null[:, 1], 1.0 - alpha / 2))
    interval = slope + 1.0 - high, slope + 1.0 - low
    verdict = _slope_verdict(interval, ratio > ratio_max)
    return Slope(slope, interval, ratio, ratio_max, verdict, sizes, tuple(variances.tolist()))


def _variances(deviations: Floats, sizes: Sequence[int]) -> Floats:
    """Mean variance between runs of the sums over the disjoint windows of each size; shape (sizes,)."""
    events, runs = deviations.shape
    kept = deviations[: events - events % sizes[-1]]
    sums = [kept.reshape(-1, size, runs).sum(axis=1) for size in sizes]
    return np.array([(one**2).sum(axis=1).mean() / (runs - 1) for one in sums])


def _run_ratio(deviations: Floats) -> float:
    return float((deviations.sum(axis=0) ** 2).sum() / (deviations**2).sum())


def _fitted(variances: Floats) -> float:
    """Slope of the least-squares line through log variance against log size, sizes doubling."""
    logs = np.log2(np.maximum(variances, ROUNDING))
    steps = np.arange(logs.size) - (logs.size - 1) / 2
    return float((logs * steps).sum() / (steps**2).sum())


def _slope_verdict(interval: Interval, runs_differ: bool) -> SlopeVerdict:
    if interval[0] > 1.0 or runs_differ:
        return "whole-run shifts"
    return "independent calls" if 1.0 <= interval[1] < SLOPE_BETWEEN else "cannot tell"
