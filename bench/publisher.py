"""Events a second of `Publisher` against a bare confluent-kafka producer writing the same records.

Run: .venv/bin/python bench/publisher.py [EVENTS]
Starts a Kafka and a registry of its own. The two take turns; the ratio is that of the medians.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from confluent_kafka import Producer

from driftline.console.local import LocalKafka, LocalRegistry
from driftline.log import AppTopics, Outgoing, Settings, prepare, to_outgoing
from driftline.producers import Publisher
from driftline.schemas import Codec, Contracts, Event, Registry

APP = "bench"
RECORD = "bench.Renewal"
ROUNDS = 5
SCHEMA = {
    "type": "record",
    "name": "Renewal",
    "namespace": "bench",
    "fields": [
        *({"name": name, "type": "string"} for name in ("customer", "contract", "note")),
        *({"name": name, "type": "double"} for name in ("monthly", "total")),
        {"name": "months", "type": "int"},
    ],
}


def events(count: int) -> list[Event]:
    start = datetime(2026, 7, 1, tzinfo=UTC)
    note = "x" * 300
    return [
        Event(
            id=f"id-{n}",
            type="renewal",
            source="bench",
            workflow=f"c-{n % 1000}",
            time=start + timedelta(seconds=n),
            record=RECORD,
            data={
                "customer": f"c-{n % 1000}",
                "contract": "month-to-month",
                "note": note,
                "monthly": 70.5,
                "total": 1200.0,
                "months": 12,
            },
        )
        for n in range(count)
    ]


def publish(settings: Settings, schemas: Path, facts: list[Event]) -> None:
    with Publisher(APP, schemas, settings, source="bench", queue_records_max=100_000) as publisher:
        for fact in facts:
            publisher.publish_event(fact)


def bare(settings: Settings, records: list[Outgoing]) -> None:
    producer = Producer(
        settings.client(
            {
                "enable.idempotence": True,
                "acks": "all",
                "partitioner": "murmur2_random",
                "compression.type": "lz4",
                "linger.ms": 5,
            }
        )
    )
    for record in records:
        producer.produce(
            record.topic,
            value=record.value,
            key=record.key,
            headers=list(record.headers),
            timestamp=record.timestamp_ms,
            on_delivery=lambda error, message: None,
        )
        producer.poll(0)
    producer.flush()


def encoded(settings: Settings, contracts: Contracts, facts: list[Event]) -> list[Outgoing]:
    codec = Codec(Registry(settings.require_registry()), contracts)
    return [to_outgoing(fact, AppTopics(APP).events, codec) for fact in facts]


def seconds(work: Callable[[], None]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def measure(settings: Settings, schemas: Path, count: int) -> None:
    contracts = Contracts.load(schemas)
    prepare(AppTopics(APP), [(AppTopics(APP).events, RECORD)], contracts, settings)
    facts = events(count)
    records = encoded(settings, contracts, facts)
    encode = [seconds(lambda: bare(settings, encoded(settings, contracts, facts))) for _ in range(ROUNDS)]
    ours, peer = [], []
    for _ in range(ROUNDS):
        peer.append(seconds(lambda: bare(settings, records)))
        ours.append(seconds(lambda: publish(settings, schemas, facts)))
    for name, taken in (("bare, bytes ready", peer), ("bare, with encoding", encode), ("Publisher", ours)):
        print(f"{name:20s} {count / statistics.median(taken):10,.0f} events/s  (best {count / min(taken):,.0f})")
    print(f"{'Publisher / bare, bytes ready':32s} {statistics.median(peer) / statistics.median(ours):.2f}")
    print(f"{'Publisher / bare, with encoding':32s} {statistics.median(encode) / statistics.median(ours):.2f}")


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 50_000
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        (home / "avsc" / RECORD).mkdir(parents=True)
        (home / "avsc" / RECORD / "1.avsc").write_text(json.dumps(SCHEMA))
        kafka, registry = LocalKafka(home), LocalRegistry(home)
        try:
            brokers = kafka.start(ephemeral=True).bootstrap_servers
            url = registry.start(ephemeral=True).url
            settings = Settings(home=home, bootstrap_servers=brokers, registry_url=url, partitions=4)
            measure(settings, home / "avsc", count)
        finally:
            registry.stop()
            kafka.stop()


if __name__ == "__main__":
    main()
