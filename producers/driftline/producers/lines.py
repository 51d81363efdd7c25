"""JSON lines onto an app's events topic: all of them, or none.

The whole input is read, checked and encoded before anything is written, and then written in one transaction. A
transaction held open over a slow input would hold every committed reader of the topic up; one that begins when all
is in memory lasts as long as the writing. So the input is bounded.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from driftline.log import AppTopics, Outgoing, Settings, TransactionalWriter, prepare, to_outgoing
from driftline.log.events import EPOCH, INPUT_BYTES_MAX
from driftline.producers.checking import PayloadCheck
from driftline.producers.times import times_of
from driftline.schemas import BadInput, Contracts, DriftlineError, Event, parse_json
from driftline.schemas.cloudevents import parse_time
from driftline.schemas.ids import derive_id

INPUT_BYTES_TOTAL_MAX = 256 * 1024 * 1024
"""Of one call; it is held in memory, encoded."""
TRANSACTION_TIMEOUT_MS = 60_000
"""For the writing alone; should the process die in it, committed readers of the topic wait as long."""
WRITE_RECORDS_MAX = 10_000
"""Written between two reports of progress."""
SOURCE = "driftline-publish"
"""`ce_source` when none is given."""


@dataclass(frozen=True, slots=True)
class PublishSummary:
    """What was published."""

    topic: str
    events: int
    workflows: int
    streams: Mapping[str, int]
    """Events by type."""

    def __str__(self) -> str:
        """One line for a person."""
        return f"{self.events} events of {self.workflows} workflows on {self.topic}"


@dataclass(frozen=True, slots=True)
class LineForm:
    """How lines become events.

    Attributes:
        record: Avro record name of the payloads that name none themselves.
        stream: `ce_type` of the events that name none themselves; the record name when None.
        source: `ce_source`.
        key_field: With `time_field`: a line is the payload itself, and this is its field with the workflow.
        time_field: The payload's field with the event time.
    """

    record: str | None
    stream: str | None = None
    source: str = SOURCE
    key_field: str | None = None
    time_field: str | None = None

    def __post_init__(self) -> None:
        if (self.key_field is None) != (self.time_field is None):
            raise BadInput("--key-field and --time-field belong together", "give both, or neither")


class _Line(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    workflow: str
    time: str
    data: dict[str, JsonValue]
    id: str | None = None
    type: str | None = None
    record: str | None = None
    causation_id: str | None = None
    traceparent: str | None = None


def publish_lines(
    lines: Iterable[bytes],
    *,
    app: str,
    form: LineForm,
    settings: Settings,
    schemas: Path | None = None,
    name: str = "<stdin>",
    on_progress: Callable[[str, int], None] = lambda phase, done: None,
) -> PublishSummary:
    """Publish one event a line; creates the app's topics and subjects where they are missing.

    1. read, check and encode every line; 2. write all of them in one transaction. Blank lines are passed over. The
    id of an event is the line's, else derived from the line's bytes and its number, so that the same input gives
    the same ids.

    Args:
        lines: Each a JSON object, as `form` has it.
        app: Name of the app.
        form: How lines become events.
        settings: Where the log is.
        schemas: Folder of the app's `.avsc` files.
        name: Of the input, in errors.
        on_progress: Told the phase (`read`, `written`) and the events so far.

    Raises:
        BadInput: A line is wrong (`name:line: field: …`) or there is too much; nothing was written.
        ContractError: The record is unknown or the registry refuses it.
        EnvironmentUnreachable: A broker or the registry does not answer; nothing is visible.
    """
    topics = AppTopics(app)
    contracts = Contracts.load(*([] if schemas is None else [schemas]))
    events = _read(lines, form, contracts, name, on_progress)
    subjects = sorted({(topics.events, event.record) for event in events})
    prepare(topics, subjects, contracts, settings)
    codec = settings.codec(contracts)
    # Two publishers at once must not fence each other: the id is of this call alone.
    writer = TransactionalWriter(settings, f"driftline.{app}.publish-{uuid4()}", TRANSACTION_TIMEOUT_MS)
    try:
        outgoing = [to_outgoing(event, topics.events, codec) for event in events]
        _write(writer, outgoing, on_progress)
    finally:
        writer.close()
    return _summary(topics.events, events)


def _write(
    writer: TransactionalWriter, outgoing: Sequence[Outgoing], on_progress: Callable[[str, int], None]
) -> None:
    if not outgoing:
        return
    with writer.transaction() as transaction:
        for start in range(0, len(outgoing), WRITE_RECORDS_MAX):
            batch = outgoing[start : start + WRITE_RECORDS_MAX]
            transaction.write(batch)
            on_progress("written", start + len(batch))


def _read(
    lines: Iterable[bytes],
    form: LineForm,
    contracts: Contracts,
    name: str,
    on_progress: Callable[[str, int], None],
) -> list[Event]:
    parser = _Parser(form, contracts)
    events: list[Event] = []
    total = 0
    for number, line in enumerate(lines, 1):
        total += len(line)
        if total > INPUT_BYTES_TOTAL_MAX:
            raise BadInput(f"{name}:{number}: over {INPUT_BYTES_TOTAL_MAX} bytes in one call", "split the input")
        if line.strip():
            try:
                events.append(parser.event(line, number))
            except (DriftlineError, ValueError, RecursionError) as error:
                raise _at(error, f"{name}:{number}") from error
            on_progress("read", len(events))
    return events


def _at(error: Exception, where: str) -> BadInput:
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(str(step) for step in first["loc"])
        return BadInput(f"{where}: {field}: {first['msg']}", "nothing was published")
    if isinstance(error, DriftlineError):
        return BadInput(f"{where}: {error.message}", error.mend or "nothing was published")
    return BadInput(f"{where}: not JSON: {error}", "nothing was published")


class _Parser:
    """Makes events of lines.

    Raises:
        DriftlineError: From `event`: the line does not fit.
        ValueError: From `event`: it is not JSON, or not of the form.
    """

    def __init__(self, form: LineForm, contracts: Contracts) -> None:
        self._form = form
        self._contracts = contracts
        self._checks: dict[str, PayloadCheck] = {}

    def event(self, raw: bytes, number: int) -> Event:
        """The event of one line."""
        if len(raw) > INPUT_BYTES_MAX:
            raise BadInput(f"{len(raw)} bytes, at most {INPUT_BYTES_MAX}", "store the content elsewhere")
        value = parse_json(raw.decode())
        if not isinstance(value, dict):
            raise BadInput("not an object", "each line is one JSON object")
        if b"\\ud" in raw.lower() and not _is_text(value):
            raise BadInput("a lone surrogate is no text", "write the character itself")
        line = self._line(value)
        record = line.record or self._form.record
        if record is None:
            raise BadInput("record: the line names no Avro record", "give --record NAME")
        if not line.workflow:
            raise BadInput("workflow: empty", "give the id that orders and groups the event")
        return Event(
            id=line.id or derive_id(hashlib.sha256(raw).hexdigest(), str(number)),
            type=line.type or self._form.stream or record,
            source=self._form.source,
            workflow=line.workflow,
            time=_time(line.time),
            record=record,
            data=self._payload(record, line.data),
            causation_id=line.causation_id,
            traceparent=line.traceparent,
        )

    def _line(self, value: dict[str, Any]) -> _Line:
        key, time = self._form.key_field, self._form.time_field
        if key is None or time is None:
            return _Line.model_validate(value)
        for field in (key, time):
            if not isinstance(value.get(field), str):
                raise BadInput(f"{field}: not a text", "name the fields with --key-field and --time-field")
        return _Line(workflow=value[key], time=value[time], data=value)

    def _payload(self, record: str, data: dict[str, Any]) -> dict[str, Any]:
        check = self._checks.get(record)
        if check is None:
            check = self._checks[record] = PayloadCheck(self._contracts.require(record))
        payload: dict[str, Any] = times_of(check.schema, data)
        check(payload)
        return payload


def _is_text(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _time(text: str) -> datetime:
    try:
        time = parse_time(text)
    except ValueError as error:
        raise BadInput(f"time: {error}", "write it as 2026-07-01T00:00:00Z") from error
    if time <= EPOCH:
        raise BadInput(f"time: {text} is not after 1970-01-01", "give the event's own time")
    return time


def _summary(topic: str, events: Sequence[Event]) -> PublishSummary:
    streams = Counter(event.type for event in events)
    return PublishSummary(
        topic, len(events), len({event.workflow for event in events}), dict(sorted(streams.items()))
    )
