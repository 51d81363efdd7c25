"""Where spans go: to an OTLP collector, if the environment names one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from driftline.schemas import UsageError

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
"""Of OpenTelemetry's specification; its other variables (headers, service name, sampler) count as well."""


@contextmanager
def exported_traces() -> Iterator[None]:
    """Export the spans of the block over OTLP/HTTP; without an endpoint in the environment nothing is set up.

    Raises:
        UsageError: An endpoint is named and OpenTelemetry's SDK is not installed.
    """
    if not any(os.environ.get(name) for name in ENDPOINTS):
        yield
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ModuleNotFoundError as error:
        raise UsageError(
            f"traces need {error.name}, which is not installed", "pip install 'driftline[otel]'"
        ) from None
    from opentelemetry.trace import set_tracer_provider

    named = os.environ.get("OTEL_SERVICE_NAME")
    provider = TracerProvider(resource=Resource.create({} if named else {"service.name": "driftline"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    set_tracer_provider(provider)
    try:
        yield
    finally:
        provider.shutdown()
