"""The failing batch of a stored run: what the baseline passed and the candidate failed; and what else moved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from driftline.detectors.diagnosis import Moved
from driftline.replay.segment import Segment
from driftline.replay.store import query
from driftline.schemas import UsageError

_BATCH = """
SELECT decision_id, workflow, canonical_changed FROM compared
WHERE baseline_verdict = 'accepted' AND candidate_verdict = 'rejected' ORDER BY turn
"""
_ACCEPTED = """
SELECT count(*) FROM compared
WHERE action_changed AND baseline_verdict = 'accepted' AND candidate_verdict = 'accepted'
"""
TEXT_LEVELS = ("bytes", "canonical")
COMPARED_MODES = ("forced", "shadow")
"""Whose runs hold a pair of answers a decision."""


@dataclass(frozen=True, slots=True)
class StoredBatch:
    """The failing batch of a run, in the order in which the run read it."""

    decision_ids: Sequence[str]
    workflows: frozenset[str]
    same_text: int
    """Decisions whose answers are canonically equal in both arms."""


def require_compared(report: Mapping[str, Any]) -> None:
    """Refuse a run that compared no decisions.

    Raises:
        UsageError: It is of another mode; names those that do.
    """
    if report["mode"] not in COMPARED_MODES:
        modes = " or ".join(COMPARED_MODES)
        raise UsageError(
            f"run {report['run_id']} is of the mode {report['mode']}, which compares no single decisions",
            f"name a run of the mode {modes}",
        )


def failing_batch(database: Path) -> StoredBatch:
    """What the baseline passed and the candidate failed, whether or not it entered the test.

    Raises:
        BadInput: No such database.
    """
    rows = query(database, _BATCH)[1]
    return StoredBatch(
        [decision_id for decision_id, _, _ in rows],
        frozenset(workflow for _, workflow, _ in rows),
        sum(not changed for _, _, changed in rows),
    )


def moved_in(database: Path, report: Mapping[str, Any], batch: StoredBatch) -> Moved:
    """What of a run moved, by its own evidence and its noise floor.

    Raises:
        BadInput: No such database.
    """
    ((accepted,),) = query(database, _ACCEPTED)[1]
    action = report["levels"].get("action") or {}
    return Moved(
        actions=(action.get("e_value") or 0.0) >= 1.0 / report["alpha"],
        changed_and_accepted=accepted,
        text=_text_moved(report),
        same_text=batch.same_text,
        batch=len(batch.decision_ids),
    )


def decisions_of(segment: Segment, batch: StoredBatch) -> Segment:
    """The batch out of the log or file that holds it, in log order.

    Raises:
        UsageError: None of it is there any more.
    """
    wanted = set(batch.decision_ids)
    found = [logged for logged in segment.decisions if logged.decision.decision_id in wanted]
    if wanted and not found:
        raise UsageError(
            f"none of the {len(wanted)} failing decisions is still in {segment.span.topic}",
            "diagnose a run over decisions that are there",
        )
    return replace(segment, decisions=found)


def _text_moved(report: Mapping[str, Any]) -> bool | None:
    """Whether the candidate's texts differ from the incumbent's more than those among themselves; None if not known.

    A run knows by decision how the candidate differs from the floor's runs; without that it is held against the log,
    whose texts an environment that drifted moves too.
    """
    floor = (report.get("noise_floor") or {}).get("levels") or {}
    own = {level: (report["levels"].get(level) or {}).get("noise") for level in TEXT_LEVELS}
    excess = [((own[level] or floor.get(level)) or {}).get("excess_interval") for level in TEXT_LEVELS]
    known = [interval for interval in excess if interval is not None and interval[0] is not None]
    return any(interval[0] > 0.0 for interval in known) if known else None
