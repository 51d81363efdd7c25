from collections.abc import Callable
from random import Random
from statistics import median

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from driftline.detectors import SwapLearner
from driftline.detectors.features import NAMES_TOGETHER_MIN, _difference_by_name, hashed_difference

Features = dict[str, float]
Pair = tuple[Features, Features]
Numbers = st.sampled_from([0.0, 1.0]) | st.floats(-1e6, 1e6)
AnyFeatures = st.dictionaries(st.text(max_size=4), st.floats(-1e6, 1e6), max_size=6)


def one_hot(discount: float) -> Features:
    return {f"discount={discount}": 1.0}


def scaled(discount: float) -> Features:
    return {"discount": discount}


def both(discount: float) -> Features:
    return one_hot(discount) | scaled(discount)


def discordant_events_to_alarm(pairs: list[Pair]) -> float:
    learner, discordant = SwapLearner(), 0
    for baseline, candidate in pairs:
        discordant += baseline != candidate
        learner.update(baseline, candidate)
        if learner.e_value >= 20:
            return discordant
    return float("inf")


def noisy_shift(rng: np.random.Generator, coding: Callable[[float], Features], share: float) -> list[Pair]:
    """Both arms vary by themselves in 15 % of events; the candidate gives 25 % in a further `share` of them."""

    def answer() -> float:
        return float(rng.choice([0.05, 0.10, 0.15, 0.20, 0.25])) if rng.random() < 0.15 else 0.15

    pairs = []
    for _ in range(600):
        baseline, candidate = answer(), answer()
        pairs.append((coding(baseline), coding(0.25 if rng.random() < share else candidate)))
    return pairs


def exchangeable(rng: np.random.Generator, events: int) -> list[Pair]:
    """Answers that depend on the event and are noisy, alike in both arms: one-hot, scaled and correlated features."""
    pairs = []
    for _ in range(events):
        usual = rng.integers(4)
        first, second = (int(usual if rng.random() < 0.3 else rng.integers(4)) for _ in range(2))
        pairs.append(
            tuple({f"a={v}": 1.0, "v": v * 0.1, "v2": float(v * v), "w": rng.normal()} for v in (first, second))
        )
    return pairs  # type: ignore[return-value]


def test_exchangeable_answers_alarm_at_most_at_the_nominal_rate_when_peeked_at_always() -> None:
    rng, paths = np.random.default_rng(11), 1500
    alarms = sum(np.isfinite(discordant_events_to_alarm(exchangeable(rng, 60))) for _ in range(paths))
    assert alarms <= binom.ppf(0.999, paths, 0.05)


@pytest.mark.parametrize("coding", [one_hot, scaled, both])
def test_a_clean_shift_from_15_to_25_percent_alarms_within_ten_discordant_events(
    coding: Callable[[float], Features],
) -> None:
    assert discordant_events_to_alarm([(coding(0.15), coding(0.25))] * 30) <= 10


@pytest.mark.parametrize("coding", [one_hot, scaled, both])
def test_a_noisy_shift_from_15_to_25_percent_alarms_within_75_discordant_events(
    coding: Callable[[float], Features],
) -> None:
    """Two thirds of what differs is noise: a bettor who knew both laws beforehand would need some 35."""
    rng = np.random.default_rng(12)
    needed = [discordant_events_to_alarm(noisy_shift(rng, coding, 0.1)) for _ in range(40)]
    assert median(needed) <= 75


def test_the_unit_of_a_numeric_feature_does_not_matter() -> None:
    def run(unit: float) -> float:
        rng, learner = np.random.default_rng(13), SwapLearner()
        for _ in range(50):
            learner.update({"x": unit * rng.random()}, {"x": unit * (0.2 + rng.random())})
        return learner.log_e_value

    assert run(1.0) == pytest.approx(run(1024.0))


def test_a_bet_uses_nothing_of_the_event_it_is_on() -> None:
    learner = SwapLearner()
    learner.update(one_hot(0.15), one_hot(0.25))
    assert learner.e_value == 1.0


