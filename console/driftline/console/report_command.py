"""`driftline report`: what a stored run says, in a terminal, as a page, Markdown or JSON; also beside another."""

from __future__ import annotations

from collections.abc import Sequence
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
    from driftline.console.common import out
    from driftline.log import load_settings
    from driftline.replay.stored import find_run, read_report
    from driftline.schemas import UsageError

    runs = load_settings().home / "runs"
    found = [find_run(runs, run), *([] if baseline is None else [find_run(runs, baseline)])]
    reports = [read_report(database) for database in found]
    if all(report.get("mode") != "free" for report in reports):
        _show(found, html, markdown, as_json)
    elif html or markdown or baseline:
        raise UsageError(
            f"a run in mode free has no page and is shown beside no other: {found[0].parent.name}",
            "leave --html, --markdown and --baseline out",
        )
    elif as_json:
        out.print_json(data=reports[0])
    else:
        from driftline.console.free_run import print_free_findings

        print_free_findings(reports[0])


def _show(found: Sequence[Path], html: Path | None, markdown: Path | None, as_json: bool) -> None:
    """A forced or shadow run, and behind it the earlier one where there is one."""
    from driftline.console.common import out, say
    from driftline.console.outputs import write_pages
    from driftline.console.render import print_earlier, print_findings
    from driftline.replay.stored import read_report, read_run

    shown = read_run(found[0])
    earlier = read_report(found[1]) if len(found) > 1 else None
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
