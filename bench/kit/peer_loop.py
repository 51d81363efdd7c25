"""The peer of the runtime: a loop by hand over confluent-kafka, one event after the other, exactly once.

What it has not: rows, artifacts, a control topic, retries of a commit, rebalances, poison events, fed-back rejects,
more than one model call at once.
"""

from __future__ import annotations

import time
from typing import Any

from bench.kit.job import Job
from confluent_kafka import Consumer, Producer, TopicPartition

BATCH = 1_000


def clients(job: Job, name: str) -> tuple[Any, Any]:
    """A consumer and a transactional producer, set up as the runtime's are."""
    bootstrap = {"bootstrap.servers": job.given["bootstrap"]}
    producer = Producer({**bootstrap, "transactional.id": name, "compression.type": "lz4", "linger.ms": 5})
    producer.init_transactions(30)
    consumer = Consumer(
        {
            **bootstrap,
            "group.id": name,
            "isolation.level": "read_committed",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
    )
    consumer.subscribe([job.given["events"]])
    return consumer, producer


async def run_loop(job: Job, decisions: int, ask: Any) -> list[tuple[float, int]]:
    """Decide so many events; when each transaction was committed, and how many were by then."""
    consumer, producer = clients(job, f"loop.{job.app}")
    seen: list[tuple[float, int]] = []
    done = 0
    while done < decisions:
        messages = consumer.consume(BATCH, 0.5)
        if not messages:
            continue
        producer.begin_transaction()
        for message in messages:
            done += await _decide(job, producer, message, ask)
        _commit(producer, consumer, messages)
        seen.append((time.perf_counter(), done))
    consumer.close()
    return seen


def run_copy(job: Job, records: int, decision: Any, outcome: Any) -> list[tuple[float, int]]:
    """The limit: bytes that are ready are written for each event, nothing is decoded or decided."""
    consumer, producer = clients(job, f"copy.{job.app}")
    seen: list[tuple[float, int]] = []
    done = 0
    while done < records:
        messages = consumer.consume(BATCH, 0.5)
        if not messages:
            continue
        producer.begin_transaction()
        for message in messages:
            for topic, record in ((job.given["decisions"], decision), (job.given["events"], outcome)):
                headers = list(record.headers)
                producer.produce(topic, record.value, message.key(), message.partition(), headers=headers)
        _commit(producer, consumer, messages)
        done += len(messages)
        seen.append((time.perf_counter(), done))
    consumer.close()
    return seen


async def _decide(job: Job, producer: Any, message: Any, ask: Any) -> int:
    at = (message.topic(), message.partition(), message.offset())
    decided = await job.decide(message.value(), message.key(), message.headers(), at, ask)
    if decided is None:
        return 0
    place = {"key": message.key(), "partition": message.partition(), "timestamp": message.timestamp()[1]}
    producer.produce(job.given["decisions"], decided.decision, headers=decided.decision_headers, **place)
    producer.produce(job.given["events"], decided.outcome, headers=decided.outcome_headers, **place)
    return 1


def _commit(producer: Any, consumer: Any, messages: list[Any]) -> None:
    producer.flush()
    ends = {(message.topic(), message.partition()): message.offset() + 1 for message in messages}
    positions = [TopicPartition(topic, partition, offset) for (topic, partition), offset in ends.items()]
    producer.send_offsets_to_transaction(positions, consumer.consumer_group_metadata())
    producer.commit_transaction()
