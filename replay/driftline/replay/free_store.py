"""A run in mode `free` in DuckDB, Parquet beside it: which workflows departed, where, and how far that travelled.

Tables: `run` (one row), `workflows` (one row a workflow and arm), `departures` (one row each). View: `by_place`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from driftline.replay.departures import Departure, WorkflowResult
from driftline.replay.free import FreeResult, WorkflowPair
from driftline.replay.free_report import TRAVEL_FIELDS
from driftline.replay.store import Table, write_tables
from driftline.replay.tables import Columns, column_at, columns_of

RUN: Columns = columns_of(
    {
        **dict.fromkeys(("run_id", "app", "mode", "baseline", "candidate", "verdict"), "VARCHAR"),
        **dict.fromkeys(("note", "stopped_because"), "VARCHAR"),
        **dict.fromkeys(("alpha", "delta", "min_effect", "e_value"), "DOUBLE"),
        **dict.fromkeys(("planned", "read", "compared", "calls"), "BIGINT"),
        **dict.fromkeys(("cost_usd", "coverage"), "DOUBLE"),
        "completed_at": "TIMESTAMP",
        "report": "JSON",
    }
)
"""Of one mapping."""

_PLACE = "boundary, stream, index, level, then_type, now_type, then_verdict, now_verdict"
VIEWS = f"""
CREATE VIEW by_place AS SELECT {_PLACE}, count(*) AS workflows, count(*) FILTER (NOT state_equal) AS state_changed,
    any_value(coordinates) AS example
    FROM departures JOIN workflows USING (turn, arm) WHERE arm = 'candidate' AND workflows.evidence
    GROUP BY ALL ORDER BY workflows DESC;
"""


@dataclass(frozen=True, slots=True)
class ArmRow:
    """A workflow under one arm."""

    pair: WorkflowPair
    arm: str
    """`candidate` or `incumbent`."""
    result: WorkflowResult

    @property
    def departure(self) -> Departure | None:
        """Where it departed first."""
        return self.result.departure


def write_free_store(folder: Path, result: FreeResult, report: Mapping[str, Any], completed_at: str) -> Path:
    """Write a run's database and Parquet files, as `write_store`.

    Args:
        folder: Of the run.
        result: What came out.
        report: As `free_data` made it.
        completed_at: RFC 3339, UTC.

    Returns:
        Path of the DuckDB file.

    Raises:
        BadInput: As `write_store`.
    """
    row = {**report, **report["workflows"], "report": report, "completed_at": completed_at}
    rows = list(arm_rows(result.pairs))
    tables = {
        "workflows": Table(_workflows(result.run_id), rows),
        "departures": Table(_departures(result.run_id), [row for row in rows if row.departure is not None]),
        "run": Table(RUN, [{name: row.get(name) for name in RUN}]),
    }
    return write_tables(folder, tables, VIEWS)


def arm_rows(pairs: Sequence[WorkflowPair]) -> Iterator[ArmRow]:
    """Every workflow under every arm, in planned order."""
    for pair in pairs:
        yield ArmRow(pair, "candidate", pair.candidate)
        if pair.incumbent is not None:
            yield ArmRow(pair, "incumbent", pair.incumbent)


def _workflows(run_id: str) -> Columns:
    """Of an `ArmRow`."""
    first = {"index": "BIGINT", "boundary": "VARCHAR", "stream": "VARCHAR", "level": "VARCHAR"}
    return {
        **_named(run_id),
        "ended": column_at("VARCHAR", "result.run.ended"),
        "departed": column_at("BOOLEAN", "departure", lambda departure: departure is not None),
        **{f"departed_{name}": _of_departure(kind, name) for name, kind in first.items()},
        "departed_at": column_at("VARCHAR", "departure", lambda departure: departure and str(departure.at)),
        "decisions": column_at("BIGINT", "result.run.decisions", len),
        "facts": column_at("BIGINT", "pair.workflow.facts"),
        "facts_fed": column_at("BIGINT", "result.run.facts_fed"),
        **{name: column_at("BIGINT", f"result.travel.{name}") for name in TRAVEL_FIELDS},
        "state_equal": column_at("BOOLEAN", "result.state_equal"),
        "final_row": column_at("JSON", "result.run.row", is_text=True),
    }


def _departures(run_id: str) -> Columns:
    """Of an `ArmRow` that departed."""
    columns = {
        **_named(run_id),
        "index": column_at("BIGINT", "departure.index"),
        "coordinates": column_at("VARCHAR", "departure.at", str),
        **{name: column_at("VARCHAR", f"departure.{name}") for name in ("input", "boundary", "stream", "level")},
    }
    for side in ("then", "now"):
        columns[f"{side}_verdict"] = column_at("VARCHAR", f"departure.{side}.verdict")
        columns[f"{side}_type"] = column_at("VARCHAR", f"departure.{side}.type")
        columns[f"{side}_payload"] = column_at("JSON", f"departure.{side}.payload")
    return columns


def _named(run_id: str) -> Columns:
    return {
        "run_id": column_at("VARCHAR", "arm", lambda _: run_id),
        "turn": column_at("BIGINT", "pair.index"),
        "workflow": column_at("VARCHAR", "pair.workflow.name"),
        "stratum": column_at("VARCHAR", "pair.workflow.stratum"),
        "arm": column_at("VARCHAR", "arm"),
        "evidence": column_at("BOOLEAN", "pair.evidence"),
    }


def _of_departure(kind: str, name: str) -> Any:
    return column_at(kind, "departure", lambda departure: None if departure is None else getattr(departure, name))
