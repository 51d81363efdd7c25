"""Lanes: one decision of a key at a time, in order, whatever else runs; and nothing begins that must not."""

from __future__ import annotations

import asyncio
import threading
from collections import defaultdict
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftline.consumers.lanes import Lanes
from driftline.consumers.partition import OwnedPartition
from driftline.consumers.rows import Rows
from driftline.log import Coordinates, Record, Unfinished

PATIENCE_S = 30.0
"""Bounds a failing test; nothing waits for it in a passing one."""
Decide = Callable[[Record, OwnedPartition], Awaitable[Record]]


def owner(number: int = 0) -> OwnedPartition:
    return OwnedPartition(number, Unfinished(0, 0), Rows(None))


def records(keys: list[bytes], partition: int = 0) -> list[Record]:
    return [Record(Coordinates("t", partition, offset), key, b"", 1) for offset, key in enumerate(keys)]


async def free() -> None:
    """No throttle."""


def lanes(decide: Decide, in_flight_max: int = 10) -> Lanes[Record]:
    return Lanes(decide, in_flight_max, free)


def collect(found: Lanes[Record], count: int) -> list[Record]:
    results: list[Record] = []
    while len(results) < count:
        some = list(found.collect(PATIENCE_S))
        assert some, "nothing more comes out"
        results += [one for one in some if isinstance(one, Record)]
    return results


@settings(deadline=None, max_examples=50)
@given(st.lists(st.sampled_from([b"a", b"b", b"c", b"d"]), max_size=40), st.integers(1, 6))
def test_a_key_is_decided_in_order_and_never_twice_at_once(keys: list[bytes], in_flight_max: int) -> None:
    running: set[bytes | None] = set()

    async def decide(record: Record, owner: OwnedPartition) -> Record:
        assert record.key not in running
        running.add(record.key)
        assert len(running) <= in_flight_max
        for _ in range(record.at.offset % 3):
            await asyncio.sleep(0)
        running.discard(record.key)
        return record

    found, of = lanes(decide, in_flight_max), owner()
    with found.running():
        found.submit([(of, record) for record in records(keys)])
        results = collect(found, len(keys))
    by_key = defaultdict(list)
    for record in results:
        by_key[record.key].append(record.at.offset)
    assert all(offsets == sorted(offsets) for offsets in by_key.values())
    assert sorted(record.at.offset for record in results) == list(range(len(keys)))


@settings(deadline=None, max_examples=50)
@given(st.lists(st.sampled_from([b"a", b"b", b"c", b"tick"]), max_size=40), st.integers(1, 6), st.integers(1, 40))
def test_what_comes_last_is_decided_when_all_below_it_is(
    keys: list[bytes], in_flight_max: int, together: int
) -> None:
    """Whatever is taken up together, and however many turns each decision takes."""
    decided: set[int] = set()

    async def decide(record: Record, owner: OwnedPartition) -> Record:
        if record.key == b"tick":
            assert decided == decided | set(range(record.at.offset))
        for _ in range(record.at.offset * 7 % 5):
            await asyncio.sleep(0)
        decided.add(record.at.offset)
        return record

    found = Lanes(decide, in_flight_max, free, comes_last=lambda record: record.key == b"tick")
    of, given_ = owner(), records(keys)
    with found.running():
        for first in range(0, len(given_), together):
            found.submit([(of, record) for record in given_[first : first + together]])
        results = collect(found, len(keys))
    assert sorted(record.at.offset for record in results) == list(range(len(keys)))


def test_what_comes_last_of_one_partition_waits_for_no_other() -> None:
    other_began = asyncio.Event()

    async def decide(record: Record, owner: OwnedPartition) -> Record:
        if record.key == b"tick":
            other_began.set()
        else:
            await other_began.wait()
        return record

    found = Lanes(decide, 4, free, comes_last=lambda record: record.key == b"tick")
    with found.running():
        found.submit([(owner(0), records([b"slow"])[0]), (owner(1), records([b"tick"], 1)[0])])
        assert {record.key for record in collect(found, 2)} == {b"slow", b"tick"}


def test_the_same_key_of_two_partitions_is_two_lanes() -> None:
    met = asyncio.Event()
    asked: list[Record] = []

    async def decide(record: Record, owner: OwnedPartition) -> Record:
        asked.append(record)
        if len(asked) == 2:
            met.set()
        await asyncio.wait_for(met.wait(), PATIENCE_S)
        return record

    found = lanes(decide)
    with found.running():
        found.submit([(owner(0), records([b"a"], 0)[0]), (owner(1), records([b"a"], 1)[0])])
        assert len(collect(found, 2)) == 2


