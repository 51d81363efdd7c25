"""Decided a second with a slow model and 512 in flight, beside Little's law: 512 / 2 s = 256 a second.

    python bench/little.py [--seconds 8] [--partitions 1 4 12] [--litellm 4] [--in-flight 512]

The model takes 2 s +- 1 s, uniform and seeded, in the process. With `--litellm` the same on as many partitions
through `LiteLLMProposer` and the simulator, whose mean latency is set to 2 s as well; some of its proposals are
rejected and asked for again, so calls are counted there. Steady state: what is committed in the first
seconds is left out. LiteLLM's own CPU a call is measured apart, without Kafka and without latency.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.kit.app import events, make_app
from bench.kit.cluster import Feed, cluster, load
from bench.kit.ours import Slow

from driftline.consumers import App
from driftline.consumers.models import LiteLLMProposer
from driftline.consumers.proposing import CallKey, ProposalRequest, Proposer
from driftline.consumers.runtime import Runtime, RuntimeLimits
from driftline.examples.renewals.app import app as renewals
from driftline.log import Settings
from driftline.producers.renewals import synthetic_renewals

LATENCY_S = (1.0, 3.0)
MEAN_S = 2.0
RAMP_S = 6.0
"""Twice the longest answer: until then the first calls, which began at once, still end in waves."""
TARGET = 0.95
SIM_SPREAD = 2 * math.sinh(0.5)
"""Mean latency of the simulator over its `sim_latency_ms`: the mean of exp(u - 0.5)."""
CPU_CALLS = 300


class Window:
    """Commits of a run, and its CPU, from the end of the ramp until it is over."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._began = 0.0
        self.seen: list[tuple[float, int, int]] = []
        self._cpu: list[tuple[float, float]] = []

    def note(self, decisions: int, calls: int) -> None:
        at = time.monotonic()
        self._began = self._began or at - LATENCY_S[0]
        if at - self._began >= RAMP_S:
            self.seen.append((at, decisions, calls))
            self._cpu.append((at, time.process_time()))

    def is_over(self) -> bool:
        return bool(self.seen) and time.monotonic() - self.seen[0][0] > self._seconds

    def rates(self) -> tuple[float, float, float]:
        """Decisions a second, calls a second, share of one CPU that the process took."""
        (began, first, first_call), (ended, last, last_call) = self.seen[0], self.seen[-1]
        took = ended - began
        return (last - first) / took, (last_call - first_call) / took, (self._cpu[-1][1] - self._cpu[0][1]) / took


def measure(app: App, settings: Settings, proposer: Proposer, seconds: float, in_flight: int) -> Window:
    window = Window(seconds)
    limits = RuntimeLimits(in_flight_max=in_flight, batch_max=1_000, drain_s_max=0.0)
    runtime = Runtime(app, settings, proposer, lambda: datetime.now(UTC), limits=limits)
    runtime.run(stop=window.is_over, on_commit=lambda done: window.note(done.decisions.total(), done.attempts))
    return window


def show(what: str, window: Window, limit: float, calls: bool = False) -> None:
    decisions, asked, cpu = window.rates()
    found = asked if calls else decisions
    told = f"{decisions:6.1f} decisions/s" + (f", {asked:6.1f} calls/s" if calls else "")
    print(f"  {what:22} {told}   of {limit:5.1f}: {found / limit:6.1%}   CPU {cpu:4.0%} of a core  {load()}")


def in_process(partitions: int, seconds: float, in_flight: int, settings: Settings) -> None:
    app = make_app(f"little{partitions}")
    feed = Feed(app, settings)
    feed.send(feed.encode(events(0, needed(seconds, in_flight))))
    window = measure(app, settings, Slow(LATENCY_S), seconds, in_flight)
    show(f"{partitions} partitions", window, in_flight / MEAN_S)


def through_litellm(partitions: int, seconds: float, in_flight: int, settings: Settings) -> None:
    parameters = {"sim_sleep": True, "sim_latency_ms": round(MEAN_S / SIM_SPREAD * 1000)}
    boundary = replace(renewals.boundaries[0], parameters=parameters)
    app = replace(renewals, name=f"litellm{partitions}", boundaries=[boundary], effectors=())
    feed = Feed(app, settings)
    feed.send(feed.encode(synthetic_renewals(needed(seconds, in_flight), 1)))
    proposer = LiteLLMProposer()
    proposer.warm_up()
    window = measure(app, settings, proposer, seconds, in_flight)
    show(f"{partitions} partitions, LiteLLM", window, in_flight / MEAN_S, calls=True)


def needed(seconds: float, in_flight: int) -> int:
    return round(in_flight * (4 + (seconds + RAMP_S) / MEAN_S))


def litellm_cpu_ms() -> float:
    """CPU of one call through LiteLLM, all threads, one at a time, without latency."""
    facts = list(synthetic_renewals(CPU_CALLS, 1))
    prompt = renewals.boundaries[0].prompt
    proposer = LiteLLMProposer()
    requests = [_request(prompt.messages(_context(fact.data)), fact.id, fact.workflow) for fact in facts]

    async def ask() -> float:
        await proposer.propose(requests[0])
        began = time.process_time()
        for request in requests:
            await proposer.propose(request)
        return (time.process_time() - began) / len(requests) * 1000

    return asyncio.run(ask())


def _context(data: Mapping[str, Any]) -> dict[str, Any]:
    return {"event": dict(data), "stream": "", "row": {}}


def _request(messages: list[Any], decision_id: str, workflow: str) -> ProposalRequest:
    return ProposalRequest("sim/renewals", messages, CallKey(decision_id, workflow))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--partitions", type=int, nargs="*", default=[1, 4, 12])
    parser.add_argument("--litellm", type=int, nargs="*", default=[4])
    parser.add_argument("--in-flight", type=int, default=512)
    given = parser.parse_args()
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    print(f"{given.in_flight} in flight, {LATENCY_S[0]:g} to {LATENCY_S[1]:g} s a call; target {TARGET:.0%}")
    with cluster() as settings:
        for partitions in given.partitions:
            place = settings.model_copy(update={"partitions": partitions})
            in_process(partitions, given.seconds, given.in_flight, place)
        for partitions in given.litellm:
            place = settings.model_copy(update={"partitions": partitions})
            through_litellm(partitions, given.seconds, given.in_flight, place)
    if given.litellm:
        print(f"  LiteLLM and the simulator alone: {litellm_cpu_ms():.2f} ms of CPU a call")


if __name__ == "__main__":
    main()
