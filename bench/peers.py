"""Decisions a second of the runtime, beside Quix Streams and Faust doing the same two writes for each event.

    python bench/peers.py [EVENTS] [--rounds 1] [--seconds 8] [--only zero|slow]

The peers are installed from PyPI into `.driftline/bench-peers` at the first run. Each program runs in a process of
its own on a backlog of its own, on 4 partitions of the same broker; the rate is that at which committed decisions
become visible (last stable offsets, looked at every 20 ms), from the first to the last. Quix commits every
1,000 events; with 60,000 events or more it is also run with its default, every 5 s. The peers run the job by hand
(`kit/job.py`), with no rows; the runtime writes the workflow's row as a third record. Whatever does not run is said.

With a model that takes 2 s +- 1 s: the runtime with 512 in flight in one process, and Quix, which decides a partition
serially, in as many processes as there are partitions.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.kit.app import events, make_app
from bench.kit.cluster import PARTITIONS, Feed, Watch, cluster, load, rate
from bench.kit.peering import write_job
from bench.kit.process import Running, ours, running
from confluent_kafka.admin import AdminClient

from driftline.consumers import App
from driftline.log import Settings

ROOT = Path(__file__).parents[1]
PEERS = ROOT / ".driftline" / "bench-peers"
NEEDED = ("quixstreams==3.28.1", "faust-streaming==0.15.3", "aiokafka[lz4]==0.14.0", "fastavro", "jinja2")
QUIX_OPTIONS: dict[str, dict[str, Any]] = {"quix 1000": {"commit_every": 1_000}, "quix 5s": {}}
"""`quix 1000` commits every 1,000 events, `quix 5s` every 5 s alone, its default."""
QUIX_5S_EVENTS_MIN = 60_000
"""Fewer are one or two transactions, which give no rate."""
TARGETS = {"quix 1000": 1.3, "quix 5s": 1.3, "faust exactly_once": 8.0, "faust at_least_once": 8.0}
SLOW_TARGET = 100
MODEL_S = (1.0, 3.0)
LOOK_S = 0.02
PATIENCE_S = 30.0
"""A program that shows nothing new for so long does not run."""


def peer_python() -> Path:
    """The interpreter of the peers' environment, which is made where it is missing.

    Raises:
        CalledProcessError: pip could not install them.
    """
    python = PEERS / "bin" / "python"
    if not (PEERS / "installed").exists():
        subprocess.run([sys.executable, "-m", "venv", str(PEERS)], check=True)
        command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *NEEDED]
        subprocess.run(command, check=True, capture_output=True, text=True)
        (PEERS / "installed").touch()
    return python


def backlog(name: str, count: int, settings: Settings) -> App:
    app = make_app(name)
    feed = Feed(app, settings)
    feed.send(feed.encode(events(0, count)))
    return app


@contextmanager
def program(name: str, app: App, settings: Settings) -> Iterator[Running]:
    """One of the programs runs inside the block, at zero latency."""
    if name == "driftline":
        with ours(settings, app.name, 256, None) as child:
            yield child
        return
    kind, _, guarantee = name.partition(" ")
    extra = {"seconds": None, "guarantee": guarantee, "options": QUIX_OPTIONS.get(name)}
    path = write_job(settings.home / f"{app.name}.json", app, settings, **extra)
    with running([str(peer_python()), str(ROOT / "bench" / "kit" / f"peer_{kind}.py"), str(path)]) as child:
        yield child


def visible_rate(name: str, count: int, settings: Settings, number: int) -> float | str:
    """Decisions a second as a reader of committed records sees them; or why there are none."""
    app = backlog(f"{name.replace(' ', '-')}-{number}", count, settings)
    watch = Watch(AdminClient({"bootstrap.servers": settings.require_bootstrap()}), app.topics.decisions)
    seen: list[tuple[float, int]] = []
    with program(name, app, settings) as child:
        changed = time.monotonic()
        while not child.ended and time.monotonic() - changed < PATIENCE_S:
            end, at = watch.end(), time.monotonic()
            if end and (not seen or end != seen[-1][1]):
                seen.append((at, end))
                changed = at
            if end >= count:
                break
            time.sleep(LOOK_S)
    if not seen or seen[-1][1] < count:
        reached = seen[-1][1] if seen else 0
        tail = " | ".join(line for line in child.log[-4:])
        return f"stood at {reached} of {count} decisions; {'ended' if child.ended else 'still running'}; said: {tail}"
    if len(seen) < 3:
        return f"committed all {count} in {len(seen)} transactions, which gives no rate: give more events"
    return rate(seen)


def zero_latency(count: int, rounds: int, settings: Settings) -> None:
    print(f"no latency, {count} events, best of {rounds}")
    best: dict[str, float] = {}
    for name in ("driftline", *TARGETS):
        if name == "quix 5s" and count < QUIX_5S_EVENTS_MIN:
            continue
        for number in range(rounds):
            found = visible_rate(name, count, settings, number)
            if isinstance(found, str):
                print(f"  {name:20} no figure: {found}")
                break
            best[name] = max(found, best.get(name, 0.0))
        if name in best:
            ratio = best["driftline"] / best[name]
            target = f"target {TARGETS[name]}" if name in TARGETS else ""
            print(f"  {name:20} {best[name]:8.0f} decisions/s   driftline / it {ratio:6.2f}   {target}  {load()}")


def slow_model(seconds: float, settings: Settings) -> None:
    print(f"a model of {MODEL_S[0]:g} to {MODEL_S[1]:g} s, {PARTITIONS} partitions, {seconds:g} s")
    app = backlog("slow-ours", round(300 * (seconds + 15)), settings)
    with ours(settings, app.name, 512, MODEL_S) as child:
        found = steady(child, seconds)
    print(f"  driftline, 1 process, 512 in flight {found:8.1f} decisions/s  {load()}")
    peer = quix_slow_rate(seconds, settings)
    if isinstance(peer, str):
        print(f"  quix does not run: {peer}")
        return
    print(f"  quix, {PARTITIONS} processes {peer:25.2f} decisions/s  {load()}")
    print(f"  driftline / quix {found / peer:27.0f}               target {SLOW_TARGET}")


def steady(child: Running, seconds: float) -> float:
    """Decisions a second, after twice the longest call: until then the first ones end in waves."""
    wait_for(child, 1)
    time.sleep(2 * MODEL_S[1])
    first = len(child.seen)
    time.sleep(seconds)
    return rate(child.seen[first:])


def wait_for(child: Running, decided: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while child.decided < decided and not child.ended and time.monotonic() < deadline:
        time.sleep(LOOK_S)


def quix_slow_rate(seconds: float, settings: Settings) -> float | str:
    """Of as many processes as there are partitions, counted as decided, committed or not."""
    app = backlog("slow-quix", 1_000, settings)
    with ExitStack() as stack:
        children = []
        for number in range(PARTITIONS):
            path = settings.home / f"slow-quix-{number}.json"
            write_job(path, app, settings, seconds=MODEL_S, options={})
            command = [str(peer_python()), str(ROOT / "bench" / "kit" / "peer_quix.py"), str(path)]
            children.append(stack.enter_context(running(command)))
        for child in children:
            wait_for(child, 3)
        first = [len(child.seen) for child in children]
        time.sleep(seconds)
        found = [child.seen[begin:] for child, begin in zip(children, first, strict=True)]
    if not all(len(one) > 1 for one in found):
        return " | ".join(line for child in children for line in child.log[-2:])
    return sum(rate(one) for one in found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("events", nargs="?", type=int, default=12_000)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--only", choices=("zero", "slow"))
    given = parser.parse_args()
    try:
        peer_python()
    except subprocess.CalledProcessError as error:
        print(f"the peers cannot be installed: {error.stderr or error}")
        return
    with cluster() as settings:
        if given.only != "slow":
            zero_latency(given.events, given.rounds, settings)
        if given.only != "zero":
            slow_model(given.seconds, settings)


if __name__ == "__main__":
    main()
