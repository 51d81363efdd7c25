"""`driftline doctor`: is everything there that driftline rests on, and what is to be mended?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from driftline.console.nightly_command import NIGHTLY_FILE

EXAMPLE = "Example: driftline doctor --app renewals"

AppNames = Annotated[list[str] | None, typer.Option("--app", help="App; else all of driftline.toml.")]
Nights = Annotated[Path | None, typer.Option("--nightly", help="The nights' file; else nightly.toml if it is here.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red"}


def doctor(app: AppNames = None, nightly: Nights = None, as_json: AsJson = False) -> None:
    """Look at the broker, topics, rights, schemas, clock, prices, nights, disk and ledger, and say what to mend.

    Changes nothing that others read. Exits 0 when nothing fails, 1 when something does, 3 when the broker or registry
    does not answer.
    """
    from driftline.console.common import out, say
    from driftline.console.doctor import examine, exit_code, findings_data, to_mend
    from driftline.log import load_settings

    settings = load_settings()
    found = []
    nights = nightly or (NIGHTLY_FILE if NIGHTLY_FILE.exists() else None)
    for one in examine(settings, app or list(settings.apps), nights):
        found.append(one)
        if not as_json:
            say(f"{one.status:4}  {one.area:8}  {one.what}", STYLES[one.status])
    if as_json:
        out.print_json(data=findings_data(found))
    else:
        wanting = to_mend(found)
        say("")
        say("nothing to mend" if not wanting else "to mend:")
        for number, mend in enumerate(wanting, 1):
            say(f"  {number}. {mend}")
    raise typer.Exit(exit_code(found))
