"""Logs that are on the state machine already, and how they read as if they ended where they were cut over."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from driftline.consumers.moved import EndingReader, Moved
from driftline.log import AppTopics, Coordinates, MemoryLog, Outgoing
from driftline.schemas import UsageError
from driftline.schemas.control import STATE_MACHINE, SpineCut

NOON = datetime(2026, 10, 1, 12, tzinfo=UTC)


@pytest.fixture
def log() -> MemoryLog:
    """Three events and three decisions in each of two partitions."""
    log = MemoryLog(partitions=2)
    topics = "claims.events", "claims.decisions"
    log.commit([Outgoing(topic, b"w", b"", 1, (), p) for topic in topics for p in range(2) for _ in range(3)])
    return log


def moved(offsets: dict[str, int]) -> Moved:
    cut = SpineCut(spine=STATE_MACHINE, rows_version="1", offsets=offsets)
    return Moved(AppTopics("claims"), cut, "mara", NOON)


def test_one_topic_ends_earlier_and_every_other_where_it_does(log: MemoryLog) -> None:
    reader = EndingReader(log, "claims.events", {0: 1})
    seen = [record.at for record in reader.read(reader.span("claims.events"))]
    assert seen == [Coordinates("claims.events", 0, 0), *(Coordinates("claims.events", 1, at) for at in range(3))]
    assert len(list(reader.read_to_latest("claims.events", 0))) == 1
    assert len(list(reader.read_to_latest("claims.decisions", 0))) == 3
    assert reader.span("claims.decisions") == log.span("claims.decisions")


def test_a_span_of_the_whole_log_is_not_read_past_the_end(log: MemoryLog) -> None:
    reader = EndingReader(log, "claims.events", {0: 0, 1: 2})
    assert len(list(reader.read(log.span("claims.events")))) == 2


def test_a_log_that_moved_says_since_when_and_by_whom() -> None:
    said = str(moved({"1": 9, "0": 12}))
    assert said == (
        "claims is already on the state-machine spine, since claims.events[0]@12, claims.events[1]@9 "
        "(by mara, 2026-10-01T12:00:00.000Z)"
    )
    moved({"0": 12}).require_event_log()


def test_a_log_that_began_on_the_state_machine_never_was_an_event_log() -> None:
    with pytest.raises(UsageError, match=r"since its first start .* never was an event log"):
        moved({}).require_event_log()
