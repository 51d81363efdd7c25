"""Lanes: hundreds of keys decided at once, one at a time per key and in offset order."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

from driftline.consumers.partition import OwnedPartition
from driftline.log import Record

T = TypeVar("T")
Lane = tuple[OwnedPartition, bytes | None]
"""A workflow of an ownership: after a revocation the same key is another lane."""
Decide = Callable[[Record, OwnedPartition], Awaitable[T]]
Admit = Callable[[], Awaitable[object]]
Waiting = deque[tuple[Record, float]]
"""Records with when they were taken up."""

STREAK_MAX = 50
"""Decisions that one worker makes without letting the others and the network have a turn."""


class Lanes(Generic[T]):
    """Runs decisions on an event loop in a thread of its own; records go in and results come out in another one.

    Not guaranteed: any order among keys, nor that a result's partition is still owned when it comes out.

    Args:
        decide: Decides one record.
        in_flight_max: Decisions at once.
        admit: Awaited before a record is taken for its decision: a throttle.
        begins: Told of each decision that begins how many seconds its record has waited.
        comes_last: Whether a record speaks of all that lies below it in its partition, and is decided after that.
        clock: Seconds from any origin, never going back.
    """

    def __init__(
        self,
        decide: Decide[T],
        in_flight_max: int,
        admit: Admit,
        begins: Callable[[float], None] = lambda waited_s: None,
        comes_last: Callable[[Record], bool] = lambda record: False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._decide = decide
        self._admit = admit
        self._begins = begins
        self._comes_last = comes_last
        self._clock = clock
        self._limit = in_flight_max
        self._waiting: dict[Lane, Waiting] = {}
        self._undecided: dict[OwnedPartition, dict[int, None]] = {}
        """Offsets that were taken up, ascending."""
        self._held: dict[OwnedPartition, Waiting] = {}
        """What comes last, until nothing below it is undecided."""
        self._ready: deque[Lane] = deque()
        self._failed: set[Lane] = set()
        """Whose decision raised: what comes behind it must not overtake it."""
        self._workers: set[asyncio.Task[None]] = set()
        self._done: SimpleQueue[T | BaseException] = SimpleQueue()
        self._ending = False
        self._loop: asyncio.AbstractEventLoop
        self.in_flight = 0
        """Decisions that are being made."""

    @contextmanager
    def running(self) -> Iterator[None]:
        """The loop runs inside the block; what is in flight at its end is cancelled."""
        self._loop = asyncio.new_event_loop()
        thread = threading.Thread(target=self._loop.run_forever, name="driftline-lanes", daemon=True)
        thread.start()
        try:
            yield
        finally:
            asyncio.run_coroutine_threadsafe(self._cancel(), self._loop).result()
            self._loop.call_soon_threadsafe(self._loop.stop)
            thread.join()
            self._loop.close()

    def submit(self, records: Sequence[tuple[OwnedPartition, Record]]) -> None:
        """Take records up, those of one key in offset order."""
        self._loop.call_soon_threadsafe(self._take_up, records, self._clock())

    def limit(self, in_flight_max: int) -> None:
        """Let so many decisions run at once from now on; 0 lets none begin."""
        if in_flight_max != self._limit and not self._ending:
            self._limit = in_flight_max
            self._loop.call_soon_threadsafe(self._spawn)

    def forget(self, owner: OwnedPartition) -> None:
        """Drop what waits of an ownership that has ended."""
        if self._ending:
            return
        self._loop.call_soon_threadsafe(self._drop, owner)

    def collect(self, timeout_s: float = 0.0) -> Iterator[T | BaseException]:
        """The results that are there; where there are none, the first to come until the timeout.

        Among them what decisions raised. The lane of such a one is closed: nothing behind it is decided any more,
        whenever it is submitted, and it stays undecided, so that what comes last waits for ever.
        """
        try:
            yield self._done.get(timeout=timeout_s) if timeout_s else self._done.get_nowait()
            while True:
                yield self._done.get_nowait()
        except Empty:
            return

    def _take_up(self, records: Sequence[tuple[OwnedPartition, Record]], at_s: float) -> None:
        for owner, record in records:
            undecided = self._undecided.setdefault(owner, {})
            if undecided and self._comes_last(record):
                self._held.setdefault(owner, deque()).append((record, at_s))
            else:
                self._queue(owner, record, at_s)
            undecided[record.at.offset] = None
        self._spawn()

    def _queue(self, owner: OwnedPartition, record: Record, at_s: float) -> None:
        lane = (owner, record.key)
        if lane in self._failed:
            return
        waiting = self._waiting.get(lane)
        if waiting is None:
            self._waiting[lane] = deque(((record, at_s),))
            self._ready.append(lane)
        else:
            waiting.append((record, at_s))

    def _decided(self, owner: OwnedPartition, offset: int) -> None:
        """Let go on what has waited for this offset."""
        undecided, held = self._undecided.get(owner, {}), self._held.get(owner)
        undecided.pop(offset, None)
        if held and next(iter(undecided)) == held[0][0].at.offset:
            self._queue(owner, *held.popleft())

    def _spawn(self) -> None:
        for _ in range(min(len(self._ready), self._limit - len(self._workers))):
            self._workers.add(self._loop.create_task(self._work()))

    def _drop(self, owner: OwnedPartition) -> None:
        self._waiting = {lane: waiting for lane, waiting in self._waiting.items() if lane[0] is not owner}
        self._ready = deque(lane for lane in self._ready if lane[0] is not owner)
        self._failed = {lane for lane in self._failed if lane[0] is not owner}
        self._undecided.pop(owner, None)
        self._held.pop(owner, None)

    def _may_go_on(self) -> bool:
        return bool(self._ready) and len(self._workers) <= self._limit

    async def _work(self) -> None:
        """Decide the next record of the lane that has waited longest, until none is ready.

        Between the last look at what is ready and leaving `_workers` nothing is awaited: what becomes ready after
        that look finds room for a worker.
        """
        streak = 0
        try:
            while self._may_go_on():
                await self._admit()
                if not self._may_go_on():
                    return
                await self._advance(self._ready.popleft())
                streak += 1
                if streak % STREAK_MAX == 0:
                    await asyncio.sleep(0)
        finally:
            self._workers.discard(asyncio.current_task())

    async def _advance(self, lane: Lane) -> None:
        """Decide the first record of a lane; then the lane stands behind the others, or is gone."""
        owner, _ = lane
        waiting = self._waiting[lane]
        goes_on = not owner.closing and await self._run(*waiting.popleft(), owner)
        if goes_on and waiting and lane in self._waiting:
            self._ready.append(lane)
        else:
            self._waiting.pop(lane, None)

    async def _run(self, record: Record, at_s: float, owner: OwnedPartition) -> bool:
        """Decide one record; whether its lane may go on."""
        owner.running += 1
        self.in_flight += 1
        try:
            self._begins(self._clock() - at_s)
            self._done.put(await self._decide(record, owner))
            self._decided(owner, record.at.offset)
        except BaseException as error:
            if self._ending:
                raise
            self._failed.add((owner, record.key))
            self._done.put(error)  # even a cancellation: a key must not fall silent
            return False
        finally:
            self.in_flight -= 1
            owner.running -= 1  # after the result is out: whoever sees 0 finds all results
        return True

    async def _cancel(self) -> None:
        """Cancel every task of the loop: the workers, and what libraries keep running on it."""
        self._ending = True
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self._loop.shutdown_asyncgens()
