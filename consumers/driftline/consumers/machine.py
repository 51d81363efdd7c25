"""The state machine of a workflow: which states there are, and what leads from one to another.

Declared in code, checked when the app is made, drawn as a Mermaid diagram. It knows nothing of rows and logs.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property

from driftline.schemas import UsageError, canonical_json, content_hash

ANY_STATE = "*"
"""As the source of a transition: every state that is not terminal and has no transition of its own on the trigger."""
TIMER_PREFIX = "timer:"
_MERMAID_WORDS = frozenset(
    {
        "accdescr",
        "acctitle",
        "class",
        "classdef",
        "click",
        "default",
        "direction",
        "end",
        "href",
        "note",
        "scale",
        "state",
        "style",
    }
)
"""What a state of a Mermaid diagram cannot be called, in lower case."""


@dataclass(frozen=True, slots=True)
class Transition:
    """A legal move: in the state `source`, `on` leads to `target`.

    Attributes:
        source: A state, or `*` for every state that is not terminal.
        on: The trigger: a record of the app, `timer:<name>`, or a word that others ask by (`approve`, `reject`).
            Records and timers tell what has happened; nobody may ask for them.
        target: A state; the source again for what is legal and changes nothing but the data.
    """

    source: str
    on: str
    target: str


@dataclass(frozen=True, slots=True)
class Timer:
    """A timer that runs while a row is in a state, from the event that brought it there.

    Attributes:
        name: Its trigger is `timer:<name>`.
        state: Where it runs; leaving the state ends it.
        after: Event time from the arrival in the state until it is due.
    """

    name: str
    state: str
    after: timedelta

    @property
    def trigger(self) -> str:
        """What it triggers when it fires."""
        return TIMER_PREFIX + self.name


@dataclass(frozen=True)
class Machine:
    """A transition table.

    Args:
        initial: State of a workflow before its first event.
        terminal: States that nothing leads out of.
        transitions: What is legal; at most one target for a state and a trigger.
        timers: What fires by event time.
        version: Raise it when the table changes, or what a state or a transition means. A log whose rows are of one
            version takes no other table of that version.

    Raises:
        UsageError: A state cannot be reached or cannot reach a terminal one, there is no terminal one, or the table
            is ambiguous; it says which.
    """

    initial: str
    terminal: Sequence[str]
    transitions: Sequence[Transition]
    timers: Sequence[Timer] = ()
    version: str = "1"

    def __post_init__(self) -> None:
        problems = list(self._problems())
        if problems:
            raise UsageError("the state machine: " + "; ".join(problems), "mend the transition table")

    @cached_property
    def states(self) -> tuple[str, ...]:
        """Every state, in the order in which the table names them."""
        named = [self.initial]
        for transition in self.transitions:
            named += [state for state in (transition.source, transition.target) if state != ANY_STATE]
        return tuple(dict.fromkeys([*named, *self.terminal]))

    @cached_property
    def table(self) -> Mapping[str, Mapping[str, str]]:
        """Trigger to target, by state; what holds in any state is written out."""
        table: dict[str, dict[str, str]] = {state: {} for state in self.states}
        inner = [state for state in self.states if state not in self.terminal]
        # What is said of one state wins over what is said of any: it comes later.
        for one in sorted(self.transitions, key=lambda transition: transition.source != ANY_STATE):
            for state in inner if one.source == ANY_STATE else (one.source,):
                table[state][one.on] = one.target
        return table

    @cached_property
    def timers_by_state(self) -> Mapping[str, tuple[Timer, ...]]:
        """The timers that run in each state."""
        return {state: tuple(timer for timer in self.timers if timer.state == state) for state in self.states}

    @cached_property
    def content(self) -> str:
        """Canonical JSON of the table: all that the version depends on but the declared one."""
        return canonical_json(
            {
                "version": self.version,
                "initial": self.initial,
                "terminal": sorted(self.terminal),
                "table": {state: dict(moves) for state, moves in self.table.items()},
                "timers": [[timer.name, timer.state, timer.after.total_seconds()] for timer in self.timers],
            }
        )

    @cached_property
    def hash(self) -> str:
        """Hash of `content`."""
        return content_hash(self.content)

    def target(self, state: str, trigger: str) -> str | None:
        """Where the trigger leads from a state; None where it is not legal there, or no such state is known."""
        return self.table.get(state, {}).get(trigger)

    def legal(self, state: str, triggers: Iterable[str] | None = None) -> list[str]:
        """What is legal in a state, of the given triggers or of all; in the order of the table."""
        moves, asked = self.table.get(state, {}), None if triggers is None else frozenset(triggers)
        return [trigger for trigger in moves if asked is None or trigger in asked]

    def require_triggers(self, records: Collection[str]) -> None:
        """Prove that every transition waits for something that can come.

        Args:
            records: What may reach a row of the app. Another trigger with a dot in it is taken for a record.

        Raises:
            UsageError: A transition waits for a timer that never runs there, or for a record that nobody writes.
        """
        waiting = list(self._waiting_for_ever(records))
        if waiting:
            timers = ", ".join(f"{timer.name} in {timer.state}" for timer in self.timers) or "none"
            raise UsageError(
                "the state machine: " + "; ".join(waiting),
                f"its timers are {timers}; the app's facts and what is proposed, escalated or reported in it are "
                + ", ".join(records),
            )

    def mermaid(self) -> str:
        """The table as a Mermaid state diagram (`stateDiagram-v2`), one arrow a pair of states.

        A state whose name Mermaid does not take for one stands there as `s0`, `s1` and so on, and shows its name.
        """
        ids = {state: state if _is_mermaid_name(state) else f"s{n}" for n, state in enumerate(self.states)}
        named = [f'    state "{_escaped(state)}" as {id_}' for state, id_ in ids.items() if id_ != state]
        lines = ["stateDiagram-v2", *named, f"    [*] --> {ids[self.initial]}"]
        arrows: dict[tuple[str, str], list[str]] = {}
        for state, moves in self.table.items():
            for trigger, target in moves.items():
                arrows.setdefault((ids[state], ids[target]), []).append(_escaped(trigger.rpartition(".")[2]))
        lines += [f"    {source} --> {target}: {', '.join(names)}" for (source, target), names in arrows.items()]
        lines += [f"    {ids[state]} --> [*]" for state in self.terminal]
        return "\n".join(lines) + "\n"

    def _problems(self) -> Iterator[str]:
        if not self.terminal:
            yield "there is no terminal state"
        yield from self._ambiguous()
        for state in self.terminal:
            if any(transition.source == state for transition in self.transitions):
                yield f"{state} is terminal, and something leads out of it"
        reached = self._reachable({self.initial}, self.table)
        yield from (f"{state} cannot be reached" for state in self.states if state not in reached)
        ends = self._reachable(set(self.terminal), self._backwards())
        yield from (f"{state} is a dead end" for state in self.states if self.terminal and state not in ends)
        yield from self._timers_without_effect()

    def _ambiguous(self) -> Iterator[str]:
        seen: dict[tuple[str, str], str] = {}
        for one in self.transitions:
            other = seen.setdefault((one.source, one.on), one.target)
            if other != one.target:
                yield f"{one.on} leads from {one.source} to {other} and to {one.target}"

    def _timers_without_effect(self) -> Iterator[str]:
        names = [timer.name for timer in self.timers]
        yield from (f"two timers are named {name}" for name in sorted({n for n in names if names.count(n) > 1}))
        for timer in self.timers:
            if timer.state not in self.states:
                yield f"the timer {timer.name} runs in {timer.state}, which is no state"
            elif self.target(timer.state, timer.trigger) is None:
                yield f"the timer {timer.name} leads nowhere from {timer.state}"
            elif timer.after <= timedelta(0):
                yield f"the timer {timer.name} is due before it begins"

    def _waiting_for_ever(self, records: Collection[str]) -> Iterator[str]:
        running = {(state, timer.trigger) for timer in self.timers for state in (timer.state, ANY_STATE)}
        for one in self.transitions:
            is_timer = one.on.startswith(TIMER_PREFIX)
            if is_timer and (one.source, one.on) not in running:
                yield f"{one.on} leads from {one.source} to {one.target}, and no such timer runs there"
            elif not is_timer and "." in one.on and one.on not in records:
                yield f"{one.on} leads from {one.source} to {one.target}, and is no record that the app knows"

    def _backwards(self) -> Mapping[str, Mapping[str, str]]:
        back: dict[str, dict[str, str]] = {state: {} for state in self.states}
        for state, moves in self.table.items():
            for target in moves.values():
                back[target][state] = state
        return back

    @staticmethod
    def _reachable(begin: set[str], table: Mapping[str, Mapping[str, str]]) -> set[str]:
        found, waiting = set(begin), list(begin)
        while waiting:
            for target in table.get(waiting.pop(), {}).values():
                if target not in found:
                    found.add(target)
                    waiting.append(target)
        return found


def _is_mermaid_name(state: str) -> bool:
    """Whether a state can stand in a diagram under its own name, and is none of those that are given there."""
    plain = re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", state) and not re.fullmatch(r"s[0-9]+", state)
    return bool(plain) and state.lower() not in _MERMAID_WORDS


def _escaped(text: str) -> str:
    """Text as Mermaid shows it, whatever its characters mean in a diagram: `timer:expiry` as `timer#58;expiry`."""
    return re.sub(r"[^\w ./-]", lambda found: f"#{ord(found[0])};", text)
