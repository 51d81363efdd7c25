"""Histories that are independent of each other, each replayed against its own model: nothing is there to be found."""

from __future__ import annotations

from collections.abc import Callable

from scipy.stats import binom

from driftline.examples.renewals.app import app as renewals
from driftline.producers.renewals import synthetic_renewals
from driftline.replay import AppSubject, Candidate, ForcedResult, Segment
from driftline.replay.testing import OwnModels, decided, segment_of

Replay = Callable[..., ForcedResult]
RUNS = 48
"""Independent histories with independent candidates, for the share of false alarms."""
CUSTOMERS = 250


def history(seed: int, customers: int) -> Segment:
    return segment_of(decided(renewals, synthetic_renewals(customers, seed), OwnModels(), seed))


def mismatch(result: ForcedResult, level: str) -> float:
    return next(found.mismatch for found in result.judged.levels if found.level == level) or 0.0


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
