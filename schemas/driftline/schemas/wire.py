"""Confluent wire format: magic 0, four bytes of schema id, the Avro body.

Schemas are resolved once an id and cached; a record costs one fastavro call. Records written with an older
version are read into the packaged one.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from fastavro import schemaless_reader, schemaless_writer
from fastavro.read import SchemaResolutionError
from fastavro.validation import ValidationError, validate

from driftline.schemas.contracts import AvroSchema, Contract, Contracts, avro_fingerprint, parse_record
from driftline.schemas.errors import ContractError, Undecodable, UndecodableReason
from driftline.schemas.pii import Protection, protection_of
from driftline.schemas.registry import Registry

MAGIC = 0
HEADER = struct.Struct(">bI")

_CORRUPT = (EOFError, ValueError, IndexError, KeyError, TypeError, ArithmeticError)
"""What fastavro raises on bytes that do not fit a schema (found by mutating records, see the tests).

Not MemoryError and RecursionError: `parse_record` admits no schema under which bytes can cause them, so they say
something of the process and nothing of the bytes.
"""

_MISFIT = (ValueError, TypeError, KeyError, AttributeError, ArithmeticError, IndexError)
"""What fastavro raises on a value that does not fit a schema."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """A record as it came off the wire."""

    name: str
    """Full record name."""
    value: dict[str, Any]
    """Fields."""
    schema_id: int
    """Id of the writer's schema."""


@dataclass(frozen=True, slots=True)
class _Reader:
    name: str
    writer: Any
    reader: Any
    protection: Protection | None


class Codec:
    """Encodes and decodes values of the log.

    Args:
        registry: Where schema ids come from.
        contracts: The packaged schemas.
        pii_key: Of the hashes that take the place of personal data, see `pii`.
    """

    def __init__(self, registry: Registry, contracts: Contracts, pii_key: bytes | None = None) -> None:
        self.registry = registry
        self.contracts = contracts
        self._pii_key = pii_key
        self._protections: dict[str, Protection | None] = {}
        self._headers: dict[tuple[str, str], bytes] = {}
        self._readers: dict[int, _Reader] = {}

    def encode(self, topic: str, name: str, value: Mapping[str, Any], *, prove: bool = False) -> bytes:
        """The value in wire format, under the packaged schema of `name`, personal data masked or hashed.

        Args:
            topic: Where it will be written; with `name` it decides the subject.
            name: Full record name.
            value: The fields. Unknown ones are refused; missing ones take the schema's default, or are refused.
            prove: Whether the types of all values are proved first, as values from outside need: fastavro alone
                writes 3.7 into an int as 3, "no" into a boolean as true, and 2^40 into an int that Java cannot read.
                It takes several times as long; what pydantic or `Shape` has proved does not need it.

        Raises:
            ContractError: No such record type, or the value does not fit it.
            UsageError: It holds personal data to be hashed, and there is no key.
            RegistryUnreachable: The id is not cached and the registry does not answer.
        """
        contract = self.contracts.require(name)
        value = self.protect(name, value)
        header = self._headers.get((topic, name))
        if header is None:
            header = HEADER.pack(MAGIC, self.registry.ensure(topic, contract))
            self._headers[topic, name] = header
        if prove:
            _prove(contract, value)
        out = BytesIO()
        out.write(header)
        try:
            schemaless_writer(out, contract.parsed, value, strict_allow_default=True, disable_tuple_notation=True)
        except _MISFIT as error:
            raise ContractError(f"the value does not fit {name}: {error}") from error
        return out.getvalue()

    def protect(self, name: str, value: Mapping[str, Any]) -> Mapping[str, Any]:
        """The fields as `encode` writes them: the value itself where it holds no personal data as it is.

        Raises:
            ContractError: No such record type, or its tags are wrong.
            UsageError: It holds personal data to be hashed, and there is no key.
        """
        if name not in self._protections:
            self._protections[name] = protection_of(self.contracts.require(name))
        protection = self._protections[name]
        return value if protection is None else protection(value, self._pii_key)

    def decode(self, data: bytes | None) -> Decoded:
        """The record that the bytes hold, personal data masked or hashed, whoever wrote them.

        Guaranteed: whatever the bytes, it ends soon, in memory of the order of their length. Not guaranteed: that
        corrupt bytes are noticed; Avro carries no checksum, and a changed digit is another digit.

        Raises:
            Undecodable: No retry will decode them.
            RegistryUnreachable: The schema id is new and the registry does not answer: retry later.
        """
        if data is None:
            raise Undecodable(UndecodableReason.NO_VALUE, "the record has no value")
        if len(data) < HEADER.size or data[0] != MAGIC:
            raise Undecodable(UndecodableReason.NOT_WIRE_FORMAT, f"{len(data)} bytes without magic 0 and a schema id")
        schema_id: int = HEADER.unpack_from(data)[1]
        reader = self._readers.get(schema_id) or self._learn(schema_id)
        body = BytesIO(data)
        body.seek(HEADER.size)
        try:
            value = schemaless_reader(body, reader.writer, reader.reader)
        except SchemaResolutionError as error:
            detail = f"schema {schema_id} and the packaged {reader.name} cannot be reconciled: {error}"
            raise Undecodable(UndecodableReason.INCOMPATIBLE, detail) from error
        except _CORRUPT as error:
            raise Undecodable(UndecodableReason.CORRUPT, f"not a {reader.name}: {error!r}") from error
        if body.tell() != len(data):
            raise Undecodable(UndecodableReason.TRAILING_BYTES, f"bytes after the end of {reader.name}")
        if reader.protection is not None:
            value = dict(reader.protection.shown(value, self._pii_key))  # type: ignore[arg-type]
        return Decoded(reader.name, value, schema_id)  # type: ignore[arg-type]

    def knows(self, data: bytes | None) -> bool:
        """Whether the bytes can be decoded without asking the registry."""
        if data is None or len(data) < HEADER.size or data[0] != MAGIC:
            return True
        return HEADER.unpack_from(data)[1] in self._readers

    def _learn(self, schema_id: int) -> _Reader:
        schema = self.registry.schema(schema_id)
        if schema is None:
            raise Undecodable(UndecodableReason.UNKNOWN_SCHEMA_ID, f"the registry has no schema {schema_id}")
        reader = self._reader_of(schema)
        self._readers[schema_id] = reader
        return reader

    def _reader_of(self, schema: AvroSchema) -> _Reader:
        try:
            writer = parse_record(schema)
        except ContractError as error:
            raise Undecodable(UndecodableReason.NOT_AVRO, f"its schema cannot be used: {error.message}") from error
        name = str(writer["name"])
        contract = self.contracts.get(name)
        protection = protection_of(Contract(name, (schema,)) if contract is None else contract)
        if contract is None or contract.fingerprint == avro_fingerprint(schema):
            return _Reader(name, writer, None, protection)
        return _Reader(name, writer, contract.parsed, protection)


def _prove(contract: Contract, value: Mapping[str, Any]) -> None:
    try:
        validate(value, contract.parsed, disable_tuple_notation=True)  # type: ignore[call-arg]
    except (ValidationError, *_MISFIT) as error:
        raise ContractError(f"the value does not fit {contract.name}: {error}") from error
