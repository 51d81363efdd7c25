"""What a row's bytes say of the fold that made it and of its timers, without making a row of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from driftline.consumers.fold import TIMERS
from driftline.schemas import Codec
from driftline.schemas.canonical import read_json
from driftline.schemas.names import ROW

_FIELDS = ["state", "version", "as_of", "fold_version", "data"]
_TIMERS = f'"{TIMERS}":'.encode()
_MORE, _LONG_TEXT = 0x80, 0x80
"""Avro's numbers are zigzag varints: a byte from 0x80 on is not the last. A text below 64 bytes has one of length
before it."""


class FoldVersionCheck:
    """Whether rows are of one fold version: a tenth of what decoding takes, and as certain.

    It walks the fields of the packaged schema up to the version. What was written under another schema id, or does
    not look as expected, it says nothing of.

    Args:
        codec: Writes rows.
        topic: The state topic, whose schema id rows have.
        version: Fold version.
    """

    def __init__(self, codec: Codec, topic: str, version: str) -> None:
        fields = {"state": None, "version": 0, "as_of": 0, "fold_version": version, "data": ""}
        packaged = [field["name"] for field in codec.contracts.require(ROW).parsed["fields"]]
        probe = codec.encode(topic, ROW, fields)
        self._head = probe[:5]
        self._wanted = probe[8:-1] if packaged == _FIELDS else b""

    def state_in(self, value: bytes) -> bytes | None:
        """The state that the row names, in UTF-8, empty where it names none; None where only decoding tells."""
        if not self._wanted or not value.startswith(self._head) or len(value) < len(self._head) + 2:
            return None
        if not value[5]:
            return b""
        return value[7 : 7 + (value[6] >> 1)] if value[5] == 2 and value[6] < _LONG_TEXT else None

    def holds(self, value: bytes) -> bool | None:
        """Whether the row is of the version; None where only decoding tells."""
        if not self._wanted or not value.startswith(self._head):
            return None
        try:
            at = 6
            if value[5]:  # the state: null, or a text
                if value[5] != 2 or value[6] >= _LONG_TEXT:
                    return None
                at = 7 + (value[6] >> 1)
            while value[at] >= _MORE:
                at += 1
            at += 1
            while value[at] >= _MORE:
                at += 1
        except IndexError:
            return None
        return value.startswith(self._wanted, at + 1)


def timers_of(value: bytes) -> Mapping[str, Any] | None:
    """The timers of the row whose data, canonical JSON, end the bytes; None where only reading them whole tells.

    As certain as reading them whole: a quote within a text is escaped, and what stands behind the timers is the rest
    of an object that ends where the bytes end, so they are the row's own and no inner object's.
    """
    at = value.rfind(_TIMERS)
    begin = at + len(_TIMERS)
    end = value.find(b"}", begin) + 1
    if at < 1 or value[at - 1] not in b"{," or value[begin : begin + 1] != b"{" or not end:
        return None
    rest = value[end:]
    try:
        if rest != b"}":
            if not rest.startswith(b","):
                return None
            read_json((b"{" + rest[1:]).decode())
        timers = read_json(value[begin:end].decode())
    except ValueError:
        return None
    found: Mapping[str, Any] = timers
    return found
