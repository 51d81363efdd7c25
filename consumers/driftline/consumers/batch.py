"""A batch: what one transaction will hold, complete in memory before the transaction begins."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from driftline.consumers.dead import to_dead
from driftline.log import Outgoing, Position, Record
from driftline.schemas import Decision, Undecodable


@dataclass
class Batch:
    """Records to be written, and the positions that they account for."""

    outgoing: list[Outgoing] = field(default_factory=list)
    decided: list[Decision] = field(default_factory=list)
    folded: int = 0
    dead: Counter[str] = field(default_factory=Counter)
    _next: dict[int, int] = field(default_factory=dict)

    def add(self, record: Record, outgoing: Sequence[Outgoing], decision: Decision | None) -> None:
        """Account for an input by what it led to; without a decision it was only folded."""
        self.outgoing.extend(outgoing)
        if decision is None:
            self.folded += 1
        else:
            self.decided.append(decision)
        self._next[record.at.partition] = record.at.offset + 1

    def add_dead(self, record: Record, topic: str, error: Undecodable) -> None:
        """Account for an input that no retry can decide."""
        self.outgoing.append(to_dead(record, topic, error))
        self.dead[error.reason.value] += 1
        self._next[record.at.partition] = record.at.offset + 1

    def positions(self, topic: str) -> list[Position]:
        """From where the group goes on once the batch is committed."""
        return [Position(topic, partition, offset) for partition, offset in self._next.items()]

    def partitions_of(self, topic: str) -> set[int | None]:
        """The partitions of a topic that the batch writes to."""
        return {record.partition for record in self.outgoing if record.topic == topic}
