"""Topics as driftline makes them, on the real broker."""

import pytest
from confluent_kafka.admin import ConfigResource  # type: ignore[attr-defined]

from driftline.log import AppTopics, Settings, TopicAdmin, prepare
from driftline.log.clients import make_admin
from driftline.log.topics import own_specs
from driftline.schemas import Contracts, Registry, RegistryUnreachable, UsageError

pytestmark = pytest.mark.integration


def _config(cluster: Settings, topic: str) -> dict[str, str]:
    admin = make_admin(cluster)
    asked = admin.describe_configs([ConfigResource(ConfigResource.Type.TOPIC, topic)])
    (future,) = asked.values()
    return {name: entry.value for name, entry in future.result(15).items()}


def test_topics_are_made_once_and_then_left_as_they_are(cluster: Settings, app_name: str) -> None:
    topics = AppTopics(app_name)
    admin = TopicAdmin(cluster)
    created = admin.ensure(topics.specs(2))
    assert created == [topics.events, topics.decisions, topics.state, topics.control, topics.dead]
    assert admin.ensure(topics.specs(2)) == []
    assert {name: admin.partitions()[name] for name in created} == {
        topics.events: 2,
        topics.decisions: 2,
        topics.state: 2,
        topics.control: 1,
        topics.dead: 2,
    }


def test_what_is_kept_is_kept_for_ever_and_takes_simulated_time(cluster: Settings, app_name: str) -> None:
    topics = AppTopics(app_name)
    TopicAdmin(cluster).ensure(topics.specs(2))
    for name, policy in [(topics.events, "delete"), (topics.state, "compact"), (topics.dead, "delete")]:
        config = _config(cluster, name)
        assert config["cleanup.policy"] == policy
        assert config["retention.ms"] == "-1"
        assert config["message.timestamp.type"] == "CreateTime"
        assert config["message.timestamp.after.max.ms"] == str(2**63 - 1)


def test_another_partition_count_is_refused_before_any_topic_is_made(cluster: Settings, app_name: str) -> None:
    admin = TopicAdmin(cluster)
    topics = AppTopics(app_name)
    admin.ensure(topics.specs(2)[:1])
    with pytest.raises(UsageError, match=rf"{topics.events} has 2 partitions, not 3; .*`partitions = 2`"):
        admin.ensure(topics.specs(3))
    assert topics.decisions not in admin.partitions()


def test_a_name_that_the_broker_refuses_is_told(cluster: Settings) -> None:
    spec = own_specs()[0]
    with pytest.raises(UsageError, match="no such name: the broker refuses"):
        TopicAdmin(cluster).ensure([type(spec)("no such name", 1)])


def test_deleting_what_is_not_there_is_no_error(cluster: Settings, app_name: str) -> None:
    admin = TopicAdmin(cluster)
    topics = AppTopics(app_name)
    admin.ensure(topics.specs(2)[:1])
    admin.delete([topics.events, topics.decisions])
    admin.delete_group("driftline.nobody")
    assert topics.events not in admin.partitions()


def test_no_topic_is_made_where_the_registry_does_not_answer(cluster: Settings, app_name: str) -> None:
    topics = AppTopics(app_name)
    alone = cluster.model_copy(update={"registry_url": "http://127.0.0.1:1"})
    with pytest.raises(RegistryUnreachable):
        prepare(topics, [(topics.events, "driftline.RecordedInput")], Contracts.load(), alone)
    assert topics.events not in TopicAdmin(cluster).partitions()


def test_preparing_an_app_makes_its_topics_and_subjects_once(cluster: Settings, app_name: str) -> None:
    topics = AppTopics(app_name)
    subjects = [(topics.events, "driftline.RecordedInput")]
    assert topics.events in prepare(topics, subjects, Contracts.load(), cluster)
    assert prepare(topics, subjects, Contracts.load(), cluster) == []
    registered = Registry(cluster.require_registry()).subjects()
    assert f"{topics.events}-driftline.RecordedInput" in registered
    assert f"{topics.decisions}-driftline.Decision" in registered
    assert "driftline.artifacts-driftline.Artifact" in registered
