"""The log in memory: the same reading and writing, for tests. It proves nothing of delivery."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from driftline.log.records import Coordinates, LogTransaction, Outgoing, Position, Probe, Record, Span, to_ms
from driftline.schemas import UsageError


class MemoryLog:
    """Topics as lists; a `LogReader` and a `LogWriter`.

    Not guaranteed: transactions among several writers, retention, compaction, limits of size.

    Args:
        partitions: Of every topic.
    """

    def __init__(self, partitions: int = 1) -> None:
        self.partitions = partitions
        self.positions: dict[tuple[str, int], Position] = {}
        self._records: dict[tuple[str, int], list[Record]] = defaultdict(list)

    def commit(
        self, records: Sequence[Outgoing], positions: Sequence[Position] = (), group: Any = None
    ) -> list[Coordinates]:
        """Append the records and keep the positions; `group` is ignored."""
        with self.transaction() as transaction:
            placed = transaction.write(records)
            transaction.send_positions(positions, group)
        return placed

    @contextmanager
    def transaction(self) -> Iterator[LogTransaction]:
        """As `LogWriter.transaction`; offsets are given as if no other transaction were open."""
        open_ = _Open(self)
        yield open_
        for record in open_.records:
            self._records[record.at.topic, record.at.partition].append(record)
        self.positions.update({(position.topic, position.partition): position for position in open_.positions})

    def span(self, topic: str, start: datetime | None = None, stop: datetime | None = None) -> Span:
        """As `LogReader.span`; a topic that nobody wrote to is empty."""
        start_ms, stop_ms = to_ms(start), to_ms(stop)
        ranges = {}
        for partition in range(self.partitions):
            records = self._records[topic, partition]
            first = next(
                (r.at.offset for r in records if start_ms is None or r.timestamp_ms >= start_ms), len(records)
            )
            ranges[partition] = (first, len(records))
        return Span(topic, ranges, start_ms, stop_ms)

    def read(self, span: Span, headers: bool = True) -> Iterator[Record]:
        """As `LogReader.read`."""
        for partition, (start, stop) in sorted(span.ranges.items()):
            yield from filter(span.takes, self._records[span.topic, partition][start:stop])

    def read_to_latest(self, topic: str, partition: int, headers: bool = True) -> Iterator[Record]:
        """As `KafkaReader.read_to_latest`."""
        yield from self._records[topic, partition]

    @contextmanager
    def probing(self, topic: str) -> Iterator[Probe]:
        """As `LogReader.probing`."""
        yield lambda partition, start, stop: next(iter(self._records[topic, partition][start:stop]), None)

    def read_one(self, at: Coordinates) -> Record | None:
        """As `KafkaReader.read_one`."""
        return next(iter(self._records[at.topic, at.partition][at.offset : at.offset + 1]), None)

    def end(self, topic: str, partition: int) -> int:
        """The offset that the next record gets."""
        return len(self._records[topic, partition])


class _Open(LogTransaction):
    """A transaction of a `MemoryLog`."""

    def __init__(self, log: MemoryLog) -> None:
        self._log = log
        self._written: Counter[tuple[str, int]] = Counter()
        self.records: list[Record] = []
        self.positions: list[Position] = []

    def write(self, records: Sequence[Outgoing]) -> list[Coordinates]:
        placed = [self._place(record) for record in records]
        return [record.at for record in placed]

    def send_positions(self, positions: Sequence[Position], group: Any) -> None:
        self.positions.extend(positions)

    def _place(self, record: Outgoing) -> Record:
        partition = record.partition
        if partition is None:
            partition = partition_of(record.key or b"", self._log.partitions)
        if not 0 <= partition < self._log.partitions:
            raise UsageError(f"{record.topic} has no partition {partition}")
        offset = self._log.end(record.topic, partition) + self._written[record.topic, partition]
        self._written[record.topic, partition] += 1
        at = Coordinates(record.topic, partition, offset)
        self.records.append(Record(at, record.key, record.value, record.timestamp_ms, tuple(record.headers)))
        return self.records[-1]


def partition_of(key: bytes, partitions: int) -> int:
    """The partition that Java's default partitioner and `murmur2_random` give a key."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions


def murmur2(data: bytes) -> int:
    """MurmurHash2, 32 bits, as Kafka's Java client computes it (org.apache.kafka.common.utils.Utils.murmur2)."""
    m, mask = 0x5BD1E995, 0xFFFFFFFF
    h = 0x9747B28C ^ len(data)
    whole = len(data) - len(data) % 4
    for start in range(0, whole, 4):
        k = int.from_bytes(data[start : start + 4], "little") * m & mask
        h = h * m & mask ^ (k ^ k >> 24) * m & mask
    if whole < len(data):
        h = (h ^ int.from_bytes(data[whole:], "little")) * m & mask
    h = (h ^ h >> 13) * m & mask
    return h ^ h >> 15
