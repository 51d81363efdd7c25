from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from driftline.detectors import BettingEProcesses, e_bh, global_e_value

EValues = st.lists(st.sampled_from([0.0, 0.5, 1.0, 7.0, 20.0, 39.0, 40.0, 60.0, 100.0, 1e9]), max_size=8)


def e_bh_by_brute_force(e_values: list[float], alpha: float, k: int) -> set[int]:
    """The largest set all of whose e-values are at least k / (alpha * its size)."""
    for size in range(len(e_values), 0, -1):
        for chosen in combinations(range(len(e_values)), size):
            if all(e_values[i] >= k / (alpha * size) for i in chosen):
                return set(chosen)
    return set()


@given(EValues, st.integers(0, 5), st.sampled_from([0.05, 0.1]))
def test_e_bh_names_the_largest_self_consistent_set(e_values: list[float], unseen: int, alpha: float) -> None:
    k = len(e_values) + unseen
    assert set(e_bh(e_values, alpha, k)) == e_bh_by_brute_force(e_values, alpha, k)


@given(EValues, st.randoms())
def test_e_bh_does_not_depend_on_the_order_of_strata(e_values: list[float], random: object) -> None:
    order = list(range(len(e_values)))
    random.shuffle(order)  # type: ignore[attr-defined]
    shuffled = e_bh([e_values[i] for i in order], 0.05)
    assert sorted(order[i] for i in shuffled) == e_bh(e_values, 0.05)


def test_e_bh_keeps_the_false_discovery_rate_with_true_changes_among_the_strata() -> None:
    rng, proportions = np.random.default_rng(31), []
    for _ in range(400):
        processes = BettingEProcesses(20)
        uniform = rng.random((20, 60))
        up = np.where(np.arange(20) < 10, 0.95, 0.5)[:, None]
        for column in np.where(uniform < 0.5 * up, 1.0, np.where(uniform < 0.5, -1.0, 0.0)).T:
            processes.update(np.arange(20), column)
        named = e_bh(processes.e_values.tolist(), 0.05)
        proportions.append(sum(i >= 10 for i in named) / max(len(named), 1))
    assert np.mean(proportions) <= 0.05


@given(EValues, st.integers(0, 5))
def test_the_global_e_value_is_half_the_mean_and_half_the_product(e_values: list[float], unseen: int) -> None:
    k = len(e_values) + unseen
    padded = [*e_values, *[1.0] * unseen]
    expected = (np.mean(padded) + np.prod(padded)) / 2 if padded else 1.0
    assert global_e_value(e_values, k) == pytest.approx(expected)


def test_the_global_e_value_survives_overflow_and_zero() -> None:
    assert np.isfinite(global_e_value([1e300, 1e300, float("inf")]))
    assert global_e_value([0.0, 0.0]) == 0.0


def test_a_small_change_everywhere_is_found_where_the_mean_alone_is_blind() -> None:
    rng, by_both, by_mean = np.random.default_rng(32), 0, 0
    for _ in range(100):
        processes = BettingEProcesses(50)
        up = 0.5 + rng.choice([-0.25, 0.25], size=(50, 1))
        uniform = rng.random((50, 30))
        for column in np.where(uniform < 0.3 * up, 1.0, np.where(uniform < 0.3, -1.0, 0.0)).T:
            processes.update(np.arange(50), column)
        by_both += global_e_value(processes.e_values.tolist()) >= 20
        by_mean += processes.e_values.mean() >= 20
    assert by_both > 2 * by_mean


def test_the_global_e_value_of_unchanged_strata_alarms_at_most_at_the_nominal_rate() -> None:
    rng, paths, alarms = np.random.default_rng(33), 400, 0
    for _ in range(paths):
        processes, alarmed = BettingEProcesses(5), False
        for _ in range(100):
            processes.update([int(rng.integers(5))], [float(rng.choice([-1.0, 1.0]))])
            alarmed |= global_e_value(processes.e_values.tolist()) >= 20
        alarms += alarmed
    assert alarms <= binom.ppf(0.999, paths, 0.05)


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="negative"):
        e_bh([-1.0], 0.05)
    with pytest.raises(ValueError, match="NaN"):
        global_e_value([float("nan")])
    with pytest.raises(ValueError, match="smaller"):
        global_e_value([1.0, 1.0], k=1)
    with pytest.raises(ValueError, match="alpha"):
        e_bh([1.0], 1.0)
