"""A run's report in a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from driftline.replay.comparison import earlier_rows
from driftline.replay.visible import visible
from driftline.replay.wording import (
    candidate_text,
    cause_text,
    cost_text,
    count_text,
    decides,
    e_text,
    evidence_text,
    has_noise,
    interval_text,
    lost_lines,
    noise_of,
    noise_text,
    rate_text,
    signed_text,
)

if TYPE_CHECKING:
    from driftline.console.replay_run import ReplayDone

VERDICT_STYLES = {"diverged": "bold red", "equivalent": "bold green", "inconclusive": "bold yellow"}
TEXT_CHARACTERS_MAX = 400


def print_report(console: Console, done: ReplayDone) -> None:
    """Verdict, levels, strata, examples, and where the run lies. Lines of text are never wrapped, tables are."""
    print_findings(console, done.report)
    console.print(_places(done), soft_wrap=True)


def print_findings(console: Console, report: Mapping[str, Any]) -> None:
    """`print_report` of a run that lies nowhere, or that was told where already."""
    console.print(_verdict(report), soft_wrap=True)
    console.print(
        _levels(report["levels"], report["noise_floor"]), "", _strata(report["strata"], report["noise_floor"]), ""
    )
    for number, example in enumerate(report["examples"], 1):
        console.print(_example(number, example))


def print_earlier(console: Console, earlier: Mapping[str, Any], report: Mapping[str, Any]) -> None:
    """A run's figures beside those of an earlier one."""
    table = _table("against the earlier run", ("", "earlier", "this run"), left=3)
    for row in earlier_rows(earlier, report):
        table.add_row(*map(visible, row))
    console.print(table)


def _verdict(report: Mapping[str, Any]) -> Text:
    lines = Text()
    lines.append(report["verdict"].upper(), VERDICT_STYLES[report["verdict"]])
    lines.append(visible(f"  {report['app']}: {report['baseline']} → {candidate_text(report)}\n"))
    for line in (*_rates(report), *_evidence(report)):
        lines.append(visible(f"  {line}\n"))
    return lines


def _rates(report: Mapping[str, Any]) -> list[str]:
    verdict = report["levels"]["verdict"]
    if verdict is None or verdict["change"] is None:
        return []
    confidence = f"{1 - report['alpha']:.0%} interval"
    lines = [
        f"accepted {rate_text(verdict['baseline_rate'])} → {rate_text(verdict['candidate_rate'])}: "
        f"change {signed_text(verdict['change'])}, {confidence} {interval_text(verdict['interval'])}, "
        f"{report['events']} pairs"
    ]
    if report["events"] != report["events_at_stop"]:
        lines.append(f"at the stop, after {report['events_at_stop']}: {interval_text(verdict['interval_at_stop'])}")
    return lines


def _evidence(report: Mapping[str, Any]) -> list[str]:
    alarm = f" after {report['alarm_after']} pairs" if report["alarm_after"] else ""
    cost = cost_text(report["cost_usd"])
    lines = [
        f"evidence e = {e_text(report['e_value'])} (alarm at {1 / report['alpha']:.0f}){alarm}",
        f"{report['paid_calls']} paid calls, {report['overspent_calls']} overspent, {cost}, "
        f"coverage {report['coverage']:.0%}; stopped: {report['stopped_because']}; run {report['run_id']}",
    ]
    lines += lost_lines(report)
    if report["repeated_decisions"]:
        lines.append(f"{report['repeated_decisions']} decisions lay on the log twice and count once")
    if report["estimate_calls"]:
        lines.append(f"{report['estimate_calls']} further calls were paid for the interval")
    if report["verifier_drift"]:
        lines.append(f"verifier drift: today's rules judge {report['verifier_drift']} logged answers otherwise")
    return [*lines, *(said for said in (cause_text(report), report["note"]) if said)]


