"""Back-pressure: how many records may be taken up, and which partitions wait meanwhile."""

from __future__ import annotations

from collections.abc import Mapping

from driftline.consumers.partition import OwnedPartition

POLL_RECORDS_MAX = 1_000
"""Taken at once: several times faster than one by one."""
STALL_S_MAX = 1.0
"""So long a full buffer is only waited out, without a poll: a pause costs the fetch that is under way."""
PAUSE_ROOM = 100
"""A partition with room for fewer unfinished offsets waits, so that polls stay worth their while,"""
RESUME_ROOM = 500
"""and goes on when there is room for so many."""


class Backpressure:
    """Bounds what is held in memory, and what is unfinished of one partition. Pure: no clock, no broker.

    Args:
        buffered_max: Records taken up and not committed yet, over all partitions.
    """

    def __init__(self, buffered_max: int) -> None:
        self._buffered_max = buffered_max
        self._full_since: float | None = None
        self._paused: set[int] = set()

    def room(self, owned: Mapping[int, OwnedPartition], now_s: float) -> int:
        """How many more records may be taken up."""
        room = self._buffered_max - sum(owner.tracker.running for owner in owned.values())
        if room > 0:
            self._full_since = None
        elif self._full_since is None:
            self._full_since = now_s
        return max(0, room)

    def stalled(self, now_s: float) -> bool:
        """Whether there was no room for so long that polling must go on with everything paused."""
        return self._full_since is not None and now_s - self._full_since >= STALL_S_MAX

    def paused(self, owned: Mapping[int, OwnedPartition], now_s: float) -> set[int]:
        """The partitions that wait."""
        self._paused = {number for number, owner in owned.items() if self._waits(number, owner)}
        return set(owned) if self.stalled(now_s) else self._paused

    def poll_max(self, owned: Mapping[int, OwnedPartition], now_s: float) -> int:
        """How many records may come at once: of no partition more than its metadata has room for."""
        rooms = (owner.tracker.room for number, owner in owned.items() if number not in self._paused)
        return max(1, min(self.room(owned, now_s), *rooms, POLL_RECORDS_MAX))

    def _waits(self, number: int, owner: OwnedPartition) -> bool:
        if owner.tracker.catching_up:
            return False
        return owner.tracker.room < (RESUME_ROOM if number in self._paused else PAUSE_ROOM)
