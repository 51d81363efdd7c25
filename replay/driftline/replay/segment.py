"""A segment: the decisions of a range of the log, as they were logged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from pydantic import ValidationError

from driftline.detectors import planned_order
from driftline.log import AppTopics, Coordinates, LogReader, Record, Span
from driftline.schemas import BadInput, Codec, Decision, Undecodable, UsageError
from driftline.schemas.cloudevents import epoch_ms, format_time
from driftline.schemas.names import DECISION


class EmptySegment(UsageError):
    """A selection takes no decision."""


@dataclass(frozen=True, slots=True)
class LoggedDecision:
    """A decision and where it lies."""

    at: Coordinates
    decision: Decision

    @property
    def stratum(self) -> str:
        """`boundary/stream`."""
        return f"{self.decision.boundary}/{self.decision.stream}"


@dataclass(frozen=True, slots=True)
class Segment:
    """Decisions in log order: by event time, then coordinates."""

    app: str
    span: Span
    decisions: Sequence[LoggedDecision] = field(repr=False)
    repeated: int = 0
    """Decisions that lay on the log more than once and were left out."""
    history_from: Mapping[int, int] = field(default_factory=dict)
    """Partition to the first offset that is still there, where the selection reaches to what has been deleted."""

    def planned(self) -> dict[str, int]:
        """How many decisions each stratum holds, strata sorted by name."""
        return dict(sorted(Counter(logged.stratum for logged in self.decisions).items()))


@dataclass(frozen=True, slots=True)
class Selection:
    """What of the decisions topic is replayed. Never an outcome: that would be selection (DETECTION, rule 4).

    Attributes:
        start: First event time.
        stop: Event time before which it ends.
        decided_from: First time of decision; `start` and `stop` are of the events that were decided on.
        decided_to: Time of decision before which it ends.
        offsets: Partition to `[start, stop)`; what it leaves out, no time brings in.
        streams: Event types; empty for all.
        keys: Workflows; empty for all.
        sample: So many workflows, drawn at random, each with all that is selected of it; None for all.
        sample_seed: Of the draw. A larger sample of the same seed holds the smaller one.
    """

    start: datetime | None = None
    stop: datetime | None = None
    offsets: Mapping[int, tuple[int, int]] | None = None
    streams: frozenset[str] = frozenset()
    keys: frozenset[str] = frozenset()
    sample: int | None = None
    sample_seed: int = 0
    decided_from: datetime | None = None
    decided_to: datetime | None = None

    def __post_init__(self) -> None:
        if self.sample is not None and self.sample < 1:
            raise UsageError("a sample has at least one workflow", "give --sample 1 or more")

    def takes(self, decision: Decision, at: Coordinates) -> bool:
        """Whether a decision belongs to the segment."""
        given = decision.stream, decision.workflow, decision.input.event_time, at
        return self.takes_fields(*given, decision.decided_at)

    def takes_fields(
        self, stream: str, workflow: str, event_time: datetime, at: Coordinates, decided_at: datetime | None = None
    ) -> bool:
        """As `takes`, of a decision that is not validated as a whole."""
        if self.streams and stream not in self.streams:
            return False
        if self.keys and workflow not in self.keys:
            return False
        return self._takes_time(epoch_ms(event_time)) and self._takes_decided(decided_at) and self._takes_place(at)

    def may_take(self, record: Record) -> bool:
        """False for a record that need not be decoded: its timestamp is the event time, its key the workflow."""
        if self.keys and (record.key is None or record.key.decode(errors="replace") not in self.keys):
            return False
        return self._takes_time(record.timestamp_ms)

    def _takes_time(self, time_ms: int) -> bool:
        after = self.start is None or time_ms >= epoch_ms(self.start)
        return after and (self.stop is None or time_ms < epoch_ms(self.stop))

    def _takes_decided(self, time: datetime | None) -> bool:
        """A fact was not decided: no time of decision leaves it out."""
        if time is None:
            return True
        after = self.decided_from is None or time >= self.decided_from
        return after and (self.decided_to is None or time < self.decided_to)

    def _takes_place(self, at: Coordinates) -> bool:
        if self.offsets is None:
            return True
        start, stop = self.offsets.get(at.partition, (0, 0))
        return start <= at.offset < stop


def load_segment(reader: LogReader, codec: Codec, app: str, selection: Selection) -> Segment:
    """Read the decisions that a selection takes.

    Raises:
        UsageError: The segment is empty, or its offsets are not on the log (it says what the log holds).
        BadInput: A record of the decisions topic is no decision; names its coordinates.
    """
    topic = AppTopics(app).decisions
    span = span_of(reader, topic, selection)
    found = []
    streams = set()
    for record in filter(selection.may_take, reader.read(span)):
        decision = decision_of(record, codec)
        if decision is not None:
            streams.add(decision.stream)
            if selection.takes(decision, record.at):
                found.append(LoggedDecision(record.at, decision))
    if not found:
        raise _empty(reader, topic, streams)
    segment = build_segment(app, span, found, selection)
    return replace(segment, history_from=deleted_below(reader, topic, span))


def span_of(reader: LogReader, topic: str, selection: Selection) -> Span:
    """The range of the log that a selection needs to read.

    Raises:
        UsageError: Its offsets are not on the log (it says what the log holds).
    """
    if selection.offsets is None:
        return reader.span(topic, selection.start, selection.stop)
    return _cut(reader.span(topic), selection.offsets)


def build_segment(
    app: str, span: Span, found: Iterable[LoggedDecision], selection: Selection | None = None
) -> Segment:
    """The decisions in log order, each once: a decision that was logged again is its twin's copy, and no evidence."""
    ordered = _sampled(sorted(found, key=log_order), selection or Selection())
    once = list({logged.decision.decision_id: logged for logged in reversed(ordered)}.values())[::-1]
    return Segment(app, span, once, repeated=len(ordered) - len(once))


