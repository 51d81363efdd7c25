"""Recorded outputs from anywhere: two runs in one file are compared as a replay compares the log and a candidate."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from driftline.consumers.models.answers import CallFailed, ProviderCall
from driftline.consumers.models.recorded import answer_recorded
from driftline.consumers.proposing import Answer, ProposalRequest
from driftline.consumers.verifier_spec import SpecJudge
from driftline.replay.arms import Candidate
from driftline.replay.floor import floor_data, floor_events
from driftline.replay.harness import ForcedReplay
from driftline.replay.ledger import Ledger
from driftline.replay.plain import plain
from driftline.replay.recordings import RecordedRun, recorded_run, recorded_segments
from driftline.replay.report import report_data
from driftline.replay.result import ForcedResult, Limits
from driftline.replay.segment import Segment
from driftline.replay.subject import RecordedSubject
from driftline.replay.wording import interval_text, signed_text
from driftline.schemas import Contracts, UsageError, canonical_json, content_hash

IN_MEMORY = Path(":memory:")
"""SQLite's name for a database that leaves nothing behind: recorded answers were paid for by others."""
RUN_ID_DIGITS = 12
NAMES = (
    *("verdict", "alpha", "delta", "events", "paid_calls", "overspent_calls", "cost_usd", "stopped_because"),
    *("levels", "strata", "noise_floor", "attribution", "migration"),
)
"""What `comparison_data` keeps of a report."""
LEVEL_NAMES = (
    *("mismatch", "baseline_rate", "candidate_rate", "change", "interval_at_stop", "interval"),
    *("flips_down", "flips_up", "e_value"),
)
STRATUM_NAMES = ("stream", "level", "e_value", "named", "change", "interval")


@dataclass(frozen=True)
class Comparing:
    """What is to be compared. A run is named `MODEL[@REPLICATE]`, a floor `MODEL@1,2,3`.

    Attributes:
        file: The recording.
        baseline: Arm L.
        candidate: Arm B.
        spec: Judges both.
        incumbent: Arm A', the baseline's model again; None for none.
        floor: Runs of one model that give the noise floor; None takes L and A', or none.
        limits: Of the test; what a recording holds is read one by one and to its end, whatever they say.
    """

    file: Path
    baseline: str
    candidate: str
    spec: SpecJudge
    incumbent: str | None = None
    floor: str | None = None
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True)
class Comparison:
    """What came out: the report of a replay, and the result that it was made of."""

    report: Mapping[str, Any]
    result: ForcedResult


@dataclass(frozen=True)
class _Arms:
    baseline: RecordedRun
    candidate: RecordedRun
    incumbent: RecordedRun | None
    floor: Sequence[RecordedRun]


class RecordedAnswering:
    """A proposer that answers `recorded/…` and nothing else, without LiteLLM."""

    async def propose(self, request: ProposalRequest) -> Answer:
        """As `Proposer.propose`."""
        name = request.model.removeprefix("recorded/")
        call = ProviderCall(name, tuple(request.messages), request.key, request.parameters, request.timeout_s)
        try:
            own = await answer_recorded(call)
        except CallFailed as failed:
            return Answer(None, failed.failure, failed.detail)
        return Answer(
            text=own.text,
            model_reported=own.model_reported,
            facts=own.facts,
            usage=own.usage,
            cost_usd=own.cost_usd,
            latency_ms=own.latency_ms,
        )


def compare_recordings(request: Comparing) -> Comparison:
    """Compare two recorded runs, event by event. No broker, no call and no file is needed but the recording.

    The verdict is of L against B. With an incumbent, L against A' and A' against B are tested each on its own, and
    stand under `attribution`: the first speaks of environment, harness or provider, the second of the change.

    Raises:
        BadInput: The recording or its spec cannot be read; names file and line.
        UsageError: The recording holds no such run, or the candidate's is part of the floor.
    """
    arms = _arms(request)
    runs = {run for run in (arms.baseline, arms.incumbent, *arms.floor) if run is not None}
    segments = recorded_segments(request.file, sorted(runs, key=str), request.spec)
    subject = RecordedSubject(request.file.name, request.spec, Contracts.load())
    result = _replay(request, subject, segments[arms.baseline], arms.candidate)
    report = report_data(request.file.name, str(arms.baseline), str(arms.candidate), result, request.limits)
    report["verifier_drift"] = 0  # a recording holds no verdict of then
    report["noise_floor"] = plain(_noise_floor(request, arms, segments, subject, result))
    report["attribution"] = plain(_attribution(request, arms, segments, subject))
    if report["noise_floor"] is not None and report["verdict"] == "equivalent":
        report["note"] = _beyond_the_floor(report["noise_floor"])
    return Comparison(report, result)