def test_of_a_partition_that_is_going_nothing_new_begins() -> None:
    begun, go_on = threading.Event(), threading.Event()
    asked: list[int] = []

    async def decide(record: Record, owner: OwnedPartition) -> Record:
        asked.append(record.at.offset)
        begun.set()
        await asyncio.to_thread(go_on.wait, PATIENCE_S)
        return record

    found, going, staying = lanes(decide, 1), owner(0), owner(1)
    with found.running():
        found.submit([(going, record) for record in records([b"a", b"a", b"b"])])
        assert begun.wait(PATIENCE_S)
        going.closing = True
        go_on.set()
        found.submit([(staying, records([b"z"], 1)[0])])
        assert [record.at.partition for record in collect(found, 2)] == [0, 1]
    assert asked == [0, 0]
    assert going.running == 0


def test_a_limit_of_none_lets_nothing_begin_until_it_is_lifted() -> None:
    async def decide(record: Record, owner: OwnedPartition) -> Record:
        return record

    found = lanes(decide)
    with found.running():
        found.limit(0)
        found.submit([(owner(), record) for record in records([b"a", b"b"])])
        assert not list(found.collect())
        found.limit(1)
        assert len(collect(found, 2)) == 2


@pytest.mark.parametrize("error", [ZeroDivisionError("no"), asyncio.CancelledError("no"), SystemExit("no")])
def test_what_a_decision_raises_comes_out_and_its_key_goes_no_further(error: BaseException) -> None:
    asked: list[int] = []

    async def decide(record: Record, owner: OwnedPartition) -> Record:
        asked.append(record.at.offset)
        if record.key == b"a":
            raise error
        return record

    found, of = lanes(decide), owner()
    with found.running():
        found.submit([(of, record) for record in records([b"a", b"a", b"b"])])
        results: list[Record | BaseException] = []
        while len(results) < 2:
            results += found.collect(PATIENCE_S)
    assert error in results
    assert asked == [0, 2]


def test_behind_what_raised_nothing_of_its_key_is_decided_whenever_it_is_submitted() -> None:
    asked: list[int] = []

    async def decide(record: Record, owner: OwnedPartition) -> Record:
        asked.append(record.at.offset)
        if record.at.offset == 0:
            raise ZeroDivisionError("no")
        return record

    found, of, later = lanes(decide), owner(), owner()
    a0, a1, a2, b3 = records([b"a", b"a", b"a", b"b"])
    with found.running():
        found.submit([(of, a0)])
        (error,) = found.collect(PATIENCE_S)
        assert isinstance(error, ZeroDivisionError)
        found.submit([(of, a1)])
        found.submit([(of, a2), (of, b3)])
        assert collect(found, 1) == [b3]
        found.submit([(later, a1)])
        assert collect(found, 1) == [a1], "a later ownership begins anew"
    assert asked == [0, 3, 1]


def test_whoever_becomes_ready_while_the_last_worker_leaves_finds_another() -> None:
    async def decide(record: Record, owner: OwnedPartition) -> Record:
        return record

    found, of, decided = lanes(decide, 1), owner(), 0
    with found.running():
        for number in range(3_000):
            found.submit([(of, Record(Coordinates("t", 0, number), b"k%d" % number, b"", 1))])
            if number % 3 == 0 and decided <= number:
                decided += len(collect(found, 1))
        assert decided + len(collect(found, 3_000 - decided)) == 3_000


def test_nothing_that_waits_for_a_turn_is_taken_after_the_limit_is_none() -> None:
    turns, asked = asyncio.Semaphore(0), threading.Event()
    decided: list[int] = []

    async def admit() -> None:
        asked.set()
        await turns.acquire()

    async def decide(record: Record, owner: OwnedPartition) -> Record:
        decided.append(record.at.offset)
        return record

    found: Lanes[Record] = Lanes(decide, 4, admit)
    with found.running():
        found.submit([(owner(), record) for record in records([b"a", b"b", b"c"])])
        assert asked.wait(PATIENCE_S)
        assert found.in_flight == 0
        found.limit(0)
        for _ in range(4):
            found._loop.call_soon_threadsafe(turns.release)
        assert not list(found.collect(0.05))
        assert not decided


def test_what_is_in_flight_at_the_end_is_cancelled() -> None:
    cancelled, begun = threading.Event(), threading.Event()

    async def decide(record: Record, owner: OwnedPartition) -> Record:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return record

    found, of = lanes(decide), owner()
    with found.running():
        found.submit([(of, records([b"a"])[0])])
        assert begun.wait(PATIENCE_S)
    assert cancelled.is_set()
    assert (of.running, found.in_flight) == (0, 0)


def test_a_hung_key_takes_one_place_and_the_others_go_on() -> None:
    async def decide(record: Record, owner: OwnedPartition) -> Record:
        if record.key == b"hung":
            await asyncio.Event().wait()
        return record

    found, of = lanes(decide, 2), owner()
    with found.running():
        found.submit([(of, record) for record in records([b"hung", *[b"k%d" % n for n in range(500)]])])
        assert len(collect(found, 500)) == 500
        assert found.in_flight == 1
