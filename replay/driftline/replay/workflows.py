"""Whole workflows off the log: their events in log order, and what was decided of each."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from driftline.consumers.app import App
from driftline.consumers.rows import Rows
from driftline.consumers.sources import SPINE, is_own, source_of
from driftline.consumers.spine import Spine, Taken, spine_of
from driftline.detectors import planned_order
from driftline.log import Coordinates, LogReader, Record, Span, to_event
from driftline.replay.segment import LoggedDecision, Segment, Selection, decision_of
from driftline.schemas import Codec, Event, NotCanonical, Undecodable, UsageError
from driftline.schemas.cloudevents import from_epoch_ms, from_headers
from driftline.schemas.names import CLOCK_TICKED, TIMER_FIRED

CommittedIds = Callable[[frozenset[str]], Collection[str]]
"""Which of some event ids boundaries committed, anywhere on the log."""


def no_ids(asked: frozenset[str]) -> Collection[str]:
    """None of them: what is not a workflow's own came from outside."""
    return ()


@dataclass(frozen=True, slots=True)
class LoggedEvent:
    """An event of a workflow, where it lies, and what was decided of it."""

    at: Coordinates
    event: Event
    committed: bool
    """Whether a boundary of the app committed it; else it is a fact from outside, an effector's report included."""
    decision: LoggedDecision | None = None
    passed_over: bool = False
    """A boundary decides its type and never decided it: it was dead, or the log was read before its turn came."""


@dataclass(frozen=True, slots=True)
class Workflow:
    """One workflow from its first event to the end of the log."""

    name: str
    events: Sequence[LoggedEvent]
    """In log order."""
    foreign_causes: frozenset[str] = frozenset()
    """Ids of events that boundaries committed in other workflows and that caused facts of this one."""

    @property
    def decisions(self) -> list[LoggedDecision]:
        """What was decided, in the order of the inputs."""
        return [logged.decision for logged in self.events if logged.decision is not None]

    @property
    def facts(self) -> int:
        """How many of its events are facts from outside; timers are the row's own."""
        return sum(not logged.committed and logged.event.record != TIMER_FIRED for logged in self.events)

    @property
    def stratum(self) -> str:
        """`boundary/stream` of its first decision: all that led to it came from outside."""
        decision = self.decisions[0].decision
        return f"{decision.boundary}/{decision.stream}"


@dataclass(frozen=True, slots=True)
class History:
    """The workflows that begin inside a segment."""

    app: str
    workflows: Sequence[Workflow] = field(repr=False)
    """By their first event's time, then name; each with at least one decision."""
    undecided: int = 0
    """Workflows that were left out because nothing was decided in them."""
    headless: int = 0
    """Workflows that were left out because the log no longer holds their beginning."""
    unreadable: int = 0
    """Records of these workflows that are no events; the runtime put them onto the dead topic."""
    ticked: datetime | None = None
    """Event time that the log's clock has come to; None where nobody told it."""


def load_workflows(reader: LogReader, codec: Codec, app: App, selection: Selection) -> History:
    """Read the workflows whose first event a selection takes, each to the end of the log.

    The end of the decisions topic is taken first: what lies on the events topic for a decision was committed with it.
    The whole events topic is read, for where a workflow begins no index tells; what is kept is the selection's.

    Raises:
        UsageError: No workflow begins there, or offsets were given (they are the decisions topic's).
        BadInput: A record of the decisions topic is no decision; names its coordinates.
    """
    if selection.offsets is not None:
        raise UsageError("free takes whole workflows, which offsets cut", "use --from, --to, --key or --sample")
    decisions = reader.span(app.topics.decisions)
    chosen = _Chosen(app.name, selection)
    for record in reader.read(reader.span(app.topics.events)):
        chosen.add(record)
    names = chosen.sampled()
    decided: dict[tuple[int, int], LoggedDecision] = {}
    for record in reader.read(decisions):
        decision = decision_of(record, codec) if record.key in names else None
        if decision is not None:
            logged = LoggedDecision(record.at, decision)
            decided.setdefault((decision.input.partition, decision.input.offset), logged)
    found = [_read(records, codec) for records in names.values()]
    history = build_history(app, (events for events, _ in found), decided, _committed_ids(reader, app))
    if not history.workflows:
        raise UsageError(
            f"no workflow of {app.name} with a decision begins in the segment ({len(chosen.began)} are on the log)",
            "widen --from, --to, --stream or --key",
        )
    unreadable = sum(bad for _, bad in found)
    return History(app.name, history.workflows, history.undecided, chosen.headless, unreadable, chosen.ticked)


def segment_of(history: History) -> Segment:
    """The decisions of the workflows."""
    decisions = [logged for workflow in history.workflows for logged in workflow.decisions]
    return Segment(history.app, Span(f"{history.app}.decisions"), decisions)


def build_history(
    app: App,
    workflows: Iterable[Sequence[tuple[Coordinates, Event]]],
    decided: Mapping[tuple[int, int], LoggedDecision],
    committed_ids: CommittedIds = no_ids,
) -> History:
    """Workflows of events and decisions.

    Args:
        app: Whose.
        workflows: The events of each, in log order.
        decided: Decisions by the partition and offset of their input.
        committed_ids: Tells what caused a fact in another workflow; by default nothing did.
    """
    made = [
        Workflow(events[0][1].workflow, [_logged(app, at, event, decided) for at, event in events])
        for events in workflows
        if events
    ]
    kept = sorted(
        (workflow for workflow in made if workflow.decisions),
        key=lambda workflow: (workflow.events[0].event.time, workflow.name),
    )
    known = _foreign(kept, committed_ids)
    joined = [
        Workflow(workflow.name, workflow.events, known & _unknown_causes(workflow)) if known else workflow
        for workflow in kept
    ]
    return History(app.name, joined, undecided=len(made) - len(kept))


