"""Repeated answers to the same events, out of a stored run or a recording, for the reliability decomposition."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from driftline.consumers.models.recorded import RecordedAnswers
from driftline.consumers.prompt import Prompt
from driftline.consumers.verifier_spec import SpecJudge
from driftline.detectors import Decomposition, RepeatedEvent, decompose
from driftline.log import Coordinates
from driftline.replay.arms import judge_logged
from driftline.replay.plain import plain
from driftline.replay.recordings import RecordedRun, recorded_segments
from driftline.replay.run_request import RunArm, RunRequest, read_request
from driftline.replay.segment import LoggedDecision, log_order
from driftline.replay.store import query
from driftline.replay.subject import RecordedSubject
from driftline.replay.wording import candidate_text
from driftline.schemas import BadInput, Contracts, UsageError, canonical_json
from driftline.schemas.cloudevents import format_time

MISSING = math.nan
"""A run that has no outcome for an event."""
RUNS_MIN = 2
"""One answer to an event says nothing of its variance."""
HASH_DIGITS = 12
"""Of a prompt on the log, as a command names it."""

_FLOOR_COLUMNS = "SELECT column_name FROM duckdb_columns() WHERE table_name = 'floor'"
_RUNS = "SELECT count(DISTINCT replicate) FROM floor"
_REPEATED = """
SELECT pairs.decision_id, boundary || '/' || stream AS stratum, workflow, coordinates, event_time,
    CASE WHEN pairs.lost THEN NULL ELSE candidate_verdict END AS candidate,
    answered.replicate, answered.verdict, answered.lost
FROM pairs JOIN (SELECT decision_id, replicate, verdict, lost FROM floor) AS answered USING (decision_id)
"""


@dataclass(frozen=True)
class Repeated:
    """Events that the incumbent answered several times, in log order.

    Attributes:
        source: File or run.
        model: The incumbent's.
        runs: Names of its runs.
        candidate: Names of the candidate's runs; empty without one.
        events: One an event, with a verdict a run.
    """

    source: str
    model: str
    runs: Sequence[str]
    candidate: Sequence[str]
    events: Sequence[RepeatedEvent] = field(repr=False)


def repeated_in_run(database: Path, report: Mapping[str, Any]) -> Repeated:
    """What a stored run knows: the incumbent's runs of its noise floor, and the candidate's one answer.

    Not guaranteed: that the decisions of a run which stopped early lie side by side on the log; they are whole
    workflows drawn at random, in log order.

    Raises:
        UsageError: The run has not asked the incumbent twice; says how one does.
        BadInput: No such database.
    """
    runs = _runs_in(database)
    if runs < RUNS_MIN:
        raise UsageError(
            f"run {report['run_id']} did not ask the incumbent more than once",
            f"{_repeating(database.parent, report)} makes one that does",
        )
    found: dict[str, _Stored] = {}
    for decision_id, stratum, workflow, at, time, candidate, replicate, verdict, lost in query(database, _REPEATED)[
        1
    ]:
        fresh = _Stored(stratum, workflow, at, time, candidate, [MISSING] * runs)
        stored = found.setdefault(decision_id, fresh)
        stored.verdicts[replicate] = MISSING if lost else _passed(verdict)
    ordered = sorted(found.values(), key=lambda stored: (stored.event_time, Coordinates.parse(stored.coordinates)))
    arms = (report.get("noise_floor") or {}).get("arms") or []
    names = arms if len(arms) == runs else [f"{report['baseline']}@{number}" for number in range(runs)]
    events = [stored.event() for stored in ordered]
    model = (report.get("incumbent") or {}).get("model") or report["baseline"]
    return Repeated(f"run {report['run_id']}", model, names, [candidate_text(report)], events)


@dataclass(frozen=True, slots=True)
class _Stored:
    stratum: str
    workflow: str
    coordinates: str
    event_time: datetime
    candidate: str | None
    verdicts: list[float]

    def event(self) -> RepeatedEvent:
        tried = () if self.candidate is None else (_passed(self.candidate),)
        return RepeatedEvent(self.stratum, self.workflow, tuple(self.verdicts), tried)


def repeated_in_recording(path: Path, model: str, spec: SpecJudge, candidate: str | None = None) -> Repeated:
    """What a recording knows: every run of a model, judged by a spec; in the order of the first run's events.

    Args:
        path: The recording.
        model: The incumbent's; all of its runs but those named as the candidate are taken.
        spec: Judges all.
        candidate: `MODEL[@REPLICATE]`; without a replicate all runs of that model.

    Raises:
        BadInput: The recording cannot be read, or a line of it is malformed.
        UsageError: It holds no such model or run, or fewer than two runs of the incumbent.
    """
    tried = [] if candidate is None else _runs_of(path, candidate)
    runs = [run for run in _runs_of(path, model) if run not in tried]
    if len(runs) < RUNS_MIN:
        held = ", ".join(map(str, runs)) or "none"
        raise UsageError(
            f"{path} holds fewer than {RUNS_MIN} runs of {model} beside the candidate ({held})",
            "give --model another one, or a recording with `replicate` numbers",
        )
    segments = recorded_segments(path, [*runs, *tried], spec)
    subject = RecordedSubject(path.name, spec, Contracts.load())
    verdicts: dict[str, dict[RecordedRun, float]] = {}
    first: dict[str, LoggedDecision] = {}
    for run, segment in segments.items():
        for logged in segment.decisions:
            judged = judge_logged(logged, subject)
            passed = MISSING if judged.lost else float(judged.judgement.accepted)
            verdicts.setdefault(logged.decision.decision_id, {})[run] = passed
            first.setdefault(logged.decision.decision_id, logged)
    events = []
    for decision_id in sorted(verdicts, key=lambda name: log_order(first[name])):
        decision, answered = first[decision_id].decision, verdicts[decision_id]
        baseline = tuple(answered.get(run, MISSING) for run in runs)
        after = tuple(answered[run] for run in tried if not math.isnan(answered.get(run, MISSING)))
        events.append(RepeatedEvent(decision.stream, decision.workflow, baseline, after))
    return Repeated(path.name, runs[0].model, list(map(str, runs)), list(map(str, tried)), events)


def reliability_data(repeated: Repeated, alpha: float = 0.05) -> dict[str, Any]:
    """The decomposition as JSON data; an infinite t* is null and said so in `note`.

    Raises:
        UsageError: `alpha` is no probability.
    """
    if not 0.0 < alpha < 1.0:
        raise UsageError("alpha lies between 0 and 1", "for example --alpha 0.05")
    found = decompose(repeated.events, alpha)
    data: dict[str, Any] = plain(
        {
            "source": repeated.source,
            "model": repeated.model,
            "runs": repeated.runs,
            "candidate": repeated.candidate,
            "alpha": alpha,
            "pooled": _data(found.pooled),
            "streams": {stream: _data(part) for stream, part in found.streams.items()},
        }
    )
    return data


def _data(part: Decomposition) -> dict[str, Any]:
    """With `disagreement`: the share of pairs of runs that differ, twice sigma2 where verdicts are binary."""
    return {**asdict(part), "disagreement": None if part.sigma2 is None else 2 * part.sigma2}


def _runs_in(database: Path) -> int:
    """Runs of the incumbent that a run's database holds; 0 where it has no table of them."""
    if not query(database, _FLOOR_COLUMNS)[1]:
        return 0
    ((runs,),) = query(database, _RUNS)[1]
    return int(runs)


