"""The range of a night: nothing of the night is left out of it, and finding it costs a few looks."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.replay.conftest import question

from driftline.log import AppTopics, MemoryLog, Outgoing, Record, Span
from driftline.log.events import decision_record
from driftline.log.records import Probe
from driftline.replay.night_range import CLOCK_MARGIN, night_ranges, require_history
from driftline.schemas import BadInput, Codec, Contracts, Registry
from driftline.schemas.names import DECISION

TOPIC = AppTopics("quiz").decisions
FIRST = datetime(2026, 10, 1, tzinfo=UTC)
DAY = timedelta(days=1)
MINUTES_A_DAY = 24 * 60


class CountingLog(MemoryLog):
    """Counts the records that it hands out to who looks at single ones."""

    looked = 0

    @contextmanager
    def probing(self, topic: str) -> Iterator[Probe]:
        with super().probing(topic) as probe:

            def look(partition: int, start: int, stop: int) -> Record | None:
                self.looked += 1
                return probe(partition, start, stop)

            yield look


@pytest.fixture(scope="session")
def codec() -> Codec:
    registry, contracts = Registry("mock://nights"), Contracts.load()
    registry.ensure(TOPIC, contracts.require(DECISION))
    return Codec(registry, contracts)


def log_of(times: Sequence[datetime], codec: Codec) -> CountingLog:
    """Decisions on one partition, decided at these times in this order."""
    log, like = CountingLog(), question(0)
    decisions = [like.model_copy(update={"decided_at": time}) for time in times]
    log.commit([decision_record(decision, TOPIC, codec) for decision in decisions])
    return log


def outside(times: Sequence[datetime], found: tuple[int, int]) -> list[datetime]:
    """What of the night the range leaves out."""
    start, stop = found
    left = [*times[:start], *times[stop:]]
    return [time for time in left if FIRST <= time < FIRST + DAY]


def test_what_is_looked_at_grows_with_the_logarithm_of_the_log_and_the_range_not_at_all(codec: Codec) -> None:
    sizes, looks = [], []
    for days in (4, 64):
        every = 10
        times = [FIRST + timedelta(minutes=m) for m in range(-days * MINUTES_A_DAY // 2, days * 720, every)]
        log = log_of(times, codec)
        start, stop = night_ranges(log, codec, TOPIC, FIRST, FIRST + DAY)[0]
        assert outside(times, (start, stop)) == []
        sizes.append(stop - start)
        looks.append(log.looked)
    a_night, margins = MINUTES_A_DAY // 10, 2 * int(CLOCK_MARGIN / timedelta(minutes=10))
    assert sizes == [a_night + margins] * 2
    assert looks[0] <= 2 * 10 + 1, "576 decisions"
    assert looks[1] - looks[0] <= 2 * 4, "16 times as many are 4 doublings"


@given(
    steps=st.lists(st.integers(0, 400), min_size=1, max_size=60),
    back=st.lists(st.integers(0, 60), min_size=60, max_size=60),
    begins=st.integers(-4000, 1500),
)
def test_a_night_loses_nothing_though_its_clock_was_set_back_within_the_margin(
    steps: list[int], back: list[int], begins: int, codec: Codec
) -> None:
    """Each is at most the margin behind a clock that never goes back: so it is behind those before it."""
    minute, times = begins, []
    for step, behind in zip(steps, back, strict=False):
        minute += step
        times.append(FIRST + timedelta(minutes=minute - behind))
    log = log_of(times, codec)
    found = night_ranges(log, codec, TOPIC, FIRST, FIRST + DAY, timedelta(minutes=60))[0]
    assert outside(times, found) == []


def test_a_partition_that_shows_to_be_out_of_order_is_read_whole(codec: Codec) -> None:
    times = [FIRST + timedelta(hours=hours) for hours in range(48)]
    random.Random(3).shuffle(times)
    assert night_ranges(log_of(times, codec), codec, TOPIC, FIRST, FIRST + DAY) == {0: (0, 48)}


@pytest.mark.parametrize(("hours", "found"), [(-90, (48, 48)), (90, (0, 0))], ids=["before", "after"])
def test_a_night_of_which_nothing_is_there_is_an_empty_range(
    hours: int, found: tuple[int, int], codec: Codec
) -> None:
    log = log_of([FIRST + timedelta(hours=hours + number) for number in range(48)], codec)
    assert night_ranges(log, codec, TOPIC, FIRST, FIRST + DAY) == {0: found}


def test_an_empty_partition_is_an_empty_range(codec: Codec) -> None:
    assert night_ranges(MemoryLog(2), codec, TOPIC, FIRST, FIRST + DAY) == {0: (0, 0), 1: (0, 0)}


def test_a_record_that_is_no_decision_is_told_by_its_place(codec: Codec) -> None:
    log = log_of([FIRST], codec)
    log.commit([Outgoing(TOPIC, b"w", b"no decision", 1)] * 3)
    with pytest.raises(BadInput, match=r"\[0\]@\d is no decision"):
        night_ranges(log, codec, TOPIC, FIRST - DAY, FIRST + DAY + DAY)


class CutLog(MemoryLog):
    """Of whose only partition so many records have been deleted."""

    low = 0

    def span(self, topic: str, start: datetime | None = None, stop: datetime | None = None) -> Span:
        whole = super().span(topic, start, stop)
        return Span(topic, {0: (self.low, whole.ranges[0][1])})


def cut(times: Sequence[datetime], low: int, codec: Codec) -> CutLog:
    log, whole = CutLog(), log_of(times, codec)
    log.commit([Outgoing(TOPIC, one.key, one.value, one.timestamp_ms) for one in whole.read(whole.span(TOPIC))])
    log.low = low
    return log


TIMES = [FIRST + hour * timedelta(hours=1) for hour in (-30, -20, 30, 40)]
"""None in the night."""


@pytest.mark.parametrize(("low", "since"), [(2, r"\[0\]@2 on, decided at 2026-10-02T06"), (4, "nothing is left")])
def test_a_night_that_may_have_been_deleted_is_not_taken_for_an_empty_one(low: int, since: str, codec: Codec) -> None:
    with pytest.raises(BadInput, match=since):
        require_history(cut(TIMES, low, codec), codec, TOPIC, FIRST + DAY)


@pytest.mark.parametrize("low", [0, 1])
def test_a_night_is_empty_where_the_log_reaches_behind_it(low: int, codec: Codec) -> None:
    require_history(cut(TIMES, low, codec), codec, TOPIC, FIRST + DAY)
