"""One replay from the request to the alert: what `driftline replay` and the demo both run."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from driftline.console.common import Log, now, open_subject, open_subject_of_file, progress_bar
from driftline.consumers.models.litellm_proposer import LiteLLMProposer
from driftline.consumers.models.sources import source_version
from driftline.log import Coordinates, Settings, TransactionalWriter, load_settings
from driftline.replay.alerting import TRANSACTIONAL_ID_PREFIX, ReplayWriter, alerts_of, publish_alerts
from driftline.replay.arms import LOG_ARM, Candidate
from driftline.replay.harness import ForcedReplay, ForcedResult, Limits, Progress
from driftline.replay.ledger import Ledger
from driftline.replay.report import report_data
from driftline.replay.segment import Segment, Selection, load_segment
from driftline.replay.store import write_store
from driftline.replay.subject import Subject
from driftline.schemas import ArmRef, Decision, canonical_json, content_hash
from driftline.schemas.cloudevents import format_time

RUN_ID_DIGITS = 12


@dataclass(frozen=True)
class ReplayRequest:
    """What is to be replayed against what."""

    app: str
    candidate: Candidate
    selection: Selection = field(default_factory=Selection)
    limits: Limits = field(default_factory=Limits)
    verifier: str | None = None
    segment_file: Path | None = None


@dataclass(frozen=True)
class ReplayDone:
    """What came out, and where it lies."""

    report: Mapping[str, Any]
    database: Path
    alerts: Mapping[str, Coordinates]
    """Where each alert lies, by kind; empty where there was no Kafka."""


def run_replay(request: ReplayRequest) -> ReplayDone:
    """Load the segment, run the candidate over it, write the run's files and publish its alerts.

    Raises:
        UsageError: The request cannot be run as it stands.
        EnvironmentUnreachable: A broker or the registry does not answer.
    """
    settings = load_settings()
    subject, segment, log = _open(request)
    limits = _free_reading(request.limits, request.candidate)
    baseline, candidate = _arms(segment, subject, request.candidate)
    run_id = _run_id(request, segment, subject, baseline, candidate)
    result = _run(run_id, segment, subject, request.candidate, limits, settings)
    report = report_data(segment.app, baseline.model, candidate.model, result, limits)
    database = write_store(settings.home / "runs" / run_id, result, _run_row(report, baseline, candidate))
    alerts = {} if log is None else _publish(log, segment, baseline, candidate, result, limits)
    return ReplayDone(report, database, alerts)


def _open(request: ReplayRequest) -> tuple[Subject, Segment, Log | None]:
    if request.segment_file is not None:
        subject, segment = open_subject_of_file(
            request.segment_file, request.app, request.selection, request.verifier
        )
        return subject, segment, None
    subject, log = open_subject(request.app, request.verifier)
    with progress_bar("reading the segment", None):
        segment = load_segment(log.reader, log.codec, subject.name, request.selection)
    return subject, segment, log


def _free_reading(limits: Limits, candidate: Candidate) -> Limits:
    """A recorded arm costs nothing: it is read one by one, and to the end of the segment for the interval."""
    return replace(limits, concurrency=1, read_on=True) if candidate.is_free else limits


def _run(
    run_id: str, segment: Segment, subject: Subject, candidate: Candidate, limits: Limits, settings: Settings
) -> ForcedResult:
    proposer = LiteLLMProposer()
    proposer.check(candidate.request(segment.decisions[0].decision, subject, run_id, limits.order_seed))
    ledger = Ledger(settings.home / "ledger.sqlite")
    try:
        replay = ForcedReplay(run_id, segment, subject, candidate, proposer, ledger, limits, now)
        with progress_bar(f"replaying {segment.app}", len(segment.decisions)) as show:
            return asyncio.run(replay.run(lambda progress: show(progress.read, _note(progress))))
    finally:
        ledger.close()


def _note(progress: Progress) -> str:
    verdict = f", {progress.decision}" if progress.decision else ""
    return f"{progress.paid_calls} paid calls, e = {progress.e_value:.3g}{verdict}"


def _arms(segment: Segment, subject: Subject, candidate: Candidate) -> tuple[ArmRef, ArmRef]:
    """Both arms as alerts name them; what differs within the segment is named `log`."""
    decisions = [logged.decision for logged in segment.decisions]
    verifier = _one({subject.judge(decision).version for decision in decisions})
    model = _one({decision.model_requested for decision in decisions})
    prompt = _one({decision.prompt_hash for decision in decisions})
    tried = candidate.prompt.hash if candidate.prompt is not None else prompt
    return ArmRef(model=model, prompt_hash=prompt, verifier_version=verifier), ArmRef(
        model=candidate.model or model, prompt_hash=tried, verifier_version=verifier
    )


def _one(values: set[str]) -> str:
    return values.pop() if len(values) == 1 else LOG_ARM


def _run_id(request: ReplayRequest, segment: Segment, subject: Subject, baseline: ArmRef, candidate: ArmRef) -> str:
    """The same plan over the same decisions has the same id, so that the same command resumes its run."""
    limits = request.limits
    plan = {
        "app": segment.app,
        "decisions": content_hash("".join(_identity(logged.decision) for logged in segment.decisions)),
        "arms": [baseline.model_dump(), candidate.model_dump()],
        "rules": _rules(segment, subject),
        "source": source_version(candidate.model),
        "parameters": dict(request.candidate.parameters),
        "test": [limits.alpha, limits.delta, limits.min_effect, limits.order_seed, limits.calls_max, limits.locate],
    }
    return content_hash(canonical_json(plan))[:RUN_ID_DIGITS]


def _rules(segment: Segment, subject: Subject) -> list[list[str]]:
    """Every rule that judges the segment, and every prompt in it: one name for several would make runs collide."""
    decisions = [logged.decision for logged in segment.decisions]
    found = {(d.boundary, d.stream, subject.judge(d).version, d.prompt_hash) for d in decisions}
    return [list(rule) for rule in sorted(found)]


def _identity(decision: Decision) -> str:
    """What the replay takes from a decision: a topic made anew may hold others at the same coordinates."""
    return f"{decision.decision_id} {decision.context_hash} {content_hash(decision.attempts[0].model_dump_json())}\n"


def _run_row(report: Mapping[str, Any], baseline: ArmRef, candidate: ArmRef) -> dict[str, Any]:
    scalars = {name: value for name, value in report.items() if not isinstance(value, (dict, list))}
    return {
        **scalars,
        "baseline_prompt_hash": baseline.prompt_hash,
        "candidate_prompt_hash": candidate.prompt_hash,
        "verifier_version": candidate.verifier_version,
        "completed_at": format_time(now()),
    }


def _publish(
    log: Log, segment: Segment, baseline: ArmRef, candidate: ArmRef, result: ForcedResult, limits: Limits
) -> dict[str, Coordinates]:
    alerts = alerts_of(segment, baseline, candidate, result, limits, now())
    writer = TransactionalWriter(log.settings, f"{TRANSACTIONAL_ID_PREFIX}.{result.run_id}")
    try:
        placed = publish_alerts(ReplayWriter(writer), log.reader, log.codec, alerts)
    finally:
        writer.close()
    return {alert.kind: at for alert, at in zip(alerts, placed, strict=True)}