def _repeating(folder: Path, report: Mapping[str, Any]) -> str:
    """The command that tries the run's candidate again, with repeats; as far as the run says what it was asked."""
    try:
        asked = read_request(folder)
    except (UsageError, BadInput):
        return f"`driftline replay` as it was called, with `--floor 3` added, for {candidate_text(report)},"
    text, known = _candidate_option(asked.candidate)
    options = ["--app", asked.app, "--candidate", text, *_options(asked), "--floor", "3"]
    where = "" if known else f", with the file of {candidate_text(report)} for FILE,"
    return f"`{shlex.join(['driftline', 'replay', *options])}`{where}"


def _candidate_option(arm: RunArm) -> tuple[str, bool]:
    """The candidate as `--candidate` takes it, and whether that names its prompt: no path of a file is kept."""
    parts, known = [arm.model or "log"], True
    if arm.prompt is not None:
        # A prompt that the log holds has the path of its artifact, app and boundary; one of a file its bare name.
        known = "/" in arm.prompt.name
        hash_ = Prompt(arm.prompt.text, arm.prompt.name).hash
        parts.append(f"prompt={hash_[:HASH_DIGITS] if known else 'FILE'}")
    parts += [f"{name}={canonical_json(value)}" for name, value in arm.parameters.items()]
    return ",".join(parts), known


def _options(asked: RunRequest) -> list[str]:
    """What else a run was asked, of the options that it keeps."""
    given = {
        "--verifier": asked.verifier,
        "--incumbent": asked.incumbent.model,
        "--segment": asked.segment_file,
        "--from": asked.start and format_time(asked.start),
        "--to": asked.stop and format_time(asked.stop),
    }
    offsets = [f"--offsets={partition}:{first}-{stop}" for partition, (first, stop) in (asked.offsets or {}).items()]
    return [*(text for name, one in given.items() if one for text in (name, str(one))), *offsets]


def _runs_of(path: Path, name: str) -> list[RecordedRun]:
    answers = RecordedAnswers.load(path)
    model, pinned = answers.resolve(name)
    return [RecordedRun(model, number) for number in answers.replicates[model] if pinned in (None, number)]


def _passed(verdict: str) -> float:
    return float(verdict == "accepted")
