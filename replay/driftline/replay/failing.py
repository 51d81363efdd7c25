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


@dataclass(frozen=True, slots=True)
class StoredBatch:
    """The failing batch of a run, in the order in which the run read it."""

    decision_ids: Sequence[str]
    workflows: frozenset[str]
    same_text: int
    """Decisions whose answers are canonically equal in both arms."""


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
        text=_text_moved(report.get("noise_floor")),
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


def _text_moved(floor: Mapping[str, Any] | None) -> bool | None:
    """Whether the candidate's texts differ from the baseline's more than the incumbent's own; None if not known."""
    measured = (floor or {}).get("levels") or {}
    excess = [(measured.get(level) or {}).get("excess_interval") for level in TEXT_LEVELS]
    known = [interval for interval in excess if interval is not None and interval[0] is not None]
    return any(interval[0] > 0.0 for interval in known) if known else None
