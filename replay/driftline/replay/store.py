"""A run in DuckDB: what was asked, what came back, and how it differs; loaded in one batch, Parquet beside it.

Tables: `run` (one row), `pairs` (one row a decision), `strata` (one row a stratum and level), `changes` (one row a
field of an action that changed). Views: `compared` (pairs with an outcome in both arms, and which levels changed),
`flips` (those whose verdict changed), `changed_actions`, `by_stream`, `by_field`. Times are UTC. Parquet is the
durable form; the `.duckdb` file can be rebuilt from it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb

from driftline.replay.fields import field_changes
from driftline.replay.levels import LEVELS, JudgedAnswer
from driftline.replay.plain import first_line, sql_text
from driftline.replay.result import ForcedResult, Pair
from driftline.replay.tables import load
from driftline.schemas import BadInput
from driftline.schemas.cloudevents import format_time

DATABASE = "replay.duckdb"

_PAIRS: Mapping[str, str] = {
    "run_id": "VARCHAR",
    "turn": "BIGINT",
    "evidence": "BOOLEAN",
    "lost": "BOOLEAN",
    "decision_id": "VARCHAR",
    "boundary": "VARCHAR",
    "stream": "VARCHAR",
    "workflow": "VARCHAR",
    "coordinates": "VARCHAR",
    "event_time": "TIMESTAMP",
    "context": "JSON",
    **{
        f"{arm}_{name}": kind
        for arm in ("baseline", "candidate")
        for name, kind in {
            "text": "VARCHAR",
            "failure": "VARCHAR",
            "verdict": "VARCHAR",
            "rejection_code": "VARCHAR",
            "rule_id": "VARCHAR",
            "rejections": "JSON",
            "action_type": "VARCHAR",
            "action": "JSON",
            "cost_usd": "DOUBLE",
            "latency_ms": "DOUBLE",
            **{f"{level}_hash": "VARCHAR" for level in LEVELS},
        }.items()
    },
}

_STRATA: Mapping[str, str] = {
    "run_id": "VARCHAR",
    "boundary": "VARCHAR",
    "stream": "VARCHAR",
    "level": "VARCHAR",
    "events": "BIGINT",
    "e_value": "DOUBLE",
    "named": "BOOLEAN",
    "change": "DOUBLE",
    "mismatch": "DOUBLE",
    "interval_at_stop_lo": "DOUBLE",
    "interval_at_stop_hi": "DOUBLE",
    "interval_lo": "DOUBLE",
    "interval_hi": "DOUBLE",
}

_CHANGES: Mapping[str, str] = {
    **dict.fromkeys(("run_id", "decision_id", "boundary", "stream", "workflow", "coordinates"), "VARCHAR"),
    "turn": "BIGINT",
    "path": "VARCHAR",
    "before": "JSON",
    "after": "JSON",
}

_RUN: Mapping[str, str] = {
    **dict.fromkeys(("run_id", "app", "mode", "baseline", "candidate", "verdict"), "VARCHAR"),
    **dict.fromkeys(("note", "stopped_because"), "VARCHAR"),
    **dict.fromkeys(("alpha", "delta", "min_effect", "e_value"), "DOUBLE"),
    **dict.fromkeys(("alarm_after", "events", "events_at_stop"), "BIGINT"),
    **dict.fromkeys(("paid_calls", "from_ledger", "overspent_calls"), "BIGINT"),
    **dict.fromkeys(("cost_usd", "coverage"), "DOUBLE"),
    "verifier_drift": "BIGINT",
    **dict.fromkeys(("baseline_prompt_hash", "candidate_prompt_hash", "verifier_version"), "VARCHAR"),
    "completed_at": "TIMESTAMP",
    "report": "JSON",
}

_VIEWS = f"""
CREATE VIEW compared AS SELECT *, {
    ", ".join(f"baseline_{level}_hash IS DISTINCT FROM candidate_{level}_hash AS {level}_changed" for level in LEVELS)
} FROM pairs WHERE NOT lost;
CREATE VIEW flips AS SELECT * FROM compared WHERE verdict_changed;
CREATE VIEW changed_actions AS SELECT * FROM compared WHERE action_changed;
CREATE VIEW by_stream AS SELECT boundary, stream, count(*) AS decisions,
    avg((baseline_verdict = 'accepted')::INT) AS baseline_rate,
    avg((candidate_verdict = 'accepted')::INT) AS candidate_rate,
    avg(action_changed::INT) AS actions_changed, avg(verdict_changed::INT) AS verdicts_changed
    FROM compared GROUP BY ALL ORDER BY actions_changed DESC;
CREATE VIEW by_field AS SELECT boundary, stream, path, count(*) AS decisions,
    mode(before) AS before, mode(after) AS after, any_value(coordinates) AS example
    FROM changes GROUP BY ALL ORDER BY decisions DESC;
