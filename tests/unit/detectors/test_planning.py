from math import inf, log

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.proportion import proportion_confint

from driftline.detectors import BettingEProcess, events_needed, power_by_simulation

Shares = st.floats(0.01, 1.0)
Majorities = st.floats(0.55, 1.0)


def test_the_formula_gives_the_planned_figures() -> None:
    assert events_needed(0.5, 1.0) == pytest.approx((log(40) + 1) / (0.5 * log(2)))
    assert events_needed(0.5, 1.0, strata=10) == pytest.approx((log(400) + 1) / (0.5 * log(2)))
    assert events_needed(0.5, 0.5) == inf
    assert events_needed(0.0, 1.0) == inf


@given(Shares, Majorities)
def test_a_rarer_or_more_balanced_change_needs_more_events(share: float, majority: float) -> None:
    assert events_needed(share * 0.9, majority) > events_needed(share, majority)
    assert events_needed(share, (majority + 0.5) / 2) > events_needed(share, majority)


@pytest.mark.parametrize(("share", "majority"), [(0.55, 0.95), (0.3, 0.75), (0.1, 0.9)])
def test_the_formula_predicts_the_simulated_median_within_a_quarter(share: float, majority: float) -> None:
    predicted = events_needed(share, majority)
    simulated = power_by_simulation(share, majority, events=int(4 * predicted), paths=600, seed=41)
    assert simulated.median_events is not None
    assert simulated.median_events == pytest.approx(predicted, rel=0.25)


def test_the_simulation_agrees_with_running_the_process_itself() -> None:
    rng, alarms, paths = np.random.default_rng(42), 0, 300
    for _ in range(paths):
        process, alarmed = BettingEProcess(), False
        for d in rng.choice([1.0, -1.0, 0.0], p=[0.15, 0.05, 0.8], size=150):
            process.update(float(d))
            alarmed |= process.e_value >= 20
        alarms += alarmed
    low, high = proportion_confint(alarms, paths, alpha=0.001, method="beta")
    assert low <= power_by_simulation(0.2, 0.75, events=150, paths=2000, seed=43).power <= high


def test_no_change_has_a_power_of_at_most_alpha() -> None:
    estimate = power_by_simulation(0.3, 0.5, events=200, paths=1000, seed=44)
    assert estimate.power <= 0.05 + 3 * estimate.error
    assert estimate.median_events is None


def test_sharing_the_stratum_and_more_strata_cost_events() -> None:
    alone = power_by_simulation(0.4, 0.9, events=300, seed=45).median_events
    shared = power_by_simulation(0.4, 0.9, events=300, weight=0.5, strata=10, seed=45).median_events
    assert alone is not None
    assert shared is not None
    assert shared > alone


def test_one_seed_gives_one_estimate() -> None:
    assert power_by_simulation(0.2, 0.8, 50, seed=46) == power_by_simulation(0.2, 0.8, 50, seed=46)


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="majority_share"):
        events_needed(0.5, 0.4)
    with pytest.raises(ValueError, match="strata"):
        events_needed(0.5, 0.9, strata=0)
    with pytest.raises(ValueError, match="weight"):
        power_by_simulation(0.5, 0.9, 10, weight=0.0)
