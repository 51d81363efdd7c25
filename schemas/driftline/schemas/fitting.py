"""Whether JSON data fits an Avro type: one function made of the schema once, which says yes or no and not why.

Most payloads fit, and to look for reasons takes several times as long.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

from driftline.schemas.fields import escape_surrogates

INT_BITS = {"int": 32, "long": 64}
FLOAT_MAX = {"float": 3.4028234663852886e38, "double": sys.float_info.max}

Fits = Callable[[Any], bool]


def fits_of(schema: Any, named: Mapping[str, Any]) -> Fits:
    """The function of a type as fastavro has parsed it. No type is coerced but an integer where a double is asked.

    Args:
        schema: The type; not recursive.
        named: Records and enums by full name.
    """
    if isinstance(schema, list):
        return _union([fits_of(branch, named) for branch in schema])
    if isinstance(schema, str):
        return fits_of(named[schema], named) if schema in named else primitive_of(schema)
    match schema["type"]:
        case "record":
            return _record([(one["name"], fits_of(one["type"], named), "default" in one) for one in schema["fields"]])
        case "array":
            return _array(fits_of(schema["items"], named))
        case "map":
            return _map(fits_of(schema["values"], named))
        case "enum":
            return schema["symbols"].__contains__  # type: ignore[no-any-return]  # a list: no value need be hashable
    return fits_of(schema["type"], named)


def primitive_of(kind: str) -> Fits:
    """The function of a primitive type."""
    match kind:
        case "null":
            return lambda value: value is None
        case "boolean":
            return lambda value: isinstance(value, bool)
        case "string":
            return _is_text
        case "int" | "long":
            return _integer(1 << (INT_BITS[kind] - 1))
    return _number(FLOAT_MAX[kind])


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and (value.isascii() or escape_surrogates(value) == value)


def _integer(bound: int) -> Fits:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and -bound <= value < bound


def _number(most: float) -> Fits:
    """Integers of any length compare, and NaN never does."""
    return lambda value: isinstance(value, (float, int)) and not isinstance(value, bool) and abs(value) <= most


def _union(branches: list[Fits]) -> Fits:
    if len(branches) == 2:
        one, other = branches
        return lambda value: one(value) or other(value)
    return lambda value: any(fits(value) for fits in branches)


def _array(items: Fits) -> Fits:
    return lambda value: isinstance(value, list) and all(map(items, value))


def _map(values: Fits) -> Fits:
    return lambda value: isinstance(value, dict) and all(map(_is_text, value)) and all(map(values, value.values()))


def _record(fields: list[tuple[str, Fits, bool]]) -> Fits:
    def fits(value: Any) -> bool:
        if not isinstance(value, dict):
            return False
        known = 0
        for name, field_fits, has_default in fields:
            if name in value:
                if not field_fits(value[name]):
                    return False
                known += 1
            elif not has_default:
                return False
        return known == len(value)

    return fits
