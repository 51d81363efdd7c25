"""Several e-values into one verdict, and into names."""

import math
from collections.abc import Sequence

import numpy as np

from driftline.detectors.betting import LOG_E_MAX, Floats, e_from_log, log_mean_exp


def e_bh(e_values: Sequence[float], alpha: float, k: int | None = None) -> list[int]:
    """Return the ascending indices of the hypotheses that e-BH rejects at false discovery rate `alpha`.

    Rejects the j largest e-values for the largest j with e_(j) >= k / (alpha * j). `k` is the number of
    hypotheses fixed when the run was planned; those not given have e = 1. Holds under any dependence.

    Not guaranteed: anything for running maxima. Pass the values at one stopping time.

    Source: Wang & Ramdas 2022.

    Raises:
        ValueError: `alpha` is outside (0, 1), `k` is smaller than the number of e-values, or one is negative.
    """
    values = _checked(e_values)
    total = _total(values, k)
    if not 0.0 < alpha < 1.0:
        raise ValueError(f"alpha must be in (0, 1), got {alpha}")
    ranked = np.argsort(-values, kind="stable")
    needed = total / (alpha * np.arange(1, values.size + 1))
    passing = np.flatnonzero(values[ranked] >= needed)
    rejected = ranked[: passing[-1] + 1] if passing.size else ranked[:0]
    return sorted(int(index) for index in rejected)


def global_e_value(e_values: Sequence[float], k: int | None = None) -> float:
    """Return one e-value for "nothing changed anywhere": half the mean plus half the product.

    The mean finds one stratum that changed much, the product a small change everywhere. `k` strata were
    planned; those not given have e = 1.

    Not guaranteed: validity of the product if two strata share an event. Average such e-values first.

    Raises:
        ValueError: `k` is smaller than the number of e-values, or one is negative or not a number.
    """
    values = _checked(e_values)
    with np.errstate(divide="ignore"):
        logs = np.minimum(np.log(values), LOG_E_MAX)
    return e_from_log(log_global_e_value(logs, _total(values, k)))


def log_weighted_mean(log_e_values: Sequence[float], weights: Sequence[float]) -> float:
    """The logarithm of a weighted mean of e-values, from logarithms; `weights` sum to 1, fixed beforehand."""
    top = max(log_e_values)
    pairs = zip(log_e_values, weights, strict=True)
    return top + math.log(sum(weight * math.exp(value - top) for value, weight in pairs))


def log_global_e_value(log_e_values: Floats, k: int) -> float:
    """The logarithm of `global_e_value`, from logarithms; `k` >= 1 and at least as many as are given."""
    padded = np.concatenate([log_e_values, np.zeros(k - log_e_values.size)])
    if not padded.size:
        return 0.0
    if np.all(np.isneginf(padded)):
        return -np.inf
    return float(log_mean_exp(np.array([log_mean_exp(padded), padded.sum()])))


def _checked(e_values: Sequence[float]) -> Floats:
    values = np.asarray(e_values, dtype=np.float64)
    if not np.all(values >= 0.0):
        raise ValueError("e-values must not be negative or NaN")
    return values


def _total(values: Floats, k: int | None) -> int:
    total = values.size if k is None else k
    if total < values.size:
        raise ValueError(f"k = {total} is smaller than the {values.size} e-values given")
    return total
