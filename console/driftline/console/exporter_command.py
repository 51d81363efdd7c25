"""`driftline exporter`: alerts, lag and dead topics of the apps, for Prometheus."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from driftline.console.logs import LogFormat

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from driftline.console.exporting import ExporterCollector

EXAMPLE = "Example: driftline exporter --http-port 9465"
PORT = 9465


def exporter(
    http_port: Annotated[
        int, typer.Option(min=0, max=65_535, help="Serve /metrics, /livez and /readyz there; 0 takes a free one.")
    ] = PORT,
    every: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks at lag and dead topics.")] = 15.0,
    nightly: Annotated[
        Path | None,
        typer.Option(help="File of `driftline nightly`: who has nights; else nightly.toml if it is here."),
    ] = None,
    candidates_max: Annotated[
        int, typer.Option(min=1, help="Candidates shown at most, over all apps and modes; diverged ones go last.")
    ] = 100,
    strata_max: Annotated[int, typer.Option(min=1, help="Strata shown at most of each of them.")] = 30,
    log_format: Annotated[
        LogFormat | None, typer.Option(help="Of the log on stderr; JSON unless that is a terminal.")
    ] = None,
) -> None:
    """Serve to Prometheus what `driftline.alerts` says, and how far the configured apps are behind.

    It reads alone and joins no group; a broker that is away is `driftline_exporter_up 0`. Ctrl-C and SIGTERM stop it.
    """
    import logging

    from driftline.console.exporting import ExporterCollector, LabelLimits, Watcher
    from driftline.console.exporting.nights import read_nights
    from driftline.console.health import Health, HealthServer, health_endpoints
    from driftline.console.logs import set_up_logs
    from driftline.console.signals import stop_on_signals
    from driftline.log import load_settings

    settings = load_settings()
    settings.require_bootstrap()
    settings.require_registry()
    set_up_logs(log_format, "exporter", 0)
    collector, health, nights = ExporterCollector(), Health(), read_nights(nightly)
    limits = LabelLimits(candidates_max, strata_max)
    server = HealthServer(health_endpoints(health, make_registry(collector)), http_port)
    with stop_on_signals() as stopped, server:
        logging.getLogger("driftline.exporter").info("serving", extra={"port": server.port})
        Watcher(settings, collector.show, health, every, limits=limits, nights=nights).run(stopped)


def make_registry(collector: ExporterCollector) -> CollectorRegistry:
    """A registry with the exporter's series and those of its own process."""
    from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector

    registry = CollectorRegistry()
    for own in (ProcessCollector, PlatformCollector, GCCollector):
        own(registry=registry)
    registry.register(collector)
    return registry
