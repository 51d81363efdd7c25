"""The timers of a partition's rows, by the time at which they are due."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from heapq import heapify, heappop, heappush, merge
from itertools import islice
from sys import intern

from driftline.schemas.times import EPOCH, MILLISECOND, to_utc_millis

DROPPED_MIN = 1_000
"""What rows have dropped lies in the heap until it is due, or until so many, and half of all, are dropped."""

SORTED_AT_ONCE = 10_000
"""Timers that rows are restored with: all of a million at once would take a tenth of the memory of the rows."""

Timers = Mapping[str, datetime]
Entry = tuple[datetime, bytes, str]
"""When a timer is due, its workflow, its name."""


@dataclass(frozen=True, slots=True)
class DueTimer:
    """A timer that is due."""

    key: bytes
    name: str
    row_version: int
    due_at: datetime


class RowTimers:
    """Which timers run. The rows have the last word: what a row has dropped since is passed over.

    Args:
        standing: The version and the timers of a workflow's row as it is.
    """

    def __init__(self, standing: Callable[[bytes], tuple[int, Timers]]) -> None:
        self._standing = standing
        self._heap: list[Entry] = []
        """Its first is due no later than all that sleeps."""
        self._sleeping: Iterator[Entry] = iter(())
        """What rows were restored with, a fifth as large as it would be in the heap; earliest first."""
        self._next: Entry | None = None
        self._told: set[tuple[bytes, str]] = set()
        """Timers that were given out as due and whose row has not moved on since."""
        self._dropped = 0

    def begin(self, running: Iterable[tuple[bytes, Timers]]) -> None:
        """The timers of all rows there are, before any of them has moved on."""
        entries = ((_to_ms(due_at), key, intern(name)) for key, timers in running for name, due_at in timers.items())
        self._sleeping = merge(*_runs(entries))
        self._next = next(self._sleeping, None)
        self._wake()

    def moved(self, key: bytes, before: Timers, after: Timers) -> None:
        """A row has moved on: from one set of timers to another, which it has by now."""
        for name in before.keys() | after.keys():
            told = (key, name) in self._told
            self._told.discard((key, name))
            changed = before.get(name) != after.get(name)
            if name in after and (told or changed):
                heappush(self._heap, (after[name], key, intern(name)))  # one text for all rows
            self._dropped += name in before and changed and not told
        if self._dropped > max(DROPPED_MIN, len(self._heap) // 2):
            self._forget_dropped()

    def due(self, until: datetime, most: int) -> list[DueTimer]:
        """At most so many timers that are due by then, earliest first; each once, unless its row moves on and still
        has it."""
        found: list[DueTimer] = []
        while len(found) < most and self.is_due(until):
            due_at, key, name = heappop(self._heap)
            self._wake()
            version, timers = self._standing(key)
            if timers.get(name) == due_at and (key, name) not in self._told:
                self._told.add((key, name))
                found.append(DueTimer(key, name, version, due_at))
            else:
                self._dropped = max(0, self._dropped - 1)
        return found

    def is_due(self, until: datetime) -> bool:
        """Whether there may be one that is due by then."""
        return bool(self._heap) and self._heap[0][0] <= until

    def __len__(self) -> int:
        return len(self._heap)

    def _forget_dropped(self) -> None:
        kept = {one for one in self._heap if self._standing(one[1])[1].get(one[2]) == one[0]}
        self._heap = [one for one in kept if one[1:] not in self._told]
        heapify(self._heap)
        self._wake()
        self._dropped = 0

    def _wake(self) -> None:
        """Bring into the heap what sleeps and is due before all that is in it."""
        while self._next is not None and (not self._heap or self._next < self._heap[0]):
            heappush(self._heap, self._next)
            self._next = next(self._sleeping, None)


def _runs(entries: Iterator[tuple[int, bytes, str]]) -> Iterator[Iterator[Entry]]:
    """Timers in runs, each earliest first and packed: a number and two references a timer."""
    while run := sorted(islice(entries, SORTED_AT_ONCE)):
        times, keys, names = array("q", (one[0] for one in run)), [one[1] for one in run], [one[2] for one in run]
        yield zip(map(_from_ms, times), keys, names, strict=True)


def _to_ms(time: datetime) -> int:
    return (time - EPOCH) // MILLISECOND


def _from_ms(ms: int) -> datetime:
    return EPOCH + timedelta(milliseconds=ms)


def read_due(name: str, text: str) -> datetime:
    """When a timer is due, to the millisecond, as the fact that it has fired tells it.

    Raises:
        ValueError: It is no time with a zone after 1970.
        TypeError: It is no text.
    """
    due = datetime.fromisoformat(text)
    if due.tzinfo is None:
        raise ValueError(f"the timer {name} is due at {text}, which has no zone")
    due = to_utc_millis(due)
    if due <= EPOCH:
        raise ValueError(f"the timer {name} is due at {text}, and event times lie after 1970")
    return due
