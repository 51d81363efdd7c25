"""The envelope: CloudEvents 1.0, Kafka protocol binding, binary mode; eight headers, written by hand.

The CloudEvents SDK fills a missing time with the wall clock, which a replayable log cannot have.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from driftline.schemas.errors import Undecodable, UndecodableReason
from driftline.schemas.times import epoch_ms, format_time, from_epoch_ms, parse_time

__all__ = [
    "CONTENT_TYPE",
    "SPEC_VERSION",
    "Envelope",
    "Event",
    "Headers",
    "epoch_ms",
    "format_time",
    "from_epoch_ms",
    "from_headers",
    "parse_time",
    "to_headers",
]

Headers = Sequence[tuple[str, bytes]]

SPEC_VERSION = "1.0"
CONTENT_TYPE = "application/avro"

_REQUIRED = ("ce_specversion", "ce_id", "ce_type", "ce_source", "ce_subject", "ce_time")
_FIXED = (("ce_specversion", SPEC_VERSION.encode()), ("content-type", CONTENT_TYPE.encode()))
_NAMES = frozenset((*_REQUIRED, "ce_causationid", "traceparent"))


@dataclass(frozen=True, slots=True)
class Event:
    """A fact: its envelope and its Avro payload."""

    id: str
    """`ce_id`: the caller's, drawn once, or derived by UUIDv5."""
    type: str
    """`ce_type`: the stream."""
    source: str
    """`ce_source`: a system, a person, or `driftline:<app>/<boundary>` for what a boundary committed."""
    workflow: str
    """`ce_subject` and the record's key."""
    time: datetime
    """`ce_time`: event time, UTC; the record's timestamp."""
    record: str
    """Avro record name of `data`."""
    data: Mapping[str, Any]
    """Payload fields."""
    causation_id: str | None = None
    """`ce_id` of the event that led to this one."""
    traceparent: str | None = None
    """W3C trace context."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """What the headers of a record say."""

    id: str
    type: str
    source: str
    subject: str
    time: datetime
    causation_id: str | None = None
    traceparent: str | None = None


def to_headers(envelope: Envelope) -> list[tuple[str, bytes]]:
    """The headers of a record.

    Raises:
        ValueError: The time has no zone, or a text holds a lone surrogate.
    """
    pairs = [
        ("ce_id", envelope.id),
        ("ce_type", envelope.type),
        ("ce_source", envelope.source),
        ("ce_subject", envelope.subject),
        ("ce_time", format_time(envelope.time)),
        ("ce_causationid", envelope.causation_id),
        ("traceparent", envelope.traceparent),
    ]
    return [*_FIXED, *[(name, value.encode()) for name, value in pairs if value is not None]]


def from_headers(headers: Headers) -> Envelope:
    """Read the headers of a record. Headers that are not ours may hold anything; of a repeated one the last counts.

    Raises:
        Undecodable: A header is missing, empty or no text, the time is no RFC 3339 time, or the major version of
            CloudEvents is not 1.
    """
    try:
        found = {name: (value or b"").decode() for name, value in headers if name in _NAMES}
        missing = [name for name in _REQUIRED if not found.get(name)]
        if missing:
            raise ValueError(f"without {', '.join(missing)}")
        if found["ce_specversion"].partition(".")[0] != "1":
            raise ValueError(f"ce_specversion {found['ce_specversion']} is none that this version reads")
        return Envelope(
            id=found["ce_id"],
            type=found["ce_type"],
            source=found["ce_source"],
            subject=found["ce_subject"],
            time=parse_time(found["ce_time"]),
            causation_id=found.get("ce_causationid"),
            traceparent=found.get("traceparent"),
        )
    except ValueError as error:
        raise Undecodable(UndecodableReason.BAD_HEADERS, f"not a CloudEvent: {error}") from error
