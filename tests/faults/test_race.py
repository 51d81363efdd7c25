"""Rivals for the rows of a state machine, on a real Kafka, while it falls apart: one winner a version."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.faults.faults import FAULTS
from tests.faults.machine_checker import MachineReport
from tests.faults.race import race
from tests.faults.stand import Ground

pytestmark = pytest.mark.integration

RIVALS = 600


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    with Ground(tmp_path_factory.mktemp("race")) as found:
        yield found


@pytest.mark.parametrize(
    "faults",
    [
        ["death while restoring", "a guest"],
        ["network apart past the session"],
        ["restore over an open transaction"],
        ["EndTxn held past the timeout", "TxnOffsetCommit cut, delivered"],
    ],
    ids=["killed while it restores", "two owners", "restore over an open transaction", "slow network"],
)
def test_one_rival_wins_each_version_and_nothing_is_lost_whatever_fails(ground: Ground, faults: list[str]) -> None:
    named = {fault.name: fault for fault in FAULTS}
    name = f"race-{faults[0].replace(' ', '-').lower()}"
    lines: list[str] = []
    unsettled, report = race(ground, name, RIVALS, [named[fault] for fault in faults], say=lines.append)
    assert lines == faults, "each has happened"
    assert (unsettled, report.violations) == ("", [])
    assert report.requests == report.accepted + report.rejected == RIVALS
    assert is_a_race(report)


def is_a_race(report: MachineReport) -> bool:
    """Whether there was something to win, to lose, to decide and to time out."""
    return min(report.accepted, report.rejected, report.decided, report.fired, report.versions_max - 3) > 0
