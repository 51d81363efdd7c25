"""`EffectReported`: the fact that an effector returns to the log."""

from __future__ import annotations

from enum import StrEnum

from driftline.schemas.fields import Logged, Quoted, UtcMillis


class EffectStatus(StrEnum):
    """What became of an effect."""

    DONE = "done"
    """It was done, at least once."""
    FAILED = "failed"
    """The outside world refused it for good."""


class EffectReported(Logged):
    """What became of an effect on the outside world; its cause is the committed event that asked for it."""

    effector: str
    """Effector name."""
    status: str
    """An `EffectStatus`."""
    detail: Quoted = ""
    """One sentence for people; of a failure, why."""
    data: str
    """Canonical JSON object of what the effector returned."""
    reported_at: UtcMillis
    """When the outcome was known, UTC, milliseconds (the record's timestamp is its cause's event time)."""
