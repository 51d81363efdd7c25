"""JSON data that every reader takes: no infinities, no NaN, no lone surrogates; and one line out of an error."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from driftline.schemas.fields import escape_surrogates


def plain(value: Any) -> Any:
    """The value with null for what is no finite number, and lone surrogates escaped; tuples become lists."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return str(escape_surrogates(value))
    if isinstance(value, Mapping):
        return {plain(name): plain(item) for name, item in value.items()}
    if isinstance(value, Sequence):
        return [plain(item) for item in value]
    return value


def json_line(value: Any) -> bytes:
    """The value as one line of UTF-8 JSON; what JSON or UTF-8 refuses is made `plain` first."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False).encode() + b"\n"
    except ValueError:
        return json.dumps(plain(value), ensure_ascii=False).encode() + b"\n"


def first_line(error: Exception) -> str:
    """What an error says, without the excerpts that some libraries put below."""
    return str(error).strip().partition("\n")[0]


def sql_text(text: object) -> str:
    """A text as a literal of DuckDB's SQL, for the places that take no parameter."""
    return "'" + str(text).replace("'", "''") + "'"
