import math
from collections.abc import Sequence

import numpy as np
import pytest
from scipy import stats
from scipy.stats import binom

from driftline.detectors import RepeatedEvent, decompose
from driftline.detectors.reliability import t_quantile


def simulated(
    events: int, runs: int, *, shift: float = 0.0, drift: float = 0.0, seed: int = 0, workflow: int = 1
) -> tuple[list[RepeatedEvent], float]:
    """Events in log order, of runs that shift as wholes by so much (as a standard deviation), and their sigma^2."""
    rng = np.random.default_rng(seed)
    rates = rng.uniform(0.3, 0.7, events)
    by_run = np.clip(rates[:, None] + rng.normal(0, shift, runs), 0, 1)
    verdicts = (rng.random((events, runs)) < by_run).astype(float)
    tried = (rng.random(events) < rates + drift).astype(float)
    made = [
        RepeatedEvent("quiz", f"w{number // workflow}", tuple(verdicts[number]), (tried[number],))
        for number in range(events)
    ]
    return made, float((rates * (1 - rates)).mean())


def of(*baseline: float, candidate: Sequence[float] = (), workflow: str = "", stream: str = "quiz") -> RepeatedEvent:
    return RepeatedEvent(stream, workflow or f"{baseline}{candidate}", baseline, tuple(candidate))


def test_variance_and_drift_are_recovered_with_intervals_that_hold_them() -> None:
    events, truth = simulated(800, 4, drift=-0.2)
    found = decompose(events).pooled
    assert found.sigma2 == pytest.approx(truth, abs=0.01)
    assert found.sigma2_interval is not None and found.sigma2_interval[0] <= truth <= found.sigma2_interval[1]
    assert found.mu == pytest.approx(-0.2, abs=0.05)
    assert found.mu_interval is not None and found.mu_interval[0] <= -0.2 <= found.mu_interval[1]
    assert found.t_star == pytest.approx(truth / 0.04, rel=0.5)
    assert found.t_star_interval is not None
    assert found.t_star_interval[0] <= truth / 0.04 <= found.t_star_interval[1] < math.inf


def test_of_two_binary_runs_the_variance_is_half_of_their_disagreement() -> None:
    events = [of(1.0, 0.0, workflow="a"), of(1.0, 1.0, workflow="b"), of(0.0, 0.0, workflow="c")]
    assert decompose(events).pooled.sigma2 == pytest.approx((1 / 3) / 2)


def test_differences_between_events_are_no_variance() -> None:
    found = decompose([of(1.0, 1.0), of(0.0, 0.0)] * 20).pooled
    assert (found.sigma2, found.slope) == (0.0, None)


def test_without_a_candidate_there_is_no_drift_to_tell() -> None:
    found = decompose([of(1.0, 0.0, workflow=f"w{number}") for number in range(20)]).pooled
    assert (found.mu, found.mu_interval, found.t_star, found.paired_events) == (None, None, None, 0)


def test_a_drift_that_may_be_none_never_outweighs_variance_and_says_so() -> None:
    found = decompose(simulated(100, 3)[0]).pooled
    assert found.mu_interval is not None and found.mu_interval[0] <= 0 <= found.mu_interval[1]
    assert found.t_star_interval is not None and math.isinf(found.t_star_interval[1])
    assert "holds 0" in found.note


def test_independent_calls_have_slope_one() -> None:
    verdicts = [decompose(simulated(256, 5, seed=seed)[0]).pooled.slope for seed in range(20)]
    assert np.mean([slope.slope for slope in verdicts if slope]) == pytest.approx(1.0, abs=0.07)
    read = [slope.verdict for slope in verdicts if slope]
    assert len(read) == 20
    assert read.count("whole-run shifts") <= 4


def test_runs_that_shift_as_wholes_bend_the_slope_towards_two() -> None:
    found = [decompose(simulated(512, 5, shift=0.3, seed=seed)[0]).pooled for seed in range(5)]
    slopes = [part.slope for part in found if part.slope is not None]
    assert [slope.verdict for slope in slopes] == ["whole-run shifts"] * 5
    assert np.mean([slope.slope for slope in slopes]) > 1.4
    assert all("whole runs shift" in part.note for part in found)


def test_a_shift_too_small_to_bend_the_slope_shows_in_the_sums_of_whole_runs() -> None:
    rng = np.random.default_rng(0)
    rates = np.array([0.5] * 4 + [0.62])
    events = [of(*map(float, rng.random(5) < rates), workflow=f"w{number}") for number in range(1000)]
    slope = decompose(events).pooled.slope
    assert slope is not None
    assert slope.run_ratio > slope.run_ratio_max
    assert slope.verdict == "whole-run shifts"


