"""Every e-process under exchangeable inputs: no bet is favourable, and no moment to peek at raises the error.

Each event has several samples that are exchangeable given the past: the first is taken as the candidate, the others
as the log and as runs of the incumbent. The laws differ in how often and in what way samples differ by themselves.
"""

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from itertools import permutations
from operator import attrgetter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import binom

from driftline.detectors import (
    ArmOutcome,
    BettingEProcess,
    BettingEProcesses,
    FloorEvidence,
    MmdEProcess,
    Observation,
    SequentialJudge,
    SoftRank,
    SwapLearner,
    betting_interval,
    e_bh,
    excess_mismatch,
    floor_reading,
    global_e_value,
)

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Law = Callable[[np.random.Generator, Ints], Ints]
"""What the candidate's samples added up to so far, by path → the next event's samples; shape (paths, SAMPLES)."""
SAMPLES = 4
STRATA = ("claims/Claim", "renewals/RenewalDue")


def noisy(usual: Ints, noise: Floats, others: int, rng: np.random.Generator) -> Ints:
    """Each sample is the usual answer of its event, or with a chance of `noise` any of so many."""
    shape = (usual.size, SAMPLES)
    astray = rng.random(shape) < noise[:, None]
    return np.where(astray, rng.integers(others, size=shape), usual[:, None])


def rare_flips(rng: np.random.Generator, past: Ints) -> Ints:
    return noisy(rng.integers(3, size=past.size), np.full(past.size, 0.03), 3, rng)


def frequent_flips(rng: np.random.Generator, past: Ints) -> Ints:
    return noisy(rng.integers(3, size=past.size), np.full(past.size, 0.8), 3, rng)


def skewed(rng: np.random.Generator, past: Ints) -> Ints:
    """One answer mostly, and a long tail of others."""
    return np.minimum(rng.geometric(0.7, size=(past.size, SAMPLES)) - 1, 12)


def swayed_by_the_past(rng: np.random.Generator, past: Ints) -> Ints:
    """How noisy an event is, and what is usual in it, follow from what the candidate answered before."""
    return noisy(past % 3, np.where(past % 2 == 1, 0.9, 0.1), 4, rng)


def correlated(rng: np.random.Generator, past: Ints) -> Ints:
    """Two in five events are all noise and the others none: exchangeable, and not independent."""
    return noisy(rng.integers(2, size=past.size), rng.choice([0.0, 1.0], size=past.size, p=[0.6, 0.4]), 2, rng)


LAWS = (rare_flips, frequent_flips, skewed, swayed_by_the_past, correlated)


def histories(law: Law, paths: int, events: int, seed: int) -> Ints:
    """Samples of so many events on so many paths; shape (events, paths, SAMPLES)."""
    rng, past, found = np.random.default_rng(seed), np.zeros(paths, dtype=np.int64), []
    for _ in range(events):
        found.append(law(rng, past))
        past = past + found[-1][:, 0]
    return np.array(found)


OUTCOMES = [
    ArmOutcome(float(answer % 2 == 0), {f"a={answer}": 1.0, "a": answer / 10}, {"action": str(answer)})
    for answer in range(13)
]


@dataclass(frozen=True)
class Statistic:
    """An e-process, and how it is fed the samples of the event with this number."""

    make: Callable[[], Any]
    feed: Callable[[Any, int, Sequence[int]], None]
    e_value: Callable[[Any], float] = attrgetter("e_value")
    paths: int = 1000
    candidates: int = 1
    """How many of the first samples are the candidate's."""


def feed_signed(process: BettingEProcess, number: int, samples: Sequence[int]) -> None:
    process.update(OUTCOMES[samples[0]].accepted - OUTCOMES[samples[1]].accepted)


def feed_swap(learner: SwapLearner, number: int, samples: Sequence[int]) -> None:
    learner.update(OUTCOMES[samples[1]].features, OUTCOMES[samples[0]].features)


def feed_soft_rank(rank: SoftRank, number: int, samples: Sequence[int]) -> None:
    rank.update(samples[0], samples[1:])


def feed_mmd(process: MmdEProcess, number: int, samples: Sequence[int]) -> None:
    candidate, other, *incumbent = samples
    process.update((incumbent[0], incumbent[1]), (candidate, other))


def feed_excess(process: BettingEProcess, number: int, samples: Sequence[int]) -> None:
    process.update(excess_mismatch(samples[0], samples[1:]))


