"""The `.avsc` files: every version there ever was, kept beside the code as `<record name>/<version>.avsc`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from fastavro.schema import SchemaParseException, fingerprint, parse_schema, to_parsing_canonical_form

from driftline.schemas.canonical import canonical_json, parse_json
from driftline.schemas.errors import ContractError, NotCanonical

AvroSchema = dict[str, Any]
"""An Avro record schema as parsed JSON."""

PACKAGED = Path(__file__).parent / "avsc"
"""driftline's own contracts."""

BYTES_MIN = {"null": 0, "boolean": 1, "int": 1, "long": 1, "float": 4, "double": 8, "bytes": 1, "string": 1}
"""The shortest encoding of each primitive type."""

_NOT_AVRO = (SchemaParseException, ValueError, KeyError, TypeError, AttributeError, RecursionError)
"""What fastavro raises on JSON that is no schema."""


def avro_fingerprint(schema: Any) -> str:
    """SHA-256 of the schema's Parsing Canonical Form (Avro 1.12 specification), in hexadecimal.

    The form is what decides how bytes are read: without docs, defaults and logical types.
    """
    return str(fingerprint(to_parsing_canonical_form(schema), "SHA-256"))


def parse_record(schema: Any) -> AvroSchema:
    """An Avro record as fastavro wants it, every name in full.

    Refused beyond what Avro forbids is what would let a few corrupt bytes end or fill the process that decodes them:
    a recursive record (fastavro's C code runs out of stack and crashes) and an array of items that take no bytes
    (a count of 2^62 of them is three bytes long).

    Raises:
        ContractError: It is no record, or one of those.
    """
    try:
        parsed = parse_schema(schema)
        if not isinstance(parsed, dict) or parsed.get("type") != "record":
            raise ContractError("not an Avro record")
        _Sizes().bytes_min(parsed)
    except _NOT_AVRO as error:
        raise ContractError(f"not an Avro schema: {error!r}") from error
    return parsed


def same_contract(one: AvroSchema, other: AvroSchema) -> bool:
    """Whether two schemas say the same: all but docs, the order of attributes and how names are written."""
    try:
        return canonical_json(_essence(parse_record(one))) == canonical_json(_essence(parse_record(other)))
    except (ContractError, NotCanonical):
        return one == other


@dataclass(frozen=True)
class Contract:
    """One record type and all its versions, oldest first."""

    name: str
    versions: Sequence[AvroSchema]
    files: Sequence[Path] = field(default=())

    @property
    def latest(self) -> AvroSchema:
        """The version that is written today."""
        return self.versions[-1]

    @cached_property
    def parsed(self) -> AvroSchema:
        """`latest` as fastavro wants it."""
        return parse_record(self.latest)

    @cached_property
    def fingerprint(self) -> str:
        """Fingerprint of `latest`."""
        return avro_fingerprint(self.latest)


class Contracts(Mapping[str, Contract]):
    """Record types by full name.

    Raises:
        ContractError: A file that is not an Avro record, a name that does not match its folder, a gap in
            the versions, or one name in two folders.
    """

    def __init__(self, contracts: Iterable[Contract] = ()) -> None:
        self._by_name: dict[str, Contract] = {}
        for contract in contracts:
            if contract.name in self._by_name:
                places = " and ".join(
                    str(c.files[0].parent) for c in (self._by_name[contract.name], contract) if c.files
                )
                raise ContractError(f"the record {contract.name} is declared twice{places and f', in {places}'}")
            self._by_name[contract.name] = contract

    @classmethod
    def load(cls, *folders: Path) -> Contracts:
        """Read driftline's own contracts and those in `folders`; a folder named twice is read once."""
        distinct = dict.fromkeys(folder.resolve() for folder in folders)
        own = [_load_one(path) for path in _record_folders(PACKAGED)]
        found = [
            _load_one(path) for folder in distinct if folder != PACKAGED.resolve() for path in _record_folders(folder)
        ]
        return cls([*own, *found])

    def __getitem__(self, name: str) -> Contract:
        """The contract of a record type.

        Raises:
            KeyError: No such record type.
        """
        return self._by_name[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_name)

    def __len__(self) -> int:
        return len(self._by_name)

    def require(self, name: str) -> Contract:
        """The contract of a record type that the user named.

        Raises:
            ContractError: There is none.
        """
        try:
            return self._by_name[name]
        except KeyError:
            known = ", ".join(sorted(self._by_name))
            raise ContractError(f"no contract for the record {name}", f"known are {known}") from None


