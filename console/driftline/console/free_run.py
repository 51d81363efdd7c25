"""`driftline replay --mode free`: whole workflows lived again in a sandbox, printed and kept as JSON."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import typer
from rich.table import Table

from driftline.console.common import Log, now, open_subject, out, progress_bar, say
from driftline.console.history import tell_history_of
from driftline.console.outputs import write_json
from driftline.console.render import VERDICT_STYLES
from driftline.console.replay_run import LEDGER, ReplayRequest, proposer_of, timings
from driftline.consumers.models.litellm_proposer import LiteLLMProposer
from driftline.replay.asking import steady
from driftline.replay.free import FreeReplay, FreeResult, latest_decisions, require_app
from driftline.replay.free_report import free_data, free_id_of
from driftline.replay.free_store import write_free_store
from driftline.replay.identity import prompt_diff
from driftline.replay.ledger import Ledger
from driftline.replay.plan import require_price, room_in_usd
from driftline.replay.pricing import PriceMap
from driftline.replay.report import EXIT_CODES, tried_data
from driftline.replay.spending import Spending
from driftline.replay.subject import AppSubject
from driftline.replay.visible import visible
from driftline.replay.wording import candidate_text, cost_text, e_text, interval_text, rate_text
from driftline.replay.workflows import History, load_workflows, segment_of
from driftline.schemas import UsageError
from driftline.schemas.cloudevents import format_time

REPORT = "free.json"
"""In the folder of the run, beside its database."""
PLACES_SHOWN_MAX = 20
DEPARTURES_SHOWN_MAX = 3
VERDICTS_BY_WEIGHT = ("diverged", "inconclusive", "equivalent")
"""Of several candidates the first of these gives the exit code."""


@dataclass(frozen=True)
class FreeDone:
    """What came out, and where it lies."""

    report: Mapping[str, Any]
    file: Path
    """The report as JSON."""
    database: Path


@dataclass(frozen=True)
class OpenedFree:
    """What several candidates share: the log is read once."""

    subject: AppSubject
    history: History
    log: Log
    incumbent: bool
    prices: PriceMap = field(default_factory=PriceMap)


def free_and_exit(requests: Sequence[ReplayRequest], as_json: bool, incumbent: bool = True) -> NoReturn:
    """Run every candidate, print, and exit with the worst verdict's code.

    Raises:
        UsageError: What was asked for makes no sense of whole workflows, or a price is unknown.
        EnvironmentUnreachable: A broker, the registry or the model does not answer.
    """
    runs = run_free(requests, incumbent)
    if as_json:
        reports = [dict(done.report) for done in runs]
        out.print_json(data=reports[0] if len(reports) == 1 else {"runs": reports})
    else:
        for done in runs:
            print_free(done)
    verdicts = {done.report["verdict"] for done in runs}
    raise typer.Exit(EXIT_CODES[next(verdict for verdict in VERDICTS_BY_WEIGHT if verdict in verdicts)])


def run_free(requests: Sequence[ReplayRequest], incumbent: bool = True) -> list[FreeDone]:
    """Read the workflows once, live them again under each candidate, and write each run's report beside the others.

    Args:
        requests: What is replayed, in candidates alone not alike; each is a run of its own.
        incumbent: Whether the log's own model is asked again too; without it there is no verdict, and half the calls.

    Raises:
        UsageError: As `free_and_exit`; then nothing was paid.
        EnvironmentUnreachable: A broker, the registry or the model does not answer.
    """
    opened = open_free(requests, incumbent)
    for one in requests:
        _check(opened, one)
    return [_run_one(opened, one) for one in requests]


def open_free(requests: Sequence[ReplayRequest], incumbent: bool = True) -> OpenedFree:
    """Read the workflows of requests that differ in candidates alone.

    Raises:
        UsageError: What was asked for makes no sense of whole workflows.
        EnvironmentUnreachable: A broker or the registry does not answer.
    """
    for one in requests:
        _refuse(one)
    request = requests[0]
    found, log = open_subject(request.app)
    subject = require_app(found)
    for topic in (subject.app.topics.events, subject.app.topics.decisions):
        tell_history_of(log.reader, topic, request.selection)
    with progress_bar("reading the workflows", None):
        history = load_workflows(log.reader, log.codec, subject.app, request.selection)
    return OpenedFree(subject, history, log, incumbent)


def print_free(done: FreeDone) -> None:
    """Verdict, rates, where workflows depart, the first departures in full, and where the run lies."""
    print_free_findings(done.report)
    say(f"  DuckDB, Parquet and {REPORT} in {done.database.parent}; ask: driftline sql 'FROM by_place'", "dim")


def print_free_findings(report: Mapping[str, Any]) -> None:
    """`print_free` of a run that was told where it lies already."""
    if report.get("prompt_diff"):
        say(visible(report["prompt_diff"]) + "\n", "dim")
    style = VERDICT_STYLES[report["verdict"]]
    arms = visible(f"{report['baseline']} → {candidate_text(report)}")
    say(f"{report['verdict'].upper()}  {report['app']}: {arms}, free", style)
    for line in (*_rates(report), *_circumstances(report)):
        say(visible(f"  {line}"))
    if report["by_place"]:
        out.print("", _places(report["by_place"][:PLACES_SHOWN_MAX]), "")
    for departure in report["departures"][:DEPARTURES_SHOWN_MAX]:
        for line in _departure(departure):
            say(visible(line))


def _refuse(request: ReplayRequest) -> None:
    wrong = {
        "a segment file": (request.segment_file is not None, "it holds decisions and no events; leave --segment out"),
        "--offsets": (request.selection.offsets is not None, "use --from, --to, --key or --sample"),
        "a verifier spec": (request.verifier is not None, "an app's boundaries have verifiers of their own"),
        "--refresh": (request.refresh, "use --mode forced, or driftline cache prune"),
        "--estimate": (request.limits.read_on, "free always reads to the end; leave it out"),
    }
    for what, (given, mend) in wrong.items():
        if given:
            raise UsageError(f"free takes whole workflows off the log: {what} does not go with it", mend)


def check_models(opened: OpenedFree, request: ReplayRequest) -> None:
    """Refuse models that cannot be asked.

    Raises:
        UsageError: One of them.
    """
    for logged in latest_decisions(opened.history).values():
        asked = request.candidate.request(logged.decision, opened.subject, "plan", request.limits.order_seed)
        LiteLLMProposer().check(asked)


def _check(opened: OpenedFree, request: ReplayRequest) -> None:
    """Refuse, before anything is paid, models that cannot be asked or have no price."""
    check_models(opened, request)
    candidate, latest = request.candidate, latest_decisions(opened.history).values()
    own = {logged.decision.model_requested for logged in latest}
    models = ({candidate.model} if candidate.model else own) | (own if opened.incumbent else set())
    for model in sorted(models):
        require_price(opened.prices.of(model), opened.prices, request.limits, request.allow_unpriced)


def _run_one(opened: OpenedFree, request: ReplayRequest) -> FreeDone:
    started, began = now(), time.monotonic()
    result = _ask_all(opened, request)
    report = free_data(opened.history, request.candidate, result, request.limits)
    report["tried"] = tried_data(request.candidate)
    report["prompt_diff"] = prompt_diff(segment_of(opened.history), opened.subject, request.candidate)
    report["timings"] = timings(started, time.monotonic() - began, report.pop("from_ledger"))
    folder = opened.log.settings.home / "runs" / result.run_id
    database = write_free_store(folder, result, report, format_time(now()))
    write_json(folder / REPORT, report)
    return FreeDone(report, folder / REPORT, database)


def _ask_all(opened: OpenedFree, request: ReplayRequest) -> FreeResult:
    history, subject, limits, candidate = opened.history, opened.subject, request.limits, request.candidate
    run_id = free_id_of(history, subject, candidate, limits, opened.incumbent)
    with closing(Ledger(opened.log.settings.home / LEDGER)) as ledger, ledger.asking(run_id):
        room = partial(room_in_usd, candidate, opened.prices)
        spending = Spending(limits.usd_max, ledger.paid_usd(run_id), room)
        proposer = steady(LiteLLMProposer(), limits) if opened.incumbent else proposer_of(candidate, limits)
        given = (run_id, history, subject, candidate, proposer, ledger, limits, now, spending, opened.incumbent)
        with progress_bar(f"living {history.app} again", len(history.workflows)) as show:
            return asyncio.run(FreeReplay(*given).run(lambda done, planned: show(done)))


def _rates(report: Mapping[str, Any]) -> list[str]:
    lines = []
    for name, arm in report["arms"].items():
        if arm is not None:
            told = [f"{name}: departed {_rate(arm['departed'])}"]
            if arm["state_changed"]["workflows"]:
                told.append(f"another final row {_rate(arm['state_changed'])}")
            lines.append("; ".join(told))
    travel = report["arms"]["candidate"]["travel"]
    if report["departures"]:
        counted = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in travel.items() if count)
        lines.append(f"what the departures led to: {counted or 'nothing'}")
    return lines


def _rate(rate: Mapping[str, Any]) -> str:
    shown = interval_text(rate["interval"], signed=False)
    return f"{rate['count']} of {rate['workflows']} ({rate_text(rate['rate'])}, interval {shown})"


def _circumstances(report: Mapping[str, Any]) -> list[str]:
    workflows = report["workflows"]
    ended = ", ".join(f"{count} {why}" for why, count in workflows["ended_early"].items())
    lines = [
        f"{workflows['compared']} of {workflows['planned']} workflows compared, coverage {report['coverage']:.0%}"
        + (f"; sandboxes that ended early: {ended}" if ended else ""),
        f"{report['calls']} calls, {cost_text(report['cost_usd'])}; stopped: {report['stopped_because']}; "
        f"run {report['run_id']}",
    ]
    if report["e_value"] is not None:
        lines.insert(
            0, f"against the incumbent: e = {e_text(report['e_value'])} (alarm at {1 / report['alpha']:.0f})"
        )
    left_out = {"without a decision": workflows["undecided"], "whose beginning is gone": workflows["headless"]}
    told = ", ".join(f"{count} {why}" for why, count in left_out.items() if count)
    return [*lines, *([f"workflows left out: {told}"] if told else []), *([report["note"]] if report["note"] else [])]


def _places(places: Sequence[Mapping[str, Any]]) -> Table:
    columns = {"decision": "right", "of": "left", "then → now": "left", "workflows": "right", "other row": "right"}
    table = Table(title="where workflows depart first", title_justify="left", title_style="bold", box=None)
    table.header_style, table.padding, table.pad_edge = "dim", (0, 1, 0, 0), False
    for column, side in {**columns, "example": "left"}.items():
        table.add_column(column, justify="right" if side == "right" else "left", overflow="fold")
    for place in places:
        counts = (str(place["workflows"]), str(place["state_changed"]))
        stratum = f"{place['boundary']}/{place['stream']}"
        cells = (str(place["index"] + 1), stratum, _change(place), *counts, place["example"])
        table.add_row(*map(visible, cells))
    return table


def _change(place: Mapping[str, Any]) -> str:
    then, now = (place[side].rpartition(".")[2] for side in ("then", "now"))
    return f"{then}, other fields" if then == now else f"{then} → {now}"


def _departure(departure: Mapping[str, Any]) -> list[str]:
    first = departure["first"]
    where = f"decision {first['index'] + 1} ({first['boundary']}/{first['stream']}) at {first['at']}"
    return [
        f"{departure['workflow']} departs at {where}",
        f"  then {_taken(first['then'])}",
        f"  now  {_taken(first['now'])}",
    ]


def _taken(taken: Mapping[str, Any]) -> str:
    payload = "" if taken["payload"] is None else " " + json.dumps(taken["payload"], ensure_ascii=False)
    return f"{taken['verdict']} {taken['type'] or ''}{payload}".rstrip()
