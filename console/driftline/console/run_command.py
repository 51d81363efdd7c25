"""`driftline run`: consume, decide, commit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from driftline.consumers.runtime import RunSummary

EXAMPLE = "Example: driftline run renewals --until-end"


def run(
    app: Annotated[str, typer.Argument(help="App in driftline.toml, or module:attribute.")],
    until_end: Annotated[bool, typer.Option("--until-end", help="Stop when every event is decided.")] = False,
    slot: Annotated[int, typer.Option(min=0, help="Process slot: one running process each.")] = 0,
    seed: Annotated[int, typer.Option(help="Of the simulator's randomness.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as one JSON object.")] = False,
) -> None:
    """Run an app's boundaries over its events; Ctrl-C stops after the transaction at hand."""
    from driftline.console.common import now, out, progress_bar, require_app
    from driftline.console.signals import stop_on_signals
    from driftline.consumers.models.litellm_proposer import LiteLLMProposer
    from driftline.consumers.prepare import prepare
    from driftline.consumers.runtime import Runtime
    from driftline.log import load_settings

    settings = load_settings()
    loaded = require_app(app, settings)
    prepare(loaded, settings)
    runtime = Runtime(loaded, settings, LiteLLMProposer(), now, slot=slot, seed=seed)
    with stop_on_signals() as stopped, progress_bar(f"deciding {loaded.name}", None) as show:
        runtime.run(until_end, stopped, lambda summary: show(summary.events, _note(summary)))
    if as_json:
        out.print_json(data=summary_data(runtime.summary))
    else:
        print_summary(loaded.name, runtime.summary)


def summary_data(summary: RunSummary) -> dict[str, object]:
    """The summary as JSON data."""
    return {
        "events": summary.events,
        "decisions": dict(summary.decisions),
        "actions": dict(summary.actions),
        "rejections": dict(summary.rejections),
        "failures": dict(summary.failures),
        "attempts": summary.attempts,
        "mended": summary.mended,
        "dead": dict(summary.dead),
        "transactions": summary.transactions,
        "refused_commits": summary.refused_commits,
        "cost_usd": summary.cost_usd,
    }


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


def _note(summary: RunSummary) -> str:
    return f"{summary.decisions.total()} decisions, {summary.rejections.total()} rejects"
