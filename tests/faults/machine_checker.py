"""Whether the log of a state machine holds together: one winner a version, no lost update, no answer twice.

Nothing of driftline takes part: the desk's transition table, its fold and its timer are written down here once more,
and each workflow is walked through its inputs in log order, by what the log says became of them.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from tests.faults.checker import At, DecisionSeen, Violation, violation

ASKED, ACCEPTED, REJECTED = (f"driftline.Transition{name}" for name in ("Requested", "Accepted", "Rejected"))
TICKED, TIMER = "driftline.ClockTicked", "timer:nudge"
TABLE: Mapping[str, Mapping[str, str]] = {
    "init": {"desk.Asked": "open", "approve": "closed"},
    "open": {"desk.Offered": "offered", "approve": "closed"},
    "offered": {TIMER: "nudged", "bump": "offered", "approve": "closed"},
    "nudged": {"bump": "nudged", "desk.Asked": "open", "approve": "closed"},
    "closed": {},
}
NUDGED_IN, NUDGE_AFTER = "offered", timedelta(hours=1)
ANSWERED_KEPT = 3
"""Requests that a row remembers to have moved it."""


@dataclass(frozen=True, slots=True)
class Told:
    """A record of the events topic."""

    at: At
    key: bytes
    id: str
    type: str
    source: str
    cause: str
    time: datetime
    value: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class RowTold:
    """A record of the state topic."""

    partition: int
    key: bytes
    version: int
    as_of: int
    state: str | None
    data: Mapping[str, Any]


@dataclass
class MachineSeen:
    """All that `check_machine` judges, each in log order within its partition."""

    app: str
    events: list[Told] = field(default_factory=list)
    rows: list[RowTold] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class MachineReport:
    """What was found; all but `violations` are figures."""

    workflows: int
    requests: int
    accepted: int
    rejected: int
    decided: int
    fired: int
    """Timers that moved a row."""
    void: int
    """Timers that moved none."""
    versions_max: int
    """Version of the row that moved most."""
    violations: Sequence[Violation]


def check_machine(
    seen: MachineSeen, decisions: Sequence[DecisionSeen], dead: Iterable[At], more: Mapping[str, Sequence[object]]
) -> MachineReport:
    """Judge a log at rest.

    Args:
        seen: Events and rows.
        decisions: The decisions.
        dead: Inputs that went to the dead topic.
        more: Other faults that were found, by their kind.
    """
    judging = _Judging(seen, decisions, set(dead))
    judging.walk()
    judging.compare_rows()
    found = {**judging.found, **more}
    counts = judging.counts
    return MachineReport(
        workflows=len(judging.walks),
        requests=sum(one.type == ASKED for one in seen.events),
        accepted=sum(one.type == ACCEPTED for one in seen.events),
        rejected=sum(one.type == REJECTED for one in seen.events),
        decided=len(decisions),
        fired=counts["fired"],
        void=counts["void"],
        versions_max=max((walk.version for walk in judging.walks.values()), default=0),
        violations=[violation(kind, where) for kind, where in found.items() if where],
    )


def unanswered(seen: MachineSeen, dead: Iterable[At]) -> int:
    """Requests that have no answer yet."""
    answered = {one.cause for one in seen.events if one.type in (ACCEPTED, REJECTED)}
    gone = set(dead)
    return sum(one.type == ASKED and one.id not in answered and one.at not in gone for one in seen.events)


class _Walk:
    """What the row of one workflow must be, event by event."""

    def __init__(self) -> None:
        self.version, self.as_of, self.state = 0, -1, "init"
        self.data: dict[str, Any] = {}
        self.answered: list[Mapping[str, str]] = []
        self.history: dict[int, tuple[int, str, Mapping[str, Any]]] = {}

    def move(
        self, offset: int, id_: str, trigger: str, time: datetime, accepted: Mapping[str, Any] | None = None
    ) -> None:
        before, self.state = self.state, TABLE[self.state].get(trigger, self.state)
        timers = self.data.get("timers", {})
        if self.state != before or not self.data:
            due = (time + NUDGE_AFTER).isoformat()
            timers = {"nudge": due} if self.state == NUDGED_IN else {}
        chained = hashlib.sha256(f"{self.data.get('trail', '')}{id_}".encode()).hexdigest()[:16]
        self.data = {"seen": self.data.get("seen", 0) + 1, "trail": chained, "state": self.state}
        self.data |= {"timers": timers} if timers else {}
        if accepted is not None:
            states = {"state_before": before, "state_after": self.state}
            self.answered = [*self.answered, {"request": _asked(accepted), **states}][-ANSWERED_KEPT:]
        self.data |= {ACCEPTED: self.answered} if self.answered else {}
        self.version, self.as_of = self.version + 1, offset
        self.history[self.version] = self.as_of, self.state, self.data


def _asked(accepted: Mapping[str, Any]) -> str:
    """What a request that was accepted is known by, should it come again."""
    parts = [str(accepted[name]) for name in ("request_id", "transition", "by", "reason", "version_after")]
    text = json.dumps(parts, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


class _Judging:
    def __init__(self, seen: MachineSeen, decisions: Sequence[DecisionSeen], dead: set[At]) -> None:
        self._seen, self._dead = seen, dead
        self.walks: defaultdict[tuple[int, bytes], _Walk] = defaultdict(_Walk)
        self.found: defaultdict[str, list[object]] = defaultdict(list)
        self.counts: Counter[str] = Counter()
        self._by_id = {one.id: one for one in seen.events}
        self._answers: defaultdict[str, list[Told]] = defaultdict(list)
        for one in seen.events:
            if one.type in (ACCEPTED, REJECTED):
                self._answers[one.cause].append(one)
        self._emitted: defaultdict[At, list[str]] = defaultdict(list)
        for decision in decisions:
            if decision.input in self._emitted:
                self.found["decided twice"].append(decision.input)
            self._emitted[decision.input] = list(decision.emitted)
        self._claimed: Counter[str] = Counter()

    def walk(self) -> None:
        """Take every workflow through its inputs."""
        own = f"driftline:{self._seen.app}/"
        committed: Counter[str] = Counter()
        for one in sorted(self._seen.events, key=lambda one: one.at):
            if one.source.startswith(own) and one.source != f"{own}timer":
                committed[one.id] += one.type != TICKED
            elif one.type != TICKED and one.at not in self._dead:
                self._take(self.walks[one.at[0], one.key], one)
        self.found["committed without a cause"] += (committed - self._claimed).elements()
        self.found["committed and not on the log"] += (self._claimed - committed).elements()

    def _take(self, walk: _Walk, one: Told) -> None:
        offset = one.at[1]
        if one.type == ASKED:
            self._answer(walk, one)
        elif one.type == TIMER:
            void = walk.version != one.value["row_version"]
            self.counts["void" if void else "fired"] += 1
            if not void:
                walk.move(offset, one.id, TIMER, one.time)
        else:
            walk.move(offset, one.id, one.type, one.time)
        for id_ in self._emitted.get(one.at, ()):
            self._claimed[id_] += 1
            emitted = self._by_id.get(id_)
            if emitted is not None:
                if emitted.type not in TABLE[walk.state] and emitted.type != "driftline.Escalated":
                    self.found["illegal and committed"].append(one.at)
                walk.move(offset, id_, emitted.type, emitted.time)

    def _answer(self, walk: _Walk, one: Told) -> None:
        answers = self._answers[one.id]
        self._claimed.update(answer.id for answer in answers)
        if len(answers) != 1:
            self.found["requests not answered exactly once"].append((one.at, len(answers)))
            return
        answer, asked, offset = answers[0], one.value, one.at[1]
        legal = asked["transition"] in TABLE[walk.state]
        fits = asked["expected_version"] == walk.version and legal
        if answer.type == REJECTED:
            shown = {name: value for name, value in walk.data.items() if name != ACCEPTED}
            stands = (walk.version, walk.state if walk.version else None, shown)
            told = (answer.value["version"], answer.value["state"], json.loads(answer.value["row"]))
            if fits:
                self.found["refused and could have been carried out"].append(one.at)
            if stands != told:
                self.found["refused with another row than there was"].append((one.at, told))
            return
        if not fits:
            self.found["lost updates: accepted of another version or state"].append((one.at, walk.version))
        before = walk.state
        walk.move(offset, answer.id, asked["transition"], answer.time, answer.value)
        told_after = answer.value["version_after"], answer.value["state_before"], answer.value["state_after"]
        if told_after != (walk.version, before, walk.state):
            self.found["accepted with another version than follows"].append((one.at, told_after))

    def compare_rows(self) -> None:
        """Hold every row that was written against what the walk had at its version."""
        last: dict[tuple[int, bytes], RowTold] = {}
        for row in self._seen.rows:
            place = row.partition, row.key
            if place in last and row.version <= last[place].version:
                self.found["versions written twice or backwards"].append((place, row.version))
            last[place] = row
            made = self.walks[place].history.get(row.version) if place in self.walks else None
            if made != (row.as_of, row.state, row.data):
                self.found["rows that the accepted events do not make"].append((place, row.version, made))
        for place, walk in self.walks.items():
            version = last[place].version if place in last else 0
            if version != walk.version:
                self.found["rows not of the last event"].append((place, version, walk.version))
