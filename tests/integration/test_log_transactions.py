"""Transactions on the real broker: all or nothing, whatever becomes of the writer."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from queue import SimpleQueue

import pytest
from confluent_kafka import KafkaException, TopicPartition

from driftline.log import (
    AppTopics,
    CommitRefused,
    GroupConsumer,
    KafkaReader,
    Outgoing,
    Position,
    Record,
    Settings,
    TopicAdmin,
    TransactionalWriter,
    Unfinished,
    WriterFenced,
)
from driftline.log.clients import make_reader
from driftline.log.positions import METADATA_BYTES_MAX
from driftline.schemas import UsageError

pytestmark = pytest.mark.integration

NOON_MS = 1_782_907_200_000


@pytest.fixture
def topics(cluster: Settings, app_name: str) -> AppTopics:
    topics = AppTopics(app_name)
    TopicAdmin(cluster).ensure(topics.specs(cluster.partitions))
    return topics


@pytest.fixture
def writer(cluster: Settings, topics: AppTopics) -> Iterator[TransactionalWriter]:
    writer = TransactionalWriter(cluster, f"driftline.{topics.app}.0")
    yield writer
    writer.close()


def _fact(topics: AppTopics, value: bytes, partition: int | None = 0) -> Outgoing:
    return Outgoing(topics.events, b"w", value, NOON_MS, [("ce_id", value[:8])], partition)


def _values(cluster: Settings, topic: str) -> list[bytes | None]:
    reader = KafkaReader(cluster)
    return [record.value for record in reader.read(reader.span(topic))]


def test_a_commit_tells_where_each_record_lies(
    cluster: Settings, topics: AppTopics, writer: TransactionalWriter
) -> None:
    placed = writer.commit([_fact(topics, b"a"), _fact(topics, b"b", 1), _fact(topics, b"c")])
    reader = KafkaReader(cluster)
    read = [reader.read_one(at) for at in placed]
    assert [record.value for record in read if record is not None] == [b"a", b"b", b"c"]


def test_nothing_of_a_block_that_raises_is_visible(
    cluster: Settings, topics: AppTopics, writer: TransactionalWriter
) -> None:
    with pytest.raises(ZeroDivisionError), writer.transaction() as transaction:
        transaction.write([_fact(topics, b"a")])
        _ = 1 / 0
    writer.commit([_fact(topics, b"b")])
    assert _values(cluster, topics.events) == [b"b"]


@pytest.mark.parametrize("size", [1_500_000, 2_500_000], ids=["by the broker", "by the client"])
def test_a_record_refused_for_its_size_takes_the_whole_transaction_along(
    cluster: Settings, topics: AppTopics, writer: TransactionalWriter, size: int
) -> None:
    incompressible = os.urandom(size)
    with pytest.raises(CommitRefused, match="too large") as refused:
        writer.commit([_fact(topics, b"a"), _fact(topics, incompressible)])
    assert not refused.value.fenced
    writer.commit([_fact(topics, b"b")])
    assert _values(cluster, topics.events) == [b"b"]


def test_a_missing_topic_is_told_before_anything_is_written(
    cluster: Settings, topics: AppTopics, writer: TransactionalWriter
) -> None:
    with pytest.raises(UsageError, match=r"there is no topic nowhere\.events"):
        writer.commit([_fact(topics, b"a"), Outgoing("nowhere.events", b"w", b"b", NOON_MS)])
    assert _values(cluster, topics.events) == []


def test_decisions_can_name_the_offsets_of_events_of_their_own_transaction(
    cluster: Settings, topics: AppTopics, writer: TransactionalWriter
) -> None:
    with writer.transaction() as transaction:
        (at,) = transaction.write([_fact(topics, b"a")])
        transaction.write([Outgoing(topics.decisions, b"w", str(at).encode(), NOON_MS, partition=at.partition)])
    (decided,) = _values(cluster, topics.decisions)
    assert decided == f"{topics.events}[0]@0".encode()


def test_a_second_writer_with_the_same_id_fences_the_first_for_good(
    cluster: Settings, topics: AppTopics, writer: TransactionalWriter
) -> None:
    writer.commit([_fact(topics, b"a")])
    second = TransactionalWriter(cluster, writer.transactional_id)
    second.open()
    with pytest.raises(CommitRefused) as refused:
        writer.commit([_fact(topics, b"b")])
    assert refused.value.fenced
    with pytest.raises(WriterFenced, match="took"):
        writer.commit([_fact(topics, b"c")])
    second.commit([_fact(topics, b"d")])
    assert _values(cluster, topics.events) == [b"a", b"d"]


def test_a_writer_that_is_fenced_within_its_transaction_says_so_before_anybody_is_told_where_a_record_lies(
    cluster: Settings, topics: AppTopics, writer: TransactionalWriter
) -> None:
    other = TransactionalWriter(cluster, writer.transactional_id)
    with pytest.raises(CommitRefused) as refused, writer.transaction() as transaction:
        transaction.write([_fact(topics, b"first")])
        other.open()
        transaction.write([_fact(topics, b"second")])
        pytest.fail("the second record was told to lie somewhere")
    assert refused.value.fenced
    assert _values(cluster, topics.events) == []
    other.close()


def test_a_writer_that_hears_of_its_fence_between_two_records_does_not_take_the_id_back(
    cluster: Settings, topics: AppTopics, writer: TransactionalWriter
) -> None:
    """librdkafka refuses the second record with no more than "fatal error"; why, its end of the transaction says."""
    writer.open()
    TransactionalWriter(cluster, writer.transactional_id).open()
    with pytest.raises(CommitRefused) as refused, writer.transaction() as transaction:
        with pytest.raises(KafkaException):
            transaction.send([_fact(topics, b"first")])
        transaction.send([_fact(topics, b"second")])
    assert refused.value.fenced
    with pytest.raises(WriterFenced, match="took"):
        writer.commit([_fact(topics, b"third")])


def test_a_fenced_writer_goes_on_when_it_is_opened_again(
    cluster: Settings, topics: AppTopics, writer: TransactionalWriter
) -> None:
    writer.open()
    TransactionalWriter(cluster, writer.transactional_id).open()
    with pytest.raises(CommitRefused):
        writer.commit([_fact(topics, b"a")])
    writer.open()
    writer.commit([_fact(topics, b"b")])
    assert _values(cluster, topics.events) == [b"b"]


KILLED = """
import sys
from driftline.log import Outgoing, Settings, TransactionalWriter
brokers, transactional_id, topic = sys.argv[1:]
writer = TransactionalWriter(Settings(bootstrap_servers=brokers), transactional_id)
with writer.transaction() as transaction:
    transaction.write([Outgoing(topic, b"w", b"half done", 1_782_907_200_000, partition=0)])
    print("written", flush=True)
    sys.stdin.read()
