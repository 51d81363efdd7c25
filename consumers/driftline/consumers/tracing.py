"""Spans that join producer, decision and commit over the log, by W3C Trace Context (`traceparent`).

A decision's span is a child of its input event's; the events that it commits carry the decision's, so that whoever
consumes them goes on with the trace; the span of a commit links the decisions of its transaction. Spans are made
after the fact, of what was recorded: the engine knows nothing of them. They name codes, rules, models and
coordinates, and never a text, a payload or a key.

Source: https://www.w3.org/TR/trace-context/ (version 00); OpenTelemetry's conventions as in `span_names`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, NoOpTracerProvider, ProxyTracerProvider, Span, SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue

from driftline.consumers import span_names as names
from driftline.schemas import Attempt, Decision

LINKS_MAX = 128
"""Of one span, the SDK's default; a transaction of more decisions links the last of them."""

_TRACE_CONTEXT = TraceContextTextMapPropagator()


class Tracer:
    """Records spans of decisions and commits; does nothing, and makes no object, where no SDK is set up.

    Args:
        provider: Of OpenTelemetry; None takes the process's, as it is set up now.
    """

    def __init__(self, provider: trace.TracerProvider | None = None) -> None:
        provider = trace.get_tracer_provider() if provider is None else provider
        self.on = not isinstance(provider, (ProxyTracerProvider, NoOpTracerProvider))
        """Whether spans go anywhere."""
        self._tracer = provider.get_tracer("driftline", schema_url=names.SCHEMA_URL) if self.on else None

    def record(self, decision: Decision, started_ns: int, ended_ns: int, traceparent: str | None) -> str | None:
        """Record a finished decision and its model calls.

        A call's span lasts as long as its answer says it took, one after the other; latency that was told and not
        spent (of a recording, of a simulator) is cut at the decision's end.

        Args:
            decision: As it is to be written.
            started_ns: Unix time in nanoseconds at which its first call was made.
            ended_ns: Unix time in nanoseconds at which the verdict fell.
            traceparent: Of the input event. One that is none begins a new trace.

        Returns:
            The `traceparent` of the decision's record and of the events that it commits; the one given, unchanged,
            where no SDK is set up.
        """
        if self._tracer is None:
            return traceparent
        span = self._tracer.start_span(
            f"decide {decision.boundary}",
            context=_context(traceparent),
            kind=SpanKind.CONSUMER,
            attributes=_decision_attributes(decision),
            start_time=started_ns,
        )
        if span.is_recording():
            self._record_calls(decision, span, started_ns, ended_ns)
        span.end(ended_ns)
        return _traceparent(span)

    def committed(
        self,
        app: str,
        traceparents: Iterable[str | None],
        began_ns: int,
        ended_ns: int,
        failure: str | None = None,
    ) -> None:
        """Record one transaction, linked to its decisions.

        Args:
            app: App name.
            traceparents: Of the decisions, as `record` returned them; None and what is none are counted, not linked.
            began_ns: Unix time in nanoseconds at which the transaction began.
            ended_ns: Unix time in nanoseconds at which it was visible, or refused.
            failure: Why nothing of it is visible (`fenced`, `stale_group`, …); None for one that is.
        """
        if self._tracer is None:
            return
        found = list(traceparents)
        span = self._tracer.start_span(
            f"commit {app}",
            context=Context(),
            kind=SpanKind.CLIENT,
            attributes=_commit_attributes(app, len(found)),
            links=list(_links(found[-LINKS_MAX:])),
            start_time=began_ns,
        )
        if failure is not None:
            _fail(span, failure)
        span.end(ended_ns)

    def _record_calls(self, decision: Decision, span: Span, started_ns: int, ended_ns: int) -> None:
        within, began_ns = trace.set_span_in_context(span, Context()), started_ns
        for attempt in decision.attempts:
            call_ended_ns = min(ended_ns, began_ns + round((attempt.latency_ms or 0.0) * 1e6))
            self._record_call(decision, attempt, within, began_ns, call_ended_ns)
            for attributes in _rejections(attempt):
                span.add_event(names.REJECTION, attributes, call_ended_ns)
            began_ns = call_ended_ns

    def _record_call(
        self, decision: Decision, attempt: Attempt, within: Context, began_ns: int, ended_ns: int
    ) -> None:
        if self._tracer is None:
            return
        model = attempt.model_requested or decision.model_requested
        span = self._tracer.start_span(
            f"chat {model}",
            context=within,
            kind=SpanKind.CLIENT,
            attributes=_call_attributes(model, attempt),
            start_time=began_ns,
        )
        if attempt.failure is not None:
            _fail(span, attempt.failure)
        span.end(ended_ns)