def _record_folders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise ContractError(f"no schema folder at {folder}", f"create it with {folder}/<record name>/1.avsc")
    stray = sorted(folder.glob("*.avsc"))
    if stray:
        raise ContractError(f"{stray[0]}: lies in no record's folder", f"move it to {folder}/<record name>/1.avsc")
    return sorted(path for path in folder.iterdir() if path.is_dir() and path.name[0] not in "._")


def _load_one(folder: Path) -> Contract:
    files = sorted(folder.glob("*.avsc"), key=_version_of)
    if not files:
        raise ContractError(f"no .avsc file in {folder}", f"write {folder}/1.avsc")
    for expected, path in enumerate(files, 1):
        if _version_of(path) != expected:
            raise ContractError(f"{folder}: version {expected} is missing", f"restore {folder}/{expected}.avsc")
    return Contract(folder.name, tuple(_load_schema(path, folder.name) for path in files), tuple(files))


def _version_of(path: Path) -> int:
    if not (path.stem.isascii() and path.stem.isdecimal() and path.stem[0] != "0"):
        raise ContractError(f"{path}: a schema file is named by its version", "rename it to 1.avsc, 2.avsc, …")
    return int(path.stem)


def _load_schema(path: Path, name: str) -> AvroSchema:
    try:
        schema: AvroSchema = parse_json(path.read_text(encoding="utf-8"))
        parsed = parse_record(schema)
    except (OSError, ValueError) as error:
        raise ContractError(f"{path}: not readable as JSON: {error}") from error
    except ContractError as error:
        raise ContractError(f"{path}: {error.message}", error.mend) from error
    if parsed["name"] != name:
        raise ContractError(
            f"{path}: holds the record {parsed['name']}", f"its folder must have that name, not {name}"
        )
    return schema


def _essence(schema: Any) -> Any:
    """A parsed schema without what only people and fastavro read."""
    if isinstance(schema, list):
        return [_essence(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {name: _essence(value) for name, value in schema.items() if name != "doc" and not name.startswith("__")}


class _Sizes:
    """The shortest encodings of the types of one parsed schema."""

    def __init__(self) -> None:
        self._named: dict[str, int | None] = {}
        """By full name; None while the type is being walked."""

    def bytes_min(self, schema: Any) -> int:
        """The shortest encoding of a type.

        Raises:
            ContractError: The type is unsafe to decode, see `parse_record`.
        """
        if isinstance(schema, list):
            for branch in schema:
                self.bytes_min(branch)
            return 1
        if isinstance(schema, str):
            return BYTES_MIN[schema] if schema in BYTES_MIN else self._known(schema)
        kind = schema["type"]
        if kind == "record":
            return self._record(schema)
        if kind == "array":
            return self._array(schema["items"])
        if kind == "map":
            self.bytes_min(schema["values"])
            return 1
        if kind in {"enum", "fixed"}:
            self._named[schema["name"]] = int(schema["size"]) if kind == "fixed" else 1
            return self._known(schema["name"])
        return self.bytes_min(kind)

    def _known(self, name: str) -> int:
        size = self._named[name]
        if size is None:
            raise ContractError(f"the record {name} holds itself", "use an array of a flat record")
        return size

    def _record(self, schema: Mapping[str, Any]) -> int:
        self._named[schema["name"]] = None
        size = sum(self.bytes_min(field["type"]) for field in schema["fields"])
        self._named[schema["name"]] = size
        return size

    def _array(self, items: Any) -> int:
        if self.bytes_min(items) == 0:
            raise ContractError("an array's items take no bytes", "give them a field that is not null")
        return 1
