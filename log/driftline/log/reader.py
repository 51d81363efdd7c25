"""Reading ranges of the log: by offsets or event times, committed records only, and knowing where to stop."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from time import monotonic, sleep
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, IsolationLevel, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import OffsetSpec  # type: ignore[attr-defined]

from driftline.log.clients import (
    REQUEST_TIMEOUT_S,
    kafka_error,
    make_admin,
    make_reader,
    no_topic,
    take,
)
from driftline.log.records import Coordinates, Probe, Record, Span, to_ms
from driftline.log.settings import Settings
from driftline.schemas import KafkaUnreachable, UsageError
from driftline.schemas.cloudevents import epoch_ms

BATCH_RECORDS_MAX = 1000
"""Taken at once from what was fetched: several times faster than one by one."""
END_WAIT_MS = 20
"""The broker answers a fetch at the end of a partition after so long; librdkafka's 500 ms slow every range down."""
PROBE_BYTES_MAX = 16_384
"""Fetched for a single record; the broker sends at least one whole batch of records, however large it is (KIP-74)."""
_ONE_BY_ONE = {"fetch.message.max.bytes": PROBE_BYTES_MAX, "queued.min.messages": 1, "fetch.queue.backoff.ms": 0}
"""Nothing is fetched ahead; and what was queued for the last look does not keep the next one waiting for a second."""
SILENCE_DEADLINE_S = 30.0
"""A read that gets neither a record nor an end of partition for so long gives up."""
LEADER_RECHECK_S = 0.05
_NO_LEADER_YET = {
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
}


