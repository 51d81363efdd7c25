"""The job in Faust: `python peer_faust.py JOB.json`, in an environment that has faust-streaming.

Written as its documentation shows: one agent over a stream, which sends to two topics. The guarantee is the job's
(`exactly_once` or `at_least_once`).
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from bench.kit.job import Job


def main(job: Job) -> None:
    faust = importlib.import_module("faust")
    app = faust.App(
        f"faust.{job.app}",
        broker=f"kafka://{job.given['bootstrap']}",
        processing_guarantee=job.given["guarantee"],
        value_serializer="raw",
        key_serializer="raw",
        topic_partitions=4,
        topic_disable_leader=True,
        web_enabled=False,
        store="memory://",
        datadir=str(Path(sys.argv[1]).with_suffix(".state")),
        consumer_auto_offset_reset="earliest",
        producer_compression_type=None,
        producer_linger=0.005,
    )
    raw = {"key_serializer": "raw", "value_serializer": "raw"}
    events, decisions = app.topic(job.given["events"], **raw), app.topic(job.given["decisions"], **raw)

    async def ask(messages: list[dict[str, str]]) -> str:
        return str(job.given["answer"])

    async def decide(stream: Any) -> None:
        async for event in stream.events():
            message = event.message
            headers = list(message.headers.items()) if isinstance(message.headers, dict) else message.headers
            at = (message.topic, message.partition, message.offset)
            decided = await job.decide(message.value, message.key, headers, at, ask)
            if decided is None:
                continue
            place = {"key": message.key, "partition": message.partition, "timestamp": message.timestamp}
            await decisions.send(value=decided.decision, headers=decided.decision_headers, **place)
            await events.send(value=decided.outcome, headers=decided.outcome_headers, **place)

    app.agent(events)(decide)
    sys.argv[1:] = ["worker", "-l", "warn"]
    app.main()


if __name__ == "__main__":
    main(Job.read(sys.argv[1]))
