"""The telco file projects onto renewals as the reference implementation of arXiv 2605.20173 does."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from driftline.producers.renewals import projection, telco_renewals

TELCO = Path(__file__).parents[3] / "shared" / "data" / "telco-customer-churn.csv"

pytestmark = [
    pytest.mark.acceptance,
    pytest.mark.skipif(not TELCO.is_file(), reason=f"the IBM telco file is not at {TELCO}"),
]


def test_the_whole_file_gives_the_known_counts() -> None:
    events = list(telco_renewals(TELCO))
    assert Counter(projection(event.data) for event in events) == {
        "renewed": 2858,
        "renewed_with_offer": 2053,
        "churned": 1655,
        "restructured": 263,
        "escalated": 214,
    }
    assert Counter(event.type for event in events) == {
        "renewal-due.month-to-month": 3875,
        "renewal-due.one-year": 1473,
        "renewal-due.two-year": 1695,
    }
    assert sum(event.data["total_charges"] is None for event in events) == 11
    assert len({event.id for event in events}) == 7043


def test_the_events_are_the_same_on_every_run_and_in_order() -> None:
    events = list(telco_renewals(TELCO, limit=200))
    assert events == list(telco_renewals(TELCO, limit=200))
    assert [event.time for event in events] == sorted(event.time for event in events)
    assert len(events) == 200
