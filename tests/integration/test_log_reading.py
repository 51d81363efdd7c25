"""Ranges of the real log: by time and by offset, and where they end."""

import random
from datetime import UTC, datetime, timedelta

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from driftline.log import (
    AppTopics,
    Coordinates,
    KafkaReader,
    LogReader,
    LogWriter,
    MemoryLog,
    Outgoing,
    Record,
    Settings,
    Span,
    TopicAdmin,
    TransactionalWriter,
    partition_of,
)
from driftline.schemas import UsageError
from driftline.schemas.cloudevents import epoch_ms

pytestmark = pytest.mark.integration

NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)


@pytest.fixture
def topics(cluster: Settings, app_name: str) -> AppTopics:
    topics = AppTopics(app_name)
    TopicAdmin(cluster).ensure(topics.specs(cluster.partitions))
    return topics


@pytest.fixture
def writer(cluster: Settings, topics: AppTopics) -> TransactionalWriter:
    return TransactionalWriter(cluster, f"driftline.{topics.app}.0")


@pytest.fixture
def reader(cluster: Settings) -> KafkaReader:
    return KafkaReader(cluster)


def _at(topic: str, minutes: int, partition: int | None = 0) -> Outgoing:
    time = NOON + timedelta(minutes=minutes)
    return Outgoing(topic, b"w", str(minutes).encode(), epoch_ms(time), (), partition)


def _minutes(records: list[Record]) -> list[int]:
    return [int(record.value or b"") for record in records]


def test_a_range_of_event_times_holds_what_lies_within(
    topics: AppTopics, writer: TransactionalWriter, reader: KafkaReader
) -> None:
    writer.commit([_at(topics.events, minutes) for minutes in range(10)])
    span = reader.span(topics.events, NOON + timedelta(minutes=3), NOON + timedelta(minutes=6))
    assert _minutes(list(reader.read(span))) == [3, 4, 5]


def test_a_range_of_event_times_is_exact_though_times_jump_and_commits_have_the_brokers_time(
    topics: AppTopics, writer: TransactionalWriter, reader: KafkaReader
) -> None:
    for minutes in (0, 7, 2, 9, 4, 1, 5, 3):
        writer.commit([_at(topics.events, minutes)])
    span = reader.span(topics.events, NOON + timedelta(minutes=2), NOON + timedelta(minutes=5))
    assert _minutes(list(reader.read(span))) == [2, 4, 3]


def test_a_range_ends_though_its_last_offsets_are_control_records(
    topics: AppTopics, writer: TransactionalWriter, reader: KafkaReader
) -> None:
    writer.commit([_at(topics.events, 0)])
    with pytest.raises(InterruptedError), writer.transaction() as transaction:
        transaction.write([_at(topics.events, 1)])
        raise InterruptedError
    span = reader.span(topics.events)
    assert span.ranges == {0: (0, 4), 1: (0, 0)}
    assert _minutes(list(reader.read(span))) == [0]


def test_a_range_of_control_records_alone_holds_nothing(
    topics: AppTopics, writer: TransactionalWriter, reader: KafkaReader
) -> None:
    writer.commit([_at(topics.events, 0)])
    writer.commit([_at(topics.events, 1)])
    assert list(reader.read(Span(topics.events, {0: (1, 2)}))) == []
    assert reader.read_one(Coordinates(topics.events, 0, 1)) is None


def test_a_range_does_not_reach_into_what_was_written_after_it(
    topics: AppTopics, writer: TransactionalWriter, reader: KafkaReader
) -> None:
    writer.commit([_at(topics.events, 0)])
    span = reader.span(topics.events)
    writer.commit([_at(topics.events, 1)])
    assert _minutes(list(reader.read(span))) == [0]


def test_an_empty_topic_is_an_empty_range(topics: AppTopics, reader: KafkaReader) -> None:
    span = reader.span(topics.events)
    assert span.offsets == 0
    assert list(reader.read(span)) == []
    assert list(reader.read_to_latest(topics.events, 0)) == []


