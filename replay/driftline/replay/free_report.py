"""What a run in mode `free` says, as JSON data; and the id that the same plan over the same workflows has again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from statistics import fmean
from typing import Any

from driftline.consumers.models.sources import source_version
from driftline.replay.arms import LOG_ARM, Candidate
from driftline.replay.departures import STATE, Departure, Travel, WorkflowResult
from driftline.replay.free import FreeResult, Rate, WorkflowPair
from driftline.replay.identity import RUN_ID_DIGITS
from driftline.replay.levels import ACTION, VERDICT
from driftline.replay.plain import plain
from driftline.replay.result import Limits
from driftline.replay.subject import AppSubject
from driftline.replay.workflows import History
from driftline.schemas import canonical_json, content_hash

LEVEL_NAMES = {VERDICT: "departed", ACTION: "committed", STATE: "state"}
"""What the judge's levels are of a workflow."""
TRAVEL_FIELDS = tuple(Travel.__slots__)


def free_data(history: History, candidate: Candidate, result: FreeResult, limits: Limits) -> dict[str, Any]:
    """The report of a run: plain JSON data."""
    incumbent = result.judged is not None
    report = {
        "run_id": result.run_id,
        "app": history.app,
        "mode": "free",
        "baseline": baseline_model(history),
        "candidate": candidate.model or baseline_model(history),
        "verdict": result.verdict,
        "note": result.note,
        "stopped_because": result.stopped_because,
        "alpha": limits.alpha,
        "delta": limits.delta,
        "min_effect": limits.min_effect,
        "workflows": {
            "planned": result.planned,
            "read": len(result.pairs),
            "compared": sum(pair.evidence for pair in result.pairs),
            "ended_early": _ended(result.pairs),
            "undecided": history.undecided,
            "headless": history.headless,
        },
        "unreadable_records": history.unreadable,
        "coverage": result.coverage,
        "calls": result.calls,
        "from_ledger": result.from_ledger,
        "cost_usd": result.cost_usd,
        "arms": {
            "candidate": _arm(result, False),
            "incumbent": _arm(result, True) if incumbent else None,
        },
        "e_value": None if result.judged is None else result.judged.e_value,
        "levels": _levels(result),
        "strata": [] if result.judged is None else [_stratum(asdict(one)) for one in result.judged.strata],
        "by_place": _by_place(result.pairs),
        "departures": [_departed(pair) for pair in result.pairs if pair.candidate.departure is not None],
    }
    data: dict[str, Any] = plain(report)
    return data


def free_id_of(
    history: History, subject: AppSubject, candidate: Candidate, limits: Limits, incumbent: bool = False
) -> str:
    """The id of a run: equal for the same plan over the same workflows, whatever its budget in dollars."""
    app = subject.app
    plan = {
        "mode": "free",
        "app": app.name,
        "workflows": content_hash("".join(_identity(history))),
        "candidate": [candidate.model, None if candidate.prompt is None else candidate.prompt.hash],
        "parameters": dict(candidate.parameters),
        "source": None if candidate.model is None else source_version(candidate.model),
        "incumbent": incumbent,
        "rules": sorted(
            [name, bound.judge.version, bound.boundary.max_attempts] for name, bound in app.bound.items()
        ),
        "fold": None if app.fold is None else app.fold.version,
        "test": [limits.alpha, limits.delta, limits.min_effect, limits.order_seed, limits.calls_max, limits.locate],
    }
    return content_hash(canonical_json(plan))[:RUN_ID_DIGITS]


def baseline_model(history: History) -> str:
    """The model of the log; `log` where there are several."""
    models = {logged.decision.model_requested for workflow in history.workflows for logged in workflow.decisions}
    return models.pop() if len(models) == 1 else LOG_ARM


def _identity(history: History) -> list[str]:
    """Events by id and place, decisions by what was answered: all that a run takes from the log."""
    found = []
    for workflow in history.workflows:
        found += [f"{logged.at} {logged.event.id}\n" for logged in workflow.events]
        found += [f"{one.decision.decision_id} {one.decision.context_hash}\n" for one in workflow.decisions]
    return found


def _ended(pairs: Sequence[WorkflowPair]) -> dict[str, int]:
    """Sandboxes by why they ended early."""
    found: dict[str, int] = {}
    for ended in sorted(result.run.ended for pair in pairs for result in pair.arms if result.run.ended is not None):
        found[ended] = found.get(ended, 0) + 1
    return found


def _arm(result: FreeResult, incumbent: bool) -> dict[str, Any]:
    evidence = [pair.incumbent if incumbent else pair.candidate for pair in result.pairs if pair.evidence]
    departed = [one for one in evidence if one is not None and one.departure is not None]
    return {
        "departed": _rate(result.departed(incumbent)),
        "state_changed": _rate(result.state_changed(incumbent)),
        "travel": {name: sum(getattr(one.travel, name) for one in departed) for name in TRAVEL_FIELDS},
        "travel_mean": {
            name: fmean(getattr(one.travel, name) for one in departed) if departed else None for name in TRAVEL_FIELDS
        },
    }


def _rate(rate: Rate) -> dict[str, Any]:
    return {"workflows": rate.workflows, "count": rate.count, "rate": rate.value, "interval": list(rate.interval)}


def _levels(result: FreeResult) -> dict[str, Any] | None:
    """Candidate against incumbent; a rate is of workflows that stayed with history."""
    if result.judged is None:
        return None
    found = {}
    for level in result.judged.levels:
        data = asdict(level)
        found[LEVEL_NAMES[data.pop("level")]] = data
    return found


def _stratum(data: Mapping[str, Any]) -> dict[str, Any]:
    boundary, _, stream = data["stratum"].partition("/")
    rest = {name: value for name, value in data.items() if name not in ("stratum", "level")}
    return {"boundary": boundary, "stream": stream, "level": LEVEL_NAMES[data["level"]], **rest}


def _by_place(pairs: Sequence[WorkflowPair]) -> list[dict[str, Any]]:
    """Where workflows depart first, commonest first: decision, boundary, stream, level, from what to what."""
    found: dict[tuple[Any, ...], list[WorkflowPair]] = {}
    for pair in pairs:
        departure = pair.candidate.departure
        if departure is not None and pair.evidence:
            found.setdefault(_place(departure), []).append(pair)
    ordered = sorted(found.items(), key=lambda item: (-len(item[1]), [str(part) for part in item[0]]))
    names = ("index", "boundary", "stream", "level", "then", "now")
    return [
        {
            **dict(zip(names, place, strict=True)),
            "workflows": len(there),
            "state_changed": sum(pair.candidate.state_equal is False for pair in there),
            "example": str(there[0].candidate.departure.at) if there[0].candidate.departure else None,
        }
        for place, there in ordered
    ]


def _place(departure: Departure) -> tuple[Any, ...]:
    then, now = (taken.type or taken.verdict for taken in (departure.then, departure.now))
    return departure.index, departure.boundary, departure.stream, departure.level, then, now


def _departed(pair: WorkflowPair) -> dict[str, Any]:
    return {"workflow": pair.workflow.name, "turn": pair.index, "evidence": pair.evidence, **_result(pair.candidate)}


def _result(result: WorkflowResult) -> dict[str, Any]:
    departure = result.departure
    if departure is None:
        return {}
    first = asdict(departure)
    first["at"] = str(departure.at)
    return {"first": first, "travel": asdict(result.travel), "state_equal": result.state_equal}
