"""Whether a payload fits its Avro record, told by the field before anything is sent."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from textwrap import shorten
from typing import Any

from fastavro.validation import ValidationError, validate

from driftline.schemas import Contract, ContractError

TEXT_CHARACTERS_MAX = 80
"""Of a value or a type in an error."""

Unknown = Callable[[Any], str | None]
"""The dotted name of the first field of a value that the schema does not have; None when there is none."""


class PayloadCheck:
    """Checks payloads of one record type: types by fastavro, which passes unknown fields over, and those by name.

    Attributes:
        schema: The Avro schema that payloads are held against.
    """

    def __init__(self, contract: Contract) -> None:
        self.schema = contract.latest
        self._contract = contract
        self._parsed = contract.parsed
        self._unknown = _record_walk(contract.latest, {})

    def __call__(self, data: Mapping[str, Any]) -> None:
        """Check one payload.

        Raises:
            ContractError: It does not fit; names the field.
        """
        try:
            validate(data, self._parsed, raise_errors=True)
        except ValidationError as error:
            raise ContractError(_mismatch(error)) from None
        unknown = self._unknown(data)
        if unknown is not None:
            raise ContractError(f"{self._contract.name}.{unknown} is no field of the record")


def _mismatch(error: ValidationError) -> str:
    first = error.errors[0]
    expected = first.schema if isinstance(first.schema, str) else json.dumps(first.schema, default=str)
    found = "nothing" if first.datum is None else repr(first.datum)
    return f"{first.field}: expected {_short(expected)}, found {_short(found)}"


def _short(text: str) -> str:
    return shorten(text, TEXT_CHARACTERS_MAX)


def _walk(schema: Any, named: dict[str, Unknown]) -> Unknown | None:
    """What looks for unknown fields in a value; None where the schema holds no record."""
    if isinstance(schema, str):
        return named.get(schema)
    if isinstance(schema, list):
        return _union_walk(schema, named)
    kind = schema["type"]
    if kind == "record":
        return _record_walk(schema, named)
    if kind in {"array", "map"}:
        return _many_walk(_walk(schema["items" if kind == "array" else "values"], named), kind == "map")
    return _walk(kind, named) if isinstance(kind, (dict, list)) else None


def _record_walk(schema: Mapping[str, Any], named: dict[str, Unknown]) -> Unknown:
    names: frozenset[str] = frozenset(field["name"] for field in schema["fields"])
    deeper: list[tuple[str, Unknown]] = []

    def walk(value: Any) -> str | None:
        if not value.keys() <= names:
            return str(min(value.keys() - names))
        for name, inner in deeper:
            found = inner(value[name]) if name in value else None
            if found is not None:
                return f"{name}.{found}"
        return None

    for name in (schema["name"], f"{schema.get('namespace', '')}.{schema['name']}"):
        named[name] = walk
    for field in schema["fields"]:
        inner = _walk(field["type"], named)
        if inner is not None:
            deeper.append((field["name"], inner))
    return walk


def _union_walk(branches: list[Any], named: dict[str, Unknown]) -> Unknown | None:
    """Of a nullable record; fastavro tells the records of a wider union apart by their fields."""
    walks = [walk for walk in (_walk(branch, named) for branch in branches) if walk is not None]
    if len(walks) != 1:
        return None
    return lambda value: None if value is None or not isinstance(value, (dict, list)) else walks[0](value)


def _many_walk(inner: Unknown | None, is_map: bool) -> Unknown | None:
    if inner is None:
        return None
    return lambda value: next((x for x in map(inner, value.values() if is_map else value) if x is not None), None)
