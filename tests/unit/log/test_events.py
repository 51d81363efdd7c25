"""Between records and events: what goes onto the log comes off it the same."""

from collections.abc import Sequence
from datetime import UTC, datetime

import pytest

from driftline.log import AppTopics, MemoryLog, artifact_record, decision_record, to_event, to_outgoing
from driftline.log.events import INPUT_BYTES_MAX
from driftline.log.records import Coordinates, Record
from driftline.schemas import (
    Attempt,
    BadInput,
    Codec,
    Contracts,
    Decision,
    Event,
    InputCoordinates,
    Registry,
    Undecodable,
    UndecodableReason,
    UsageError,
)
from driftline.schemas.cloudevents import Envelope, from_headers, to_headers
from driftline.schemas.names import RECORDED_INPUT

TIME = datetime(2026, 7, 1, 12, 0, 0, 123_000, tzinfo=UTC)


@pytest.fixture
def codec(request: pytest.FixtureRequest) -> Codec:
    return Codec(Registry(f"mock://{request.node.name}"), Contracts.load())


def _event(time: datetime = TIME) -> Event:
    data = {"set": "s", "messages": "[]", "reference": None}
    return Event("id-1", "happy", "recording:s", "w-1", time, RECORDED_INPUT, data, "cause", "00-ab-cd-01")


def test_an_event_comes_back_as_it_was_written(codec: Codec) -> None:
    log = MemoryLog()
    (at,) = log.commit([to_outgoing(_event(), "a.events", codec)])
    record = log.read_one(at)
    assert record is not None
    assert to_event(record, codec) == _event()
    assert record.timestamp_ms == 1_782_907_200_123


@pytest.mark.parametrize(
    "time", [datetime(1969, 1, 1, tzinfo=UTC), datetime(1970, 1, 1, tzinfo=UTC), datetime(2026, 1, 1)]
)
def test_a_time_that_kafka_cannot_hold_is_refused(codec: Codec, time: datetime) -> None:
    with pytest.raises(BadInput, match="time"):
        to_outgoing(_event(time), "a.events", codec)


def _headers(time: datetime = TIME) -> Sequence[tuple[str, bytes]]:
    return to_headers(Envelope("id-1", "happy", "s", "w", time))


@pytest.mark.parametrize(
    ("key", "value", "headers", "reason"),
    [
        (None, b"v", _headers(), UndecodableReason.NO_KEY),
        (b"\xff", b"v", _headers(), UndecodableReason.NO_KEY),
        (b"w", None, _headers(), UndecodableReason.NO_VALUE),
        (b"w", b"v" * (INPUT_BYTES_MAX + 1), _headers(), UndecodableReason.OVERSIZE),
        (b"w", b"v", [("ce_id", b"1")], UndecodableReason.BAD_HEADERS),
        (b"w", b"v", _headers(datetime(1969, 1, 1, tzinfo=UTC)), UndecodableReason.BAD_HEADERS),
        (b"w", b"v", _headers(), UndecodableReason.NOT_WIRE_FORMAT),
    ],
)
def test_what_is_no_event_says_why(
    codec: Codec,
    key: bytes | None,
    value: bytes | None,
    headers: Sequence[tuple[str, bytes]],
    reason: UndecodableReason,
) -> None:
    record = Record(Coordinates("a.events", 0, 0), key, value, 1, headers)
    with pytest.raises(Undecodable) as told:
        to_event(record, codec)
    assert told.value.reason is reason


def test_a_decision_lies_beside_its_input_under_the_inputs_time(codec: Codec) -> None:
    at = InputCoordinates(topic="a.events", partition=3, offset=7, event_id="id-1", event_time=TIME)
    decision = Decision(
        decision_id="d-1",
        app="a",
        boundary="b",
        stream="s",
        workflow="w",
        input=at,
        context="{}",
        context_hash="h",
        prompt_hash="p",
        model_requested="m",
        parameters="{}",
        attempts=(Attempt(number=1),),
        verdict="accepted",
        verifier_version="v",
        decided_at=datetime(2026, 8, 1, tzinfo=UTC),
    )
    outgoing = decision_record(decision, "a.decisions", codec)
    assert (outgoing.key, outgoing.partition, outgoing.timestamp_ms) == (b"w", 3, 1_782_907_200_123)
    assert from_headers(outgoing.headers) == Envelope("d-1", "driftline.Decision", "driftline:a/b", "w", TIME, "id-1")
    assert Decision.model_validate(codec.decode(outgoing.value).value) == decision


def test_an_artifact_is_kept_under_its_hash(codec: Codec) -> None:
    outgoing = artifact_record("h-1", "verifier_spec", "a/b", "text", codec, 1)
    time = datetime(1970, 1, 1, 0, 0, 0, 1000, tzinfo=UTC)
    assert from_headers(outgoing.headers) == Envelope("h-1", "driftline.Artifact", "driftline:a", "h-1", time)
    assert (outgoing.topic, outgoing.key) == ("driftline.artifacts", b"h-1")
    assert codec.decode(outgoing.value).value == {
        "hash": "h-1",
        "kind": "verifier_spec",
        "name": "a/b",
        "content": "text",
    }


@pytest.mark.parametrize("name", ["driftline", "", "Upper", "a b", "1a", "a.b", "a" * 101])
def test_a_name_that_cannot_prefix_topics_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="cannot name an app"):
        AppTopics(name)
