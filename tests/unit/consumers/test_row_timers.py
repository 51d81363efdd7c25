"""Timers of rows: what a row has dropped is passed over, and does not fill the memory until it is due."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from driftline.consumers.row_timers import DROPPED_MIN, RowTimers, Timers, read_due

NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)
WEEK = timedelta(days=7)


class Table:
    """Rows of which only timers matter."""

    def __init__(self) -> None:
        self.rows: dict[bytes, tuple[int, Timers]] = {}
        self.timers = RowTimers(lambda key: self.rows.get(key, (0, {})))

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
