"""Where a workflow in a sandbox first departs from history, and how far that travels."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from driftline.consumers.app import App
from driftline.consumers.engine import Outcome
from driftline.detectors import ArmOutcome
from driftline.log import Coordinates
from driftline.replay.levels import ACTION, VERDICT
from driftline.replay.sandbox import RUNAWAY, Sameness, SandboxDecision, SandboxRun
from driftline.replay.workflows import history_row
from driftline.schemas import Decision, Event, canonical_json, content_hash

STATE = "state"
ONE_HOT_TYPES = (str, bool, int)
"""Values of a row that the judge is told of one by one; a measured number would be a name of its own each time."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What one decision came to."""

    verdict: str
    """`accepted`, `rejected` or `escalated`."""
    type: str | None
    """Record of the action; None where there is none."""
    payload: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class Departure:
    """The first decision of a workflow that came out otherwise than on the log."""

    index: int
    """Which decision of the workflow it is, from 0."""
    at: Coordinates
    """Of the logged decision."""
    input: str
    """Coordinates of what was decided, as `topic[partition]@offset`."""
    boundary: str
    stream: str
    level: str
    """`verdict` or `action`: the first of them that differs."""
    then: Taken
    now: Taken


@dataclass(frozen=True, slots=True)
class Travel:
    """How far a departure travels, the departure itself left out."""

    decisions_changed: int
    """Later decisions of the same input that came out otherwise."""
    decisions_missing: int
    """Decisions on the log that were not taken: their input did not happen."""
    decisions_extra: int
    """Decisions of what the log does not have."""
    events_changed: int
    """Committed events of the same id that say otherwise, the departing decision's own included."""
    events_missing: int
    """Committed on the log and not in the sandbox."""
    events_extra: int
    """The reverse."""
    facts_withheld: int
    """Facts from outside whose cause did not happen."""


@dataclass(frozen=True, slots=True)
class WorkflowResult:
    """One workflow under one arm."""

    run: SandboxRun
    departure: Departure | None
    """None where every decision came out as on the log, or the sandbox ended before one did not."""
    travel: Travel
    state_equal: bool | None
    """Whether the final rows are equal; None where the app keeps none, or the sandbox ended early."""

    @property
    def complete(self) -> bool:
        """Whether it is evidence."""
        return self.run.complete


def compare(app: App, run: SandboxRun, sameness: Sameness) -> WorkflowResult:
    """A sandbox held against the history of its workflow.

    Decisions are compared by verdict and action, as logged and as decided in the sandbox; rows are both made by
    today's fold.

    Raises:
        UsageError: The fold fails on history.
    """
    then = {logged.at: index for index, logged in enumerate(run.workflow.decisions)}
    common = [one for one in run.decisions if one.logged is not None]
    differing = [(one, level) for one in common if (level := _level(one, sameness)) is not None]
    departure = None
    if differing:
        first, level = differing[0]
        departure = _departure(first, level, then)
    travel = Travel(
        decisions_changed=max(0, len(differing) - 1),
        decisions_missing=len(then) - len({one.logged.at for one in common if one.logged is not None}),
        decisions_extra=len(run.decisions) - len(common),
        **_events(run, sameness),
        facts_withheld=run.facts_withheld,
    )
    return WorkflowResult(run, departure, travel, _state_equal(app, run))


def outcome_of(result: WorkflowResult, sameness: Sameness) -> ArmOutcome:
    """What the judge is told of a workflow under one arm: whether it stayed with history, what it committed, its row.

    As `verdict` (1 is: stayed), `action` (one-hot by record) and `state` (one-hot by field of the row).
    """
    run, stayed = result.run, result.departure is None and result.run.ended != RUNAWAY
    committed = [sameness.hash(event.record, event.data) for event in run.committed]
    hashes = {VERDICT: str(stayed), ACTION: content_hash(canonical_json(committed))}
    state = None
    if run.row is not None:
        hashes[STATE] = content_hash(run.row)
        fields = json.loads(run.row).items()
        state = {f"{name}={canonical_json(v)}": 1.0 for name, v in fields if isinstance(v, ONE_HOT_TYPES)}
    features = {f"type={event.record}": 1.0 for event in run.committed}
    return ArmOutcome(float(stayed), features or {"action=none": 1.0}, hashes, state)


def _level(one: SandboxDecision, sameness: Sameness) -> str | None:
    """The first level at which a decision differs from the logged one; None where it does not."""
    if one.logged is None:
        return None
    decision, outcome = one.logged.decision, one.outcome
    if decision.verdict != outcome.verdict:
        return VERDICT
    then = _hash(decision.action_type, decision.action_payload, sameness)
    now = _hash(outcome.action_type, outcome.action_payload, sameness)
    return None if then == now else ACTION


def _hash(type_: str | None, payload: str | None, sameness: Sameness) -> str | None:
    return None if type_ is None or payload is None else sameness.hash(type_, json.loads(payload))


def _departure(one: SandboxDecision, level: str, then: Mapping[Coordinates, int]) -> Departure:
    logged = one.logged
    if logged is None:
        raise AssertionError("a departure is from something")
    decision = logged.decision
    return Departure(
        index=then[logged.at],
        at=logged.at,
        input=str(decision.input),
        boundary=decision.boundary,
        stream=decision.stream,
        level=level,
        then=_taken(decision),
        now=_taken(one.outcome),
    )


def _taken(one: Decision | Outcome) -> Taken:
    payload = None if one.action_payload is None else json.loads(one.action_payload)
    return Taken(str(one.verdict), one.action_type, payload)


def _events(run: SandboxRun, sameness: Sameness) -> dict[str, int]:
    """Committed events that are others, missing or extra; by id, and of one id in their order."""
    then = _by_id([logged.event for logged in run.workflow.events if logged.committed])
    now = _by_id(run.committed)
    found: Counter[str] = Counter(events_changed=0, events_missing=0, events_extra=0)
    for id_ in then.keys() | now.keys():
        before, after = then.get(id_, []), now.get(id_, [])
        found["events_changed"] += sum(not sameness.same(b, a) for b, a in zip(before, after, strict=False))
        found["events_missing"] += max(0, len(before) - len(after))
        found["events_extra"] += max(0, len(after) - len(before))
    return dict(found)


def _by_id(events: Sequence[Event]) -> dict[str, list[Event]]:
    found: dict[str, list[Event]] = {}
    for event in events:
        found.setdefault(event.id, []).append(event)
    return found


def _state_equal(app: App, run: SandboxRun) -> bool | None:
    if app.fold is None or not run.complete:
        return None
    return run.ended != RUNAWAY and history_row(app, run.workflow) == run.row
