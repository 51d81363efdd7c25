"""A stored run, read back for a page: its report, its flips as transcripts, and what it was made of."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from driftline.replay.store import DATABASE, query
from driftline.schemas import BadInput, UsageError

FLIPS_MAX = 50
"""Pairs shown side by side."""

_FLIPS = """
SELECT coordinates, workflow, stream, event_time::VARCHAR || 'Z' AS event_time, context,
    {arms}
FROM compared WHERE verdict_changed OR action_changed
ORDER BY (boundary || '/' || stream) IN (SELECT boundary || '/' || stream FROM strata WHERE named) DESC,
    verdict_changed DESC, turn LIMIT {limit:d}
"""
_READS = """
SELECT coordinates, arm, name, arguments::VARCHAR AS arguments, told::VARCHAR AS told FROM reads
WHERE coordinates IN (SELECT coordinates FROM ({flips})) ORDER BY turn, arm, round
"""
_SEGMENT = """
SELECT count(*) AS decisions, count(DISTINCT workflow) AS workflows, min(event_time)::VARCHAR AS first,
    max(event_time)::VARCHAR AS last, count(*) FILTER (verdict_changed) AS flips,
    count(*) FILTER (verdict_changed OR action_changed) AS changed,
    (SELECT list(DISTINCT stream ORDER BY stream) FROM pairs) AS streams
FROM pairs LEFT JOIN (SELECT decision_id, verdict_changed, action_changed FROM compared) USING (decision_id)
"""
_SIDE = ("text", "failure", "verdict", "rejections", "action_type", "action")


@dataclass(frozen=True)
class StoredRun:
    """A run as `read_run` finds it."""

    report: Mapping[str, Any]
    """As `report_data` made it."""
    flips: Sequence[Mapping[str, Any]]
    """Changed pairs in the form of the report's examples, with `asked`: what the prompt saw."""
    segment: Mapping[str, Any]
    """`decisions`, `workflows`, `first` and `last` event time, `streams`, how many `flips` and `changed` pairs."""


def find_run(runs: Path, run_id: str | None) -> Path:
    """The database of a run; without an id of the newest.

    Raises:
        UsageError: There is none; names the newest ones that are there.
    """
    found = sorted(runs.glob(f"*/{DATABASE}"), key=lambda path: path.stat().st_mtime, reverse=True)
    if not found:
        raise UsageError(f"there is no run in {runs}", "run `driftline replay` first")
    if run_id is None:
        return found[0]
    for path in found:
        if path.parent.name == run_id:
            return path
    known = ", ".join(path.parent.name for path in found[:5])
    raise UsageError(f"there is no run {run_id!r} in {runs}", f"the newest are {known}")


def read_report(database: Path) -> dict[str, Any]:
    """The report of a run in any mode, as it was made.

    Raises:
        BadInput: No such database, or one that was written without its report.
    """
    mend = "run the same `driftline replay` again: no call is paid twice"
    if not query(database, "SELECT 1 FROM duckdb_columns() WHERE table_name = 'run' AND column_name = 'report'")[1]:
        raise BadInput(f"{database} was written by an earlier driftline and holds no report", mend)
    ((text,),) = query(database, "SELECT report FROM run")[1]
    if text is None:
        raise BadInput(f"{database} holds no report", mend)
    report: dict[str, Any] = json.loads(text)
    return report


def read_run(database: Path, flips_max: int = FLIPS_MAX) -> StoredRun:
    """A forced or shadow run: named strata first, then changed verdicts, then changed actions, in planned order.

    Raises:
        BadInput: No such database, or one that was written without its report.
    """
    report = read_report(database)
    arms = ",\n    ".join(f"{arm}_{name}" for arm in ("baseline", "candidate") for name in _SIDE)
    flips = _FLIPS.format(arms=arms, limit=flips_max)
    (segment,) = _rows(database, _SEGMENT)
    reads = _reads(database, flips)
    return StoredRun(report, [_flip(row, report, reads) for row in _rows(database, flips)], segment)


def _reads(database: Path, flips: str) -> Mapping[tuple[str, str], Sequence[Mapping[str, Any]]]:
    """What tools told in the flips, by coordinates and arm; nothing in runs from before it was kept."""
    found: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    if query(database, "SELECT 1 FROM duckdb_tables() WHERE table_name = 'reads'")[1]:
        for row in _rows(database, _READS.format(flips=flips)):
            found.setdefault((row["coordinates"], row["arm"]), []).append(row)
    return found


def _rows(database: Path, sql: str) -> list[dict[str, Any]]:
    columns, rows = query(database, sql)
    return [dict(zip(columns, row, strict=True)) for row in rows]


def _flip(
    row: Mapping[str, Any],
    report: Mapping[str, Any],
    reads: Mapping[tuple[str, str], Sequence[Mapping[str, Any]]],
) -> dict[str, Any]:
    at = row["coordinates"]
    return {
        "at": at,
        "workflow": row["workflow"],
        "stream": row["stream"],
        "event_time": row["event_time"],
        "asked": json.loads(row["context"]),
        "baseline": _side(row, "baseline", report["baseline"]) | {"reads": reads.get((at, "log"), ())},
        "candidate": _side(row, "candidate", report["candidate"]) | {"reads": reads.get((at, "candidate"), ())},
    }


def _side(row: Mapping[str, Any], arm: str, model: str) -> dict[str, Any]:
    action_type, action = row[f"{arm}_action_type"], row[f"{arm}_action"]
    return {
        "model": model,
        "verdict": row[f"{arm}_verdict"],
        "rejections": json.loads(row[f"{arm}_rejections"] or "[]"),
        "action": None if action_type is None else {"type": action_type, **json.loads(action)},
        "text": row[f"{arm}_text"],
        "failure": row[f"{arm}_failure"],
    }
