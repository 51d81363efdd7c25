"""The faults campaign in its short form: some rounds on a real Kafka, and the controls that must be caught."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.faults.campaign import Figures, run
from tests.faults.faults import FAULTS, deal

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]

ROUNDS = (
    "kill -9 of all",
    "death before produce",
    "death before commit",
    "death inside commit",
    "broker kill -9",
    "SIGSTOP and a successor",
    "two in one slot",
    "corrupt records",
    "TxnOffsetCommit cut, delivered",
    "EndTxn delayed into the next transaction",
)
"""One of each sort, so that the short form is not left to chance."""
SEED = 1
MUTATED = 1


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Figures]:
    faults = {fault.name: fault for fault in FAULTS}
    lines: list[str] = []
    home = tmp_path_factory.mktemp("faults")
    yield run(home, len(ROUNDS), SEED, lines.append, MUTATED, faults=[faults[name] for name in ROUNDS])


def test_every_input_is_decided_exactly_once_whatever_fails(figures: Figures) -> None:
    assert not figures.failures
    assert len(figures.rounds) == len(ROUNDS) + 1


def test_faults_have_hit_open_transactions(figures: Figures) -> None:
    assert figures.inside >= 4  # two deaths, a request that was cut and one that was held lie in a transaction


def test_the_model_is_asked_again_only_for_what_was_lost_with_a_process(figures: Figures) -> None:
    assert figures.report is not None
    assert figures.report.calls_needed <= figures.calls_made


@pytest.mark.parametrize("number", [0, 1], ids=["at least once", "a producer used on after a slow EndTxn"])
def test_a_wrong_worker_is_caught(figures: Figures, number: int) -> None:
    control = figures.controls[number]
    assert control.wrong
    assert any("repeated" in violation for violation in control.violations)


def test_the_request_that_ended_another_transaction_is_told_as_such(figures: Figures) -> None:
    assert any("aborted records visible" in violation for violation in figures.controls[1].violations)


def test_a_right_worker_is_not_caught(figures: Figures) -> None:
    control = figures.controls[2]
    assert not control.wrong
    assert not control.violations


def test_a_seed_deals_the_same_faults_again() -> None:
    assert deal(3, 20) == deal(3, 20)
    assert deal(3, 20) != deal(4, 20)


def test_a_long_campaign_meets_every_fault() -> None:
    assert set(deal(1, 200)) == set(FAULTS)