"""


def write_store(folder: Path, result: ForcedResult, run: Mapping[str, Any]) -> Path:
    """Write a run's database and Parquet files. They take the place of an earlier run's when all are written.

    Args:
        folder: Of the run.
        result: What came out.
        run: The `run` table's row, JSON data; other names are passed over.

    Returns:
        Path of the DuckDB file.

    Raises:
        BadInput: The folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=folder, prefix=".writing-") as name:
            written = _write(Path(name), result, run)
            for file in written:
                file.replace(folder / file.name)
    except (OSError, duckdb.Error) as error:
        mend = "make room or free the folder, then run the same command: no call is paid again"
        raise BadInput(f"{folder}: {first_line(error)}", mend) from error
    return folder / DATABASE


def _write(folder: Path, result: ForcedResult, run: Mapping[str, Any]) -> list[Path]:
    pairs = (_pair_row(result.run_id, pair) for pair in result.pairs)
    tables = {
        "pairs": (_PAIRS, pairs),
        "strata": (_STRATA, _strata_rows(result)),
        "changes": (_CHANGES, _change_rows(result)),
        "run": (_RUN, [{name: run.get(name) for name in _RUN}]),
    }
    files = [folder / DATABASE]
    with duckdb.connect(str(files[0])) as db:
        for table, (columns, rows) in tables.items():
            load(db, table, columns, rows, folder)
            files.append(folder / f"{table}.parquet")
            db.execute(f"COPY {table} TO {sql_text(files[-1])} (FORMAT parquet, COMPRESSION zstd)")
        db.execute(_VIEWS)
    return files


def query(path: Path, sql: str) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Column names and rows of a query over a run's database, opened read-only.

    Raises:
        BadInput: No such database, or DuckDB refuses the query.
    """
    if not path.exists():
        raise BadInput(f"there is no database at {path}", "run `driftline replay` first")
    try:
        with duckdb.connect(str(path), read_only=True) as db:
            found = db.execute(sql)
            if found is None:  # an empty statement
                raise BadInput("the statement is empty", "for example driftline sql 'FROM by_stream'")
            return [column[0] for column in found.description or ()], found.fetchall()
    except duckdb.Error as error:
        raise BadInput(f"DuckDB: {first_line(error)}", "`SHOW TABLES` and `DESCRIBE pairs` tell the names") from error


def _pair_row(run_id: str, pair: Pair) -> dict[str, Any]:
    decision = pair.logged.decision
    return {
        "run_id": run_id,
        "turn": pair.index,
        "evidence": pair.evidence,
        "lost": pair.lost,
        "decision_id": decision.decision_id,
        "boundary": decision.boundary,
        "stream": decision.stream,
        "workflow": decision.workflow,
        "coordinates": str(pair.logged.at),
        "event_time": format_time(decision.input.event_time),
        "context": decision.context_value(),
        **_arm_columns("baseline", pair.baseline),
        **_arm_columns("candidate", pair.candidate),
    }


def _arm_columns(arm: str, judged: JudgedAnswer) -> dict[str, Any]:
    answer, judgement = judged.answer, judged.judgement
    first = judgement.rejections[0] if judgement.rejections else None
    columns = {
        "text": answer.text,
        "failure": answer.failure,
        "verdict": judged.verdict,
        "rejection_code": first and first.code,
        "rule_id": first and first.rule_id,
        "rejections": [rejection.model_dump() for rejection in judgement.rejections],
        "action_type": judgement.action and judgement.action.type,
        "action": judgement.action and dict(judgement.action.compared),
        "cost_usd": answer.cost_usd,
        "latency_ms": answer.latency_ms,
        **{f"{level}_hash": judged.hashes.get(level) for level in LEVELS},
    }
    return {f"{arm}_{name}": value for name, value in columns.items()}


def _change_rows(result: ForcedResult) -> Iterator[dict[str, Any]]:
    for pair in result.pairs:
        if pair.lost:
            continue
        decision = pair.logged.decision
        for change in field_changes(pair.baseline, pair.candidate):
            yield {
                "run_id": result.run_id,
                "decision_id": decision.decision_id,
                "boundary": decision.boundary,
                "stream": decision.stream,
                "workflow": decision.workflow,
                "coordinates": str(pair.logged.at),
                "turn": pair.index,
                "path": change.path,
                "before": change.before,
                "after": change.after,
            }


def _strata_rows(result: ForcedResult) -> Iterator[dict[str, Any]]:
    for stratum in result.judged.strata:
        boundary, _, stream = stratum.stratum.partition("/")
        yield {
            "run_id": result.run_id,
            "boundary": boundary,
            "stream": stream,
            "level": stratum.level,
            "events": stratum.events,
            "e_value": stratum.e_value,
            "named": stratum.named,
            "change": stratum.change,
            "mismatch": stratum.mismatch,
            "interval_at_stop_lo": stratum.interval_at_stop[0],
            "interval_at_stop_hi": stratum.interval_at_stop[1],
            "interval_lo": stratum.interval[0],
            "interval_hi": stratum.interval[1],
        }