def feed_floor(evidence: FloorEvidence, number: int, samples: Sequence[int]) -> None:
    evidence.update(floor_reading(samples[0], samples[1:]), len(samples) - 1)


def feed_judge_with_floor(judge: SequentialJudge, number: int, samples: Sequence[int]) -> None:
    candidate, *runs = (OUTCOMES[sample] for sample in samples)
    judge.observe(Observation(STRATA[number % 2], runs[0], candidate, tuple(runs)))


def feed_judge(judge: SequentialJudge, number: int, samples: Sequence[int]) -> None:
    candidate, baseline, *_ = (OUTCOMES[sample] for sample in samples)
    judge.observe(Observation(STRATA[number % 2], baseline, candidate))


def make_judge(floor_runs: int = 0) -> SequentialJudge:
    """Decides at overwhelming evidence alone, so that its e-value can be looked at all the way."""
    planned = dict.fromkeys(STRATA, 10_000)
    return SequentialJudge(
        STRATA, planned=planned, alpha=1e-100, delta=1e-6, indicators=("a",), floor_runs=floor_runs
    )


def floor_e_value(evidence: FloorEvidence) -> float:
    """Soft rank and excess mismatch with equal weights."""
    return float(np.mean(np.exp(evidence.log_e_values)))


STATISTICS = {
    "signed": Statistic(BettingEProcess, feed_signed),
    "swap": Statistic(SwapLearner, feed_swap),
    "soft rank": Statistic(SoftRank, feed_soft_rank),
    "MMD": Statistic(MmdEProcess, feed_mmd, candidates=2),
    "excess mismatch": Statistic(BettingEProcess, feed_excess),
    "floor": Statistic(FloorEvidence, feed_floor, floor_e_value),
    "judge": Statistic(make_judge, feed_judge, paths=150),
    "judge with floor": Statistic(lambda: make_judge(SAMPLES - 1), feed_judge_with_floor, paths=150),
}
each_statistic = pytest.mark.parametrize("name", STATISTICS)


def largest_e_values(statistic: Statistic, samples: Ints) -> Floats:
    """The largest e-value that each path ever has, peeked at after every event; shape (paths,)."""
    largest = []
    for path in samples.transpose(1, 0, 2).tolist():
        process, top = statistic.make(), 1.0
        for number, event in enumerate(path):
            statistic.feed(process, number, event)
            top = max(top, statistic.e_value(process))
        largest.append(top)
    return np.array(largest)


def assert_nominal(largest: Floats) -> None:
    """At most the nominal share of paths alarm, up to the 99.9 % quantile of counting so many."""
    for alpha in (0.05, 0.01):
        assert (largest >= 1 / alpha).sum() <= binom.ppf(0.999, largest.size, alpha)


@pytest.mark.parametrize("law", LAWS)
@each_statistic
def test_exchangeable_samples_alarm_at_most_at_the_nominal_rate_whenever_one_peeks(name: str, law: Law) -> None:
    statistic = STATISTICS[name]
    assert_nominal(largest_e_values(statistic, histories(law, statistic.paths, 25, seed=91)))


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("two_sided", [True, False])
def test_thousands_of_long_paths_alarm_at_most_at_the_nominal_rate_by_the_signed_statistic(
    law: Law, two_sided: bool
) -> None:
    samples = histories(law, paths=4000, events=200, seed=92)
    processes, largest = BettingEProcesses(4000, two_sided=two_sided), np.ones(4000)
    for even in samples % 2 == 0:
        processes.update(np.arange(4000), even[:, 0].astype(float) - even[:, 1])
        largest = np.maximum(largest, processes.e_values)
    assert_nominal(largest)


@each_statistic
def test_a_candidate_that_goes_astray_alarms_on_nearly_every_path(name: str) -> None:
    """The control: the bound above is not kept by being blind."""
    statistic, samples = STATISTICS[name], histories(rare_flips, paths=30, events=60, seed=93)
    own = samples[:, :, : statistic.candidates]
    own[:] = np.where(own == 1, 1, 5)
    assert (largest_e_values(statistic, samples) >= 20).mean() > 0.9


Event = st.lists(st.integers(0, 4), min_size=SAMPLES, max_size=SAMPLES)


