"""Personal data: what an `.avsc` tags `"pii"` is masked or hashed before it reaches the log or a prompt.

`"pii"` of a field is `"mask"` (the value becomes `***`) or `"hash"` (it becomes `pii:` and a keyed hash, so that
equal values stay equal). Such a field holds strings: a string, one that may be null, an array or a map of strings.
The tag is part of the contract, and one that any version of a record has had holds for all: dropping it changes
nothing.

`Codec` applies it, on the way in and, for what other programs wrote as it was, on the way out.

Not guaranteed: anything of fields without a tag (a name in a free text), of keys and headers (a workflow's id is no
place for an address), of bytes that went to the dead topic because they are no record, nor of what a model makes up
in its own words. Hashes are pseudonyms and not anonymous: who has the key can try values.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from driftline.schemas.contracts import AvroSchema, Contract, parse_record
from driftline.schemas.errors import ContractError, UsageError

TAG = "pii"
MASK, HASH = "mask", "hash"
MASKED = "***"
HASHED = "pii:"
HASH_BYTES = 16
"""Of HMAC-SHA256 (RFC 2104): values that collide at 128 bits are not met."""

_IS_HASHED = re.compile(rf"{HASHED}[0-9a-f]{{{2 * HASH_BYTES}}}")

Hide = Callable[[str, str], str]
"""From the tag and the value to what takes its place."""
_Walk = Callable[[Any, Hide], Any]
_Tags = Mapping[tuple[str, str], str]
"""Of (record name, field name)."""


def protect(contract: Contract, data: Mapping[str, Any], key: bytes | None = None) -> Mapping[str, Any]:
    """The fields as they may be written: tagged values masked or hashed, all else untouched.

    What is protected already stays as it is, so protecting twice changes nothing. Values that do not fit the schema
    are left for the encoder to refuse.

    Args:
        contract: The record type.
        data: The fields.
        key: Of the hashes.

    Raises:
        ContractError: A tag is none, or stands at a field that holds no strings.
        UsageError: A value is to be hashed and there is no key.
    """
    protection = protection_of(contract)
    return data if protection is None else protection(data, key)


class Protection:
    """The tags of one record type, compiled."""

    def __init__(self, name: str, walk: _Walk) -> None:
        self._name = name
        self._walk = walk

    def __call__(self, data: Mapping[str, Any], key: bytes | None) -> Mapping[str, Any]:
        """As `protect`."""
        if key is None:
            return self._hidden(data, self._refuse)
        return self._hidden(data, lambda value: hashed(value, key))

    def shown(self, data: Mapping[str, Any], key: bytes | None) -> Mapping[str, Any]:
        """As `protect`, for who reads: without a key, what was to be hashed is masked."""
        return self._hidden(data, lambda value: MASKED if key is None else hashed(value, key))

    def _hidden(self, data: Mapping[str, Any], to_hash: Callable[[str], str]) -> Mapping[str, Any]:
        def hide(tag: str, value: str) -> str:
            if not value or value == MASKED or _IS_HASHED.fullmatch(value):
                return value
            return MASKED if tag == MASK else to_hash(value)

        found: Mapping[str, Any] = self._walk(data, hide)
        return found

    def _refuse(self, value: str) -> str:
        what = f"{self._name} holds personal data to be hashed, and there is no key for it"
        raise UsageError(what, "set DRIFTLINE_PII_SECRET_FILE")


def protection_of(contract: Contract) -> Protection | None:
    """The tags of a contract; None where it has none.

    Raises:
        ContractError: A tag is none, or stands at a field that holds no strings.
    """
    tags = _tags_of(contract.versions)
    walk = _record_walk(contract.parsed, tags, {}) if tags else None
    return None if walk is None else Protection(contract.name, walk)


def hashed(value: str, key: bytes) -> str:
    """What takes the place of a value: the same for equal values under one key."""
    digest = hmac.new(key, value.encode("utf-8", "surrogatepass"), hashlib.sha256).digest()
    return HASHED + digest[:HASH_BYTES].hex()


def _tags_of(versions: Iterable[AvroSchema]) -> dict[tuple[str, str], str]:
    """Every tag that a version has; of two at one field, masking."""
    tags: dict[tuple[str, str], str] = {}
    for version in versions:
        for record, field in _fields(parse_record(version)):
            if TAG in field:
                tag = _checked(field, record)
                tags[record, field["name"]] = MASK if MASK in {tag, tags.get((record, field["name"]))} else tag
    return tags


def _fields(schema: Any) -> Iterable[tuple[str, Mapping[str, Any]]]:
    """Every field within a schema, with the name of its record."""
    if isinstance(schema, list):
        for branch in schema:
            yield from _fields(branch)
    elif isinstance(schema, Mapping):
        for field in schema.get("fields", ()):
            yield schema["name"], field
            yield from _fields(field["type"])
        for inner in ("items", "values", "type"):
            yield from _fields(schema.get(inner))


def _checked(field: Mapping[str, Any], record: str) -> str:
    tag, where = field[TAG], f"{record}.{field['name']}"
    if tag not in {MASK, HASH}:
        raise ContractError(f"{where}: pii is {tag!r}", f'write "{MASK}" or "{HASH}"')
    if not set(_leaves(field["type"])) <= {"string", "null"}:
        raise ContractError(f"{where}: only strings can be tagged as personal data", "make it a string")
    return str(tag)


def _leaves(schema: Any) -> Iterable[str]:
    if isinstance(schema, str):
        yield schema
    elif isinstance(schema, list):
        for branch in schema:
            yield from _leaves(branch)
    elif schema["type"] in {"array", "map"}:
        yield from _leaves(schema["items" if schema["type"] == "array" else "values"])
    else:
        yield str(schema.get("logicalType") or schema["type"])


def _record_walk(schema: Mapping[str, Any], tags: _Tags, named: dict[str, _Walk]) -> _Walk | None:
    walks = {}
    for field in schema["fields"]:
        names = (field["name"], *field.get("aliases", ()))
        found = {tags[schema["name"], name] for name in names if (schema["name"], name) in tags}
        walk = _tagged(MASK if MASK in found else HASH) if found else _walk(field["type"], tags, named)
        if walk is not None:
            walks[field["name"]] = walk
    if not walks:
        return None
    named[schema["name"]] = walk = lambda value, hide: _in_mapping(value, walks, hide)
    return walk


def _walk(schema: Any, tags: _Tags, named: dict[str, _Walk]) -> _Walk | None:
    """What protects a value of a type; None where nothing below it is tagged."""
    if isinstance(schema, str):
        return named.get(schema)
    if isinstance(schema, list):
        return _one_after_another([walk for branch in schema if (walk := _walk(branch, tags, named)) is not None])
    match schema["type"]:
        case "record":
            return _record_walk(schema, tags, named)
        case "array":
            return _each(_walk(schema["items"], tags, named))
        case "map":
            return _each(_walk(schema["values"], tags, named))
        case dict() | list() as written_out:
            return _walk(written_out, tags, named)
    return None


def _tagged(tag: str) -> _Walk:
    def walk(value: Any, hide: Hide) -> Any:
        return hide(tag, value) if isinstance(value, str) else _in_all(value, walk, hide)

    return walk


def _each(inner: _Walk | None) -> _Walk | None:
    return None if inner is None else lambda value, hide: _in_all(value, inner, hide)


def _one_after_another(walks: list[_Walk]) -> _Walk | None:
    """Of a union: a value that could be of several branches is protected as each of them wants."""
    if len(walks) < 2:
        return walks[0] if walks else None

    def walk(value: Any, hide: Hide) -> Any:
        for inner in walks:
            value = inner(value, hide)
        return value

    return walk


def _in_mapping(value: Any, walks: Mapping[str, _Walk], hide: Hide) -> Any:
    """The mapping itself where nothing in it changes."""
    if not isinstance(value, Mapping):
        return value
    found = {name: walk(value[name], hide) for name, walk in walks.items() if name in value}
    changed = {name: item for name, item in found.items() if item is not value[name]}
    return {**value, **changed} if changed else value


def _in_all(value: Any, inner: _Walk, hide: Hide) -> Any:
    if isinstance(value, Mapping):
        return _in_mapping(value, dict.fromkeys(value, inner), hide)
    if not isinstance(value, (list, tuple)):
        return value
    found = [inner(item, hide) for item in value]
    return value if all(new is old for new, old in zip(found, value, strict=True)) else found
