"""`driftline state`: the rows of an app."""

from __future__ import annotations

from typing import Annotated

import typer

EXAMPLE = "Example: driftline state rebuild renewals --check"
EXIT_DIFFERS = 1

state_app = typer.Typer(help="The rows of an app.", no_args_is_help=True)


@state_app.command("rebuild", epilog=EXAMPLE)
def rebuild(
    app: Annotated[str, typer.Argument(help="App in driftline.toml, or module:attribute.")],
    check: Annotated[
        bool, typer.Option("--check", help="Compare only, and exit 1 where a row is not what the log folds to.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was found as one JSON object.")] = False,
) -> None:
    """Fold the log of a stopped app anew, and bring the rows that differ to what it folds to."""
    from driftline.console.common import Log, out, require_app, say
    from driftline.consumers.rebuilding import Rebuilder
    from driftline.log import load_settings

    settings = load_settings()
    loaded = require_app(app, settings)
    rebuilder = Rebuilder(loaded, settings, Log(settings, loaded.contracts).codec)
    found = list(rebuilder.run(write=not check))
    differing = [workflow for partition in found for workflow in partition.differing]
    workflows = sum(partition.workflows for partition in found)
    if as_json:
        out.print_json(data={"workflows": workflows, "differing": differing, "written": not check})
    else:
        done = "differ from the log" if check else "differed from the log and were written anew"
        say(f"{loaded.name}: {workflows} workflows, {len(differing)} rows {done}")
        for workflow in differing[:20]:
            say(f"  {workflow}")
    if check and differing:
        raise typer.Exit(EXIT_DIFFERS)