def test_what_is_not_there_is_told_by_its_name(
    topics: AppTopics, writer: TransactionalWriter, reader: KafkaReader
) -> None:
    with pytest.raises(UsageError, match=r"there is no topic nowhere\.events; .*driftline topics create"):
        reader.span("nowhere.events")
    with pytest.raises(UsageError, match=r"there is no topic nowhere\.events"):
        list(reader.read_to_latest("nowhere.events", 0))
    with pytest.raises(UsageError, match="has no partition 7"):
        list(reader.read(Span(topics.events, {7: (0, 1)})))
    with pytest.raises(UsageError, match="Offset out of range"):
        list(reader.read(Span(topics.events, {0: (500, 501)})))


@pytest.mark.parametrize(
    "time",
    [datetime(1970, 1, 1, 0, 0, 0, 1000, UTC), datetime(1990, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC)],
    ids=str,
)
def test_event_times_may_lie_decades_away(
    topics: AppTopics, writer: TransactionalWriter, reader: KafkaReader, time: datetime
) -> None:
    (at,) = writer.commit([Outgoing(topics.events, b"w", b"v", epoch_ms(time))])
    span = reader.span(topics.events, time)
    (record,) = reader.read(span)
    assert (record.at, record.timestamp_ms) == (at, epoch_ms(time))


def test_a_range_may_begin_before_there_were_times(
    topics: AppTopics, writer: TransactionalWriter, reader: KafkaReader
) -> None:
    writer.commit([_at(topics.events, 0)])
    span = reader.span(topics.events, datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC))
    assert _minutes(list(reader.read(span))) == [0]


def test_a_range_of_event_times_loses_nothing_where_earlier_records_have_been_deleted(
    cluster: Settings, topics: AppTopics, writer: TransactionalWriter, reader: KafkaReader
) -> None:
    """The log segment that first reaches the time lies wholly below what is left, and is still there."""
    days = [24 * 60 * day for day in (20, 60, 100, 140)]  # further apart than `segment.ms`, a log segment each
    places = [writer.commit([_at(topics.events, minutes)])[0] for minutes in days]
    admin = AdminClient({"bootstrap.servers": cluster.require_bootstrap()})
    for future in admin.delete_records([TopicPartition(topics.events, 0, places[2].offset)]).values():
        future.result(60)
    found = [
        _minutes(list(reader.read(reader.span(topics.events, NOON + timedelta(days=day))))) for day in (10, 60, 120)
    ]
    assert found == [days[2:], days[2:], days[3:]]
    assert _minutes(list(reader.read(reader.span(topics.events, NOON + timedelta(days=200))))) == []


def test_keys_lie_where_a_java_producer_puts_them(cluster: Settings, topics: AppTopics) -> None:
    topic = f"{topics.app}.placement"
    wide = cluster.model_copy(update={"partitions": 7})
    TopicAdmin(wide).ensure([spec for spec in AppTopics(f"{topics.app}-w").specs(7) if spec.name.endswith(".events")])
    topic = f"{topics.app}-w.events"
    draws = random.Random(7)
    keys = [draws.randbytes(draws.randrange(1, 40)) for _ in range(300)]
    writer = TransactionalWriter(cluster, f"driftline.{topics.app}.0")
    placed = writer.commit([Outgoing(topic, key, b"v", 1) for key in keys])
    assert [at.partition for at in placed] == [partition_of(key, 7) for key in keys]


def _told(
    log: LogReader, span: Span
) -> list[tuple[int, bytes | None, bytes | None, int, tuple[tuple[str, bytes], ...]]]:
    return [
        (record.at.partition, record.key, record.value, record.timestamp_ms, tuple(record.headers))
        for record in log.read(span)
    ]


