"""Where an app stands on the log, asked from outside of it: how far behind its runtime is, and what lies dead."""

from __future__ import annotations

from dataclasses import dataclass

from driftline.log import AppTopics, KafkaReader, Settings
from driftline.log.group import group_standing

REQUEST_TIMEOUT_S = 5.0
"""Of one request. It bounds how long a stop can wait for a broker that is away; below a supervisor's patience."""


@dataclass(frozen=True, slots=True)
class AppStanding:
    """Where one app stands."""

    lag: int
    """Events that its group has not finished, and control records after the last of them."""
    dead: int
    """Offsets between the ends of its dead topic; control records count too, so it bounds the records from above."""


def read_standing(settings: Settings, app: str) -> AppStanding:
    """Ask the broker where an app stands; neither its code nor its group is touched.

    An event that was finished out of order is no lag, though the committed offset lies below it.

    Raises:
        UsageError: The app has no topics.
        KafkaUnreachable: The broker does not answer.
    """
    topics, reader = AppTopics(app), KafkaReader(settings, REQUEST_TIMEOUT_S)
    events, dead = reader.span(topics.events), reader.span(topics.dead)
    stands = group_standing(settings, f"driftline.{app}", topics.events, events.ranges)
    lag = 0
    for partition, (low, high) in events.ranges.items():
        stand = stands[partition]
        lag += high - low if stand is None else max(0, high - stand.end) + len(stand.offsets)
    return AppStanding(lag, dead.offsets)
