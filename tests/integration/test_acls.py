"""What the broker itself refuses to the principal of replays, whatever program uses it."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, Producer
from tests.integration.conftest import OPERATOR, REPLAYER, Shut

from driftline.consumers.prepare import prepare
from driftline.examples.renewals.app import app as renewals
from driftline.log import (
    ALERTS,
    AppTopics,
    CommitRefused,
    Coordinates,
    GroupConsumer,
    KafkaReader,
    Outgoing,
    Position,
    Settings,
    TopicAdmin,
    TransactionalWriter,
)
from driftline.log.group import group_standing
from driftline.replay.alerting import TRANSACTIONAL_ID_PREFIX, ForbiddenTopic, ReplayWriter
from driftline.schemas import UsageError

pytestmark = pytest.mark.integration

NOW_MS = int(datetime(2026, 11, 21, tzinfo=UTC).timestamp() * 1000)


@pytest.fixture
def topics(shut: Shut, app_name: str) -> AppTopics:
    """The topics of an app that the replayer may replay."""
    app = replace(renewals, name=app_name)
    prepare(app, shut.settings(OPERATOR))
    shut.allow("replay-user.sh", f"User:{REPLAYER}", app_name)
    return app.topics


def record(topic: str) -> Outgoing:
    return Outgoing(topic, b"w", b"v", NOW_MS, partition=0)


def replay_writer(settings: Settings, run: str) -> TransactionalWriter:
    return TransactionalWriter(settings, f"{TRANSACTIONAL_ID_PREFIX}.{run}")


def produced(settings: Settings, topic: str) -> KafkaError | None:
    """What a bare producer is told of one record."""
    outcomes: list[Any] = []
    producer = Producer(settings.client())
    producer.produce(topic, b"v", b"w", 0, on_delivery=lambda error, message: outcomes.append(error))
    assert producer.flush(30) == 0
    (outcome,) = outcomes
    return outcome  # type: ignore[no-any-return]


def test_a_bare_producer_of_the_replayer_cannot_write_to_an_app_and_can_write_alerts(
    shut: Shut, topics: AppTopics
) -> None:
    settings = shut.settings(REPLAYER)
    for name in (topics.events, topics.decisions, topics.state, topics.control, topics.dead):
        refused = produced(settings, name)
        assert refused is not None
        assert refused.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED, name
    assert produced(settings, ALERTS) is None
    assert produced(shut.settings(OPERATOR), topics.events) is None  # it is the principal that is refused


def test_the_replayer_reads_what_lies_there_and_sees_how_far_an_app_has_come(shut: Shut, topics: AppTopics) -> None:
    group, operator = f"driftline.{topics.app}", shut.settings(OPERATOR)
    writer = TransactionalWriter(operator, f"driftline.{topics.app}.0")
    writer.commit([record(topics.events)])
    with closing(GroupConsumer(operator, group, topics.events)) as member:
        member.open(lambda gained: None, lambda lost: None)
        while member.group_metadata is None or not member.at_end():
            member.poll(10, 1.0)
        writer.commit([], [Position(topics.events, 0, 1)], member.group_metadata)
    settings = shut.settings(REPLAYER)
    reader = KafkaReader(settings)
    assert [found.value for found in reader.read(reader.span(topics.events))] == [b"v"]
    (standing,) = group_standing(settings, group, topics.events, [0]).values()
    assert standing is not None
    assert standing.base == 1


def test_the_replay_writer_writes_alerts_and_the_broker_agrees_with_what_it_refuses(
    shut: Shut, topics: AppTopics
) -> None:
    settings = shut.settings(REPLAYER)
    with pytest.raises(ForbiddenTopic):
        ReplayWriter(replay_writer(settings, topics.app)).commit([record(topics.events)])
    (at,) = ReplayWriter(replay_writer(settings, topics.app)).commit([record(ALERTS)])
    assert isinstance(at, Coordinates)
    with pytest.raises(CommitRefused, match="authorization"):
        replay_writer(settings, topics.app).commit([record(topics.events)])
    assert sum(len(range(*r)) for r in KafkaReader(settings).span(topics.events).ranges.values()) == 0


def test_the_replayer_cannot_fence_an_app_nor_make_or_delete_its_topics(shut: Shut, topics: AppTopics) -> None:
    settings = shut.settings(REPLAYER)
    with pytest.raises(UsageError, match="deploy/acl"):
        TransactionalWriter(settings, f"driftline.{topics.app}.0").open()
    with pytest.raises(UsageError, match="refuses"):
        TopicAdmin(settings).delete([topics.events])
    with pytest.raises(UsageError, match="refuses"):
        TopicAdmin(settings).delete_group(f"driftline.{topics.app}")
    assert topics.events in TopicAdmin(settings).partitions()


def test_a_wider_permission_does_not_open_an_app_to_the_replayer(shut: Shut, topics: AppTopics) -> None:
    shut.allow("app-user.sh", f"User:{REPLAYER}", topics.app)
    settings = shut.settings(REPLAYER)
    refused = produced(settings, topics.events)
    assert refused is not None
    assert refused.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED
    with pytest.raises((UsageError, KafkaException)):
        TransactionalWriter(settings, f"driftline.{topics.app}.0").open()
