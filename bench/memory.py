"""Resident memory of the runtime with 1,000 decisions in flight; with `--minutes`, a curve over a sustained run.

    python bench/memory.py [--minutes 30] [--in-flight 1000] [--every 30] [--model 1 3]

The runtime runs in a process of its own, without LiteLLM; its model takes 1 to 3 s, in the process. Events are
published all the while, so that more than are in flight always wait. There are 10,000 workflows; their rows are
held in memory, and so are the ids of the last 10,000 events a partition: until those are full, memory grows as it
must. The slope is that of a line through the second half of the samples (least squares).
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
from bench.kit.app import events, make_app
from bench.kit.cluster import Feed, cluster, load
from bench.kit.process import Running, ours

from driftline.log import Outgoing

TARGET_MB = 300
AHEAD = 2_000
"""Events published and not decided, beyond those in flight."""
CHUNK = 500


def resident_mb(pid: int) -> float:
    """As the kernel counts it (`VmRSS`), in MB of 10^6 bytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    kib = next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))
    return kib * 1024 / 1e6


def chunks(feed: Feed) -> Iterator[list[Outgoing]]:
    for number in count():
        yield feed.encode(events(number * CHUNK, (number + 1) * CHUNK))


def sampled(child: Running, feed: Feed, seconds: float, every: float, ahead: int) -> list[tuple[float, float]]:
    """(minutes, MB) while events are published so that the runtime never waits for one."""
    source, sent = chunks(feed), 0
    began = time.monotonic()
    found: list[tuple[float, float]] = []
    while (passed := time.monotonic() - began) < seconds + every / 2 and not child.ended:
        while sent - child.decided < ahead:
            feed.send(next(source), flush=False)
            sent += CHUNK
        if passed >= len(found) * every:
            found.append((passed / 60, resident_mb(child.pid)))
            print(f"  {passed / 60:5.1f} min {found[-1][1]:6.1f} MB {child.decided:8} decided  {load()}", flush=True)
        time.sleep(0.1)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=0.5)
    parser.add_argument("--in-flight", type=int, default=1_000)
    parser.add_argument("--model", type=float, nargs=2, default=(1.0, 3.0), help="seconds of a call, from and to")
    parser.add_argument("--every", type=float, default=None, help="seconds between samples")
    given = parser.parse_args()
    every = given.every or (30.0 if given.minutes > 2 else 5.0)
    with cluster() as settings:
        app = make_app("memory")
        feed = Feed(app, settings)
        with ours(settings, app.name, given.in_flight, tuple(given.model)) as child:
            found = sampled(child, feed, given.minutes * 60, every, given.in_flight + AHEAD)
            feed.drop()
            for line in child.log[-5:]:
                print(f"  it said: {line}")
    peak = max(megabytes for _, megabytes in found)
    ratio = f"target {TARGET_MB}, ratio {peak / TARGET_MB:.2f}"
    print(f"{given.in_flight} in flight: at most {peak:.0f} MB resident, {ratio}")
    if given.minutes > 2:
        half = np.array(found[len(found) // 2 :])
        slope = float(np.polyfit(half[:, 0] / 60, half[:, 1], 1)[0])
        print(f"second half: {slope:+.1f} MB/hour over {half[-1, 0] - half[0, 0]:.1f} minutes")


if __name__ == "__main__":
    main()
