"""`driftline replay`: re-run history against a candidate, and say whether it would decide otherwise."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from driftline.console import replay_options as options
from driftline.console.replay_options import Mode, What, selection_of

if TYPE_CHECKING:
    from driftline.console.replay_run import ReplayDone, ReplayRequest

__all__ = ["EXAMPLE", "replay", "selection_of"]

EXAMPLE = "Example: driftline replay --app renewals --candidate openai/gpt-4o --from 2026-09-22"
VERDICTS_BY_WEIGHT = ("diverged", "inconclusive", "equivalent")
"""Of several candidates the first of these gives the exit code."""


def replay(
    context: typer.Context,
    app: options.AppName,
    what: options.Action = None,
    mode: options.ReplayMode = Mode.FORCED,
    candidate: options.Candidates = None,
    prompt: options.PromptName = None,
    param: options.Parameters = None,
    verifier: options.Spec = None,
    incumbent: options.IncumbentModel = None,
    floor: options.FloorRuns = None,
    start: options.From = None,
    stop: options.To = None,
    offsets: options.Offsets = None,
    stream: options.Streams = None,
    key: options.Keys = None,
    sample: options.Sample = None,
    segment: options.SegmentFile = None,
    alpha: options.Alpha = 0.05,
    delta: options.Delta = 0.05,
    min_effect: options.MinEffect = 0.0,
    order_seed: options.OrderSeed = 0,
    locate: options.Locate = False,
    estimate: options.Estimate = False,
    mmd: options.Mmd = None,
    follow_for: options.For = None,
    budget_usd: options.Budget = None,
    max_calls: options.MaxCalls = None,
    concurrency: options.Concurrency = 8,
    requests_per_minute: options.RequestRate = None,
    tokens_per_minute: options.TokenRate = None,
    allow_unpriced: options.AllowUnpriced = False,
    refresh: options.Refresh = False,
    html: options.Html = None,
    markdown: options.Markdown = None,
    as_json: options.AsJson = False,
) -> None:
    """Re-run the first attempt of each logged decision with its recorded context against a candidate.

    Exits 0 equivalent, 1 diverged, 2 usage, 3 unreachable, 4 inconclusive, 130 interrupted. The same command goes
    on where an interrupted run stopped: answers that were paid for are in the ledger.
    `driftline replay plan` with the same options says before what it will cost and can find.
    """
    from driftline.console.candidates import Parts, tried_of
    from driftline.console.outputs import check_outputs
    from driftline.console.replay_run import ReplayRequest
    from driftline.replay.harness import Limits

    selection = selection_of(start, stop, offsets or [], stream or [], key or [], sample, order_seed)
    if mode is Mode.VERIFY:
        from driftline.console.verify_run import verify_and_exit

        verify_and_exit(app, selection, verifier, segment, options.given_in(context), as_json)
    _check_for(follow_for, mode)
    rates = budget_usd, requests_per_minute, tokens_per_minute
    limits = Limits(alpha, delta, min_effect, order_seed, concurrency, max_calls, locate, estimate, *rates, mmd)
    beside = options.incumbent_of(incumbent, floor)
    pages, several = html is not None or markdown is not None, len(set(candidate or [])) > 1
    _check_what(what, mode, pages, several, beside is not None or bool(mmd))
    check_outputs(html, markdown)
    shared = Parts(None, prompt, options.parameters_of(param or []), verifier)
    tried = tried_of(app, segment, candidate or [], shared)
    common = segment, allow_unpriced, refresh, beside
    requests = [ReplayRequest(app, one.candidate, selection, limits, one.verifier, *common) for one in tried]
    _run(requests, what, mode, follow_for, as_json, html, markdown)


def _run(
    requests: Sequence[ReplayRequest],
    what: What | None,
    mode: Mode,
    follow_for: str | None,
    as_json: bool,
    html: Path | None,
    markdown: Path | None,
) -> None:
    if what is not None:
        from driftline.console.plan_command import print_plans

        print_plans(requests, mode, as_json)
    elif mode is Mode.FREE:
        from driftline.console.free_run import free_and_exit

        free_and_exit(requests, as_json)
    elif mode is Mode.SHADOW:
        from driftline.console.shadow_run import shadow_and_exit

        shadow_and_exit(requests, follow_for, as_json)
    else:
        _replay_and_exit(requests, as_json, html, markdown)


def _check_what(what: What | None, mode: Mode, pages: bool, several: bool, beside: bool) -> None:
    """What does not go together is told before anything is asked."""
    from driftline.schemas import UsageError

    if what is not None and mode in (Mode.SHADOW, Mode.VERIFY):
        raise UsageError(f"there is no plan of the mode {mode.value}", "leave --mode out")
    if beside and mode is Mode.FREE:
        raise UsageError("free knows no --incumbent, --floor or --mmd: they are of the mode forced", "leave them out")
    if pages and (mode is not Mode.FORCED or what is not None or several):
        raise UsageError(
            "--html and --markdown are of one forced run", "see `driftline report --help` for the others"
        )


def _check_for(follow_for: str | None, mode: Mode) -> None:
    from driftline.schemas import UsageError

    if follow_for is not None and mode is not Mode.SHADOW:
        raise UsageError(f"--for is of the mode shadow, {mode.value} ends with what is on the log", "leave --for out")


def _replay_and_exit(
    requests: Sequence[ReplayRequest], as_json: bool, html: Path | None, markdown: Path | None
) -> None:
    from driftline.console.common import out
    from driftline.console.replay_run import run_replays
    from driftline.replay.report import EXIT_CODES

    finished = run_replays(requests)
    runs = list(finished) if as_json else print_runs(finished)
    if as_json:
        out.print_json(data=runs[0].report if len(runs) == 1 else {"runs": [done.report for done in runs]})
    if html is not None or markdown is not None:
        from driftline.console.outputs import write_pages
        from driftline.replay.stored import read_run

        write_pages(read_run(runs[0].database), html, markdown)
    verdicts = {done.report["verdict"] for done in runs}
    raise typer.Exit(EXIT_CODES[next(verdict for verdict in VERDICTS_BY_WEIGHT if verdict in verdicts)])


def print_runs(runs: Iterable[ReplayDone]) -> list[ReplayDone]:
    """Print each run's report as it comes, and what the prompt changes once, before what that led to; the runs."""
    from driftline.console.common import out, say
    from driftline.console.render import print_report

    printed: list[ReplayDone] = []
    for done in runs:
        if done.prompt_diff and done.prompt_diff not in {earlier.prompt_diff for earlier in printed}:
            say(done.prompt_diff + "\n", "dim")
        print_report(out, done)
        printed.append(done)
    return printed