class KafkaReader:
    """Reads spans of topics with `isolation.level=read_committed`; connects on first use, joins no group.

    Not guaranteed: order across partitions. The last offset of a transactional topic is a control record, so a
    span ends by position, never by having seen its last offset.

    Args:
        settings: Where the log is.
        request_timeout_s: Of one request; so late an address where nobody answers is told.
        silence_deadline_s: See `SILENCE_DEADLINE_S`; it outlasts every transaction that may be open.
    """

    def __init__(
        self,
        settings: Settings,
        request_timeout_s: float = REQUEST_TIMEOUT_S,
        silence_deadline_s: float = SILENCE_DEADLINE_S,
    ) -> None:
        self._settings = settings
        self._timeout_s = request_timeout_s
        self._silence_s = silence_deadline_s

    def span(self, topic: str, start: datetime | None = None, stop: datetime | None = None) -> Span:
        """The records whose event times lie in `[start, stop)`; all committed ones when neither is given.

        What a transaction that is committed or still open has written by now belongs to it: a commit returns before
        its records can be read, so `read` waits for them.

        Event times need not grow with offsets, so the range goes on to the end and `read` passes over what is not
        in time; where it begins, the broker tells. Where it ends the broker cannot tell: to `ListOffsets` the
        control record of a commit has the time of the broker's clock.

        Raises:
            UsageError: There is no such topic.
            KafkaUnreachable: No broker answers.
        """
        consumer = self._consumer()
        try:
            partitions = self._partitions(consumer, topic)
            lows = self._ends(topic, partitions, OffsetSpec.earliest())  # type: ignore[no-untyped-call]
            highs = self._ends(topic, partitions, OffsetSpec.latest())  # type: ignore[no-untyped-call]
            firsts = lows if start is None else self._at_time(topic, start, lows, highs)
        except KafkaException as error:
            raise kafka_error(self._settings, error) from error
        finally:
            consumer.close()
        ranges = {p: (firsts[p], max(firsts[p], highs[p])) for p in partitions}
        return Span(topic, ranges, to_ms(start), to_ms(stop))

    def read(self, span: Span, headers: bool = True) -> Iterator[Record]:
        """Every committed record of the span, partition after partition, in offset order within each.

        Waits for a transaction that is open within the span.

        Args:
            span: What to read.
            headers: Whether the records are wanted with theirs, which cost as much as all the rest of a record.

        Raises:
            UsageError: There is no such topic or partition, or it does not begin so early.
            KafkaUnreachable: The broker went silent, or a transaction stayed open past the deadline.
        """
        wanted = [(p, start, stop) for p, (start, stop) in sorted(span.ranges.items()) if start < stop]
        if not wanted:
            return
        consumer = self._consumer()
        try:
            self._require(consumer, span.topic, [partition for partition, _, _ in wanted])
            for partition, start, stop in wanted:
                first = TopicPartition(span.topic, partition, start)
                yield from filter(span.takes, self._read_partition(consumer, first, stop, headers))
        except KafkaException as error:
            raise kafka_error(self._settings, error) from error
        finally:
            consumer.close()

    def read_to_latest(self, topic: str, partition: int, headers: bool = True) -> Iterator[Record]:
        """Every committed record of a partition up to its latest offset of any kind.

        The target is the end as an uncommitted reader sees it: below the last stable offset of a transaction that
        is still open, updates would be lost (KAFKA-10167). So this waits until that transaction has ended.

        Raises:
            UsageError: There is no such topic or partition.
            KafkaUnreachable: The broker went silent, or a transaction stayed open past the deadline.
        """
        consumer = self._consumer()
        try:
            self._require(consumer, topic, [partition])
            target = self._ends(topic, [partition], OffsetSpec.latest())[partition]  # type: ignore[no-untyped-call]
            first = TopicPartition(topic, partition, OFFSET_BEGINNING)
            yield from self._read_partition(consumer, first, target, headers)
        except KafkaException as error:
            raise kafka_error(self._settings, error) from error
        finally:
            consumer.close()

    def read_one(self, at: Coordinates) -> Record | None:
        """The record at these coordinates; None when no committed record lies there."""
        held = self.span(at.topic).ranges.get(at.partition, (0, 0))
        if not held[0] <= at.offset < held[1]:
            return None
        span = Span(at.topic, {at.partition: (at.offset, at.offset + 1)})
        return next(iter(self.read(span)), None)

    @contextmanager
    def probing(self, topic: str) -> Iterator[Probe]:
        """Look at single records of a topic over one connection; each look hands over one record and no more.

        Waits for a transaction that is open within what is looked at.

        Not guaranteed: that no more than that record travels; the broker sends whole batches.

        Raises:
            UsageError: There is no such topic or partition, or it does not begin so early.
            KafkaUnreachable: The broker went silent, or a transaction stayed open past the deadline.
        """
        consumer = make_reader(self._settings, {"fetch.wait.max.ms": END_WAIT_MS, **_ONE_BY_ONE})

        def look(partition: int, start: int, stop: int) -> Record | None:
            _refuse_unknown(topic, [partition], known)
            first = TopicPartition(topic, partition, start)
            return next(self._read_partition(consumer, first, stop, False, 1), None) if start < stop else None

        try:
            known = self._partitions(consumer, topic)
            yield look
        except KafkaException as error:
            raise kafka_error(self._settings, error) from error
        finally:
            consumer.close()

    def _read_partition(
        self, consumer: Any, first: TopicPartition, stop: int, headers: bool, at_once: int = BATCH_RECORDS_MAX
    ) -> Iterator[Record]:
        """Records up to `stop`; an end of partition before it is that of an open transaction, and waited at."""
        consumer.assign([first])
        while stop > 0:
            messages = take(consumer, at_once, self._silence_s)
            if not messages:
                raise KafkaUnreachable(f"{first.topic}[{first.partition}]: the broker went silent", "try again")
            for message in messages:
                error = message.error()
                if error is not None and error.code() == KafkaError._PARTITION_EOF:
                    if message.offset() < stop:
                        continue
                    return
                if error is not None:
                    raise KafkaException(error)
                if message.offset() >= stop:
                    return
                yield to_record(message, headers)
                if message.offset() == stop - 1:
                    return

    def _ends(self, topic: str, partitions: list[int], which: Any) -> dict[int, int]:
        """One end of each partition, uncommitted records included; a topic just made may have no leaders yet."""
        admin = make_admin(self._settings)  # it forgets its requests when it is let go
        admin.list_topics(topic, timeout=self._timeout_s)  # else one question in twenty waits for a second or three
        asked = {TopicPartition(topic, partition): which for partition in partitions}
        deadline = monotonic() + self._timeout_s
        while True:
            futures = admin.list_offsets(
                asked, isolation_level=IsolationLevel.READ_UNCOMMITTED, request_timeout=self._timeout_s
            )
            try:
                return {tp.partition: int(f.result(self._timeout_s + 1).offset) for tp, f in futures.items()}
            except KafkaException as error:
                if error.args[0].code() not in _NO_LEADER_YET or monotonic() > deadline:
                    raise
                sleep(LEADER_RECHECK_S)

    def _consumer(self) -> Any:
        return make_reader(self._settings, {"fetch.wait.max.ms": END_WAIT_MS})

    def _require(self, consumer: Any, topic: str, partitions: list[int]) -> None:
        _refuse_unknown(topic, partitions, self._partitions(consumer, topic))

    def _partitions(self, consumer: Any, topic: str) -> list[int]:
        listed = consumer.list_topics(timeout=self._timeout_s).topics.get(topic)
        if listed is None:
            raise no_topic(topic)
        return sorted(listed.partitions)

    def _at_time(self, topic: str, time: datetime, lows: dict[int, int], highs: dict[int, int]) -> dict[int, int]:
        """An offset before which nothing is at or after a time; the end where nothing is. Negative times mean other
        things.

        Asked as the ends are: a committed reader's question passes over what was committed just now.

        The broker looks at the first log segment that reaches the time, and at no later one. Where records have been
        deleted, that segment may still be there and hold none that can be read: the broker then tells of no offset,
        whatever lies behind it. So there the range begins where the partition does.
        """
        asked = OffsetSpec.for_timestamp(max(0, epoch_ms(time)))
        found = self._ends(topic, list(highs), asked)
        unknown = {partition: low if low > 0 else highs[partition] for partition, low in lows.items()}
        return {partition: offset if offset >= 0 else unknown[partition] for partition, offset in found.items()}


def _refuse_unknown(topic: str, partitions: list[int], known: list[int]) -> None:
    missing = set(partitions) - set(known)
    if missing:
        raise UsageError(f"{topic} has no partition {min(missing)}")


def to_record(message: Any, headers: bool = True) -> Record:
    """A confluent-kafka message as a `Record`, without its headers where they are not wanted."""
    return Record(
        at=Coordinates(message.topic(), message.partition(), message.offset()),
        key=message.key(),
        value=message.value(),
        timestamp_ms=message.timestamp()[1],
        headers=tuple(message.headers() or ()) if headers else (),
    )
