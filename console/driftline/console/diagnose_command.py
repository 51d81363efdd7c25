"""`driftline diagnose`: whether the candidate is why a run's batch fails, asked afresh under both models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from driftline.console import replay_options as options

if TYPE_CHECKING:
    from rich.table import Table

EXAMPLE = "Example: driftline diagnose 5bcce21693bb --budget-usd 2"
STYLES = {"candidate": "bold red", "not the model": "bold green", "unknown": "bold yellow"}


def diagnose(
    run: Annotated[str | None, typer.Argument(help="Run id; else the newest.")] = None,
    repeats: Annotated[
        int | None, typer.Option(help="Of each decision under each arm; else more the smaller the batch.")
    ] = None,
    alpha: Annotated[float | None, typer.Option(help="Bound on a false alarm; else the run's.")] = None,
    delta: Annotated[float | None, typer.Option(help="Rates this close are alike; else the run's.")] = None,
    budget_usd: options.Budget = None,
    max_calls: options.MaxCalls = None,
    concurrency: options.Concurrency = 8,
    requests_per_minute: options.RequestRate = None,
    tokens_per_minute: options.TokenRate = None,
    allow_unpriced: options.AllowUnpriced = False,
    as_json: options.AsJson = False,
) -> None:
    """Ask what the baseline passed and the candidate failed once more under both, and compare in pairs.

    A batch that failed once passes in part when it is run again, with no change at all: to re-run it on the old
    model alone proves nothing. Where the candidate changes several of model, prompt and parameters, each is tried
    alone too, at a call more a decision and repeat. Exits 0 not the model, 1 candidate, 2 usage, 3 unreachable, 4
    unknown. The same command goes on where it stopped.
    """
    from driftline.console.common import out, say
    from driftline.console.diagnose_run import FILE, TOO_SMALL, DiagnosisRequest, run_diagnosis
    from driftline.log import load_settings
    from driftline.replay.failing import require_compared
    from driftline.replay.result import Limits
    from driftline.replay.stored import find_run, read_report

    database = find_run(load_settings().home / "runs", run)
    limits = Limits(
        concurrency=concurrency,
        calls_max=max_calls,
        usd_max=budget_usd,
        requests_per_minute=requests_per_minute,
        tokens_per_minute=tokens_per_minute,
    )
    report = read_report(database)
    require_compared(report)
    request = DiagnosisRequest(database, report, limits, alpha, delta, repeats, allow_unpriced)
    result, data = run_diagnosis(request)
    if as_json:
        out.print_json(data=data)
    else:
        _print(data)
        lies = "written" if result.stopped_because != TOO_SMALL else "an earlier one stays where there is one"
        say(f"{lies}: {database.parent / FILE}")
    raise typer.Exit(result.exit_code)


def _print(data: Mapping[str, Any]) -> None:
    from driftline.console.common import out, say
    from driftline.replay.wording import candidate_text, cost_text, e_text

    out.print(data["conclusion"].upper(), style=STYLES[data["conclusion"]], end="")
    say(f"  {data['baseline']} → {candidate_text(data)}, run {data['run_id']}")
    say(f"  {data['reason']}")
    decisions = "1 decision" if data["batch"] == 1 else f"{data['batch']} decisions"
    say(f"  {decisions} failed that the baseline passes; {_asked(data)}")
    after = f" after {data['alarm_after']} decisions" if data["alarm_after"] else ""
    say(f"  evidence e = {e_text(data['e_value'])} (alarm at {1 / data['alpha']:.0f}){after}")
    say(f"  cause: {data['cause']['name']}: {data['cause']['reason']}")
    for name, part in data["parts"].items():
        if part["conclusion"] == "unknown" and data["conclusion"] == "candidate":
            say(f"  {name} alone: {part['reason']}")
    say(f"  advice: {data['advice']['name'] or 'none'}: {'; '.join(data['advice']['reasons'])}")
    spent = f"{data['overspent_calls']} overspent, {cost_text(data['cost_usd'])}, coverage {data['coverage']:.0%}"
    calls = f"{data['paid_calls']} calls, {data['from_ledger']} of them from the ledger"
    say(f"  {calls}, {spent}; stopped: {data['stopped_because']}")
    if data["passed"]:
        out.print("", _arms(data), "")
        say("R is how much less of the batch an arm passes than the incumbent asked at the same time. What the")
        say("incumbent passes is no evidence by itself: a noisy batch passes in part when it is run again.")


def _asked(data: Mapping[str, Any]) -> str:
    if not data["events"]:
        return "none was asked again"
    times = "once" if data["repeats"] == 1 else f"{data['repeats']} times"
    few = "; so few that the alarm speaks of them alone" if data["by_repeat"] else ""
    were = "was" if data["events"] == 1 else "were"
    return f"{data['events']} of them {were} asked afresh, {times} under each of {len(data['passed'])} arms{few}"


def _arms(data: Mapping[str, Any]) -> Table:
    from rich.table import Table

    from driftline.replay.wording import e_text, interval_text, rate_text, signed_text

    table = Table(header_style="dim", box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for number, name in enumerate(("arm", "passes", "R", "interval", "e-value", "conclusion")):
        table.add_column(name, justify="right" if 0 < number < 5 else "left", no_wrap=True)
    found = {"candidate": data, **data["parts"]}
    for arm, passed in data["passed"].items():
        name = f"{arm} alone" if arm in data["parts"] else arm
        row = found.get(arm)
        if row is None:
            table.add_row(name, rate_text(passed))
            continue
        measured = (signed_text(row["shift"]), interval_text(row["interval"]), e_text(row["e_value"]))
        table.add_row(name, rate_text(passed), *measured, row["conclusion"])
    return table
