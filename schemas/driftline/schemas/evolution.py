"""Whether the versions of a contract are FULL_TRANSITIVE: every one reads every other one.

Two judges, and a change passes only if both let it pass. The walk below follows the resolution rules of the Avro
specification and can name the field. `avro.compatibility` is the field's own implementation of the same rules; it
loses the place of a break inside a union, so alone it would pass over it in silence.

Beyond the specification the walk refuses what resolves and yet comes out as something else:

- a change of logical type, precision or scale: the bytes are read as another quantity;
- `string` to `bytes` and back, which Avro calls a promotion: bytes need not be UTF-8;
- a default that does not fit its field: fastavro and Avro's Python library take it, Java's refuses it, and a reader
  would get a value of the wrong type.

What neither judge sees: a field that is renamed, or removed and re-added with another meaning, under defaults on both
sides. Each version then reads the other, and finds the default instead of the value.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import permutations
from typing import Any

from fastavro.validation import validate

from driftline.schemas.contracts import AvroSchema, Contract, parse_record
from driftline.schemas.errors import ContractError

PROMOTIONS = {
    "int": {"long", "float", "double"},
    "long": {"float", "double"},
    "float": {"double"},
}
"""What a written number may be read as. Each goes one way only, so none of them survives FULL."""

_LOGICAL = ("logicalType", "precision", "scale")
_ROOT = "(the record itself)"

Found = Iterator[tuple[str, str]]
"""(dotted field, reason) of each obstacle."""


@dataclass(frozen=True, slots=True)
class Break:
    """One reason why one version cannot read another."""

    record: str
    """Record name."""
    reader_version: int
    """The version that fails to read."""
    writer_version: int
    """The version that was written."""
    field: str
    """The field at fault, dotted from the record's root."""
    reason: str
    """What the Avro specification's resolution rules object to."""

    def __str__(self) -> str:
        """One line for a person."""
        return (
            f"{self.record}: version {self.reader_version} cannot read version {self.writer_version}: "
            f"field {self.field}: {self.reason}"
        )


def breaks(contract: Contract) -> list[Break]:
    """Every pair of versions that cannot read each other, with the field; empty when FULL_TRANSITIVE holds.

    Source: Avro 1.12 specification, "Schema Resolution".

    Raises:
        ContractError: A version is no schema that Avro's own library accepts.
    """
    return [
        Break(contract.name, i, j, at or _ROOT, reason)
        for (i, reader), (j, writer) in permutations(enumerate(_readable(contract), 1), 2)
        for at, reason in obstacles(reader, writer)
    ]


def breaks_between(contract: Contract, other: AvroSchema, called: str) -> list[str]:
    """Why a schema from elsewhere and the contract's versions cannot read each other; a line each, for a person."""
    lines = []
    for number, version in enumerate(_readable(contract), 1):
        for reader, reads, writer, wrote in (
            (version, f"version {number}", other, called),
            (other, called, version, f"version {number}"),
        ):
            for at, reason in obstacles(reader, writer):
                lines.append(f"{contract.name}: {reads} cannot read {wrote}: field {at or _ROOT}: {reason}")
    return lines


def obstacles(reader: AvroSchema, writer: AvroSchema) -> list[tuple[str, str]]:
    """Why a reader cannot read what a writer wrote: (dotted field, reason) each; empty when it can."""
    found = list(dict.fromkeys(_Resolution(reader, writer).walk()))
    return found or [("", message) for message in _second_opinion(reader, writer)]


def _readable(contract: Contract) -> list[AvroSchema]:
    """The versions, each of them accepted by both libraries."""
    for number, version in enumerate(contract.versions, 1):
        try:
            parse_record(version)
            _avro_parse(version)
        except Exception as error:
            raise ContractError(f"{contract.name}: version {number} is not valid Avro: {error}") from error
    return list(contract.versions)


def _avro_parse(schema: AvroSchema) -> Any:
    from avro.schema import parse

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Logical types that the library does not know; the walk compares them.
        return parse(json.dumps(schema))


def _second_opinion(reader: AvroSchema, writer: AvroSchema) -> list[str]:
    from avro.compatibility import ReaderWriterCompatibilityChecker, SchemaCompatibilityType

    checker: Any = ReaderWriterCompatibilityChecker()  # type: ignore[no-untyped-call]
    result = checker.get_compatibility(_avro_parse(reader), _avro_parse(writer))
    if result.compatibility is SchemaCompatibilityType.compatible:
        return []
    return sorted(result.messages) or ["Avro's library finds it incompatible"]


