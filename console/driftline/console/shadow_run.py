"""`driftline replay --mode shadow`: the candidate beside production, until the verdict is in."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Sequence
from contextlib import closing
from datetime import timedelta
from functools import partial
from typing import NoReturn

import typer

from driftline.console.common import Log, err, now, open_subject, out, progress_bar
from driftline.console.replay_arms import EveryArm, incumbent_report, named_arms
from driftline.console.replay_options import duration_of
from driftline.console.replay_progress import note_of
from driftline.console.replay_run import (
    LEDGER,
    ReplayDone,
    ReplayRequest,
    publish,
    run_row,
    timings,
)
from driftline.consumers.models.litellm_proposer import LiteLLMProposer
from driftline.consumers.proposing import CallKey, ProposalRequest
from driftline.log import Span, load_settings
from driftline.replay.arms import calls_of
from driftline.replay.following import DecisionTail
from driftline.replay.identity import prompt_diff, shadow_id_of
from driftline.replay.ledger import Ledger
from driftline.replay.plan import require_price, room_in_usd
from driftline.replay.pricing import PriceMap
from driftline.replay.report import EXIT_CODES, report_data, tried_data
from driftline.replay.result import ForcedResult
from driftline.replay.run_request import write_request
from driftline.replay.segment import Segment
from driftline.replay.shadow import ShadowReplay
from driftline.replay.spending import Spending
from driftline.replay.store import write_store
from driftline.replay.subject import AppSubject, Subject
from driftline.schemas import UsageError

EXIT_INTERRUPTED = 130


def shadow_and_exit(requests: Sequence[ReplayRequest], follow_for: str | None, as_json: bool) -> NoReturn:
    """Follow, ask, judge, print; exits with the verdict's code, 130 where Ctrl-C came before a verdict.

    Raises:
        UsageError: What was asked for makes no sense of a log that grows, or a price is unknown.
    """
    _refuse(requests)
    done = run_shadow(requests[0], None if follow_for is None else duration_of("--for", follow_for))
    if as_json:
        out.print_json(data=done.report)
    else:
        from driftline.console.replay_command import print_runs

        print_runs([done])
    interrupted = done.report["stopped_because"] == "interrupted"
    raise typer.Exit(EXIT_INTERRUPTED if interrupted else EXIT_CODES[done.report["verdict"]])


def run_shadow(request: ReplayRequest, follow_for: timedelta | None = None) -> ReplayDone:
    """Follow the app's decisions with one candidate; the run's files and alerts are those of any run.

    Raises:
        UsageError: The candidate cannot be asked, a price is unknown, or nothing came.
        EnvironmentUnreachable: A broker, the registry or the model does not answer.
    """
    started, began = now(), time.monotonic()
    subject, log = open_subject(request.app, request.verifier)
    tail = DecisionTail(log.settings, log.codec, subject.name, request.selection)
    begins = tail.open()
    try:
        replay, result = _follow(request, subject, log, tail, begins, follow_for)
    finally:
        tail.close()
    segment = Segment(subject.name, Span(f"{subject.name}.decisions"), replay.decisions)
    if not segment.decisions:
        raise UsageError(f"no decision of {subject.name} came", "follow for longer, or begin earlier with --from")
    arms = named_arms(segment, subject, request.candidate, request.incumbent)
    report = report_data(segment.app, arms.baseline.model, arms.candidate.model, result, request.limits)
    report["tried"] = tried_data(request.candidate, request.verifier, arms.candidate.verifier_version)
    report["prompt_diff"] = prompt_diff(segment, subject, request.candidate)
    report |= incumbent_report(segment, request.candidate, arms, result, request.limits)
    report |= {"mode": "shadow", "follows_from": {str(p): offset for p, offset in begins.items()}}
    report["passed_over"] = replay.passed_over
    report["timings"] = timings(started, time.monotonic() - began, report.pop("from_ledger", result.from_ledger))
    row = run_row(report, arms.baseline, arms.candidate)
    database = write_store(load_settings().home / "runs" / result.run_id, result, row)
    write_request(database.parent, request)
    alerts = publish(log, segment, arms, result, request.limits, "shadow")
    return ReplayDone(report, database, alerts, report["prompt_diff"])


def _follow(
    request: ReplayRequest,
    subject: Subject,
    log: Log,
    tail: DecisionTail,
    begins: dict[int, int],
    follow_for: timedelta | None,
) -> tuple[ShadowReplay, ForcedResult]:
    limits, candidate, prices = request.limits, request.candidate, PriceMap()
    for model in _models(request, subject):
        LiteLLMProposer().check(ProposalRequest(model, (), CallKey("", ""), candidate.parameters))
        require_price(prices.of(model), prices, limits, request.allow_unpriced)
    run_id = shadow_id_of(subject, candidate, limits, begins, request.incumbent)
    with closing(Ledger(log.settings.home / LEDGER)) as ledger, ledger.asking(run_id):
        room = partial(room_in_usd, candidate, prices)
        replay = ShadowReplay(
            run_id,
            subject.name,
            tail,
            subject,
            candidate,
            EveryArm(limits),
            ledger,
            limits,
            now,
            Spending(limits.usd_max, ledger.paid_usd(run_id), room),
            follow_s=None if follow_for is None else follow_for.total_seconds(),
            incumbent=request.incumbent,
        )
        return replay, asyncio.run(_until_stopped(replay))


def _models(request: ReplayRequest, subject: Subject) -> set[str]:
    """Who will be asked: where an arm keeps the log's model, that of the app's code."""
    named = [call.arm.model for call in calls_of(request.candidate, request.incumbent)]
    known = {model for model in named if model is not None}
    if None not in named:
        return known
    if isinstance(subject, AppSubject):
        return known | {boundary.proposer for boundary in subject.app.boundaries}
    raise UsageError("nobody knows yet whose model is asked", "name it with --candidate, and with --incumbent")


async def _until_stopped(replay: ShadowReplay) -> ForcedResult:
    """The first Ctrl-C ends it with the verdict so far; a second one interrupts as ever."""
    loop, began = asyncio.get_running_loop(), time.monotonic()

    def end() -> None:
        loop.remove_signal_handler(signal.SIGINT)
        err.print("ending: calls in flight come to their end; Ctrl-C again to leave at once")
        replay.stop()

    loop.add_signal_handler(signal.SIGINT, end)
    try:
        with progress_bar("following", None) as show:
            return await replay.run(lambda at: show(at.read, note_of(at, time.monotonic() - began)))
    finally:
        loop.remove_signal_handler(signal.SIGINT)


def _refuse(requests: Sequence[ReplayRequest]) -> None:
    request = requests[0]
    wrong = {
        "several candidates": len(requests) > 1,
        "a segment file": request.segment_file is not None,
        "--sample": request.selection.sample is not None,
        "--estimate": request.limits.read_on,
        "--refresh": request.refresh,
        "--mmd": bool(request.limits.mmd),
        "a recording": any(call.arm.is_free for call in calls_of(request.candidate, request.incumbent)),
    }
    for what, given in wrong.items():
        if given:
            raise UsageError(f"shadow follows a log that grows, with {what} it cannot", "use --mode forced")
