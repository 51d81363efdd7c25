"""`driftline segment`: history as a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from driftline.console import replay_options as options
from driftline.console.replay_options import selection_of

segment_app = typer.Typer(help="History as a file that travels.", no_args_is_help=True)


@segment_app.command("export", epilog="Example: driftline segment export week.parquet --app renewals --from 7d")
def export(
    file: Annotated[Path, typer.Argument(help="Parquet file to write.")],
    app: Annotated[str, typer.Option(help="App in driftline.toml, or module:attribute.")],
    start: options.From = None,
    stop: options.To = None,
    offsets: options.Offsets = None,
    stream: options.Streams = None,
    key: options.Keys = None,
    sample: options.Sample = None,
    order_seed: options.OrderSeed = 0,
) -> None:
    """Write decisions with the prompts they need; `driftline replay --segment FILE` needs no broker."""
    from driftline.console.common import open_subject, say
    from driftline.console.history import tell_history
    from driftline.replay.segment import load_segment
    from driftline.replay.segment_file import export_segment

    subject, log = open_subject(app)
    selection = selection_of(start, stop, offsets or [], stream or [], key or [], sample, order_seed)
    segment = load_segment(log.reader, log.codec, subject.name, selection)
    tell_history(segment.span.topic, segment.history_from)
    export_segment(segment, log.artifacts, file)
    say(f"{len(segment.decisions)} decisions → {file} ({file.stat().st_size / 1024:.0f} KiB)")


@segment_app.command("import", epilog="Example: driftline segment import week.parquet --app renewals")
def import_file(
    file: Annotated[Path, typer.Argument(help="Parquet file that `segment export` wrote.")],
    app: Annotated[str, typer.Option(help="App whose history it becomes; its decisions topic must be empty.")],
) -> None:
    """Make a file the history of an app on this cluster, all or nothing; a replay of it needs no import."""
    from driftline.console.common import say
    from driftline.console.segment_import import import_segment

    say(f"{import_segment(file, app)} decisions from {file} are the history of {app}")
