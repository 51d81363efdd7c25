"""A run in DuckDB: what was asked, what came back, and how it differs; loaded in one batch, Parquet beside it.

Tables: `run` (one row), `pairs` (one row a decision), `floor` (one row an answer of the incumbent), `strata` (one
row a stratum and level), `changes` (one row a field of an action that changed), `reads` (one row a call of a tool by
the log or the candidate). Views: `compared` (pairs with an outcome in both arms, and which levels changed), `flips`
(those whose verdict changed), `changed_actions`, `by_stream`, `by_field`, `noise` (how often runs of the incumbent
differ, beside the candidate). Times are UTC. Parquet is the durable form; the `.duckdb` file can be rebuilt from it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb

from driftline.replay import columns
from driftline.replay.levels import LEVELS
from driftline.replay.plain import first_line, sql_text
from driftline.replay.result import ForcedResult
from driftline.replay.tables import Columns, load
from driftline.schemas import BadInput

DATABASE = "replay.duckdb"
PARQUET = "FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 1"
"""At level 1 a run is written twice as fast as at zstd's own 3, and its files are a tenth larger."""


def _levels(suffix: str, source: str, kept: str) -> str:
    """SQL: the columns of a source that end so, a row a level; where an answer has no such level, `value` is null."""
    told = [f"SELECT {kept}, '{level}' AS level, {level}_{suffix} AS value FROM {source}" for level in LEVELS]
    return " UNION ALL ".join(told)


VIEWS = f"""
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
CREATE VIEW noise AS
    WITH incumbent AS ({_levels("hash", "floor WHERE NOT lost", "decision_id, replicate")}),
    one AS (SELECT one.decision_id, level, avg((one.value IS DISTINCT FROM other.value)::INT) AS differing
        FROM incumbent one JOIN incumbent other USING (decision_id, level)
        WHERE one.replicate < other.replicate GROUP BY ALL),
    candidate AS ({_levels("changed", "compared", "decision_id, boundary, stream")})
    SELECT boundary, stream, level, count(*) AS decisions, avg(differing) AS noise,
        avg(value::INT) AS candidate, avg(value::INT) - avg(differing) AS excess
    FROM one JOIN candidate USING (decision_id, level) GROUP BY ALL ORDER BY excess DESC;
"""


@dataclass(frozen=True, slots=True)
class Table:
    """A table of a run."""

    columns: Columns
    rows: Iterable[Any]
    """What `columns` take their values from."""


def write_store(folder: Path, result: ForcedResult, run: Mapping[str, Any]) -> Path:
    """Write a run's database and Parquet files. They take the place of an earlier run's when all are written.

    Args:
        folder: Of the run.
        result: What came out.
        run: The `run` table's row, JSON data; other names are passed over.

    Returns:
        Path of the DuckDB file.

    Raises:
        BadInput: The folder cannot be written. A process that has an earlier run's database open keeps that one.
    """
    run_id, found = result.run_id, result.pairs
    tables = {
        "pairs": Table(columns.pairs(run_id), found),
        "floor": Table(columns.floor(run_id), columns.floor_rows(found)),
        "strata": Table(columns.strata(run_id), result.judged.strata),
        "changes": Table(columns.changes(run_id), columns.change_rows(found)),
        "reads": Table(columns.reads(run_id), columns.read_rows(found)),
        "run": Table(columns.RUN, [{name: run.get(name) for name in columns.RUN}]),
    }
    return write_tables(folder, tables, VIEWS)


def write_tables(folder: Path, tables: Mapping[str, Table], views: str) -> Path:
    """Write tables as a database and as Parquet files, whole or not at all.

    Args:
        folder: Of the run.
        tables: By name.
        views: Statements of SQL that are run when all tables are there.

    Returns:
        Path of the DuckDB file.

    Raises:
        BadInput: As `write_store`.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=folder, prefix=".writing-", ignore_cleanup_errors=True) as name:
            for file in _write(Path(name), tables, views):
                file.replace(folder / file.name)
    except (OSError, duckdb.Error) as error:
        mend = "make room or free the folder, then run the same command: no call is paid again"
        raise BadInput(f"{folder}: {first_line(error)}", mend) from error
    return folder / DATABASE


def _write(folder: Path, tables: Mapping[str, Table], views: str) -> list[Path]:
    files = [folder / DATABASE]
    with duckdb.connect(str(files[0])) as db:
        db.execute("BEGIN")
        for name, table in tables.items():
            load(db, name, table.columns, table.rows)
            files.append(folder / f"{name}.parquet")
            db.execute(f"COPY {name} TO {sql_text(files[-1])} ({PARQUET})")
        db.execute(views)
        db.execute("COMMIT")
    return files


def query(path: Path, sql: str) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Column names and rows of a query over a run's database, opened read-only.

    Raises:
        BadInput: No such database, one that another process is writing to, or DuckDB refuses the query.
    """
    if not path.exists():
        raise BadInput(f"there is no database at {path}", "run `driftline replay` first")
    try:
        db = duckdb.connect(str(path), read_only=True)
    except duckdb.Error as error:
        mend = "end the process that writes to it, or read the Parquet files beside it"
        raise BadInput(f"{path} cannot be opened: {first_line(error)}", mend) from error
    try:
        found = db.execute(sql)
        if found is None:  # an empty statement
            raise BadInput("the statement is empty", "for example driftline sql 'FROM by_stream'")
        return [column[0] for column in found.description or ()], found.fetchall()
    except duckdb.Error as error:
        raise BadInput(f"DuckDB: {first_line(error)}", "`SHOW TABLES` and `DESCRIBE pairs` tell the names") from error
    finally:
        db.close()
