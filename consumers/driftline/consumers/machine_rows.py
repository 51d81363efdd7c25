"""A state machine over rows: the fold that it makes, the verifier that it is, and how it refuses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from driftline.consumers.fold import STATE, TIMERS, FoldFunction
from driftline.consumers.judging import Case, Proposal
from driftline.consumers.machine import TIMER_PREFIX, Machine
from driftline.schemas import Event, Rejection, RejectionCode, canonical_json, content_hash
from driftline.schemas.names import TIMER_FIRED, TRANSITION_ACCEPTED, TRANSITION_REJECTED

LEGAL, ROW, ROW_VERSION = "legal", "row", "row_version"
"""Names in a context: the records that the row's state allows, the row's data, its version."""
ANSWERS = (TRANSITION_ACCEPTED, TRANSITION_REJECTED)
"""What the spine commits for those who ask for a transition; nobody else does."""
ACCEPTED = TRANSITION_ACCEPTED
"""Name in a row's data: the requests that moved it last, oldest first, by which a repeat is known."""
ACCEPTED_KEPT = 3
RULE_ID = "state-machine"
OWN_SOURCES = "driftline:"
"""What the sources of all that driftline commits itself begin with."""


def state_of(machine: Machine, data: Mapping[str, Any]) -> str:
    """The state that a row's data names; the initial one where they name none."""
    return str(data.get(STATE, machine.initial))


def trigger_of(event: Event) -> str:
    """What an event is to a state machine: its record, the timer that fired, or what was asked for and accepted."""
    if event.record == TIMER_FIRED:
        return TIMER_PREFIX + str(event.data["timer"])
    return str(event.data["transition"]) if event.record == TRANSITION_ACCEPTED else event.record


def machine_fold(machine: Machine, inner: FoldFunction | None) -> FoldFunction:
    """The fold of rows that a state machine moves.

    `inner` folds the data; state, timers and the requests that were accepted are the machine's whatever it says. An
    event that leads nowhere from the row's state leaves the state as it is: facts from outside have happened, and
    cannot be refused.
    """

    def fold(data: Mapping[str, Any], event: Event) -> Mapping[str, Any]:
        state = state_of(machine, data)
        target = machine.target(state, trigger_of(event))
        folded = dict(data if inner is None else inner(data, event))
        moved = STATE not in data or target not in (None, state)
        timers = _begun(machine, target or state, event) if moved else dict(data.get(TIMERS, {}))
        folded |= {STATE: target or state, TIMERS: timers, ACCEPTED: _accepted(data, event)}
        for name in (TIMERS, ACCEPTED):
            if not folded[name]:
                del folded[name]
        return folded

    return fold


def accepted_before(data: Mapping[str, Any], request: Event) -> tuple[str, str] | None:
    """The states before and after that a request was told when it was accepted; None where it is none of the last.

    Known again by its id and all that it says: another request under the same id is another.
    """
    said = {name: request.data[name] for name in ("transition", "by", "reason")}
    asked = _hash_of(request.id, said, request.data["expected_version"] + 1)
    told = (one for one in data.get(ACCEPTED, ()) if one["request"] == asked)
    return next(((one["state_before"], one["state_after"]) for one in told), None)


def without_memory(data: Mapping[str, Any]) -> dict[str, Any]:
    """A row's data without what the spine itself keeps of requests: nothing to decide by."""
    return {name: value for name, value in data.items() if name != ACCEPTED}


def _accepted(data: Mapping[str, Any], event: Event) -> list[Mapping[str, Any]]:
    """The requests that a row was moved by last, with this event if it accepts one."""
    kept = list(data.get(ACCEPTED, ()))
    if event.record != TRANSITION_ACCEPTED:
        return kept
    told = event.data
    asked = _hash_of(told["request_id"], told, told["version_after"])
    kept.append({"request": asked, "state_before": told["state_before"], "state_after": told["state_after"]})
    return kept[-ACCEPTED_KEPT:]


def _hash_of(request_id: str, said: Mapping[str, Any], version_after: int) -> str:
    parts = [request_id, said["transition"], said["by"], said["reason"], str(version_after)]
    return content_hash(canonical_json(parts))


def _begun(machine: Machine, state: str, event: Event) -> dict[str, str]:
    """Timers that the arrival in a state starts; what would be due after the year 9999 never is."""
    latest = datetime.max.replace(tzinfo=UTC) - event.time
    timers = machine.timers_by_state.get(state, ())
    return {timer.name: (event.time + timer.after).isoformat() for timer in timers if timer.after <= latest}


@dataclass(frozen=True)
class StateVerifier:
    """Refuses what the row's state does not allow. The row is in the context, so that a replay refuses alike."""

    machine: Machine

    @property
    def version(self) -> str:
        """Hash of the transition table."""
        return self.machine.hash

    def verify(self, proposal: Proposal, case: Case) -> Sequence[Rejection]:
        """One rejection with the row in it where the proposed record leads nowhere from the row's state."""
        data = case.context.get(ROW) or {}
        state = state_of(self.machine, data)
        if self.machine.target(state, proposal.type) is not None:
            return ()
        legal = case.context.get(LEGAL)
        if legal is None:  # decided on the event log, which told no model what is legal
            legal = self.machine.legal(state)
        return (illegal(self.machine, state, case.context.get(ROW_VERSION) or 0, proposal.type, legal, data),)


def illegal(
    machine: Machine,
    state: str,
    version: int,
    trigger: str,
    legal: Sequence[str],
    data: Mapping[str, Any] | None = None,
) -> Rejection:
    """The rejection of a transition that the state does not allow."""
    row = {"state": state, "version": version, **({} if data is None else {"data": dict(data)})}
    return Rejection(
        code=RejectionCode.ILLEGAL_TRANSITION,
        path="/type",
        expected=" or ".join(legal) or "nothing",
        actual=canonical_json({"proposed": trigger, "row": row}),
        rule_id=RULE_ID,
        rule_version=machine.version,
        retryable=True,
        message=f"{trigger} leads nowhere from the state {state}",
    )


def stale(expected: int, version: int) -> Rejection:
    """The rejection of a request that was made of another version of the row."""
    return Rejection(
        code=RejectionCode.STALE_VERSION,
        path="/expected_version",
        expected=str(expected),
        actual=str(version),
        rule_id=RULE_ID,
        rule_version="1",
        retryable=True,
        message=f"the row is at version {version}: look at it and ask again",
    )


def unsigned(by: str) -> Rejection | None:
    """The rejection of a request that nobody answers for; None where somebody does.

    Nobody is an empty name, and one of driftline's own sources: what it commits itself it asks nobody for.
    """
    if by.strip() and not by.startswith(OWN_SOURCES):
        return None
    return Rejection(
        code=RejectionCode.POLICY_VIOLATION,
        path="/by",
        expected="a person or a system",
        actual=by,
        rule_id=RULE_ID,
        rule_version="1",
        retryable=True,
        message=f"a request by {by!r} is nobody's: name who asks",
    )