"""


def test_the_successor_of_a_killed_writer_aborts_what_it_left_open(
    cluster: Settings, topics: AppTopics, writer: TransactionalWriter
) -> None:
    arguments = [cluster.require_bootstrap(), writer.transactional_id, topics.events]
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"written\n"
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    writer.open()
    writer.commit([_fact(topics, b"successor")])
    reader = KafkaReader(cluster)
    assert [record.value for record in reader.read_to_latest(topics.events, 0)] == [b"successor"]


Member = Callable[[], GroupConsumer]


@pytest.fixture
def member(cluster: Settings, topics: AppTopics) -> Iterator[Member]:
    """A new member of the app's group; who did not leave it leaves it at the end of the test."""
    with ExitStack() as leaving:

        def join() -> GroupConsumer:
            consumer = GroupConsumer(cluster, f"driftline.{topics.app}", topics.events)
            leaving.callback(consumer.close)
            consumer.open(lambda positions: None, lambda partitions: None)
            return consumer

        yield join


def _poll(consumer: GroupConsumer) -> list[Record]:
    """The first records; the metadata that a commit needs is there then, too."""
    records: list[Record] = []
    while not records or consumer.group_metadata is None:
        records += consumer.poll(10, 1.0 if not records else 0.0)
    return records


def _committed(cluster: Settings, topics: AppTopics) -> int:
    consumer = make_reader(cluster, {"group.id": f"driftline.{topics.app}"})
    try:
        (at,) = consumer.committed([TopicPartition(topics.events, 0)], 15)
        return int(at.offset)
    finally:
        consumer.close()


def test_records_and_positions_are_committed_together(
    cluster: Settings, topics: AppTopics, writer: TransactionalWriter, member: Member
) -> None:
    writer.commit([_fact(topics, b"a"), _fact(topics, b"b")])
    consumer = member()
    read = _poll(consumer)
    position = Position(topics.events, 0, read[-1].at.offset + 1)
    writer.commit([Outgoing(topics.decisions, b"w", b"d", NOON_MS, partition=0)], [position], consumer.group_metadata)
    assert _committed(cluster, topics) == 2
    assert _values(cluster, topics.decisions) == [b"d"]


def test_a_refused_transaction_moves_no_position_and_may_be_sent_again(
    cluster: Settings, topics: AppTopics, writer: TransactionalWriter, member: Member
) -> None:
    writer.commit([_fact(topics, b"a")])
    consumer = member()
    _poll(consumer)
    position = Position(topics.events, 0, 1)
    with pytest.raises(CommitRefused):
        writer.commit([_fact(topics, os.urandom(1_500_000))], [position], consumer.group_metadata)
    assert consumer.standing([0]) == {0: None}
    writer.commit([_fact(topics, b"b")], [position], consumer.group_metadata)
    assert consumer.standing([0]) == {0: Unfinished(1, 1)}


