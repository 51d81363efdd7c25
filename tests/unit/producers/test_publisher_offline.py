"""What a publisher says before it has talked to anybody."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import TracerProvider

from driftline.log import Settings
from driftline.producers import Publisher
from driftline.producers.errors import DeliveryFailed
from driftline.schemas import BadInput, ContractError, Event, KafkaUnreachable, UsageError
from driftline.schemas.names import RECORDED_INPUT

NOBODY = Settings(bootstrap_servers="127.0.0.1:1", registry_url="http://127.0.0.1:1")
TIME = datetime(2026, 7, 1, tzinfo=UTC)
DATA = {"set": "s", "messages": "[]", "reference": None}


def test_it_is_made_and_closed_without_a_network() -> None:
    with Publisher("shop", settings=NOBODY, source="me"):
        pass


def test_a_payload_is_refused_without_a_network() -> None:
    publisher = Publisher("shop", settings=NOBODY, source="me")
    with pytest.raises(ContractError, match="messages: expected string, found nothing"):
        publisher.publish(RECORDED_INPUT, {"set": "s"}, workflow="w", time=TIME)
    with pytest.raises(ContractError, match=r"no contract for the record shop\.Nothing; known are"):
        publisher.publish("shop.Nothing", {}, workflow="w", time=TIME)


def test_an_event_without_a_time_is_refused_where_there_is_no_clock() -> None:
    with pytest.raises(BadInput, match="give `time`, or the publisher a `clock`"):
        Publisher("shop", settings=NOBODY, source="me").publish(RECORDED_INPUT, DATA, workflow="w")


def test_an_address_where_nobody_answers_is_told_at_the_first_event(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("driftline.producers.publisher.REQUEST_TIMEOUT_S", 0.3)
    publisher = Publisher("shop", settings=NOBODY, source="me")
    with pytest.raises(KafkaUnreachable, match=r"127\.0\.0\.1:1"):
        publisher.publish(RECORDED_INPUT, DATA, workflow="w", time=TIME)
    publisher.close()


def test_a_name_or_a_folder_that_cannot_be_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot name an app"):
        Publisher("Shop", settings=NOBODY, source="me")
    with pytest.raises(ContractError, match="no schema folder"):
        Publisher("shop", tmp_path / "nowhere", NOBODY, source="me")


def test_a_failure_says_whether_publishing_again_can_help() -> None:
    assert "same ids" in str(DeliveryFailed("lost", "shop.events"))
    assert str(DeliveryFailed("too large", "shop.events", retryable=False)) == "too large"


def test_an_event_goes_on_with_the_trace_in_which_it_is_published(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[Event] = []
    monkeypatch.setattr(Publisher, "publish_event", lambda self, event: taken.append(event))
    publisher = Publisher("shop", settings=NOBODY, source="me")
    given = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    with TracerProvider(shutdown_on_exit=False).get_tracer("user").start_as_current_span("placing an order") as span:
        publisher.publish(RECORDED_INPUT, DATA, workflow="w", time=TIME)
        publisher.publish(RECORDED_INPUT, DATA, workflow="w", time=TIME, traceparent=given)
    publisher.publish(RECORDED_INPUT, DATA, workflow="w", time=TIME)
    at = span.get_span_context()
    current = f"00-{at.trace_id:032x}-{at.span_id:016x}-{at.trace_flags:02x}"
    assert [event.traceparent for event in taken] == [current, given, None]
