"""Restoring rows of 1 KB against a bare consumer of the same records, and what a transition and a tick cost.

    python bench/rows.py [ROWS] [--rounds 2]

The rows are one partition's, written by a bare producer. Each program runs in a process of its own, in turns, the
fastest of each counts; its memory is the kernel's peak. The bare one reads key and value of each record and keeps
nothing. Restoring ends with every row in memory and its version checked. All of it twice: rows without timers, and
rows that each have one, due a second apart. Of those a tick makes ten due at a time.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.kit.app import make_app
from bench.kit.cluster import Feed, cluster, load
from bench.kit.resident import PEAK, resident_mb
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

from driftline.consumers import App, Machine, Timer, Transition
from driftline.consumers.fold import Fold
from driftline.consumers.rows import Row, Rows, row_record
from driftline.consumers.spine import spine_of
from driftline.log import KafkaReader, Outgoing, Settings
from driftline.schemas import Codec, Event, Registry
from driftline.schemas.names import CLOCK_TICKED, TIMER_FIRED

ROW_BYTES = 1_000
RATIO_MIN, PEAK_MB_MAX, TRANSITION_US_MAX, FIRED_US_MAX = 0.5, 1_500, 50, 100
TRANSITIONS = 20_000
MACHINE = Machine(
    "init",
    ["closed"],
    [Transition("init", "*step", "open"), Transition("open", "*step", "open"), Transition("open", "*end", "closed")],
)
EXPIRING = replace(
    MACHINE,
    transitions=[*MACHINE.transitions, Transition("open", "timer:expiry", "closed")],
    timers=[Timer("expiry", "open", timedelta(days=30))],
)
PLAIN, TIMED = "bench-rows", "bench-timers"
DUE = datetime(2026, 8, 1, tzinfo=UTC)
TICKS, FIRED_A_TICK = 20, 10


def fold(row: Mapping[str, Any], event: Event) -> Mapping[str, Any]:
    return {**row, "steps": row.get("steps", 0) + 1}


def machine_app(name: str = PLAIN) -> App:
    machine = EXPIRING if name == TIMED else MACHINE
    return replace(make_app(name), spine="state-machine", machine=machine, fold=Fold(fold, "1"))


def rows(count: int, name: str = PLAIN) -> Iterator[tuple[bytes, Row]]:
    """Rows whose data take a kilobyte as text, each with an id of its own."""
    version = machine_app(name).row_fold
    assert version is not None
    note = "x" * (ROW_BYTES - (130 if name == TIMED else 80))
    for number in range(count):
        key = f"customer-{number:09d}"
        data = {"id": key, "note": note, "state": "open", "steps": number % 50}
        if name == TIMED:
            data["timers"] = {"expiry": (DUE + timedelta(seconds=number)).isoformat()}
        yield key.encode(), Row(data, 1 + number % 50, number, version.version)


def fill(app: App, settings: Settings, count: int) -> None:
    feed, codec = Feed(app, settings), Codec(Registry(settings.require_registry()), app.contracts)
    topic = app.topics.state
    records: Iterator[Outgoing] = (row_record(topic, 0, key, 1, row, codec) for key, row in rows(count, app.name))
    feed.send(records)


def bare(settings: Settings, app: App, count: int) -> None:
    consumer = Consumer(
        {
            "bootstrap.servers": settings.require_bootstrap(),
            "group.id": "bare",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
        }
    )
    consumer.assign([TopicPartition(app.topics.state, 0, OFFSET_BEGINNING)])
    done = size = 0
    while done < count:
        for message in consumer.consume(1_000, 1.0):
            key: Any = message.key()
            value: Any = message.value()
            size += len(key) + len(value)
            done += 1
    consumer.close()


def restore(settings: Settings, app: App, count: int) -> Rows:
    codec = Codec(Registry(settings.require_registry()), app.contracts)
    restored = Rows.restored(app.row_fold, KafkaReader(settings).read_to_latest(app.topics.state, 0), codec)
    assert len(restored) == count
    assert restored.current
    return restored


def child(which: str, settings: Settings, app: App, count: int) -> None:
    began, began_cpu = time.perf_counter(), time.process_time()
    restored = None
    if which == "restore":
        restored = restore(settings, app, count)
    else:
        bare(settings, app, count)
    spent, cpu = time.perf_counter() - began, time.process_time() - began_cpu
    told = {"seconds": spent, "cpu_s": cpu, "peak_mb": resident_mb(which=PEAK)}
    if restored is not None and app.name == TIMED:
        told["fired_us"] = fired_us(app, restored)
    print(json.dumps(told))


def fired_us(app: App, restored: Rows) -> float:
    """What a tick costs for each timer that it fires, the fastest of some ticks."""
    spine, fastest = spine_of(app), float("inf")
    for number in range(1, TICKS + 1):
        until = DUE + timedelta(seconds=number * FIRED_A_TICK - 1)
        tick = Event(f"t{number}", CLOCK_TICKED, "ticker", "clock", until, CLOCK_TICKED, {"ticked_at": until})
        began = time.perf_counter()
        taken = spine.take(restored, b"clock", tick, number)
        fastest = min(fastest, time.perf_counter() - began)
        assert [event.record for event in taken.emitted] == [TIMER_FIRED] * FIRED_A_TICK
    return 1e6 * fastest / FIRED_A_TICK


def measured(spec: Path, name: str, count: int, rounds: int) -> dict[str, dict[str, float]]:
    best: dict[str, dict[str, float]] = {}
    for _ in range(rounds):
        for which in ("bare", "restore"):
            command = [sys.executable, __file__, str(count), "--child", which, "--app", name, "--spec", str(spec)]
            told = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
            us = 1e6 * told["cpu_s"] / count
            told_rate = f"{count / told['seconds']:9,.0f}/s  {us:4.1f} µs of CPU each"
            print(f"  {which:8} {told_rate}  {told['peak_mb']:5.0f} MB  {load()}")
            best[which] = min(told, best.get(which, told), key=lambda one: float(one["seconds"]))
    return best


def tell(kind: str, best: Mapping[str, Mapping[str, float]]) -> None:
    ratio = best["bare"]["seconds"] / best["restore"]["seconds"]
    peak_mb = best["restore"]["peak_mb"]
    print(f"restoring rows {kind}: {ratio:.2f} of the bare consumer's rate (at least {RATIO_MIN})")
    print(f"memory: {peak_mb:.0f} MB at most, {peak_mb / PEAK_MB_MAX:.2f} of the limit at 1,000,000 rows")


def transition_us() -> float:
    """A fact that moves a row of 1 KB: read, fold, canonical text, kept."""
    app = machine_app()
    spine, table = spine_of(app), Rows(app.row_fold)
    for key, row in rows(100):
        table.keep(key, row)
    time_ = datetime(2026, 7, 1, tzinfo=UTC)
    events = [
        Event(str(n), "*step", "web", "w", time_ + timedelta(seconds=n), "*step", {"n": n})
        for n in range(TRANSITIONS)
    ]
    began = time.perf_counter()
    for number, event in enumerate(events):
        key = f"customer-{number % 100:09d}".encode()
        taken = spine.take(table, key, event, number)
        table.keep(key, taken.row)
    return 1e6 * (time.perf_counter() - began) / TRANSITIONS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=int, nargs="?", default=200_000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--app", choices=[PLAIN, TIMED], default=PLAIN, help=argparse.SUPPRESS)
    parser.add_argument("--spec", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        settings = Settings(**json.loads(given.spec.read_text()))
        child(given.child, settings, machine_app(given.app), given.rows)
        return
    us = transition_us()
    print(f"a transition of a row of {ROW_BYTES} bytes: {us:.1f} µs, {us / TRANSITION_US_MAX:.2f} of its limit")
    with cluster() as found, tempfile.TemporaryDirectory() as folder:
        settings = found.model_copy(update={"partitions": 1})
        spec = Path(folder) / "settings.json"
        spec.write_text(
            json.dumps(
                {
                    "home": str(settings.home),
                    "bootstrap_servers": settings.bootstrap_servers,
                    "registry_url": settings.registry_url,
                }
            )
        )
        for name, kind in ((PLAIN, "without timers"), (TIMED, "with a timer each")):
            fill(machine_app(name), settings, given.rows)
            best = measured(spec, name, given.rows, given.rounds)
            tell(kind, best)
    us = best["restore"]["fired_us"]
    limit = f"{us / FIRED_US_MAX:.2f} of its limit"
    print(f"a tick that fires {FIRED_A_TICK} of {given.rows:,} timers: {us:.1f} µs a timer, {limit}")


if __name__ == "__main__":
    main()
