"""A member of a consumer group over one topic: records in order, positions only by transaction."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, KafkaError, KafkaException, TopicPartition

from driftline.log.clients import REQUEST_TIMEOUT_S, kafka_error, make_reader, take
from driftline.log.reader import to_record
from driftline.log.records import Record
from driftline.log.settings import Settings
from driftline.schemas import KafkaUnreachable

SESSION_TIMEOUT_MS = 10_000
"""A dead member's partitions move on after this."""
POLL_INTERVAL_MS_MAX = 300_000
"""librdkafka's default: a member that does not poll for so long loses its partitions."""

OnAssign = Callable[[dict[int, int]], None]
"""Told the partitions gained, with the position that each goes on from, before their first record is handed out."""


class GroupConsumer:
    """Reads one topic as a member of a group, `read_committed`, cooperative-sticky; connects on `open`.

    Positions are never committed here: they go into the writer's transaction with `group_metadata`, which is that
    of the last poll. The coordinator checks member and generation, so a batch polled before a rebalance is refused.
    """

    def __init__(self, settings: Settings, group: str, topic: str) -> None:
        self._settings = settings
        self._group = group
        self._topic = topic
        self._consumer: Any = None
        self._ended: set[int] = set()
        self._owned: set[int] = set()
        self._on_assign: OnAssign = lambda positions: None
        self._assigned_once = False
        self.group_metadata: Any = None

    def open(self, on_assign: OnAssign, on_revoke: Callable[[Iterable[int]], None]) -> None:
        """Join the group. Both callbacks run within `poll` and `close`."""
        self._on_assign = on_assign
        self._consumer = make_reader(
            self._settings,
            {
                "group.id": self._group,
                "auto.offset.reset": "earliest",
                "partition.assignment.strategy": "cooperative-sticky",
                "session.timeout.ms": SESSION_TIMEOUT_MS,
                "max.poll.interval.ms": POLL_INTERVAL_MS_MAX,
            },
        )
        self._consumer.subscribe(
            [self._topic],
            on_assign=lambda consumer, partitions: self._gain(partitions),
            on_revoke=lambda consumer, partitions: self._lose(partitions, on_revoke),
            on_lost=lambda consumer, partitions: self._lose(partitions, on_revoke),
        )

    def poll(self, records_max: int, timeout_s: float) -> list[Record]:
        """The next records, at most so many: those that are there, else the first to come; empty after the timeout.

        Raises:
            KafkaUnreachable: The broker refuses or is gone for good.
        """
        records = []
        for message in take(self._consumer, records_max, timeout_s):
            error = message.error()
            if error is None:
                records.append(to_record(message))
                self._ended.discard(message.partition())
            elif error.code() == KafkaError._PARTITION_EOF:
                self._ended.add(message.partition())
            elif not error.retriable():
                raise kafka_error(self._settings, KafkaException(error))
        self.group_metadata = self._consumer.consumer_group_metadata()
        return records

    def at_end(self) -> bool:
        """Whether every owned partition was read to its end, and there was an assignment at all."""
        return self._assigned_once and self._owned <= self._ended

    def expect_more(self, partitions: Iterable[int | None]) -> None:
        """Records were just written to these partitions: their end is not reached until it is seen again."""
        self._ended.difference_update(partition for partition in partitions if partition is not None)

    def rewind(self, on_assign: OnAssign) -> None:
        """Go back to the committed positions: the client does not do so after an aborted transaction."""
        positions = self._committed(self._owned)
        for partition, offset in positions.items():
            start = offset if offset > 0 else OFFSET_BEGINNING
            self._consumer.seek(TopicPartition(self._topic, partition, start))
        self._ended.clear()
        on_assign(positions)

    def close(self) -> None:
        """Leave the group."""
        if self._consumer is not None:
            self._consumer.close()
            self._consumer = None

    def _gain(self, partitions: list[TopicPartition]) -> None:
        gained = {partition.partition for partition in partitions}
        self._assigned_once = True
        self._owned |= gained
        if gained:
            self._on_assign(self._committed(gained))

    def _lose(self, partitions: list[TopicPartition], on_revoke: Callable[[Iterable[int]], None]) -> None:
        lost = {partition.partition for partition in partitions}
        self._owned -= lost
        self._ended -= lost
        on_revoke(lost)

    def _committed(self, partitions: Iterable[int]) -> dict[int, int]:
        asked = [TopicPartition(self._topic, partition) for partition in partitions]
        try:
            found = self._consumer.committed(asked, REQUEST_TIMEOUT_S)
        except KafkaException as error:
            raise kafka_error(self._settings, error) from error
        for partition in found:
            if partition.error is not None:
                raise KafkaUnreachable(f"{self._topic}[{partition.partition}]: {partition.error.str()}", "try again")
        return {partition.partition: max(0, partition.offset) for partition in found}
