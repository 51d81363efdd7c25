"""`ControlSetting`: what a person has set for a running app, and the values that a setting may have."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from driftline.schemas.fields import Logged, Quoted, UtcMillis

KILL = "kill"
THROTTLE = "throttle"
SPINE = "spine"
EVENT_LOG, STATE_MACHINE = "event-log", "state-machine"
"""The values of `SpineCut.spine`."""


class ControlSetting(Logged):
    """One record of `<app>.control`. Of each setting the last record holds, and takes the place of the one before."""

    setting: str
    """`kill`, `throttle` or `spine`; the record's key."""
    value: str
    """Canonical JSON of the value (`Kill`, `Throttle`, `SpineCut`), whole: what it does not name is not set."""
    reason: Quoted = ""
    """Why, for people; may be empty."""
    by: Quoted
    """Who set it: a person or a system."""
    at: UtcMillis
    """When it was set, UTC, milliseconds."""


class _Value(BaseModel):
    """A setting's value. A field of a later version is passed over: an older process must still obey the rest."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


class Kill(_Value):
    """The kill switch."""

    killed: bool
    """Whether the app stands still: nothing is decided and nothing done until it is resumed."""


class Throttle(_Value):
    """Limits of a running app; null is no limit."""

    decisions_per_minute: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Decisions that one process may begin in a minute."""
    in_flight_max: Annotated[int, Field(ge=1)] | None = None
    """Decisions that one process may have begun and not ended."""


class SpineCut(_Value):
    """Which spine the app's log has, and from where on. Written by the cut-over or at an app's first start, once; a
    cut-over that found a process of the app on the log takes it back.
    """

    spine: str
    """`event-log` or `state-machine`."""
    rows_version: str
    """Version of the rows that were written then."""
    offsets: dict[str, int]
    """Partition of the events topic to the first offset that is decided on this spine; some above it may have been
    decided before.
    """
    rows_hash: str = ""
    """Hash of the rows that it began with; empty where it began with none."""
    machine_hash: str = ""
    """Hash of the transition table that it began with; empty where it was not written down."""
