"""Timers of rows: what a row has dropped is passed over, and does not fill the memory until it is due."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from math import log2
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.consumers import row_timers
from driftline.consumers.row_bytes import timers_of
from driftline.consumers.row_timers import DROPPED_MIN, RowTimers, Timers, read_due

NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)
WEEK = timedelta(days=7)


class Table:
    """Rows of which only timers matter."""

    def __init__(self) -> None:
        self.rows: dict[bytes, tuple[int, Timers]] = {}
        self.looks = 0
        """At rows."""
        self.timers = RowTimers(self._standing)

    def _standing(self, key: bytes) -> tuple[int, Timers]:
        self.looks += 1
        return self.rows.get(key, (0, {}))

    def begin(self, rows: dict[bytes, Timers]) -> None:
        self.rows = {key: (1, timers) for key, timers in rows.items()}
        self.timers.begin(rows.items())

    def move(self, key: bytes, after: Timers) -> None:
        version, before = self.rows.get(key, (0, {}))
        self.rows[key] = version + 1, after
        self.timers.moved(key, before, after)


def test_a_timer_that_every_event_puts_off_takes_no_more_room_than_others() -> None:
    table = Table()
    for second in range(10 * DROPPED_MIN):
        table.move(b"w%d" % (second % 7), {"nudge": NOON + WEEK + timedelta(seconds=second)})
    assert len(table.timers) <= 2 * DROPPED_MIN + 7
    assert len(table.timers.due(NOON + 2 * WEEK, 100)) == 7


def test_no_more_are_given_out_than_asked_for_and_the_rest_the_next_time() -> None:
    table = Table()
    for number in range(5):
        table.move(b"w%d" % number, {"nudge": NOON + timedelta(seconds=number)})
    first = table.timers.due(NOON + WEEK, 3)
    assert [timer.key for timer in first] == [b"w0", b"w1", b"w2"]
    assert table.timers.is_due(NOON + WEEK)
    assert [timer.key for timer in table.timers.due(NOON + WEEK, 3)] == [b"w3", b"w4"]
    assert not table.timers.is_due(NOON + WEEK)


def test_a_timer_that_was_given_out_is_given_out_again_when_its_row_moves_on_and_still_has_it() -> None:
    table = Table()
    table.move(b"w", {"nudge": NOON})
    assert [timer.row_version for timer in table.timers.due(NOON, 9)] == [1]
    assert table.timers.due(NOON, 9) == []
    table.move(b"w", {"nudge": NOON})
    assert [timer.row_version for timer in table.timers.due(NOON, 9)] == [2]


@pytest.mark.parametrize("text", ["2026-07-01T12:00:00", "1969-07-01T12:00:00Z", "soon"])
def test_a_due_time_that_no_event_could_have_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"nudge|Invalid"):
        read_due("nudge", text)


class Counted(datetime):
    """A time that counts how often it is compared."""

    compared = 0

    __hash__ = datetime.__hash__

    def __eq__(self, other: object) -> bool:
        Counted.compared += 1
        return super().__eq__(other)


@pytest.mark.parametrize("rows", [1_000, 100_000])
@pytest.mark.parametrize("fired", [0, 7])
def test_a_tick_looks_at_the_rows_whose_timers_it_fires_and_at_no_other_however_many_there_are(
    rows: int, fired: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        row_timers, "_from_ms", lambda ms: Counted(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ms)
    )
    table = Table()
    table.begin({b"w%d" % number: {"nudge": NOON + timedelta(seconds=number)} for number in range(rows)})
    Counted.compared = 0
    due = table.timers.due(NOON + timedelta(seconds=fired - 1), 1_000)
    assert [timer.key for timer in due] == [b"w%d" % number for number in range(fired)]
    assert table.looks == fired
    assert (Counted.compared > 0) == (fired > 0)
    assert Counted.compared <= fired * 6 * log2(rows)


@given(
    due=st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=60),
    moved=st.dictionaries(st.integers(0, 59), st.one_of(st.none(), st.integers(0, 30)), max_size=20),
    ticks=st.lists(st.integers(0, 31), max_size=6),
)
def test_what_rows_begin_with_and_what_they_move_on_to_is_given_out_as_if_it_had_come_one_by_one(
    due: list[tuple[int, int]], moved: dict[int, int | None], ticks: list[int]
) -> None:
    with pytest.MonkeyPatch.context() as patching:
        patching.setattr(row_timers, "SORTED_AT_ONCE", 7)
        at_once, one_by_one = Table(), Table()
        rows: dict[bytes, Timers] = {
            b"w%d" % number: {"a": NOON + timedelta(seconds=a), "b": NOON + timedelta(seconds=b)}
            for number, (a, b) in enumerate(due)
        }
        at_once.begin(rows)
    for key, timers in rows.items():
        one_by_one.move(key, timers)
    for number, second in moved.items():
        key = b"w%d" % number
        after = {} if second is None else {"a": NOON + timedelta(seconds=second)}
        at_once.move(key, after)
        one_by_one.move(key, after)
    for second in [*sorted(ticks), 31]:
        until = NOON + timedelta(seconds=second)
        few, rest = zip(
            *((t.timers.due(until, 5), t.timers.due(until, 999)) for t in (at_once, one_by_one)), strict=True
        )
        assert [timer.due_at for timer in few[0]] == [timer.due_at for timer in few[1]]
        assert {*few[0], *rest[0]} == {*few[1], *rest[1]}


def test_timers_that_rows_begin_with_are_given_out_earliest_first_until_their_rows_move_on() -> None:
    table = Table()
    table.begin({b"late": {"nudge": NOON + WEEK}, b"gone": {"nudge": NOON}, b"early": {"b": NOON, "a": NOON}})
    table.move(b"gone", {})
    assert [(timer.key, timer.name) for timer in table.timers.due(NOON + WEEK, 9)] == [
        (b"early", "a"),
        (b"early", "b"),
        (b"late", "nudge"),
    ]


NAMES = st.sampled_from(["timers", "a", "zone", "state", '"timers":{', "}", "\\"])
VALUES = st.recursive(
    st.one_of(st.integers(0, 9), st.sampled_from(["", '{"timers":{}}', ',"timers":{"a":"b"}', "}", "\\"])),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(NAMES, inner, max_size=3)),
    max_leaves=12,
)


@given(data=st.dictionaries(NAMES, VALUES, max_size=4), before=st.sampled_from([b"", b"\x00v1", b'{"timers":{}']))
def test_the_timers_that_bytes_tell_are_those_at_the_top_of_the_data(data: dict[str, Any], before: bytes) -> None:
    told = timers_of(before + json.dumps(data, sort_keys=True, separators=(",", ":")).encode())
    assert told is None or told == data["timers"]


@pytest.mark.parametrize("more", [{}, {"a": {"timers": {"other": "then"}}}, {"total": 3, "zone": "x"}])
def test_the_timers_of_a_plain_row_are_told_by_its_bytes(more: dict[str, Any]) -> None:
    data = {"state": "open", "timers": {"expiry": "2026-08-01T00:00:00+00:00"}, **more}
    assert timers_of(json.dumps(data, sort_keys=True, separators=(",", ":")).encode()) == data["timers"]