class _Resolution:
    """One reader schema held against one writer schema."""

    def __init__(self, reader: AvroSchema, writer: AvroSchema) -> None:
        self._reader = parse_record(reader)
        self._writer = parse_record(writer)
        self._reader_names: Mapping[str, Any] = self._reader["__named_schemas"]
        self._writer_names: Mapping[str, Any] = self._writer["__named_schemas"]

    def walk(self) -> Found:
        """Every obstacle, in the order of the reader's fields."""
        return self._resolve(self._reader, self._writer, "")

    def _resolve(self, reader: Any, writer: Any, at: str) -> Found:
        reader, writer = _look_up(reader, self._reader_names), _look_up(writer, self._writer_names)
        if isinstance(writer, list):
            for branch in writer:
                yield from self._resolve(reader, branch, at)
        elif isinstance(reader, list):
            yield from self._into_union(reader, writer, at)
        else:
            yield from self._one_type(reader, writer, at)

    def _into_union(self, reader: list[Any], writer: Any, at: str) -> Found:
        tried = [list(self._resolve(branch, writer, at)) for branch in reader]
        if not all(tried):
            return
        alike = [
            found
            for branch, found in zip(reader, tried, strict=True)
            if _answers_to(_look_up(branch, self._reader_names)) & _names(writer)
        ]
        yield from alike[0] if alike else [(at, f"{_kind_text(writer)} was written and its union has no such branch")]

    def _one_type(self, reader: Any, writer: Any, at: str) -> Found:
        kind, written = _kind(reader), _kind(writer)
        if kind != written:
            if kind in PROMOTIONS.get(written, ()):
                yield from self._logical_type(reader, writer, at)
            else:
                yield at, f"it expects {_kind_text(reader)} and {_kind_text(writer)} was written"
            return
        yield from self._logical_type(reader, writer, at)
        if kind in {"record", "enum", "fixed"} and not _answers_to(reader) & _names(writer):
            yield at, f"its type's name changed from {writer['name']} to {reader['name']}"
        elif kind == "record":
            yield from self._record(reader, writer, at)
        elif kind == "enum":
            yield from self._enum(reader, writer, at)
        elif kind == "fixed" and reader["size"] != writer["size"]:
            yield at, f"it expects {reader['size']} bytes and {writer['size']} were written"
        elif kind in {"array", "map"}:
            inner = "items" if kind == "array" else "values"
            yield from self._resolve(reader[inner], writer[inner], at)

    def _logical_type(self, reader: Any, writer: Any, at: str) -> Found:
        expected, written = _logical(reader), _logical(writer)
        if expected != written:
            yield at, f"it expects {expected or 'no logical type'} and {written or 'none'} was written"

    def _enum(self, reader: Any, writer: Any, at: str) -> Found:
        unknown = [symbol for symbol in writer["symbols"] if symbol not in reader["symbols"]]
        if unknown and "default" not in reader:
            yield at, f"it does not know the enum symbol {', '.join(unknown)} and has no default symbol"

    def _record(self, reader: Any, writer: Any, at: str) -> Found:
        written = {field["name"]: field for field in writer["fields"]}
        for field in reader["fields"]:
            where = f"{at}.{field['name']}" if at else str(field["name"])
            names = (field["name"], *field.get("aliases", ()))
            source = next((written[name] for name in names if name in written), None)
            if source is not None:
                yield from self._resolve(field["type"], source["type"], where)
            elif "default" not in field:
                yield where, "it was not written and has no default"
            elif not _fits(field["default"], field["type"], self._reader_names):
                yield (
                    where,
                    f"it was not written and its default {json.dumps(field['default'])} does not fit its type",
                )


def _look_up(schema: Any, names: Mapping[str, Any]) -> Any:
    while isinstance(schema, str) and schema in names:
        schema = names[schema]
    while isinstance(schema, dict) and not isinstance(schema["type"], str):
        schema = schema["type"]
    return schema


def _kind(schema: Any) -> str:
    return str(schema if isinstance(schema, str) else schema["type"])


def _kind_text(schema: Any) -> str:
    """A type as a person calls it: `null`, `enum renewals.Tier`."""
    return f"{_kind(schema)} {schema['name']}" if isinstance(schema, dict) and "name" in schema else _kind(schema)


def _names(schema: Any) -> set[str]:
    """What a type is called; by the specification the unqualified name is enough."""
    if not isinstance(schema, dict) or "name" not in schema:
        return {_kind(schema)}
    return {schema["name"], schema["name"].rpartition(".")[2]}


def _answers_to(schema: Any) -> set[str]:
    """The names under which a reader's type is found: its own and its aliases."""
    return _names(schema) | set(schema.get("aliases", ()) if isinstance(schema, dict) else ())


def _logical(schema: Any) -> str:
    if not isinstance(schema, dict) or "logicalType" not in schema:
        return ""
    return " ".join(str(schema[name]) for name in _LOGICAL if name in schema)


def _fits(default: Any, schema: Any, names: Mapping[str, Any]) -> bool:
    """Whether a field's default is one; of a union the first branch counts, as all libraries agree."""
    schema = _look_up(schema[0] if isinstance(schema, list) else schema, names)
    if _kind(schema) in {"bytes", "fixed"}:
        return isinstance(default, str)
    named = {"__fastavro_parsed": True, "__named_schemas": dict(names)}
    known = {**schema, **named} if isinstance(schema, dict) else schema
    return bool(validate(default, known, raise_errors=False, strict=True))
