"""The transitions that the workflows of an event-log app actually went through, as a transition table to edit.

A state is named after the record that led to it, or, where the app's fold names states, as the fold does. An edge is
(state, record, state) with how often it was taken. What does not fit a table is left out of it and told with the
reason, and so is what must be edited before a machine takes it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import duckdb

from driftline.consumers.app import App
from driftline.consumers.machine_rows import trigger_of
from driftline.consumers.rows import Row, Rows
from driftline.consumers.spine import spine_of
from driftline.log import Coordinates, LogReader, Record, to_event
from driftline.replay.mined import INITIAL, INITIAL_ELSE, Edge, End, Mined, quoted
from driftline.replay.tables import columns_of, load
from driftline.schemas import Codec, Undecodable, UsageError
from driftline.schemas.names import CLOCK_TICKED, EFFECT_REPORTED

_STEPS: Mapping[str, str] = {
    "workflow": "VARCHAR",
    "part": "BIGINT",
    "pos": "BIGINT",
    "trigger": "VARCHAR",
    "state": "VARCHAR",
}
_VIEWS = """
CREATE TABLE walked AS
    SELECT workflow, part, pos, trigger, state AS target, coalesce(lag(state) OVER w, $initial) AS source
    FROM steps WINDOW w AS (PARTITION BY workflow ORDER BY part, pos);
CREATE TABLE edges AS
    SELECT source, trigger, target, count(*) AS times, count(DISTINCT workflow) AS workflows,
        min_by(part, pos) AS part, min(pos) AS pos
    FROM walked GROUP BY source, trigger, target;
CREATE TABLE sources AS SELECT source, count(DISTINCT workflow) AS workflows FROM walked GROUP BY source;
CREATE TABLE ends AS
    SELECT state, count(*) AS workflows, arg_min(part, pos) AS part, min(pos) AS pos
    FROM (FROM steps QUALIFY row_number() OVER (PARTITION BY workflow ORDER BY part DESC, pos DESC) = 1)
    GROUP BY state;
"""


def mine(reader: LogReader, codec: Codec, app: App) -> Mined:
    """Read an app's events and count what they led from and to.

    Ticks lead nowhere, nor do reports of effectors that the fold makes no state of. What the log holds but cannot be
    read is counted and passed over.

    Raises:
        UsageError: The app is on the state machine, no workflow is on the log, or the app's fold fails on an event.
        EnvironmentUnreachable: A broker or the registry does not answer.
    """
    if app.machine is not None:
        raise UsageError(f"{app.name} has its table already", f"`driftline state diagram {app.name}` draws it")
    steps = _Steps(app, codec)
    with duckdb.connect() as db:
        load(db, "steps", columns_of(_STEPS), steps.rows(reader.read(reader.span(app.topics.events))))
        ((taken,),) = db.execute("SELECT count(*) > 0 FROM steps WHERE state = ?", [INITIAL]).fetchall()
        initial = INITIAL_ELSE if taken else INITIAL
        db.execute(_VIEWS.replace("$initial", f"'{initial}'"))
        ((workflows, events),) = db.execute("SELECT count(DISTINCT workflow), count(*) FROM steps").fetchall()
        if not workflows:
            raise UsageError(f"no workflow of {app.name} is on the log", f"`driftline run {app.name}` makes some")
        return Mined(app.name, workflows, events, _edges(db, app), _ends(db, app), steps.unreadable, initial)


def table_of(mined: Mined) -> str:
    """The transition table as a Python file to edit: what is legal stands in it, what does not fit as comments."""
    terminal = ", ".join(quoted(state) for state in mined.reached_terminal)
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
        *(_comment("", f"To edit: {one}.") for one in mined.to_edit),
        "machine = Machine(",
        f"    initial={quoted(mined.initial)},",
        f"    terminal=[{terminal}],",
        "    transitions=[",
    ]
    for edge in mined.edges:
        made = f"Transition({quoted(edge.source)}, {quoted(edge.on)}, {quoted(edge.target)}),"
        told = f"{edge.times} times, by {edge.share:.1%} of the workflows that went on from {edge.source}"
        why = mined.left_out.get(edge)
        if why is None:
            lines += [_comment("        ", told), f"        {made}"]
        else:
            lines += [_comment("        ", f"{why}: {told}, first at {edge.example}"), f"        # {made}"]
    return "\n".join([*lines, "    ],", '    version="1",', ")", ""])


def _comment(indent: str, text: str) -> str:
    """One line, whatever the names in it."""
    return f"{indent}# {' '.join(text.split())}"


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
            if event.record == CLOCK_TICKED:
                continue
            key = event.workflow.encode()
            before = self._rows.get(key) if event.record == EFFECT_REPORTED else None
            taken = self._spine.take(self._rows, key, event, record.at.offset)
            if taken.moved:
                self._rows.keep(key, taken.row)
            idle = event.record == EFFECT_REPORTED and _same_state(before, taken.row)
            if taken.decides and not idle:  # a void timer leads nowhere
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


def _same_state(before: Row | None, after: Row | None) -> bool:
    return after is None or after.state is None or (before is not None and before.state == after.state)


def _edges(db: duckdb.DuckDBPyConnection, app: App) -> tuple[Edge, ...]:
    found = db.execute(
        "SELECT source, trigger, target, times, edges.workflows / sources.workflows AS share, part, pos "
        "FROM edges JOIN sources USING (source) "
        "ORDER BY min(pos) OVER (PARTITION BY source), source, times DESC, trigger, target"
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
