"""`driftline nightly`: last night's decisions through today's rules, the incumbent and the candidates."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Annotated

import typer

NIGHTLY_FILE = Path("nightly.toml")
"""In the working folder, where none is given."""
EXAMPLE = "Example: driftline nightly --config nightly.toml --since 2026-09-20"

ConfigFile = Annotated[Path, typer.Option(help="TOML; deploy/nightly.example.toml shows all of it.")]
Date = Annotated[str | None, typer.Option("--date", help="The night, YYYY-MM-DD; else the last one that is over.")]
Since = Annotated[str | None, typer.Option(help="Nights from this one on, in order: those that are counted stay.")]
Markdown = Annotated[Path | None, typer.Option(help="Write the summary as Markdown.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def nightly(
    config: ConfigFile = NIGHTLY_FILE,
    night: Date = None,
    since: Since = None,
    markdown: Markdown = None,
    as_json: AsJson = False,
) -> None:
    """Replay what was decided in a night, and carry the evidence on from night to night.

    A night counts once: the same command again asks, pays and publishes nothing; after an interruption it goes on.
    A candidate that diverged gives exit 1 that night; later nights tell of it, ask it nothing and pass it over here.
    Exits with the worst of all: 3 unreachable, 2 usage (run it again), 1 diverged, 4 inconclusive, 0 equivalent.
    """
    from driftline.console.common import now, out, say
    from driftline.console.nightly import run_nightly
    from driftline.console.nightly_config import load_config
    from driftline.console.nightly_output import exit_code, summary_data, summary_lines, summary_markdown
    from driftline.console.outputs import write_text
    from driftline.console.render import VERDICT_STYLES

    given = load_config(config)
    nights = given.nights(_day("--date", night), _day("--since", since), now())
    done = run_nightly(given, nights)
    if not given.apps and not as_json:
        say(f"{config}: no app has nights, nothing to do")
    if markdown is not None:
        write_text(markdown, summary_markdown(done))
    if as_json:
        out.print_json(data=summary_data(done))
    else:
        for line, verdict in summary_lines(done):
            say(line, VERDICT_STYLES.get(verdict, ""))
    raise typer.Exit(exit_code(done))


def _day(option: str, text: str | None) -> date | None:
    from driftline.schemas import BadInput

    if text is None:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise BadInput(f"{option} {text!r} is no day", "write it as 2026-09-22") from None
