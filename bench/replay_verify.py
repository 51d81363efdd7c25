"""`verify` over a history on Kafka, beside a bare loop that decodes it, one that only reads, and Temporal's Replayer.

    python bench/replay_verify.py [DECISIONS] [--rounds 2] [--temporal 5000]

Decisions of 1.7 KB on 4 partitions, one in 20 with two attempts, written by a bare producer: no control records of
transactions lie between them. Each program runs in a process of its own, the rounds of all interleaved, the fastest
of each counts. Its seconds are those from its first record to its last; its memory is the kernel's peak.

The Replayer (`kit/peer_temporal.py`) is installed from PyPI into `.driftline/bench-peers/temporal` at the first run
and replays so many decisions, 100 a workflow, 6 events a decision, from memory: it reads no log. It checks that code
asks for the same activities in the same order and sees no answer; `verify` judges every answer. `--temporal 0`: not.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.kit.app import NOTE, PROPOSAL, make_app
from bench.kit.cluster import PARTITIONS, cluster, load
from bench.kit.history import MENDED_EVERY, fill

from driftline.log import Settings
from driftline.schemas.names import DECISION

KIT = Path(__file__).parent / "kit"
TEMPORAL = Path(__file__).parents[1] / ".driftline" / "bench-peers" / "temporal"
TEMPORAL_NEEDED = "temporalio==1.35.0"
INSTALL_S_MAX = 60
A_WORKFLOW = 100
"""Decisions of one of Temporal's histories; its documentation warns above 10,240 events, 1,700 of them."""
RATIO_MIN, PEAK_MB_MAX = 0.5, 400
PROGRAMS = {
    "bytes": ("peer_reading.py", "bytes"),
    "decode": ("peer_reading.py", "decode"),
    "verify": ("verifying.py",),
}
Told = dict[str, Any]


def lines_of(command: Sequence[str]) -> list[Told]:
    """What a program prints, a line of JSON each.

    Raises:
        RuntimeError: It failed; with the end of what it said.
    """
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise RuntimeError(ended.stderr[-2000:])
    return [json.loads(line) for line in ended.stdout.splitlines()]


def measured(spec: Path, rounds: int) -> dict[str, Told]:
    """The fastest run of each program."""
    best: dict[str, Told] = {}
    for _ in range(rounds):
        for name, (program, *how) in PROGRAMS.items():
            [told] = lines_of([sys.executable, str(KIT / program), str(spec), *how])
            us = f"{told['cpu_s'] / told['records'] * 1e6:5.1f} µs of CPU each"
            print(f"  {name:7} {rate(told):9,.0f}/s  {us}  {told['peak_mb']:4.0f} MB at most  {load()}", flush=True)
            best[name] = max(told, best.get(name, told), key=rate)
    return best


def rate(told: Told) -> float:
    return float(told["records"] / told["seconds"])


def temporal_python() -> Path:
    """The interpreter of Temporal's environment, which is made where it is missing.

    Raises:
        CalledProcessError: pip could not install it.
        TimeoutExpired: It took more than a minute.
    """
    python = TEMPORAL / "bin" / "python"
    if not (TEMPORAL / "installed").exists():
        subprocess.run([sys.executable, "-m", "venv", str(TEMPORAL)], check=True)
        command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", TEMPORAL_NEEDED]
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=INSTALL_S_MAX)
        (TEMPORAL / "installed").touch()
    return python


def temporal(home: Path, decisions: int) -> list[Told]:
    """What the Replayer does; empty where it does not run, which is said."""
    asked = {"decisions": decisions, "decisions_a_workflow": A_WORKFLOW, "context": NOTE * 2, "answer": PROPOSAL}
    spec = home / "temporal.json"
    spec.write_text(json.dumps(asked))
    try:
        return lines_of([str(temporal_python()), str(KIT / "peer_temporal.py"), str(spec)])
    except (subprocess.SubprocessError, RuntimeError, OSError) as error:
        print(f"  Temporal's Replayer does not run here: {getattr(error, 'stderr', None) or error}")
        return []


def write_spec(settings: Settings, app: Any, decisions: int) -> Path:
    spec = {
        "app": app.name,
        "home": str(settings.home),
        "bootstrap": settings.require_bootstrap(),
        "registry": settings.require_registry(),
        "topic": app.topics.decisions,
        "partitions": PARTITIONS,
        "records": decisions,
        "schema": app.contracts.require(DECISION).latest,
    }
    path = settings.home / "reading.json"
    path.write_text(json.dumps(spec))
    return path


def tell(best: dict[str, Told], decisions: int) -> None:
    """Ratios.

    Raises:
        AssertionError: `verify` did not see what was written.
    """
    ours = best["verify"]
    assert ours["records"] == decisions
    assert ours["verdict"] == "equivalent"
    bare, limit = (rate(ours) / rate(best[name]) for name in ("decode", "bytes"))
    print(f"verify: {bare:.2f} of the loop that decodes (at least {RATIO_MIN}), {limit:.2f} of reading alone")
    print(f"verify: {ours['peak_mb']:.0f} MB resident at most, of {PEAK_MB_MAX}: {ours['peak_mb'] / PEAK_MB_MAX:.2f}")
    memory = ours["memory_mb"]
    if len(memory) >= 10:
        tenth, half, last = memory[len(memory) // 10], memory[len(memory) // 2], memory[-1]
        print(f"  after a tenth {tenth:.0f} MB, after half {half:.0f} MB, at the end {last:.0f} MB")


def tell_temporal(found: Sequence[Told], ours: Told) -> None:
    for told in found:
        each = f"{told['events'] / told['seconds']:,.0f} events/s"
        ratio = f"verify {rate(ours) / rate(told):.1f} times it"
        print(f"Temporal's Replayer, {told['runner']}: {rate(told):,.0f} decisions/s, {each}; {ratio}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("decisions", type=int, nargs="?", default=100_000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--temporal", type=int, default=5_000, help="decisions that Temporal's Replayer replays")
    given = parser.parse_args()
    with cluster() as settings:
        app = make_app("verified")
        size = fill(app, settings, given.decisions)
        spread = f"on {PARTITIONS} partitions, 1 in {MENDED_EVERY} mended"
        print(f"{given.decisions:,} decisions of {size:,.0f} bytes {spread}")
        best = measured(write_spec(settings, app, given.decisions), given.rounds)
        tell(best, given.decisions)
        if given.temporal:
            tell_temporal(temporal(settings.home, given.temporal), best["verify"])
    print(load())


if __name__ == "__main__":
    main()
