"""From a record of the events topic to the records that account for it: event, row, decision."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from driftline.consumers.app import App
from driftline.consumers.batch import Batch
from driftline.consumers.engine import Input, Outcome, decide
from driftline.consumers.proposing import Proposer
from driftline.consumers.rows import Row, Rows, row_record
from driftline.log import Outgoing, Record, decision_record, to_event, to_outgoing
from driftline.schemas import Codec, Event, InputCoordinates, NotCanonical, Undecodable, UndecodableReason

RECORD_BYTES_MAX = 1_000_000
"""A larger record does not fit a topic of Kafka's default size, whose 1 MiB counts headers and key too."""


@dataclass(frozen=True, slots=True)
class Framed:
    """An input that was read, with the row that it makes, not kept yet."""

    record: Record
    event: Event
    row: Row | None
    """None where the app keeps no rows."""
    given: Input | None
    """What the engine decides; None where no boundary does."""


class Decider:
    """Reads, folds and decides the inputs of one app, in the order in which they are given.

    Args:
        app: Whose inputs.
        codec: Reads and writes values.
        rows: The rows of the partitions that are owned.
        proposer: Answers the boundaries' requests.
        now: The wall clock, for `decided_at` alone.
        seed: Of the simulator's randomness.
    """

    def __init__(
        self, app: App, codec: Codec, rows: Rows, proposer: Proposer, now: Callable[[], datetime], seed: int
    ) -> None:
        self._app = app
        self._codec = codec
        self._rows = rows
        self._proposer = proposer
        self._now = now
        self._seed = seed

    async def add(self, record: Record, batch: Batch) -> None:
        """Decide one input and put what it leads to into the batch; one that cannot be decided goes in as dead.

        Raises:
            UsageError: A prompt, a rule or the fold of the app fails on it, or no such model can be asked.
            RegistryUnreachable: Its schema is not known yet and the registry does not answer.
        """
        try:
            framed = self._frame(record)
            row = _row_records(framed, self._app.topics.state, self._codec)
            outcome = None if framed.given is None else await drive(framed.given, self._proposer)
            decision = None if outcome is None else outcome.decision(self._now())
            committed = [] if outcome is None else self._committed(outcome, record)
            decided = [] if decision is None else [decision_record(decision, self._app.topics.decisions, self._codec)]
            outgoing = [*decided, *committed, *row]
            _check_sizes(outgoing)
        except Undecodable as error:
            batch.add_dead(record, self._app.topics.dead, error)
            return
        batch.add(record, outgoing, decision)
        self._rows.keep(record.at.partition, record.key or b"", framed.row)

    def _frame(self, record: Record) -> Framed:
        """Read an input and fold it into its workflow's row, without keeping that."""
        event = to_event(record, self._codec)
        try:
            row = self._rows.fold(record.at.partition, record.key or b"", event, record.at.offset)
            given = self._input(record, event, row)
            _ = None if row is None else row.json, None if given is None else given.context_json
        except NotCanonical as error:
            raise Undecodable(UndecodableReason.NOT_CANONICAL, error.message) from error
        return Framed(record, event, row, given)

    def _input(self, record: Record, event: Event, row: Row | None) -> Input | None:
        """What the engine is given: the event, and the row with the event folded in."""
        bound = self._app.by_stream.get(event.type)
        if bound is None:
            return None
        at = InputCoordinates(
            topic=record.at.topic,
            partition=record.at.partition,
            offset=record.at.offset,
            event_id=event.id,
            event_time=event.time,
        )
        data, version = ({}, None) if row is None else (row.data, row.version)
        return Input(self._app.name, bound, event, at, data, version, self._seed)

    def _committed(self, outcome: Outcome, record: Record) -> list[Outgoing]:
        topic = self._app.topics.events
        return [to_outgoing(event, topic, self._codec, record.at.partition) for event in outcome.emitted]


def _row_records(framed: Framed, topic: str, codec: Codec) -> list[Outgoing]:
    if framed.row is None:
        return []
    return [row_record(topic, framed.record, framed.event, framed.row, codec)]


def _check_sizes(outgoing: Sequence[Outgoing]) -> None:
    """What the broker would refuse time and again is found before the transaction begins."""
    for record in outgoing:
        if record.value is not None and len(record.value) > RECORD_BYTES_MAX:
            what = f"what it leads to on {record.topic} takes {len(record.value)} bytes, at most {RECORD_BYTES_MAX}"
            raise Undecodable(UndecodableReason.OVERSIZE, what)


async def drive(given: Input, proposer: Proposer) -> Outcome:
    """Run the engine for one event: ask the proposer for what it asks for."""
    deciding = decide(given)
    request = next(deciding)
    while True:
        answer = await proposer.propose(request)
        try:
            request = deciding.send(answer)
        except StopIteration as finished:
            outcome: Outcome = finished.value
            return outcome
