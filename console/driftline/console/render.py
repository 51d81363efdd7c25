"""A run's report in a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from driftline.console.replay_run import ReplayDone

VERDICT_STYLES = {"diverged": "bold red", "equivalent": "bold green", "inconclusive": "bold yellow"}
TEXT_CHARACTERS_MAX = 400


def print_report(console: Console, done: ReplayDone) -> None:
    """Verdict, levels, strata, examples, and where the run lies. Lines of text are never wrapped, tables are."""
    report = done.report
    console.print(_verdict(report), soft_wrap=True)
    console.print(_levels(report["levels"]), "", _strata(report["strata"]), "")
    for number, example in enumerate(report["examples"], 1):
        console.print(_example(number, example))
    console.print(_places(done), soft_wrap=True)


def _verdict(report: Mapping[str, Any]) -> Text:
    lines = Text()
    lines.append(report["verdict"].upper(), VERDICT_STYLES[report["verdict"]])
    lines.append(f"  {report['app']}: {report['baseline']} → {report['candidate']}\n")
    for line in (*_rates(report), *_evidence(report)):
        lines.append(f"  {line}\n")
    return lines


def _rates(report: Mapping[str, Any]) -> list[str]:
    verdict = report["levels"]["verdict"]
    if verdict is None or verdict["change"] is None:
        return []
    confidence = f"{1 - report['alpha']:.0%} interval"
    lines = [
        f"accepted {_rate(verdict['baseline_rate'])} → {_rate(verdict['candidate_rate'])}: change "
        f"{_signed(verdict['change'])}, {confidence} {_interval(verdict['interval'])}, {report['events']} pairs"
    ]
    if report["events"] != report["events_at_stop"]:
        lines.append(f"at the stop, after {report['events_at_stop']}: {_interval(verdict['interval_at_stop'])}")
    return lines


def _evidence(report: Mapping[str, Any]) -> list[str]:
    alarm = f" after {report['alarm_after']} pairs" if report["alarm_after"] else ""
    cost = "price unknown" if report["cost_usd"] is None else f"${report['cost_usd']:.4f}"
    lines = [
        f"evidence e = {_e(report['e_value'])} (alarm at {1 / report['alpha']:.0f}){alarm}",
        f"{report['paid_calls']} paid calls, {report['overspent_calls']} overspent, {cost}, "
        f"coverage {report['coverage']:.0%}; stopped: {report['stopped_because']}; run {report['run_id']}",
    ]
    if report["repeated_decisions"]:
        lines.append(f"{report['repeated_decisions']} decisions lay on the log twice and count once")
    if report["estimate_calls"]:
        lines.append(f"{report['estimate_calls']} further calls were paid for the interval")
    if report["verifier_drift"]:
        lines.append(f"verifier drift: today's rules judge {report['verifier_drift']} logged answers otherwise")
    return [*lines, report["note"]] if report["note"] else lines


def _levels(levels: Mapping[str, Any]) -> Table:
    table = _table("levels", ("level", "differ", "change", "interval", "e-value", "flips ↓", "flips ↑"), left=1)
    for name, level in levels.items():
        if level is not None:
            flips = (_count(level["flips_down"]), _count(level["flips_up"]))
            table.add_row(name, *_measures(level), *flips)
    return table


def _strata(strata: Sequence[Mapping[str, Any]]) -> Table:
    table = _table(
        "strata that decide (● named: moved, by e-BH at this alpha)",
        ("", "stratum", "level", "pairs", "differ", "change", "interval", "e-value"),
        left=3,
    )
    one_boundary = len({stratum["boundary"] for stratum in strata}) == 1
    for stratum in strata:
        if stratum["e_value"] is None or not stratum["events"]:
            continue
        name = stratum["stream"] if one_boundary else f"{stratum['boundary']} × {stratum['stream']}"
        row = ("●" if stratum["named"] else "", name, stratum["level"], str(stratum["events"]))
        table.add_row(*row, *_measures(stratum, digits=0), style="bold" if stratum["named"] else "")
    return table


def _table(title: str, columns: Sequence[str], left: int) -> Table:
    """A table without frames: the first `left` columns are text, the others numbers."""
    table = Table(title=title, title_justify="left", title_style="bold", header_style="dim", box=None)
    table.padding, table.pad_edge = (0, 1, 0, 0), False
    for number, name in enumerate(columns):
        text = name == "stratum"
        table.add_column(name, justify="left" if number < left else "right", no_wrap=not text, overflow="fold")
    return table


def _measures(measured: Mapping[str, Any], digits: int = 1) -> tuple[str, str, str, str]:
    """What a level and a stratum both have: share that differs, net change, interval, e-value."""
    change = measured["change"]
    return (
        _rate(measured["mismatch"]),
        "" if change is None else _signed(change),
        _interval(measured["interval"], signed=change is not None, digits=digits),
        _e(measured["e_value"]),
    )


def _example(number: int, example: Mapping[str, Any]) -> Table:
    title = f"example {number}: {example['workflow']} at {example['at']}"
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, expand=True)
    table.add_column(f"then: {example['baseline']['model']}", overflow="fold", ratio=1)
    table.add_column(f"candidate: {example['candidate']['model']}", overflow="fold", ratio=1)
    table.add_row(_side(example["baseline"]), _side(example["candidate"]))
    return table


def _side(side: Mapping[str, Any]) -> Text:
    text = Text()
    text.append(side["verdict"], "green" if side["verdict"] == "accepted" else "red")
    for rejection in side["rejections"][:2]:
        why = f"\n{rejection['code']} {rejection['path']} expected {rejection['expected']}, was {rejection['actual']}"
        text.append(why, "red")
    raw = side["text"] or ""
    text.append("\n" + (raw if len(raw) <= TEXT_CHARACTERS_MAX else "…" + raw[-TEXT_CHARACTERS_MAX:]), "dim")
    return text


def _places(done: ReplayDone) -> Text:
    lines = [f"{kind} on {at}" for kind, at in done.alerts.items()]
    lines.append(f"DuckDB and Parquet in {done.database.parent}; ask: driftline sql 'FROM by_stream'")
    return Text("\n".join(lines))


def _rate(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"


def _signed(value: float) -> str:
    return f"{100 * value:+.1f} pp"


def _interval(interval: Sequence[float], signed: bool = True, digits: int = 1) -> str:
    """Both ends in points of rate."""
    form = f"{'+' if signed else ''}.{digits}f"
    return "[" + ", ".join(format(100 * end, form) for end in interval) + "]"


def _e(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _count(value: int | None) -> str:
    return "" if value is None else str(value)
