"""A member of a consumer group over one topic: records in order, positions only by transaction."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicPartition

from driftline.log.clients import REQUEST_TIMEOUT_S, kafka_error, make_reader, take
from driftline.log.positions import Unfinished, read_metadata
from driftline.log.reader import to_record
from driftline.log.records import Record
from driftline.log.settings import Settings
from driftline.log.writer import EXIT_FENCED
from driftline.schemas import KafkaUnreachable, UsageError

SESSION_TIMEOUT_MS = 10_000
"""A dead member's partitions move on after this, unless it comes back under its instance id before."""
POLL_INTERVAL_MS_MAX = 300_000
"""librdkafka's default: a member that does not poll for so long loses its partitions."""
QUEUED_KIBIBYTES_MAX = 4_096
"""What librdkafka fetches ahead of a partition; its own default of 64 MiB would be the process's memory."""

OnAssign = Callable[[dict[int, Unfinished | None]], None]
"""Told the partitions gained, with where each stands, before their first record is handed out; None where the group
has no position of a partition."""
OnRevoke = Callable[[Collection[int]], None]
"""Told the partitions that are going; they are another member's as soon as it returns."""


class PlaceTaken(UsageError):
    """Another process runs under the same instance id, and has this member's place in the group."""

    exit_code = EXIT_FENCED


class GroupConsumer:
    """Reads one topic as a member of a group, `read_committed`, cooperative-sticky; connects on `open`.

    Positions are never committed here: they go into the writer's transaction with `group_metadata`. The coordinator
    checks member and generation of a commit, not who owns the partition: with metadata read too late it accepts one
    for a partition that the member has just lost. So the metadata is read *before* a poll, and is given out after
    it only if the poll brought no rebalance: what was owned then is owned under it, or the commit is refused.

    Not guaranteed: the new consumer protocol (KIP-848); the classic protocol is the contract.

    Args:
        settings: Where the log is.
        group: Consumer group.
        topic: What it reads.
    """

    def __init__(self, settings: Settings, group: str, topic: str) -> None:
        self._settings = settings
        self._group = group
        self._topic = topic
        self._instance: str | None = None
        self._consumer: Any = None
        self._ended: dict[int, int] = {}
        self._owned: set[int] = set()
        self._paused: set[int] = set()
        self._assigned_once = False
        self._rebalanced = False
        self.group_metadata: Any = None
        """For the writer, until the next poll; None where a rebalance has just made it unsafe: poll again."""

    def open(
        self,
        on_assign: OnAssign,
        on_revoke: OnRevoke,
        on_lost: OnRevoke | None = None,
        instance: str | None = None,
    ) -> None:
        """Join the group. The callbacks run within `poll` and `close`.

        Args:
            on_assign: Told what was gained.
            on_revoke: Told what is going. Until it returns, positions may be committed under `group_metadata`.
            on_lost: Told what is another's already, so that nothing may be committed; None takes `on_revoke`.
            instance: `group.instance.id` (KIP-345): a process that starts again under it within the session timeout
                has its partitions back at once; of two that run, the older one is fenced. None leaves the group on
                `close`.
        """
        self._instance = instance
        self._consumer = make_reader(self._settings, self._configuration())
        self._consumer.subscribe(
            [self._topic],
            on_assign=lambda consumer, partitions: self._gain(partitions, on_assign),
            on_revoke=lambda consumer, partitions: self._revoke(partitions, on_revoke),
            on_lost=lambda consumer, partitions: self._lose(partitions, on_lost or on_revoke),
        )

    def poll(self, records_max: int, timeout_s: float) -> list[Record]:
        """The next records, at most so many: those that are there, else the first to come; empty after the timeout.

        Raises:
            PlaceTaken: Another process runs under the same instance id.
            KafkaUnreachable: The broker refuses or is gone for good.
        """
        before = self._consumer.consumer_group_metadata()
        self._rebalanced = False
        messages = take(self._consumer, records_max, timeout_s)
        records = [record for message in messages for record in self._read(message)]
        self.group_metadata = None if self._rebalanced else before
        return records

    @property
    def owned(self) -> frozenset[int]:
        """The partitions that are this member's as of the last poll."""
        return frozenset(self._owned)

    def at_end(self) -> bool:
        """Whether every owned partition was read to an end, and there was an assignment at all.

        Not guaranteed: that the end has not moved since; `read_to` and `ends` tell.
        """
        return self._assigned_once and self._owned <= self._ended.keys()

    def expect_more(self, partitions: Iterable[int | None]) -> None:
        """Records were just written to these partitions: their end is not reached until it is seen again."""
        for partition in partitions:
            if partition is not None:
                self._ended.pop(partition, None)

    def pause(self, partitions: Iterable[int]) -> None:
        """Let exactly these partitions wait; polling goes on, which keeps the membership."""
        wanted = set(partitions) & self._owned
        self._switch(self._consumer.pause, wanted - self._paused)
        self._switch(self._consumer.resume, (self._paused - wanted) & self._owned)
        self._paused = wanted

    def standing(self, partitions: Iterable[int]) -> dict[int, Unfinished | None]:
        """Where partitions stand by what is committed, None where nothing is.

        Waits for a transaction that is about to commit it.

        Raises:
            KafkaUnreachable: The broker does not answer.
        """
        return _standing(self._consumer, self._settings, self._topic, partitions)

    @property
    def read_to(self) -> dict[int, int]:
        """Where the end lay of each owned partition that was read to its end."""
        return dict(self._ended)

    def ends(self) -> dict[int, int]:
        """One past the last committed record of each partition of the topic.

        Asked of the consumer: an administrator's client that is used again and again through a broker's death can
        take the process with it (librdkafka#4605).

        Raises:
            KafkaUnreachable: The broker does not answer.
        """
        try:
            known = self._consumer.list_topics(self._topic, timeout=REQUEST_TIMEOUT_S).topics[self._topic].partitions
            asked = [TopicPartition(self._topic, number) for number in sorted(known)]
            return {p.partition: self._consumer.get_watermark_offsets(p, REQUEST_TIMEOUT_S)[1] for p in asked}
        except KafkaException as error:
            raise kafka_error(self._settings, error) from error

    def lags(self) -> dict[int, int]:
        """How many offsets lie between what was handed out and the end, by partition, as far as was fetched."""
        owned = [TopicPartition(self._topic, partition) for partition in self._owned]
        places = {found.partition: found.offset for found in self._consumer.position(owned)} if owned else {}
        return {p: self._high(p) - place for p, place in places.items() if place >= 0 and self._high(p) >= place}

    def close(self) -> None:
        """Leave the group; with an instance id its partitions wait for that to come back."""
        if self._consumer is not None:
            self._consumer.close()
            self._consumer = None

    def _configuration(self) -> dict[str, Any]:
        static = {} if self._instance is None else {"group.instance.id": self._instance}
        limits = {"session.timeout.ms": SESSION_TIMEOUT_MS, "max.poll.interval.ms": POLL_INTERVAL_MS_MAX}
        own = {name: self._settings.kafka.get(name, value) for name, value in limits.items()}
        return {
            "group.id": self._group,
            "auto.offset.reset": "earliest",
            "partition.assignment.strategy": "cooperative-sticky",
            "queued.max.messages.kbytes": QUEUED_KIBIBYTES_MAX,
            **own,
            **static,
        }

    def _read(self, message: Any) -> Iterable[Record]:
        error = message.error()
        if error is None:
            self._ended.pop(message.partition(), None)
            return (to_record(message),)
        if error.code() == KafkaError._PARTITION_EOF:
            self._ended[message.partition()] = message.offset()
        elif error.fatal() or error.code() not in _PASSING:
            self._raise(error)
        return ()

    def _raise(self, error: KafkaError) -> None:
        if error.code() == KafkaError.FENCED_INSTANCE_ID or "fenced" in error.str().lower():
            what = f"another process took the place of {self._instance} in the group {self._group}"
            raise PlaceTaken(what, "stop one of the two, or give it another slot")
        raise kafka_error(self._settings, KafkaException(error))

    def _switch(self, how: Any, partitions: Collection[int]) -> None:
        if partitions:
            how([TopicPartition(self._topic, partition) for partition in partitions])

    def _high(self, partition: int) -> int:
        high: int = self._consumer.get_watermark_offsets(TopicPartition(self._topic, partition), cached=True)[1]
        return high

    def _gain(self, partitions: list[TopicPartition], on_assign: OnAssign) -> None:
        gained = {partition.partition for partition in partitions}
        self._rebalanced = True
        self._assigned_once = True
        self._owned |= gained
        if gained:
            on_assign(self.standing(gained))

    def _revoke(self, partitions: list[TopicPartition], on_revoke: OnRevoke) -> None:
        """Not lost: under cooperative rebalancing they move on when this returns, so fresh metadata is safe here."""
        self._rebalanced = True
        try:
            self.group_metadata = self._consumer.consumer_group_metadata()
        except (RuntimeError, KafkaException):  # the group is being left: nothing may be committed any more
            self.group_metadata = None
        self._forget(partitions, on_revoke)

    def _lose(self, partitions: list[TopicPartition], on_lost: OnRevoke) -> None:
        self._rebalanced = True
        self.group_metadata = None
        self._forget(partitions, on_lost)

    def _forget(self, partitions: list[TopicPartition], told: OnRevoke) -> None:
        gone = {partition.partition for partition in partitions}
        self._switch(self._consumer.resume, gone & self._paused)  # a pause would outlast the assignment
        self._paused -= gone
        told(gone)
        self._owned -= gone
        for partition in gone:
            self._ended.pop(partition, None)


