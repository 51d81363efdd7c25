"""Whether the log tells of every input exactly once; nothing of driftline takes part in the answer.

`check` is a pure function of what was read. `reading.LogView` reads it from a real Kafka.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from tests.faults.tracing import Place, Traced

At = tuple[int, int]
"""Partition and offset in the events topic."""
OWN_SOURCE = "driftline:"
"""How the source of an event begins that a boundary has committed."""
SHOWN_MAX = 5
"""Examples told of one kind of violation."""


@dataclass(frozen=True, slots=True)
class EventSeen:
    """A record of the events topic."""

    at: At
    key: bytes | None
    id: str
    stream: str
    source: str
    digest: bytes
    """Of key, value and headers."""

    @property
    def emitted(self) -> bool:
        """Whether a boundary committed it; else it is an input from outside."""
        return self.source.startswith(OWN_SOURCE)


@dataclass(frozen=True, slots=True)
class DecisionSeen:
    """A record of the decisions topic."""

    at: At
    """In the decisions topic."""
    input: At
    workflow: str
    emitted: Sequence[str]
    attempts: int
    decided_at: float
    """Seconds since 1970."""


@dataclass(frozen=True, slots=True)
class DeadSeen:
    """A record of the dead topic."""

    at: At
    input: At
    digest: bytes
    """Of key, value and headers, those that say why left out."""


@dataclass(frozen=True, slots=True)
class RowSeen:
    """The last record of a workflow in the state topic."""

    version: int
    as_of: int


@dataclass
class LogSeen:
    """All that `check` judges."""

    topics: Mapping[str, str]
    """Role (`events`, `decisions`, `dead`, `state`) to topic."""
    events: list[EventSeen] = field(default_factory=list)
    decisions: list[DecisionSeen] = field(default_factory=list)
    dead: list[DeadSeen] = field(default_factory=list)
    rows: dict[tuple[int, bytes], RowSeen] = field(default_factory=dict)
    committed: set[Place] = field(default_factory=set)
    """Every record that a read_committed reader was given."""
    uncommitted: set[Place] = field(default_factory=set)
    """Every record that a read_uncommitted reader was given."""
    open: list[tuple[str, int]] = field(default_factory=list)
    """Partitions whose last stable offset lies below their end."""


@dataclass(frozen=True, slots=True)
class Violation:
    """One broken promise."""

    kind: str
    count: int
    examples: Sequence[str]

    def __str__(self) -> str:
        """One line."""
        return f"{self.count} {self.kind}: {', '.join(self.examples)}"


@dataclass(frozen=True, slots=True)
class Report:
    """What was found; all but `violations` are figures."""

    inputs: int
    decided: int
    folded: int
    """Inputs that no boundary decides."""
    dead: int
    emitted: int
    lost: int
    repeated: int
    reordered: int
    aborted: int
    """Records that lie on the log and were read uncommitted alone."""
    aborted_visible: int
    calls_needed: int
    """Attempts of the decisions that are on the log."""
    longest_gap_s: float
    violations: Sequence[Violation]


def check(seen: LogSeen, streams: Collection[str], traced: Sequence[Traced] = (), rows: bool = True) -> Report:
    """Judge a log at rest.

    Args:
        seen: The log.
        streams: Event types that a boundary decides.
        traced: The transactions of all workers, as they noted them.
        rows: Whether the app keeps rows.
    """
    events = {event.at: event for event in seen.events}
    inputs = {at: event for at, event in events.items() if not event.emitted}
    decided, dead = Counter(one.input for one in seen.decisions), Counter(one.input for one in seen.dead)
    settled = decided + dead
    lost = [at for at, event in inputs.items() if not settled[at] and _owed(event, streams)]
    repeated = [at for at, times in settled.items() if times > 1]
    unknown = [at for at in settled if at not in inputs and not (at in events and dead[at])]
    reordered = _reordered(seen.decisions)
    visible = aborted_visible(seen.committed, traced)
    found = {
        "lost": lost,
        "repeated": repeated,
        "decided though no input": unknown,
        "reordered": reordered,
        **_emissions(seen),
        "dead records not whole": [one.at for one in seen.dead if _not_whole(one, events)],
        "aborted records visible": visible,
        "committed records unseen uncommitted": seen.committed - seen.uncommitted,
        "open transactions": seen.open,
        "rows not of the last event": stale_rows(seen) if rows else (),
    }
    return Report(
        inputs=len(inputs),
        decided=len(seen.decisions),
        folded=sum(not settled[at] for at in inputs) - len(lost),
        dead=len(seen.dead),
        emitted=len(events) - len(inputs),
        lost=len(lost),
        repeated=len(repeated),
        reordered=len(reordered),
        aborted=len(seen.uncommitted - seen.committed),
        aborted_visible=len(visible),
        calls_needed=sum(one.attempts for one in seen.decisions),
        longest_gap_s=longest_gap(one.decided_at for one in seen.decisions),
        violations=[violation(kind, where) for kind, where in found.items() if where],
    )


def undecided(seen: LogSeen, streams: Collection[str]) -> int:
    """How many inputs have no decision and no dead record yet."""
    settled = {one.input for one in seen.decisions} | {one.input for one in seen.dead}
    return sum(_owed(event, streams) and event.at not in settled for event in seen.events if not event.emitted)


def stale_rows(seen: LogSeen) -> list[str]:
    """Workflows whose row is not that of their last event, or has not counted each of them once."""
    dead = {one.input for one in seen.dead}
    folded: defaultdict[tuple[int, bytes], list[int]] = defaultdict(list)
    for event in seen.events:
        if event.at not in dead and event.key is not None:
            folded[event.at[0], event.key].append(event.at[1])
    wrong = []
    for (partition, key), offsets in folded.items():
        row, wanted = seen.rows.get((partition, key)), RowSeen(len(offsets), max(offsets))
        if row != wanted:
            wrong.append(f"[{partition}] {key!r}: {row}, not {wanted}")
    return [*wrong, *(f"{at}: no such workflow" for at in seen.rows.keys() - folded.keys())]


def longest_gap(moments: Iterable[float]) -> float:
    """The longest time between one moment and the next, in seconds; 0 for less than two."""
    ordered = sorted(moments)
    return max((later - earlier for earlier, later in itertools.pairwise(ordered)), default=0.0)


def _owed(event: EventSeen, streams: Collection[str]) -> bool:
    """Whether an input must have a decision or a dead record: one without a key or an id can only be dead."""
    return event.stream in streams or event.key is None or not event.id


def _reordered(decisions: Sequence[DecisionSeen]) -> list[str]:
    """First decisions of inputs that lie before a later input of their workflow which was decided earlier."""
    highest: dict[tuple[int, str], int] = {}
    met: set[At] = set()
    found = []
    for one in sorted(decisions, key=lambda one: one.at):
        key = (one.input[0], one.workflow)
        if one.input not in met and one.input[1] < highest.get(key, -1):
            found.append(f"{one.input} of {one.workflow} after {highest[key]}")
        met.add(one.input)
        highest[key] = max(highest.get(key, -1), one.input[1])
    return found


def _emissions(seen: LogSeen) -> dict[str, Collection[object]]:
    """Emitted events against the ids that the decisions claim to have committed, both ways."""
    there = Counter(event.id for event in seen.events if event.emitted)
    claimed = Counter(id_ for one in seen.decisions for id_ in one.emitted)
    return {
        "emitted without a decision": list((there - claimed).elements()),
        "decided without what it emitted": list((claimed - there).elements()),
    }


def _not_whole(dead: DeadSeen, events: Mapping[At, EventSeen]) -> bool:
    source = events.get(dead.input)
    return source is None or source.digest != dead.digest


def aborted_visible(committed: Collection[Place], traced: Sequence[Traced]) -> list[Place]:
    """Records that are read as committed though their writer has aborted them or never asked for their commit."""
    return [place for one in traced if one.must_be_invisible for place in one.placed if place in committed]


def violation(kind: str, where: Iterable[object]) -> Violation:
    all_ = [str(place) for place in where]
    return Violation(kind, len(all_), all_[:SHOWN_MAX])
