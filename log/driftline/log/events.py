"""Between records of the log and what they mean: events, decisions, artifacts.

All of them travel in the CloudEvents envelope. Rows do not: they are compacted state, no events, and bear no headers.
"""

from __future__ import annotations

from datetime import UTC, datetime

from driftline.log.records import Outgoing, Record
from driftline.log.topics import ARTIFACTS
from driftline.schemas import BadInput, Codec, Decision, Envelope, Event, Undecodable, UndecodableReason
from driftline.schemas.cloudevents import epoch_ms, from_epoch_ms, from_headers, to_headers
from driftline.schemas.names import ARTIFACT, DECISION

INPUT_BYTES_MAX = 262_144
"""A larger value goes to the dead topic: a quarter of Kafka's default record, more than a prompt can use."""
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
"""Event times lie after it: librdkafka stamps 0 as now, and brokers answer no questions about times before."""


def to_event(record: Record, codec: Codec) -> Event:
    """The event that a record holds.

    Raises:
        Undecodable: No retry will make it an event.
        RegistryUnreachable: Its schema is not known yet and the registry does not answer.
    """
    if record.key is None:
        raise Undecodable(UndecodableReason.NO_KEY, "an event needs its workflow as key")
    if record.value is not None and len(record.value) > INPUT_BYTES_MAX:
        raise Undecodable(UndecodableReason.OVERSIZE, f"{len(record.value)} bytes, at most {INPUT_BYTES_MAX}")
    envelope = from_headers(record.headers)
    if envelope.time <= EPOCH:
        raise Undecodable(UndecodableReason.BAD_HEADERS, f"the event time {envelope.time} is not after 1970-01-01")
    try:
        workflow = record.key.decode()
    except UnicodeDecodeError as error:
        raise Undecodable(UndecodableReason.NO_KEY, "the key is not UTF-8") from error
    decoded = codec.decode(record.value)
    return Event(
        id=envelope.id,
        type=envelope.type,
        source=envelope.source,
        workflow=workflow,
        time=envelope.time,
        record=decoded.name,
        data=decoded.value,
        causation_id=envelope.causation_id,
        traceparent=envelope.traceparent,
    )


def to_outgoing(event: Event, topic: str, codec: Codec, partition: int | None = None) -> Outgoing:
    """The record that is written for an event.

    Raises:
        ContractError: The payload does not fit the record's packaged schema.
        BadInput: The event time has no zone or does not lie after 1970.
        RegistryUnreachable: The schema id is not known yet and the registry does not answer.
    """
    if event.time.tzinfo is None or event.time <= EPOCH:
        raise BadInput(f"time: {event.time} is no event time", "give a time with a zone, after 1970-01-01")
    envelope = Envelope(
        event.id, event.type, event.source, event.workflow, event.time, event.causation_id, event.traceparent
    )
    return Outgoing(
        topic=topic,
        key=event.workflow.encode(),
        value=codec.encode(topic, event.record, event.data),
        timestamp_ms=epoch_ms(event.time),
        headers=to_headers(envelope),
        partition=partition,
    )


def decision_record(decision: Decision, topic: str, codec: Codec, traceparent: str | None = None) -> Outgoing:
    """The record of a decision: beside its input, stamped with the input's event time, which is its `ce_time` too.

    When it was decided is in the value.

    Args:
        decision: What was decided.
        topic: Where it will be written.
        codec: Encodes it.
        traceparent: W3C trace context of the decision.
    """
    envelope = Envelope(
        id=decision.decision_id,
        type=DECISION,
        source=f"driftline:{decision.app}/{decision.boundary}",
        subject=decision.workflow,
        time=decision.input.event_time,
        causation_id=decision.input.event_id,
        traceparent=traceparent,
    )
    return Outgoing(
        topic=topic,
        key=decision.workflow.encode(),
        value=codec.encode(topic, DECISION, decision.model_dump()),
        timestamp_ms=epoch_ms(decision.input.event_time),
        headers=to_headers(envelope),
        partition=decision.input.partition,
    )


def artifact_record(
    hash: str, kind: str, name: str, content: str, codec: Codec, timestamp_ms: int, *, app: str | None = None
) -> Outgoing:
    """The record of a content by its hash, which is the key, so that compaction keeps one of each.

    Args:
        hash: Of the content; also the envelope's id and subject, since the same content again is the same artifact.
        kind: What the content is.
        name: Whose it is, for people: `app` or `app/boundary`, or a record's name.
        content: The content as it stands.
        codec: Encodes it.
        timestamp_ms: Event time.
        app: Whose it is; None takes what stands before the `/` of the name.
    """
    value = {"hash": hash, "kind": kind, "name": name, "content": content}
    source = f"driftline:{app or name.partition('/')[0]}"
    headers = to_headers(Envelope(hash, ARTIFACT, source, hash, from_epoch_ms(timestamp_ms)))
    return Outgoing(ARTIFACTS, hash.encode(), codec.encode(ARTIFACTS, ARTIFACT, value), timestamp_ms, headers)
