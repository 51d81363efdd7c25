"""When a night's reading ends: with the evidence of all nights, and never with a test of tonight alone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from driftline.replay import ForcedReplay, ForcedResult, Limits, Segment
from driftline.replay.arms import Candidate
from driftline.replay.contrasts import Stop
from driftline.replay.ledger import Ledger
from driftline.replay.night_results import as_carried, as_watched
from driftline.replay.night_stop import CarriedStop, WatchStop
from driftline.replay.night_watch import ProviderWatch
from driftline.replay.nights import CarriedProcess, CarriedTest
from driftline.replay.subject import RecordedSubject

BEFORE, TONIGHT = "2026-10-01", "2026-10-02"
NOON = datetime(2026, 10, 3, tzinfo=UTC)
Night = Callable[..., ForcedResult]
Questions = Callable[..., Segment]
OTHERWISE = "no"


@pytest.fixture
def night(ledger: Ledger, quiz: RecordedSubject, says: Callable[[str], Any]) -> Night:
    """Read a segment until a stop, with a candidate that always says the same."""

    def run(segment: Segment, stop: Stop | None, text: str = OTHERWISE, **limits: Any) -> ForcedResult:
        given = "run", segment, quiz, Candidate("acme/next"), says(text), ledger
        replay = ForcedReplay(*given, Limits(**{"concurrency": 1, **limits}), lambda: NOON, stop=stop)
        return asyncio.run(replay.run())

    return run


def process_of(alpha: float = 0.05) -> CarriedProcess:
    return CarriedProcess(CarriedTest(alpha))


def evidence_of(result: ForcedResult) -> int:
    return sum(pair.evidence for pair in result.pairs)


def test_a_night_reads_on_where_its_own_test_alarms_and_the_carried_evidence_does_not(
    night: Night, questions: Questions
) -> None:
    segment, patient = questions(60), 1e-300
    fresh = night(segment, None)
    process = process_of(patient)
    result = night(segment, CarriedStop(process_of(patient), TONIGHT, segment.planned().keys()))
    process.add(TONIGHT, result.pairs)
    told = as_carried(result, process.standing())
    assert (fresh.stopped_because, len(fresh.pairs) < 20) == ("alarm", True)
    assert (evidence_of(result), told.judged.events_at_stop) == (60, 60)
    assert (told.verdict, told.stopped_because, told.alarm_after) == ("inconclusive", "segment_ended", None)
    assert {level.change_at_stop for level in told.judged.levels if level.level == "verdict"} == {-1.0}


def test_a_night_ends_with_the_alarm_of_all_nights(night: Night, questions: Questions) -> None:
    segment = questions(60)
    fresh = night(segment, None)
    some = fresh.pairs[: len(fresh.pairs) // 2]
    before, process = process_of(), process_of()
    for one in (before, process):
        one.add(BEFORE, some)
    result = night(segment, CarriedStop(before, TONIGHT, segment.planned().keys()))
    assert (result.verdict, result.stopped_because) == ("diverged", "alarm")
    assert 0 < evidence_of(result) < evidence_of(fresh)
    process.add(TONIGHT, result.pairs[: evidence_of(result) - 1])
    assert process.verdict == "inconclusive", "one decision earlier there was no alarm"


def test_a_night_reads_its_minimum_and_all_of_it_is_evidence(night: Night, questions: Questions) -> None:
    segment = questions(60)
    stop = CarriedStop(process_of(), TONIGHT, segment.planned().keys())
    result = night(segment, stop, decisions_min=34)
    assert (result.verdict, evidence_of(result), result.paid_calls) == ("diverged", 34, 34)


def test_a_night_ends_where_all_nights_are_equivalent_and_no_stratum_is_unread(
    night: Night, questions: Questions
) -> None:
    segment = questions(60)
    known = process_of()
    for number in range(1, 20):
        known.add(f"2026-09-{number:02}", night(segment, None, "yes", read_on=True, delta=1e-9).pairs)
    assert known.verdict == "equivalent"
    strata = segment.planned().keys()
    again = CarriedStop(CarriedProcess.from_state(known.state(), known.test), TONIGHT, strata)
    assert evidence_of(night(segment, again, "yes")) == 1
    unread = CarriedStop(CarriedProcess.from_state(known.state(), known.test), TONIGHT, strata | {"quiz/other"})
    assert evidence_of(night(segment, unread, "yes")) == 60


def test_the_incumbent_is_asked_until_the_watch_alarms(night: Night, questions: Questions) -> None:
    segment = questions(60)
    fresh = len(night(segment, None).pairs)
    quiet = night(segment, WatchStop(ProviderWatch((), 1e300), TONIGHT))
    told = as_watched(quiet, drifted=False, value=1.0)
    assert (told.verdict, told.stopped_because, told.alarm_after) == ("inconclusive", "segment_ended", None)
    assert (evidence_of(quiet), told.judged.events_at_stop) == (60, 60)
    moved = night(segment, WatchStop(ProviderWatch((), 1e4), TONIGHT))
    assert (moved.stopped_because, fresh < evidence_of(moved) < 60) == ("alarm", True)
