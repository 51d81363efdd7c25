"""A file of recorded decisions as history: one run of one model becomes a segment, with no broker and no import."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from driftline.consumers.models.recorded import RecordedAnswers, split_recorded
from driftline.consumers.models.sources import RECORDED
from driftline.consumers.prompt import RecordedMessages
from driftline.consumers.verifier_spec import SpecJudge
from driftline.log import Coordinates, Span
from driftline.replay.arms import Candidate, Incumbent
from driftline.replay.segment import LoggedDecision, Segment, build_segment
from driftline.replay.subject import RECORDED_BOUNDARY
from driftline.schemas import (
    Attempt,
    BadInput,
    Decision,
    InputCoordinates,
    NotCanonical,
    Usage,
    UsageError,
    Verdict,
    canonical_json,
    content_hash,
)
from driftline.schemas.fields import escape_surrogates
from driftline.schemas.recorded import RecordedLine, read_recorded


@dataclass(frozen=True, slots=True)
class RecordedRun:
    """One run of one model in a recording."""

    model: str
    replicate: int

    def __str__(self) -> str:
        """`MODEL@REPLICATE`."""
        return f"{self.model}@{self.replicate}"

    def source(self, path: Path) -> str:
        """The model string under which a candidate answers with it."""
        return f"recorded/{path}#{self}"


def recorded_run(path: Path, name: str) -> RecordedRun:
    """The run that `MODEL[@REPLICATE]` names; without a replicate the model's lowest.

    Raises:
        BadInput: No such file, a malformed line, or one answer given twice.
        UsageError: The recording holds no such model or replicate; says what it holds.
    """
    answers = RecordedAnswers.load(path)
    model, pinned = answers.resolve(name)
    return RecordedRun(model, answers.replicates[model][0] if pinned is None else pinned)


def require_distinct_runs(candidate: Candidate, incumbent: Incumbent | None) -> None:
    """Refuse recorded runs of the incumbent that are the candidate's, or that the recording does not hold.

    A run that is held against itself agrees with itself, and a floor of it says that nothing is noise.

    Raises:
        BadInput: No such file, or a malformed line.
        UsageError: A run of the incumbent is the candidate's, or there are fewer than are to be asked.
    """
    if incumbent is None or incumbent.arm.model is None or not incumbent.arm.is_free:
        return
    path, held = _held_runs(incumbent.arm.model)
    beside = held[: incumbent.runs]
    if len(beside) < incumbent.runs:
        names = ", ".join(map(str, held))
        raise UsageError(
            f"{path} holds {len(held)} run{'s' * (len(held) > 1)} of the incumbent ({names}), and --floor asks for "
            f"{incumbent.runs}",
            f"give --floor {len(held)}, or a model without @REPLICATE",
        )
    if candidate.model is not None and candidate.is_free:
        tried_in, tried = _held_runs(candidate.model)
        if tried_in.resolve() == path.resolve() and tried[0] in beside:
            mend = "give --candidate a run beyond those, MODEL@REPLICATE: the floor is what other runs differ by"
            raise UsageError(f"the candidate {tried[0]} is itself a run of the incumbent", mend)


def is_logged_run(segment: Segment, incumbent: Incumbent | None) -> bool:
    """Whether the incumbent's first run is a recorded one that the log was imported from: the log once more.

    Raises:
        BadInput: No such file, or a malformed line.
        UsageError: The recording holds no such run.
    """
    if incumbent is None or incumbent.arm.model is None or not incumbent.arm.is_free:
        return False
    path, (run, *_) = _held_runs(incumbent.arm.model)
    answers = RecordedAnswers.load(path)
    for logged in segment.decisions:
        row = answers.get(logged.decision.workflow, str(run))
        if row is None or escape_surrogates(row.text) != logged.decision.attempts[0].raw_response:
            return False
    return True


def _held_runs(model: str) -> tuple[Path, list[RecordedRun]]:
    """File of `recorded/<path>#<model>[@replicate]`, and its runs in the order in which they are asked."""
    path, name = split_recorded(model.removeprefix(RECORDED))
    answers = RecordedAnswers.load(path)
    held, pinned = answers.resolve(name)
    numbers = answers.replicates[held] if pinned is None else [pinned]
    return path, [RecordedRun(held, number) for number in numbers]


def recorded_segments(path: Path, runs: Iterable[RecordedRun], spec: SpecJudge) -> Mapping[RecordedRun, Segment]:
    """The segment of each run, out of one reading of the file. Coordinates are `FILE[0]@LINE`, lines from 1.

    Raises:
        BadInput: A line is malformed, or holds what canonical JSON refuses; names file and line.
    """
    found: dict[RecordedRun, list[LoggedDecision]] = {run: [] for run in runs}
    for number, line in read_recorded(path):
        decisions = found.get(RecordedRun(line.model, line.replicate))
        if decisions is not None:
            at = Coordinates(path.name, 0, number)
            decisions.append(LoggedDecision(at, _decision(f"{path}:{number}", at, line, spec)))
    span = Span(path.name)
    return {run: build_segment(path.name, span, decisions) for run, decisions in found.items()}


def _decision(where: str, at: Coordinates, line: RecordedLine, spec: SpecJudge) -> Decision:
    """The decision that an import of the line would log, but for its verdict: a replay judges anew."""
    try:
        context = canonical_json({"messages": list(line.messages), "reference": line.reference})
        parameters = canonical_json(dict(line.params))
    except NotCanonical as error:
        raise BadInput(f"{where}: {error.message}", "write the number or text in another form") from error
    given = InputCoordinates(
        topic=at.topic, partition=0, offset=at.offset, event_id=line.event_id, event_time=line.time
    )
    return Decision(
        decision_id=f"{line.set}/{line.event_id}",
        app=at.topic,
        boundary=RECORDED_BOUNDARY,
        stream=line.stream,
        workflow=line.event_id,
        input=given,
        context=context,
        context_hash=content_hash(context),
        prompt_hash=RecordedMessages.hash,
        model_requested=line.model,
        parameters=parameters,
        attempts=(_attempt(line),),
        verdict=Verdict.ACCEPTED.value,
        verifier_version=spec.version,
        decided_at=line.time,
    )


def _attempt(line: RecordedLine) -> Attempt:
    return Attempt(
        number=1,
        model_reported=line.model,
        raw_response=escape_surrogates(line.response),
        facts=canonical_json({"reference": line.reference}),
        usage=Usage(completion_tokens=line.completion_tokens),
        cost_usd=line.cost_usd,
        latency_ms=line.latency_ms,
    )
