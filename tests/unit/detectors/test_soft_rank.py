import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from driftline.detectors import SoftRank
from driftline.detectors.rank import rank_e_value


@given(st.lists(st.integers(0, 3), min_size=2, max_size=6))
def test_over_all_places_that_the_candidate_could_have_e_has_mean_one(answers: list[int]) -> None:
    each = [rank_e_value(answer, answers[:i] + answers[i + 1 :]) for i, answer in enumerate(answers)]
    assert np.mean(each) == pytest.approx(1.0)
    assert max(each) <= len(answers) / 2


def test_a_noisy_candidate_like_its_baselines_alarms_at_most_at_the_nominal_rate() -> None:
    rng, paths, alarms = np.random.default_rng(71), 400, 0
    for _ in range(paths):
        process, alarmed = SoftRank(), False
        for usual in rng.integers(3, size=60):
            noise = rng.random(5) < 0.3
            answers = np.where(noise, rng.integers(3, size=5), usual).tolist()
            process.update(answers[0], answers[1:])
            alarmed |= process.e_value >= 20
        alarms += alarmed
    assert alarms <= binom.ppf(0.999, paths, 0.05)


def test_a_small_excess_over_the_noise_floor_alarms() -> None:
    rng, process = np.random.default_rng(72), SoftRank()
    for _ in range(500):
        answers = (rng.random(5) < 0.05).tolist()
        process.update("new" if rng.random() < 0.06 else answers[0], answers[1:])
    assert process.e_value >= 20
    assert process.n == 500


def test_where_all_agree_nothing_is_learnt() -> None:
    process = SoftRank()
    process.update("a", ["a", "a"])
    assert process.e_value == 1.0


def test_without_a_baseline_there_is_no_rank() -> None:
    with pytest.raises(ValueError, match="baseline"):
        SoftRank().update("a", [])
