"""A position of offsets that finish out of order: nothing finished comes up again, nothing unfinished is lost."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.log.positions import METADATA_BYTES_MAX, UNFINISHED_MAX, Tracker, Unfinished, read_metadata


@st.composite
def positions(draw: st.DrawFn) -> Unfinished:
    base = draw(st.integers(0, 2**62))
    gaps = draw(st.lists(st.integers(1, 2000), max_size=40))
    offsets = [base]
    for gap in gaps:
        offsets.append(offsets[-1] + gap)
    return Unfinished(base, offsets[-1] + draw(st.integers(2, 50)), tuple(offsets))


@given(positions())
def test_a_position_survives_its_metadata(position: Unfinished) -> None:
    assert read_metadata(position.metadata(), position.base) == position


@given(positions(), st.integers(1, 1000))
def test_metadata_of_an_offset_that_somebody_reset_is_ignored(position: Unfinished, moved: int) -> None:
    reset = position.base + moved
    assert read_metadata(position.metadata(), reset) == Unfinished(reset, reset)


@given(st.text(max_size=60), st.integers(0, 100))
def test_metadata_of_others_is_ignored(metadata: str, committed: int) -> None:
    assert read_metadata(metadata, committed) == Unfinished(committed, committed)


@given(st.binary(max_size=30), st.integers(0, 100))
def test_mutilated_metadata_never_fails(payload: bytes, committed: int) -> None:
    text = f"v1:{committed}:{payload.hex()}"
    assert read_metadata(text, committed).base == committed


def test_a_thousand_unfinished_over_a_hundred_thousand_offsets_take_under_two_kilobytes() -> None:
    position = Unfinished(0, 100_000, tuple(range(0, 100_000, 100)))
    assert len(position.metadata()) < 2_000


def test_as_many_unfinished_as_a_partition_allows_fit_the_broker() -> None:
    position = Unfinished(0, UNFINISHED_MAX * 16_383, tuple(range(0, UNFINISHED_MAX * 16_383, 16_383)))
    assert len(position.metadata()) <= METADATA_BYTES_MAX


def test_what_does_not_fit_is_refused_before_the_broker_loses_it() -> None:
    position = Unfinished(0, 4000 * 20_000, tuple(range(0, 4000 * 20_000, 20_000)))
    with pytest.raises(ValueError, match="4000 unfinished"):
        position.metadata()


def test_offsets_that_finish_in_order_need_no_metadata() -> None:
    tracker = Tracker(Unfinished(10, 10))
    for offset in (10, 11, 13):
        tracker.take(offset)
        tracker.finish(offset)
    assert (tracker.position(), tracker.position().metadata()) == (Unfinished(14, 14), "")


def test_a_hung_offset_holds_the_position_and_nothing_else() -> None:
    tracker = Tracker(Unfinished(0, 0))
    for offset in range(6):
        tracker.take(offset)
    for offset in (0, 2, 3, 5):
        tracker.finish(offset)
    assert tracker.position() == Unfinished(1, 6, (1, 4))
    assert tracker.unfinished == 2


def test_offsets_are_taken_up_in_order_only() -> None:
    tracker = Tracker(Unfinished(0, 0))
    tracker.take(3)
    with pytest.raises(ValueError, match="offset 2 comes after 3"):
        tracker.take(2)


@given(st.sets(st.integers(0, 100), min_size=1, max_size=60), st.integers(0, 2**32))
def test_over_any_crashes_every_offset_finishes_once_as_committed(log: set[int], seed: int) -> None:
    """A process takes, finishes, commits and dies at will; what it finished since its last commit dies with it."""
    chance = Random(seed)
    committed, base, metadata = dict.fromkeys(sorted(log), 0), 0, ""
    while not all(committed.values()):
        tracker, finished = Tracker(read_metadata(metadata, base)), set[int]()
        upcoming = (offset for offset in sorted(log) if offset >= base)
        running: list[int] = []
        for _ in range(chance.randint(1, 80)):
            if running and chance.random() < 0.5:
                offset = running.pop(chance.randrange(len(running)))
                tracker.finish(offset)
                finished.add(offset)
            elif (taken := next(upcoming, None)) is not None and tracker.take(taken):
                running.append(taken)
            if chance.random() < 0.25:
                position = tracker.position()
                base, metadata = position.base, position.metadata()
                for offset in finished:
                    committed[offset] += 1
                finished.clear()
    assert set(committed.values()) == {1}


@given(st.lists(st.integers(1, 60_000), min_size=1, max_size=UNFINISHED_MAX), st.integers(0, 2**32))
def test_a_partition_has_no_room_before_its_metadata_is_too_long(gaps: list[int], seed: int) -> None:
    chance = Random(seed)
    tracker, offset = Tracker(Unfinished(0, 0)), 0
    while tracker.room:
        offset += chance.choice(gaps)
        tracker.take(offset)
        if chance.random() < 0.3:
            tracker.finish(offset)
    tracker.take(offset + max(gaps))
    tracker.finish(offset + max(gaps))
    assert len(tracker.position().metadata()) <= METADATA_BYTES_MAX


def test_a_full_position_leaves_its_next_owner_room_as_its_offsets_finish() -> None:
    before = Unfinished(0, 2 * UNFINISHED_MAX, tuple(range(0, 2 * UNFINISHED_MAX, 2)))
    tracker = Tracker(read_metadata(before.metadata(), 0))
    assert (tracker.room, tracker.catching_up, tracker.unfinished) == (0, True, UNFINISHED_MAX)
    for offset in range(2 * UNFINISHED_MAX):
        assert tracker.take(offset) == (offset % 2 == 0)
    assert (tracker.room, tracker.catching_up, tracker.running) == (0, False, UNFINISHED_MAX)
    for offset in range(0, 400, 2):
        tracker.finish(offset)
    assert tracker.room == 200


def test_an_unfinished_offset_that_the_log_holds_no_more_is_done_with() -> None:
    tracker = Tracker(Unfinished(3, 10, (3, 7)))
    assert tracker.take(7)
    tracker.finish(7)
    assert tracker.position() == Unfinished(8, 10)
