"""Filling a DuckDB table from Python's objects, column by column through numpy: a statement a row is far slower."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from operator import attrgetter
from types import NoneType
from typing import Any

import duckdb
import numpy as np
from pydantic_core import to_json

from driftline.replay.plain import json_line
from driftline.schemas.fields import escape_surrogates

ROWS_AT_ONCE = 4096
"""Two of DuckDB's vectors: more at once are no faster, and their columns are held as Python's lists."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table."""

    kind: str
    """DuckDB type: VARCHAR, JSON, DOUBLE, BIGINT, BOOLEAN, or TIMESTAMP of RFC 3339 text or of ms since 1970."""
    values: Callable[[Sequence[Any]], Sequence[Any]]
    """From what rows are made of to a value each; None is null, and so is a number that is not finite."""
    is_text: bool = False
    """Of a JSON column: whether its values are JSON text already."""


Columns = Mapping[str, Column]
"""Name to column, in order."""


def column_at(kind: str, path: str, then: Callable[[Any], Any] | None = None, *, is_text: bool = False) -> Column:
    """The column of what lies at a path of attributes, or of what a function makes of it."""
    get = attrgetter(path)
    if then is None:
        return Column(kind, lambda rows: list(map(get, rows)), is_text)
    return Column(kind, lambda rows: [then(value) for value in map(get, rows)], is_text)


def columns_of(kinds: Mapping[str, str]) -> Columns:
    """Columns of rows that are mappings; a name that is absent raises KeyError."""

    def column(name: str, kind: str) -> Column:
        return Column(kind, lambda rows: [row[name] for row in rows])

    return {name: column(name, kind) for name, kind in kinds.items()}


def json_text(value: Any) -> str:
    """The value as JSON, in UTF-8 and without what is no finite number."""
    try:
        return to_json(value, inf_nan_mode="null").decode()
    except ValueError:  # a lone surrogate
        return json_line(value).decode().rstrip("\n")


def create(db: duckdb.DuckDBPyConnection, table: str, columns: Columns) -> None:
    """Create an empty table."""
    described = ", ".join(f'"{name}" {column.kind}' for name, column in columns.items())
    db.execute(f"CREATE TABLE {table} ({described})")


def load(db: duckdb.DuckDBPyConnection, table: str, columns: Columns, items: Iterable[Any]) -> None:
    """Create a table and fill it, a row an item."""
    create(db, table, columns)
    left = iter(items)
    while chunk := list(islice(left, ROWS_AT_ONCE)):
        db.register("chunk", {name: _array(column, column.values(chunk)) for name, column in columns.items()})
        db.execute(f"INSERT INTO {table} BY NAME FROM chunk")
        db.unregister("chunk")


def _array(column: Column, values: Sequence[Any]) -> Any:
    if column.kind == "DOUBLE":
        numbers = np.array(values, float)  # None becomes NaN
        numbers[~np.isfinite(numbers)] = math.nan
        return numbers
    if column.kind == "TIMESTAMP" and set(map(type, values)) == {int}:
        return np.array(values, "datetime64[ms]")
    if column.kind in ("BIGINT", "BOOLEAN"):
        absent = [value is None for value in values] if None in values else False
        return np.ma.array([value or 0 for value in values], int if column.kind == "BIGINT" else bool, mask=absent)
    if column.kind == "JSON" and not column.is_text:
        values = [None if value is None else json_text(value) for value in values]
    texts = np.empty(len(values), object)
    texts[:] = values if _all_plain(values) else [None if text is None else _plain(text) for text in values]
    return texts


def _all_plain(values: Sequence[str | None]) -> bool:
    """Whether all are of exactly the type that DuckDB looks for, and have no lone surrogate, which UTF-8 refuses."""
    return set(map(type, values)) <= {str, NoneType} and all(map(str.isascii, filter(None, values)))


def _plain(text: str) -> str:
    return str(escape_surrogates(str(text)))
