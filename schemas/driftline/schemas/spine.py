"""What spines read and write themselves: ticks of the clock, timers, transitions that others ask for."""

from __future__ import annotations

from driftline.schemas.fields import Logged, Quoted, UtcMillis


class ClockTicked(Logged):
    """Event time has come so far on one partition, and timers that are due by then fire."""

    ticked_at: UtcMillis
    """The event time that it tells, UTC, milliseconds."""


class TimerFired(Logged):
    """A timer of a row is due. Void if the row has moved on from the version that it carries."""

    timer: str
    """Name of the timer."""
    row_version: int
    """Version of the row at which it was due."""
    due_at: UtcMillis
    """When it was due, event time, UTC, milliseconds."""


class TransitionRequested(Logged):
    """Somebody who does not own the row asks for a transition of it: a person, or another system."""

    transition: str
    """The trigger, as the state machine names it: `approve`, `reject`, or a record name."""
    expected_version: int
    """Version of the row that was seen; at any other the request is stale."""
    by: Quoted
    """Who asks: the audit trail. Refused where it is empty or begins as driftline's own sources do."""
    reason: Quoted = ""
    """Why, for people; may be empty."""


class TransitionAccepted(Logged):
    """A request for a transition was carried out; the row has the version that follows the expected one."""

    request_id: str
    """Id of the `TransitionRequested`."""
    transition: str
    """The trigger."""
    by: Quoted
    """Who asked."""
    reason: Quoted = ""
    """Why."""
    state_before: str
    """State that the row left."""
    state_after: str
    """State that it is in."""
    version_after: int
    """Version of the row with the transition in it."""


class TransitionRejected(Logged):
    """A request for a transition was refused; nothing changed."""

    request_id: str
    """Id of the `TransitionRequested`."""
    transition: str
    """The trigger."""
    by: Quoted
    """Who asked."""
    rejection: str
    """Canonical JSON of the `Rejection`: `stale_version`, `illegal_transition`, or `policy_violation` of who asks."""
    state: str | None
    """State of the row as it stands; null where there is no row."""
    version: int
    """Its version; 0 where there is no row."""
    row: str
    """Its data, canonical JSON: what to look at before asking again."""
