"""Looking at a cluster: what its topics are like, and what this principal may do."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from time import monotonic, sleep
from typing import Any

from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME, KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import ConfigResource, ResourceType  # type: ignore[attr-defined]

from driftline.log.clients import kafka_error, make_admin, make_producer
from driftline.log.settings import Settings
from driftline.log.topics import TopicAdmin, TopicSpec
from driftline.schemas import KafkaUnreachable, UsageError

INSPECT_TIMEOUT_S = 5.0
"""Of one request: whoever waits for a doctor wants to hear soon that nobody is there."""
VERSION_SETTING = "inter.broker.protocol.version"
"""A broker's setting up to Kafka 3.9; Kafka 4 has it no more, and no request of librdkafka tells its version."""
SINCE_4 = "4.0 or later"
CLOCK_TOPIC = "driftline.doctor"
CLOCK_CONFIG = {"message.timestamp.type": "LogAppendTime", "retention.ms": "86400000"}
"""Of the one topic whose records have the broker's time: nothing but clocks is compared by it."""
_DENIED = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
}
_COORDINATOR_STARTS = {
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.NOT_COORDINATOR,
}
"""Of a broker's first seconds, or its partner's last."""
RECHECK_S = 0.1
_NOT_THERE = {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.GROUP_ID_NOT_FOUND, KafkaError._UNKNOWN_TOPIC}


@dataclass(frozen=True, slots=True)
class BrokersFound:
    """The brokers, as they tell of themselves."""

    count: int
    version: str | None
    """Of the protocol; None where this principal may not describe the brokers' settings."""
    may: frozenset[str]
    """What this principal may do with the cluster: `CREATE` is to create any topic."""


@dataclass(frozen=True, slots=True)
class TopicFound:
    """One topic as it is."""

    partitions: int | None
    """None where this principal may not describe it: nothing is known then but that it may be there."""
    may: frozenset[str]
    """`READ`, `WRITE`, `DESCRIBE`, `DESCRIBE_CONFIGS`, ….; all of them where the broker has no authorizer."""
    config: Mapping[str, str] | None
    """None where this principal may not read it."""


