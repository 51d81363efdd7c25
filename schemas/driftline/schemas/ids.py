"""Ids that are derived: equal parts give equal ids, on every machine and in every run."""

from __future__ import annotations

from uuid import UUID, uuid5

NAMESPACE = UUID("6d0a4c46-8a7b-5d4c-9a8e-5b4f0f1b7c11")
"""Of every id that driftline derives."""


def derive_id(*parts: str) -> str:
    """UUIDv5 of the parts, kept apart by a character that no name holds."""
    return str(uuid5(NAMESPACE, "\x1f".join(parts)))
