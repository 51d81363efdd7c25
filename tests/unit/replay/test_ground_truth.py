"""The simulator's versions differ in known ways: replay finds what is there, names it, and finds nothing else."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from scipy.stats import binom

from driftline.examples.renewals.app import app as renewals
from driftline.producers.renewals import synthetic_renewals
from driftline.replay import AppSubject, Candidate, ForcedResult, Segment
from driftline.replay.testing import OwnModels, decided, segment_of

Replay = Callable[..., ForcedResult]
TWO_YEAR = "renewal/renewal-due.two-year"
SEEDS = range(6)
RUNS = 48
"""Independent histories with independent candidates, for the share of false alarms."""
CUSTOMERS = 250


def history(seed: int, customers: int = 600) -> Segment:
    return segment_of(decided(renewals, synthetic_renewals(customers, seed), OwnModels(), seed))


@pytest.fixture(scope="module")
def histories() -> list[Segment]:
    return [history(seed) for seed in SEEDS]


@pytest.fixture
def against(
    replay: Replay, histories: list[Segment], renewals_subject: AppSubject
) -> Callable[..., list[ForcedResult]]:
    """Every history against a version of the simulator, each with an order of its own."""

    def run(version: str, **limits: object) -> list[ForcedResult]:
        return [
            replay(
                segment,
                OwnModels(),
                subject=renewals_subject,
                candidate=Candidate(f"sim/{version}"),
                run_id=f"{version}-{seed}",
                order_seed=seed,
                **limits,
            )
            for seed, segment in enumerate(histories)
        ]

    return run


def mismatch(result: ForcedResult, level: str) -> float:
    return next(found.mismatch for found in result.judged.levels if found.level == level) or 0.0


def named(result: ForcedResult) -> set[str]:
    return {stratum.stratum for stratum in result.judged.strata if stratum.named}


def test_inflated_discounts_diverge_and_the_two_year_contracts_are_named(
    against: Callable[..., list[ForcedResult]],
) -> None:
    for result in against("renewals-inflated", locate=True):
        assert result.verdict == "diverged"
        assert named(result) == {TWO_YEAR}


def test_a_code_fence_diverges_at_the_verdict_and_leaves_the_canonical_text(
    against: Callable[..., list[ForcedResult]],
) -> None:
    incumbent = against("renewals", read_on=True)
    for result, same in zip(against("renewals-fenced", read_on=True), incumbent, strict=True):
        verdict = next(level for level in result.judged.levels if level.level == "verdict")
        assert result.verdict == "diverged"
        assert verdict.interval_at_stop[1] < 0
        assert (verdict.change or 0.0) < -0.5
        assert abs(mismatch(result, "canonical") - mismatch(same, "canonical")) < 0.1
        fenced = [pair for pair in result.pairs if (pair.candidate.answer.text or "").startswith("```")]
        assert all(pair.candidate.verdict == "rejected" for pair in fenced)


def test_reworded_reasons_raise_nothing_and_show_at_the_levels_that_decide_nothing(
    against: Callable[..., list[ForcedResult]],
) -> None:
    for result in against("renewals-reworded"):
        assert result.verdict != "diverged"
        assert named(result) == set()
        assert mismatch(result, "bytes") > 0.9
        assert mismatch(result, "action") < 0.25


def test_the_incumbent_against_its_own_log_alarms_no_more_often_than_stated(
    replay: Replay, renewals_subject: AppSubject
) -> None:
    """Although its actions differ in an eighth of the decisions. The bound is the 99.9 % quantile at 5 %."""
    alarms, differing = 0, 0.0
    for seed in range(100, 100 + RUNS):
        result = replay(
            history(seed, CUSTOMERS),
            OwnModels(),
            subject=renewals_subject,
            candidate=Candidate("sim/renewals"),
            run_id=f"control-{seed}",
            order_seed=seed,
        )
        alarms += result.verdict == "diverged"
        differing += mismatch(result, "action")
    print(f"false alarms: {alarms} of {RUNS}; actions that differ: {differing / RUNS:.1%}")  # noqa: T201
    assert alarms <= binom.ppf(0.999, RUNS, 0.05)
    assert differing / RUNS > 0.08
