"""A night's run told with all nights: what stands beside one another in its alerts counts the same decisions."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from tests.unit.replay.conftest import question

from driftline.consumers.proposing import Answer, ProposalRequest
from driftline.replay import ForcedResult, Limits, Segment
from driftline.replay.alerting import alerts_of
from driftline.replay.night_results import as_carried
from driftline.replay.nights import CarriedProcess, CarriedTest, Standing
from driftline.schemas import ArmRef, DivergenceAlert, ReplayCompleted

Replay = Callable[..., ForcedResult]
NOW = datetime(2026, 10, 2, tzinfo=UTC)
ARM = ArmRef(model="log", prompt_hash="log", verifier_version="log")


class Wrong:
    """Answers wrongly to one question in so many."""

    def __init__(self, every: int) -> None:
        self._every = every
        self._asked = 0

    async def propose(self, request: ProposalRequest) -> Answer:
        self._asked += 1
        return Answer("yes" if self._asked % self._every else "no")


def after(nights: list[ForcedResult]) -> Standing:
    process = CarriedProcess(CarriedTest())
    for number, night in enumerate(nights):
        process.add(f"2026-10-0{number + 1}", night.pairs)
    return process.standing()


@pytest.fixture
def nights(replay: Replay, questions: Callable[..., Segment]) -> list[ForcedResult]:
    """A quiet night, and two on which the candidate is always wrong."""
    others = [questions(decisions=[question(first + number) for number in range(40)]) for first in (100, 200)]
    quiet = replay(questions(10), Wrong(11), concurrency=1)
    return [quiet, *(replay(other, Wrong(1), concurrency=1) for other in others)]


def test_an_alert_tells_evidence_and_change_of_the_same_decisions(
    nights: list[ForcedResult], questions: Callable[..., Segment]
) -> None:
    standing = after(nights)
    told = as_carried(nights[-1], standing)
    completed, alert = alerts_of(questions(40), ARM, ARM, told, Limits(), NOW)
    assert isinstance(completed, ReplayCompleted)
    assert isinstance(alert, DivergenceAlert)
    [stratum] = standing.strata
    assert completed.compared == standing.events > len(nights[-1].pairs)
    assert (alert.change, alert.interval_lo, alert.interval_hi) == (stratum.change, *stratum.interval)
    assert told.judged.note.endswith("; rates are tonight's")


def test_of_several_strata_the_change_over_all_is_tonights_and_is_said_to_be(
    replay: Replay, questions: Callable[..., Segment]
) -> None:
    decisions = [question(number, stream=("quiz", "other")[number % 2]) for number in range(40)]
    night = replay(questions(decisions=decisions), Wrong(1), concurrency=1)
    standing = after([night, night])
    told = as_carried(night, standing)
    assert len(standing.strata) == 2
    assert told.judged.events_at_stop == standing.events
    assert told.judged.levels == night.judged.levels
    assert "the change over all strata are tonight's" in told.judged.note
