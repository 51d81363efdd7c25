"""What bounds the runtime: back-pressure, the throttle, the watchdog."""

from __future__ import annotations

import asyncio
import threading

import pytest

from driftline.consumers.backpressure import PAUSE_ROOM, RESUME_ROOM, STALL_S_MAX, Backpressure
from driftline.consumers.partition import RECENT_IDS_MAX, OwnedPartition
from driftline.consumers.rows import Rows
from driftline.consumers.throttle import Throttle
from driftline.consumers.watchdog import Watchdog
from driftline.log import Unfinished
from driftline.log.positions import UNFINISHED_MAX


def owner(number: int = 0, unfinished: int = 0) -> OwnedPartition:
    made = OwnedPartition(number, Unfinished(0, 0), Rows(None))
    for offset in range(unfinished):
        made.tracker.take(offset)
    return made


def test_room_is_what_is_not_unfinished_over_all_partitions() -> None:
    pressure = Backpressure(10)
    assert pressure.room({0: owner(0, 3), 1: owner(1, 4)}, 0.0) == 3
    assert pressure.room({0: owner(0, 30)}, 0.0) == 0


def test_a_full_buffer_is_waited_out_and_pauses_everything_only_when_it_lasts() -> None:
    pressure, owned = Backpressure(2), {0: owner(0, 2)}
    assert (pressure.room(owned, 5.0), pressure.stalled(5.0), pressure.paused(owned, 5.0)) == (0, False, set())
    later = 5.0 + STALL_S_MAX
    assert (pressure.room(owned, later), pressure.stalled(later), pressure.paused(owned, later)) == (0, True, {0})
    owned[0].tracker.finish(0)
    assert (pressure.room(owned, later), pressure.stalled(later), pressure.paused(owned, later)) == (1, False, set())


def test_a_partition_that_is_full_waits_alone_and_until_it_has_come_down() -> None:
    pressure, owned = Backpressure(10_000), {0: owner(0, UNFINISHED_MAX), 1: owner(1, 5)}
    assert pressure.paused(owned, 0.0) == {0}
    for offset in range(RESUME_ROOM - 1):
        owned[0].tracker.finish(offset)
    assert pressure.paused(owned, 0.0) == {0}
    owned[0].tracker.finish(UNFINISHED_MAX - 1)
    assert pressure.paused(owned, 0.0) == set()


def test_a_poll_brings_no_more_than_the_fullest_partition_has_room_for() -> None:
    pressure, owned = Backpressure(10_000), {0: owner(0, UNFINISHED_MAX - 2 * PAUSE_ROOM), 1: owner(1, 5)}
    assert pressure.paused(owned, 0.0) == set()
    assert pressure.poll_max(owned, 0.0) == 2 * PAUSE_ROOM


def test_a_full_partition_that_catches_up_is_not_paused_for_ever() -> None:
    offsets = tuple(range(0, 2 * UNFINISHED_MAX, 2))
    taken_over = OwnedPartition(0, Unfinished(0, 2 * UNFINISHED_MAX, offsets), Rows(None))
    pressure = Backpressure(10_000)
    assert pressure.paused({0: taken_over}, 0.0) == set()
    assert pressure.poll_max({0: taken_over}, 0.0) == 1


def test_a_repeated_id_is_told_as_long_as_it_is_remembered() -> None:
    made = owner()
    assert [made.is_repeat("a"), made.is_repeat("b"), made.is_repeat("a")] == [False, False, True]
    for number in range(RECENT_IDS_MAX):
        made.is_repeat(f"n{number}")
    assert not made.is_repeat("a")


@pytest.mark.parametrize(("per_minute", "at_once"), [(None, 1_000), (120.0, 2), (30.0, 1)])
def test_a_throttle_admits_a_second_of_its_rate_at_once(per_minute: float | None, at_once: int) -> None:
    async def admitted() -> int:
        throttle, count = Throttle(), 0
        throttle.set(per_minute)
        while count < 1_000:
            admit = asyncio.ensure_future(throttle.admit())
            for _ in range(10):
                await asyncio.sleep(0)
            if not admit.done():
                admit.cancel()
                return count
            count += 1
        return count

    assert asyncio.run(admitted()) == at_once


def test_a_throttle_that_is_lifted_lets_go_who_waits() -> None:
    async def story() -> int:
        throttle = Throttle()
        throttle.set(1.0)
        await throttle.admit()
        waiting = [asyncio.ensure_future(throttle.admit()) for _ in range(5)]
        await asyncio.sleep(0)
        throttle.set(None)
        done, _ = await asyncio.wait(waiting, timeout=30)
        return len(done)

    assert asyncio.run(story()) == 5


def test_a_block_that_returns_in_time_leaves_the_watchdog_quiet() -> None:
    told: list[str] = []
    watchdog = Watchdog(60.0, told.append)
    with watchdog.over("a transaction"):
        pass
    assert not told
    assert all(thread.name != "driftline-watchdog" or not thread.is_alive() for thread in threading.enumerate())


def test_a_block_that_hangs_is_told_while_it_hangs() -> None:
    told = threading.Event()
    with Watchdog(0.0, lambda what: told.set()).over("a transaction"):
        assert told.wait(30)
