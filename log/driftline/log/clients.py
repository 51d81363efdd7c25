"""The seam to librdkafka: clients are made here, and its errors become ours here."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient

from driftline.log.settings import Settings
from driftline.schemas import BadInput, DriftlineError, KafkaUnreachable, UsageError

REQUEST_TIMEOUT_S = 15.0
"""Of one request; an address where nobody answers is told after so long."""
PARTITIONER = "murmur2_random"
"""Java's hash: librdkafka's own default puts a key on another partition than a Java producer does."""
MESSAGE_BYTES_MAX = 2_000_000
"""librdkafka's own check; above every topic's `max.message.bytes`, so that the broker decides."""
GROUP = "driftline-reader"
"""librdkafka wants a group id; no position is ever committed under it."""

_log = logging.getLogger("driftline.kafka")
_log.addHandler(logging.NullHandler())

_NOT_THERE = {
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError._UNKNOWN_TOPIC,
    KafkaError._UNKNOWN_PARTITION,
    KafkaError.OFFSET_OUT_OF_RANGE,
    KafkaError._AUTO_OFFSET_RESET,
}
_REFUSED = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    KafkaError.SASL_AUTHENTICATION_FAILED,
    KafkaError._AUTHENTICATION,
}


def make_producer(settings: Settings, overrides: Mapping[str, Any]) -> Any:
    """A producer that places keys as Java's does; it connects on first use.

    Raises:
        BadInput: librdkafka does not know a setting.
    """
    conf = {
        "partitioner": PARTITIONER,
        "message.max.bytes": MESSAGE_BYTES_MAX,
        "compression.type": "lz4",
        "linger.ms": 5,
        **overrides,
    }
    return _make(lambda: Producer(settings.client(conf), logger=_log))


def make_reader(settings: Settings, overrides: Mapping[str, Any] | None = None) -> Any:
    """A consumer of committed records that says where a partition ends and commits no position by itself.

    Raises:
        BadInput: librdkafka does not know a setting.
    """
    conf = {
        "group.id": GROUP,
        "enable.auto.commit": False,
        "isolation.level": "read_committed",
        "enable.partition.eof": True,
        "auto.offset.reset": "error",
        **(overrides or {}),
    }
    return _make(lambda: Consumer(settings.client(conf), logger=_log))


def make_admin(settings: Settings) -> Any:
    """An administrator's client.

    Raises:
        BadInput: librdkafka does not know a setting.
    """
    return _make(lambda: AdminClient(settings.client()))


def take(consumer: Any, records_max: int, timeout_s: float) -> list[Any]:
    """What the consumer has at once, or the first message to come; empty after the timeout.

    `Consumer.consume(n, timeout)` alone waits the whole timeout for the n-th message.
    """
    messages: list[Any] = consumer.consume(records_max, 0.0)
    if messages:
        return messages
    first = consumer.poll(timeout_s)
    return [] if first is None else [first, *(consumer.consume(records_max - 1, 0.0) if records_max > 1 else ())]


def require_topics(client: Any, settings: Settings, names: Collection[str], timeout_s: float) -> None:
    """Prove that topics are there. Asks for the whole list: asking by name may create them.

    Raises:
        UsageError: One is not.
        KafkaUnreachable: No broker answers.
    """
    try:
        present = client.list_topics(timeout=timeout_s).topics
    except KafkaException as error:
        raise kafka_error(settings, error) from error
    for name in sorted(set(names) - set(present)):
        raise no_topic(name)


def no_topic(name: str) -> UsageError:
    """The error for a topic that is not there."""
    return UsageError(f"there is no topic {name}", "`driftline topics create APP` makes those of an app")


def kafka_error(settings: Settings, error: KafkaException) -> DriftlineError:
    """What an error of librdkafka means to a user."""
    cause = error.args[0]
    if cause.code() in _NOT_THERE:
        return UsageError(f"the log does not hold what was asked for: {cause.str()}")
    if cause.code() in _REFUSED:
        return UsageError(f"Kafka at {settings.require_bootstrap()} refuses: {cause.str()}", "set DRIFTLINE_KAFKA")
    return unreachable(settings, error)


def unreachable(settings: Settings, error: KafkaException) -> KafkaUnreachable:
    """The error for a broker that does not answer."""
    return KafkaUnreachable(
        f"no Kafka answers at {settings.require_bootstrap()}: {error.args[0].str()}",
        "run `driftline kafka start` or set DRIFTLINE_BOOTSTRAP_SERVERS",
    )


def _make(build: Any) -> Any:
    try:
        return build()
    except KafkaException as error:
        what = error.args[0].str()
        raise BadInput(f"setting kafka: {what}", "mend it in driftline.toml or DRIFTLINE_KAFKA") from error
    except (TypeError, ValueError) as error:
        raise BadInput(f"setting kafka: {error}", "mend it in driftline.toml or DRIFTLINE_KAFKA") from error
