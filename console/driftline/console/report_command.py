"""`driftline report`: what a stored run says, in a terminal, as a page, Markdown or JSON; also beside another."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

EXAMPLE = "Example: driftline report --html run.html --baseline 5bcce21693bb"


def report(
    run: Annotated[str | None, typer.Argument(help="Run id; else the newest.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write one self-contained page.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write Markdown for a pull request.")] = None,
    baseline: Annotated[str | None, typer.Option(help="Id of an earlier run to show it against.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show a run of `driftline replay` again. Nothing is asked and nothing is paid."""
    from driftline.console.common import out, say
    from driftline.console.outputs import write_pages
    from driftline.console.render import print_earlier, print_findings
    from driftline.log import load_settings
    from driftline.replay.stored import find_run, read_run

    runs = load_settings().home / "runs"
    shown = read_run(find_run(runs, run))
    earlier = None if baseline is None else read_run(find_run(runs, baseline), flips_max=0).report
    written = write_pages(shown, html, markdown, earlier)
    if as_json:
        out.print_json(data={**shown.report, "earlier": earlier} if earlier else dict(shown.report))
        return
    if not written:
        print_findings(out, shown.report)
        if earlier:
            print_earlier(out, earlier, shown.report)
    for path in written:
        say(f"written: {path}")
