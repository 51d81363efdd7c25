"""The shape of a proposal's payload: what an Avro record asks of JSON data, and the JSON Schema shown to a model.

Field attributes that driftline reads in an `.avsc` (Avro allows any):

- `compare`: how the action level compares the field (see `comparing`);
- `scale`: `[lo, hi]`, the range over which a number is compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from driftline.schemas.comparing import Comparators, check_comparator
from driftline.schemas.contracts import Contract
from driftline.schemas.errors import ContractError
from driftline.schemas.fitting import fits_of, primitive_of
from driftline.schemas.rejection import Rejection, RejectionCode

_JSON_TYPES = {
    "boolean": "boolean",
    "int": "integer",
    "long": "integer",
    "float": "number",
    "double": "number",
}


class Shape:
    """One record type as a payload of JSON data.

    Raises:
        ContractError: The record holds a type that JSON cannot carry (bytes, fixed, logical types), or is no safe
            contract at all (see `parse_record`).
    """

    def __init__(self, contract: Contract) -> None:
        self.contract = contract
        self._named: dict[str, Any] = {}
        self._json_schema = self._to_json_schema(contract.parsed, contract.name)
        self._comparators = Comparators(contract.parsed)
        self._fits = fits_of(contract.parsed, self._named)

    def json_schema(self) -> dict[str, Any]:
        """JSON Schema of the payload: closed objects with every field required, as strict structured output asks.

        Looser than `mismatches` in one point: it bounds no number, because not every provider takes bounds.
        Stricter in one: a field with a default is required too.
        """
        return self._json_schema

    def compared(self, payload: Mapping[str, Any]) -> dict[str, Any]:
        """What of a payload that fits is compared at the action level, as the fields' `compare` declares."""
        return self._comparators.compared(payload)

    def mismatches(self, payload: Any, at: str = "") -> list[Rejection]:
        """Every way in which the payload does not fit, with the JSON Pointer below `at`; empty when it fits.

        Unknown fields are refused, and no type is coerced but an integer where a double is asked. What fits can be
        encoded.
        """
        return [] if self._fits(payload) else list(self._check(self.contract.parsed, payload, at))

    def _check(self, schema: Any, value: Any, at: str) -> Iterator[Rejection]:
        if isinstance(schema, list):
            return self._check_union(schema, value, at)
        if isinstance(schema, str) and schema not in self._named:
            return self._check_primitive(schema, value, at)
        schema = self._named[schema] if isinstance(schema, str) else schema
        checks = {
            "record": self._check_record,
            "array": self._check_array,
            "map": self._check_map,
            "enum": self._check_enum,
        }
        check = checks.get(schema["type"])
        return self._check(schema["type"], value, at) if check is None else check(schema, value, at)

    def _check_primitive(self, kind: str, value: Any, at: str) -> Iterator[Rejection]:
        if not primitive_of(kind)(value):
            yield self._reject(at, kind, value)

    def _check_enum(self, schema: Mapping[str, Any], value: Any, at: str) -> Iterator[Rejection]:
        if value not in schema["symbols"]:
            yield self._reject(at, "one of " + ", ".join(schema["symbols"]), value)

    def _check_record(self, schema: Mapping[str, Any], value: Any, at: str) -> Iterator[Rejection]:
        if not isinstance(value, dict):
            yield self._reject(at, "an object", value)
            return
        fields = {field["name"]: field for field in schema["fields"]}
        for name, field in fields.items():
            where = f"{at}/{_escape(name)}"
            if name in value:
                yield from self._check(field["type"], value[name], where)
            elif "default" not in field:
                yield self._reject(where, "a value", "nothing")
        for name in sorted(value.keys() - fields.keys(), key=str):
            yield self._reject(f"{at}/{_escape(name)}", "no such field", value[name])

    def _check_array(self, schema: Mapping[str, Any], value: Any, at: str) -> Iterator[Rejection]:
        if not isinstance(value, list):
            yield self._reject(at, "an array", value)
            return
        for index, item in enumerate(value):
            yield from self._check(schema["items"], item, f"{at}/{index}")

    def _check_map(self, schema: Mapping[str, Any], value: Any, at: str) -> Iterator[Rejection]:
        if not isinstance(value, dict):
            yield self._reject(at, "an object", value)
            return
        for name, item in value.items():
            if primitive_of("string")(name):
                yield from self._check(schema["values"], item, f"{at}/{_escape(name)}")
            else:
                yield self._reject(f"{at}/{_escape(name)}", "a string as key", name)

    def _check_union(self, branches: list[Any], value: Any, at: str) -> Iterator[Rejection]:
        refused = [list(self._check(branch, value, at)) for branch in branches if branch != "null"]
        if (value is None and "null" in branches) or not all(refused):
            return
        if len(refused) == 1:
            yield from refused[0]
        else:
            yield self._reject(at, "one of the union's types", value)

    def _reject(self, at: str, expected: str, actual: Any) -> Rejection:
        return Rejection(
            code=RejectionCode.SCHEMA_MISMATCH,
            path=at,
            expected=expected,
            actual=_short(actual),
            rule_id="schema",
            rule_version=self.contract.fingerprint[:16],
            message=f"{at or 'the payload'} of {self.contract.name}: expected {expected}",
        )

    def _to_json_schema(self, schema: Any, where: str) -> dict[str, Any]:
        if isinstance(schema, str):
            return self._named_schema(schema, where)
        if isinstance(schema, list):
            return {"anyOf": [self._to_json_schema(branch, where) for branch in schema]}
        kind = schema["type"]
        if "logicalType" in schema or kind in {"fixed", "bytes"}:
            raise ContractError(f"{where}: a proposal cannot hold {schema.get('logicalType', kind)}", "use a string")
        if kind == "record":
            return self._record_schema(schema, where)
        if kind == "array":
            return {"type": "array", "items": self._to_json_schema(schema["items"], where)}
        if kind == "map":
            return {"type": "object", "additionalProperties": self._to_json_schema(schema["values"], where)}
        if kind == "enum":
            self._named[schema["name"]] = schema
            return {"type": "string", "enum": list(schema["symbols"])}
        return self._to_json_schema(kind, where)

    def _record_schema(self, schema: Mapping[str, Any], where: str) -> dict[str, Any]:
        self._named[schema["name"]] = schema
        properties = {}
        for field in schema["fields"]:
            described = self._to_json_schema(field["type"], f"{where}.{field['name']}")
            _check_scale(field, where)
            check_comparator(field, where)
            if "doc" in field:
                described = {**described, "description": field["doc"]}
            properties[field["name"]] = described
        return {
            "type": "object",
            "properties": properties,
            "required": list(properties),
            "additionalProperties": False,
        }

    def _named_schema(self, name: str, where: str) -> dict[str, Any]:
        if name in self._named:
            return self._to_json_schema(self._named[name], where)
        if name in {"null", "string"}:
            return {"type": name}
        if name in _JSON_TYPES:
            return {"type": _JSON_TYPES[name]}
        raise ContractError(f"{where}: a proposal cannot hold {name}", "use a string")


def _check_scale(field: Mapping[str, Any], where: str) -> None:
    match field.get("scale", [0, 1]):
        case [int() | float() as low, int() | float() as high] if low < high:
            return
    raise ContractError(f"{where}.{field['name']}: scale is not [lo, hi] with lo < hi", "for example [0, 100]")


def _escape(name: Any) -> str:
    """A name as a JSON Pointer token (RFC 6901)."""
    return str(name).replace("~", "~0").replace("/", "~1")


def _short(value: Any, characters_max: int = 120) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= characters_max else text[: characters_max - 1] + "…"
