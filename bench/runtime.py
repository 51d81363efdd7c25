"""Decisions a second of the runtime, beside a bare confluent-kafka loop that writes the same records.

Both consume the same renewals on one ephemeral local Kafka and write, in transactions of the same size and with the
positions in them, the same decision and event for each; the runtime reads, decides and encodes them, and writes a row
too. The proposer answers in the process: no model, no LiteLLM. Prints both rates and their ratio, best of the rounds.

    python bench/runtime.py [events]
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, Producer, TopicPartition

from driftline.console.local import LocalKafka, LocalRegistry
from driftline.consumers import Answer, App, ProposalRequest
from driftline.consumers.prepare import prepare
from driftline.consumers.runtime import BATCH_EVENTS_MAX, Runtime
from driftline.examples.renewals.app import OUTCOMES
from driftline.examples.renewals.app import app as renewals
from driftline.log import KafkaReader, Settings
from driftline.producers import Publisher
from driftline.producers.renewals import synthetic_renewals

ROUNDS = 3
ANSWER = Answer(json.dumps({"type": OUTCOMES[0], "payload": {"term_months": 12, "rationale": "as it stands"}}))


class Renewing:
    async def propose(self, request: ProposalRequest) -> Answer:
        return ANSWER


def make_app(name: str, settings: Settings, events: int) -> App:
    app = replace(renewals, name=name)
    prepare(app, settings)
    with Publisher(app.name, app.schemas, settings, source="crm") as publisher:
        for event in synthetic_renewals(events, 1):
            publisher.publish_event(event)
    return app


def runtime_rate(app: App, settings: Settings, events: int) -> tuple[float, Runtime]:
    """Decisions a second from the first commit to the last decision: joining a group is no part of the loop."""
    runtime = Runtime(app, settings, Renewing(), lambda: datetime.now(UTC))
    seen: list[tuple[float, int]] = []
    runtime.run(
        stop=lambda: runtime.summary.decisions.total() >= events,
        on_commit=lambda summary: seen.append((time.perf_counter(), summary.decisions.total())),
    )
    return rate(seen), runtime


def rate(seen: list[tuple[float, int]]) -> float:
    (began, first), (ended, last) = seen[0], seen[-1]
    return (last - first) / (ended - began)


def bare_rate(app: App, settings: Settings, events: int, decision: bytes, outcome: bytes) -> float:
    """The same two records an input by confluent-kafka alone."""
    bootstrap = {"bootstrap.servers": settings.require_bootstrap()}
    producer = Producer({**bootstrap, "transactional.id": "bare", "compression.type": "lz4", "linger.ms": 5})
    producer.init_transactions(30)
    consumer = Consumer(
        {
            **bootstrap,
            "group.id": f"bare-{app.name}",
            "isolation.level": "read_committed",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
    )
    consumer.subscribe([app.topics.events])
    seen: list[tuple[float, int]] = []
    done = 0
    while done < events:
        messages = consumer.consume(BATCH_EVENTS_MAX, 0.05)
        if messages:
            done += bare_transaction(producer, consumer, messages, app, decision, outcome)
            seen.append((time.perf_counter(), done))
    consumer.close()
    return rate(seen)


def bare_transaction(
    producer: Any, consumer: Any, messages: list[Any], app: App, decision: bytes, outcome: bytes
) -> int:
    producer.begin_transaction()
    for message in messages:
        producer.produce(app.topics.decisions, decision, message.key(), message.partition())
        producer.produce(
            app.topics.dead, outcome, message.key(), message.partition()
        )  # beside: it reads nothing back
    producer.flush()
    ends = {message.partition(): message.offset() + 1 for message in messages}
    positions = [TopicPartition(app.topics.events, partition, offset) for partition, offset in ends.items()]
    producer.send_offsets_to_transaction(positions, consumer.consumer_group_metadata())
    producer.commit_transaction()
    return len(messages)


def one_value(app: App, settings: Settings, topic: str) -> bytes:
    reader = KafkaReader(settings)
    value = None
    for record in reader.read(reader.span(topic)):
        value = record.value
    assert value is not None
    return value


def main(events: int) -> None:
    home = Path(tempfile.mkdtemp(prefix="driftline-bench-"))
    kafka, registry = LocalKafka(home), LocalRegistry(home)
    try:
        brokers = kafka.start(ephemeral=True).bootstrap_servers
        url = registry.start(ephemeral=True).url
        settings = Settings(home=home, bootstrap_servers=brokers, registry_url=url, partitions=4)
        ours, bare = [], []
        for number in range(ROUNDS):
            inputs = make_app(f"bare{number}", settings, events)
            app = make_app(f"runtime{number}", settings, events)
            found, runtime = runtime_rate(app, settings, events)
            ours.append(found)
            values = (one_value(app, settings, app.topics.decisions), one_value(app, settings, app.topics.events))
            bare.append(bare_rate(inputs, settings, events, *values))
            print(
                f"  round {number + 1}: {ours[-1]:7.0f} {bare[-1]:7.0f}  {runtime.summary.transactions} transactions"
            )
        print(f"runtime          {max(ours):7.0f} decisions/s")
        print(f"bare transaction {max(bare):7.0f} inputs/s")
        print(f"ratio            {max(ours) / max(bare):7.3f}")
    finally:
        registry.stop()
        kafka.stop()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 4_000)
