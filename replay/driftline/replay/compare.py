"""Recorded outputs from anywhere: two runs in one file are compared as a replay compares the log and a candidate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from driftline.consumers.verifier_spec import SpecJudge
from driftline.replay.attribution import attribute, attribution_data
from driftline.replay.floor import floor_data, floor_event
from driftline.replay.plain import plain
from driftline.replay.recorded_arms import RecordedArms, compare_runs
from driftline.replay.recordings import RecordedRun, recorded_run, recorded_segments
from driftline.replay.report import report_data
from driftline.replay.result import ForcedResult, Limits
from driftline.replay.subject import RecordedSubject
from driftline.schemas import Contracts, Decision, UsageError, canonical_json, content_hash

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
        floor: Runs of one model that give the noise floor; None takes A' beside L, or none.
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
class _Runs:
    baseline: RecordedRun
    candidate: RecordedRun
    incumbent: RecordedRun | None
    floor: tuple[RecordedRun, ...]

    @property
    def beside(self) -> tuple[RecordedRun, ...]:
        """The runs that the candidate is held against beside L: those that were named as the floor, else A'.

        None where one run is two of the arms: a run that is held against itself tells nothing.
        """
        if self.floor or self.incumbent is None:
            return self.floor
        distinct = len({self.baseline, self.incumbent, self.candidate}) == len("LAB")
        return (self.incumbent,) if distinct else ()

    @property
    def noise(self) -> tuple[RecordedRun, ...]:
        """The runs that are the noise floor: where A' is alone beside L, these two, runs of one model as well."""
        return (self.baseline, *self.beside) if len(self.beside) == 1 else self.beside

    @property
    def all(self) -> set[RecordedRun]:
        """Every run that is read."""
        return {self.baseline, self.candidate, *self.noise} | ({self.incumbent} if self.incumbent else set())


def compare_recordings(request: Comparing) -> Comparison:
    """Compare two recorded runs, event by event. No broker, no call and no file is needed but the recording.

    The verdict is of L against B. The noise floor takes part in it: the runs that are named as such; else A', from
    which L and B are to differ equally often. With an incumbent, L against A' and A' against B are tested each on its
    own, and give the cause: the first speaks of environment, harness or provider, the second of the change.

    Raises:
        BadInput: The recording or its spec cannot be read; names file and line.
        UsageError: The recording holds no such run, the candidate's is part of the floor, or the floor is of another
            model.
    """
    runs = _runs(request)
    segments = recorded_segments(request.file, sorted(runs.all, key=str), request.spec)
    subject = RecordedSubject(request.file.name, request.spec, Contracts.load())
    arms = RecordedArms(segments, subject)
    result = _tested(request, arms, runs.baseline, runs.candidate, runs.beside)
    report = report_data(request.file.name, str(runs.baseline), str(runs.candidate), result, request.limits)
    report["noise_floor"] = plain(_noise_floor(request, arms, runs, result))
    report["attribution"] = plain(_attribution(request, arms, runs, result))
    return Comparison(report, result)


def comparison_data(report: Mapping[str, Any]) -> dict[str, Any]:
    """A report under the names that scripts read, and no other."""
    data = {name: report[name] for name in NAMES}
    data["levels"] = {name: level and _only(LEVEL_NAMES, level) for name, level in report["levels"].items()}
    data["strata"] = [_only(STRATUM_NAMES, stratum) for stratum in report["strata"]]
    return data


def _only(names: Sequence[str], values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: values[name] for name in names}


def _runs(request: Comparing) -> _Runs:
    path = request.file
    runs = _Runs(
        baseline=recorded_run(path, request.baseline),
        candidate=recorded_run(path, request.candidate),
        incumbent=None if request.incumbent is None else recorded_run(path, request.incumbent),
        floor=() if request.floor is None else tuple(_floor_runs(path, request.floor)),
    )
    if runs.candidate in runs.floor:
        mend = "leave it out of --floor: the floor is what other runs of one model differ by"
        raise UsageError(f"the candidate {runs.candidate} is itself part of the noise floor", mend)
    known = {run.model for run in (runs.baseline, runs.incumbent) if run is not None}
    if not {run.model for run in runs.floor} <= known:
        mend = f"name runs of {runs.baseline.model}: the floor is what the incumbent differs by from itself"
        raise UsageError(f"--floor {request.floor!r} is of another model than the baseline", mend)
    return runs


