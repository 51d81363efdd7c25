"""`driftline reliability`: how much of a candidate's change is drift, and how much a model's own variance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from driftline.replay.reliable import Repeated

EXAMPLE = "Example: driftline reliability --file answers.jsonl.gz --model openai/gpt-4o --verifier SPEC.toml"
RECORDING = "A recording in place of a run"


def reliability(
    run: Annotated[str | None, typer.Argument(help="Run id; else the newest.")] = None,
    file: Annotated[
        Path | None, typer.Option(help="Recorded decisions, .jsonl or .jsonl.gz.", rich_help_panel=RECORDING)
    ] = None,
    model: Annotated[str | None, typer.Option(help="Whose runs.", rich_help_panel=RECORDING)] = None,
    candidate: Annotated[
        str | None, typer.Option(help="MODEL[@REPLICATE]; else no drift.", rich_help_panel=RECORDING)
    ] = None,
    verifier: Annotated[Path | None, typer.Option(help="Verifier spec, TOML.", rich_help_panel=RECORDING)] = None,
    alpha: Annotated[float, typer.Option(help="Of each interval.")] = 0.05,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Decompose repeated verdicts into y(t) = μt + σξ(t): drift μ, variance σ², and t* = σ²/μ².

    Reads a run that asked the incumbent several times (`driftline replay --floor 3`), or the runs of a model in a
    recording. Nothing is asked and nothing is paid.
    """
    from driftline.console.common import out, say
    from driftline.replay.reliable import reliability_data

    repeated = _repeated(run, file, model, candidate, verifier)
    data = reliability_data(repeated, alpha)
    if as_json:
        out.print_json(data=data)
        return
    say(f"{data['source']}: {data['model']}, {len(data['runs'])} runs of {data['pooled']['events']} events")
    if data["candidate"]:
        say(f"candidate {', '.join(data['candidate'])}, {data['pooled']['paired_events']} events in pairs")
    out.print("", _drift(data), "", _walk(data), "")
    for name, part in _parts(data):
        if part["note"]:
            say(f"{name}: {part['note']}")


def _repeated(
    run: str | None, file: Path | None, model: str | None, candidate: str | None, verifier: Path | None
) -> Repeated:
    from driftline.consumers.verifier_spec import SpecJudge
    from driftline.log import load_settings
    from driftline.replay.failing import require_compared
    from driftline.replay.reliable import repeated_in_recording, repeated_in_run
    from driftline.replay.stored import find_run, read_report
    from driftline.schemas import UsageError

    if file is None:
        if model or candidate or verifier:
            raise UsageError("--model, --candidate and --verifier are of a recording", "give it with --file")
        database = find_run(load_settings().home / "runs", run)
        report = read_report(database)
        require_compared(report)
        return repeated_in_run(database, report)
    if run is not None or model is None or verifier is None:
        raise UsageError("a recording takes --model and --verifier, and no run", EXAMPLE)
    return repeated_in_recording(file, model, SpecJudge.from_file(verifier), candidate)


def _parts(data: Mapping[str, Any]) -> Sequence[tuple[str, Mapping[str, Any]]]:
    """All streams together last; a single stream is all there is."""
    one_boundary = len({name.rpartition("/")[0] for name in data["streams"]}) == 1
    streams = [(name.rpartition("/")[2] if one_boundary else name, part) for name, part in data["streams"].items()]
    return streams if len(streams) == 1 else [*streams, ("all", data["pooled"])]


def _drift(data: Mapping[str, Any]) -> Table:
    table = _table(("stream", "events", "A/A differ", "σ²", "interval", "μ", "interval", "t*", "interval"))
    for name, part in _parts(data):
        table.add_row(
            name,
            str(part["events"]),
            "" if part["disagreement"] is None else f"{part['disagreement']:.1%}",
            _number(part["sigma2"]),
            _ends(part["sigma2_interval"]),
            _number(part["mu"], "+.3f"),
            _ends(part["mu_interval"], "+.3f"),
            *_t_star(part),
        )
    return table


def _walk(data: Mapping[str, Any]) -> Table:
    columns = ("stream", "slope of Var y(t)", "interval", "windows of", "whole runs ×", "at most", "reads as")
    table = _table(columns)
    for name, part in _parts(data):
        slope = part["slope"]
        if slope is None:
            table.add_row(name, "", "", "", "", "", "too few events that vary")
            continue
        table.add_row(
            name,
            f"{slope['slope']:.2f}",
            _ends(slope["interval"], ".2f"),
            f"1 to {slope['sizes'][-1]}",
            f"{slope['run_ratio']:.2f}",
            f"{slope['run_ratio_max']:.2f}",
            slope["verdict"],
        )
    return table


def _table(columns: Sequence[str]) -> Table:
    from rich.table import Table

    table = Table(header_style="dim", box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for number, name in enumerate(columns):
        text = name in ("stream", "reads as")
        table.add_column(name, justify="right" if number and not text else "left", no_wrap=not text, overflow="fold")
    return table


def _t_star(part: Mapping[str, Any]) -> tuple[str, str]:
    """Null is infinite where there is a candidate."""
    if part["mu"] is None:
        return "", ""
    point = "∞" if part["t_star"] is None else f"{part['t_star']:.3g}"
    if part["t_star_interval"] is None:
        return point, ""
    low, high = (("∞" if end is None else f"{end:.3g}") for end in part["t_star_interval"])
    return point, f"[{low}, {high}]"


def _number(value: float | None, form: str = ".3f") -> str:
    return "" if value is None else format(value, form)


def _ends(interval: Sequence[float] | None, form: str = ".3f") -> str:
    return "" if interval is None else "[" + ", ".join(format(end, form) for end in interval) + "]"
