"""Logs that are on the state machine already: since when and by whom, and the event log that lies below that."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import datetime

from driftline.consumers.control import read_controls
from driftline.log import AppTopics, Coordinates, LogReader, Record, Span
from driftline.log.records import Probe
from driftline.schemas import Codec, UsageError
from driftline.schemas.cloudevents import format_time
from driftline.schemas.control import SPINE, STATE_MACHINE, SpineCut


@dataclass(frozen=True, slots=True)
class Moved:
    """That a log is on the state-machine spine, as its control topic tells it."""

    topics: AppTopics
    cut: SpineCut
    by: str
    """Who cut it over; the process that was its first, where it began so."""
    at: datetime

    @property
    def ends(self) -> dict[int, int]:
        """Partition of the events topic to the first offset that the event log did not decide; empty where there
        never was an event log.
        """
        return {int(partition): offset for partition, offset in self.cut.offsets.items()}

    def __str__(self) -> str:
        since = cut_places(self.topics, self.cut) or "its first start"
        return (
            f"{self.topics.app} is already on the state-machine spine, since {since} (by {self.by}, "
            f"{format_time(self.at)})"
        )

    def require_event_log(self) -> None:
        """Prove that the log was an event log before.

        Raises:
            UsageError: It began on the state machine.
        """
        if not self.cut.offsets:
            raise UsageError(f"{self}: it never was an event log", "there is nothing to move, to seed or to check")


def cut_places(topics: AppTopics, cut: SpineCut) -> str:
    """The first place of each partition that is decided on the spine; empty where the log began on it."""
    places = [Coordinates(topics.events, int(partition), offset) for partition, offset in cut.offsets.items()]
    return ", ".join(map(str, sorted(places)))


def moved_log(reader: LogReader, topics: AppTopics, codec: Codec) -> Moved | None:
    """Whether a log is on the state machine by now; None where it is an event log.

    Raises:
        UsageError: There is no control topic.
        EnvironmentUnreachable: A broker or the registry does not answer.
    """
    controls = read_controls(reader, topics, codec)
    cut, held = controls.state.spine, controls.in_force.get(SPINE)
    if cut is None or held is None or cut.spine != STATE_MACHINE:
        return None
    return Moved(topics, cut, held.setting.by, held.setting.at)


class EndingReader(LogReader):
    """Reads a log as if one of its topics ended earlier.

    Args:
        reader: Reads the log.
        topic: Which.
        ends: Partition to the first offset that is not to be seen; of others everything is.
    """

    def __init__(self, reader: LogReader, topic: str, ends: Mapping[int, int]) -> None:
        self._reader, self._topic, self._ends = reader, topic, ends

    def span(self, topic: str, start: datetime | None = None, stop: datetime | None = None) -> Span:
        """As `LogReader.span`."""
        return self._cut(self._reader.span(topic, start, stop))

    def read(self, span: Span, headers: bool = True) -> Iterator[Record]:
        """As `LogReader.read`."""
        return self._reader.read(self._cut(span), headers)

    def read_to_latest(self, topic: str, partition: int, headers: bool = True) -> Iterator[Record]:
        """As `LogReader.read_to_latest`."""
        records = self._reader.read_to_latest(topic, partition, headers)
        return (record for record in records if topic != self._topic or self._is_seen(partition, record.at.offset))

    def probing(self, topic: str) -> AbstractContextManager[Probe]:
        """As `LogReader.probing`; it looks no further than its caller does."""
        return self._reader.probing(topic)

    def _cut(self, span: Span) -> Span:
        if span.topic != self._topic:
            return span
        ends = {partition: self._end(partition, high) for partition, (_, high) in span.ranges.items()}
        kept = {p: (min(low, ends[p]), min(high, ends[p])) for p, (low, high) in span.ranges.items()}
        return replace(span, ranges=kept)

    def _is_seen(self, partition: int, offset: int) -> bool:
        return offset < self._end(partition, offset + 1)

    def _end(self, partition: int, otherwise: int) -> int:
        return self._ends.get(partition, otherwise)