def _floor_runs(path: Path, text: str) -> list[RecordedRun]:
    model, _, replicates = text.rpartition("@")
    numbers = list(dict.fromkeys(replicates.split(",")))
    if not model or len(numbers) < 2 or not all(number.isdecimal() for number in numbers):
        raise UsageError(f"--floor {text!r} names no two runs of a model", "for example --floor openai/gpt-4o@1,2,3")
    return [recorded_run(path, f"{model}@{number}") for number in numbers]


def _tested(
    request: Comparing,
    arms: RecordedArms,
    before: RecordedRun,
    after: RecordedRun,
    floor: Sequence[RecordedRun] = (),
) -> ForcedResult:
    named = [str(request.file), str(before), str(after), request.spec.version]
    run_id = content_hash(canonical_json(named))[:RUN_ID_DIGITS]
    return compare_runs(arms, before, after, request.limits, floor, run_id)


def _noise_floor(request: Comparing, arms: RecordedArms, runs: _Runs, result: ForcedResult) -> dict[str, Any] | None:
    if not runs.noise:
        return None
    found = {}
    for event_id, logged in {id_: one for run in runs.noise for id_, one in arms.logged(run).items()}.items():
        judged = arms.floor(runs.noise, event_id)
        if len(judged) > 1:
            found[event_id] = floor_event(logged.decision.stream, judged)
    source, names = "replicates" if runs.floor else "incumbent", [str(run) for run in runs.noise]
    return floor_data(source, names, found, result.pairs, result.judged.levels, request.limits.alpha)


def _attribution(request: Comparing, arms: RecordedArms, runs: _Runs, result: ForcedResult) -> dict[str, Any]:
    """The two contrasts, each a test of its own. Only runs that are named as the floor are one for the candidate."""
    caused = partial(
        attribute,
        verdict=result.verdict,
        drifted=0,
        compared=len(result.pairs),
        note=result.judged.note,
        stopped_because=result.stopped_because,
    )
    incumbent = runs.incumbent
    if incumbent is None:
        return attribution_data(caused(environment=None, change=None, changed=()))
    environment = _tested(request, arms, runs.baseline, incumbent)
    change = _tested(request, arms, incumbent, runs.candidate, runs.floor)
    changed = _changes(arms, incumbent, runs.candidate)
    return attribution_data(
        caused(environment=environment.verdict, change=change.verdict, changed=changed),
        environment=_contrast(runs.baseline, incumbent, environment),
        candidate=_contrast(incumbent, runs.candidate, change),
    )


def _changes(arms: RecordedArms, before: RecordedRun, after: RecordedRun) -> list[str]:
    """What differs between two runs in some event that both answered, of `model`, `prompt` and `parameters`.

    A system message that only one of two models was given is that model's way of being asked, and no other prompt:
    one is held to the form of an answer by a schema, the other by an instruction.
    """
    same_model = before.model == after.model
    found = arms.logged(before), arms.logged(after)
    pairs = [(found[0][event_id].decision, found[1][event_id].decision) for event_id in found[0].keys() & found[1]]
    changed = {
        "model": not same_model,
        "prompt": any(_asked_otherwise(one, other, same_model) for one, other in pairs),
        "parameters": any(one.parameters != other.parameters for one, other in pairs),
    }
    return [name for name, is_changed in changed.items() if is_changed]


def _asked_otherwise(one: Decision, other: Decision, same_model: bool) -> bool:
    before, after = (decision.context_value()["messages"] for decision in (one, other))
    if not same_model and _instructs(before) != _instructs(after):
        before, after = ([message for message in chat if not _is_system(message)] for chat in (before, after))
    return bool(before != after)


def _instructs(messages: Sequence[Mapping[str, Any]]) -> bool:
    return any(map(_is_system, messages))


def _is_system(message: Mapping[str, Any]) -> bool:
    return message.get("role") in {"system", "developer"}


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
