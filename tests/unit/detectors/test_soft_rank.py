import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from driftline.detectors import SoftRank, SoftRanks
from driftline.detectors.rank import BASELINES_TABLED_MAX, rank_e_value

Events = st.integers(1, 6).flatmap(
    lambda k: st.lists(
        st.tuples(st.integers(0, 3), st.lists(st.integers(0, 4), min_size=k + 1, max_size=k + 1)),
        min_size=1,
        max_size=20,
    )
)


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


@given(Events)
def test_many_strata_at_once_equal_one_by_one(fed: list[tuple[int, list[int]]]) -> None:
    single = [SoftRank() for _ in range(4)]
    for stratum, (candidate, *baselines) in fed:
        single[stratum].update(candidate, baselines)
    by_answers, by_e_values = SoftRanks(4), SoftRanks(4)
    strata = [stratum for stratum, _ in fed]
    by_answers.update(strata, [answers for _, answers in fed])
    by_e_values.update_e_values(strata, [rank_e_value(answers[0], answers[1:]) for _, answers in fed])
    for together in (by_answers, by_e_values):
        assert together.log_e_values == pytest.approx([process.log_e_value for process in single], abs=1e-12)
        assert together.n.tolist() == [process.n for process in single]
    assert by_answers.e_values == pytest.approx(np.exp(by_answers.log_e_values))


def test_more_baselines_than_are_tabled_give_the_same_capital() -> None:
    answers = np.random.default_rng(73).integers(3, size=(20, BASELINES_TABLED_MAX + 2))
    together, single = SoftRanks(1), SoftRank()
    together.update([0] * len(answers), answers)
    for candidate, *baselines in answers.tolist():
        single.update(candidate, baselines)
    assert together.log_e_values[0] == pytest.approx(single.log_e_value)


def test_strata_of_exchangeable_answers_alarm_at_most_at_the_nominal_rate_when_peeked_at_always() -> None:
    rng, paths = np.random.default_rng(74), 4000
    processes, alarmed = SoftRanks(paths), np.zeros(paths, dtype=bool)
    for _ in range(200):
        answers = np.where(rng.random((paths, 5)) < 0.3, rng.integers(1, 4, size=(paths, 5)), 0)
        processes.update(np.arange(paths), answers)
        alarmed |= processes.log_e_values >= np.log(20)
    assert alarmed.mean() <= binom.ppf(0.999, paths, 0.05) / paths


def test_answers_that_are_no_codes_and_e_values_that_cannot_be_are_refused_and_change_nothing() -> None:
    processes = SoftRanks(2)
    with pytest.raises(ValueError, match="integer codes"):
        processes.update([0], [[0.5, 1.0]])
    with pytest.raises(ValueError, match="baseline"):
        processes.update([0], [[1]])
    with pytest.raises(ValueError, match="equally long"):
        processes.update([0, 1], [[1, 2]])
    with pytest.raises(IndexError):
        processes.update([2], [[1, 2]])
    for wrong in (-0.1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="finite number that is not negative"):
            processes.update_e_values([0], [wrong])
    assert processes.n.tolist() == [0, 0]
