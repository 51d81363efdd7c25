"""What a run says, as JSON data: the form that scripts read and that every other output is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from driftline.detectors import LevelSummary
from driftline.replay.arms import Candidate
from driftline.replay.attribution import Attribution, attribute, attribution_data
from driftline.replay.levels import ACTION, LEVELS, STATE, VERDICT, JudgedAnswer
from driftline.replay.plain import plain
from driftline.replay.result import ForcedResult, Limits, Pair

EXAMPLES_MAX = 2
"""Pairs shown side by side."""
EXIT_CODES = {"equivalent": 0, "diverged": 1, "inconclusive": 4}


def report_data(app: str, baseline: str, candidate: str, result: ForcedResult, limits: Limits) -> dict[str, Any]:
    """The report of a run: plain JSON data. What the run did not look for (a noise floor, an A' arm) is null."""
    judged = result.judged
    by_level = {level.level: level for level in judged.levels}
    report = {
        "run_id": result.run_id,
        "app": app,
        "mode": "forced",
        "baseline": baseline,
        "candidate": candidate,
        "verdict": result.verdict,
        "note": "; ".join(filter(None, (judged.note, result.overrun))),
        "stopped_because": result.stopped_because,
        "alpha": limits.alpha,
        "delta": limits.delta,
        "min_effect": limits.min_effect,
        "e_value": judged.e_value,
        "alarm_after": result.alarm_after,
        "events": judged.events,
        "events_at_stop": judged.events_at_stop,
        "paid_calls": result.paid_calls,
        "from_ledger": result.from_ledger,
        "overspent_calls": result.overspent_calls,
        "estimate_calls": result.estimate_calls,
        "cost_usd": result.cost_usd,
        "coverage": result.coverage,
        "lost": lost_pairs(result.pairs),
        "verifier_drift": result.verifier_drift,
        "repeated_decisions": result.repeated_decisions,
        "levels": {name: _level(by_level.get(name)) for name in (*LEVELS, STATE)},
        "strata": [_stratum(asdict(stratum), result.verdict) for stratum in judged.strata],
        "noise_floor": None,
        "attribution": attribution_data(_cause(result), verifier_drift=result.verifier_drift),
        "migration": {"recommend": None, "evidence": []},
        "examples": [_example(pair, candidate) for pair in examples(result)],
    }
    data: dict[str, Any] = plain(report)
    return data


def tried_data(candidate: Candidate, verifier: str | None = None, verifier_version: str = "") -> dict[str, Any]:
    """What a candidate has of its own beside its model, and what judged it.

    Args:
        candidate: The candidate.
        verifier: Path of the verifier spec that it was given; None for today's rules.
        verifier_version: Of what judged it; empty where several boundaries have one each.
    """
    prompt = candidate.prompt
    own: dict[str, Any] = {
        "prompt": None if prompt is None else getattr(prompt, "name", "prompt"),
        "prompt_hash": None if prompt is None else prompt.hash,
        "parameters": plain(candidate.parameters),
        "verifier": verifier,
        "verifier_version": verifier_version,
    }
    return own


def _cause(result: ForcedResult) -> Attribution:
    """What can be said without an A' arm."""
    return attribute(
        verdict=result.verdict,
        environment=None,
        change=None,
        changed=(),
        drifted=result.verifier_drift,
        compared=len(result.pairs),
        note=result.judged.note,
        stopped_because=result.stopped_because,
    )


def lost_pairs(pairs: Sequence[Pair]) -> list[dict[str, Any]]:
    """Why decisions have no outcome to compare: arm and failure, commonest first, with how many and the first."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for pair in pairs:
        if pair.lost:
            arm, judged = ("log", pair.baseline) if pair.baseline.lost else ("candidate", pair.candidate)
            failure = judged.answer.failure or ""
            first = {"detail": judged.answer.failure_detail, "at": str(pair.logged.at)}
            group = found.setdefault((arm, failure), {"arm": arm, "failure": failure, "decisions": 0, **first})
            group["decisions"] += 1
    return sorted(found.values(), key=lambda group: -group["decisions"])


def examples(result: ForcedResult, most: int = EXAMPLES_MAX) -> Sequence[Pair]:
    """Pairs worth showing: changed verdicts in the named strata first, then changed actions, in planned order."""
    named = {stratum.stratum for stratum in result.judged.strata if stratum.named}
    changed = [pair for pair in result.pairs if not pair.lost and _weight(pair) > 0]
    changed.sort(key=lambda pair: (pair.logged.stratum not in named, -_weight(pair), pair.index))
    return changed[:most]


def _weight(pair: Pair) -> int:
    before, after = pair.baseline.hashes, pair.candidate.hashes
    return 2 * (before[VERDICT] != after[VERDICT]) + (before.get(ACTION) != after.get(ACTION))


def _level(level: LevelSummary | None) -> dict[str, Any] | None:
    if level is None:
        return None
    data = asdict(level)
    del data["level"]
    return data


def _stratum(data: dict[str, Any], verdict: str) -> dict[str, Any]:
    """Only a verdict of `diverged` names strata."""
    boundary, _, stream = data.pop("stratum").partition("/")
    return {"boundary": boundary, "stream": stream, **data, "named": data["named"] and verdict == "diverged"}


def _example(pair: Pair, candidate: str) -> dict[str, Any]:
    decision = pair.logged.decision
    return {
        "at": str(pair.logged.at),
        "input": str(decision.input),
        "workflow": decision.workflow,
        "stream": decision.stream,
        "event_time": decision.input.event_time.isoformat(),
        "baseline": _side(decision.model_requested, pair.baseline),
        "candidate": _side(pair.candidate.answer.model_reported or candidate, pair.candidate),
    }


def _side(model: str, judged: JudgedAnswer) -> dict[str, Any]:
    action = judged.judgement.action
    return {
        "model": model,
        "verdict": judged.verdict,
        "rejections": [rejection.model_dump() for rejection in judged.judgement.rejections],
        "action": None if action is None else {"type": action.type, **action.compared},
        "reads": [{"name": one.name, "arguments": one.arguments, "told": one.answer} for one in judged.answer.reads],
        "text": judged.answer.text,
    }