def comparison_data(report: Mapping[str, Any]) -> dict[str, Any]:
    """A report under the names that scripts read, and no other."""
    data = {name: report[name] for name in NAMES}
    data["levels"] = {name: level and _only(LEVEL_NAMES, level) for name, level in report["levels"].items()}
    data["strata"] = [_only(STRATUM_NAMES, stratum) for stratum in report["strata"]]
    return data


def _only(names: Sequence[str], values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: values[name] for name in names}


def _arms(request: Comparing) -> _Arms:
    path = request.file
    arms = _Arms(
        baseline=recorded_run(path, request.baseline),
        candidate=recorded_run(path, request.candidate),
        incumbent=None if request.incumbent is None else recorded_run(path, request.incumbent),
        floor=() if request.floor is None else _floor_runs(path, request.floor),
    )
    if arms.candidate in arms.floor:
        mend = "leave it out of --floor: the floor is what other runs of one model differ by"
        raise UsageError(f"the candidate {arms.candidate} is itself part of the noise floor", mend)
    return arms


def _floor_runs(path: Path, text: str) -> list[RecordedRun]:
    model, _, replicates = text.rpartition("@")
    numbers = list(dict.fromkeys(replicates.split(",")))
    if not model or len(numbers) < 2 or not all(number.isdecimal() for number in numbers):
        raise UsageError(f"--floor {text!r} names no two runs of a model", "for example --floor openai/gpt-4o@1,2,3")
    return [recorded_run(path, f"{model}@{number}") for number in numbers]


def _replay(request: Comparing, subject: RecordedSubject, segment: Segment, candidate: RecordedRun) -> ForcedResult:
    limits = replace(request.limits, concurrency=1, read_on=True)
    ledger = Ledger(IN_MEMORY)
    try:
        replay = ForcedReplay(
            _run_id(request, candidate),
            segment,
            subject,
            Candidate(candidate.source(request.file)),
            RecordedAnswering(),
            ledger,
            limits,
            lambda: datetime.now(UTC),
        )
        return asyncio.run(replay.run())
    finally:
        ledger.close()


def _run_id(request: Comparing, candidate: RecordedRun) -> str:
    named = [str(request.file), request.baseline, str(candidate), request.spec.version]
    return content_hash(canonical_json(named))[:RUN_ID_DIGITS]


def _noise_floor(
    request: Comparing,
    arms: _Arms,
    segments: Mapping[RecordedRun, Segment],
    subject: RecordedSubject,
    result: ForcedResult,
) -> dict[str, Any] | None:
    runs = arms.floor or ([arms.baseline, arms.incumbent] if arms.incumbent else [])
    if not runs:
        return None
    source = "replicates" if arms.floor else "incumbent"
    found = floor_events([segments[run] for run in runs], subject)
    levels = [level.level for level in result.judged.levels]
    return floor_data(source, [str(run) for run in runs], found, result.pairs, levels, request.limits.alpha)


def _beyond_the_floor(floor: Mapping[str, Any]) -> str:
    """What an equivalence of net rates leaves open, and what the noise floor says of it."""
    verdict = floor["levels"]["verdict"]
    if verdict["excess"] is None:
        return "net rate equivalent; no decision has both a candidate's answer and a noise floor"
    excess, interval = signed_text(verdict["excess"]), interval_text(verdict["excess_interval"])
    return f"net rate equivalent; verdicts differ {excess} more often than runs of one model do, interval {interval}"


def _attribution(
    request: Comparing, arms: _Arms, segments: Mapping[RecordedRun, Segment], subject: RecordedSubject
) -> dict[str, Any] | None:
    if arms.incumbent is None:
        return None
    environment = _replay(request, subject, segments[arms.baseline], arms.incumbent)
    change = _replay(request, subject, segments[arms.incumbent], arms.candidate)
    return {
        "environment": _contrast(arms.baseline, arms.incumbent, environment),
        "candidate": _contrast(arms.incumbent, arms.candidate, change),
    }


def _contrast(before: RecordedRun, after: RecordedRun, result: ForcedResult) -> dict[str, Any]:
    verdict = next(level for level in result.judged.levels if level.level == "verdict")
    return {
        "arms": [str(before), str(after)],
        "verdict": result.verdict,
        "stopped_because": result.stopped_because,
        "e_value": result.judged.e_value,
        "paid_calls": result.paid_calls,
        "change": verdict.change,
        "interval": verdict.interval,
    }