def _context(traceparent: str | None) -> Context:
    """The remote parent; an empty context where there is none, so that no span of this process becomes it."""
    return _TRACE_CONTEXT.extract({"traceparent": traceparent} if traceparent else {}, Context())


def _traceparent(span: Span) -> str | None:
    carrier: dict[str, str] = {}
    _TRACE_CONTEXT.inject(carrier, trace.set_span_in_context(span, Context()))
    return carrier.get("traceparent")


def _links(traceparents: Iterable[str | None]) -> Iterator[Link]:
    for traceparent in traceparents:
        found = trace.get_current_span(_context(traceparent)).get_span_context()
        if found.is_valid:
            yield Link(found)


def _fail(span: Span, failure: str) -> None:
    span.set_attribute(names.ERROR_TYPE, failure)
    span.set_status(StatusCode.ERROR)


def _decision_attributes(decision: Decision) -> dict[str, AttributeValue]:
    at = decision.input
    return _said(
        {
            names.MESSAGING_SYSTEM: "kafka",
            names.MESSAGING_OPERATION_NAME: "decide",
            names.MESSAGING_OPERATION_TYPE: "process",
            names.MESSAGING_DESTINATION_NAME: at.topic,
            names.MESSAGING_DESTINATION_PARTITION_ID: str(at.partition),
            names.MESSAGING_KAFKA_OFFSET: at.offset,
            names.MESSAGING_MESSAGE_ID: at.event_id,
            names.APP: decision.app,
            names.BOUNDARY: decision.boundary,
            names.STREAM: decision.stream,
            names.DECISION_ID: decision.decision_id,
            names.VERDICT: decision.verdict,
            names.ACTION_TYPE: decision.action_type,
        }
    )


def _call_attributes(model: str, attempt: Attempt) -> dict[str, AttributeValue]:
    return _said(
        {
            names.GEN_AI_OPERATION_NAME: "chat",
            names.GEN_AI_PROVIDER_NAME: model.partition("/")[0],
            names.GEN_AI_REQUEST_MODEL: model,
            names.GEN_AI_RESPONSE_MODEL: attempt.model_reported,
            names.GEN_AI_RESPONSE_FINISH_REASONS: None if attempt.finish_reason is None else [attempt.finish_reason],
            names.GEN_AI_USAGE_INPUT_TOKENS: attempt.usage.prompt_tokens,
            names.GEN_AI_USAGE_OUTPUT_TOKENS: attempt.usage.completion_tokens,
            names.ATTEMPT: attempt.number,
            names.COST_USD: attempt.cost_usd,
        }
    )


def _commit_attributes(app: str, decisions: int) -> dict[str, AttributeValue]:
    return {
        names.MESSAGING_SYSTEM: "kafka",
        names.MESSAGING_OPERATION_NAME: "commit",
        names.MESSAGING_OPERATION_TYPE: "settle",
        names.MESSAGING_BATCH_MESSAGE_COUNT: decisions,
        names.APP: app,
    }


def _rejections(attempt: Attempt) -> Iterator[dict[str, AttributeValue]]:
    for rejection in attempt.rejections:
        yield {
            names.ATTEMPT: attempt.number,
            names.REJECTION_CODE: rejection.code,
            names.REJECTION_RULE_ID: rejection.rule_id,
            names.REJECTION_RETRYABLE: rejection.retryable,
        }


def _said(attributes: Mapping[str, AttributeValue | None]) -> dict[str, AttributeValue]:
    return {name: value for name, value in attributes.items() if value is not None}
