from math import inf
from statistics import mean, median

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftline.detectors import BettingEProcess, EDetector

ALPHA = 0.02
EVENTS_MAX = 2000
QUIET = 500


def flips(rng: np.random.Generator, discordant: float, up: float, events: int) -> list[float]:
    uniform = rng.random(events)
    drawn = np.where(uniform < discordant * up, 1.0, np.where(uniform < discordant, -1.0, 0.0))
    return [float(d) for d in drawn]


def run_length(differences: list[float], alpha: float = ALPHA, min_effect: float = 0.0) -> float:
    detector = EDetector(min_effect)
    for d in differences:
        detector.update(d)
        if detector.alarms(alpha):
            return detector.n
    return inf


@settings(deadline=None)
@given(st.lists(st.floats(-1.0, 1.0), max_size=30), st.sampled_from([0.0, 0.1]), st.booleans())
def test_the_value_is_the_sum_of_e_processes_begun_at_every_event(
    differences: list[float], min_effect: float, two_sided: bool
) -> None:
    detector = EDetector(min_effect, two_sided)
    begun: list[BettingEProcess] = []
    for d in differences:
        detector.update(d)
        begun.append(BettingEProcess(min_effect, two_sided))
        for process in begun:
            process.update(d)
    assert detector.value == pytest.approx(sum(process.e_value for process in begun), rel=1e-9)
    assert detector.n == len(differences)


@pytest.mark.parametrize(("discordant", "seed"), [(0.1, 91), (1.0, 92)])
def test_with_nothing_changed_the_mean_run_to_a_false_alarm_is_at_least_one_over_alpha(
    discordant: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    lengths = [run_length(flips(rng, discordant, 0.5, EVENTS_MAX)) for _ in range(400)]
    assert mean(min(length, EVENTS_MAX) for length in lengths) >= 1 / ALPHA
    # It does alarm: this is no test of a detector that is deaf.
    assert median(lengths) < inf


def test_a_drift_just_as_large_as_the_smallest_effect_counts_as_nothing() -> None:
    rng = np.random.default_rng(93)
    lengths = [run_length(flips(rng, 0.2, 0.75, EVENTS_MAX), min_effect=0.1) for _ in range(100)]
    assert mean(min(length, EVENTS_MAX) for length in lengths) >= 1 / ALPHA


def test_a_change_after_500_quiet_events_is_found_sooner_than_by_an_e_process_begun_at_the_start() -> None:
    rng, alpha = np.random.default_rng(94), 0.001
    by_detector, by_process = [], []
    for _ in range(40):
        detector, process = EDetector(), BettingEProcess()
        for d in flips(rng, 0.2, 0.5, QUIET):
            detector.update(d)
            process.update(d)
        detected = alarmed = inf
        for event, d in enumerate(flips(rng, 0.4, 0.85, QUIET), start=1):
            detector.update(d)
            process.update(d)
            detected = min(detected, event if detector.alarms(alpha) else inf)
            alarmed = min(alarmed, event if process.e_value >= 1 / alpha else inf)
        by_detector.append(detected)
        by_process.append(alarmed)
    assert median(by_detector) <= 0.7 * median(by_process)


def test_the_value_starts_at_zero_and_is_kept_finite() -> None:
    detector = EDetector()
    assert detector.value == 0.0
    for _ in range(5000):
        detector.update(1.0)
    assert np.isfinite(detector.value)
    assert np.isfinite(detector.log_value)


@pytest.mark.parametrize("d", [1.0000001, -2.0, float("nan")])
def test_a_difference_out_of_range_is_refused_and_changes_nothing(d: float) -> None:
    detector = EDetector()
    with pytest.raises(ValueError, match="difference"):
        detector.update(d)
    assert detector.n == 0
    with pytest.raises(ValueError, match="alpha"):
        detector.alarms(0.0)
