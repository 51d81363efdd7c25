"""Whether a member is still in its consumer group, as the coordinator says."""

from __future__ import annotations

from confluent_kafka import KafkaException

from driftline.log.clients import REQUEST_TIMEOUT_S, kafka_error, make_admin
from driftline.log.settings import Settings
from driftline.schemas import KafkaUnreachable


def is_member(settings: Settings, group: str, metadata: bytes) -> bool:
    """Whether the member that `GroupConsumer.group_metadata` is of is in the group just now.

    False where another process has come under its instance id, which gives that place a new member id (KIP-345), and
    where its session has run out. In the metadata, whose form is librdkafka's own, the member id stands as it is; in
    a form where it did not, nobody would be taken for a member.

    Raises:
        KafkaUnreachable: The coordinator does not answer.
    """
    admin = make_admin(settings)  # held until the answer is there: it dies with its client
    try:
        asked = admin.describe_consumer_groups([group], request_timeout=REQUEST_TIMEOUT_S)
        members = asked[group].result(REQUEST_TIMEOUT_S + 1).members
    except KafkaException as error:
        raise kafka_error(settings, error) from error
    except TimeoutError as error:
        raise KafkaUnreachable(f"{group}: no answer within {REQUEST_TIMEOUT_S:g} s", "try again") from error
    return any(member.member_id.encode() in metadata for member in members)
