"""The history of an app's runs on disk, as evidence: what each says by itself, and over which decisions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from driftline.detectors.migration import DIVERGED, Effect, RunEvidence
from driftline.replay.levels import VERDICT
from driftline.replay.store import DATABASE, query
from driftline.replay.wording import candidate_text
from driftline.schemas import BadInput, canonical_json
from driftline.schemas.cloudevents import parse_time

DIAGNOSIS = "diagnosis.json"
"""Beside a run's database: what became of its failing batch."""
STATE = "state"
FORM_LEVELS = ("bytes", "canonical")
"""What may move with no consequence for what is decided."""
MODES = ("forced", "shadow")
"""In the others no verdict is given on decisions."""
DECIDED = ("alarm", "equivalent")
"""Why a run stops that could have read on."""

_RUN = "SELECT report, completed_at, baseline_prompt_hash, candidate_prompt_hash FROM run"
_SPAN = "SELECT min(event_time), max(event_time) FROM pairs"
_OFFSETS = r"""
SELECT lies.topic, lies.part::INTEGER, min(lies.pos::BIGINT), max(lies.pos::BIGINT)
FROM (SELECT regexp_extract(coordinates, '^(.*)\[(\d+)\]@(\d+)$', ['topic', 'part', 'pos']) AS lies FROM pairs)
WHERE lies.topic <> '' GROUP BY ALL ORDER BY 1, 2
"""


@dataclass(frozen=True, slots=True)
class PastRun:
    """A run on disk and what it is evidence of."""

    evidence: RunEvidence
    report: Mapping[str, Any]
    """As the run wrote it."""
    incumbent: str
    """The model in place, `provider/name`."""
    advice: str | None
    """What the diagnosis advises; None where there is none."""


@dataclass(frozen=True, slots=True)
class PastRuns:
    """What there is of an app's past, oldest segment first."""

    runs: tuple[PastRun, ...]
    unreadable: tuple[str, ...] = ()
    """Ids of runs that an earlier driftline wrote, that are just being written, or whose files are damaged."""


def read_past_runs(runs: Path, app: str) -> PastRuns:
    """The runs of an app that compared decisions, with the diagnosis that lies beside each.

    What a report does not say is null or absent, and here not known; an attribution that is null is no attribution.

    Args:
        runs: The folder of all runs.
        app: Whose.
    """
    found, unreadable = [], []
    for path in sorted(runs.glob(f"*/{DATABASE}")):
        try:
            past = _read(path, app)
        except (BadInput, ValueError, KeyError, TypeError):
            unreadable.append(path.parent.name)
            continue
        if past is not None:
            found.append(past)
    found.sort(key=lambda one: (one.evidence.window, one.evidence.run_id))
    return PastRuns(tuple(found), tuple(unreadable))


def _read(path: Path, app: str) -> PastRun | None:
    ((text, completed_at, own_prompt, prompt),) = query(path, _RUN)[1]
    report: dict[str, Any] = json.loads(text)
    if report["app"] != app or report["mode"] not in MODES:
        return None
    ((first, last),) = query(path, _SPAN)[1]
    if first is None:
        return None
    diagnosis = _diagnosis(path.with_name(DIAGNOSIS), report["run_id"])
    contrasts = (report.get("attribution") or {}).get("contrasts") or {}
    environment, change = (_verdict(contrasts.get(name)) for name in ("environment", "candidate"))
    started = (report.get("timings") or {}).get("started_at")
    evidence = RunEvidence(
        run_id=report["run_id"],
        candidate=_words(report, own_prompt, prompt),
        environment=environment,
        change=change,
        verdict=report["verdict"],
        effects=tuple(_effects(report, contrasts.get("candidate"), environment)),
        diagnosis=diagnosis.get("conclusion"),
        diagnosis_e_value=diagnosis.get("e_value"),
        alpha=report["alpha"],
        delta=report["delta"],
        form_only=_form_only(report),
        window=(first.replace(tzinfo=UTC), last.replace(tzinfo=UTC)),
        offsets=tuple(query(path, _OFFSETS)[1]),
        started_at=parse_time(started) if started else None,
        completed_at=_utc(completed_at),
        candidate_id=canonical_json([report["candidate"], prompt, (report.get("tried") or {}).get("parameters", {})]),
        stopped_early=report.get("stopped_because") in DECIDED and report["events"] == report["events_at_stop"],
    )
    return PastRun(evidence, report, report["baseline"], _advice(diagnosis))


