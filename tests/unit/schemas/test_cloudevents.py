"""The envelope: headers that round-trip, and bytes from elsewhere that end in one typed error."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.schemas import Envelope, Undecodable, UndecodableReason
from driftline.schemas.cloudevents import epoch_ms, format_time, from_epoch_ms, from_headers, parse_time, to_headers

NAMES = st.text(min_size=1)
TIMES = st.datetimes(datetime(2, 1, 1), datetime(9998, 1, 1), timezones=st.timezones())
MILLIS = st.integers(-62_000_000_000_000, 253_000_000_000_000)


def envelope(**changes: Any) -> Envelope:
    fields = {
        "id": "1",
        "type": "ContractDue",
        "source": "crm",
        "subject": "7590",
        "time": datetime(2026, 1, 1, tzinfo=UTC),
    }
    return Envelope(**{**fields, **changes})


@given(NAMES, NAMES, NAMES, NAMES, MILLIS, st.none() | st.text(), st.none() | st.text())
def test_an_envelope_survives_its_headers(
    id: str, type: str, source: str, subject: str, at: int, cause: str | None, trace: str | None
) -> None:
    sent = Envelope(id, type, source, subject, from_epoch_ms(at), cause, trace)
    assert from_headers(to_headers(sent)) == sent


@given(MILLIS)
def test_a_record_stamp_survives_the_way_to_a_time_and_back(at: int) -> None:
    assert epoch_ms(from_epoch_ms(at)) == at


@given(TIMES)
def test_header_and_record_stamp_say_the_same_millisecond(time: datetime) -> None:
    assert epoch_ms(parse_time(format_time(time))) == epoch_ms(time)


def test_a_time_is_cut_and_never_rounded_up() -> None:
    late = datetime(2026, 1, 1, 0, 0, 0, 999_999, tzinfo=UTC)
    assert format_time(late) == "2026-01-01T00:00:00.999Z"
    assert epoch_ms(late) == epoch_ms(datetime(2026, 1, 1, tzinfo=UTC)) + 999


def test_a_time_without_a_zone_is_refused_everywhere() -> None:
    naive = datetime(2026, 1, 1)
    for refuse in (format_time, epoch_ms, lambda time: to_headers(envelope(time=time))):
        with pytest.raises(ValueError, match="no time zone"):
            refuse(naive)


@pytest.mark.parametrize("missing", ["ce_specversion", "ce_id", "ce_type", "ce_source", "ce_subject", "ce_time"])
def test_a_record_without_a_required_header_is_no_event(missing: str) -> None:
    headers = [(name, value) for name, value in to_headers(envelope()) if name != missing]
    with pytest.raises(Undecodable) as caught:
        from_headers(headers)
    assert caught.value.reason is UndecodableReason.BAD_HEADERS
    assert missing in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ce_id", b""),
        ("ce_id", b"\xff"),
        ("ce_id", None),
        ("ce_time", b"yesterday"),
        ("ce_time", b"2026-01-01T00:00:00"),
        ("ce_time", b"0001-01-01T00:00:00+23:59"),
        ("ce_specversion", b"2.0"),
    ],
)
def test_a_header_that_cannot_be_read_is_no_event(name: str, value: Any) -> None:
    headers = [*to_headers(envelope()), (name, value)]
    with pytest.raises(Undecodable) as caught:
        from_headers(headers)
    assert caught.value.reason is UndecodableReason.BAD_HEADERS


@given(st.lists(st.tuples(st.sampled_from(["ce_id", "ce_time", "ce_specversion", "traceparent", "x"]), st.binary())))
def test_whatever_the_headers_say_the_answer_is_an_envelope_or_undecodable(headers: list[tuple[str, bytes]]) -> None:
    try:
        from_headers([*to_headers(envelope()), *headers])
    except Undecodable as error:
        assert error.reason is UndecodableReason.BAD_HEADERS


def test_headers_of_others_are_left_alone() -> None:
    theirs = [("ce_partitionkey", b"\xff\xfe"), ("x-trace", b"\xff")]
    assert from_headers([*theirs, *to_headers(envelope())]) == envelope()


def test_a_time_of_another_zone_is_read_in_utc() -> None:
    assert parse_time("2026-03-01T12:00:00+02:00") == datetime(2026, 3, 1, 10, tzinfo=UTC)
    assert parse_time("2026-03-01T12:00:00+02:00").tzinfo is UTC
    assert format_time(datetime(2026, 3, 1, 12, tzinfo=timezone(timedelta(hours=2)))) == "2026-03-01T10:00:00.000Z"
