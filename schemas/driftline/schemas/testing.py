"""Hypothesis strategies of Avro data, for property tests of contracts: an app's own and driftline's.

Needs `hypothesis`, which driftline itself does not; nothing in driftline imports this module.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from hypothesis import strategies as st

from driftline.schemas.contracts import Contract
from driftline.schemas.times import to_utc_millis

ITEMS_MAX = 3
"""Longest array and map: enough to tell none, one and several apart."""

_FIRST, _LAST = datetime(1970, 1, 2), datetime(9000, 1, 1)

_PRIMITIVES: Mapping[str, st.SearchStrategy[Any]] = {
    "null": st.none(),
    "boolean": st.booleans(),
    "int": st.integers(-(2**31), 2**31 - 1),
    "long": st.integers(-(2**63), 2**63 - 1),
    "float": st.floats(allow_nan=False, allow_infinity=False, width=32),
    "double": st.floats(allow_nan=False, allow_infinity=False),
    "bytes": st.binary(max_size=20),
    "string": st.text(max_size=20),
}


def values_of(contract: Contract) -> st.SearchStrategy[dict[str, Any]]:
    """Values of a contract's latest version, every field given; times in UTC with milliseconds.

    Of the logical types timestamp-millis and date are known; the others come as their underlying type.
    """
    return _of(contract.parsed, contract.parsed["__named_schemas"])


def _of(schema: Any, names: Mapping[str, Any]) -> st.SearchStrategy[Any]:
    if isinstance(schema, list):
        return st.one_of([_of(branch, names) for branch in schema])
    if isinstance(schema, str):
        return _PRIMITIVES[schema] if schema in _PRIMITIVES else _of(names[schema], names)
    if schema.get("logicalType") == "timestamp-millis":
        return st.datetimes(_FIRST, _LAST, timezones=st.just(UTC)).map(to_utc_millis)
    if schema.get("logicalType") == "date":
        return st.dates()
    match schema["type"]:
        case "record":
            return st.fixed_dictionaries({field["name"]: _of(field["type"], names) for field in schema["fields"]})
        case "array":
            return st.lists(_of(schema["items"], names), max_size=ITEMS_MAX)
        case "map":
            return st.dictionaries(_PRIMITIVES["string"], _of(schema["values"], names), max_size=ITEMS_MAX)
        case "enum":
            return st.sampled_from(schema["symbols"])
        case "fixed":
            return st.binary(min_size=schema["size"], max_size=schema["size"])
        case other:
            return _of(other, names)
