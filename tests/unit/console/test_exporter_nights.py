"""What the exporter shows of nights: which is the newest, and which diverged last."""

from __future__ import annotations

from datetime import timedelta

from tests.unit.console.test_exporter import NOON, night, shown_of, value

from driftline.schemas import Alert


def test_an_old_night_that_is_caught_up_neither_moves_the_last_success_nor_the_newest_night() -> None:
    caught_up = night(-30, later_h=30 * 24 + 20)
    found = shown_of(night(-1), night(0), caught_up)
    counted_s = (NOON + timedelta(hours=2.5)).timestamp()
    assert value(found, "replay_last_success_timestamp_seconds", app="renewals", mode="nightly") == counted_s
    assert value(found, "nightly_newest_night_end_timestamp_seconds", app="renewals") == NOON.timestamp()


def test_an_old_night_that_is_the_only_one_shows_that_it_ended_long_ago() -> None:
    found = shown_of(night(-30, later_h=30 * 24))
    ended_s = (NOON - timedelta(days=30)).timestamp()
    assert value(found, "nightly_newest_night_end_timestamp_seconds", app="renewals") == ended_s


def test_a_record_without_the_nights_end_counts_as_the_last_one_did() -> None:
    of_before = night(0, night_ends_at=None)
    found = shown_of(night(-1), of_before)
    name = "replay_last_success_timestamp_seconds"
    assert value(found, name, app="renewals", mode="nightly") == of_before.completed_at.timestamp()
    assert value(shown_of(of_before), "nightly_newest_night_end_timestamp_seconds", app="renewals") is None


def diverged_night(*alerts: Alert) -> tuple[float | None, float | None]:
    """When the night was over that is told as diverged, and how many decisions it had."""
    found = shown_of(*alerts)
    shown_at = value(found, "nightly_diverged_timestamp_seconds", app="renewals")
    ended = value(found, "nightly_diverged_night_end_timestamp_seconds", app="renewals")
    assert (shown_at is None) == (ended is None)
    return ended, value(found, "nightly_diverged_decisions", app="renewals")


def test_an_empty_night_leaves_the_verdict_of_the_one_before_and_ends_no_divergence() -> None:
    empty = night(1, "inconclusive", events=0, compared=0)
    labels = {"app": "renewals", "mode": "nightly", "candidate": "log"}
    found = shown_of(night(0, "diverged"), empty)
    assert value(found, "replay_verdict_state", **labels, verdict="diverged") == 1
    assert diverged_night(night(0, "diverged"), empty) == (NOON.timestamp(), 150)
    name = "replay_last_success_timestamp_seconds"
    assert value(found, name, app="renewals", mode="nightly") == empty.completed_at.timestamp()


def test_a_night_that_diverged_is_told_though_the_next_one_was_counted_in_one_go_with_it() -> None:
    assert diverged_night(night(0, "diverged", 26.5), night(1, later_h=2.6)) == (NOON.timestamp(), 150)


def test_a_later_night_with_decisions_ends_a_divergence_and_an_older_one_does_not() -> None:
    assert diverged_night(night(0, "diverged"), night(1)) == (None, None)
    caught_up = night(-1, later_h=80)
    assert diverged_night(night(0, "diverged"), caught_up) == (NOON.timestamp(), 150)


def test_nights_of_before_that_carry_no_end_begin_and_end_a_divergence_by_when_they_were_counted() -> None:
    began, ended = night(0, "diverged", night_ends_at=None), night(1, night_ends_at=None)
    name = "nightly_diverged_timestamp_seconds"
    assert value(shown_of(began), name, app="renewals") == began.completed_at.timestamp()
    assert value(shown_of(began, ended), name, app="renewals") is None
