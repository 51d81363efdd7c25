"""Following one partition outside of any group: everything that is there, then whatever comes."""

from __future__ import annotations

from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicPartition

from driftline.log.clients import kafka_error, make_reader, take
from driftline.log.reader import BATCH_RECORDS_MAX, SILENCE_DEADLINE_S, KafkaReader, to_record
from driftline.log.records import Record
from driftline.log.settings import Settings
from driftline.schemas import KafkaUnreachable

FETCH_WAIT_MS_MAX = 100
"""The broker answers a fetch at the end of the partition after so long; it bounds what `open` waits beyond the last
record, and makes ten idle requests a second."""


class TopicTail:
    """Reads a partition whole and then follows it; commits no position. Not for several threads.

    Every committed record is handed out once, in offset order: by `open` what was written before it was called, by
    `poll` the rest.

    Args:
        settings: Where the log is.
        topic: What to follow.
        partition: Which of its partitions.
        silence_deadline_s: `open` gives up after so long without a record; it outlasts any transaction.
    """

    def __init__(
        self,
        settings: Settings,
        topic: str,
        partition: int = 0,
        silence_deadline_s: float = SILENCE_DEADLINE_S,
    ) -> None:
        self._settings = settings
        self._topic = topic
        self._partition = partition
        self._silence_s = silence_deadline_s
        self._consumer: Any = None
        self._next = 0

    def open(self) -> list[Record]:
        """Connect, and read up to the latest offset of any kind; waits for a transaction that is open below it.

        Raises:
            UsageError: There is no such topic.
            KafkaUnreachable: No broker answers, or a transaction stayed open past the deadline.
        """
        start, stop = KafkaReader(self._settings).span(self._topic).ranges[self._partition]
        self._consumer = make_reader(self._settings, {"fetch.wait.max.ms": FETCH_WAIT_MS_MAX})
        self._consumer.assign([TopicPartition(self._topic, self._partition, start)])
        self._next = start
        found: list[Record] = []
        while self._next < stop:
            messages = take(self._consumer, BATCH_RECORDS_MAX, self._silence_s)
            if not messages:
                raise KafkaUnreachable(f"{self._topic}[{self._partition}]: the broker went silent", "try again")
            found.extend(self._records(messages))
        return found

    def poll(self, timeout_s: float = 0.0) -> list[Record]:
        """What has come since; without a timeout it never waits, since the client fetches on threads of its own.

        Not guaranteed: that what was committed just now is there already.

        Raises:
            UsageError: The topic is gone, or the broker refuses to let it be read.
            KafkaUnreachable: The client gave up.
        """
        return self._records(take(self._consumer, BATCH_RECORDS_MAX, timeout_s))

    def close(self) -> None:
        """Let the connection go."""
        if self._consumer is not None:
            self._consumer.close()
            self._consumer = None

    def _records(self, messages: list[Any]) -> list[Record]:
        """The records among the messages; an end of partition tells a position too, past control records."""
        records = []
        for message in messages:
            error = message.error()
            if error is None:
                records.append(to_record(message))
                self._next = message.offset() + 1
            elif error.code() == KafkaError._PARTITION_EOF:
                self._next = max(self._next, message.offset())
            elif not error.retriable():
                raise kafka_error(self._settings, KafkaException(error))
        return records
