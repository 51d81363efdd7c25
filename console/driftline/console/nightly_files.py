"""A night's Parquet: `nights/<app>/date=YYYY-MM-DD/<table>-<run>.parquet`, for whoever looks at many nights."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import duckdb

from driftline.replay.plain import first_line, sql_text
from driftline.replay.store import PARQUET
from driftline.replay.tables import columns_of, load
from driftline.schemas import BadInput

STANDING = columns_of(
    {
        **dict.fromkeys(("night", "app", "run_id", "baseline", "candidate", "stratum", "level"), "VARCHAR"),
        "events": "BIGINT",
        **dict.fromkeys(("e_value", "change", "low", "high"), "DOUBLE"),
        "named": "BOOLEAN",
    }
)
"""Where the evidence of all nights stood after one of them, a row a stratum and level."""


def keep_parquet(folder: Path, run: Path, night: str, app: str, part: Mapping[str, Any]) -> list[Path]:
    """Put a run's Parquet among the night's, and beside it where its evidence stands; each file whole or not at all.

    Raises:
        BadInput: The folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        kept = [_copied(table, folder, run.name) for table in sorted(run.glob("*.parquet"))]
        return [*kept, _standing(folder, list(_rows(night, app, part)), run.name)]
    except (OSError, duckdb.Error) as error:
        mend = "make room or free the folder, then run the same command: no call is paid again"
        raise BadInput(f"{folder}: {first_line(error)}", mend) from error


def _copied(table: Path, folder: Path, run_id: str) -> Path:
    kept = folder / f"{table.stem}-{run_id}.parquet"
    beside = folder / f".{kept.name}.writing"
    shutil.copyfile(table, beside)
    return beside.replace(kept)


def _standing(folder: Path, rows: list[dict[str, Any]], run_id: str) -> Path:
    kept = folder / f"standing-{run_id}.parquet"
    beside = folder / f".{kept.name}.writing"
    with duckdb.connect() as db:
        load(db, "standing", STANDING, rows)
        db.execute(f"COPY standing TO {sql_text(beside)} ({PARQUET})")
    return beside.replace(kept)


def _rows(night: str, app: str, part: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    baseline, candidate = part["arms"]
    arms = {"night": night, "app": app, "run_id": part["run_id"], "baseline": baseline, "candidate": candidate}
    for stratum in part.get("strata", ()):
        low, high = stratum["interval"]
        for level, e_value in stratum["e_values"].items():
            yield {
                **arms,
                "stratum": stratum["stratum"],
                "level": level,
                "events": stratum["events"],
                "e_value": e_value,
                "change": stratum["change"],
                "low": low,
                "high": high,
                "named": level in stratum["named"],
            }