def _levels(levels: Mapping[str, Any], floor: Mapping[str, Any] | None) -> Table:
    """A row a level; with a noise floor, how often runs of one model differ stands beside the candidate."""
    noisy = has_noise(levels.values(), floor)
    columns = ("level", "differ", *_noise_columns(noisy), "change", "interval", "e-value", "flips ↓", "flips ↑")
    table = _table("levels (e-value in brackets: decides nothing)", columns, left=1)
    for name, level in levels.items():
        if level is not None:
            differ, *measures = _measures(name, level)
            noise = _noise(noisy, noise_of(name, level, floor))
            flips = (count_text(level["flips_down"]), count_text(level["flips_up"]))
            table.add_row(name, differ, *noise, *measures, *flips, style="" if decides(name, level) else "dim")
    return table


def _strata(strata: Sequence[Mapping[str, Any]], floor: Mapping[str, Any] | None) -> Table:
    noisy = has_noise(strata, floor)
    table = _table(
        "strata that decide (● named: moved, by e-BH at this alpha)",
        ("", "stratum", "level", "pairs", "differ", *_noise_columns(noisy), "change", "interval", "e-value"),
        left=3,
    )
    one_boundary = len({stratum["boundary"] for stratum in strata}) == 1
    for stratum in strata:
        level, stream = stratum["level"], stratum["stream"]
        if not decides(level, stratum) or not stratum["events"]:
            continue
        name = stream if one_boundary else f"{stratum['boundary']} × {stream}"
        differ, *measures = _measures(level, stratum, digits=0)
        noise = _noise(noisy, noise_of(level, stratum, floor, stream))
        row = ("●" if stratum["named"] else "", visible(name), level, str(stratum["events"]))
        table.add_row(*row, differ, *noise, *measures, style="bold" if stratum["named"] else "")
    return table


def _noise_columns(noisy: bool) -> tuple[str, ...]:
    return ("noise", "excess") if noisy else ()


def _noise(noisy: bool, noise: Mapping[str, Any] | None) -> tuple[str, ...]:
    """How often runs of one model differ, and how much more often the candidate does: its interval is on the page."""
    return (noise_text(noise), signed_text((noise or {}).get("excess"))) if noisy else ()


def _table(title: str, columns: Sequence[str], left: int) -> Table:
    """A table without frames: the first `left` columns are text, the others numbers."""
    table = Table(title=title, title_justify="left", title_style="bold", header_style="dim", box=None)
    table.padding, table.pad_edge = (0, 1, 0, 0), False
    for number, name in enumerate(columns):
        text = name == "stratum"
        table.add_column(name, justify="left" if number < left else "right", no_wrap=not text, overflow="fold")
    return table


def _measures(level: str, measured: Mapping[str, Any], digits: int = 1) -> tuple[str, str, str, str]:
    """What a level and a stratum both have: share that differs, net change, interval, e-value."""
    change = measured["change"]
    return (
        rate_text(measured["mismatch"]),
        "" if change is None else signed_text(change),
        interval_text(measured["interval"], signed=change is not None, digits=digits),
        evidence_text(level, measured),
    )


def _example(number: int, example: Mapping[str, Any]) -> Table:
    title = visible(f"example {number}: {example['workflow']} at {example['at']}")
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, expand=True)
    for label, side in (("then", "baseline"), ("candidate", "candidate")):
        table.add_column(visible(f"{label}: {example[side]['model']}"), overflow="fold", ratio=1)
    table.add_row(_side(example["baseline"]), _side(example["candidate"]))
    return table


def _side(side: Mapping[str, Any]) -> Text:
    text = Text()
    text.append(side["verdict"], "green" if side["verdict"] == "accepted" else "red")
    for rejection in side["rejections"][:2]:
        why = f"\n{rejection['code']} {rejection['path']} expected {rejection['expected']}, was {rejection['actual']}"
        text.append(visible(why), "red")
    raw = side["text"] or ""
    shown = raw if len(raw) <= TEXT_CHARACTERS_MAX else "…" + raw[-TEXT_CHARACTERS_MAX:]
    text.append("\n" + visible(shown), "dim")
    return text


def _places(done: ReplayDone) -> Text:
    lines = [f"{kind} on {at}" for kind, at in done.alerts.items()]
    lines.append(f"DuckDB and Parquet in {done.database.parent}; ask: driftline sql 'FROM by_stream'")
    return Text("\n".join(lines))
