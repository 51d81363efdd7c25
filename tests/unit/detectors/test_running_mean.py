from math import log, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import zeta
from scipy.stats import binom

from driftline.detectors import RunningMeanInterval, betting_interval
from driftline.detectors.bernstein import ETA, ZETA_S, S, stitched_boundary

PATHS, EVENTS = 400, 400


def ever_missed(means: np.ndarray, values: np.ndarray, alpha: float) -> bool:
    interval, targets = RunningMeanInterval(alpha), np.cumsum(means) / np.arange(1, len(means) + 1)
    for value, target in zip(values.tolist(), targets.tolist(), strict=True):
        interval.update(value)
        low, high = interval.interval
        if not low <= target <= high:
            return True
    return False


def signs(rng: np.random.Generator, means: np.ndarray) -> np.ndarray:
    return np.where(rng.random(means.shape) < (1 + means) / 2, 1.0, -1.0)


@pytest.mark.parametrize("alpha", [0.05, 0.5])
def test_means_that_drift_are_covered_at_every_event_as_often_as_promised(alpha: float) -> None:
    rng = np.random.default_rng(101)
    phases = rng.random((PATHS, 1))
    means = np.sin(2 * np.pi * (phases + np.arange(EVENTS) / EVENTS))
    missed = sum(map(ever_missed, means, signs(rng, means), [alpha] * PATHS))
    assert missed <= binom.ppf(0.999, PATHS, alpha)


def test_means_that_follow_the_past_are_covered_as_often_as_promised() -> None:
    """Each mean leans away from the last value: the sequence depends on itself, as a log does."""
    rng, missed = np.random.default_rng(102), 0
    for _ in range(PATHS):
        means, values = np.zeros(EVENTS), np.zeros(EVENTS)
        for event in range(EVENTS):
            means[event] = 0.3 - 0.6 * values[event - 1] if event else 0.0
            values[event] = 1.0 if rng.random() < (1 + means[event]) / 2 else -1.0
        missed += ever_missed(means, values, 0.05)
    assert missed <= binom.ppf(0.999, PATHS, 0.05)


def test_a_drift_that_a_sequence_for_one_mean_denies_is_covered() -> None:
    """Half of the values are 1 and then half are -1: no single mean explains them, and the mean so far is near 0."""
    values = [1.0] * 300 + [-1.0] * 300
    interval = RunningMeanInterval()
    for value in values:
        interval.update(value)
    assert interval.interval[0] <= 0.0 <= interval.interval[1]
    assert betting_interval(values)[0] > 0.0


def test_the_boundary_grows_as_the_law_of_the_iterated_logarithm() -> None:
    limit = sqrt(S) * (ETA**0.25 + ETA**-0.25) / sqrt(2)
    ratios = [stitched_boundary(v, 0.025) / sqrt(v * log(log(v))) for v in (1e4, 1e6, 1e9, 1e12, 1e15)]
    assert ratios == sorted(ratios, reverse=True)
    assert limit < ratios[-1] < 1.5 * limit
    assert pytest.approx(zeta(S), rel=1e-12) == ZETA_S


def test_the_interval_shrinks_as_the_root_of_the_number_of_events() -> None:
    interval, widths = RunningMeanInterval(), {}
    for event, value in enumerate(signs(np.random.default_rng(103), np.zeros(50_000)).tolist(), start=1):
        interval.update(value)
        if event in (500, 5000, 50_000):
            low, high = interval.interval
            widths[event] = high - low
    # Faster than the root of 10 at first, while the terms of lower order fade.
    assert widths[5000] < widths[500] / sqrt(10) * 1.05
    assert widths[50_000] < widths[5000] / sqrt(10) * 1.05
    assert widths[50_000] < 0.05


def test_values_that_hardly_vary_give_a_narrower_interval() -> None:
    widths = []
    for spread in (1.0, 0.1):
        interval = RunningMeanInterval()
        for value in signs(np.random.default_rng(104), np.zeros(2000)).tolist():
            interval.update(0.5 * spread * value)
        widths.append(interval.interval[1] - interval.interval[0])
    assert widths[1] < widths[0] / 3


@given(st.lists(st.floats(0.0, 10.0), max_size=30))
def test_bounds_scale_the_interval_and_hold_it(values: list[float]) -> None:
    wide, unit = RunningMeanInterval(bounds=(0.0, 10.0)), RunningMeanInterval(bounds=(0.0, 1.0))
    assert wide.interval == (0.0, 10.0)
    for value in values:
        wide.update(value)
        unit.update(value / 10.0)
        low, high = wide.interval
        assert wide.mean is not None
        assert 0.0 <= low <= wide.mean * (1 + 1e-12)
        assert wide.mean * (1 - 1e-12) <= high <= 10.0
    assert wide.interval == pytest.approx([10.0 * end for end in unit.interval], abs=1e-9)
    assert wide.n == len(values)


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="alpha"):
        RunningMeanInterval(alpha=1.0)
    with pytest.raises(ValueError, match="bounds"):
        RunningMeanInterval(bounds=(1.0, 1.0))
    interval = RunningMeanInterval()
    with pytest.raises(ValueError, match="a value must be within"):
        interval.update(1.5)
    assert interval.n == 0
