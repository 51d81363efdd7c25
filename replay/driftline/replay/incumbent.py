"""What the incumbent of today adds to a run's report: the noise floor, and what the cause is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from driftline.consumers.models.sources import is_recorded
from driftline.replay.arms import Candidate, Incumbent
from driftline.replay.attribution import attribute, attribution_data
from driftline.replay.floor import FloorEvent, floor_data, floor_event
from driftline.replay.levels import VERDICT
from driftline.replay.plain import plain
from driftline.replay.recordings import is_logged_run
from driftline.replay.result import Contrast, ForcedResult, Pair
from driftline.replay.segment import LoggedDecision, Segment
from driftline.schemas import ArmRef


def incumbent_parts(
    segment: Segment,
    candidate: Candidate,
    arms: tuple[ArmRef, ArmRef, ArmRef],
    result: ForcedResult,
    alpha: float,
) -> dict[str, Any]:
    """`attribution` and `noise_floor` of a run's report, plain JSON data.

    Args:
        segment: The decisions.
        candidate: What was tried.
        arms: The log, the incumbent of today, the candidate.
        result: What came out of the run.
        alpha: Of the floor's intervals.
    """
    names = [arm.model for arm in arms]
    return {
        "attribution": plain(_attribution(segment, candidate, names, result)),
        "noise_floor": plain(_noise_floor(segment, arms[1], names[0], result, alpha)),
    }


def changes_of(segment: Segment, candidate: Candidate) -> list[str]:
    """What a candidate changes in some decision of a segment, of `model`, `prompt` and `parameters`."""
    decisions = [logged.decision for logged in segment.decisions]
    model, prompt = candidate.model, candidate.prompt
    changed = {
        "model": model is not None and any(one.model_requested != model for one in decisions),
        "prompt": prompt is not None and any(one.prompt_hash != prompt.hash for one in decisions),
        "parameters": bool(candidate.parameters)
        and any(one.parameters_value() | dict(candidate.parameters) != one.parameters_value() for one in decisions),
    }
    return [name for name, is_changed in changed.items() if is_changed]


def _attribution(
    segment: Segment, candidate: Candidate, names: Sequence[str], result: ForcedResult
) -> dict[str, Any] | None:
    if result.environment is None or result.change is None:
        return None
    log, incumbent, tried = names
    found = attribute(
        verdict=result.verdict,
        environment=result.environment.verdict,
        change=result.change.verdict,
        changed=changes_of(segment, candidate),
        drifted=result.verifier_drift,
        compared=len(result.pairs),
        note=result.judged.note,
        stopped_because=result.stopped_because,
    )
    today = f"{incumbent} today"
    return attribution_data(
        found,
        environment=_contrast(log, today, result.environment),
        candidate=_contrast(today, tried, result.change),
        verifier_drift=result.verifier_drift,
    )


def _contrast(before: str, after: str, contrast: Contrast) -> dict[str, Any]:
    verdict = next(level for level in contrast.judged.levels if level.level == VERDICT)
    return {
        "arms": [before, after],
        "verdict": contrast.verdict,
        "stopped_because": contrast.stopped_because,
        "e_value": contrast.judged.e_value,
        "events": contrast.judged.events,
        "paid_calls": contrast.calls,
        "change": verdict.change,
        "interval": verdict.interval,
    }


def _noise_floor(
    segment: Segment, today: ArmRef, log: str, result: ForcedResult, alpha: float
) -> dict[str, Any] | None:
    """Of the runs of the incumbent where there are two or more, else of the log and A'; None where A' is the log."""
    incumbent = today.model
    runs = max((len(pair.floor) for pair in result.pairs), default=0)
    if not runs or (runs == 1 and is_logged_run(segment, _arm(incumbent))):
        return None
    levels = result.judged.levels
    floor = dict(_floor_events(result.pairs))
    pairs = [_by_decision(pair) for pair in result.pairs]
    if runs == 1:
        return floor_data("incumbent", [log, f"{incumbent} today"], floor, pairs, levels, alpha)
    return floor_data("replicates", [f"{incumbent}@{run}" for run in range(runs)], floor, pairs, levels, alpha)


def _arm(model: str) -> Incumbent | None:
    return Incumbent(Candidate(model, incumbent=True)) if is_recorded(model) else None


def _floor_events(pairs: Sequence[Pair]) -> Iterator[tuple[str, FloorEvent]]:
    for pair in pairs:
        runs = pair.floor if len(pair.floor) > 1 else (pair.baseline, *pair.floor)
        there = [run for run in runs if not run.lost]
        if len(there) > 1:
            decision = pair.logged.decision
            yield decision.decision_id, floor_event(decision.stream, there)


def _by_decision(pair: Pair) -> Pair:
    """A floor's events are named by workflow, of which a recording has one decision each, and a log several."""
    decision = pair.logged.decision
    renamed = decision.model_copy(update={"workflow": decision.decision_id})
    return replace(pair, logged=LoggedDecision(pair.logged.at, renamed))
