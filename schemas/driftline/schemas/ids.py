"""Ids that are derived: equal parts give equal ids, on every machine and in every run."""

from __future__ import annotations

from hashlib import sha1
from uuid import UUID

NAMESPACE = UUID("6d0a4c46-8a7b-5d4c-9a8e-5b4f0f1b7c11")
"""Of every id that driftline derives."""


def derive_id(*parts: str) -> str:
    """UUIDv5 (RFC 9562, 5.5) of the parts, kept apart by a character that no name holds."""
    raw = bytearray(sha1(NAMESPACE.bytes + "\x1f".join(parts).encode(), usedforsecurity=False).digest()[:16])
    raw[6], raw[8] = raw[6] & 0x0F | 0x50, raw[8] & 0x3F | 0x80
    digits = raw.hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
