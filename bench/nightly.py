"""A night of `driftline nightly` over a history on Kafka: what is free against 10 s, what is paid against its limit.

    python bench/nightly.py [DECISIONS] [--calls 300]

Decisions of 1.7 KB on 4 partitions, all decided in one night. First the night without a candidate: today's rules over
all of them. Then a candidate is added: the night is looked at again, and the simulator asked within the limit of
calls. Then the same command once more, which has nothing to do.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.kit.app import STARTED, make_app
from bench.kit.cluster import cluster, load
from bench.kit.history import fill

from driftline.console.nightly import VERIFY, NightDone, run_nightly
from driftline.console.nightly_config import load_config
from driftline.log import Settings

NAME = "nightly"
FREE_S_MAX = 10.0
MODULE = f"from bench.kit.app import make_app\napp = make_app({NAME!r})\n"
PROMPT = Path(__file__).parent / "kit" / "prompt.md"
CANDIDATE = f"[[apps.{NAME}.candidates]]\nmodel = 'sim/renewals'\nprompt = '{PROMPT}'\n"


def configure(folder: Path, settings: Settings) -> None:
    """Point this process at the cluster, with the app as a module of its own."""
    (folder / "bench_nightly_app.py").write_text(MODULE)
    sys.path.insert(0, str(folder))
    os.environ["DRIFTLINE_HOME"] = str(folder)
    os.environ["DRIFTLINE_BOOTSTRAP_SERVERS"] = settings.require_bootstrap()
    os.environ["DRIFTLINE_REGISTRY_URL"] = settings.require_registry()
    os.environ["DRIFTLINE_APPS"] = f'{{"{NAME}": "bench_nightly_app:app"}}'


def night(folder: Path, calls: int, candidate: str) -> tuple[NightDone, float]:
    """One run of the night, and its seconds."""
    path = folder / "nightly.toml"
    path.write_text(f"[apps.{NAME}.limits]\nmax_calls = {calls}\nalpha = 1e-300\n{candidate}")
    began = time.perf_counter()
    [done] = run_nightly(load_config(path), [STARTED.date()])
    if done.error is not None:
        raise done.error
    return done, time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("decisions", type=int, nargs="?", default=100_000)
    parser.add_argument("--calls", type=int, default=300)
    given = parser.parse_args()
    with cluster() as settings, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        fill(make_app(NAME), settings, given.decisions)
        configure(folder, settings)
        free, seconds = night(folder, given.calls, "")
        assert free.parts[VERIFY]["decisions"] == given.decisions
        print(f"free: {given.decisions:,} decisions in {seconds:.1f} s, {given.decisions / seconds:,.0f}/s")
        print(f"  {seconds / FREE_S_MAX:.2f} of {FREE_S_MAX:g} s; {load()}")
        paid, whole = night(folder, given.calls, CANDIDATE)
        [part] = [part for label, part in paid.parts.items() if label != VERIFY]
        made = part["paid_calls"] + part["overspent_calls"]
        print(f"with a candidate: {whole:.1f} s, {made} calls, {made / given.calls:.2f} of the limit; {load()}")
        again, idle = night(folder, given.calls, CANDIDATE)
        assert again.already
        print(f"once more: {idle * 1000:.0f} ms")


if __name__ == "__main__":
    main()
