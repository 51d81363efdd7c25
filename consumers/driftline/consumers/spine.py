"""The two spines: what an input does to its workflow's row before a boundary decides it, and what a commit does.

`event-log` (P3): the row is a cache of the fold. What a boundary commits reaches it when its turn on the log comes.
`state-machine` (P5): the row is the truth. What a boundary commits is in it in the same transaction, and what others
ask for is compared with its version and set, or refused with the row in the refusal (compare-and-swap).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from driftline.consumers.app import App
from driftline.consumers.machine import TIMER_PREFIX
from driftline.consumers.machine_rows import (
    ANSWERS,
    accepted_before,
    illegal,
    stale,
    state_of,
    unsigned,
    without_memory,
)
from driftline.consumers.row_timers import DueTimer
from driftline.consumers.rows import Row, Rows
from driftline.consumers.sources import EFFECTOR, SPINE, TIMER, is_own, source_of
from driftline.schemas import Event, Rejection, canonical_json
from driftline.schemas.ids import derive_id
from driftline.schemas.names import (
    CLOCK_TICKED,
    ESCALATED,
    TIMER_FIRED,
    TRANSITION_ACCEPTED,
    TRANSITION_REJECTED,
    TRANSITION_REQUESTED,
)

TIMERS_A_TICK = 1_000
"""So many fire in one transaction; a tick that makes more of them due is told again by the spine itself."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What an input does before anything is decided."""

    row: Row | None
    """The workflow's row with the input in it; None where there is none."""
    moved: bool
    """Whether the row is another than before, and to be written."""
    decides: bool = True
    """Whether a boundary may decide the input."""
    emitted: tuple[Event, ...] = ()
    """What the spine commits because of it."""


class Spine(Protocol):
    """What happens to rows. Equal inputs give equal results: a sandbox and the runtime drive the same code."""

    def take(self, rows: Rows, key: bytes, event: Event, offset: int) -> Taken:
        """What an input does; nothing is kept yet."""

    def settle(self, rows: Rows, row: Row | None, committed: Sequence[Event], offset: int) -> Row | None:
        """The row after what a boundary commits with it."""

    def legal(self, row: Row | None, proposes: Sequence[str]) -> list[str] | None:
        """Which of the proposed records the row's state allows; None where there is no such rule."""


def spine_of(app: App) -> Spine:
    """The spine that an app says it has."""
    return EventLog(app) if app.machine is None else StateMachine(app)


class EventLog:
    """P3. Timers are those that the fold sets. A request for a transition is a fact as any other: nobody answers."""

    def __init__(self, app: App) -> None:
        self._app = app

    def take(self, rows: Rows, key: bytes, event: Event, offset: int) -> Taken:
        """Fold the event in; a tick makes timers fire, a timer whose row has moved on is void.

        Raises:
            UsageError: The fold raised; it names the event.
        """
        if event.record == CLOCK_TICKED:
            return _ticked(self._app, rows, event)
        before = rows.get(key)
        if is_stray(self._app, before, event):
            return Taken(before, moved=False, decides=False)
        row = rows.fold_on(before, event, offset)
        return Taken(row, row is not None)

    def settle(self, rows: Rows, row: Row | None, committed: Sequence[Event], offset: int) -> Row | None:
        """The row as it is: what is committed is folded in when it is read."""
        return row

    def legal(self, row: Row | None, proposes: Sequence[str]) -> list[str] | None:
        """None: any record may follow any."""
        return None