def _sampled(ordered: Sequence[LoggedDecision], selection: Selection) -> Sequence[LoggedDecision]:
    """Those of the workflows that a seeded permutation puts first: whole workflows, whatever became of them."""
    if selection.sample is None:
        return ordered
    workflows = sorted({logged.decision.workflow for logged in ordered})
    drawn = planned_order(workflows, selection.sample_seed)[: selection.sample]
    kept = {workflows[index] for index in drawn}
    return [logged for logged in ordered if logged.decision.workflow in kept]


def deleted_below(reader: LogReader, topic: str, span: Span) -> dict[int, int]:
    """Where the log was cut off below what was read: what came before is gone, by retention or by hand."""
    whole = reader.span(topic).ranges
    lows = {partition: low for partition, (low, _) in whole.items() if low > 0}
    return {p: low for p, low in lows.items() if span.ranges.get(p, (low + 1, 0))[0] == low}


def log_order(logged: LoggedDecision) -> tuple[datetime, Coordinates]:
    """Sort key: event time, then coordinates."""
    return logged.decision.input.event_time, logged.at


def _empty(reader: LogReader, topic: str, streams: set[str]) -> EmptySegment:
    """What to say of a segment without decisions: what the log holds, and what the rest of the selection left."""
    whole = reader.span(topic)
    times = [record.timestamp_ms for record in reader.read(whole)]
    held = f"{topic} holds {_describe(whole)}"
    if any(low > 0 for low, _ in whole.ranges.values()):
        held += " (what came before has been deleted)"
    if times:
        first, last = (format_time(datetime.fromtimestamp(ms / 1000, UTC)) for ms in (min(times), max(times)))
        held += f", events from {first} to {last}"
    if streams:
        held += f"; those in the times and keys asked for are of {', '.join(sorted(streams))}"
    return EmptySegment(f"the segment is empty: {held}", "widen --from, --to, --offsets, --stream or --key")


def decision_of(record: Record, codec: Codec) -> Decision | None:
    """The decision of a record; None when it is a record of another type.

    Raises:
        BadInput: It is no decision; names its coordinates.
    """
    try:
        decoded = codec.decode(record.value)
        return Decision.model_validate(decoded.value) if decoded.name == DECISION else None
    except (Undecodable, ValidationError) as error:
        why = error.message if isinstance(error, Undecodable) else f"{error.errors(include_url=False)[0]['msg']}"
        raise BadInput(f"{record.at} is no decision: {why}", "leave it out with --offsets") from error


def _cut(whole: Span, offsets: Mapping[int, tuple[int, int]]) -> Span:
    for partition, (start, stop) in offsets.items():
        low, high = whole.ranges.get(partition, (0, 0))
        if partition not in whole.ranges or not low <= start <= high or stop < start:
            gone = f"; what lay below {low} has been deleted" if start < low else ""
            raise UsageError(
                f"{whole.topic}[{partition}] {start}-{stop} is not on the log, which holds {_describe(whole)}{gone}",
                "give --offsets within it",
            )
    return Span(whole.topic, {p: (start, min(stop, whole.ranges[p][1])) for p, (start, stop) in offsets.items()})


def _describe(span: Span) -> str:
    held = [(p, low, high) for p, (low, high) in sorted(span.ranges.items()) if low < high]
    ranges: Iterable[str] = (f"[{p}] offsets {low} to {high - 1}" for p, low, high in held)
    return ", ".join(ranges) or "nothing"