def test_the_longest_metadata_travels_with_the_transaction_and_comes_back(
    cluster: Settings, topics: AppTopics, writer: TransactionalWriter, member: Member
) -> None:
    writer.commit([_fact(topics, b"a")])
    consumer = member()
    _poll(consumer)
    longest = "v1:1:" + "A" * (METADATA_BYTES_MAX - 5)
    writer.commit([], [Position(topics.events, 0, 1, longest)], consumer.group_metadata)
    reader = make_reader(cluster, {"group.id": f"driftline.{topics.app}"})
    (at,) = reader.committed([TopicPartition(topics.events, 0)], 15)
    reader.close()
    assert (at.offset, at.metadata, len(at.metadata)) == (1, longest, 4_095)


def test_one_byte_more_of_metadata_loses_the_transaction(
    cluster: Settings, topics: AppTopics, writer: TransactionalWriter, member: Member
) -> None:
    writer.commit([_fact(topics, b"a")])
    consumer = member()
    _poll(consumer)
    too_long = "A" * (METADATA_BYTES_MAX + 1)
    with pytest.raises(CommitRefused):
        writer.commit([_fact(topics, b"b")], [Position(topics.events, 0, 1, too_long)], consumer.group_metadata)
    assert _values(cluster, topics.events) == [b"a"]


def test_with_fresh_metadata_the_coordinator_takes_a_commit_for_a_partition_that_was_just_lost(
    cluster: Settings, topics: AppTopics, writer: TransactionalWriter, member: Member
) -> None:
    """The trap: member and generation are checked, ownership is not. `poll` never gives such metadata out."""
    writer.commit([_fact(topics, b"a")])
    first, second = member(), member()
    lost = _rebalance(first, second)
    fresh = first.group_metadata
    writer.commit([], [Position(topics.events, lost, 77)], fresh)
    assert second.standing([lost]) == {lost: Unfinished(77, 77)}


def test_metadata_read_before_a_rebalance_is_refused_after_it(
    cluster: Settings, topics: AppTopics, writer: TransactionalWriter, member: Member
) -> None:
    writer.commit([_fact(topics, b"a")])
    first = member()
    _poll(first)
    old = first.group_metadata
    second = member()
    lost = _rebalance(first, second)
    with pytest.raises(CommitRefused) as refused:
        writer.commit([], [Position(topics.events, lost, 77)], old)
    assert refused.value.stale_group


def _rebalance(first: GroupConsumer, second: GroupConsumer) -> int:
    """Poll both until each has a partition, and the metadata of both is settled; the one that the first has lost."""
    while not (len(first.owned) == len(second.owned) == 1 and first.group_metadata and second.group_metadata):
        first.poll(10, 0.05)
        second.poll(10, 0.05)
    (lost,) = second.owned
    return lost


def test_positions_of_a_member_that_left_the_group_are_refused(
    cluster: Settings, topics: AppTopics, writer: TransactionalWriter, member: Member
) -> None:
    writer.commit([_fact(topics, b"a")])
    consumer = member()
    _poll(consumer)
    metadata = consumer.group_metadata
    consumer.close()
    with pytest.raises(CommitRefused) as refused:
        writer.commit([_fact(topics, b"b")], [Position(topics.events, 0, 1)], metadata)
    assert (refused.value.stale_group, refused.value.fenced) == (True, False)
    assert _values(cluster, topics.events) == [b"a"]


@pytest.mark.parametrize("commits", [True, False], ids=["committed", "aborted"])
def test_reading_to_the_latest_waits_until_an_open_transaction_has_ended(
    cluster: Settings, topics: AppTopics, writer: TransactionalWriter, commits: bool
) -> None:
    writer.commit([_fact(topics, b"before")])
    seen: SimpleQueue[bytes | None] = SimpleQueue()

    def read() -> None:
        for record in KafkaReader(cluster).read_to_latest(topics.events, 0):
            seen.put(record.value)

    reading = threading.Thread(target=read)
    try:
        with writer.transaction() as transaction:
            transaction.write([_fact(topics, b"within")])
            reading.start()
            assert seen.get(timeout=60) == b"before"
            assert seen.empty()
            if not commits:
                raise InterruptedError
    except InterruptedError:
        assert not commits
    reading.join()
    assert [seen.get() for _ in range(seen.qsize())] == ([b"within"] if commits else [])


def test_a_paused_partition_that_went_and_came_back_is_read(
    cluster: Settings, topics: AppTopics, writer: TransactionalWriter, member: Member
) -> None:
    first = member()
    while not first.owned:
        first.poll(1, 0.05)
    first.pause(first.owned)
    second = member()  # not before: a member that has joined and is not polled holds everybody's rebalance up
    _rebalance(first, second)
    second.close()
    while len(first.owned) < cluster.partitions:
        first.poll(1, 0.05)
    first.pause([])
    writer.commit([_fact(topics, b"%d" % partition, partition) for partition in range(cluster.partitions)])
    found: set[int] = set()
    while len(found) < cluster.partitions:
        found |= {record.at.partition for record in first.poll(10, 1.0)}