def is_committed(app: str, source: str) -> bool:
    """Whether a source is a boundary of the app, or its spine; effectors and timers report on the world outside."""
    return is_own(app, source)


def history_row(app: App, workflow: Workflow) -> str | None:
    """What today's spine makes of a workflow's history, as canonical JSON; None where the app keeps no rows.

    Raises:
        UsageError: The fold fails on an event; it names it.
    """
    spine, rows, key = spine_of(app), Rows(app.row_fold), workflow.name.encode()
    caused: dict[str | None, list[Event]] = {}
    for logged in workflow.events:
        if logged.committed and logged.event.source != source_of(app.name, SPINE):
            caused.setdefault(logged.event.causation_id, []).append(logged.event)
    for logged in workflow.events:
        if not logged.passed_over and take_in(spine, rows, key, logged.event, logged.at.offset) is not None:
            settle_in(spine, rows, key, caused.get(logged.event.id, ()), logged.at.offset)
    row = rows.get(key)
    return None if row is None else row.json


def take_in(spine: Spine, rows: Rows, key: bytes, event: Event, offset: int) -> Taken | None:
    """Let the spine take an event and keep the row; None where canonical JSON refuses the row, as on the log.

    Raises:
        UsageError: The fold fails on the event.
    """
    taken = spine.take(rows, key, event, offset)
    try:
        _ = None if taken.row is None else taken.row.json
    except NotCanonical:
        return None
    if taken.moved:
        rows.keep(key, taken.row)
    return taken


def settle_in(spine: Spine, rows: Rows, key: bytes, committed: Sequence[Event], offset: int) -> None:
    """Keep the row after what is committed with an event."""
    before = rows.get(key)
    settled = spine.settle(rows, before, committed, offset)
    if settled is not before:
        rows.keep(key, settled)


class _Chosen:
    """The records of the workflows whose first event is taken, by key."""

    def __init__(self, app: str, selection: Selection) -> None:
        self._app, self._selection = app, selection
        self.began: dict[bytes, bool] = {}
        self.records: dict[bytes, list[Record]] = {}
        self.headless = 0
        self.ticked: datetime | None = None

    def add(self, record: Record) -> None:
        """Take the next record of the events topic."""
        if record.key is None:
            return
        if record.key not in self.began:
            self._begin(record.key, record)
        if self.began.get(record.key):
            self.records[record.key].append(record)

    def _begin(self, key: bytes, record: Record) -> None:
        try:
            envelope, name = from_headers(record.headers), key.decode()
        except (Undecodable, UnicodeDecodeError):
            return
        time = from_epoch_ms(record.timestamp_ms)
        if envelope.type == CLOCK_TICKED:  # of no workflow
            self.ticked = time if self.ticked is None else max(time, self.ticked)
            return
        headless = is_committed(self._app, envelope.source)
        taken = self._selection.takes_fields(envelope.type, name, time, record.at)
        self.headless += headless and taken
        self.began[key] = taken and not headless
        if self.began[key]:
            self.records[key] = []

    def sampled(self) -> dict[bytes, list[Record]]:
        """Those of the sample, in the order of their names."""
        keys = sorted(self.records)
        if self._selection.sample is not None:
            drawn = planned_order([key.decode() for key in keys], self._selection.sample_seed)
            keys = sorted(keys[index] for index in drawn[: self._selection.sample])
        return {key: self.records[key] for key in keys}


def _read(records: Sequence[Record], codec: Codec) -> tuple[list[tuple[Coordinates, Event]], int]:
    """Events with their coordinates, and how many records are none."""
    events, bad = [], 0
    for record in records:
        try:
            events.append((record.at, to_event(record, codec)))
        except Undecodable:
            bad += 1
    return events, bad


def _logged(
    app: App, at: Coordinates, event: Event, decided: Mapping[tuple[int, int], LoggedDecision]
) -> LoggedEvent:
    decision = decided.get((at.partition, at.offset))
    # A state machine passes over what its row does not allow; its event is in the row all the same.
    passed_over = decision is None and event.type in app.by_stream and app.machine is None
    return LoggedEvent(at, event, is_committed(app.name, event.source), decision, passed_over)


def _unknown_causes(workflow: Workflow) -> frozenset[str]:
    """Causes of its facts that are none of its own events."""
    own = {logged.event.id for logged in workflow.events}
    causes = {logged.event.causation_id for logged in workflow.events if not logged.committed}
    return frozenset(cause for cause in causes if cause is not None and cause not in own)


def _foreign(workflows: Sequence[Workflow], committed_ids: CommittedIds) -> frozenset[str]:
    asked = frozenset().union(*(_unknown_causes(workflow) for workflow in workflows))
    return frozenset(committed_ids(asked)) if asked else asked


def _committed_ids(reader: LogReader, app: App) -> CommittedIds:
    """Reads the topic once more, headers alone, and only when a cause is asked for."""

    def among(asked: frozenset[str]) -> set[str]:
        found = set()
        for record in reader.read(reader.span(app.topics.events)):
            try:
                envelope = from_headers(record.headers)
            except Undecodable:
                continue
            if envelope.id in asked and is_committed(app.name, envelope.source):
                found.add(envelope.id)
        return found

    return among
