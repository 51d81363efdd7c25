"""`driftline segment`: history as a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from driftline.console.replay_command import selection_of

segment_app = typer.Typer(help="History as a file that travels.", no_args_is_help=True)


@segment_app.command("export", epilog="Example: driftline segment export week.parquet --app renewals")
def export(
    file: Annotated[Path, typer.Argument(help="Parquet file to write.")],
    app: Annotated[str, typer.Option(help="App in driftline.toml, or module:attribute.")],
    start: Annotated[str | None, typer.Option("--from", help="First event time, ISO 8601.")] = None,
    stop: Annotated[str | None, typer.Option("--to", help="Event time before which it ends.")] = None,
) -> None:
    """Write decisions with the prompts they need; `driftline replay --segment FILE` needs no broker."""
    from driftline.console.common import open_subject, say
    from driftline.replay.segment import load_segment
    from driftline.replay.segment_file import export_segment

    subject, log = open_subject(app)
    segment = load_segment(log.reader, log.codec, subject.name, selection_of(start, stop))
    export_segment(segment, log.artifacts, file)
    say(f"{len(segment.decisions)} decisions → {file} ({file.stat().st_size / 1024:.0f} KiB)")
