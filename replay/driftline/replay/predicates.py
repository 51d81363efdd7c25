"""The three properties of workflows whose truth is a row (P5), measured on an app's log and never asked for.

*pauses*: a workflow waits longer than an hour between two of its events. *state not reconstructible from the input*:
the same model over the same facts ends in another row. *the world moves on*: a fact from outside lands while a
workflow waits, and nothing is decided of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from driftline.detectors import mismatch_interval
from driftline.detectors.migration import PAUSES, STATE, WORLD, Predicate
from driftline.log import AppTopics, Coordinates, LogReader, Record
from driftline.replay.tables import columns_of, load
from driftline.replay.workflows import is_committed
from driftline.schemas import Undecodable
from driftline.schemas.cloudevents import epoch_ms, from_headers
from driftline.schemas.names import CLOCK_TICKED, DECISION

PAUSE_MS_MIN = 3_600_000
"""An hour: no retry, rate limit or slow model keeps a workflow so long; a person or another system does."""
SHARE_MIN = 0.05
"""Of workflows, the same as the default delta: a property of fewer is an exception, not the kind of the workflow."""
ALPHA = 0.05
"""Of each interval."""
EXAMPLES_MAX = 5
FREE_REPORT = "free.json"
"""What a run in mode `free` leaves in its folder."""

_EVENTS: Mapping[str, str] = {
    "part": "BIGINT",
    "pos": "BIGINT",
    "workflow": "VARCHAR",
    "id": "VARCHAR",
    "stream": "VARCHAR",
    "time_ms": "BIGINT",
    "committed": "BOOLEAN",
    "reported": "BOOLEAN",
    "cause": "VARCHAR",
}
_DECISIONS: Mapping[str, str] = dict.fromkeys(("workflow", "input", "boundary"), "VARCHAR")

_VIEWS = f"""
CREATE TABLE decided AS SELECT DISTINCT workflow FROM decisions;
CREATE TABLE lived AS
    SELECT e.*, e.committed OR d.input IS NOT NULL AS turn,
        NOT (e.committed OR e.reported OR c.id IS NOT NULL) AS outside
    FROM events e SEMI JOIN decided USING (workflow)
    LEFT JOIN (SELECT DISTINCT workflow, input FROM decisions) d ON d.workflow = e.workflow AND d.input = e.id
    LEFT JOIN (SELECT DISTINCT id FROM events WHERE committed) c ON c.id = e.cause;
CREATE TABLE gaps AS
    SELECT workflow, part, pos, lag(pos) OVER w AS before, time_ms - lag(time_ms) OVER w AS gap_ms
    FROM lived WINDOW w AS (PARTITION BY workflow ORDER BY time_ms, part, pos)
    QUALIFY gap_ms > {PAUSE_MS_MIN};
CREATE TABLE waits AS
    SELECT workflow, time_ms AS began, lead(time_ms) OVER w AS ended
    FROM lived WHERE turn WINDOW w AS (PARTITION BY workflow ORDER BY time_ms, part, pos)
    QUALIFY ended - began > {PAUSE_MS_MIN};
CREATE TABLE landed AS
    SELECT l.workflow, l.part, l.pos, l.time_ms FROM lived l ASOF JOIN waits w
    ON l.workflow = w.workflow AND l.time_ms > w.began WHERE l.outside AND NOT l.turn AND l.time_ms < w.ended;
"""


@dataclass(frozen=True, slots=True)
class Measured:
    """A predicate with what it was counted from."""

    predicate: Predicate
    count: int
    workflows: int
    examples: tuple[str, ...] = ()
    """Coordinates of records that show it, as `topic[partition]@offset`."""
    longest_s: float | None = None
    """The longest pause, seconds; None where there is none, and of the others."""
    source: str = ""
    """Where it was taken from."""


@dataclass(frozen=True, slots=True)
class WorkflowKind:
    """What the workflows of an app are, as far as its log tells."""

    pauses: Measured
    world: Measured
    workflows: int
    """With at least one decision."""
    boundaries: tuple[str, ...]
    """That decide in workflows that pause; in all of them where none does."""
    streams: tuple[str, ...]
    unreadable: int
    """Records without a key or with headers that are no CloudEvent's."""


