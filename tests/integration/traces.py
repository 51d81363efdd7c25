"""What a command might leave on a broker: records, positions, groups."""

from __future__ import annotations

from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]

from driftline.log import Settings, TopicAdmin


def ends(cluster: Settings, prefix: str = "") -> dict[tuple[str, int], int]:
    """The latest offset of every partition of topics that begin so, aborted and control records counted too."""
    admin = AdminClient({"bootstrap.servers": cluster.require_bootstrap()})
    partitions = [
        TopicPartition(topic, partition)
        for topic, count in TopicAdmin(cluster).partitions().items()
        if topic.startswith(prefix) and not topic.startswith("_")
        for partition in range(count)
    ]
    asked = admin.list_offsets({at: OffsetSpec.latest() for at in partitions})  # type: ignore[no-untyped-call]
    return {(at.topic, at.partition): future.result(60).offset for at, future in asked.items()}


def positions(cluster: Settings, group: str) -> dict[tuple[str, int], tuple[int, str | None]]:
    """What a group has committed: offset and metadata by topic and partition."""
    admin = AdminClient({"bootstrap.servers": cluster.require_bootstrap()})
    found = admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)])[group].result(60)
    return {(tp.topic, tp.partition): (tp.offset, tp.metadata) for tp in found.topic_partitions}


def groups(cluster: Settings) -> set[str]:
    """Every consumer group that the broker knows. It forgets those of others that have neither members nor
    positions, every ten minutes: what came since is what tells of a trace, not what went."""
    admin = AdminClient({"bootstrap.servers": cluster.require_bootstrap()})
    return {group.group_id for group in admin.list_consumer_groups().result(60).valid}
