"""What of a payload is compared: the comparators that an `.avsc` declares for its fields, at any depth.

`"compare"` of a field is one of

- `"exact"`, the default: equal JSON is equal;
- `"free-text"`: left out;
- `"set"`, of an array: order and repetition do not count;
- `{"tolerance": width}`, of a number: rounded to the nearest multiple of `width`.

Answers of many arms are compared with one another by hash, so equality has to be transitive, which "no further apart
than" is not. Hence the rounding: numbers more than a width apart always differ; closer ones are equal unless the
middle between two multiples lies between them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

from driftline.schemas.canonical import INTEGER_MAX, canonical_json
from driftline.schemas.errors import ContractError, NotCanonical

EXACT, FREE_TEXT, SET, TOLERANCE = "exact", "free-text", "set", "tolerance"
NUMBERS = frozenset({"int", "long", "float", "double"})


def check_comparator(field: Mapping[str, Any], where: str) -> None:
    """Refuse a comparator that is none, or that does not fit the field's type.

    Raises:
        ContractError: Names the field below `where`.
    """
    kinds = set(_kinds(field["type"])) - {"null"}
    match field.get("compare", EXACT):
        case "exact" | "free-text":
            return
        case "set" if kinds == {"array"}:
            return
        case {"tolerance": int() | float() as width} if kinds <= NUMBERS and _is_width(width, field["compare"]):
            return
    raise ContractError(
        f"{where}.{field['name']}: compare is not declared as its type can be compared",
        'write "exact", "free-text", "set" for an array, or {"tolerance": 0.5} for a number',
    )


class Comparators:
    """The comparators of one record type, as fastavro has parsed it."""

    def __init__(self, parsed: Mapping[str, Any]) -> None:
        self._record = parsed
        self._named = {schema["name"]: schema for schema in _walk(parsed) if "name" in schema}
        fields = (field for schema in self._named.values() for field in schema.get("fields", ()))
        self._declared = any("compare" in field for field in fields)

    def compared(self, payload: Mapping[str, Any]) -> dict[str, Any]:
        """The payload reduced to what is compared, names sorted. The payload must fit the record.

        What was reduced once is not reduced further.
        """
        if not self._declared:
            return dict(sorted(payload.items()))
        reduced: dict[str, Any] = self._reduce_record(self._record, payload)
        return reduced

    def _reduce(self, schema: Any, value: Any) -> Any:
        schema = self._branch(schema, value) if isinstance(schema, list) else schema
        schema = self._named.get(schema) if isinstance(schema, str) else schema
        if schema is None or value is None:
            return value
        match schema["type"]:
            case "record":
                return self._reduce_record(schema, value)
            case "array":
                return [self._reduce(schema["items"], item) for item in value]
            case "map":
                return {name: self._reduce(schema["values"], item) for name, item in value.items()}
            case dict() as written_out:
                return self._reduce(written_out, value)
        return value

    def _reduce_record(self, schema: Mapping[str, Any], value: Mapping[str, Any]) -> dict[str, Any]:
        fields = {field["name"]: field for field in schema["fields"]}
        kept = {name: item for name, item in sorted(value.items()) if fields[name].get("compare") != FREE_TEXT}
        return {name: self._reduce_field(fields[name], item) for name, item in kept.items()}

    def _reduce_field(self, field: Mapping[str, Any], value: Any) -> Any:
        reduced = self._reduce(field["type"], value)
        compare = field.get("compare", EXACT)
        if reduced is None or compare == EXACT:
            return reduced
        return as_set(reduced) if compare == SET else rounded(reduced, compare[TOLERANCE])

    def _branch(self, branches: Sequence[Any], value: Any) -> Any:
        """The branch of a union that a value without a tag is of; None where its type alone settles nothing."""
        for branch in branches:
            schema = self._named.get(branch) if isinstance(branch, str) else branch
            if schema is None:
                continue
            kind = schema["type"]
            if kind == "array" and isinstance(value, list):
                return schema
            if kind == "map" and isinstance(value, dict):
                return schema
            if kind == "record" and isinstance(value, dict) and _has_fields(schema, value):
                return schema
        return None


def as_set(items: Sequence[Any]) -> list[Any]:
    """The items, each once, in the order of their canonical JSON."""
    return [item for _, item in sorted({_sort_key(item): item for item in items}.items())]


def rounded(number: float, width: float) -> float:
    """The multiple of `width` that is nearest; a number too large for that stays as it is."""
    steps = number / width
    if not math.isfinite(steps) or abs(steps) > INTEGER_MAX:
        return number
    multiple = Decimal(str(width)) * math.floor(steps + 0.5)
    return int(multiple) if multiple == multiple.to_integral_value() else float(multiple)


def _is_width(width: float, declared: Mapping[str, Any]) -> bool:
    return len(declared) == 1 and 0 < width < math.inf


def _sort_key(item: Any) -> str:
    try:
        return canonical_json(item)
    except NotCanonical:
        return json.dumps(item, sort_keys=True)


def _has_fields(schema: Mapping[str, Any], value: Mapping[str, Any]) -> bool:
    fields = {field["name"] for field in schema["fields"]}
    required = {field["name"] for field in schema["fields"] if "default" not in field}
    return required <= value.keys() <= fields


def _walk(schema: Any) -> Iterator[Mapping[str, Any]]:
    """Every schema within a schema that is written out."""
    if isinstance(schema, list):
        for branch in schema:
            yield from _walk(branch)
    elif isinstance(schema, Mapping):
        yield schema
        inner = [field["type"] for field in schema.get("fields", ())]
        for each in (*inner, schema.get("items"), schema.get("values"), schema.get("type")):
            yield from _walk(each)


def _kinds(type_: Any) -> Iterator[str]:
    """The types that a value of a field may have."""
    if isinstance(type_, str):
        yield type_
    elif isinstance(type_, list):
        for branch in type_:
            yield from _kinds(branch)
    else:
        yield from _kinds(type_["type"])
