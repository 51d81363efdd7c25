"""What a scrape of the exporter costs: time and memory with 1,000 series.

    python bench/exporter.py [--series 1000] [--scrapes 200]

The exporter's own registry and HTTP server run here; the state is put in by hand, as Kafka has no part in a scrape.
A scrape is a whole HTTP request, uncompressed; its CPU is that of server and client. Memory is the resident set of
the process, which does nothing else, as a line through the scrapes (least squares), after as many scrapes to warm up.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from datetime import UTC, datetime
from http.client import HTTPConnection
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
from bench.kit.cluster import load

from driftline.console.exporter_command import make_registry
from driftline.console.exporting import AlertBoard, AppStanding, ExporterCollector
from driftline.console.exporting.collector import LogState
from driftline.console.health import Health, HealthServer, health_endpoints
from driftline.schemas import ArmRef, ReplayCompleted, StratumChange

SCRAPE_MS_MAX = 50
GROWTH_KB_MAX = 1_000
"""Over all scrapes; what counts as flat, since the allocator takes pages as it likes."""
STRATA = 15
NOON = datetime(2026, 10, 1, 12, tzinfo=UTC)


def completed(number: int) -> ReplayCompleted:
    arm = ArmRef(model=f"acme/model-{number}", prompt_hash="p", verifier_version="v")
    strata = [
        StratumChange(
            boundary="renewal",
            stream=f"renewal-due.plan-{stream}",
            level="verdict",
            events=40,
            change=-0.123456789,
            interval_lo=-0.4,
            interval_hi=-0.1,
            e_value=99.123,
            named=True,
        )
        for stream in range(STRATA)
    ]
    return ReplayCompleted(
        run_id=f"r{number}",
        app="renewals",
        mode="forced",
        baseline=arm,
        candidate=arm,
        verdict="diverged",
        stopped_because="alarm",
        alpha=0.05,
        delta=0.05,
        events=150,
        compared=64,
        paid_calls=70,
        overspent_calls=3,
        cost_usd=1.5,
        coverage=0.98,
        e_value=123.456,
        strata=tuple(strata),
        completed_at=NOON,
    )


def filled(series: int) -> tuple[ExporterCollector, int]:
    """A collector with at least so many series, and how many it has."""
    collector, board = ExporterCollector(), AlertBoard()
    count = number = 0
    while count < series:
        board.take(completed(number))
        number += 1
        collector.show(LogState(True, board.snapshot(), {"renewals": AppStanding(10, 2)}, ("renewals",)))
        before, count = count, sum(len(family.samples) for family in collector.collect())
        if count == before:
            raise SystemExit(f"the limits on label sets hold it to {count} series")
    return collector, count


def scraped(connection: HTTPConnection) -> tuple[float, int]:
    """Milliseconds and bytes of one scrape."""
    began = time.perf_counter()
    connection.request("GET", "/metrics")
    size = len(connection.getresponse().read())
    return (time.perf_counter() - began) * 1e3, size


def resident_kb() -> float:
    fields = Path("/proc/self/statm").read_text().split()
    return int(fields[1]) * 4096 / 1e3


def measured(connection: HTTPConnection, scrapes: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Milliseconds and resident KB after each scrape, and the bytes of the last."""
    took, memory, size = [], [], 0
    for _ in range(scrapes):
        milliseconds, size = scraped(connection)
        took.append(milliseconds)
        memory.append(resident_kb())
    return np.array(took), np.array(memory), size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--series", type=int, default=1_000)
    parser.add_argument("--scrapes", type=int, default=200)
    given = parser.parse_args()
    collector, series = filled(given.series)
    with HealthServer(health_endpoints(Health(), make_registry(collector)), 0, "127.0.0.1") as server:
        connection = HTTPConnection("127.0.0.1", server.port)
        measured(connection, given.scrapes)
        gc.collect()
        cpu_began = time.process_time()
        took, memory, size = measured(connection, given.scrapes)
        cpu_ms = (time.process_time() - cpu_began) * 1e3 / given.scrapes
        connection.close()
    median, late = np.percentile(took, [50, 99])
    growth = float(np.polyfit(np.arange(len(memory)), memory, 1)[0]) * len(memory)
    print(f"{series} series, {size / 1e3:.0f} KB, {given.scrapes} scrapes, {load()}")
    print(f"scrape: median {median:.1f} ms, limit {SCRAPE_MS_MAX}, ratio {median / SCRAPE_MS_MAX:.2f}; ", end="")
    print(f"99 % {late:.1f} ms, ratio {late / SCRAPE_MS_MAX:.2f}; CPU {cpu_ms:.1f} ms")
    print(f"memory: {memory[-1] / 1e3:.1f} MB, {growth:+.0f} KB over them; limit {GROWTH_KB_MAX}, ", end="")
    print(f"ratio {max(0.0, growth) / GROWTH_KB_MAX:.2f}")


if __name__ == "__main__":
    main()
