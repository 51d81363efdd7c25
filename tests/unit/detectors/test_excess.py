from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from driftline.detectors import ArmOutcome, FloorEvidence, Observation, excess_mismatch, floor_reading
from driftline.detectors.excess import anchored_reading, floor_readings
from driftline.detectors.rank import rank_e_value

Answers = st.lists(st.sampled_from("abc"), min_size=2, max_size=5)


@given(st.sampled_from("abc"), Answers)
def test_the_excess_is_how_much_more_often_the_candidate_differs_than_the_runs_do(
    candidate: str, floor: list[str]
) -> None:
    own = np.mean([candidate != answer for answer in floor])
    within = np.mean([one != other for one, other in combinations(floor, 2)])
    reading = floor_reading(candidate, floor)
    assert reading.excess == excess_mismatch(candidate, floor) == pytest.approx(own - within)
    assert reading.noise == pytest.approx(within)
    assert reading.rank == pytest.approx(rank_e_value(candidate, floor))


@given(st.lists(st.sampled_from("abc"), min_size=3, max_size=6))
def test_whichever_of_exchangeable_answers_is_the_candidate_its_mean_excess_is_0_and_its_mean_rank_1(
    answers: list[str],
) -> None:
    readings = [floor_reading(answers[i], answers[:i] + answers[i + 1 :]) for i in range(len(answers))]
    assert np.mean([reading.excess for reading in readings]) == pytest.approx(0.0, abs=1e-12)
    assert np.mean([reading.rank for reading in readings]) == pytest.approx(1.0)


def test_spreading_has_an_excess_above_0_and_sharpening_below() -> None:
    assert excess_mismatch("b", ["a", "a", "a"]) == 1.0
    assert excess_mismatch("a", ["a", "a", "b", "b"]) < 0.0


def test_one_run_is_no_floor() -> None:
    with pytest.raises(ValueError, match="at least 2 runs"):
        floor_reading("a", ["a"])


def test_a_run_of_the_incumbent_alarms_at_most_at_the_nominal_rate_whenever_one_looks() -> None:
    rng, paths, alarms = np.random.default_rng(91), 400, [0, 0]
    for _ in range(paths):
        evidence, top = FloorEvidence(), [0.0, 0.0]
        for _ in range(120):
            answers = rng.choice(3, p=[0.7, 0.2, 0.1], size=4).tolist()
            evidence.update(floor_reading(answers[0], answers[1:]), runs=3)
            top = [max(pair) for pair in zip(top, evidence.log_e_values, strict=True)]
        alarms = [count + (best >= np.log(20)) for count, best in zip(alarms, top, strict=True)]
    assert max(alarms) <= binom.ppf(0.999, paths, 0.05)


def test_a_law_within_the_smallest_effect_of_the_incumbents_alarms_at_most_at_the_nominal_rate() -> None:
    """The worst of them: every answer of the incumbent is alike, and the candidate's another one at that rate."""
    rng, paths, alarms = np.random.default_rng(92), 300, 0
    for _ in range(paths):
        evidence, top = FloorEvidence(min_effect=0.2), 0.0
        for _ in range(120):
            evidence.update(floor_reading("ab"[rng.random() < 0.2], ["a", "a", "a"]), runs=3)
            top = max(top, *evidence.log_e_values)
        alarms += top >= np.log(20)
    assert alarms <= binom.ppf(0.999, paths, 0.05)


@given(st.integers(0, 2), st.integers(0, 2), st.integers(0, 2))
def test_beside_a_single_run_to_exchange_the_arms_turns_the_sign_whatever_the_run_is(
    baseline: int, candidate: int, run: int
) -> None:
    one, other = anchored_reading(baseline, candidate, run), anchored_reading(candidate, baseline, run)
    assert one.excess == -other.excess
    assert (one.rank, one.noise) == (1.0, float(baseline != run))


def test_an_event_that_lost_all_runs_but_one_of_several_has_no_floor() -> None:
    arm = ArmOutcome(1.0, {}, {})
    observation = Observation("s", arm, arm, (arm,))
    assert floor_readings(observation, planned=3) is None
    assert floor_readings(observation, planned=1) == {}
