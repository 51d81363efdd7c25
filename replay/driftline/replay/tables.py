"""Filling a DuckDB table from Python's rows: through one JSON file, since a statement a row is far slower."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import duckdb

from driftline.replay.plain import json_line, sql_text

OBJECT_BYTES_MIN = 1 << 20
"""DuckDB's buffers are as large as the longest row is said to be: small rows need little memory."""


def load(
    db: duckdb.DuckDBPyConnection,
    table: str,
    columns: Mapping[str, str],
    rows: Iterable[Mapping[str, Any]],
    folder: Path,
) -> None:
    """Create a table and fill it.

    Args:
        db: Where.
        table: Its name.
        columns: Name to DuckDB type.
        rows: Name to JSON data; a name that is absent is null.
        folder: For the file between, which is as large as the rows are as text.
    """
    described = ", ".join(f'"{name}" {kind}' for name, kind in columns.items())
    db.execute(f"CREATE TABLE {table} ({described})")
    longest = 0
    with NamedTemporaryFile(suffix=".jsonl", dir=folder) as file:
        for row in rows:
            line = json_line(row)
            longest = max(longest, len(line))
            file.write(line)
        file.flush()
        if longest:
            typed = ", ".join(f"{sql_text(name)}: {sql_text(kind)}" for name, kind in columns.items())
            bytes_max = max(OBJECT_BYTES_MIN, longest + 1)
            source = f"read_json({sql_text(file.name)}, format='newline_delimited', columns={{{typed}}}"
            db.execute(f"INSERT INTO {table} FROM {source}, maximum_object_size={bytes_max})")
