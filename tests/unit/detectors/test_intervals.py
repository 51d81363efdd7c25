from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from driftline.detectors import MeanExceeds, betting_interval, mismatch_interval
from driftline.detectors.intervals import SHARES

Flips = st.lists(st.sampled_from([-1.0, -0.25, 0.0, 1.0]), min_size=1, max_size=60)
PATHS = 600


def missed(covered: list[bool]) -> int:
    return len(covered) - sum(covered)


def nominal() -> float:
    return float(binom.ppf(0.999, PATHS, 0.05))


@pytest.mark.parametrize(("down", "up"), [(0.05, 0.05), (0.5, 0.02), (0.01, 0.0)])
def test_the_interval_covers_the_mean_at_every_stopping_time(down: float, up: float) -> None:
    rng, covered = np.random.default_rng(21), []
    for _ in range(PATHS):
        draws = rng.choice([-1.0, 0.0, 1.0], p=[down, 1 - down - up, up], size=200)
        low, high = betting_interval(draws)  # the intersection over all times: outside once is outside now
        covered.append(low <= up - down <= high)
    assert missed(covered) <= nominal()


@pytest.mark.parametrize("read", [50, 190])
def test_without_replacement_the_interval_covers_the_mean_of_the_population(read: int) -> None:
    rng, covered = np.random.default_rng(22), []
    population = np.repeat([-1.0, 0.0, 1.0], [60, 120, 20])
    for _ in range(PATHS):
        low, high = betting_interval(rng.permutation(population)[:read], population=200)
        covered.append(low <= -0.2 <= high)
    assert missed(covered) <= nominal()


def test_rates_near_zero_are_covered() -> None:
    rng, covered = np.random.default_rng(23), []
    for _ in range(PATHS):
        low, high = mismatch_interval(rng.random(300) < 0.02)
        covered.append(low <= 0.02 <= high)
    assert missed(covered) <= nominal()


@given(Flips)
def test_a_population_read_whole_leaves_no_doubt(values: list[float]) -> None:
    low, high = betting_interval(values, population=len(values))
    assert (low, high) == pytest.approx((np.mean(values), np.mean(values)), abs=1e-4)


@given(Flips, st.sampled_from([None, 60, 100]))
def test_reading_on_never_widens_the_interval(values: list[float], population: int | None) -> None:
    ends = [betting_interval(values[:n], population=population) for n in range(len(values) + 1)]
    for (low, high), (next_low, next_high) in pairwise(ends):
        if next_low < next_high - 1e-3:
            assert next_low >= low - 1e-4
            assert next_high <= high + 1e-4


@given(Flips, st.sampled_from([None, 60]))
def test_the_ends_are_where_the_capital_reaches_its_threshold(values: list[float], population: int | None) -> None:
    low, _ = betting_interval(values, population=population)

    def best(mean: float) -> float:
        capitals, top, total = np.ones(len(SHARES)), 0.0, 0.0
        for n, value in enumerate(values):
            expected = mean if population is None else (population * mean - total) / (population - n)
            capitals = capitals * (1 + np.array(SHARES) * (value / expected - 1))
            top, total = max(top, capitals.mean()), total + value
        return float(top)

    values = [(value + 1) / 2 for value in values]
    at = (low + 1) / 2
    logical = 0.0 if population is None else sum(values) / population
    if at > logical + 1e-3:
        assert best(at - 1e-4) >= 40 * 0.999
    if at < 1 - 1e-3 and (population is None or at + 1e-4 < logical + 1 - len(values) / population):
        assert best(at + 1e-4) <= 40 * 1.001


@given(Flips, st.sampled_from([None, 60, 61, 200]), st.floats(-0.9, 0.9))
def test_event_by_event_the_same_is_shown_as_by_the_interval(
    values: list[float], population: int | None, threshold: float
) -> None:
    test = MeanExceeds((1 + threshold) / 2, alpha=0.025, population=population)
    for n, value in enumerate(values, start=1):
        test.update((1 + value) / 2)
        low, high = betting_interval(values[:n], population=population)
        if abs(low - threshold) > 1e-3 and high - low > 1e-3:
            assert test.shown == (low > threshold)


def test_five_hundred_equal_verdicts_leave_less_than_five_points() -> None:
    low, high = betting_interval(np.zeros(500))
    assert -0.05 < low < 0 < high < 0.05


def test_validity_at_every_time_costs_less_than_half_the_width_of_a_normal_interval_at_one_time() -> None:
    draws = np.random.default_rng(24).choice([-1.0, 0.0, 1.0], p=[0.15, 0.75, 0.1], size=500)
    low, high = betting_interval(draws)
    assert (high - low) / 2 < 1.5 * 1.96 * draws.std() / 500**0.5


def test_before_the_first_value_nothing_is_known() -> None:
    assert betting_interval([]) == (-1.0, 1.0)
    assert mismatch_interval([], population=10) == (0.0, 1.0)


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="bounds"):
        betting_interval([1.5])
    with pytest.raises(ValueError, match="bounds"):
        mismatch_interval([-1.0])
    with pytest.raises(ValueError, match="bounds"):
        betting_interval([float("nan")])
    with pytest.raises(ValueError, match="population"):
        betting_interval([0.0, 0.0], population=1)
    with pytest.raises(ValueError, match="alpha"):
        betting_interval([0.0], alpha=0.0)


@given(st.lists(st.sampled_from([-1.0, 0.0, 0.25, 1.0]), min_size=1, max_size=60))
def test_the_mean_at_hand_lies_in_the_interval_that_is_shown(values: list[float]) -> None:
    low, high = betting_interval(values, running=False)
    mean = sum(values) / len(values)
    assert low - 1e-4 <= mean <= high + 1e-4
    assert low <= betting_interval(values)[0] + 1e-9