def measure_workflows(reader: LogReader, app: str) -> WorkflowKind:
    """Measure pauses and what lands in them, over the whole of an app's events and decisions.

    Headers alone are read, so no registry is asked. A *turn* is an event that was decided or that a boundary
    committed. A workflow *waits* between two of its turns; a fact that lands meanwhile is one from outside that is
    no turn and that neither an effector reports nor anything causes that a boundary committed. Time is event time.

    Not guaranteed: workflows that still wait; that the workflows to come are like these, which the intervals take
    for granted.

    Raises:
        UsageError: The app has no such topics.
        KafkaUnreachable: No broker answers.
    """
    topics = AppTopics(app)
    rows = _Rows(app)
    with duckdb.connect() as db:
        load(db, "decisions", columns_of(_DECISIONS), rows.decisions(reader.read(reader.span(topics.decisions))))
        load(db, "events", columns_of(_EVENTS), rows.events(reader.read(reader.span(topics.events))))
        db.execute(_VIEWS)
        ((workflows,),) = db.execute("SELECT count(DISTINCT workflow) FROM lived").fetchall()
        ((longest,),) = db.execute("SELECT max(gap_ms) / 1000 FROM gaps").fetchall()
        paused = _examples(db, topics.events, "gaps", "gap_ms DESC", "before", "pos")
        moved = _examples(db, topics.events, "landed", "time_ms", "pos")
        return WorkflowKind(
            pauses=_measured(PAUSES, _count(db, "gaps"), workflows, paused, longest),
            world=_measured(WORLD, _count(db, "landed"), workflows, moved),
            workflows=workflows,
            boundaries=_names(db, "boundary", "decisions"),
            streams=_names(db, "stream", "lived WHERE turn AND NOT committed"),
            unreadable=rows.unreadable,
        )


def measure_state(runs: Path, app: str) -> Measured:
    """How often the incumbent over the same facts ends in another row, from a stored run in mode `free`.

    Best is a run of the incumbent against itself: both arms of it are asked today, under the same rules. Else it is
    the incumbent arm of the newest run, held against the log, in which a drift of the environment counts too.

    Args:
        runs: The folder of all runs.
        app: Whose.
    """
    found = [one for one in map(_free_report, runs.glob(f"*/{FREE_REPORT}")) if one and one.get("app") == app]
    found.sort(key=lambda report: (report["candidate"] == report["baseline"], _started(report)), reverse=True)
    for report in found:
        measured = _of_twins(report) or _of_incumbent(report)
        if measured is not None:
            return measured
    command = f"`driftline replay --app {app} --mode free --candidate MODEL`, with the incumbent's name as MODEL"
    nothing = Predicate(STATE, None, (0.0, 1.0), SHARE_MIN, f"run {command}")
    return Measured(nothing, 0, 0)


class _Rows:
    """Records as rows of the two tables."""

    def __init__(self, app: str) -> None:
        self._app = app
        self.unreadable = 0

    def events(self, records: Iterator[Record]) -> Iterator[dict[str, Any]]:
        for record in records:
            try:
                said, workflow = from_headers(record.headers), (record.key or b"").decode()
            except (Undecodable, UnicodeDecodeError):
                self.unreadable += 1
                continue
            if said.type == CLOCK_TICKED:
                continue  # that time passes is no news
            yield {
                "part": record.at.partition,
                "pos": record.at.offset,
                "workflow": workflow,
                "id": said.id,
                "stream": said.type,
                "time_ms": epoch_ms(said.time),
                "committed": is_committed(self._app, said.source),
                "reported": said.source.startswith(f"driftline:{self._app}/effector/"),
                "cause": said.causation_id,
            }

    def decisions(self, records: Iterator[Record]) -> Iterator[dict[str, Any]]:
        for record in records:
            try:
                said, workflow = from_headers(record.headers), (record.key or b"").decode()
            except (Undecodable, UnicodeDecodeError):
                self.unreadable += 1
                continue
            if said.type == DECISION and said.causation_id:
                boundary = said.source.partition("/")[2]
                yield {"workflow": workflow, "input": said.causation_id, "boundary": boundary}


