"""The transitions that the workflows of an event-log app actually went through, as a transition table to edit.

A state is named after the record that led to it, or, where the app's fold names states, as the fold does. An edge is
(state, record, state) with how often it was taken. What does not fit a table is told apart: rare edges, cycles, and
workflows whose last state something else leads out of.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb

from driftline.consumers.app import App
from driftline.consumers.machine_rows import trigger_of
from driftline.consumers.rows import Rows
from driftline.consumers.spine import spine_of
from driftline.log import Coordinates, LogReader, Record, to_event
from driftline.replay.tables import columns_of, load
from driftline.schemas import Codec, Undecodable, UsageError
from driftline.schemas.names import CLOCK_TICKED, EFFECT_REPORTED

INITIAL = "init"
RARE_SHARE = 0.01
"""Of the times that its state was left: an edge below it is an exception to look at before it is made legal."""

_STEPS: Mapping[str, str] = {
    "workflow": "VARCHAR",
    "part": "BIGINT",
    "pos": "BIGINT",
    "trigger": "VARCHAR",
    "state": "VARCHAR",
}
_VIEWS = f"""
CREATE TABLE walked AS
    SELECT workflow, part, pos, trigger, state AS target, coalesce(lag(state) OVER w, '{INITIAL}') AS source
    FROM steps WINDOW w AS (PARTITION BY workflow ORDER BY part, pos);
CREATE TABLE edges AS
    SELECT source, trigger, target, count(*) AS times, count(DISTINCT workflow) AS workflows,
        min_by(part, pos) AS part, min(pos) AS pos, count(*) / sum(count(*)) OVER (PARTITION BY source) AS share
    FROM walked GROUP BY source, trigger, target;
CREATE TABLE ends AS
    SELECT state, count(*) AS workflows, arg_min(part, pos) AS part, min(pos) AS pos
    FROM (FROM steps QUALIFY row_number() OVER (PARTITION BY workflow ORDER BY part DESC, pos DESC) = 1)
    GROUP BY state;
"""


@dataclass(frozen=True, slots=True)
class Edge:
    """A transition that was seen."""

    source: str
    on: str
    target: str
    times: int
    share: float
    """Of the times that its source was left or stayed in."""
    example: str
    """The first of them, `topic[partition]@offset`."""

    @property
    def rare(self) -> bool:
        """Whether it is an exception."""
        return self.share < RARE_SHARE


@dataclass(frozen=True, slots=True)
class End:
    """A state in which workflows stand at the end of the log."""

    state: str
    workflows: int
    example: str


@dataclass(frozen=True, slots=True)
class Mined:
    """What a log holds of transitions."""

    app: str
    workflows: int
    events: int
    edges: tuple[Edge, ...]
    """Commonest first within each source."""
    ends: tuple[End, ...]
    unreadable: int

    @property
    def states(self) -> tuple[str, ...]:
        """Every state, from the initial one on, in the order in which they are first led to."""
        return tuple(dict.fromkeys([INITIAL, *(name for edge in self.edges for name in (edge.source, edge.target))]))

    @property
    def terminal(self) -> tuple[str, ...]:
        """States in which workflows end and that nothing leads out of but by exception."""
        left = {edge.source for edge in self.edges if not edge.rare and edge.target != edge.source}
        return tuple(end.state for end in self.ends if end.state not in left)

    @property
    def legal(self) -> tuple[Edge, ...]:
        """What a table can hold: no exception, one target a source and trigger, all within reach of the start."""
        common = [edge for edge in self.edges if not edge.rare and edge.source not in self.terminal]
        best = {(edge.source, edge.on): edge for edge in sorted(common, key=lambda one: one.times)}
        reached = {INITIAL, *_reached(INITIAL, best.values())}
        return tuple(edge for edge in self.edges if edge in best.values() and edge.source in reached)

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
        reach = {state: _reached(state, self.edges) for state in self.states}
        rings = {tuple(sorted({state, *(o for o in reach[state] if state in reach[o])})) for state in self.states}
        return tuple(sorted(ring for ring in rings if len(ring) > 1 or ring[0] in reach[ring[0]]))


def mine(reader: LogReader, codec: Codec, app: App) -> Mined:
    """Read an app's events and count what they led from and to.

    Reports of effectors and ticks lead nowhere. What the log holds but cannot be read is counted and passed over.

    Raises:
        UsageError: No workflow is on the log, or the app's fold fails on an event.
        EnvironmentUnreachable: A broker or the registry does not answer.
    """
    steps = _Steps(app, codec)
    with duckdb.connect() as db:
        load(db, "steps", columns_of(_STEPS), steps.rows(reader.read(reader.span(app.topics.events))))
        db.execute(_VIEWS)
        ((workflows, events),) = db.execute("SELECT count(DISTINCT workflow), count(*) FROM steps").fetchall()
        if not workflows:
            raise UsageError(f"no workflow of {app.name} is on the log", f"`driftline run {app.name}` makes some")
        return Mined(app.name, workflows, events, _edges(db, app), _ends(db, app), steps.unreadable)


def table_of(mined: Mined) -> str:
    """The transition table as a Python file to edit: what is legal stands in it, what does not fit as comments."""
    legal = mined.legal
    reached = {edge.target for edge in legal}
    terminal = ", ".join(json.dumps(state) for state in mined.terminal if state in reached)
    lines = [
        f'"""Transition table of {mined.app}, mined from {mined.workflows} workflows and {mined.events} events.',
        "",
        "Read it as what happened, and make of it what may happen; then give it to the app:",
        '`replace(app, spine="state-machine", machine=machine)`. `driftline migrate check` tells what it would have',
        "refused.",
        '"""',
        "",
        "from driftline.consumers import Machine, Transition",
        "",
        "machine = Machine(",
        f"    initial={json.dumps(INITIAL)},",
        f"    terminal=[{terminal}],",
        "    transitions=[",
    ]
    for edge in mined.edges:
        made = f"Transition({json.dumps(edge.source)}, {json.dumps(edge.on)}, {json.dumps(edge.target)}),"
        told = f"{edge.times} times, {edge.share:.1%} of what left {edge.source}"
        if edge in legal:
            lines += [f"        # {told}", f"        {made}"]
        else:
            lines += [f"        # {_why_left_out(edge, mined)}: {told}, first at {edge.example}", f"        # {made}"]
    return "\n".join([*lines, "    ],", '    version="1",', ")", ""])


