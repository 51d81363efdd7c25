"""`driftline migrate`: whether an app should move its spine from P3 to P5."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from driftline.console.common import Log
    from driftline.consumers.moved import Moved
    from driftline.replay.migration import Gathered

migrate_app = typer.Typer(help="Moving an app from spine P3, the log, to P5, a versioned row.", no_args_is_help=True)

ADVISE_EXAMPLE = "Example: driftline migrate advise renewals --html advice.html"


@migrate_app.command("advise", epilog=ADVISE_EXAMPLE)
def advise(
    app: Annotated[str, typer.Argument(help="App in driftline.toml, module:attribute, or an imported recording.")],
    html: Annotated[Path | None, typer.Option("--html", help="Write a page that shows why.")] = None,
    incumbent_ends: Annotated[
        str | None, typer.Option("--incumbent-ends", help="When the provider takes the incumbent away: 2027-03-31.")
    ] = None,
    publish: Annotated[bool, typer.Option(help="Put a MigrationAlert on driftline.alerts.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Say whether P5 is advised, and why: measured on the log and on the runs on disk. No model is asked.

    Exits 0 where nothing is advised, 1 where a migration is, 4 where it hangs on evidence that is missing. A log that
    is on P5 already is told so, with 0, and nothing is measured, written or published.
    """
    from driftline.console.common import Log, find_app, now, out, say
    from driftline.console.outputs import write_text
    from driftline.console.replay_options import time_of
    from driftline.consumers.moved import moved_log
    from driftline.log import AppTopics, load_settings
    from driftline.replay.migration import gather, migration_data
    from driftline.replay.migration_page import render_migration
    from driftline.schemas import Contracts

    settings = load_settings()
    found = find_app(app, settings)
    log = Log(settings, Contracts.load())
    ends_at = time_of("--incumbent-ends", incumbent_ends, now())
    name = found.name if found else app
    moved = moved_log(log.reader, AppTopics(name), log.codec)
    if moved is not None:
        _tell_moved(moved, as_json)
        return
    gathered = gather(log.reader, settings.home / "runs", name, ends_at)
    data = {**migration_data(gathered), "alert": _publish(log, gathered) if publish else None}
    if html is not None:
        write_text(html, render_migration(data))
    if as_json:
        out.print_json(data=data)
    else:
        _print(data)
        if html is not None:
            say(f"written: {html}")
    raise typer.Exit(gathered.exit_code)


def _tell_moved(moved: Moved, as_json: bool) -> None:
    from driftline.console.common import out, say
    from driftline.schemas.cloudevents import format_time

    if not as_json:
        say(f"{moved}: there is nothing to advise")
        return
    since = {"offsets": moved.cut.offsets, "by": moved.by, "at": format_time(moved.at)}
    data = {"app": moved.topics.app, "conclusion": "moved", "advice": str(moved), "since": since, "alert": None}
    out.print_json(data=data)


def _publish(log: Log, gathered: Gathered) -> str | None:
    """Where the alert lies; None where there is none."""
    from driftline.console.common import now
    from driftline.console.publishing import publish_all
    from driftline.replay.migration import migration_alert

    alert = migration_alert(gathered, now())
    return None if alert is None else str(publish_all(log, alert.run_id, [alert])[alert.kind])


def _print(data: Mapping[str, Any]) -> None:
    from driftline.console.common import out, say
    from driftline.replay.migration_page import HEADLINES

    say(f"{HEADLINES[data['conclusion']].upper()}  {data['app']}", "bold")
    say(f"  {data['advice']}")
    out.print("", _predicates(data), "", _runs(data), "")
    for one in data["missing"]:
        say(f"  missing: {one}")
    if data["alert"] is not None:
        say(f"  alert: {data['alert']}")


def _predicates(data: Mapping[str, Any]) -> Table:
    from driftline.replay.migration_page import duration_text
    from driftline.replay.wording import interval_text, rate_text

    table = _table("the workflows", "property", "holds", "share", "interval", "above", "of", "longest", "for example")
    for one in data["predicates"]:
        known = one["share"] is not None
        table.add_row(
            one["name"].replace("_", " "),
            "yes" if one["holds"] else "no" if known else "not measured",
            rate_text(one["share"]),
            interval_text(one["interval"], signed=False) if known else "",
            rate_text(one["threshold"]),
            f"{one['count']}/{one['workflows']}" if known else "",
            duration_text(one["longest_s"]),
            " ".join(one["examples"][:2]),
        )
    return table


def _runs(data: Mapping[str, Any]) -> Table:
    from driftline.replay.wording import e_text, interval_text, signed_text

    table = _table("the runs", "run", "candidate", "L, A'", "A', B", "failing batch", "e", "effect", "shows")
    for run in data["runs"]:
        effect = next((one for one in run["effects"] if one["clears"]), None) or next(iter(run["effects"]), None)
        told = "" if effect is None else f"{signed_text(effect['change'])} {interval_text(effect['interval'])}"
        table.add_row(
            run["run_id"],
            run["candidate"],
            run["contrasts"]["environment"] or "?",
            run["contrasts"]["candidate"] or "?",
            run["diagnosis"] or "not diagnosed",
            e_text(run["diagnosis_e_value"]),
            told,
            run["kind"],
            style="bold" if run["rests"] else None,
        )
    return table


def _table(title: str, *columns: str) -> Table:
    from rich.table import Table

    table = Table(title=title, title_justify="left", title_style="bold", box=None, header_style="dim", pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table