def _measured(
    name: str, count: int, workflows: int, examples: tuple[str, ...], longest_s: float | None = None
) -> Measured:
    share = count / workflows if workflows else None
    interval = mismatch_interval([1.0] * count + [0.0] * (workflows - count), ALPHA, running=False)
    missing = "" if workflows else "no workflow with a decision has its events on the log"
    return Measured(
        Predicate(name, share, interval, SHARE_MIN, missing), count, workflows, examples, longest_s, "log"
    )


def _count(db: duckdb.DuckDBPyConnection, table: str) -> int:
    ((count,),) = db.execute(f"SELECT count(DISTINCT workflow) FROM {table}").fetchall()
    return int(count)


def _examples(db: duckdb.DuckDBPyConnection, topic: str, table: str, by: str, *columns: str) -> tuple[str, ...]:
    """The worst record, or pair of records, of each of the first workflows."""
    found = db.execute(
        f"SELECT part, {', '.join(columns)} FROM {table} "
        f"QUALIFY row_number() OVER (PARTITION BY workflow ORDER BY {by}) = 1 ORDER BY {by}, part, pos "
        f"LIMIT {EXAMPLES_MAX}"
    ).fetchall()
    return tuple(str(Coordinates(topic, part, pos)) for part, *positions in found for pos in positions)


def _names(db: duckdb.DuckDBPyConnection, column: str, table: str) -> tuple[str, ...]:
    """Of workflows that pause, else of all."""
    both = f"FROM (FROM {table}) WHERE workflow IN (SELECT workflow FROM gaps)", f"FROM (FROM {table})"
    for source in both:
        found = db.execute(f"SELECT DISTINCT {column} {source} ORDER BY 1").fetchall()
        if found:
            return tuple(name for (name,) in found)
    return ()


def _free_report(path: Path) -> dict[str, Any] | None:
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return report if isinstance(report, dict) and "baseline" in report and "candidate" in report else None


def _started(report: Mapping[str, Any]) -> str:
    return str((report.get("timings") or {}).get("started_at") or "")


def _of_twins(report: Mapping[str, Any]) -> Measured | None:
    """Two arms of one model, both asked today."""
    level = (report.get("levels") or {}).get("state")
    if report["candidate"] != report["baseline"] or not level or level.get("mismatch") is None:
        return None
    workflows = int(level["events"])
    places = [one["first"]["input"] for one in report.get("departures", ()) if one.get("state_equal") is False]
    return _state(round(level["mismatch"] * workflows), workflows, level["interval"], places, report)


def _of_incumbent(report: Mapping[str, Any]) -> Measured | None:
    """The incumbent of today against the log."""
    arm = (report.get("arms") or {}).get("incumbent")
    if not arm or not arm["state_changed"]["workflows"]:
        return None
    changed, places = arm["state_changed"], arm.get("examples", ())
    return _state(changed["count"], changed["workflows"], changed["interval"], places, report)


def _state(
    count: int, workflows: int, interval: Sequence[float], examples: Sequence[str], report: Mapping[str, Any]
) -> Measured:
    share = Predicate(STATE, count / workflows, (interval[0], interval[1]), SHARE_MIN)
    return Measured(share, count, workflows, tuple(examples[:EXAMPLES_MAX]), source=f"free run {report['run_id']}")