class LogInspector:
    """Asks, and but for `clock` changes nothing. Connects on first use.

    Every method raises KafkaUnreachable where no broker answers in time.
    """

    def __init__(self, settings: Settings, timeout_s: float = INSPECT_TIMEOUT_S) -> None:
        self._settings = settings
        self._timeout_s = timeout_s
        self._client: Any = None

    def brokers(self) -> BrokersFound:
        """How many there are, and of which version."""
        found = self._required(self._admin.describe_cluster(include_authorized_operations=True, **self._within))
        resource = ConfigResource(ResourceType.BROKER, str(found.nodes[0].id))
        (asked,) = self._admin.describe_configs([resource], **self._within).values()
        config = self._allowed(asked)
        version = None if config is None else SINCE_4
        if config is not None and VERSION_SETTING in config:
            version = str(config[VERSION_SETTING].value)
        return BrokersFound(len(found.nodes), version, _names(found.authorized_operations))

    def topics(self, names: Collection[str]) -> dict[str, TopicFound | None]:
        """Each topic; None for one that is not there."""
        asked = self._admin.describe_topics(
            TopicCollection(list(names)), include_authorized_operations=True, **self._within
        )
        described = {name: self._described(future) for name, future in asked.items()}
        configs = self._configs([name for name, topic in described.items() if topic is not None])
        return {
            name: None if topic is None else replace(topic, config=configs[name]) for name, topic in described.items()
        }

    def clock(self, now: Callable[[], datetime]) -> tuple[datetime, datetime, datetime] | None:
        """The broker's clock between two looks at ours, all UTC: when a record was sent, appended, acknowledged.

        Writes one record to `driftline.doctor`, made where it is not there; None where that is not allowed.
        """
        spec = TopicSpec(CLOCK_TOPIC, 1, CLOCK_CONFIG)
        told: list[Any] = []
        try:
            TopicAdmin(self._settings, self._timeout_s).ensure([spec])
        except UsageError:
            return None
        producer = make_producer(self._settings, {"linger.ms": 0, "message.timeout.ms": int(self._timeout_s * 1000)})
        sent = now()
        producer.produce(CLOCK_TOPIC, b"", on_delivery=lambda error, message: told.append((error, message)))
        producer.flush(self._timeout_s + 1)
        back = now()
        if not told or told[0][0] is not None or told[0][1].timestamp()[0] != TIMESTAMP_LOG_APPEND_TIME:
            return None
        return sent, datetime.fromtimestamp(told[0][1].timestamp()[1] / 1000, UTC), back

    def may_read_group(self, group: str) -> bool:
        """Whether this principal may join a group; a group that nobody joined yet is told of as well."""
        deadline = monotonic() + self._timeout_s
        while True:
            asked = self._admin.describe_consumer_groups([group], include_authorized_operations=True, **self._within)
            try:
                operations = asked[group].result(self._timeout_s + 1).authorized_operations
            except KafkaException as error:
                code = error.args[0].code()
                if code in _NOT_THERE or code in _DENIED:
                    return code in _NOT_THERE  # whoever may not describe it is told that first
                if code not in _COORDINATOR_STARTS or monotonic() > deadline:
                    raise kafka_error(self._settings, error) from error
                sleep(RECHECK_S)
            except TimeoutError as error:
                raise self._silent() from error
            else:
                return not operations or "READ" in _names(operations)

    def _described(self, future: Future[Any]) -> TopicFound | None:
        try:
            topic = future.result(self._timeout_s + 1)
        except KafkaException as error:
            if error.args[0].code() in _DENIED:
                return TopicFound(None, frozenset(), None)
            if error.args[0].code() in _NOT_THERE:
                return None
            raise kafka_error(self._settings, error) from error
        except TimeoutError as error:
            raise self._silent() from error
        return TopicFound(len(topic.partitions), _names(topic.authorized_operations), None)

    def _configs(self, names: Collection[str]) -> dict[str, Mapping[str, str] | None]:
        if not names:
            return {}
        resources = [ConfigResource(ResourceType.TOPIC, name) for name in names]
        asked = self._admin.describe_configs(resources, **self._within)
        configs = {resource.name: self._allowed(future) for resource, future in asked.items()}
        return {
            name: None if config is None else {key: str(entry.value) for key, entry in config.items()}
            for name, config in configs.items()
        }

    @property
    def _admin(self) -> Any:
        if self._client is None:
            self._client = make_admin(self._settings)
        return self._client

    @property
    def _within(self) -> dict[str, float]:
        return {"request_timeout": self._timeout_s}

    def _required(self, future: Future[Any]) -> Any:
        return self._answered(future, lambda error: None)

    def _allowed(self, future: Future[Any]) -> Any:
        """What was asked for; None where it is not there or this principal may not see it."""
        tolerated = _DENIED | _NOT_THERE
        return self._answered(future, lambda error: error.code() in tolerated or None)

    def _answered(self, future: Future[Any], tolerate: Callable[[KafkaError], bool | None]) -> Any:
        try:
            return future.result(self._timeout_s + 1)
        except KafkaException as error:
            if tolerate(error.args[0]):
                return None
            raise kafka_error(self._settings, error) from error
        except TimeoutError as error:
            raise self._silent() from error

    def _silent(self) -> KafkaUnreachable:
        return KafkaUnreachable(
            f"no Kafka answers at {self._settings.require_bootstrap()} within {self._timeout_s:g} s",
            "run `driftline kafka start` or set DRIFTLINE_BOOTSTRAP_SERVERS",
        )


def _names(operations: Collection[Any] | None) -> frozenset[str]:
    return frozenset(operation.name for operation in operations or ())
