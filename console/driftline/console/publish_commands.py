"""`driftline publish`: JSON lines from standard input onto an app's events topic."""

import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from driftline.log import Settings

PROGRESS_EVERY_EVENTS = 1_000
"""Between two reports of progress."""


def publish(
    app: Annotated[str, typer.Argument(help="App in driftline.toml, module:attribute, or with --schemas any name.")],
    record: Annotated[
        str | None, typer.Option(help="Avro record of lines that name none; else the app's fact, where it has one.")
    ] = None,
    stream: Annotated[str | None, typer.Option("--type", help="Event type; else the record's name.")] = None,
    schemas: Annotated[Path | None, typer.Option(help="Folder of <record>/<version>.avsc; else the app's.")] = None,
    source: Annotated[str, typer.Option(help="Where the events come from: a system or a person.")] = (
        "driftline-publish"
    ),
    key_field: Annotated[str | None, typer.Option(help="Lines are payloads; this field is the workflow.")] = None,
    time_field: Annotated[str | None, typer.Option(help="With --key-field: the field with the event time.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as one JSON object.")] = False,
) -> None:
    """Publish one event for each JSON line of standard input: all of them, or none. Missing topics are made.

    A line is {"workflow": "c-17", "time": "2026-07-01T00:00:00Z", "data": {…}}, and may carry id, type and record;
    with --key-field and --time-field it is the data itself.
    """
    from driftline.log import load_settings
    from driftline.producers.lines import LineForm, publish_lines

    settings = load_settings()
    target = _target(app, record, schemas, settings)
    summary = publish_lines(
        sys.stdin.buffer,
        app=target.app,
        form=LineForm(target.record, stream, source, key_field, time_field),
        settings=settings,
        schemas=target.schemas,
        on_progress=_progress(sys.stderr.isatty()),
    )
    typer.echo(json.dumps(dataclasses.asdict(summary)) if as_json else str(summary))


@dataclasses.dataclass(frozen=True, slots=True)
class _Target:
    """Whose topic, and by which contracts."""

    app: str
    record: str | None
    schemas: Path


def _target(app: str, record: str | None, schemas: Path | None, settings: "Settings") -> _Target:
    """What was asked for, completed by the app's own code where there is any.

    Raises:
        UnknownApp: No such app, and no schemas are given: a mistyped name must not get topics.
    """
    from driftline.console.common import find_app
    from driftline.schemas import UnknownApp

    found = find_app(app, settings)
    if found is not None:
        only = found.facts[0] if len(found.facts) == 1 else None
        return _Target(found.name, record or only, schemas or found.schemas)
    if schemas is None:
        known = ", ".join(settings.apps) or "none"
        raise UnknownApp(
            f"no app {app!r} is configured (configured: {known})",
            "name one of them, or give its contracts with --schemas FOLDER",
        )
    return _Target(app, record, schemas)


def _progress(shown: bool) -> Callable[[str, int], None]:
    def tell(phase: str, done: int) -> None:
        if shown and done % PROGRESS_EVERY_EVENTS == 0:
            typer.echo(f"\r{done} events {phase} ", err=True, nl=False)

    return tell
