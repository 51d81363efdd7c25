"""`driftline publish`: JSON lines from standard input onto an app's events topic."""

import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

PROGRESS_EVERY_EVENTS = 1_000
"""Between two reports of progress."""


def publish(
    app: Annotated[str, typer.Argument(help="Name of the app; its topics are made where they are missing.")],
    record: Annotated[str | None, typer.Option(help="Avro record of lines that name none themselves.")] = None,
    stream: Annotated[str | None, typer.Option("--type", help="Event type; else the record's name.")] = None,
    schemas: Annotated[Path | None, typer.Option(help="Folder of <record>/<version>.avsc files.")] = None,
    source: Annotated[str, typer.Option(help="Where the events come from: a system or a person.")] = (
        "driftline-publish"
    ),
    key_field: Annotated[str | None, typer.Option(help="Lines are payloads; this field is the workflow.")] = None,
    time_field: Annotated[str | None, typer.Option(help="With --key-field: the field with the event time.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as one JSON object.")] = False,
) -> None:
    """Publish one event for each JSON line of standard input: all of them, or none.

    A line is {"workflow": "c-17", "time": "2026-07-01T00:00:00Z", "data": {…}}, and may carry id, type and record;
    with --key-field and --time-field it is the data itself.
    """
    from driftline.log import load_settings
    from driftline.producers.lines import LineForm, publish_lines

    form = LineForm(record, stream, source, key_field, time_field)
    summary = publish_lines(
        sys.stdin.buffer,
        app=app,
        form=form,
        settings=load_settings(),
        schemas=schemas,
        on_progress=_progress(sys.stderr.isatty()),
    )
    typer.echo(json.dumps(dataclasses.asdict(summary)) if as_json else str(summary))


def _progress(shown: bool) -> Callable[[str, int], None]:
    def tell(phase: str, done: int) -> None:
        if shown and done % PROGRESS_EVERY_EVENTS == 0:
            typer.echo(f"\r{done} events {phase} ", err=True, nl=False)

    return tell
