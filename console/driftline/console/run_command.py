"""`driftline run`: consume, decide, commit; in one process or in several."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from driftline.console.logs import LogFormat

if TYPE_CHECKING:
    from driftline.console.health import Health
    from driftline.consumers.app import App
    from driftline.consumers.metrics import RuntimeMetrics
    from driftline.consumers.runtime import Runtime, RuntimeLimits
    from driftline.consumers.summary import RunSummary
    from driftline.log import Settings

EXAMPLE = "Example: driftline run renewals --until-end"


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What `driftline run` was asked for."""

    app: str
    until_end: bool = False
    slot: int = 0
    seed: int = 0
    processes: int = 1
    in_flight: int | None = None
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    budget_usd: float | None = None
    http_port: int = 0
    drain_s: float = 20.0
    log_format: LogFormat | None = None


def run(
    app: Annotated[str, typer.Argument(help="App in driftline.toml, or module:attribute.")],
    until_end: Annotated[bool, typer.Option("--until-end", help="Stop when every event is decided.")] = False,
    slot: Annotated[int, typer.Option(min=0, help="Process slot, the first of several; one process each.")] = 0,
    seed: Annotated[int, typer.Option(help="Of the simulator's randomness.")] = 0,
    processes: Annotated[
        int, typer.Option(min=1, help="How many; more than one are supervised and started again when they die.")
    ] = 1,
    in_flight: Annotated[
        int | None, typer.Option(min=1, help="Decisions at once in a process; else the runtime's own limit.")
    ] = None,
    requests_per_minute: Annotated[
        float | None, typer.Option(min=0.0, help="Calls of a model that a process may make in a minute.")
    ] = None,
    tokens_per_minute: Annotated[
        float | None, typer.Option(min=0.0, help="Tokens of a model that a process may use in a minute.")
    ] = None,
    budget_usd: Annotated[
        float | None, typer.Option(min=0.0, help="Dollars after which a process ends, with nothing lost.")
    ] = None,
    http_port: Annotated[
        int,
        typer.Option(
            min=0,
            max=65_535,
            help="Serve /livez, /readyz and /metrics there, 0 not at all; of several processes slot S has PORT+1+S.",
        ),
    ] = 0,
    drain_s: Annotated[
        float, typer.Option(min=0.0, help="Seconds that a stop waits for decisions in flight.")
    ] = 20.0,
    log_format: Annotated[
        LogFormat | None, typer.Option(help="Of the log on stderr; JSON unless that is a terminal.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as one JSON object.")] = False,
) -> None:
    """Run an app's boundaries over its events; Ctrl-C and SIGTERM let what is in flight finish and commit it."""
    options = RunOptions(
        app,
        until_end,
        slot,
        seed,
        processes,
        in_flight,
        requests_per_minute,
        tokens_per_minute,
        budget_usd,
        http_port,
        drain_s,
        log_format,
    )
    if processes > 1:
        from driftline.console.supervised_run import run_supervised

        summary, restarts = run_supervised(options)
        _show(app, summary, as_json, {"processes": processes, "restarts": restarts})
    else:
        loaded, summary = run_here(options)
        _show(loaded.name, summary, as_json, {})


def _show(app: str, summary: RunSummary, as_json: bool, processes: dict[str, int]) -> None:
    from driftline.console.common import out, say
    from driftline.console.run_summary import summary_data

    if as_json:
        out.print_json(data={**summary_data(summary), **processes})
        return
    print_summary(app, summary)
    if processes:
        say(f"{processes['processes']} processes, {processes['restarts']} restarts")