def test_noise_that_stands_alone_in_its_window_gives_no_slope() -> None:
    """Every slope of it is 1, whatever the runs do."""
    quiet = [of(1.0, 1.0, 1.0, workflow=f"w{number}") for number in range(200)]
    noisy = [of(1.0, 0.0, 1.0, workflow=f"n{number}") for number in range(4)]
    assert decompose([*quiet[:50], *noisy[:2], *quiet[50:], *noisy[2:]]).pooled.slope is None


def test_the_error_is_clustered_by_workflow() -> None:
    alone, together = simulated(200, 2, drift=0.1, seed=3)[0], []
    for event in alone:
        together += [RepeatedEvent(event.stream, event.workflow, event.baseline, event.candidate)] * 4
    one, four = decompose(alone).pooled, decompose(together).pooled
    assert four.mu == pytest.approx(one.mu)
    assert four.mu_interval == pytest.approx(one.mu_interval, abs=0.002)
    assert (one.workflows, four.workflows) == (200, 200)


@pytest.mark.parametrize(("events", "disagreement"), [(50, 0.02), (50, 0.1), (250, 0.01), (250, 0.1)])
def test_the_intervals_cover_where_few_events_differ_too(events: int, disagreement: float) -> None:
    """Two runs that disagree on so many events, and a candidate that loses as many: 200 times each."""
    rng = np.random.default_rng(17)
    covered = np.zeros(2)
    for _ in range(200):
        differs, lost = rng.random((2, events)) < disagreement
        drawn = zip(differs.tolist(), lost.tolist(), strict=True)
        runs = [of(1.0, 1.0 - a, candidate=[1.0 - a / 2 - b / 2], workflow=f"w{n}") for n, (a, b) in enumerate(drawn)]
        found = decompose(runs).pooled
        assert found.sigma2_interval is not None
        assert found.mu_interval is not None
        covered += (
            found.sigma2_interval[0] <= disagreement / 2 <= found.sigma2_interval[1],
            found.mu_interval[0] <= -disagreement / 2 <= found.mu_interval[1],
        )
    assert covered.min() >= binom.ppf(0.001, 200, 0.95)


def test_no_interval_is_without_width_where_no_event_differs() -> None:
    found = decompose([of(1.0, 1.0, workflow=f"w{number}") for number in range(50)]).pooled
    assert found.sigma2_interval is not None
    assert found.sigma2_interval[0] == 0.0 < found.sigma2_interval[1] < 0.1


def test_a_single_workflow_has_no_interval() -> None:
    found = decompose([of(1.0, 0.0, candidate=[1.0], workflow="only")] * 5).pooled
    assert (found.sigma2_interval, found.mu_interval, found.t_star_interval) == (None, None, None)


def test_a_run_without_an_outcome_is_left_out_of_its_event_alone() -> None:
    found = decompose([of(1.0, 0.0, math.nan, workflow="a"), of(1.0, math.nan, math.nan, workflow="b")]).pooled
    assert (found.events, found.sigma2) == (1, 0.5)


def test_streams_are_told_apart() -> None:
    events = [of(1.0, 0.0, stream="noisy", workflow="a"), of(1.0, 1.0, stream="quiet", workflow="b")]
    found = decompose(events)
    assert {name: part.sigma2 for name, part in found.streams.items()} == {"noisy": 0.5, "quiet": 0.0}
    assert found.pooled.sigma2 == 0.25


def test_the_same_events_give_the_same_figures_and_no_events_give_none() -> None:
    events, _ = simulated(100, 3)
    assert decompose(events) == decompose(events)
    assert decompose([]).pooled.sigma2 is None


@pytest.mark.parametrize(
    ("events", "alpha", "said"),
    [
        ([of(1.0, 0.0), of(1.0)], 0.05, "same number of runs"),
        ([of(2.0, 0.0)], 0.05, r"in \[0, 1\]"),
        ([of(1.0, 0.0)], 1.0, "alpha"),
    ],
)
def test_what_cannot_be_decomposed_is_refused(events: list[RepeatedEvent], alpha: float, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        decompose(events, alpha)


@pytest.mark.parametrize("freedom", [1, 2, 3, 5, 10, 40, 1000])
def test_students_quantiles_are_scipys_to_within_a_percent(freedom: int) -> None:
    for probability in (0.9, 0.975, 0.9875, 0.995):
        assert t_quantile(probability, freedom) == pytest.approx(stats.t.ppf(probability, freedom), rel=0.01)
