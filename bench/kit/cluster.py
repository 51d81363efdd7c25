"""A Kafka and a registry of a benchmark's own, and events on it."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from confluent_kafka import IsolationLevel, Producer, TopicPartition
from confluent_kafka.admin import OffsetSpec  # type: ignore[attr-defined]

from driftline.console.local import LocalKafka, LocalRegistry
from driftline.consumers import App
from driftline.consumers.prepare import prepare
from driftline.log import Outgoing, Settings, to_outgoing
from driftline.schemas import Codec, Event, Registry

PARTITIONS = 4


@contextmanager
def cluster() -> Iterator[Settings]:
    """Settings of an ephemeral Kafka 4 and registry; both are gone after the block, with their data."""
    home = Path(tempfile.mkdtemp(prefix="driftline-bench-"))
    kafka, registry = LocalKafka(home), LocalRegistry(home)
    try:
        brokers = kafka.start(ephemeral=True).bootstrap_servers
        url = registry.start(ephemeral=True).url
        yield Settings(home=home, bootstrap_servers=brokers, registry_url=url, partitions=PARTITIONS)
    finally:
        registry.stop()
        kafka.stop()
        shutil.rmtree(home, ignore_errors=True)


def load() -> str:
    """The machine's load average over one minute, to stand beside a figure."""
    return f"load {os.getloadavg()[0]:.1f}"


class Feed:
    """Writes events as bytes that are ready, by a bare producer; keys are placed as Java's clients place them."""

    def __init__(self, app: App, settings: Settings) -> None:
        prepare(app, settings)
        self._topic = app.topics.events
        self._codec = Codec(Registry(settings.require_registry()), app.contracts)
        self._producer = Producer(
            {
                "bootstrap.servers": settings.require_bootstrap(),
                "partitioner": "murmur2_random",
                "enable.idempotence": True,
                "compression.type": "lz4",
                "linger.ms": 5,
                "queue.buffering.max.kbytes": 65_536,
            }
        )

    def encode(self, facts: Iterable[Event]) -> list[Outgoing]:
        """The records of events."""
        return [to_outgoing(fact, self._topic, self._codec) for fact in facts]

    def send(self, records: Iterable[Outgoing], flush: bool = True) -> None:
        """Write records; with `flush`, wait until the broker has them all."""
        for record in records:
            self._send_one(record)
        if flush:
            self._producer.flush()

    def drop(self) -> None:
        """Forget what is not written yet."""
        self._producer.purge()
        self._producer.flush(1.0)

    def _send_one(self, record: Outgoing) -> None:
        while True:
            try:
                headers: Any = list(record.headers)
                self._producer.produce(
                    record.topic, record.value, record.key, headers=headers, timestamp=record.timestamp_ms
                )
                self._producer.poll(0)
                return
            except BufferError:
                self._producer.poll(0.1)


class Watch:
    """Looks at where the committed part of a topic ends."""

    def __init__(self, admin: Any, topic: str, partitions: int = PARTITIONS) -> None:
        self._admin = admin
        latest: Any = OffsetSpec.latest()  # type: ignore[no-untyped-call]
        self._asked = {TopicPartition(topic, number): latest for number in range(partitions)}

    def end(self) -> int:
        """The sum of last stable offsets."""
        found = self._admin.list_offsets(self._asked, isolation_level=IsolationLevel.READ_COMMITTED)
        return sum(one.result().offset for one in found.values())


def rate(seen: list[tuple[float, int]]) -> float:
    """Things a second from the first look to the last: what came before the first is not counted."""
    (began, first), (ended, last) = seen[0], seen[-1]
    return (last - first) / (ended - began) if ended > began else float("nan")


def now() -> float:
    """Seconds from any origin, the same one for all processes of the machine."""
    return time.monotonic()
