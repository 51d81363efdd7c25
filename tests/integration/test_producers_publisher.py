"""`Publisher` on the real broker."""

import asyncio
import itertools
import json
import os
import signal
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from driftline.console.local import LocalKafka
from driftline.log import AppTopics, KafkaReader, Settings, TopicAdmin, partition_of, prepare, to_event
from driftline.producers import DeliveryFailed, Publisher, QueueFull
from driftline.schemas import BadInput, Codec, ContractError, Contracts, Event, Registry, UsageError

pytestmark = pytest.mark.integration

TIME = datetime(2026, 7, 1, tzinfo=UTC)
PING = {"type": "record", "name": "Ping", "namespace": "test", "fields": [{"name": "n", "type": "int"}]}


@pytest.fixture
def schemas(tmp_path: Path) -> Path:
    (tmp_path / "avsc" / "test.Ping").mkdir(parents=True)
    (tmp_path / "avsc" / "test.Ping" / "1.avsc").write_text(json.dumps(PING))
    return tmp_path / "avsc"


@pytest.fixture
def topics(cluster: Settings, schemas: Path, app_name: str) -> AppTopics:
    topics = AppTopics(app_name)
    prepare(topics, [(topics.events, "test.Ping")], Contracts.load(schemas), cluster)
    return topics


@pytest.fixture
def publisher(cluster: Settings, schemas: Path, topics: AppTopics) -> Iterator[Publisher]:
    ids = (f"id-{number}" for number in itertools.count())
    with Publisher(topics.app, schemas, cluster, source="me", clock=lambda: TIME, new_id=ids.__next__) as publisher:
        yield publisher


def _events(cluster: Settings, schemas: Path, topics: AppTopics) -> list[Event]:
    codec = Codec(Registry(cluster.require_registry()), Contracts.load(schemas))
    reader = KafkaReader(cluster)
    return [to_event(record, codec) for record in reader.read(reader.span(topics.events))]


def test_an_event_lies_where_its_delivery_says(
    cluster: Settings, schemas: Path, topics: AppTopics, publisher: Publisher
) -> None:
    delivery = publisher.publish(
        "test.Ping", {"n": 1}, workflow="w", type="pinged", time=TIME, id="a", traceparent="00-1", causation_id="c"
    )
    at = delivery.result(30)
    (event,) = _events(cluster, schemas, topics)
    assert event == Event("a", "pinged", "me", "w", TIME, "test.Ping", {"n": 1}, "c", "00-1")
    assert (at.topic, at.partition, at.offset) == (topics.events, partition_of(b"w", 2), 0)
    assert delivery.done()


def test_without_them_the_id_is_drawn_the_time_read_and_the_type_is_the_record(
    cluster: Settings, schemas: Path, topics: AppTopics, publisher: Publisher
) -> None:
    publisher.publish("test.Ping", {"n": 1}, workflow="w")
    publisher.publish("test.Ping", {"n": 2}, workflow="w")
    publisher.flush()
    events = _events(cluster, schemas, topics)
    assert [(event.id, event.type, event.time) for event in events] == [
        ("id-0", "test.Ping", TIME),
        ("id-1", "test.Ping", TIME),
    ]


def test_each_workflow_keeps_its_order_over_many_more_events_than_the_queue_holds(
    cluster: Settings, schemas: Path, topics: AppTopics
) -> None:
    with Publisher(topics.app, schemas, cluster, source="me", clock=lambda: TIME, queue_records_max=50) as publisher:
        for number in range(1000):
            publisher.publish("test.Ping", {"n": number}, workflow=f"w{number % 7}")
    by_workflow: dict[str, list[int]] = {}
    for event in _events(cluster, schemas, topics):
        by_workflow.setdefault(event.workflow, []).append(event.data["n"])
    assert by_workflow == {f"w{rest}": list(range(rest, 1000, 7)) for rest in range(7)}


def test_publishing_from_coroutines_tells_the_coordinates(
    cluster: Settings, schemas: Path, topics: AppTopics
) -> None:
    async def publish() -> list[str]:
        with Publisher(
            topics.app, schemas, cluster, source="me", clock=lambda: TIME, queue_records_max=20
        ) as publisher:
            calls = [publisher.apublish("test.Ping", {"n": n}, workflow=str(n)) for n in range(100)]
            return [str(at) for at in await asyncio.gather(*calls)]

    told = asyncio.run(publish())
    assert len(set(told)) == 100
    assert len(_events(cluster, schemas, topics)) == 100