def _why_left_out(edge: Edge, mined: Mined) -> str:
    if edge.rare:
        return "rare"
    if edge.source in mined.terminal:
        return f"{edge.source} is terminal"
    if any((one.source, one.on) == (edge.source, edge.on) for one in mined.legal):
        return "the same trigger leads elsewhere more often"
    return f"nothing above leads to {edge.source}"


def _reached(begin: str, edges: Iterable[Edge]) -> set[str]:
    """The states that edges lead to from a state, itself only if they lead back."""
    targets: dict[str, set[str]] = {}
    for edge in edges:
        targets.setdefault(edge.source, set()).add(edge.target)
    found: set[str] = set()
    waiting = [begin]
    while waiting:
        new = targets.get(waiting.pop(), set()) - found
        found |= new
        waiting += new
    return found


class _Steps:
    """Events as steps of their workflows."""

    def __init__(self, app: App, codec: Codec) -> None:
        self._app, self._codec = app, codec
        self._spine, self._rows = spine_of(app), Rows(app.row_fold)
        self._names: dict[str, str] = {}
        self.unreadable = 0

    def rows(self, records: Iterator[Record]) -> Iterator[dict[str, Any]]:
        """A row an event that leads somewhere."""
        for record in records:
            try:
                event = to_event(record, self._codec)
            except Undecodable:
                self.unreadable += 1
                continue
            if event.record in (CLOCK_TICKED, EFFECT_REPORTED):
                continue
            key = event.workflow.encode()
            taken = self._spine.take(self._rows, key, event, record.at.offset)
            if taken.moved:
                self._rows.keep(key, taken.row)
            if taken.decides or taken.emitted:  # a void timer leads nowhere
                yield {
                    "workflow": event.workflow,
                    "part": record.at.partition,
                    "pos": record.at.offset,
                    "trigger": trigger_of(event),
                    "state": (taken.row and taken.row.state) or self._named(event.record),
                }

    def _named(self, record: str) -> str:
        """`shop.RefundGranted` as `refund_granted`."""
        if record not in self._names:
            short = record.rpartition(".")[2]
            self._names[record] = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", short).lower()
        return self._names[record]


def _edges(db: duckdb.DuckDBPyConnection, app: App) -> tuple[Edge, ...]:
    found = db.execute(
        "SELECT source, trigger, target, times, share, part, pos FROM edges ORDER BY min(pos) OVER "
        "(PARTITION BY source), source, times DESC, trigger, target"
    ).fetchall()
    return tuple(
        Edge(source, on, target, times, share, str(Coordinates(app.topics.events, part, pos)))
        for source, on, target, times, share, part, pos in found
    )


def _ends(db: duckdb.DuckDBPyConnection, app: App) -> tuple[End, ...]:
    found: Sequence[tuple[str, int, int, int]] = db.execute(
        "SELECT state, workflows, part, pos FROM ends ORDER BY workflows DESC, state"
    ).fetchall()
    return tuple(
        End(state, times, str(Coordinates(app.topics.events, part, pos))) for state, times, part, pos in found
    )
