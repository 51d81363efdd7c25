"""What a forced replay costs by itself, and how far it keeps its calls in flight.

    python bench/replay.py [CALLS]

The proposer runs in the process and answers what was logged, so that no test stops early; answers go through the
ledger (SQLite). First it answers at once: CPU of our own. Then it takes a second with 500 calls in flight: the share
of Little's law, without ramp and drain and with them, and with the writing of DuckDB and Parquet after it too.
"""

from __future__ import annotations

import asyncio
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.kit.cluster import load

from driftline.consumers.artifacts import Artifact
from driftline.consumers.proposing import Answer, ProposalRequest
from driftline.examples.renewals.app import app
from driftline.producers.renewals import synthetic_renewals
from driftline.replay import (
    AppSubject,
    Candidate,
    ForcedReplay,
    ForcedResult,
    Ledger,
    Limits,
    report_data,
    write_store,
)
from driftline.replay.testing import OwnModels, decided, segment_of

CALLS = int(sys.argv[1]) if len(sys.argv) > 1 else 6000
OWN_CPU_MS_MAX = 1.0
"""A call may cost so much of ours; the model's own second is what it waits for."""
IN_FLIGHT, LATENCY_S, LITTLE_MIN = 500, 1.0, 0.95
ENDLESS = 1e-9
"""Half-width of an equivalence region that no run reaches: it goes on to the end of its segment."""


class AtOnce:
    """Answers what was logged, so that both arms agree and the run goes on; `latency_s` stands for the provider."""

    def __init__(self, answers: dict[str, str | None], latency_s: float = 0.0) -> None:
        self.answers = answers
        self.latency_s = latency_s
        self.began: list[float] = []

    async def propose(self, request: ProposalRequest) -> Answer:
        self.began.append(time.perf_counter())
        if self.latency_s:
            await asyncio.sleep(self.latency_s)
        return Answer(self.answers[request.key.decision_id], cost_usd=0.001, latency_ms=1000.0)


decisions = decided(app, synthetic_renewals(CALLS, seed=3), OwnModels(), seed=3)
segment = segment_of(decisions)
prompt = app.boundaries[0].prompt
subject = AppSubject(app, {prompt.hash: Artifact(prompt.hash, "prompt", prompt.name, prompt.text)})
answers = {one.decision_id: one.attempts[0].raw_response for one in decisions}


def run(folder: Path, proposer: AtOnce, concurrency: int) -> tuple[ForcedResult, float, float]:
    """The result, and the seconds on the clock and of our CPU."""
    ledger = Ledger(folder / f"{concurrency}.sqlite")
    limits = Limits(delta=ENDLESS, concurrency=concurrency)
    replay = ForcedReplay(
        "bench", segment, subject, Candidate("acme/next"), proposer, ledger, limits, lambda: datetime.now(UTC)
    )
    began, began_cpu = time.perf_counter(), time.process_time()
    result = asyncio.run(replay.run())
    spent = time.perf_counter() - began, time.process_time() - began_cpu
    ledger.close()
    assert len(result.pairs) == CALLS
    return result, *spent


def steady_rate(proposer: AtOnce) -> float:
    """Calls begun a second, from when the first were all begun to when the last one was: without ramp and drain."""
    return (CALLS - IN_FLIGHT) / (proposer.began[-1] - proposer.began[IN_FLIGHT - 1])


async def bare(calls: int) -> None:
    """The peer: the same waiting with nothing around it."""
    room = asyncio.Semaphore(IN_FLIGHT)

    async def one() -> None:
        async with room:
            await asyncio.sleep(LATENCY_S)

    await asyncio.gather(*(one() for _ in range(calls)))


def main() -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        result, _, cpu_s = run(folder, AtOnce(answers), concurrency=8)
        cpu_ms = cpu_s / CALLS * 1000
        print(f"own CPU: {cpu_ms:.2f} ms a call, {cpu_ms / OWN_CPU_MS_MAX:.2f} of the limit of {OWN_CPU_MS_MAX} ms")

        began = time.perf_counter()
        write_store(folder / "run", result, report_data("renewals", "log", "acme/next", result, Limits()))
        load_s = time.perf_counter() - began
        rate = CALLS / load_s
        print(f"DuckDB and Parquet: {rate:,.0f} pairs/s, {rate / IN_FLIGHT:.0f} × the rate below  {load()}")

        slow = AtOnce(answers, LATENCY_S)
        _, wall_s, cpu_s = run(folder, slow, IN_FLIGHT)
        began = time.perf_counter()
        asyncio.run(bare(CALLS))
        bare_s = time.perf_counter() - began
        little_s = CALLS * LATENCY_S / IN_FLIGHT
        steady = steady_rate(slow) * LATENCY_S / IN_FLIGHT
        print(f"{IN_FLIGHT} in flight at {LATENCY_S:g} s: {steady:.3f} of Little's law (at least {LITTLE_MIN})")
        print(
            f"ramp and drain included: {CALLS / wall_s:.0f} calls/s, {little_s / wall_s:.3f} of Little's law, "
            f"{bare_s / wall_s:.3f} of a bare loop; CPU {cpu_s / wall_s:.0%}, {cpu_s / CALLS * 1000:.2f} ms a call"
        )
        print(f"and DuckDB and Parquet included: {little_s / (wall_s + load_s):.3f} of Little's law  {load()}")


if __name__ == "__main__":
    main()
