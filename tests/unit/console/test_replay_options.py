"""What the texts of the replay's options mean."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from driftline.console.replay_options import duration_of, time_of
from driftline.schemas import BadInput

NOW = datetime(2026, 9, 22, 15, 30, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("2026-09-01", "2026-09-01T00:00Z"),
        ("2026-09-01T06:00+02:00", "2026-09-01T04:00Z"),
        ("today", "2026-09-22T00:00Z"),
        ("yesterday", "2026-09-21T00:00Z"),
        ("7d", "2026-09-15T00:00Z"),
        ("12h", "2026-09-22T03:30:05Z"),
        ("30m", "2026-09-22T15:00:05Z"),
    ],
)
def test_a_time_is_absolute_or_counts_back_and_days_begin_at_midnight(text: str, meant: str) -> None:
    assert time_of("--from", text, NOW) == datetime.fromisoformat(meant)


@pytest.mark.parametrize("text", ["last week", "7", "-7d", "7w", "", "2026-13-01", "١d"])
def test_what_is_no_time_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(BadInput, match=r"--from .* is not an ISO 8601 time; for example 2026-09-22, .*7d"):
        time_of("--from", text, NOW)


def test_a_length_of_time_names_its_unit() -> None:
    lengths = [duration_of("--for", text) for text in ("90s", "10m", "2h", "1d")]
    assert lengths == [timedelta(seconds=90), timedelta(minutes=10), timedelta(hours=2), timedelta(days=1)]
    with pytest.raises(BadInput, match="--for '10' is no length of time"):
        duration_of("--for", "10")
    with pytest.raises(BadInput, match="no length of time"):
        duration_of("--for", "9999999999999d")
