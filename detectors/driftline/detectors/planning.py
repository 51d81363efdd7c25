"""What a replay will need, before anything is spent."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from driftline.detectors.betting import log_mean_exp, mixture_coefficients

# Paths simulated at a time, so that memory stays small for long plans.
PATHS_AT_A_TIME = 256


@dataclass(frozen=True, slots=True)
class PowerEstimate:
    """What a simulated plan gave: `power` with standard error `error`, and events at the alarm.

    `median_events` is over all paths, None when fewer than half of them alarm.
    """

    power: float
    error: float
    median_events: float | None


def events_needed(discordant_share: float, majority_share: float, alpha: float = 0.05, strata: int = 1) -> float:
    """Return the planned *median* number of events until one of `strata` strata is named.

    (ln(2K / alpha) + 1) / (q * (ln 2 - h(theta))): q is the share of events whose verdict differs between the arms,
    theta the share of those that point the commoner way, h the entropy in nats. Infinite where nothing drifts.

    Not guaranteed: a mean or a quantile; half of all runs take longer.

    Raises:
        ValueError: a share or `alpha` is outside its range, or `strata` is below 1.
    """
    check_shares(discordant_share, majority_share)
    check_test(alpha, strata)
    entropy = -sum(p * math.log(p) for p in (majority_share, 1.0 - majority_share) if p > 0.0)
    growth = discordant_share * (math.log(2.0) - entropy)
    return (math.log(2.0 * strata / alpha) + 1.0) / growth if growth > 0.0 else math.inf


def power_by_simulation(
    discordant_share: float,
    majority_share: float,
    events: int,
    *,
    alpha: float = 0.05,
    strata: int = 1,
    weight: float = 1.0,
    min_effect: float = 0.0,
    paths: int = 1000,
    seed: int = 0,
) -> PowerEstimate:
    """Simulate the two-sided signed e-process on `events` events of one stratum, and count its alarms.

    An alarm is weight * e + (1 - weight) >= strata / alpha at any event: `weight` is the share that the statistic has
    in its stratum's average, the others being taken as silent at 1.

    Not guaranteed: the power of other statistics; a real change may show in those first.

    Raises:
        ValueError: as `events_needed`; also `weight` outside (0, 1].
    """
    check_shares(discordant_share, majority_share)
    check_test(alpha, strata, weight)
    needed = math.log((strata / alpha - (1.0 - weight)) / weight)
    rng = np.random.default_rng(seed)
    up = discordant_share * majority_share
    stops: list[float] = []
    for start in range(0, paths, PATHS_AT_A_TIME):
        draws = rng.random((min(PATHS_AT_A_TIME, paths - start), events))
        differences = np.where(draws < up, 1.0, np.where(draws < discordant_share, -1.0, 0.0))
        stops.extend(_alarm_times(differences, needed, min_effect))
    return estimated(stops)


def _alarm_times(differences: np.ndarray, log_needed: float, min_effect: float) -> list[float]:
    coefficients = mixture_coefficients(min_effect)
    drag = np.abs(coefficients) * min_effect
    capital = np.zeros((differences.shape[0], coefficients.size))
    times = np.full(differences.shape[0], np.inf)
    for event, column in enumerate(differences.T, start=1):
        capital += np.log1p(np.outer(column, coefficients) - drag)
        alarmed = log_mean_exp(capital, axis=1) >= log_needed
        times[alarmed & np.isinf(times)] = event
    return [float(time) for time in times]


def estimated(stops: Sequence[float]) -> PowerEstimate:
    """Return what paths say that alarm after `stops` events, infinite where they do not."""
    power = float(np.mean(np.isfinite(stops)))
    median = float(np.quantile(stops, 0.5, method="inverted_cdf"))
    error = math.sqrt(power * (1.0 - power) / len(stops))
    return PowerEstimate(power, error, median if math.isfinite(median) else None)


def check_shares(discordant_share: float, majority_share: float) -> None:
    """Raise ValueError for shares outside their range."""
    if not 0.0 <= discordant_share <= 1.0 or not 0.5 <= majority_share <= 1.0:
        raise ValueError("discordant_share must be in [0, 1] and majority_share in [0.5, 1]")


def check_test(alpha: float, strata: int, weight: float = 1.0) -> None:
    """Raise ValueError for a test that cannot be."""
    if not 0.0 < alpha < 1.0 or strata < 1:
        raise ValueError("alpha must be in (0, 1) and strata at least 1")
    if not 0.0 < weight <= 1.0:
        raise ValueError(f"weight must be in (0, 1], got {weight}")
