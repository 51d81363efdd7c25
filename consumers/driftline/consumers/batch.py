"""A batch: what one transaction will hold, complete in memory before the transaction begins."""

from __future__ import annotations

from collections.abc import Iterable

from driftline.consumers.deciding import Decided
from driftline.consumers.partition import OwnedPartition
from driftline.log import Outgoing, Position


class Batch:
    """Decided inputs, and the positions that account for them.

    An input in a batch is finished: the batch is sent until it is committed, or dropped with its partition.
    """

    def __init__(self) -> None:
        self.decided: list[Decided] = []

    def add(self, decided: Decided) -> None:
        """Take a decided input in."""
        decided.owner.tracker.finish(decided.record.at.offset)
        self.decided.append(decided)

    def drop_lost(self) -> None:
        """Forget what belongs to partitions that are not owned any more: whoever owns them decides their events."""
        self.decided = [one for one in self.decided if one.owner.live]

    @property
    def outgoing(self) -> list[Outgoing]:
        """The records to be written."""
        return [record for one in self.decided for record in one.outgoing]

    @property
    def owners(self) -> set[OwnedPartition]:
        """The partitions whose positions it moves."""
        return {one.owner for one in self.decided}

    def partitions_of(self, topic: str) -> set[int | None]:
        """The partitions of a topic that the batch writes to."""
        return {record.partition for one in self.decided for record in one.outgoing if record.topic == topic}


def positions(topic: str, owners: Iterable[OwnedPartition]) -> list[Position]:
    """Where the group goes on in each partition once the batch is committed."""
    standing = {owner.number: owner.tracker.position() for owner in owners}
    return [Position(topic, number, found.base, found.metadata()) for number, found in standing.items()]
