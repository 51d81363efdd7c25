"""Decisions a second of the runtime, beside a loop by hand that does the same job, and a loop that only copies bytes.

    python bench/runtime.py [EVENTS] [--rounds 3] [--no-rows]

All read the same backlog of 500-byte events on 4 partitions, from one broker, and write for each a decision and an
outcome with their headers to the same topics, 1,000 events a transaction with the positions in it:

- *runtime*: decodes, folds, renders, asks, verifies, encodes; writes a third record, the workflow's row, as well
  (not with `--no-rows`), and holds up to 256 events at once, in order per key;
- *loop by hand* (`kit/peer_loop.py`): decodes, renders, asks, checks, encodes, one event after the other, no row;
- *copying loop*: writes bytes that are ready for each event; it decodes and decides nothing.

The proposer answers in the process, at once. A rate is that from the first commit to the last,
the best of the rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.kit.app import PROPOSAL, events, make_app
from bench.kit.cluster import Feed, cluster, load, rate
from bench.kit.job import Job
from bench.kit.ours import Instant
from bench.kit.peer_loop import run_copy, run_loop
from bench.kit.peering import job_of

from driftline.consumers import App
from driftline.consumers.runtime import Runtime, RuntimeLimits
from driftline.log import KafkaReader, Record, Settings

TARGET = 0.8


async def answer(messages: list[dict[str, str]]) -> str:
    return PROPOSAL


def backlog(name: str, count: int, rows: bool, settings: Settings) -> App:
    app = make_app(name, rows)
    feed = Feed(app, settings)
    feed.send(feed.encode(events(0, count)))
    return app


def runtime_rate(app: App, settings: Settings, count: int) -> tuple[float, Runtime]:
    runtime = Runtime(app, settings, Instant(), lambda: datetime.now(UTC), limits=RuntimeLimits(batch_max=1_000))
    seen: list[tuple[float, int]] = []
    runtime.run(
        stop=lambda: runtime.summary.decisions.total() >= count,
        on_commit=lambda summary: seen.append((time.perf_counter(), summary.decisions.total())),
    )
    return rate([one for one in seen if one[1] <= count]), runtime


def loop_rate(app: App, settings: Settings, count: int) -> float:
    return rate(asyncio.run(run_loop(Job(job_of(app, settings)), count, answer)))


def copy_rate(app: App, settings: Settings, count: int, sample: App) -> float:
    decision, outcome = (last(settings, topic) for topic in (sample.topics.decisions, sample.topics.events))
    return rate(run_copy(Job(job_of(app, settings)), count, decision, outcome))


def last(settings: Settings, topic: str) -> Record:
    reader = KafkaReader(settings)
    *_, found = reader.read(reader.span(topic))
    return found


def one_round(number: int, count: int, rows: bool, settings: Settings) -> tuple[float, ...]:
    """Rates of the three, then the CPU that the former two took for one event, in microseconds."""
    app = backlog(f"runtime{number}", count, rows, settings)
    began = time.process_time()
    ours, runtime = runtime_rate(app, settings, count)
    ours_us = (time.process_time() - began) / count * 1e6
    other = backlog(f"loop{number}", count, rows, settings)
    began = time.process_time()
    loop = loop_rate(other, settings, count)
    loop_us = (time.process_time() - began) / count * 1e6
    copy = copy_rate(backlog(f"copy{number}", count, rows, settings), settings, count, app)
    told = f"{ours:7.0f} ({ours_us:.0f} µs CPU) {loop:7.0f} ({loop_us:.0f} µs CPU) {copy:7.0f}"
    print(f"  round {number + 1}: {told}  {runtime.summary.transactions} transactions  {load()}", flush=True)
    return ours, loop, copy, -ours_us, -loop_us


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("events", nargs="?", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-rows", action="store_true", help="an app without a fold: two records a decision")
    given = parser.parse_args()
    with cluster() as settings:
        found = [one_round(number, given.events, not given.no_rows, settings) for number in range(given.rounds)]
    ours, loop, copy, ours_us, loop_us = (max(column) for column in zip(*found, strict=True))
    print(f"runtime             {ours:7.0f} decisions/s")
    print(f"loop by hand        {loop:7.0f} decisions/s   runtime / loop {ours / loop:5.2f}   target {TARGET}")
    cpu = f"{-ours_us:.0f} µs and {-loop_us:.0f} µs"
    print(f"CPU of an event     {cpu:>21}, all threads   loop / runtime {loop_us / ours_us:5.2f}")
    print(f"copying loop, limit {copy:7.0f} inputs/s      runtime / copy {ours / copy:5.2f}")


if __name__ == "__main__":
    main()