@each_statistic
@settings(max_examples=20, deadline=None)
@given(past=st.lists(Event, max_size=8), event=Event)
def test_whatever_was_seen_the_next_bet_is_not_favourable(name: str, past: list[list[int]], event: list[int]) -> None:
    """Over all places that the samples of an event could have had, the e-value stays what it was or falls."""
    statistic = STATISTICS[name]
    before = statistic.make()
    for number, samples in enumerate(past):
        statistic.feed(before, number, samples)
    after = []
    for order in permutations(event):
        process = deepcopy(before)
        statistic.feed(process, len(past), order)
        after.append(statistic.e_value(process))
    assert np.mean(after) <= statistic.e_value(before) * (1 + 1e-9)


@pytest.mark.parametrize("law", LAWS)
def test_an_interval_covers_although_the_reading_stops_when_it_looks_best(law: Law) -> None:
    """It is the intersection over all moments: had it missed the mean at any of them, it would miss it now."""
    samples = histories(law, paths=400, events=120, seed=94)
    even = (samples % 2 == 0).astype(float)
    changes = even[:, :, 0] - even[:, :, 1]
    missed = sum(not low <= 0.0 <= high for low, high in map(betting_interval, changes.T))
    assert missed <= binom.ppf(0.999, 400, 0.05)


def false_discoveries(e_values: Floats, unchanged: int, alpha: float) -> Floats:
    """Share of false names among all, by draw; the first `unchanged` strata have nothing to be found."""
    shares = []
    for row in e_values:
        named = e_bh(row.tolist(), alpha)
        shares.append(sum(index < unchanged for index in named) / max(len(named), 1))
    return np.array(shares)


@pytest.mark.parametrize("changed", [0, 4])
@pytest.mark.parametrize("alpha", [0.05, 0.2])
def test_e_bh_keeps_its_rate_where_the_strata_are_copies_of_each_other(changed: int, alpha: float) -> None:
    """The worst case: all unchanged strata carry one e-value, just enough for all of them to be named together."""
    rng, draws, unchanged = np.random.default_rng(95), 4000, 8
    one = np.where(rng.random(draws) < alpha, (1 + 1e-12) / alpha, 0.0)
    e_values = np.concatenate([np.tile(one[:, None], unchanged), np.full((draws, changed), 1e6)], axis=1)
    shares = false_discoveries(e_values, unchanged, alpha)
    slack = 3.1 * shares.std() / draws**0.5
    assert 0.5 * alpha < shares.mean() <= alpha + slack


@pytest.mark.parametrize("correlation", [0.5, 0.9, 0.99])
def test_e_bh_keeps_its_rate_under_strong_positive_dependence(correlation: float) -> None:
    rng, draws, stake = np.random.default_rng(96), 4000, 2.5
    common, own = rng.normal(size=(draws, 1)), rng.normal(size=(draws, 15))
    normal = correlation**0.5 * common + (1 - correlation) ** 0.5 * own
    normal[:, 12:] += 3.0
    shares = false_discoveries(np.exp(stake * normal - stake**2 / 2), 12, 0.05)
    assert shares.mean() <= 0.05 + 3.1 * shares.std() / draws**0.5


@settings(max_examples=15, deadline=None)
@given(st.permutations(range(6)))
def test_no_verdict_depends_on_the_order_in_which_strata_are_stored(order: list[int]) -> None:
    names = [f"claims/{number}" for number in range(6)]
    samples = histories(frequent_flips, paths=6, events=12, seed=97)
    samples[:, :2, 0] = 3  # two strata change

    def judged(strata: Sequence[str]) -> tuple[Any, ...]:
        planned = dict.fromkeys(strata, 100)
        judge = SequentialJudge(strata, planned=planned, delta=1e-6, locate=True, floor_runs=SAMPLES - 1)
        for event in samples:
            for name, answers in zip(names, event, strict=True):
                if not judge.done:
                    candidate, *runs = (OUTCOMES[answer] for answer in answers)
                    judge.observe(Observation(name, runs[0], candidate, tuple(runs)))
        summary = judge.summary()
        rows = {(row.stratum, row.level): row for row in summary.strata}
        named = {place for place, row in rows.items() if row.named}
        return summary.decision, summary.events_at_stop, named, pytest.approx(summary.e_value, rel=1e-9)

    assert judged([names[index] for index in order]) == judged(names)
    e_values = [2.0**index for index in range(6)]
    assert global_e_value([e_values[index] for index in order]) == pytest.approx(global_e_value(e_values))