@given(st.lists(st.tuples(AnyFeatures, AnyFeatures), max_size=8), AnyFeatures, AnyFeatures)
def test_whatever_was_seen_the_next_bet_is_fair(past: list[Pair], one: Features, other: Features) -> None:
    now, swapped, before = SwapLearner(), SwapLearner(), SwapLearner()
    for baseline, candidate in past:
        for learner in (now, swapped, before):
            learner.update(baseline, candidate)
    now.update(one, other)
    swapped.update(other, one)
    assert (now.e_value + swapped.e_value) / 2 == pytest.approx(before.e_value, rel=1e-9)


@given(AnyFeatures, AnyFeatures)
def test_swapping_the_arms_negates_the_difference_exactly(one: Features, other: Features) -> None:
    coordinates, values = hashed_difference(one, other, 16)
    swapped_coordinates, swapped_values = hashed_difference(other, one, 16)
    assert coordinates.tolist() == swapped_coordinates.tolist()
    assert values.tolist() == (-swapped_values).tolist()


@settings(deadline=None)
@given(st.lists(st.tuples(Numbers, Numbers), min_size=NAMES_TOGETHER_MIN, max_size=40), st.randoms())
def test_many_names_looked_up_together_give_the_very_same_difference(
    values: list[tuple[float, float]], random: Random
) -> None:
    names = [f"feature-{number}" for number in range(len(values))]
    one = {name: before for name, (before, _) in zip(names, values, strict=True)}
    shuffled = random.sample(names, len(names))
    other = {name: dict(zip(names, values, strict=True))[name][1] for name in shuffled}
    together, by_name = hashed_difference(one, other, 16), _difference_by_name(one, other, 16)
    assert [part.tolist() for part in together] == [part.tolist() for part in by_name]


def test_features_with_places_of_their_own_are_learnt_like_named_ones() -> None:
    rng, named, placed = np.random.default_rng(15), SwapLearner(4096), SwapLearner(20)
    for _ in range(60):
        one, other = rng.normal(size=20), rng.normal(0.3, size=20) * (rng.random(20) < 0.5)
        named.update({f"f{i}": float(v) for i, v in enumerate(one)}, {f"f{i}": float(v) for i, v in enumerate(other)})
        placed.update_difference(other - one)
    assert placed.log_e_value == pytest.approx(named.log_e_value, rel=1e-9)
    assert placed.n == 60


def test_a_difference_of_another_shape_or_without_end_is_refused_and_changes_nothing() -> None:
    learner = SwapLearner(3)
    for wrong in ([1.0, 2.0], [1.0, 2.0, float("inf")], 1.0):
        with pytest.raises(ValueError, match="3 finite numbers"):
            learner.update_difference(wrong)
    assert learner.n == 0


def test_a_shift_smaller_than_the_smallest_effect_does_not_alarm() -> None:
    rng, paths, alarms = np.random.default_rng(14), 300, 0
    for _ in range(paths):
        learner, alarmed = SwapLearner(min_effect=0.1), False
        for moved in rng.random(200) < 0.1:
            learner.update(one_hot(0.15), one_hot(0.25 if moved else 0.15))
            alarmed |= learner.e_value >= 20
        alarms += alarmed
    assert alarms <= binom.ppf(0.999, paths, 0.05)


def test_a_feature_that_is_no_number_is_refused_among_many_too() -> None:
    many = {f"f{number:02}": 1.0 for number in range(NAMES_TOGETHER_MIN)}
    with pytest.raises(ValueError, match="'f03' is not a finite number"):
        SwapLearner().update(many, {**many, "f07": float("inf"), "f03": float("nan")})


def test_a_feature_that_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="'x' is not a finite number"):
        SwapLearner().update({"x": float("nan")}, {})


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="swap learner"):
        SwapLearner(0)
    with pytest.raises(ValueError, match="swap learner"):
        SwapLearner(rates=())
