from math import inf, log

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.proportion import proportion_confint

from driftline.detectors import (
    BettingEProcess,
    StratumChange,
    events_needed,
    global_e_value,
    power_by_simulation,
    power_over_strata,
    smallest_detectable_change,
)

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


def test_one_stratum_alone_has_the_power_that_is_simulated_for_one() -> None:
    alone = power_by_simulation(0.3, 0.8, events=200, paths=2000, min_effect=0.02, weight=0.5, seed=47)
    over = power_over_strata([StratumChange(0.3, 0.8, 200)], paths=2000, min_effect=0.02, weight=0.5, seed=48)
    assert over.power == pytest.approx(alone.power, abs=4 * (alone.error + over.error))
    assert alone.median_events is not None
    assert over.median_events == pytest.approx(alone.median_events, rel=0.15)


@pytest.mark.parametrize("weight", [1.0, 0.5])
def test_several_strata_agree_with_running_their_processes_and_the_global_e_value(weight: float) -> None:
    strata = [StratumChange(0.5, 0.9, 40), StratumChange(0.2, 0.5, 80), StratumChange(0.3, 0.7, 30)]
    rng, alarms, paths = np.random.default_rng(49), 0, 200
    for _ in range(paths):
        processes, alarmed = [BettingEProcess() for _ in strata], False
        for index in rng.permutation(np.repeat(range(3), [stratum.events for stratum in strata])):
            share, majority = strata[index].discordant_share, strata[index].majority_share
            drawn = rng.random()
            processes[index].update(1.0 if drawn < share * majority else -1.0 if drawn < share else 0.0)
            alarmed |= global_e_value([weight * p.e_value + 1.0 - weight for p in processes]) >= 20
        alarms += alarmed
    low, high = proportion_confint(alarms, paths, alpha=0.001, method="beta")
    assert low <= power_over_strata(strata, weight=weight, paths=2000, seed=50).power <= high


def test_no_change_in_any_stratum_has_a_power_of_at_most_alpha() -> None:
    estimate = power_over_strata([StratumChange(0.3, 0.5, 40)] * 5, paths=1000, seed=51)
    assert estimate.power <= 0.05 + 3 * estimate.error
    assert estimate.median_events is None


def test_a_diffuse_change_of_fifty_strata_is_found_though_no_one_of_them_can_tell() -> None:
    together = power_over_strata([StratumChange(0.3, 0.75, 50)] * 50, paths=300, seed=52)
    alone = power_by_simulation(0.3, 0.75, events=50, strata=50, paths=300, seed=53)
    assert together.power > 0.7
    assert alone.power < 0.3


def test_a_stratum_that_did_not_change_costs_events() -> None:
    changed, unchanged = StratumChange(0.4, 0.9, 200), StratumChange(0.1, 0.5, 200)
    alone = power_over_strata([changed], paths=300, seed=54).median_events
    among = power_over_strata([changed, *[unchanged] * 4], paths=300, seed=54).median_events
    assert alone is not None
    assert among is not None
    assert among > 4 * alone


def test_the_smallest_detectable_change_is_found_with_the_power_asked_for_and_a_smaller_one_is_not() -> None:
    events = [100, 100]
    change = smallest_detectable_change(events, noise=0.1, paths=400, seed=55)
    assert change is not None
    powers = []
    for one in (change + 0.02, change - 0.03):
        strata = [StratumChange(0.1 + one, (0.05 + one) / (0.1 + one), 100)] * 2
        powers.append(power_over_strata(strata, paths=400, seed=56).power)
    assert powers[0] > 0.8 > powers[1]


def test_fewer_events_see_larger_changes_only_and_too_few_none() -> None:
    many = smallest_detectable_change([400, 400], noise=0.1, seed=57)
    few = smallest_detectable_change([40, 40], noise=0.1, seed=57)
    assert many is not None
    assert few is not None
    assert many < few
    assert smallest_detectable_change([3], noise=0.1, seed=57) is None
    assert smallest_detectable_change([0], noise=0.1, seed=57) is None


def test_one_seed_gives_one_estimate_over_strata() -> None:
    strata = [StratumChange(0.2, 0.8, 30)] * 3
    assert power_over_strata(strata, paths=300, seed=58) == power_over_strata(strata, paths=300, seed=58)


def test_plans_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="majority_share"):
        StratumChange(0.5, 0.4, 10)
    with pytest.raises(ValueError, match="events"):
        StratumChange(0.5, 0.9, -1)
    with pytest.raises(ValueError, match="strata at least 1"):
        power_over_strata([])
    with pytest.raises(ValueError, match="noise"):
        smallest_detectable_change([10], noise=1.0)
