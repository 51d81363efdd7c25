"""`driftline compare`: two recorded runs in one file, compared as a replay would, with no broker at all."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from driftline.replay.compare import Comparison
    from driftline.replay.stored import StoredRun

EXAMPLE = (
    "Example: driftline compare answers.jsonl.gz --baseline openai/gpt-4-0314 --candidate openai/gpt-4-0613 "
    "--verifier SPEC.toml"
)
ARMS, TEST, OUTPUT = "Arms", "The test", "Output"


def compare(
    file: Annotated[Path, typer.Argument(help="Recorded decisions, .jsonl or .jsonl.gz.")],
    baseline: Annotated[str, typer.Option(help=r"MODEL\[@REPLICATE] that was.", rich_help_panel=ARMS)],
    candidate: Annotated[str, typer.Option(help=r"MODEL\[@REPLICATE] that is tried.", rich_help_panel=ARMS)],
    verifier: Annotated[Path, typer.Option(help="Verifier spec, TOML.", rich_help_panel=ARMS)],
    incumbent: Annotated[
        str | None, typer.Option(help=r"MODEL\[@REPLICATE], the baseline's again.", rich_help_panel=ARMS)
    ] = None,
    floor: Annotated[str | None, typer.Option(help="MODEL@1,2,3: the noise floor.", rich_help_panel=ARMS)] = None,
    alpha: Annotated[float, typer.Option(help="Bound on a false alarm.", rich_help_panel=TEST)] = 0.05,
    delta: Annotated[float, typer.Option(help="Rates this close are equivalent.", rich_help_panel=TEST)] = 0.05,
    min_effect: Annotated[float, typer.Option(help="Smallest change worth an alarm.", rich_help_panel=TEST)] = 0.0,
    order_seed: Annotated[int, typer.Option(help="Of the order of workflows.", rich_help_panel=TEST)] = 0,
    max_events: Annotated[int | None, typer.Option(min=1, help="Read no more events.", rich_help_panel=TEST)] = None,
    json: Annotated[Path | None, typer.Option(help="Write the report as JSON.", rich_help_panel=OUTPUT)] = None,
    html: Annotated[Path | None, typer.Option(help="Write one page.", rich_help_panel=OUTPUT)] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write Markdown.", rich_help_panel=OUTPUT)] = None,
) -> None:
    """Compare two recorded runs, event by event, in the order that a replay would have paid for them.

    Says where the test would have stopped, and reads on to the end for the interval. A noise floor takes part in the
    verdict: the runs of --floor, else the baseline and --incumbent, which also tells the cause. Exits as `replay`
    does:
    0 equivalent, 1 diverged, 2 usage, 4 inconclusive. Leaves nothing behind but the files that are named.
    """
    from driftline.console.common import out, say
    from driftline.console.outputs import check_outputs, write_json, write_pages
    from driftline.console.render import print_findings
    from driftline.consumers.verifier_spec import SpecJudge
    from driftline.replay.compare import Comparing, compare_recordings, comparison_data
    from driftline.replay.report import EXIT_CODES
    from driftline.replay.result import Limits

    check_outputs(json, html, markdown)
    limits = Limits(alpha=alpha, delta=delta, min_effect=min_effect, order_seed=order_seed, calls_max=max_events)
    spec = SpecJudge.from_file(verifier)
    comparison = compare_recordings(Comparing(file, baseline, candidate, spec, incumbent, floor, limits))
    print_findings(out, comparison.report)
    written = []
    if json is not None:
        write_json(json, comparison_data(comparison.report))
        written.append(json)
    if html is not None or markdown is not None:
        written += write_pages(_stored(comparison), html, markdown)
    for path in written:
        say(f"written: {path}")
    raise typer.Exit(EXIT_CODES[comparison.report["verdict"]])


def _stored(comparison: Comparison) -> StoredRun:
    """The comparison as a stored run, by way of a store that is gone afterwards."""
    from tempfile import TemporaryDirectory

    from driftline.replay.store import write_store
    from driftline.replay.stored import read_run

    with TemporaryDirectory(prefix="driftline-compare-") as folder:
        row = {**comparison.report, "report": comparison.report}
        return read_run(write_store(Path(folder), comparison.result, row))