class StateMachine:
    """P5.

    What the app has committed itself, told by its source, is in the row already and is passed over. So it is with
    what says that it is the app and is not: the source of an event is proved by nobody. Who may write to the events
    topic must be trusted with it, or be kept from it by the broker (ACLs). What only the spine says (that a timer
    fired, that a request was accepted) moves nothing where another source says it, and is not decided. Nor is what a
    boundary proposes, `driftline.Escalated` included: no policy has seen it. An app that takes such a record from
    outside too lists it among its facts.

    Words of the table are asked for, and nothing else: a fact has happened or has not, and what a boundary proposes,
    asked for, would come past its policy.

    A request that lies on the log twice is answered twice: one that was accepted in the same words, since the row
    knows the last of them; one that was refused is refused again, perhaps for another reason, since a version that
    the row has left behind stays so. Not guaranteed: that a repeat is known after `ACCEPTED_KEPT` more requests were
    accepted, nor that a request of a version that the row had not reached is refused again once it has.
    """

    def __init__(self, app: App) -> None:
        self._app = app
        proposed = {record for boundary in app.boundaries for record in boundary.proposes}
        self._gated = frozenset({*proposed, ESCALATED} - set(app.facts))
        self._reports = frozenset(
            (record, source_of(app.name, f"{EFFECTOR}/{effector.name}"))
            for effector in app.effectors
            for record in effector.results
        )

    def take(self, rows: Rows, key: bytes, event: Event, offset: int) -> Taken:
        """Let a fact move the row; answer who asks for a transition; pass over what is in the row already.

        Raises:
            UsageError: The app's fold raised; it names the event.
        """
        if event.record == CLOCK_TICKED:
            return _ticked(self._app, rows, event)
        before = rows.get(key)
        if is_own(self._app.name, event.source):
            return Taken(before, moved=False)
        if event.record == TRANSITION_REQUESTED:
            return self._requested(rows, before, event, offset)
        if event.record in ANSWERS or is_stray(self._app, before, event) or self.is_ungated(event):
            return Taken(before, moved=False, decides=False)
        return Taken(rows.fold_on(before, event, offset), moved=True)

    def is_ungated(self, event: Event) -> bool:
        """Whether an event says what a boundary of the app alone may, and its source is none."""
        if event.record not in self._gated or is_own(self._app.name, event.source):
            return False
        return (event.record, event.source) not in self._reports

    def settle(self, rows: Rows, row: Row | None, committed: Sequence[Event], offset: int) -> Row | None:
        """The row with everything in it that is committed with it."""
        for event in committed:
            row = rows.fold_on(row, event, offset)
        return row

    def legal(self, row: Row | None, proposes: Sequence[str]) -> list[str] | None:
        """Those that lead out of the row's state."""
        machine = self._app.require_machine()
        return machine.legal(state_of(machine, {} if row is None else row.data), proposes)

    def _requested(self, rows: Rows, row: Row | None, event: Event, offset: int) -> Taken:
        told = None if row is None else accepted_before(row.data, event)
        if told is not None:
            return Taken(row, moved=False, decides=False, emitted=(self._accepted(event, *told),))
        refused = self._refusal(row, event)
        if refused is not None:
            return Taken(row, moved=False, decides=False, emitted=(self._rejected(row, event, refused),))
        machine = self._app.require_machine()
        before = state_of(machine, {} if row is None else row.data)
        accepted = self._accepted(event, before, machine.table[before][event.data["transition"]])
        return Taken(rows.fold_on(row, accepted, offset), moved=True, decides=False, emitted=(accepted,))

    def _accepted(self, event: Event, before: str, after: str) -> Event:
        data = {
            "request_id": event.id,
            **{name: event.data[name] for name in ("transition", "by", "reason")},
            "state_before": before,
            "state_after": after,
            "version_after": event.data["expected_version"] + 1,
        }
        return _answer(self._app, event, TRANSITION_ACCEPTED, data)

    def _refusal(self, row: Row | None, event: Event) -> Rejection | None:
        nobody = unsigned(event.data["by"])
        if nobody is not None:
            return nobody
        version = 0 if row is None else row.version
        if version != event.data["expected_version"]:
            return stale(event.data["expected_version"], version)
        machine = self._app.require_machine()
        state = state_of(machine, {} if row is None else row.data)
        asked = event.data["transition"]
        wanted = [trigger for trigger in machine.legal(state) if not self._tells(trigger)]
        if asked in wanted:
            return None
        refused = illegal(machine, state, version, asked, wanted)
        if not self._tells(asked):
            return refused
        why = f"{asked} tells what has happened, and is nothing to ask for"
        return refused.model_copy(update={"message": why})

    def _tells(self, trigger: str) -> bool:
        """Whether a trigger is a fact or a timer. Asked for, it would pass by whoever alone may write it."""
        return trigger.startswith(TIMER_PREFIX) or trigger in self._app.records

    def _rejected(self, row: Row | None, event: Event, refused: Rejection) -> Event:
        data = {
            "request_id": event.id,
            **{name: event.data[name] for name in ("transition", "by")},
            "rejection": canonical_json(refused.model_dump()),
            "state": None if row is None else row.state,
            "version": 0 if row is None else row.version,
            "row": "{}" if row is None else canonical_json(without_memory(row.data)),
        }
        return _answer(self._app, event, TRANSITION_REJECTED, data)


def _ticked(app: App, rows: Rows, event: Event) -> Taken:
    """What time does to the rows of a partition, in both spines alike.

    Where more timers are due than one transaction should hold, the spine tells the same time once more, behind them.
    """
    until = event.data["ticked_at"]
    emitted = [fired(app, timer, event) for timer in rows.due(until, TIMERS_A_TICK)]
    if rows.is_due(until):
        emitted.append(_answer(app, event, CLOCK_TICKED, dict(event.data)))
    return Taken(None, moved=False, decides=False, emitted=tuple(emitted))


def is_stray(app: App, row: Row | None, event: Event) -> bool:
    """Whether an event is a timer that is void, or that none of the app's timers told."""
    return event.record == TIMER_FIRED and (is_void(row, event) or event.source != source_of(app.name, TIMER))


def is_void(row: Row | None, event: Event) -> bool:
    """Whether an event is a timer whose row has moved on from the version that it carries."""
    return event.record == TIMER_FIRED and (row is None or row.version != event.data["row_version"])


def fired(app: App, timer: DueTimer, tick: Event | None = None) -> Event:
    """The event of a timer that is due; its id is one for a timer and a row version, whoever finds it due."""
    workflow = timer.key.decode()
    return Event(
        id=derive_id(app.name, workflow, timer.name, str(timer.row_version)),
        type=TIMER_PREFIX + timer.name,
        source=source_of(app.name, TIMER),
        workflow=workflow,
        time=timer.due_at,
        record=TIMER_FIRED,
        data={"timer": timer.name, "row_version": timer.row_version, "due_at": timer.due_at},
        causation_id=None if tick is None else tick.id,
        traceparent=None if tick is None else tick.traceparent,
    )


def _answer(app: App, asked: Event, record: str, data: dict[str, object]) -> Event:
    return Event(
        id=derive_id(app.name, SPINE, asked.id, record),
        type=record,
        source=source_of(app.name, SPINE),
        workflow=asked.workflow,
        time=asked.time,
        record=record,
        data=data,
        causation_id=asked.id,
        traceparent=asked.traceparent,
    )
