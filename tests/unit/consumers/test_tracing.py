"""Spans of decisions and commits, as OpenTelemetry's own SDK exports them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, Sampler
from opentelemetry.trace import NoOpTracer, NoOpTracerProvider, ProxyTracer, StatusCode

from driftline.consumers import span_names as names
from driftline.consumers.tracing import LINKS_MAX, Tracer
from driftline.schemas import Attempt, Decision, InputCoordinates, Rejection, Usage

TIME = datetime(2026, 7, 1, tzinfo=UTC)
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{SPAN}-01"
STARTED, ENDED = 1_000_000_000, 5_000_000_000
SAID = "the model's own words"


def decision(*attempts: Attempt, **changes: Any) -> Decision:
    at = InputCoordinates(topic="shop.events", partition=1, offset=7, event_id="e1", event_time=TIME)
    given: dict[str, Any] = {
        "decision_id": "d1",
        "app": "shop",
        "boundary": "refund",
        "stream": "shop.RefundRequested",
        "workflow": "c-17",
        "input": at,
        "context": f'{{"said":"{SAID}"}}',
        "context_hash": "h",
        "prompt_hash": "p",
        "model_requested": "test/scripted",
        "parameters": "{}",
        "attempts": attempts or (Attempt(number=1, raw_response=SAID, latency_ms=1000),),
        "verdict": "accepted",
        "action_type": "shop.RefundGranted",
        "action_payload": f'{{"reason":"{SAID}"}}',
        "verifier_version": "v",
        "decided_at": TIME,
    }
    return Decision(**{**given, **changes})


class Traced:
    """A tracer over the SDK, and what it exported."""

    def __init__(self, sampler: Sampler | None = None) -> None:
        self._exporter = InMemorySpanExporter()
        provider = TracerProvider(sampler, shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracer = Tracer(provider)

    def spans(self, name: str) -> list[ReadableSpan]:
        return [span for span in self._exporter.get_finished_spans() if span.name == name]

    def one(self, name: str) -> ReadableSpan:
        (span,) = self.spans(name)
        return span


@pytest.fixture
def traced() -> Traced:
    return Traced()


def test_a_decision_goes_on_with_its_events_trace_and_hands_it_on(traced: Traced) -> None:
    outputs = traced.tracer.record(decision(), STARTED, ENDED, PARENT)
    span = traced.one("decide refund")
    assert span.parent is not None and span.context is not None
    assert (f"{span.parent.trace_id:032x}", f"{span.parent.span_id:016x}") == (TRACE, SPAN)
    assert outputs == f"00-{TRACE}-{span.context.span_id:016x}-01"
    assert (span.start_time, span.end_time) == (STARTED, ENDED)


@pytest.mark.parametrize("parent", [None, "", "nonsense", f"00-{'0' * 32}-{SPAN}-01", f"00-{TRACE}-{SPAN}-01" * 20])
def test_an_event_without_a_usable_trace_begins_one(traced: Traced, parent: str | None) -> None:
    outputs = traced.tracer.record(decision(), STARTED, ENDED, parent)
    span = traced.one("decide refund")
    assert span.parent is None
    assert outputs is not None and span.context is not None
    assert outputs.split("-")[1] == f"{span.context.trace_id:032x}"


def test_a_span_that_is_open_in_this_process_does_not_become_the_parent(traced: Traced) -> None:
    with TracerProvider(shutdown_on_exit=False).get_tracer("user").start_as_current_span("the user's own"):
        traced.tracer.record(decision(), STARTED, ENDED, None)
        traced.tracer.committed("shop", [], STARTED, ENDED)
    assert traced.one("decide refund").parent is None
    assert traced.one("commit shop").parent is None


def test_each_call_is_a_child_that_lasts_as_long_as_its_answer_took(traced: Traced) -> None:
    first = Attempt(number=1, model_reported="scripted-2", finish_reason="stop", latency_ms=1500)
    usage = Usage(prompt_tokens=10, completion_tokens=4)
    traced.tracer.record(decision(first, Attempt(number=2, usage=usage, latency_ms=500)), STARTED, ENDED, PARENT)
    one, two = traced.spans("chat test/scripted")
    parent = traced.one("decide refund")
    assert one.parent == two.parent == parent.context
    assert (one.start_time, one.end_time) == (STARTED, STARTED + 1_500_000_000)
    assert (two.start_time, two.end_time) == (STARTED + 1_500_000_000, STARTED + 2_000_000_000)
    assert one.attributes is not None and two.attributes is not None
    assert one.attributes[names.GEN_AI_REQUEST_MODEL] == "test/scripted"
    assert one.attributes[names.GEN_AI_PROVIDER_NAME] == "test"
    assert one.attributes[names.GEN_AI_RESPONSE_MODEL] == "scripted-2"
    assert one.attributes[names.GEN_AI_RESPONSE_FINISH_REASONS] == ("stop",)
    assert names.GEN_AI_USAGE_INPUT_TOKENS not in one.attributes
    assert two.attributes[names.GEN_AI_USAGE_INPUT_TOKENS] == 10
    assert two.attributes[names.GEN_AI_USAGE_OUTPUT_TOKENS] == 4


def test_latency_that_was_told_and_not_spent_ends_with_the_decision(traced: Traced) -> None:
    slow = [Attempt(number=number, latency_ms=3000) for number in (1, 2, 3)]
    traced.tracer.record(decision(*slow), STARTED, ENDED, PARENT)
    assert [span.end_time for span in traced.spans("chat test/scripted")] == [4_000_000_000, ENDED, ENDED]


def test_a_call_without_an_answer_is_an_error_of_its_type(traced: Traced) -> None:
    traced.tracer.record(decision(Attempt(number=1, failure="rate_limited")), STARTED, ENDED, PARENT)
    span = traced.one("chat test/scripted")
    assert span.status.status_code is StatusCode.ERROR
    assert span.attributes is not None
    assert span.attributes[names.ERROR_TYPE] == "rate_limited"
    assert traced.one("decide refund").status.status_code is StatusCode.UNSET


def test_rejections_are_events_with_code_and_rule_at_the_end_of_their_attempt(traced: Traced) -> None:
    told = Rejection(code="policy_violation", path=f"/{SAID}", actual=SAID, rule_id="cap", message=SAID)
    refused = Attempt(number=1, raw_response=SAID, latency_ms=1000, rejections=(told,))
    traced.tracer.record(decision(refused, verdict="rejected"), STARTED, ENDED, PARENT)
    (event,) = traced.one("decide refund").events
    assert (event.name, event.timestamp) == ("driftline.rejection", STARTED + 1_000_000_000)
    assert event.attributes is not None
    assert event.attributes[names.REJECTION_CODE] == "policy_violation"
    assert event.attributes[names.REJECTION_RULE_ID] == "cap"


def test_no_text_payload_or_key_is_in_any_span(traced: Traced) -> None:
    told = Rejection(code="policy_violation", path=f"/{SAID}", actual=SAID, expected=SAID, message=SAID)
    attempt = Attempt(number=1, raw_response=SAID, facts=SAID, rejections=(told,))
    traced.tracer.record(decision(attempt), STARTED, ENDED, PARENT)
    exported = "".join(
        span.to_json() for name in ("decide refund", "chat test/scripted") for span in traced.spans(name)
    )
    assert '"driftline.verdict": "accepted"' in exported
    assert SAID not in exported
    assert "c-17" not in exported


def test_a_commit_links_the_decisions_of_its_transaction(traced: Traced) -> None:
    outputs = [traced.tracer.record(decision(), STARTED, ENDED, PARENT) for _ in range(3)]
    traced.tracer.committed("shop", [*outputs, None, "nonsense"], STARTED, ENDED)
    span = traced.one("commit shop")
    decided = [one.context for one in traced.spans("decide refund")]
    assert [(link.context.trace_id, link.context.span_id) for link in span.links] == [
        (context.trace_id, context.span_id) for context in decided if context is not None
    ]
    assert span.attributes is not None
    assert span.attributes[names.MESSAGING_BATCH_MESSAGE_COUNT] == 5
    assert (span.start_time, span.end_time, span.status.status_code) == (STARTED, ENDED, StatusCode.UNSET)


def test_a_refused_commit_is_an_error_of_its_kind(traced: Traced) -> None:
    traced.tracer.committed("shop", [], STARTED, ENDED, failure="stale_group")
    span = traced.one("commit shop")
    assert span.attributes is not None
    assert (span.status.status_code, span.attributes[names.ERROR_TYPE]) == (StatusCode.ERROR, "stale_group")


def test_a_large_commit_links_its_last_decisions(traced: Traced) -> None:
    parents = [f"00-{TRACE}-{number + 1:016x}-01" for number in range(LINKS_MAX + 10)]
    traced.tracer.committed("shop", parents, STARTED, ENDED)
    span = traced.one("commit shop")
    assert len(span.links) == LINKS_MAX
    assert span.links[-1].context.span_id == LINKS_MAX + 10


def test_what_is_not_sampled_is_handed_on_as_such() -> None:
    traced = Traced(ALWAYS_OFF)
    outputs = traced.tracer.record(decision(), STARTED, ENDED, PARENT)
    assert traced.spans("decide refund") == []
    assert outputs is not None
    assert outputs.startswith(f"00-{TRACE}-")
    assert outputs.endswith("-00")


def test_without_an_sdk_the_trace_passes_through_and_no_span_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[object] = []
    for tracer in (NoOpTracer, ProxyTracer):
        monkeypatch.setattr(tracer, "start_span", lambda *_args, **_options: made.append("a span"))
    monkeypatch.setattr("driftline.consumers.tracing._context", lambda traceparent: made.append("a context"))
    assert isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider), "another test set an SDK up"
    for tracing in (Tracer(), Tracer(NoOpTracerProvider())):
        assert tracing.on is False
        for parent in (PARENT, None, "nonsense"):
            assert tracing.record(decision(), STARTED, ENDED, parent) == parent
        tracing.committed("shop", [PARENT], STARTED, ENDED)
    assert made == []


def test_a_call_of_another_model_than_the_boundarys_bears_that_ones_name(traced: Traced) -> None:
    attempts = Attempt(number=1, failure="timeout"), Attempt(number=2, model_requested="spares/other")
    traced.tracer.record(decision(*attempts), STARTED, ENDED, PARENT)
    span = traced.one("chat spares/other")
    assert span.attributes is not None
    assert span.attributes[names.GEN_AI_PROVIDER_NAME] == "spares"
