"""What was mined of a log: the edges that workflows took, and which of them a transition table can hold, and why."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from driftline.consumers.machine import TIMER_PREFIX, Machine, Transition
from driftline.schemas import UsageError

INITIAL, INITIAL_ELSE = "init", "begin"
"""The state before the first event; the other name where the app's fold has a state of the first."""
RARE_SHARE = 0.01
"""Of the workflows that went on from its state: an edge below it is an exception to look at before it is legal."""
ADVICE = 'name what ends a workflow, for example Transition("*", "close", "closed") with "closed" among the terminal'


@dataclass(frozen=True, slots=True)
class Edge:
    """A transition that was seen."""

    source: str
    on: str
    target: str
    times: int
    share: float
    """Of the workflows that went on from its source, or stayed in it, those that took it at least once."""
    example: str
    """The first of them, `topic[partition]@offset`."""

    @property
    def rare(self) -> bool:
        """Whether few workflows took it."""
        return self.share < RARE_SHARE


@dataclass(frozen=True, slots=True)
class End:
    """A state in which workflows stand at the end of the log."""

    state: str
    workflows: int
    example: str


@dataclass(frozen=True)
class Mined:
    """What a log holds of transitions."""

    app: str
    workflows: int
    events: int
    edges: tuple[Edge, ...]
    """Commonest first within each source."""
    ends: tuple[End, ...]
    unreadable: int
    initial: str = INITIAL

    @cached_property
    def states(self) -> tuple[str, ...]:
        """Every state, from the initial one on, in the order in which they are first led to."""
        named = (name for edge in self.edges for name in (edge.source, edge.target))
        return tuple(dict.fromkeys([self.initial, *named]))

    @cached_property
    def exceptions(self) -> frozenset[Edge]:
        """What few workflows did; but the commonest way on from a state in which fewer stay than go on is none."""
        stay = {end.state: end.workflows for end in self.ends}
        ways_on: dict[str, list[Edge]] = {}
        for edge in self.edges:
            if edge.target != edge.source:
                ways_on.setdefault(edge.source, []).append(edge)
        left = [state for state, ways in ways_on.items() if sum(way.times for way in ways) > stay.get(state, 0)]
        usual = {max(ways_on[state], key=lambda way: way.times) for state in left}
        return frozenset(edge for edge in self.edges if edge.rare and edge not in usual)

    @cached_property
    def terminal(self) -> tuple[str, ...]:
        """States in which workflows end and that nothing leads out of but by exception."""
        left = {edge.source for edge in self.edges if edge not in self.exceptions and edge.target != edge.source}
        return tuple(end.state for end in self.ends if end.state not in left)

    @cached_property
    def legal(self) -> tuple[Edge, ...]:
        """What a table can hold: one target a source and trigger, all within reach of the start.

        The commonest target, and no exception; but where no end could be reached that way, what leads to one.
        """
        inner = [edge for edge in self.edges if edge.source not in self.terminal]
        by_times = sorted(inner, key=lambda edge: (edge not in self.exceptions, edge.times))
        chosen = {(edge.source, edge.on): edge for edge in by_times if edge not in self.exceptions}
        ending = self._ending(chosen.values())
        found: Edge | None = None
        while (found := _way_out(reversed(by_times), self._reach(chosen.values()), ending)) is not None:
            chosen[found.source, found.on] = found
            ending = self._ending(chosen.values())
        reach, kept = self._reach(chosen.values()), set(chosen.values())
        return tuple(edge for edge in self.edges if edge in kept and edge.source in reach)

    @cached_property
    def left_out(self) -> Mapping[Edge, str]:
        """What the table does not hold, each with the reason."""
        kept = set(self.legal)
        taken = {(edge.source, edge.on): edge for edge in self.legal}
        return {edge: self._why_left_out(edge, taken) for edge in self.edges if edge not in kept}

    @cached_property
    def to_edit(self) -> tuple[str, ...]:
        """What the log does not tell and the table needs: why a machine would refuse it, and timers."""
        found = []
        try:
            self.machine()
        except UsageError as error:
            found.append(f"{error.message}: {ADVICE}")
        found += [
            f"{edge.on} leads on from {edge.source}: give the machine timers=[Timer("
            f"{quoted(edge.on.removeprefix(TIMER_PREFIX))}, {quoted(edge.source)}, timedelta(...))], "
            "those that a fold sets do not run on it"
            for edge in self.legal
            if edge.on.startswith(TIMER_PREFIX)
        ]
        return tuple(found)

    @property
    def unfinished(self) -> tuple[End, ...]:
        """Where workflows stand that have not ended: something led others on from there."""
        return tuple(end for end in self.ends if end.state not in self.terminal)

    @property
    def ambiguous(self) -> tuple[tuple[Edge, ...], ...]:
        """Edges of one source and trigger that lead to several targets: a table has room for one."""
        groups: dict[tuple[str, str], list[Edge]] = {}
        for edge in self.edges:
            groups.setdefault((edge.source, edge.on), []).append(edge)
        return tuple(tuple(group) for group in groups.values() if len(group) > 1)

    @property
    def cycles(self) -> tuple[tuple[str, ...], ...]:
        """States that lead back to one another, and single ones that lead back to themselves."""
        reach = {state: _reached([state], self.edges) for state in self.states}
        rings = {tuple(sorted({state, *(o for o in reach[state] if state in reach[o])})) for state in self.states}
        return tuple(sorted(ring for ring in rings if len(ring) > 1 or ring[0] in reach[ring[0]]))

    @property
    def reached_terminal(self) -> tuple[str, ...]:
        """Terminal states that the table leads to."""
        reached = {edge.target for edge in self.legal}
        return tuple(state for state in self.terminal if state in reached)

    def machine(self) -> Machine:
        """The table.

        Raises:
            UsageError: The log does not tell how workflows end; it says where.
        """
        transitions = [Transition(edge.source, edge.on, edge.target) for edge in self.legal]
        return Machine(self.initial, self.reached_terminal, transitions)

    def _reach(self, edges: Iterable[Edge]) -> set[str]:
        return {self.initial, *_reached([self.initial], edges)}

    def _ending(self, edges: Iterable[Edge]) -> set[str]:
        """States from which edges lead to a terminal one, those included."""
        back = [Edge(edge.target, edge.on, edge.source, edge.times, edge.share, "") for edge in edges]
        return {*self.terminal, *_reached(self.terminal, back)}

    def _why_left_out(self, edge: Edge, taken: Mapping[tuple[str, str], Edge]) -> str:
        if edge in self.exceptions:
            return "rare"
        if edge.source in self.terminal:
            return f"{edge.source} is terminal"
        other = taken.get((edge.source, edge.on))
        if other is None:
            return f"nothing in the table leads to {edge.source}"
        if other.times < edge.times:
            return f"the same trigger leads to {other.target} too, and no end is reached but that way"
        return "the same trigger leads elsewhere more often"


def quoted(text: str) -> str:
    """As Python writes it in double quotes."""
    return json.dumps(text, ensure_ascii=False)


def _way_out(edges: Iterable[Edge], reach: set[str], ending: set[str]) -> Edge | None:
    """The first edge that leads from where no end is in reach to where one is."""
    return next(
        (edge for edge in edges if edge.source in reach and edge.source not in ending and edge.target in ending), None
    )


def _reached(begin: Iterable[str], edges: Iterable[Edge]) -> set[str]:
    """The states that edges lead to from some states, those themselves only if they lead back."""
    targets: dict[str, set[str]] = {}
    for edge in edges:
        targets.setdefault(edge.source, set()).add(edge.target)
    found: set[str] = set()
    waiting = list(begin)
    while waiting:
        new = targets.get(waiting.pop(), set()) - found
        found |= new
        waiting += new
    return found
