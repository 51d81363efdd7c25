"""The comparison of the spines, on twelve customers: what must hold whatever comes out."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

from bench.kit.lives import Again, End, Faultless, Lives, Trial, live, out_of_turn
from bench.spines import (
    BROKEN,
    CALLS,
    ILLEGAL,
    INCUMBENT,
    PASS,
    SPINES,
    VERSIONS,
    WRONG,
    Figure,
    free,
    run,
    table,
)

from driftline.examples.contracts.app import OFFER_SENT
from driftline.producers.contracts import Day, days_of, synthetic_contracts
from driftline.replay.testing import OwnModels

CUSTOMERS, TRIALS, SEED = 12, 5, 7
CLOSED: End = ("closed", "renewed")
TRIAL = Trial(departed=False, row_changed=False, end=CLOSED, illegal=0, decisions=5, calls=5)


@pytest.fixture(scope="module")
def data() -> Mapping[str, Any]:
    return run(CUSTOMERS, TRIALS, SEED)


@pytest.fixture(scope="module")
def days() -> Sequence[Day]:
    return list(days_of(synthetic_contracts(CUSTOMERS, SEED)))


@pytest.fixture(params=list(SPINES))
def spine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def means(data: Mapping[str, Any], spine: str, version: str) -> dict[str, float]:
    rows = [row for row in data["rows"] if row["version"] == version]
    return {row["measure"]: row[spine.lower()]["mean"] for row in rows}


def test_the_same_seed_gives_the_same_table_and_another_seed_another_one(data: Mapping[str, Any]) -> None:
    told = list(table(data))
    assert list(table(run(CUSTOMERS, TRIALS, SEED))) == told
    assert list(table(run(CUSTOMERS, TRIALS, SEED + 1)))[1:] != told[1:]


def test_the_state_machine_commits_nothing_out_of_turn_and_the_event_log_does(data: Mapping[str, Any]) -> None:
    found = {spine: [means(data, spine, version)[ILLEGAL] for version in VERSIONS] for spine in SPINES}
    assert found["P5"] == [0.0] * len(VERSIONS)
    assert min(found["P3"]) > 0
    assert data["log"]["P5"]["illegal"] == 0


def test_trials_that_fail_are_out_of_turn_or_end_otherwise(data: Mapping[str, Any], spine: str) -> None:
    for version in VERSIONS:
        found = means(data, spine, version)
        assert found[BROKEN] + found[WRONG] + found[PASS[1]] == pytest.approx(1.0)


def test_more_trials_are_never_easier_to_pass(data: Mapping[str, Any], spine: str) -> None:
    for version in VERSIONS:
        passed = [means(data, spine, version)[name] for name in PASS.values()]
        assert passed == sorted(passed, reverse=True)
        assert passed[0] > passed[-1], "of trials that all come out alike pass^k would say nothing"


@pytest.mark.parametrize("succeeded", range(8))
def test_pass_k_is_the_share_of_draws_of_k_trials_that_all_succeed(succeeded: int) -> None:
    trials = [TRIAL] * succeeded + [replace(TRIAL, illegal=1)] * (7 - succeeded)
    found = free(trials, CLOSED, CLOSED)
    for k, name in PASS.items():
        draws = [all(trial.succeeded(CLOSED) for trial in drawn) for drawn in combinations(trials, k)]
        assert found[name] == pytest.approx(sum(draws) / len(draws))


@pytest.mark.parametrize(
    ("changed", "wanted", "succeeded"),
    [
        ({}, CLOSED, True),
        ({}, None, True),
        ({}, ("closed", "churned"), False),
        ({"illegal": 1}, CLOSED, False),
        ({"end": ("human_required", None)}, CLOSED, False),
        ({"end": ("human_required", None)}, ("human_required", None), True),
        ({"end": ("offer_sent", None)}, None, False),
    ],
)
def test_a_trial_succeeds_by_its_outcome_alone(changed: dict[str, Any], wanted: End | None, succeeded: bool) -> None:
    assert replace(TRIAL, **changed).succeeded(wanted) is succeeded


def lives_of(spine: str, days: Sequence[Day], faultless: bool = False) -> Lives:
    app, proposer = SPINES[spine], Faultless() if faultless else OwnModels()
    return Lives(app, asyncio.run(live(app, days, proposer, SEED)), SEED)


def test_who_answers_as_on_the_log_lives_the_log_again(spine: str, days: Sequence[Day]) -> None:
    lives = lives_of(spine, days)
    for workflow in lives.workflows:
        assert asyncio.run(lives.free(workflow, OwnModels())) == lives.logged(workflow)
        again = asyncio.run(lives.forced(workflow, Again(INCUMBENT, 0, SEED)))
        assert len(again) == len(workflow.decisions)


def test_an_analyst_without_a_fault_succeeds_and_ends_alike_on_both_spines(days: Sequence[Day]) -> None:
    ends = []
    for spine in SPINES:
        lives = lives_of(spine, days, faultless=True)
        trials = {workflow.name: lives.logged(workflow) for workflow in lives.workflows}
        assert all(trial.succeeded(None) for trial in trials.values())
        ends.append({name: trial.end for name, trial in trials.items()})
    assert ends[0] == ends[1]
    assert len(set(ends[0].values())) > 2, "all customers end alike: nothing is compared"


def test_a_second_offer_is_out_of_turn_on_either_spine(spine: str, days: Sequence[Day]) -> None:
    lives = lives_of(spine, days, faultless=True)
    offered = 0
    for workflow in lives.workflows:
        committed = [logged.event for logged in workflow.events if logged.committed]
        offers = [event for event in committed if event.record == OFFER_SENT]
        offered += len(offers)
        assert out_of_turn(lives.app, workflow, [*committed, *offers]) == offers
    assert offered


@pytest.mark.parametrize(("low", "high", "overlaps"), [(0.0, 0.1, False), (0.1, 0.2, True), (0.25, 0.3, True)])
def test_intervals_overlap_where_they_have_a_point_in_common(low: float, high: float, overlaps: bool) -> None:
    figure, other = Figure(0.3, 0.2, 0.4), Figure((low + high) / 2, low, high)
    assert figure.overlaps(other) is overlaps
    assert other.overlaps(figure) is overlaps


def test_every_interval_holds_the_mean_of_its_customers(data: Mapping[str, Any]) -> None:
    figures = [Figure(**row[side]) for row in data["rows"] for side in ("p3", "p5", "paired")]
    assert figures
    assert all(figure.low <= figure.mean <= figure.high for figure in figures)


def test_nobody_is_asked_of_a_case_that_is_settled_on_the_state_machine(data: Mapping[str, Any]) -> None:
    assert means(data, "P5", INCUMBENT)[CALLS] < means(data, "P3", INCUMBENT)[CALLS]
