"""The dead topic: inputs that no retry can decide, as they came, and why."""

from __future__ import annotations

from dataclasses import dataclass

from driftline.log import Outgoing, Record
from driftline.schemas import Undecodable, UndecodableReason

DETAIL_BYTES_MAX = 2_000
"""Of the reason's text; well under the 64 KiB that the dead topic allows on top of an input."""
VALUE_BYTES_MAX = 1_048_588
"""Kafka's default `max.message.bytes`. Compressed, a larger input may have come in; it would not fit again."""


def to_dead(record: Record, topic: str, error: Undecodable) -> Outgoing:
    """The record of the dead topic: the original key, bytes and headers, and why it lies there.

    What is beyond `VALUE_BYTES_MAX` together is left where the coordinates say: value and headers, and a key that is
    too long by itself; `driftline_value` is then `left at the source`.
    """
    fits = record_bytes(record) <= VALUE_BYTES_MAX
    long_key = record.key is not None and len(record.key) > VALUE_BYTES_MAX
    why = [
        ("driftline_reason", error.reason.value.encode()),
        ("driftline_detail", _cut(error.message)),
        ("driftline_topic", record.at.topic.encode()),
        ("driftline_partition", str(record.at.partition).encode()),
        ("driftline_offset", str(record.at.offset).encode()),
        *([] if fits else [("driftline_value", b"left at the source")]),
    ]
    return Outgoing(
        topic=topic,
        key=None if long_key else record.key,
        value=record.value if fits else None,
        timestamp_ms=max(record.timestamp_ms, 1),  # a record need not have a time, and librdkafka takes 0 for now
        headers=[*(record.headers if fits else ()), *why],
        partition=record.at.partition,
    )


@dataclass(frozen=True, slots=True)
class Dead:
    """Why a record lies on the dead topic, as its headers say; empty where they do not."""

    reason: str
    detail: str
    source: str
    """`topic[partition]@offset` of the input."""


def why_dead(record: Record) -> Dead:
    """Read what `to_dead` wrote; bytes that are no text, as others may write them, are shown with `\\x`."""
    # An input may bring headers of the same names, and they come first.
    told = {name: (value or b"").decode(errors="backslashreplace") for name, value in record.headers}
    topic, partition, offset = (told.get(f"driftline_{name}", "") for name in ("topic", "partition", "offset"))
    source = f"{topic}[{partition}]@{offset}" if topic else ""
    return Dead(told.get("driftline_reason", ""), told.get("driftline_detail", ""), source)


def record_bytes(record: Record | Outgoing) -> int:
    """What a record takes: key, value and headers."""
    headers = sum(len(name) + len(value or b"") for name, value in record.headers)
    return len(record.key or b"") + len(record.value or b"") + headers


def input_offset(record: Record) -> int | None:
    """The offset of the input that a record of the dead topic is about; None where nothing says so."""
    for name, value in reversed(record.headers):  # an input may bring headers of the same name, and they come first
        if name == "driftline_offset" and value.isdigit():
            return int(value)
    return None


def undecided_offset(record: Record) -> int | None:
    """The offset of an input that went to the dead topic without a decision, and so into no row."""
    reasons = [value for name, value in record.headers if name == "driftline_reason"]
    decided = reasons[-1:] == [UndecodableReason.EXHAUSTED.value.encode()]
    return None if decided else input_offset(record)


def _cut(text: str) -> bytes:
    """So much of a text as its header holds, whole characters only."""
    raw = text.encode("utf-8", "backslashreplace")
    return raw[:DETAIL_BYTES_MAX].decode(errors="ignore").encode()
