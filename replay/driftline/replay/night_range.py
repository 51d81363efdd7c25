"""Where a night lies on the log: found by bisection, so that a night costs what it holds and not what the log holds.

A record's timestamp is its event time, so Kafka's time index knows nothing of when a decision was made. But a runtime
appends decisions to a partition as it makes them, and one process at a time writes a partition: `decided_at` grows
with the offset, but for what clocks do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import accumulate

from driftline.log import LogReader
from driftline.log.records import Probe
from driftline.replay.segment import decision_of
from driftline.schemas import BadInput, Codec
from driftline.schemas.cloudevents import format_time

CLOCK_MARGIN = timedelta(hours=1)
"""How far `decided_at` may fall behind that of an earlier decision of its partition: a clock is set back, or another
process with a clock of its own goes on with the partition. An hour, as a clock is off that took local time for UTC;
`driftline doctor` fails at a minute."""


def night_ranges(
    reader: LogReader, codec: Codec, topic: str, first: datetime, last: datetime, margin: timedelta = CLOCK_MARGIN
) -> dict[int, tuple[int, int]]:
    """Partition to `[start, stop)` offsets that hold every decision made in `[first, last)`.

    A range goes beyond its night by what was decided within the margin before and after it: `decided_at` itself says
    what belongs to the night. To find it, about twice the binary logarithm of a partition's offsets of single records
    are read. Where those show that a partition is not in order within the margin, all of that partition is the range.

    Not guaranteed: anything of a decision whose `decided_at` is further than the margin behind an earlier one of its
    partition, where no record that was looked at shows it. So this is not for recordings that were imported: they lie
    in the order of their lines.

    Raises:
        UsageError: There is no such topic.
        KafkaUnreachable: No broker answers.
        BadInput: A record that was looked at is no decision; names its coordinates.
    """
    whole = reader.span(topic).ranges
    with reader.probing(topic) as probe:
        partitions = {number: _Partition(number, low, high, probe, codec) for number, (low, high) in whole.items()}
        return {number: one.range_of(first, last, margin) for number, one in partitions.items()}


def require_history(reader: LogReader, codec: Codec, topic: str, last: datetime) -> None:
    """Refuse a night that ended at `last`, where what is left of the log cannot tell whether it was empty.

    That is where the beginning of a partition has been deleted and no partition begins with a decision made before
    `last`: the night may have been deleted with what came before it. Not for imported recordings, as `night_ranges`.

    Raises:
        UsageError: There is no such topic.
        KafkaUnreachable: No broker answers.
        BadInput: It cannot be told; says from where on there is history. Or a record is no decision.
    """
    whole = reader.span(topic).ranges
    if not any(low for low, _ in whole.values()):
        return
    with reader.probing(topic) as probe:
        begins = [_Partition(number, low, high, probe, codec).begins for number, (low, high) in whole.items()]
    times = [time for time in begins if time is not None]
    if times and min(times) < last:
        return
    offsets = ", ".join(f"[{number}]@{low}" for number, (low, _) in sorted(whole.items()))
    since = f"decided at {format_time(min(times))} and later" if times else "and nothing is left there"
    raise BadInput(
        f"what {topic} held of decisions before {format_time(last)} has been deleted: history exists from {offsets} "
        f"on, {since}",
        "give a later night with --since or --date: those that were counted stay counted",
    )


@dataclass(frozen=True)
class _Partition:
    """One partition of the decisions topic, and the times that were seen in it."""

    number: int
    low: int
    high: int
    probe: Probe
    codec: Codec
    seen: dict[int, datetime] = field(default_factory=dict)

    @property
    def begins(self) -> datetime | None:
        """When the first decision that is left was made; None where none is."""
        found = self._look(self.low, self.high)
        return None if found is None else self.seen[found]

    def range_of(self, first: datetime, last: datetime, margin: timedelta) -> tuple[int, int]:
        """Whatever the bisection meets, the last decision that it finds too early proves those before it too early,
        and the first that it finds too late those after it too late: each by no more than the margin's disorder.
        """
        if self._look(self.low, self.high) is None:
            return self.low, self.low
        start = self._first(self.low, lambda time: time >= first - margin)
        stop = self._first(start, lambda time: time >= last + margin)
        return (start, stop) if self._in_order(margin) else (self.low, self.high)

    def _first(self, low: int, late: Callable[[datetime], bool]) -> int:
        """An offset with a late decision at or next after it, and one that is not late just before it."""
        high = self.high
        while low < high:
            middle = (low + high) // 2
            found = self._look(middle, high)
            if found is None or late(self.seen[found]):
                high = middle
            else:
                low = found + 1
        return low

    def _look(self, start: int, stop: int) -> int | None:
        """The offset of the first decision there; records of other types are passed over."""
        while (record := self.probe(self.number, start, stop)) is not None:
            start = record.at.offset + 1
            decision = decision_of(record, self.codec)
            if decision is not None:
                self.seen[record.at.offset] = decision.decided_at
                return record.at.offset
        return None

    def _in_order(self, margin: timedelta) -> bool:
        times = [self.seen[offset] for offset in sorted(self.seen)]
        latest = accumulate(times, max)
        return all(before - time <= margin for before, time in zip(latest, times, strict=True))