def test_what_does_not_fit_is_told_by_its_field_and_not_sent(
    cluster: Settings, schemas: Path, topics: AppTopics, publisher: Publisher
) -> None:
    with pytest.raises(ContractError, match=r"test\.Ping\.n: expected int, found 'one'"):
        publisher.publish("test.Ping", {"n": "one"}, workflow="w")
    with pytest.raises(ContractError, match=r"test\.Ping\.m is no field"):
        publisher.publish("test.Ping", {"n": 1, "m": 1}, workflow="w")
    with pytest.raises(BadInput, match="workflow"):
        publisher.publish("test.Ping", {"n": 1}, workflow="")
    publisher.flush()
    assert _events(cluster, schemas, topics) == []


def test_topics_that_are_not_there_are_told_with_the_command_that_makes_them(
    cluster: Settings, schemas: Path, app_name: str
) -> None:
    publisher = Publisher(app_name, schemas, cluster, source="me", clock=lambda: TIME)
    with pytest.raises(UsageError, match=rf"no topic {app_name}\.events; .*driftline topics create"):
        publisher.publish("test.Ping", {"n": 1}, workflow="w")
    publisher.close()
    assert f"{app_name}.events" not in TopicAdmin(cluster).partitions()


def test_a_closed_publisher_takes_nothing(cluster: Settings, schemas: Path, topics: AppTopics) -> None:
    publisher = Publisher(topics.app, schemas, cluster, source="me", clock=lambda: TIME)
    publisher.publish("test.Ping", {"n": 1}, workflow="w")
    publisher.close()
    publisher.close()
    with pytest.raises(UsageError, match="closed"):
        publisher.publish("test.Ping", {"n": 2}, workflow="w")
    assert len(_events(cluster, schemas, topics)) == 1


@pytest.fixture
def frozen(cluster: Settings, schemas: Path, tmp_path: Path, app_name: str) -> Iterator[tuple[Settings, int]]:
    """A broker of its own, to be stopped in the middle, and its process id."""
    kafka = LocalKafka(tmp_path / "home")
    try:
        status = kafka.start(ephemeral=True)
        assert status.pid is not None
        settings = cluster.model_copy(update={"bootstrap_servers": status.bootstrap_servers})
        prepare(AppTopics(app_name), [(f"{app_name}.events", "test.Ping")], Contracts.load(schemas), settings)
        yield settings, status.pid
        os.kill(status.pid, signal.SIGCONT)
    finally:
        kafka.stop()


def test_when_the_broker_hangs_the_queue_fills_and_every_loss_is_told(
    frozen: tuple[Settings, int], schemas: Path, app_name: str
) -> None:
    settings, pid = frozen
    publisher = Publisher(
        app_name,
        schemas,
        settings,
        source="me",
        clock=lambda: TIME,
        queue_records_max=3,
        queue_full_timeout_s=0.1,
        delivery_timeout_s=4,
    )
    publisher.publish("test.Ping", {"n": 0}, workflow="w").result(30)
    os.kill(pid, signal.SIGSTOP)
    deliveries = [publisher.publish("test.Ping", {"n": n}, workflow="w") for n in (1, 2, 3)]
    with pytest.raises(QueueFull, match="3 events wait"):
        publisher.publish("test.Ping", {"n": 4}, workflow="w")
    with pytest.raises(QueueFull):
        asyncio.run(publisher.apublish("test.Ping", {"n": 4}, workflow="w"))
    with pytest.raises(TimeoutError):
        deliveries[0].result(0)
    with pytest.raises(DeliveryFailed, match="not delivered") as failed:
        deliveries[0].result(30)
    assert (failed.value.event_id, failed.value.retryable) == (deliveries[0].event_id, True)
    with pytest.raises(DeliveryFailed, match="3 events were not delivered") as all_failed:
        publisher.close()
    assert all_failed.value.count == 3


def test_a_loss_never_hides_the_error_that_ended_the_block(
    frozen: tuple[Settings, int], schemas: Path, app_name: str
) -> None:
    settings, pid = frozen
    publisher = Publisher(app_name, schemas, settings, source="me", delivery_timeout_s=4)
    with pytest.raises(ZeroDivisionError) as error, publisher:
        publisher.publish("test.Ping", {"n": 0}, workflow="w", time=TIME).result(30)
        os.kill(pid, signal.SIGSTOP)
        publisher.publish("test.Ping", {"n": 1}, workflow="w", time=TIME)
        _ = 1 / 0
    assert "not delivered" in error.value.__notes__[0]


def test_a_coroutine_is_told_that_its_event_was_lost(
    frozen: tuple[Settings, int], schemas: Path, app_name: str
) -> None:
    settings, pid = frozen
    publisher = Publisher(app_name, schemas, settings, source="me", clock=lambda: TIME, delivery_timeout_s=4)
    publisher.publish("test.Ping", {"n": 0}, workflow="w").result(30)
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(DeliveryFailed):
        asyncio.run(publisher.apublish("test.Ping", {"n": 1}, workflow="w"))
    with pytest.raises(DeliveryFailed):
        publisher.close()