def run_here(options: RunOptions) -> tuple[App, RunSummary]:
    """Run one slot in this process, until its end or a signal.

    Raises:
        DriftlineError: What the user or the environment has to mend.
    """
    from driftline.console.common import progress_bar, require_app
    from driftline.console.logs import set_up_logs
    from driftline.console.signals import stop_on_signals
    from driftline.console.supervised_run import follow_supervisor
    from driftline.console.traces import exported_traces
    from driftline.consumers.prepare import prepare
    from driftline.log import load_settings

    follow_supervisor()
    settings = load_settings()
    app = require_app(options.app, settings)
    set_up_logs(options.log_format, app.name, options.slot)
    prepare(app, settings)
    with exported_traces(), _observed(app, options.http_port) as (health, metrics):
        runtime = make_runtime(app, settings, options, health, metrics)
        with stop_on_signals() as stopped, progress_bar(f"deciding {app.name}", None) as show:
            runtime.run(options.until_end, stopped, lambda summary: show(summary.events, _note(summary)))
    return app, runtime.summary


def make_runtime(
    app: App, settings: Settings, options: RunOptions, health: Health, metrics: RuntimeMetrics
) -> Runtime:
    """The runtime of one slot, with a proposer that sits a provider's trouble out, and what both report to."""
    from driftline.console.common import now
    from driftline.consumers.models import BreakerState, CallLimits, LiteLLMProposer, SteadyProposer
    from driftline.consumers.runtime import Runtime

    def tell(model: str, state: BreakerState, why: str) -> None:
        metrics.set_circuit(model, state.value)
        health.ready(state is BreakerState.CLOSED, f"the circuit is {state.value}: {why}", f"model {model}")

    limits = CallLimits(options.requests_per_minute, options.tokens_per_minute, options.budget_usd)
    proposer = SteadyProposer(LiteLLMProposer(), limits=limits, on_breaker=tell)
    return Runtime(
        app,
        settings,
        proposer,
        now,
        slot=options.slot,
        seed=options.seed,
        limits=_limits(options),
        metrics=metrics,
        health=health,
    )


def _limits(options: RunOptions) -> RuntimeLimits:
    from driftline.consumers.runtime import RuntimeLimits

    given: dict[str, Any] = {"drain_s_max": options.drain_s}
    if options.in_flight is not None:
        given["in_flight_max"] = options.in_flight
    return RuntimeLimits(**given)


@contextmanager
def _observed(app: App, port: int) -> Iterator[tuple[Health, RuntimeMetrics]]:
    """Health and metrics of this process, served if there is a port."""
    from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector

    from driftline.console.health import Health, HealthServer, health_endpoints
    from driftline.consumers.metrics import RuntimeMetrics

    registry = CollectorRegistry()
    for collector in (ProcessCollector, PlatformCollector, GCCollector):
        collector(registry=registry)
    health, metrics = Health(), RuntimeMetrics(registry, app.name)
    if not port:
        yield health, metrics
        return
    with HealthServer(health_endpoints(health, registry), port):
        yield health, metrics


def _note(summary: RunSummary) -> str:
    return f"{summary.decisions.total()} decisions, {summary.rejections.total()} rejects"


def print_summary(app: str, summary: RunSummary) -> None:
    """The summary for a person: one row a stream, and below it what was rejected."""
    from rich.table import Table

    from driftline.console.common import out, say

    verdicts = ("accepted", "rejected", "escalated")
    say(f"{app}: {summary.decisions.total()} decisions in {summary.transactions} transactions")
    table = Table(box=None, header_style="dim", pad_edge=False)
    table.add_column("stream")
    for verdict in verdicts:
        table.add_column(verdict, justify="right")
    for stream in sorted({stream for stream, _ in summary.streams}):
        table.add_row(stream, *(str(summary.streams[stream, verdict]) for verdict in verdicts))
    out.print(table)
    for line in _asides(summary):
        say(line)


def _asides(summary: RunSummary) -> list[str]:
    rejected = ", ".join(f"{count} {code}" for code, count in summary.rejections.most_common())
    lines = [
        f"{summary.attempts} model calls; rejected and fed back: {rejected or 'none'}",
        f"{summary.mended} decisions were accepted after a rejection",
    ]
    if summary.failures:
        failed = ", ".join(f"{count} {failure}" for failure, count in summary.failures.most_common())
        lines.append(f"calls that gave no answer: {failed}; the last: {summary.last_failure}")
    if summary.dead:
        lines.append("dead: " + ", ".join(f"{count} {reason}" for reason, count in summary.dead.most_common()))
    return lines