@pytest.fixture(params=["kafka", "memory"])
def log(request: pytest.FixtureRequest, cluster: Settings, topics: AppTopics) -> tuple[LogReader, LogWriter]:
    if request.param == "kafka":
        return KafkaReader(cluster), TransactionalWriter(cluster, f"driftline.{topics.app}.0")
    memory = MemoryLog(cluster.partitions)
    return memory, memory


def test_kafka_and_its_twin_in_memory_tell_the_same_story(
    log: tuple[LogReader, LogWriter], topics: AppTopics
) -> None:
    reader, writer = log
    keys = [b"", b"a", b"bc", "ä".encode(), b"\x00\xff"]
    story = [
        Outgoing(topics.events, key, b"v%d" % n, epoch_ms(NOON + timedelta(minutes=n)), [("ce_id", b"%d" % n)])
        for n, key in enumerate(keys)
    ]
    writer.commit(story[:2])
    with pytest.raises(InterruptedError), writer.transaction() as transaction:
        transaction.write([_at(topics.events, 2)])
        raise InterruptedError
    with writer.transaction() as transaction:
        transaction.write(story[2:4])
        transaction.write([story[4], Outgoing(topics.events, None, None, 5, (), 1)])

    def expected(*records: Outgoing) -> list[object]:
        placed = [(partition_of(r.key or b"", 2) if r.partition is None else r.partition, r) for r in records]
        found = sorted(placed, key=lambda pair: pair[0])
        return [(p, r.key, r.value, r.timestamp_ms, tuple(r.headers)) for p, r in found]

    assert _told(reader, reader.span(topics.events)) == expected(
        *story, Outgoing(topics.events, None, None, 5, (), 1)
    )
    within = reader.span(topics.events, NOON + timedelta(minutes=1), NOON + timedelta(minutes=3))
    assert _told(reader, within) == expected(*story[1:3])
    assert _told(reader, reader.span(topics.events, NOON + timedelta(days=9))) == []


def test_a_look_finds_the_first_record_of_a_range_wherever_it_begins(
    log: tuple[LogReader, LogWriter], topics: AppTopics
) -> None:
    reader, writer = log
    for minutes in range(40):
        writer.commit([_at(topics.events, minutes)])
    (low, high) = reader.span(topics.events).ranges[0]
    places = {int(record.value or b""): record.at.offset for record in reader.read(reader.span(topics.events))}
    order = random.Random(3).sample(sorted(places), len(places))
    with reader.probing(topics.events) as look:
        seen = [look(0, places[minutes], high) for minutes in order]
        after_the_last = look(0, places[39] + 1, high)
        nothing = look(0, low, low), look(1, 0, 0)
    assert [int(record.value or b"") for record in seen if record is not None] == order
    assert (after_the_last, nothing) == (None, (None, None))


def test_a_look_passes_over_what_was_aborted_and_waits_for_nothing_else(
    topics: AppTopics, writer: TransactionalWriter, reader: KafkaReader
) -> None:
    writer.commit([_at(topics.events, 0)])
    with pytest.raises(InterruptedError), writer.transaction() as transaction:
        transaction.write([_at(topics.events, 1)] * 3)
        raise InterruptedError
    (at,) = writer.commit([_at(topics.events, 2)])
    with reader.probing(topics.events) as look:
        found = look(0, 1, at.offset + 2)
        assert found is not None
        assert found.at == at
        assert look(0, 1, at.offset) is None


def test_a_look_at_what_is_not_there_is_told(topics: AppTopics, reader: KafkaReader) -> None:
    with pytest.raises(UsageError, match="there is no topic nowhere"), reader.probing("nowhere.events"):
        pass
    with pytest.raises(UsageError, match="has no partition 7"), reader.probing(topics.events) as look:
        look(7, 0, 1)
    with pytest.raises(UsageError, match="out of range"), reader.probing(topics.events) as look:
        look(0, 500, 501)
