"""Which topics there are, how they are configured, and how they come to be."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.cimpl import NewTopic

from driftline.log.clients import REQUEST_TIMEOUT_S, kafka_error, make_admin, unreachable
from driftline.log.settings import Settings
from driftline.schemas import DriftlineError, KafkaUnreachable, UsageError

ALERTS = "driftline.alerts"
ARTIFACTS = "driftline.artifacts"
OWN_PREFIX = "driftline."
"""Topics of driftline itself; no app may be named so."""

EVENT_BYTES_MAX = 1_048_588
"""Kafka's own default of `max.message.bytes`."""
DEAD_MARGIN_BYTES = 65_536
"""Room for the headers that say why, on top of the original bytes."""

VISIBLE_POLL_S = 0.02
"""Between two looks at whether a created topic is visible."""

_KEPT = {
    "cleanup.policy": "delete",
    "retention.ms": "-1",
    "message.timestamp.type": "CreateTime",
    # Simulated time runs ahead of the broker's clock; Kafka 4 refuses more than an hour by default (KIP-1030).
    "message.timestamp.after.max.ms": str(2**63 - 1),
}
_COMPACTED = {**_KEPT, "cleanup.policy": "compact"}


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """One topic as driftline wants it."""

    name: str
    partitions: int
    config: dict[str, str] = field(default_factory=dict)


class AppTopics:
    """The topics of one app.

    Raises:
        UsageError: The name cannot be a topic prefix, or is driftline's own.
    """

    def __init__(self, app: str) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9_-]{0,99}", app) or app == "driftline":
            raise UsageError(f"{app!r} cannot name an app", "use lower-case letters, digits, - and _")
        self.app = app
        self.events = f"{app}.events"
        self.decisions = f"{app}.decisions"
        self.state = f"{app}.state"
        self.control = f"{app}.control"
        self.dead = f"{app}.dead"

    def specs(self, partitions: int) -> list[TopicSpec]:
        """How they are created: events, decisions, state and dead share their partition count."""
        dead = {**_KEPT, "max.message.bytes": str(EVENT_BYTES_MAX + DEAD_MARGIN_BYTES)}
        return [
            TopicSpec(self.events, partitions, _KEPT),
            TopicSpec(self.decisions, partitions, _KEPT),
            TopicSpec(self.state, partitions, _COMPACTED),
            TopicSpec(self.control, 1, _COMPACTED),
            TopicSpec(self.dead, partitions, dead),
        ]


def own_specs() -> list[TopicSpec]:
    """The topics that all apps share."""
    return [TopicSpec(ALERTS, 1, _KEPT), TopicSpec(ARTIFACTS, 1, _COMPACTED)]


class TopicAdmin:
    """Creates, checks and deletes topics; connects on first use."""

    def __init__(self, settings: Settings, request_timeout_s: float = REQUEST_TIMEOUT_S) -> None:
        self._settings = settings
        self._timeout_s = request_timeout_s
        self._client: Any = None

    def partitions(self) -> dict[str, int]:
        """Partition count by topic name.

        Raises:
            KafkaUnreachable: No broker answers.
        """
        listed = self._ask(lambda admin: admin.list_topics(timeout=self._timeout_s))
        return {name: len(topic.partitions) for name, topic in listed.topics.items()}

    def ensure(self, specs: Sequence[TopicSpec]) -> list[str]:
        """Create what is missing and check the partition counts of what is there; the names created.

        1. check what is there; 2. create what is missing; 3. wait until the brokers tell of it, and check again,
        since another process may have created it otherwise meanwhile.

        Raises:
            UsageError: A topic has another partition count: keys would move.
            KafkaUnreachable: No broker answers.
        """
        present = self.partitions()
        _check_counts(specs, present)
        missing = [spec for spec in specs if spec.name not in present]
        if missing:
            self._create(missing)
            self._await_visible(missing)
        return [spec.name for spec in missing]

    def delete(self, names: Sequence[str]) -> None:
        """Delete topics; those that are not there are passed over."""
        there = self.partitions()
        present = [name for name in names if name in there]
        if present:
            futures = self._ask(lambda admin: admin.delete_topics(present, operation_timeout=self._timeout_s))
            self._wait_all(futures, tolerated=KafkaError.UNKNOWN_TOPIC_OR_PART)

    def group_members(self, group: str) -> int:
        """How many members a consumer group has just now; 0 for one that is not there."""
        futures = self._ask(lambda admin: admin.describe_consumer_groups([group], request_timeout=self._timeout_s))
        try:
            return len(futures[group].result(self._timeout_s + 1).members)
        except KafkaException as error:
            raise kafka_error(self._settings, error) from error
        except TimeoutError as error:
            raise KafkaUnreachable(f"{group}: no answer within {self._timeout_s:g} s", "try again") from error

    def delete_group(self, group: str) -> None:
        """Forget the positions of a consumer group without members; one that is not there is passed over."""
        futures = self._ask(lambda admin: admin.delete_consumer_groups([group], request_timeout=self._timeout_s))
        self._wait_all(futures, tolerated=KafkaError.GROUP_ID_NOT_FOUND)

    def _create(self, specs: Sequence[TopicSpec]) -> None:
        new = [
            NewTopic(spec.name, spec.partitions, self._settings.replication_factor, config=spec.config)
            for spec in specs
        ]
        futures = self._ask(lambda admin: admin.create_topics(new, operation_timeout=self._timeout_s))
        self._wait_all(futures, tolerated=KafkaError.TOPIC_ALREADY_EXISTS)

    def _await_visible(self, specs: Sequence[TopicSpec]) -> None:
        """A created topic is not yet in every broker's metadata."""
        deadline = time.monotonic() + self._timeout_s
        while (present := self.partitions()).keys() < {spec.name for spec in specs} | present.keys():
            if time.monotonic() > deadline:
                raise KafkaUnreachable("the topics were created, but the brokers do not tell of them", "try again")
            time.sleep(VISIBLE_POLL_S)
        _check_counts(specs, present)

    def _ask(self, request: Any) -> Any:
        if self._client is None:
            self._client = make_admin(self._settings)
        try:
            return request(self._client)
        except KafkaException as error:
            raise kafka_error(self._settings, error) from error

    def _wait_all(self, futures: dict[str, Any], tolerated: int) -> None:
        for name, future in futures.items():
            try:
                future.result(self._timeout_s + 1)
            except KafkaException as error:
                if error.args[0].code() != tolerated:
                    raise self._refusal(name, error) from error
            except TimeoutError as error:
                raise KafkaUnreachable(f"{name}: no answer within {self._timeout_s:g} s", "try again") from error

    def _refusal(self, name: str, error: KafkaException) -> DriftlineError:
        cause = error.args[0]
        if cause.retriable() or cause.code() in {KafkaError._TIMED_OUT, KafkaError._TRANSPORT}:
            return unreachable(self._settings, error)
        return UsageError(f"{name}: the broker refuses: {cause.str()}")


def _check_counts(specs: Sequence[TopicSpec], present: Mapping[str, int]) -> None:
    for spec in specs:
        has = present.get(spec.name, spec.partitions)
        if has != spec.partitions:
            raise UsageError(
                f"{spec.name} has {has} partitions, not {spec.partitions}; they are fixed at creation",
                f"set `partitions = {has}` in driftline.toml",
            )
