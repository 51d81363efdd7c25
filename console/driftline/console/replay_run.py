"""One replay from the request to the alert: what `driftline replay` and the demo both run."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from driftline.console.common import (
    Log,
    now,
    open_subject,
    open_subject_of_file,
    progress_bar,
    subject_of_file,
)
from driftline.console.history import tell_history
from driftline.console.publishing import publish_all
from driftline.console.replay_arms import Arms, EveryArm, incumbent_report, named_arms
from driftline.console.replay_progress import note_of
from driftline.consumers.models.litellm_proposer import LiteLLMProposer
from driftline.consumers.proposing import Proposer
from driftline.log import Coordinates, Settings, load_settings
from driftline.replay.alerting import alerts_of
from driftline.replay.arms import ArmCall, Candidate, Incumbent, calls_of
from driftline.replay.asker import oldest
from driftline.replay.asking import steady
from driftline.replay.harness import ForcedReplay, ForcedResult, Limits
from driftline.replay.identity import prompt_diff, run_id_of
from driftline.replay.ledger import Ledger
from driftline.replay.plan import ReplayPlan, plan_replay, planned_calls, require_priced, room_in_usd
from driftline.replay.pricing import PriceMap
from driftline.replay.report import report_data, tried_data
from driftline.replay.rounds import rounds_of
from driftline.replay.run_request import write_request
from driftline.replay.segment import Segment, Selection, load_segment
from driftline.replay.segment_file import read_artifacts_of_file
from driftline.replay.spending import Spending
from driftline.replay.spread import CALLS_A_DECISION, spread_calls, spread_limits
from driftline.replay.store import write_store
from driftline.replay.subject import Subject
from driftline.replay.turns import planned_decisions
from driftline.schemas import ArmRef
from driftline.schemas.cloudevents import format_time

LEDGER = "ledger.sqlite"
"""In the home folder."""


@dataclass(frozen=True)
class ReplayRequest:
    """What is to be replayed against what."""

    app: str
    candidate: Candidate
    selection: Selection = field(default_factory=Selection)
    limits: Limits = field(default_factory=Limits)
    verifier: str | None = None
    segment_file: Path | None = None
    allow_unpriced: bool = False
    """Run though a price is unknown."""
    refresh: bool = False
    """Ask anew what the ledger holds of this plan."""
    incumbent: Incumbent | None = None
    """Asked beside the candidate; None for the log against the candidate alone."""


@dataclass(frozen=True)
class ReplayDone:
    """What came out, and where it lies."""

    report: Mapping[str, Any]
    database: Path
    alerts: Mapping[str, Coordinates]
    """Where each alert lies, by kind; empty where there was no Kafka."""
    prompt_diff: str = ""
    """What the candidate's prompt changes in the log's, as unified diffs."""


@dataclass(frozen=True)
class Opened:
    """What a request needs of the log: the segment, and what judges it."""

    subject: Subject
    segment: Segment
    log: Log | None
    """None where the segment is a file."""
    settings: Settings
    prices: PriceMap = field(default_factory=PriceMap)


def run_replay(request: ReplayRequest) -> ReplayDone:
    """Load the segment, run the candidate over it, write the run's files and publish its alerts.

    Raises:
        UsageError: The request cannot be run as it stands, or a price is unknown.
        EnvironmentUnreachable: A broker, the registry or the model does not answer.
    """
    return next(run_replays([request]))


def run_replays(requests: Sequence[ReplayRequest]) -> Iterator[ReplayDone]:
    """As `run_replay`, of requests that differ in candidate and verifier alone; each is handed out as it ends.

    The segment is read once, and what all of them may cost is known before the first.

    Raises:
        UsageError: As `run_replay`, of any candidate: then none was run.
        EnvironmentUnreachable: As `run_replay`.
    """
    opened = open_replays(requests)
    for each, one in zip(opened, requests, strict=True):
        _check(each, one)
    for each, one in zip(opened, requests, strict=True):
        yield _run_one(each, one)


def plan_replays(requests: Sequence[ReplayRequest]) -> list[tuple[Opened, ReplayPlan]]:
    """What each request would take, with nothing spent and nothing published.

    Raises:
        UsageError: As `run_replay`; an unknown price is part of the plan, and no error.
        EnvironmentUnreachable: A broker or the registry does not answer.
    """
    planned = []
    for opened, request in zip(open_replays(requests), requests, strict=True):
        _check_models(opened, request)
        with closing(Ledger(opened.settings.home / LEDGER)) as ledger:
            given = opened.segment, opened.subject, request.candidate, ledger, request.limits, opened.prices
            plan = plan_replay(*given, incumbent=request.incumbent, not_before=oldest(now()))
        planned.append((opened, plan))
    return planned


def open_replays(requests: Sequence[ReplayRequest]) -> list[Opened]:
    """What each of several requests needs, that differ in candidate and verifier alone: the segment is read once."""
    first = open_replay(requests[0])
    by_verifier = {requests[0].verifier: first}
    for request in requests:
        if request.verifier not in by_verifier:
            by_verifier[request.verifier] = replace(first, subject=_subject_of(request))
    return [by_verifier[request.verifier] for request in requests]


def _subject_of(request: ReplayRequest) -> Subject:
    file = request.segment_file
    if file is None:
        return open_subject(request.app, request.verifier)[0]
    return subject_of_file(file, request.app, read_artifacts_of_file(file), request.verifier)


def open_replay(request: ReplayRequest) -> Opened:
    """Read the segment, from Kafka or from its file."""
    settings = load_settings()
    if request.segment_file is not None:
        file = request.segment_file
        subject, segment = open_subject_of_file(file, request.app, request.selection, request.verifier)
        return Opened(subject, segment, None, settings)
    subject, log = open_subject(request.app, request.verifier)
    with progress_bar("reading the segment", None):
        segment = load_segment(log.reader, log.codec, subject.name, request.selection)
    tell_history(segment.span.topic, segment.history_from)
    return Opened(subject, segment, log, settings)


def _check_models(opened: Opened, request: ReplayRequest) -> None:
    first = opened.segment.decisions[0].decision
    for call in _every_call(request):
        asked = call.arm.request(first, opened.subject, "plan", request.limits.order_seed, call.asking)
        LiteLLMProposer().check(asked)


def _check(opened: Opened, request: ReplayRequest) -> None:
    """Refuse, before anything is paid, what cannot be asked or has no price."""
    _check_models(opened, request)
    subject, segment = opened.subject, opened.segment
    calls = _every_call(request)
    models = {call.arm.model or logged.decision.model_requested for call in calls for logged in segment.decisions}
    if all(opened.prices.of(model).known for model in models):
        return
    ledger = Ledger(opened.settings.home / LEDGER)
    try:
        given = (segment, subject, calls, ledger, replace(request.limits, calls_max=None), opened.prices)
        planned = planned_calls(*given, not_before=oldest(now()))
    finally:
        ledger.close()
    require_priced(planned, request.limits, request.allow_unpriced)


def _every_call(request: ReplayRequest) -> list[ArmCall]:
    """The calls that a decision may take, in both phases."""
    arms = request.candidate, request.incumbent
    second = [] if spread_limits(request.limits, *arms) is None else spread_calls(*arms)
    return [*calls_of(*arms), *second]


def _run_one(opened: Opened, request: ReplayRequest) -> ReplayDone:
    started, began = now(), time.monotonic()
    segment, subject, candidate = opened.segment, opened.subject, request.candidate
    limits = _free_reading(request)
    arms = named_arms(segment, subject, candidate, request.incumbent)
    run_id = run_id_of(segment, subject, candidate, request.limits, request.incumbent)
    result = _ask_all(opened, request, run_id, limits)
    report = report_data(segment.app, arms.baseline.model, arms.candidate.model, result, limits)
    report["tried"] = tried_data(candidate, request.verifier, arms.candidate.verifier_version)
    report["prompt_diff"] = prompt_diff(segment, subject, candidate)
    report |= incumbent_report(segment, candidate, arms, result, limits)
    report["timings"] = timings(started, time.monotonic() - began, report.pop("from_ledger", result.from_ledger))
    report["spread_calls"] = result.spread_calls
    report["note"] = report["note"] or _still_open(result, request)
    report["price_map"] = opened.prices.version
    row = run_row(report, arms.baseline, arms.candidate)
    database = write_store(opened.settings.home / "runs" / run_id, result, row)
    write_request(database.parent, request)
    alerts = {} if opened.log is None else publish(opened.log, segment, arms, result, limits)
    return ReplayDone(report, database, alerts, report["prompt_diff"])


def _still_open(result: ForcedResult, request: ReplayRequest) -> str:
    """What a run that ended undecided asked in its open strata, or might still ask; empty where nothing."""
    if result.spread_calls:
        return f"{result.spread_calls} of the calls were fresh answers, {CALLS_A_DECISION} a decision, in open strata"
    wanted = replace(request.limits, mmd=True)
    unasked = not result.spread_calls and request.limits.mmd is None
    if not result.open_strata or not unasked or spread_limits(wanted, request.candidate, request.incumbent) is None:
        return ""
    number = len(result.open_strata)
    strata = f"{number} strata are" if number > 1 else "1 stratum is"
    return f"{strata} still open; --mmd asks {CALLS_A_DECISION} further calls a decision there"


def _free_reading(request: ReplayRequest) -> Limits:
    """Recorded arms cost nothing: they are read one by one, and to the end of the segment for the interval."""
    free = all(call.arm.is_free for call in calls_of(request.candidate, request.incumbent))
    return replace(request.limits, concurrency=1, read_on=True) if free else request.limits


def _ask_all(opened: Opened, request: ReplayRequest, run_id: str, limits: Limits) -> ForcedResult:
    segment, subject, candidate = opened.segment, opened.subject, request.candidate
    with closing(Ledger(opened.settings.home / LEDGER)) as ledger, ledger.asking(run_id):
        if request.refresh:
            _retire(ledger, opened, request)
        room = partial(room_in_usd, candidate, opened.prices)
        spending = Spending(limits.usd_max, ledger.paid_usd(run_id), room)
        given = (run_id, segment, subject, candidate, EveryArm(limits), ledger, limits, now, spending)
        replay = ForcedReplay(*given, request.incumbent)
        began = time.monotonic()
        with progress_bar(f"replaying {segment.app}", replay.decisions_max) as show:
            return asyncio.run(replay.run(lambda at: show(at.read, note_of(at, time.monotonic() - began))))


def proposer_of(candidate: Candidate, limits: Limits) -> Proposer:
    """A recording is never in trouble, and what it does not hold no retry brings."""
    return LiteLLMProposer() if candidate.is_free else steady(LiteLLMProposer(), limits)


def _retire(ledger: Ledger, opened: Opened, request: ReplayRequest) -> None:
    subject, keys = opened.subject, []
    first = calls_of(request.candidate, request.incumbent)
    for logged in planned_decisions(opened.segment, request.limits, len(first)):
        for call in _every_call(request):
            asked = call.arm.request(logged.decision, subject, "plan", request.limits.order_seed, call.asking)
            key = call.arm.key(logged.decision, subject, asked, call.asking)
            rounds = rounds_of(logged.decision, subject, asked, key)
            rounds.carry(ledger.get)
            keys += rounds.keys
    ledger.retire(keys)


def timings(started: datetime, seconds: float, from_ledger: int) -> dict[str, Any]:
    """What differs between two runs of one command that are answered alike."""
    return {"started_at": format_time(started), "seconds": round(seconds, 3), "from_ledger": from_ledger}


def run_row(report: Mapping[str, Any], baseline: ArmRef, candidate: ArmRef) -> dict[str, Any]:
    """The run's row of its database."""
    scalars = {name: value for name, value in report.items() if not isinstance(value, (dict, list))}
    return {
        **scalars,
        "from_ledger": report["timings"]["from_ledger"],
        "baseline_prompt_hash": baseline.prompt_hash,
        "candidate_prompt_hash": candidate.prompt_hash,
        "verifier_version": candidate.verifier_version,
        "completed_at": format_time(now()),
        "report": report,
    }


def publish(
    log: Log, segment: Segment, arms: Arms, result: ForcedResult, limits: Limits, mode: str = "forced"
) -> dict[str, Coordinates]:
    """Put the run's alerts on `driftline.alerts`; where each lies, by kind."""
    alerts = alerts_of(segment, arms.baseline, arms.candidate, result, limits, now(), mode, arms.incumbent)
    return publish_all(log, result.run_id, alerts)
