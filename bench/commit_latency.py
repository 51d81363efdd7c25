"""What exactly-once adds: from the model's answer to the decision being visible to a reader of committed records.

    python bench/commit_latency.py [--seconds 20] [--rate 100]

Events are published at a fixed rate, however the runtime fares (open loop); it runs in a process of its own, and its
model takes 0.1 to 0.3 s and notes when it answered. The reader is this process, on the same machine's clock. Beside
it, in the same run, what Kafka itself takes by a bare client for one pair of records at a time: in a transaction
(begin, produce, flush, commit), and without one. The runtime's default linger of 20 ms comes on top of the former.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
from bench.kit.app import events, make_app
from bench.kit.cluster import PARTITIONS, Feed, cluster, load
from bench.kit.process import ours
from confluent_kafka import Consumer, Producer, TopicPartition

from driftline.consumers import App
from driftline.consumers.runtime import RuntimeLimits
from driftline.log import Settings
from driftline.schemas import Codec, Registry

LATENCY_S = (0.1, 0.3)
WARM_UP_S = 3.0
FLOOR_TIMES = 200
PAIR_BYTES = (1_700, 150)


def reader(settings: Settings, topic: str, isolation: str = "read_committed") -> Any:
    """A consumer of the whole topic from now on that asks for records as soon as there are any."""
    conf = {"group.id": f"see-{topic}", "isolation.level": isolation, "fetch.wait.max.ms": 100}
    found = Consumer({"bootstrap.servers": settings.require_bootstrap(), "enable.auto.commit": False, **conf})
    found.assign([TopicPartition(topic, number, 0) for number in range(PARTITIONS)])
    found.consume(1, 1.0)
    return found


def publish(feed: Feed, records: Sequence[Any], rate: float) -> None:
    """One record each 1/rate seconds, late ones at once."""
    began = time.monotonic()
    for number, record in enumerate(records):
        time.sleep(max(0.0, began + number / rate - time.monotonic()))
        feed.send([record], flush=False)
    feed.send([])


def seen_times(consumer: Any, count: int, deadline: float) -> Iterator[tuple[float, bytes]]:
    """(when it was seen, value) of so many records."""
    left = count
    while left and time.monotonic() < deadline:
        messages = [consumer.poll(0.1), *consumer.consume(100, 0.0)]
        at = time.monotonic()
        found = [message for message in messages if message is not None and message.error() is None]
        yield from ((at, message.value()) for message in found)
        left -= len(found)


def commit_ms(app: App, settings: Settings, seconds: float, rate: float) -> list[float]:
    """Milliseconds from answer to sight, of the decisions after the warm-up."""
    feed, consumer = Feed(app, settings), reader(settings, app.topics.decisions)
    records = feed.encode(events(0, round((seconds + WARM_UP_S) * rate)))
    codec = Codec(Registry(settings.require_registry()), app.contracts)
    with ours(settings, app.name, 256, LATENCY_S) as child:
        time.sleep(5.0)  # it joins its group
        publisher = threading.Thread(target=publish, args=(feed, records, rate))
        publisher.start()
        found = list(seen_times(consumer, len(records), time.monotonic() + seconds + 30))
        publisher.join()
        if len(found) < len(records):
            print(f"  only {len(found)} of {len(records)} decisions were seen; it said: {child.log[-3:]}")
    consumer.close()
    return [lag_ms(at, codec.decode(value).value) for at, value in found[round(WARM_UP_S * rate) :]]


def lag_ms(at: float, decision: dict[str, Any]) -> float:
    return (at - float(json.loads(decision["attempts"][0]["facts"])["answered_at_s"])) * 1000


def floor_ms(app: App, settings: Settings, transactional: bool) -> list[float]:
    """Of one pair of records at a time, by a bare client."""
    conf: dict[str, Any] = {"bootstrap.servers": settings.require_bootstrap(), "linger.ms": 0}
    if transactional:
        conf["transactional.id"] = f"floor.{app.name}"
    producer = Producer(conf)
    if transactional:
        producer.init_transactions(30)
    consumer = reader(settings, app.topics.decisions)
    found = []
    for number in range(FLOOR_TIMES):
        began = time.monotonic()
        _write_pair(producer, app, number % PARTITIONS, transactional)
        [(at, _)] = seen_times(consumer, 1, began + 10)
        found.append((at - began) * 1000)
    consumer.close()
    return found[10:]


def _write_pair(producer: Any, app: App, partition: int, transactional: bool) -> None:
    if transactional:
        producer.begin_transaction()
    for topic, size in zip((app.topics.decisions, app.topics.dead), PAIR_BYTES, strict=True):
        producer.produce(topic, b"x" * size, b"key", partition)
    producer.flush()
    if transactional:
        producer.commit_transaction()


def show(what: str, found: Sequence[float]) -> tuple[float, float]:
    p50, p99 = (float(np.percentile(found, share)) for share in (50, 99))
    print(f"  {what:44} p50 {p50:6.1f} ms   p99 {p99:6.1f} ms   of {len(found)}  {load()}", flush=True)
    return p50, p99


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--rate", type=float, default=100.0)
    given = parser.parse_args()
    with cluster() as settings:
        found = commit_ms(make_app("latency"), settings, given.seconds, given.rate)
        p50, p99 = show(f"runtime, {given.rate:g} decisions/s, answer to sight", found)
        floors = []
        for name, transactional in (("bare", False), ("bare-transaction", True)):
            app = make_app(name)
            Feed(app, settings)
            floors.append(show(f"{name}, one pair at a time", floor_ms(app, settings, transactional)))
    linger = RuntimeLimits().linger_ms_max
    limit = floors[1][0] + linger
    print(f"added to a bare write: {p50 - floors[0][0]:.1f} ms at p50, {p99 - floors[0][1]:.1f} ms at p99")
    print(f"runtime p50 / (bare transaction + linger of {linger:g} ms): {p50 / limit:.2f}")


if __name__ == "__main__":
    main()