def _words(report: Mapping[str, Any], own_prompt: str, prompt: str) -> str:
    """The candidate as the run names it; a run that did not say what it tried tells its prompt by the hash."""
    unsaid = not report.get("tried") and prompt != own_prompt
    return candidate_text(report) + (f" with prompt {str(prompt)[:12]}" if unsaid else "")


def _diagnosis(path: Path, run_id: str) -> Mapping[str, Any]:
    """Empty where there is none, or one of another run."""
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return found if found["run_id"] == run_id else {}


def _advice(diagnosis: Mapping[str, Any]) -> str | None:
    advice = diagnosis.get("advice")
    return advice.get("name") if isinstance(advice, Mapping) else advice


def _verdict(contrast: Any) -> str | None:
    return contrast.get("verdict") if isinstance(contrast, Mapping) else contrast


def _effects(report: Mapping[str, Any], contrast: Any, environment: str | None) -> list[Effect]:
    """A' against B first; L against B only where the environment is not shown to have moved between the two.

    The strata that e-BH names come last. Their evidence, at level alpha, is that of L against B.
    """
    found = []
    if isinstance(contrast, Mapping):
        levels = contrast.get("levels")
        found += _of_levels(levels if isinstance(levels, Mapping) else {VERDICT: contrast}, "incumbent", None)
    if environment != DIVERGED:
        floor = (report.get("noise_floor") or {}).get("levels") or {}
        found += _of_levels(report["levels"], "log", floor)
        found += [effect for one in report.get("strata") or () if one["named"] for effect in _of_stratum(one, report)]
    return found


def _of_stratum(stratum: Mapping[str, Any], report: Mapping[str, Any]) -> list[Effect]:
    """Of a named stratum at one level; none at a level that is no verdict and no state."""
    strata = (report.get("noise_floor") or {}).get("strata") or ()
    floor = {one["level"]: one for one in strata if one["stream"] == stratum["stream"]}
    where = f" of {stratum['boundary']}/{stratum['stream']}"
    found = _of_levels({stratum["level"]: stratum}, "log", floor)
    return [replace(effect, level=effect.level + where) for effect in found]


def _of_levels(levels: Mapping[str, Any], against: str, floor: Mapping[str, Any] | None) -> list[Effect]:
    """The verdict by its mean change; the state by how much more often it differs than runs of the incumbent do."""
    found = []
    verdict, state = levels.get(VERDICT), levels.get(STATE)
    if verdict and verdict.get("change") is not None and verdict.get("interval"):
        found.append(Effect(VERDICT, against, verdict["change"], tuple(verdict["interval"])))
    noise = state and (state.get("noise") or (floor or {}).get(STATE))
    if noise and noise.get("excess") is not None:
        found.append(Effect(STATE, against, noise["excess"], tuple(noise["excess_interval"])))
    return found


def _form_only(report: Mapping[str, Any]) -> bool:
    """Bytes or canonical text differ more often than runs of the incumbent do; without a floor that is not known."""
    floor = (report.get("noise_floor") or {}).get("levels") or {}
    for name in FORM_LEVELS:
        level = report["levels"].get(name) or {}
        noise = level.get("noise") or floor.get(name) or {}
        if noise.get("excess_interval") and noise["excess_interval"][0] > 0.0:
            return bool(report["verdict"] != DIVERGED)
    return False


def _utc(time: datetime | None) -> datetime | None:
    return None if time is None else time.replace(tzinfo=UTC)
