"""A partition that this process owns: where it stands, its rows, and whether it still is the owner."""

from __future__ import annotations

from collections import OrderedDict

from driftline.consumers.rows import Rows
from driftline.log import Tracker, Unfinished

RECENT_IDS_MAX = 10_000
"""Ids of events that a repeat is told by; one that comes later than so many others is not counted."""


class OwnedPartition:
    """Made when a partition is assigned and let go when it is revoked; coming back, it is made anew.

    Whoever holds it after that sees `live` false and drops what it has: nothing of a former ownership can reach the
    log. The tracker belongs to the thread that consumes, the rows to the one that decides.
    """

    def __init__(self, number: int, standing: Unfinished, rows: Rows) -> None:
        self.number = number
        self.tracker = Tracker(standing)
        self.rows = rows
        self.live = True
        """False from the revocation on."""
        self.closing = False
        """Whether it is about to be revoked: what runs may finish, nothing new begins."""
        self.running = 0
        """Decisions in flight."""
        self._recent: OrderedDict[str, None] = OrderedDict()

    def is_repeat(self, event_id: str) -> bool:
        """Whether an event of this id was seen lately; notes it."""
        if event_id in self._recent:
            return True
        self._recent[event_id] = None
        if len(self._recent) > RECENT_IDS_MAX:
            self._recent.popitem(last=False)
        return False
