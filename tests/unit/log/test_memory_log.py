"""The log in memory, where it needs no broker to be compared with."""

from datetime import UTC, datetime

import pytest

from driftline.log import Coordinates, MemoryLog, Outgoing, Position
from driftline.log.memory import murmur2
from driftline.schemas import BadInput, UsageError


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_murmur2_gives_what_kafkas_own_tests_expect(key: bytes, expected: int) -> None:
    """Source: org.apache.kafka.common.utils.UtilsTest.testMurmur2."""
    assert murmur2(key) == expected % 2**32


def test_what_a_block_that_raises_wrote_is_not_there() -> None:
    log = MemoryLog()
    with pytest.raises(InterruptedError), log.transaction() as transaction:
        transaction.write([Outgoing("a.events", b"w", b"v", 1)])
        transaction.send_positions([Position("a.events", 0, 1)], None)
        raise InterruptedError
    assert list(log.read_to_latest("a.events", 0)) == []
    assert log.positions == {}


def test_offsets_go_on_within_a_transaction() -> None:
    log = MemoryLog()
    with log.transaction() as transaction:
        first = transaction.write([Outgoing("a.events", b"w", b"1", 1)] * 2)
        second = transaction.write([Outgoing("a.events", b"w", b"2", 1)])
    assert [at.offset for at in first + second] == [0, 1, 2]
    record = log.read_one(second[0])
    assert record is not None
    assert record.value == b"2"
    assert log.read_one(Coordinates("a.events", 0, 3)) is None


def test_a_partition_that_is_not_there_is_refused_and_nothing_written() -> None:
    log = MemoryLog(partitions=2)
    with pytest.raises(UsageError, match="no partition 2"):
        log.commit([Outgoing("a.events", b"w", b"v", 1, (), 0), Outgoing("a.events", b"w", b"v", 1, (), 2)])
    assert log.span("a.events").offsets == 0


def test_a_topic_that_nobody_wrote_to_is_empty() -> None:
    log = MemoryLog(partitions=2)
    span = log.span("a.events", datetime(2026, 1, 1, tzinfo=UTC))
    assert span.ranges == {0: (0, 0), 1: (0, 0)}
    assert list(log.read(span)) == []


def test_coordinates_are_read_as_they_are_written() -> None:
    at = Coordinates("my-app.decisions", 3, 42)
    assert Coordinates.parse(str(at)) == at
    with pytest.raises(BadInput, match="renewals"):
        Coordinates.parse("my-app.decisions:3:42")
