"""What became of an event that was handed to a publisher."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

from driftline.log import Coordinates
from driftline.producers.errors import DeliveryFailed

Outcome = Coordinates | DeliveryFailed


class Delivery:
    """One event on its way.

    Attributes:
        event_id: `ce_id` of the event.
        topic: Where it goes.
    """

    __slots__ = ("_changed", "_outcome", "_watcher", "event_id", "topic")

    def __init__(self, event_id: str, topic: str, changed: threading.Condition) -> None:
        self.event_id = event_id
        self.topic = topic
        self._changed = changed
        self._outcome: Outcome | None = None
        self._watcher: Callable[[], None] | None = None

    def done(self) -> bool:
        """Whether it was delivered or has failed."""
        return self._outcome is not None

    def result(self, timeout: float | None = None) -> Coordinates:
        """Wait for the delivery; where the event came to lie.

        Raises:
            DeliveryFailed: It was not delivered, and will not be.
            TimeoutError: It is still on its way after `timeout` seconds.
        """
        with self._changed:
            if not self._changed.wait_for(self.done, timeout):
                raise TimeoutError(f"{self.topic}: the event {self.event_id} is still on its way")
        return self._get()

    async def arrival(self) -> Coordinates:
        """As `result`, without holding the event loop up."""
        loop = asyncio.get_running_loop()
        done = asyncio.Event()

        def wake() -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(done.set)

        with self._changed:
            self._watcher = wake
            if self.done():
                done.set()
        await done.wait()
        return self._get()

    def settle(self, outcome: Outcome) -> None:
        """Note the outcome; the caller holds the condition and tells of the change."""
        self._outcome = outcome
        if self._watcher is not None:
            self._watcher()

    def _get(self) -> Coordinates:
        if isinstance(self._outcome, Coordinates):
            return self._outcome
        assert self._outcome is not None
        raise self._outcome
