"""Canonical JSON (RFC 8785) and the hashes made of it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import rfc8785
from pydantic_core import from_json

from driftline.schemas.errors import NotCanonical
from driftline.schemas.times import format_time

INTEGER_MAX = 2**53 - 1
"""Up to here every double has its own integer (RFC 8785, RFC 7493)."""
_LONG_NUMBER = re.compile("[0-9]{16}")
"""Whatever could hold an integer beyond `INTEGER_MAX`."""
_PLAIN = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False)
_PLAIN_FLOAT_MIN, _PLAIN_FLOAT_MAX = 1e-4, 1e15
"""Between them neither Python nor ECMAScript writes an exponent, and both write the shortest digits."""
_SHORT_INTEGER_CHARACTERS_MAX, _SHORT_FLOAT_CHARACTERS_MAX = 15, 17
"""A number written with so few, and no exponent, is below 10^15."""
_SHALLOW_BRACKETS_MAX = 50
"""A text with so few is nested nowhere near as deep as the interpreter's stack."""
HASH_HEX_DIGITS = 32
"""128 bits of SHA-256: no accident makes two contents collide, and a row stays short."""


def canonical_json(value: Any) -> str:
    """The one JSON text of a value: sorted keys, shortest numbers, no spaces.

    Raises:
        NotCanonical: An integer over 2^53, a float that is written like one (1e16), NaN, an infinity, a lone
            surrogate, a key that is no string, or a value deeper than the interpreter's stack.
    """
    try:
        if _is_plain(value) or _is_plain(value := _integral(value)):
            return _PLAIN.encode(value)
        text = rfc8785.dumps(value).decode()
        if _LONG_NUMBER.search(text):
            rfc8785.dumps(json.loads(text))  # What cannot be read back and written again is not canonical.
        return text
    except (rfc8785.CanonicalizationError, UnicodeEncodeError, RecursionError) as error:
        raise NotCanonical(f"not canonical JSON: {error}") from error


def require_canonical(value: Any) -> None:
    """Prove that a value has a canonical form, without writing it.

    Raises:
        NotCanonical: As `canonical_json`.
    """
    if not _is_plain(value):
        canonical_json(value)


def _is_plain(value: Any) -> bool:
    """Whether Python's own encoder, which is C, writes a value as RFC 8785 does.

    So it is with ASCII keys, whose order is the same in UTF-8 and UTF-16, texts without lone surrogates, integers
    that are exact as doubles, and such floats as both write without an exponent.
    """
    kind = type(value)
    if kind is str:
        return bool(value.isascii() or _is_utf8(value))
    if kind is int:
        return bool(-INTEGER_MAX <= value <= INTEGER_MAX)
    if kind is float:
        return bool(_PLAIN_FLOAT_MIN <= abs(value) < _PLAIN_FLOAT_MAX and not value.is_integer())
    if kind is dict:
        return _are_names(value) and all(map(_is_plain, value.values()))
    if kind is list:
        return all(map(_is_plain, value))
    return value is None or kind is bool


def _integral(value: Any) -> Any:
    """The value with every float that is an integer as one, as RFC 8785 writes it: 450.0 as 450."""
    kind = type(value)
    if kind is float:
        return int(value) if abs(value) <= INTEGER_MAX and value.is_integer() else value
    if kind is dict:
        return {name: _integral(item) for name, item in value.items()}
    return [_integral(item) for item in value] if kind is list else value


def _are_names(keys: Iterable[Any]) -> bool:
    try:
        return "".join(keys).isascii()
    except TypeError:
        return False


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def parse_json(text: str) -> Any:
    """Parse JSON strictly as RFC 8259 has it.

    Not refused here but by `canonical_json`: integers over 2^53, lone surrogates, and 1e999, which reads as infinity.

    Raises:
        ValueError: The text is not JSON, repeats a key in one object, names NaN or Infinity, or is nested deeper
            than the interpreter's stack.
    """
    try:
        return _STRICT.decode(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def parse_canonical(text: str) -> Any:
    """As `parse_json`, of a text whose value has a canonical form too.

    Raises:
        ValueError: As `parse_json`.
        NotCanonical: As `canonical_json`.
    """
    if text.isascii() and "\\u" not in text and text.count("{") + text.count("[") <= _SHALLOW_BRACKETS_MAX:
        try:
            value, end = _STRICT_AND_SHORT.raw_decode(text)
            if end == len(text):
                return value
        except ValueError:
            pass  # told below
    value = parse_json(text)
    require_canonical(value)
    return value


def read_json(text: str) -> Any:
    """As `json.loads`, in less than half the time: for what driftline itself has written."""
    try:
        return from_json(text, cache_strings="keys")
    except ValueError:  # a lone surrogate, or nested deeper than 200
        return json.loads(text)


def to_json_data(value: Any) -> Any:
    """An Avro datum as JSON data: times as RFC 3339 text, other logical types as text, bytes as base64.

    Lossless in meaning, not in type: the `.avsc` says what the text stands for. What canonical JSON writes of the
    result reads back as the result: 450.0 becomes 450, or a prompt would say `450.0` today and `450` in a replay.
    """
    kind = type(value)
    if kind is str or kind is int or value is None or kind is bool:  # most values; the rest may be subclasses
        return value
    if kind is dict or isinstance(value, Mapping):
        return {name: to_json_data(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json_data(item) for item in value]
    if isinstance(value, datetime):
        return value.isoformat(timespec="milliseconds") if value.tzinfo is None else format_time(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) <= INTEGER_MAX else value
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)


def content_hash(text: str | bytes) -> str:
    """Hash of a content as it stands: 32 hexadecimal digits of SHA-256.

    Raises:
        NotCanonical: The text holds a lone surrogate.
    """
    try:
        raw = text.encode() if isinstance(text, str) else text
    except UnicodeEncodeError as error:
        raise NotCanonical(f"not UTF-8: {error}") from error
    return hashlib.sha256(raw).hexdigest()[:HASH_HEX_DIGITS]


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("an object repeats a key")
    return value


class _LongNumber(ValueError):
    """A number that has to be looked at before it is known to have a canonical form."""


def _short_integer(text: str) -> int:
    if len(text) > _SHORT_INTEGER_CHARACTERS_MAX:
        raise _LongNumber
    return int(text)


def _short_float(text: str) -> float:
    if len(text) > _SHORT_FLOAT_CHARACTERS_MAX or "e" in text or "E" in text:
        raise _LongNumber
    return float(text)


_STRICT = json.JSONDecoder(parse_constant=_refuse_constant, object_pairs_hook=_refuse_duplicates)
_STRICT_AND_SHORT = json.JSONDecoder(
    parse_constant=_refuse_constant,
    object_pairs_hook=_refuse_duplicates,
    parse_int=_short_integer,
    parse_float=_short_float,
)