def group_standing(
    settings: Settings, group: str, topic: str, partitions: Iterable[int]
) -> dict[int, Unfinished | None]:
    """Where a group stands, asked from outside of it; None where it has no position.

    Raises:
        KafkaUnreachable: The broker does not answer.
    """
    consumer = make_reader(settings, {"group.id": group})
    try:
        return _standing(consumer, settings, topic, partitions)
    finally:
        consumer.close()


def _standing(
    consumer: Any, settings: Settings, topic: str, partitions: Iterable[int]
) -> dict[int, Unfinished | None]:
    asked = [TopicPartition(topic, partition) for partition in partitions]
    try:
        found = consumer.committed(asked, REQUEST_TIMEOUT_S)
    except KafkaException as error:
        raise kafka_error(settings, error) from error
    for partition in found:
        if partition.error is not None:
            raise KafkaUnreachable(f"{topic}[{partition.partition}]: {partition.error.str()}", "try again")
    return {p.partition: read_metadata(p.metadata, p.offset) if p.offset >= 0 else None for p in found}


_PASSING = {
    KafkaError._MAX_POLL_EXCEEDED,  # paused for long, it has lost its partitions, is told so, and joins again
    KafkaError._TRANSPORT,
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._RESOLVE,
    KafkaError._TIMED_OUT,
    KafkaError.REQUEST_TIMED_OUT,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.NOT_COORDINATOR,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.REBALANCE_IN_PROGRESS,
}
"""Errors that the client gets over by itself; `KafkaError.retriable` is false for all that a consumer hands out.

`_SSL` and `_AUTHENTICATION` are not among them: a handshake that fails, of a broker that restarts too, is told to the
client's callback and its log alone and handed out by no poll. Should one come all the same, it ends the process, and
the next start is told why it is not let in.
"""
