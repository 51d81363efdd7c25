"""A run as Markdown, for a pull request."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from driftline.replay.comparison import earlier_rows
from driftline.replay.visible import visible
from driftline.replay.wording import (
    STOPPED_BECAUSE,
    candidate_text,
    cause_text,
    cost_text,
    count_text,
    decides,
    e_text,
    evidence_text,
    excess_text,
    has_noise,
    interval_text,
    lost_lines,
    noise_of,
    noise_text,
    rate_text,
    sentence,
    signed_text,
)

STRATA_MAX = 20
TEXT_CHARACTERS_MAX = 600


def render_markdown(report: Mapping[str, Any], earlier: Mapping[str, Any] | None = None) -> str:
    """The report as GitHub's Markdown. What a model wrote stands in code blocks, and names are escaped.

    Args:
        report: As `report_data` makes it.
        earlier: The report of the run that this one is shown against.
    """
    return "\n".join(_lines(report, earlier)) + "\n"


def _lines(report: Mapping[str, Any], earlier: Mapping[str, Any] | None) -> Iterator[str]:
    head = f"{escaped(report['app'])}: {escaped(report['baseline'])} → {escaped(candidate_text(report))}"
    yield f"## {report['verdict'].upper()} — {head}"
    yield from ("", escaped(sentence(report)), "")
    floor = report.get("noise_floor")
    yield from _levels(report["levels"], floor)
    yield from ("", "An e-value in brackets decides nothing.")
    yield from _strata(report["strata"], floor)
    if earlier is not None:
        rows = [(name, escaped(before), escaped(now)) for name, before, now in earlier_rows(earlier, report)]
        yield from ("", *_table(("against the earlier run", "earlier", "this run"), rows))
    yield from ("", _evidence(report))
    for line in lost_lines(report):
        yield from ("", escaped(line))
    if cause_text(report):
        yield from ("", escaped(cause_text(report)))
    if report["note"]:
        yield from ("", f"_{escaped(report['note'])}_")
    for example in report["examples"]:
        yield from _example(example)


def _evidence(report: Mapping[str, Any]) -> str:
    because = STOPPED_BECAUSE.get(report["stopped_because"], report["stopped_because"])
    return (
        f"Evidence e = {e_text(report['e_value'])} (alarm at {1 / report['alpha']:.0f}); {report['paid_calls']} paid "
        f"calls, {report['overspent_calls']} overspent, {cost_text(report['cost_usd'])}; coverage "
        f"{rate_text(report['coverage'])}; stopped because {because}; run `{report['run_id']}`."
    )


def _levels(levels: Mapping[str, Any], floor: Mapping[str, Any] | None) -> Iterator[str]:
    noisy = has_noise(levels.values(), floor)
    rows = []
    for name, level in levels.items():
        if level is None:
            continue
        interval = interval_text(level["interval"], signed=level["change"] is not None)
        figures = (signed_text(level["change"]), interval, evidence_text(name, level))
        flips = (count_text(level["flips_down"]), count_text(level["flips_up"]))
        rows.append(
            (name, rate_text(level["mismatch"]), *_noise(noisy, noise_of(name, level, floor)), *figures, *flips)
        )
    yield from _table(
        ("level", "differ", *_noise_columns(noisy), "change", "interval", "e", "flips ↓", "flips ↑"), rows
    )


def _strata(strata: Sequence[Mapping[str, Any]], floor: Mapping[str, Any] | None) -> Iterator[str]:
    noisy = has_noise(strata, floor)
    deciding = [stratum for stratum in strata if decides(stratum["level"], stratum) and stratum["events"]]
    deciding.sort(key=lambda stratum: (not stratum["named"], -(stratum["e_value"] or 0.0)))
    rows = [
        (
            "**named**" if stratum["named"] else "",
            escaped(stratum["stream"]),
            stratum["level"],
            str(stratum["events"]),
            rate_text(stratum["mismatch"]),
            *_noise(noisy, noise_of(stratum["level"], stratum, floor, stratum["stream"])),
            signed_text(stratum["change"]),
            e_text(stratum["e_value"]),
        )
        for stratum in deciding[:STRATA_MAX]
    ]
    columns = ("", "stream", "level", "pairs", "differ", *_noise_columns(noisy), "change", "e")
    yield from ("", *_table(columns, rows))
    if len(deciding) > STRATA_MAX:
        yield from ("", f"{len(deciding) - STRATA_MAX} more strata are in the run's table `strata`.")


def _noise_columns(noisy: bool) -> tuple[str, ...]:
    return ("noise floor", "excess over it") if noisy else ()


def _noise(noisy: bool, noise: Mapping[str, Any] | None) -> tuple[str, ...]:
    return (noise_text(noise), excess_text(noise)) if noisy else ()


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    for cells in (columns, ["---"] * len(columns), *rows):
        yield "| " + " | ".join(cells) + " |"


def _example(example: Mapping[str, Any]) -> Iterator[str]:
    before, after = example["baseline"], example["candidate"]
    told = f"{escaped(example['workflow'])} at {escaped(example['at'])}: {before['verdict']} → {after['verdict']}"
    yield from ("", f"<details><summary>{told}</summary>", "")
    for label, side in (("then", before), ("candidate", after)):
        text = side["text"] or "no answer"
        shown = visible(text if len(text) <= TEXT_CHARACTERS_MAX else "…" + text[-TEXT_CHARACTERS_MAX:])
        fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", shown)), default=0))
        yield from (f"{label}: {escaped(side['model'])}, {side['verdict']}", "", fence + "text", shown, fence, "")
    yield "</details>"


def escaped(text: object) -> str:
    """A text in which Markdown and HTML find nothing to read, nor a terminal a control."""
    one_line = " ".join(visible(text).split())
    plain = one_line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*\[\]|#~])|(?<!\w)_|_(?!\w)", lambda found: "\\" + found[0], plain)
