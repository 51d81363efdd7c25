"""The seam to librdkafka: clients are made here, and its errors become ours here."""

from __future__ import annotations

import logging
import time
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
REASON_TIMEOUT_S = 3.0
"""How long it is asked why a secured connection does not come about; the handshake says no at once."""
FIRST_TRY_S = 2.0
"""How long a process's first connection may take to be let in, before it is asked whether it was refused; so late a
wrong password is told."""
GROUP = "driftline-reader"
"""librdkafka wants a group id; no position is ever committed under it."""

_tried: set[frozenset[tuple[str, Any]]] = set()
"""Secured settings under which this process was let in once, or got no answer: nothing more is tried beforehand."""

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
}
_NOT_LET_IN = {
    KafkaError.SASL_AUTHENTICATION_FAILED: "set DRIFTLINE_KAFKA_USERNAME and DRIFTLINE_KAFKA_PASSWORD_FILE",
    KafkaError._AUTHENTICATION: "set DRIFTLINE_KAFKA_USERNAME and DRIFTLINE_KAFKA_PASSWORD_FILE",
    KafkaError._SSL: "set DRIFTLINE_KAFKA_CA_FILE, and DRIFTLINE_KAFKA_CERT_FILE if they ask for one",
}
"""Errors of the handshake, with what mends them."""
_SILENT = {KafkaError._TRANSPORT, KafkaError._TIMED_OUT, KafkaError._ALL_BROKERS_DOWN}
"""How librdkafka tells a handshake that failed to who waits for an answer: the reason goes to its callback."""


def make_producer(settings: Settings, overrides: Mapping[str, Any]) -> Any:
    """A producer that places keys as Java's does.

    It connects on first use; but a process's first client of secured settings is tried, so that a refusal is told.

    Raises:
        BadInput: librdkafka does not know a setting.
        KafkaUnreachable: The brokers do not let this client in.
    """
    _require_entry(settings)
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
        KafkaUnreachable: As `make_producer`.
    """
    _require_entry(settings)
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
        KafkaUnreachable: As `make_producer`.
    """
    _require_entry(settings)
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
    """What an error of librdkafka means to a user.

    Where a secured connection stays silent, one more is made to learn why: `REASON_TIMEOUT_S` at most.
    """
    cause = error.args[0]
    if cause.code() in _SILENT and settings.secured:
        return _not_let_in(settings, _reason(settings) or cause)
    if cause.code() in _NOT_LET_IN:
        return _not_let_in(settings, cause)
    if cause.code() in _NOT_THERE:
        return UsageError(f"the log does not hold what was asked for: {cause.str()}")
    if cause.code() in _REFUSED:
        return UsageError(
            f"Kafka at {settings.require_bootstrap()} refuses: {cause.str()}",
            "let its administrator allow it: deploy/acl",
        )
    return unreachable(settings, error)


def unreachable(settings: Settings, error: KafkaException) -> KafkaUnreachable:
    """The error for a broker that does not answer."""
    return KafkaUnreachable(
        f"no Kafka answers at {settings.require_bootstrap()}: {error.args[0].str()}",
        "run `driftline kafka start` or set DRIFTLINE_BOOTSTRAP_SERVERS",
    )


def _not_let_in(settings: Settings, cause: KafkaError) -> KafkaUnreachable:
    why = " ".join(cause.str().split())
    return KafkaUnreachable(
        f"Kafka at {settings.require_bootstrap()} and this client do not come together: {why}",
        _NOT_LET_IN.get(cause.code(), "set DRIFTLINE_BOOTSTRAP_SERVERS, DRIFTLINE_KAFKA_CA_FILE and _CERT_FILE"),
    )


def _require_entry(settings: Settings) -> None:
    """Try a secured connection once a process.

    librdkafka takes a refused handshake for a broker that may come back: a request waits out its timeout, and a
    consumer hands out no error at all, for ever. The reason goes to the callback after the first try, so it is asked
    for there. Where nobody answers at all, whoever asks next tells that.

    Raises:
        KafkaUnreachable: The brokers do not let this client in.
    """
    if not settings.secured:
        return
    key = frozenset(settings.client().items())
    if key in _tried:
        return
    told: list[KafkaError] = []
    client = _witness(settings, told)
    try:
        client.list_topics(timeout=FIRST_TRY_S)
    except KafkaException:
        client.poll(0)
        refused = next((error for error in told if error.code() in _NOT_LET_IN), None)
        if refused is not None:
            raise _not_let_in(settings, refused) from None
    _tried.add(key)


def _witness(settings: Settings, told: list[KafkaError]) -> Any:
    """A client that notes what goes wrong with its connections, whenever it is polled."""
    return _make(lambda: Producer({**settings.client(), "error_cb": told.append}, logger=_log))


def _reason(settings: Settings) -> KafkaError | None:
    """The first thing that goes wrong with a new connection; None when nothing does for `REASON_TIMEOUT_S`."""
    told: list[KafkaError] = []
    client = _witness(settings, told)
    deadline = time.monotonic() + REASON_TIMEOUT_S
    while not told and time.monotonic() < deadline:
        client.poll(0.1)
    return told[0] if told else None


def _make(build: Any) -> Any:
    try:
        return build()
    except KafkaException as error:
        what = error.args[0].str()
        raise BadInput(f"setting kafka: {what}", "mend it in driftline.toml or DRIFTLINE_KAFKA") from error
    except (TypeError, ValueError) as error:
        raise BadInput(f"setting kafka: {error}", "mend it in driftline.toml or DRIFTLINE_KAFKA") from error
