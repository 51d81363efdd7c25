from math import log

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from driftline.detectors import BettingEProcess, BettingEProcesses
from driftline.detectors.betting import STAKES

PATHS, EVENTS = 4000, 300

Differences = st.lists(st.floats(-1.0, 1.0), max_size=40)


def share_alarmed(draws: np.ndarray, *, min_effect: float = 0.0, two_sided: bool = True) -> float:
    """The share of paths (rows of `draws`) whose e-value ever reaches 20, peeked at after every event."""
    processes = BettingEProcesses(len(draws), min_effect, two_sided)
    alarmed = np.zeros(len(draws), dtype=bool)
    for column in draws.T:
        processes.update(np.arange(len(draws)), column)
        alarmed |= processes.log_e_values >= log(20)
    return float(alarmed.mean())


def nominal(paths: int = PATHS) -> float:
    return float(binom.ppf(0.999, paths, 0.05)) / paths


def flips(discordant: float, up: float, seed: int) -> np.ndarray:
    uniform = np.random.default_rng(seed).random((PATHS, EVENTS))
    return np.where(uniform < discordant * up, 1.0, np.where(uniform < discordant, -1.0, 0.0))


@pytest.mark.parametrize("discordant", [0.03, 0.2, 1.0])
def test_exchangeable_flips_alarm_at_most_at_the_nominal_rate_when_peeked_at_always(discordant: float) -> None:
    assert share_alarmed(flips(discordant, 0.5, seed=1)) <= nominal()


def test_skewed_differences_of_mean_zero_alarm_at_most_at_the_nominal_rate() -> None:
    rare = np.random.default_rng(2).random((PATHS, EVENTS)) < 0.1
    assert share_alarmed(np.where(rare, 0.9, -0.1)) <= nominal()


def test_a_drift_just_as_large_as_the_smallest_effect_does_not_alarm() -> None:
    assert share_alarmed(flips(0.2, 0.75, seed=3), min_effect=0.1) <= nominal()


def test_a_one_sided_process_never_rewards_the_other_direction() -> None:
    assert share_alarmed(flips(0.4, 0.25, seed=4), two_sided=False) <= 0.01


def test_drifts_well_beyond_the_smallest_effect_alarm_in_both_directions() -> None:
    assert share_alarmed(flips(0.5, 0.95, seed=5), min_effect=0.1) > 0.99
    assert share_alarmed(flips(0.5, 0.05, seed=6), min_effect=0.1) > 0.99


@given(Differences, st.sampled_from([0.0, 0.03, 0.5]), st.booleans())
def test_the_e_value_is_the_mixture_that_the_method_defines(
    differences: list[float], min_effect: float, two_sided: bool
) -> None:
    process = BettingEProcess(min_effect, two_sided)
    for d in differences:
        process.update(d)
    fed = np.array(differences)
    stakes = [stake / (1 + min_effect) for stake in STAKES]
    capitals = [np.prod(1 + stake * (fed - min_effect)) for stake in stakes]
    if two_sided:
        capitals += [np.prod(1 + stake * (-fed - min_effect)) for stake in stakes]
    assert process.e_value == pytest.approx(np.mean(capitals), rel=1e-9)
    assert process.n == len(differences)


@given(
    st.lists(st.tuples(st.integers(0, 3), st.sampled_from([-1.0, 0.0, 1.0]) | st.floats(-1, 1)), max_size=40),
    st.sampled_from([0.0, 0.1]),
)
def test_many_at_once_equal_one_by_one(fed: list[tuple[int, float]], min_effect: float) -> None:
    single = [BettingEProcess(min_effect) for _ in range(4)]
    for stratum, d in fed:
        single[stratum].update(d)
    together = BettingEProcesses(4, min_effect)
    together.update([stratum for stratum, _ in fed], [d for _, d in fed])
    assert together.e_values == pytest.approx([process.e_value for process in single])
    assert together.n.tolist() == [process.n for process in single]


@given(st.permutations(range(6)), st.lists(st.floats(-1, 1), min_size=6, max_size=6))
def test_a_batch_of_different_strata_may_come_in_any_order(strata: list[int], differences: list[float]) -> None:
    shuffled, sorted_ = BettingEProcesses(6), BettingEProcesses(6)
    shuffled.update(strata, differences)
    sorted_.update(range(6), [differences[strata.index(stratum)] for stratum in range(6)])
    assert shuffled.log_e_values.tolist() == sorted_.log_e_values.tolist()


def test_verdicts_are_counted_and_cost_no_logarithm_until_one_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    processes, taken, real = BettingEProcesses(3), [], np.log1p

    def counting(values: np.ndarray) -> np.ndarray:
        taken.append(values.size)
        return np.asarray(real(values))

    monkeypatch.setattr(np, "log1p", counting)
    for _ in range(50):
        processes.update([0, 1, 2], [1.0, 0.0, -1.0])
    assert sum(taken) == 0
    processes.update([0, 1, 2] * 40, [0.5, 0.25, 0.5] * 40)
    assert sum(taken) == 2 * 2 * len(STAKES)
    assert processes.e_values[1] > 1.0


def test_the_e_value_starts_at_one_and_is_kept_finite() -> None:
    process = BettingEProcess()
    assert process.e_value == 1.0
    for _ in range(5000):
        process.update(1.0)
    assert np.isfinite(process.e_value)
    assert process.log_e_value > 3000


@pytest.mark.parametrize("d", [1.0000001, -2.0, float("nan")])
def test_a_difference_out_of_range_is_refused_and_changes_nothing(d: float) -> None:
    process, processes = BettingEProcess(), BettingEProcesses(1)
    with pytest.raises(ValueError, match="difference"):
        process.update(d)
    with pytest.raises(ValueError, match="difference"):
        processes.update([0], [d])
    assert process.n == 0
    assert processes.n.tolist() == [0]


def test_unknown_strata_and_unequal_lengths_are_refused() -> None:
    with pytest.raises(IndexError):
        BettingEProcesses(2).update([-1], [0.5])
    with pytest.raises(ValueError, match="equally long"):
        BettingEProcesses(2).update([0, 1], [0.5])
    with pytest.raises(ValueError, match="min_effect"):
        BettingEProcess(min_effect=1.0)
