"""The job in Quix Streams, exactly once: `python peer_quix.py JOB.json`, in an environment that has quixstreams.

Written as its documentation shows: one dataframe, two branches to two topics, with its own defaults for commits. It
decides one message after the other; a model's seconds are awaited in its one thread. Prints on each commit.
"""

from __future__ import annotations

import asyncio
import importlib
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from bench.kit.job import Decided, Job


def main(job: Job) -> None:
    quixstreams = importlib.import_module("quixstreams")
    loop = asyncio.new_event_loop()
    done = [0]
    draws = random.Random(sys.argv[1])

    async def ask(messages: list[dict[str, str]]) -> str:
        if job.given["seconds"]:
            await asyncio.sleep(draws.uniform(*job.given["seconds"]))
        return str(job.given["answer"])

    def decide(value: bytes, key: bytes, timestamp: int, headers: Any) -> Decided | None:
        context = quixstreams.message_context()
        at = (context.topic, context.partition, context.offset)
        decided = loop.run_until_complete(job.decide(value, key, headers, at, ask))
        done[0] += decided is not None
        if job.given["seconds"]:
            print(time.monotonic(), done[0], flush=True)
        return decided

    app = quixstreams.Application(
        broker_address=job.given["bootstrap"],
        consumer_group=f"quix.{job.app}",
        auto_offset_reset="earliest",
        processing_guarantee="exactly-once",
        producer_extra_config={"compression.type": "lz4", "linger.ms": 5},
        auto_create_topics=False,
        state_dir=str(Path(sys.argv[1]).with_suffix(".state")),
        **job.given["options"],
    )
    raw = {"key_serializer": "bytes", "value_serializer": "bytes"}
    events = app.topic(job.given["events"], key_deserializer="bytes", value_deserializer="bytes", **raw)
    decisions = app.topic(job.given["decisions"], **raw)
    decided = app.dataframe(events).apply(decide, metadata=True).filter(lambda found: found is not None)
    one = decided.set_headers(lambda found, *_: found.decision_headers)
    one.apply(lambda found: found.decision).to_topic(decisions)
    other = decided.set_headers(lambda found, *_: found.outcome_headers)
    other.apply(lambda found: found.outcome).to_topic(events)
    signal.signal(signal.SIGTERM, lambda number, frame: app.stop())
    app.run()


if __name__ == "__main__":
    main(Job.read(sys.argv[1]))
