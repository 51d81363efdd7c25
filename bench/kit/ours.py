"""The runtime in a process of its own, for benchmarks that watch it from outside.

    python bench/kit/ours.py SPEC.json

Tells on stdout of each commit: seconds on the machine's clock, decisions so far. Stops on SIGTERM.
"""

from __future__ import annotations

import asyncio
import json
import random
import signal
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from bench.kit.app import PROPOSAL, make_app

from driftline.consumers import Answer, ProposalRequest
from driftline.consumers.runtime import Runtime, RuntimeLimits
from driftline.log import Settings


class Instant:
    """Answers at once."""

    answer = Answer(PROPOSAL)

    async def propose(self, request: ProposalRequest) -> Answer:
        return self.answer


class Slow:
    """Answers after a uniform time of a seeded sequence, and says when it did."""

    def __init__(self, seconds: tuple[float, float], seed: int = 1) -> None:
        self._seconds = seconds
        self._random = random.Random(seed)
        self.calls = 0

    async def propose(self, request: ProposalRequest) -> Answer:
        await asyncio.sleep(self._random.uniform(*self._seconds))
        self.calls += 1
        return Answer(PROPOSAL, facts={"answered_at_s": time.monotonic()})


def main(spec: dict[str, Any]) -> None:
    settings = Settings(
        home=Path(spec["home"]), bootstrap_servers=spec["bootstrap"], registry_url=spec["registry"], partitions=4
    )
    proposer = Slow(tuple(spec["seconds"])) if spec["seconds"] else Instant()
    limits = RuntimeLimits(in_flight_max=spec["in_flight"], batch_max=1_000, drain_s_max=0.0)
    runtime = Runtime(make_app(spec["app"]), settings, proposer, lambda: datetime.now(UTC), limits=limits)
    stopped: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: stopped.append(number))
    runtime.run(
        stop=lambda: bool(stopped),
        on_commit=lambda summary: print(time.monotonic(), summary.decisions.total(), flush=True),
    )


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
