"""Decisions a second of the runtime on the state machine, beside the same app on the event log with its rows.

    python bench/spine_rate.py [EVENTS] [--rounds 3]

Both read the same backlog from one broker, with a proposer that answers at once; each event is of a workflow of its
own state machine, in which it is legal. The event log writes a row for the fact and, when it reads its own commit
back, another; the state machine writes one row for both.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.kit.app import DUE, RENEWED, events, make_app
from bench.kit.cluster import Feed, cluster, load, rate
from bench.kit.ours import Instant

from driftline.consumers import App, Machine, Transition
from driftline.consumers.runtime import Runtime, RuntimeLimits
from driftline.log import Settings

RATIO_MIN = 0.7
MACHINE = Machine(
    "init",
    ["over"],
    [
        Transition("init", DUE, "due"),
        Transition("due", RENEWED, "renewed"),
        Transition("renewed", DUE, "due"),
        Transition("renewed", "end", "over"),
    ],
)


def app_on(spine: str, number: int) -> App:
    app = make_app(f"{spine}{number}")
    return app if spine == "log" else replace(app, spine="state-machine", machine=MACHINE)


def rate_of(app: App, count: int, settings: Settings) -> float:
    feed = Feed(app, settings)
    feed.send(feed.encode(events(0, count)))
    runtime = Runtime(app, settings, Instant(), lambda: datetime.now(UTC), limits=RuntimeLimits(batch_max=1_000))
    seen: list[tuple[float, int]] = []
    runtime.run(
        stop=lambda: runtime.summary.decisions.total() >= count,
        on_commit=lambda summary: seen.append((time.perf_counter(), summary.decisions.total())),
    )
    return rate([one for one in seen if one[1] <= count])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("events", nargs="?", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    best = {"log": 0.0, "machine": 0.0}
    with cluster() as settings:
        for number in range(given.rounds):
            found = {spine: rate_of(app_on(spine, number), given.events, settings) for spine in best}
            best = {spine: max(best[spine], found[spine]) for spine in best}
            told = "  ".join(f"{spine} {one:7.0f}/s" for spine, one in found.items())
            print(f"  round {number + 1}: {told}  {load()}", flush=True)
    print(f"state machine / event log with rows: {best['machine'] / best['log']:.2f} (at least {RATIO_MIN})")


if __name__ == "__main__":
    main()
