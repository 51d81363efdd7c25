"""What travels: records read from the log and records to be written."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from driftline.schemas import BadInput
from driftline.schemas.cloudevents import epoch_ms


@dataclass(frozen=True, slots=True, order=True)
class Coordinates:
    """Where a record lies."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        """`topic[partition]@offset`."""
        return f"{self.topic}[{self.partition}]@{self.offset}"

    @classmethod
    def parse(cls, text: str) -> Coordinates:
        """Read `topic[partition]@offset`.

        Raises:
            BadInput: It has another form.
        """
        found = re.fullmatch(r"([\w.-]+)\[(\d+)\]@(\d+)", text)
        if found is None:
            raise BadInput(f"{text!r} is not topic[partition]@offset", "for example renewals.decisions[0]@12")
        return cls(found[1], int(found[2]), int(found[3]))


@dataclass(frozen=True, slots=True)
class Record:
    """A record as it lies on the log."""

    at: Coordinates
    key: bytes | None
    value: bytes | None
    timestamp_ms: int
    """Event time, milliseconds since 1970."""
    headers: Sequence[tuple[str, bytes]] = ()


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A record to be written."""

    topic: str
    key: bytes | None
    value: bytes | None
    timestamp_ms: int
    """Event time, milliseconds since 1970."""
    headers: Sequence[tuple[str, bytes]] = ()
    partition: int | None = None
    """None lets the key decide (murmur2, as Java's clients do)."""


@dataclass(frozen=True, slots=True)
class Position:
    """The next offset that a group will read of a partition."""

    topic: str
    partition: int
    offset: int
    metadata: str = ""


@dataclass(frozen=True, slots=True)
class Span:
    """A range of one topic: partition to `[start, stop)` offsets, and of the records there those in time."""

    topic: str
    ranges: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    start_ms: int | None = None
    """Event time from which records belong to it; None for no bound."""
    stop_ms: int | None = None
    """Event time before which they do; None for no bound."""

    @property
    def offsets(self) -> int:
        """How many offsets it covers; control records and gaps count too, so it bounds the records."""
        return sum(stop - start for start, stop in self.ranges.values())

    def takes(self, record: Record) -> bool:
        """Whether a record of its offsets belongs to it by event time."""
        time_ms = record.timestamp_ms
        return (self.start_ms is None or time_ms >= self.start_ms) and (
            self.stop_ms is None or time_ms < self.stop_ms
        )


def to_ms(time: datetime | None) -> int | None:
    """A bound in time as records are stamped."""
    return None if time is None else epoch_ms(time)


Probe = Callable[[int, int, int], Record | None]
"""Of partition, start and stop: the first committed record of `[start, stop)` without headers, None where none is."""


class LogReader(Protocol):
    """Reads ranges of topics, committed records only."""

    def span(self, topic: str, start: datetime | None = None, stop: datetime | None = None) -> Span:
        """The records whose event times lie in `[start, stop)`; all committed ones when neither is given."""

    def read(self, span: Span, headers: bool = True) -> Iterator[Record]:
        """Every committed record of the span; in offset order within a partition, partitions one after another."""

    def read_to_latest(self, topic: str, partition: int, headers: bool = True) -> Iterator[Record]:
        """Every committed record of a partition, a transaction that is open now included once it has ended."""

    def probing(self, topic: str) -> AbstractContextManager[Probe]:
        """Look at single records of a topic: to find a place among many without reading them."""


class LogTransaction(Protocol):
    """What a transaction can do while it is open."""

    def write(self, records: Sequence[Outgoing]) -> list[Coordinates]:
        """Write the records; where each came to lie. They are not visible before the transaction is committed."""

    def send_positions(self, positions: Sequence[Position], group: Any) -> None:
        """Let the group's positions be committed with the transaction."""


class LogWriter(Protocol):
    """Writes records all or nothing."""

    def commit(
        self, records: Sequence[Outgoing], positions: Sequence[Position] = (), group: Any = None
    ) -> list[Coordinates]:
        """Write the records and the group's positions in one transaction; where each record came to lie."""

    def transaction(self) -> AbstractContextManager[LogTransaction]:
        """One transaction over several writes: committed at the end of the block, aborted when the block raises."""
