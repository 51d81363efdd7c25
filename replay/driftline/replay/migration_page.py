"""Migration advice as one page that shows why: self-contained, without script and without any request."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from driftline.detectors.migration import PAUSES, STATE, WORLD
from driftline.replay import wording
from driftline.replay.html import NAME_CHARACTERS_MAX, TEMPLATES, cut

RUNS_MAX = 100
"""Rows of the page; those that the advice rests on come first."""
QUESTIONS = {
    PAUSES: "workflows that waited longer than an hour between two events",
    STATE: "workflows that end in another row when the incumbent is asked again over the same facts",
    WORLD: "workflows in which a fact from outside landed while they waited",
}
HEADLINES = {
    "migrate": "move to spine P5",
    "pin": "no migration; keep the incumbent",
    "gate": "no migration; gate the boundary",
    "adapt the parser": "no migration; adapt the parser",
    "environment drift": "no migration; the environment moved",
    "not the model": "no migration; it is not the model",
    "unknown": "not known",
    "nothing moved": "no migration; nothing moved",
}
RECURS_BY = {
    "windows": "two disjoint windows of history show it",
    "candidates": "two candidates show it, each against answers of the incumbent of its own",
    "end_date": "the incumbent has an end date",
}


def render_migration(data: Mapping[str, Any]) -> str:
    """The page of an advice, as `migration_data` makes it. What stands on the log is text on it and nothing else."""
    runs = sorted(data["runs"], key=lambda run: (not run["rests"], run["kind"] != "confirmed"))
    return _template().render(
        data=data,
        headline=HEADLINES[data["conclusion"]],
        recurs=RECURS_BY.get(data["recurs_by"] or ""),
        runs=runs[:RUNS_MAX],
        runs_left=max(0, len(runs) - RUNS_MAX),
        questions=QUESTIONS,
    )


def duration_text(seconds: float | None) -> str:
    """A length of time in the largest unit that it fills."""
    if seconds is None:
        return ""
    for unit, length in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} seconds"


@cache
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for name in ("rate_text", "signed_text", "interval_text", "e_text"):
        environment.filters[name] = getattr(wording, name)
    environment.filters["duration_text"] = duration_text
    environment.filters["name"] = lambda value: cut(str(value), NAME_CHARACTERS_MAX)
    return environment.get_template("migration.html.jinja")
