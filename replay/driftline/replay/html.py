"""A run as one page: self-contained, under 1 MB, without script and without any request."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from driftline.replay import wording
from driftline.replay.chart import Chart, change_chart, mismatch_chart
from driftline.replay.comparison import earlier_rows

PAGE_BYTES_MAX = 1_000_000
FLIPS_MAX = 50
STRATA_MAX = 200
TEXT_CHARACTERS_MAX = 3_000
"""Of an answer; of what was asked, too. Longer texts are cut in the middle."""
READ_CHARACTERS_MAX, READS_SHOWN_MAX = 400, 8
NAME_CHARACTERS_MAX = 160
DIFF_LINES_MAX = 300

TEMPLATES = Path(__file__).parent / "templates"


def render_html(
    report: Mapping[str, Any],
    flips: Sequence[Mapping[str, Any]] = (),
    segment: Mapping[str, Any] | None = None,
    earlier: Mapping[str, Any] | None = None,
) -> str:
    """The page of a run. What a model wrote is text on it and nothing else.

    The page is under 1 MB whatever the run holds: it shows fewer flips before it grows beyond, and says how many.

    Args:
        report: As `report_data` makes it; `prompt_diff` (a unified diff) is shown where it has one.
        flips: Changed pairs as `read_run` gives them, those worth most first.
        segment: What was replayed, as `read_run` gives it.
        earlier: The report of the run that this one is shown against.
    """
    shown = [_flip(flip) for flip in flips[:FLIPS_MAX]]
    while True:
        page = _page(report, shown, segment, earlier)
        if len(page.encode()) <= PAGE_BYTES_MAX or not shown:
            return page
        shown = shown[: len(shown) // 2]


def cut(text: str, characters_max: int = TEXT_CHARACTERS_MAX) -> str:
    """The text without its middle where it is longer."""
    if len(text) <= characters_max:
        return text
    half = characters_max // 2
    return f"{text[:half]}\n… {len(text) - 2 * half} characters …\n{text[-half:]}"


def _page(
    report: Mapping[str, Any],
    flips: Sequence[Mapping[str, Any]],
    segment: Mapping[str, Any] | None,
    earlier: Mapping[str, Any] | None,
) -> str:
    strata, levels, floor = _strata(report["strata"]), report["levels"], report.get("noise_floor")
    diff = (report.get("prompt_diff") or "").splitlines()
    return _template().render(
        report=report,
        candidate=wording.candidate_text(report),
        sentence=wording.sentence(report),
        lost=wording.lost_lines(report),
        because=wording.STOPPED_BECAUSE.get(report["stopped_because"], report["stopped_because"]),
        verdict=levels.get("verdict"),
        levels=[(name, level, wording.noise_of(name, level, floor)) for name, level in levels.items() if level],
        noisy=wording.has_noise([*levels.values(), *strata], floor),
        cause=wording.cause_text(report),
        contrasts=wording.contrasts(report),
        charts=[chart for chart in (change_chart(report), _differing(report)) if chart.rows],
        strata=[(one, wording.noise_of(one["level"], one, floor, one["stream"])) for one in strata[:STRATA_MAX]],
        strata_left=max(0, len(strata) - STRATA_MAX),
        flips=flips,
        changed=max(len(flips), (segment or {}).get("changed") or 0),
        segment=segment,
        earlier=None if earlier is None else earlier_rows(earlier, report),
        diff=[cut(line, NAME_CHARACTERS_MAX) for line in diff[:DIFF_LINES_MAX]],
        diff_left=max(0, len(diff) - DIFF_LINES_MAX),
    )


def _differing(report: Mapping[str, Any]) -> Chart:
    return mismatch_chart(report["levels"], report.get("noise_floor"), report["alpha"])


def _strata(strata: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Those that decide: the named ones first, then by their evidence."""
    deciding = [stratum for stratum in strata if wording.decides(stratum["level"], stratum) and stratum["events"]]
    return sorted(deciding, key=lambda stratum: (not stratum["named"], -(stratum["e_value"] or 0.0)))


def _flip(flip: Mapping[str, Any]) -> dict[str, Any]:
    return {**flip, "asked": _asked(flip.get("asked")), "sides": [_side(flip["baseline"]), _side(flip["candidate"])]}


def _asked(context: Any) -> list[tuple[str, str]]:
    """What the prompt saw: chat messages as they were sent, or the variables as JSON."""
    if not context:
        return []
    messages = context.get("messages") if isinstance(context, Mapping) else None
    if isinstance(messages, list) and all(isinstance(message, Mapping) for message in messages):
        return [(str(message.get("role", "")), cut(_text(message.get("content")))) for message in messages[:20]]
    return [("context", cut(_text(context)))]


def _side(side: Mapping[str, Any]) -> dict[str, Any]:
    text = side.get("text")
    return {
        **side,
        "shown": f"no answer: {side.get('failure') or 'empty'}" if text is None else cut(_pretty(text)),
        "reads": [_read(one) for one in side.get("reads", ())[:READS_SHOWN_MAX]],
        "rejections": [_rejection(one) for one in side["rejections"][:3]],
    }


def _read(read: Mapping[str, Any]) -> str:
    return cut(f"{read['name']} {read['arguments']} → {read['told']}", READ_CHARACTERS_MAX)


def _rejection(rejection: Mapping[str, Any]) -> str:
    rule = rejection.get("rule_id") or ""
    said = f"{rejection['code']} {rule} {rejection.get('path') or ''}".strip()
    return cut(f"{said}: expected {rejection.get('expected')}, was {rejection.get('actual')}", 400)


def _pretty(text: str) -> str:
    """JSON with line breaks; any other text as it stands."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return _text(value) if isinstance(value, (dict, list)) else text


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)


@cache
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    texts = (
        "rate_text",
        "signed_text",
        "interval_text",
        "e_text",
        "cost_text",
        "noise_text",
        "excess_text",
        "count_text",
    )
    for name in texts:
        environment.filters[name] = getattr(wording, name)
    environment.globals.update(decides=wording.decides, evidence_text=wording.evidence_text)
    environment.filters["name"] = lambda value: cut(str(value), NAME_CHARACTERS_MAX)
    return environment.get_template("run.html.jinja")
