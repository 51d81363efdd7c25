"""The runtime's metrics: what they show, and what they cost to be told."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics import MetricWrapperBase

from driftline.consumers.metrics import RuntimeMetrics
from driftline.schemas import Attempt, Decision, InputCoordinates, Read, ReadStatus, Rejection, Usage

TIME = datetime(2026, 7, 1, tzinfo=UTC)
LABELS = {
    "app",
    "boundary",
    "stream",
    "verdict",
    "code",
    "model",
    "kind",
    "reason",
    "partition",
    "le",
    "tool",
    "status",
}


def made(*attempts: Attempt, **changes: Any) -> Decision:
    """A decision of the shop's, with what a test changes of it."""
    at = InputCoordinates(topic="shop.events", partition=1, offset=7, event_id="e1", event_time=TIME)
    given: dict[str, Any] = {
        "decision_id": "d1",
        "app": "shop",
        "boundary": "refund",
        "stream": "shop.RefundRequested",
        "workflow": "c-17",
        "input": at,
        "context": "{}",
        "context_hash": "h",
        "prompt_hash": "p",
        "model_requested": "test/scripted",
        "parameters": "{}",
        "attempts": attempts or (Attempt(number=1, raw_response="{}"),),
        "verdict": "accepted",
        "verifier_version": "v",
        "decided_at": TIME,
    }
    return Decision(**{**given, **changes})


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def metrics(registry: CollectorRegistry) -> RuntimeMetrics:
    return RuntimeMetrics(registry, "shop")


@pytest.fixture
def shown(registry: CollectorRegistry) -> Callable[..., float | None]:
    return lambda name, **labels: registry.get_sample_value(f"driftline_{name}", {"app": "shop", **labels})


def test_reads_count_by_tool_and_a_name_that_a_model_made_up_is_no_label(
    metrics: RuntimeMetrics, shown: Callable[..., float | None]
) -> None:
    calls = [
        ("usage", ReadStatus.OK, 1),
        ("usage", ReadStatus.TIMEOUT, 2),
        ("drop table", ReadStatus.UNKNOWN_TOOL, 2),
    ]
    reads = tuple(
        Read(call_id="c", name=name, arguments="{}", arguments_hash="h", status=status, round=round_)
        for name, status, round_ in calls
    )
    metrics.count_calls(made(Attempt(number=1, raw_response="{}", reads=reads)))
    assert shown("tool_reads_total", boundary="refund", tool="usage", status="ok") == 1
    assert shown("tool_reads_total", boundary="refund", tool="usage", status="timeout") == 1
    assert shown("tool_reads_total", boundary="refund", tool="unknown", status="unknown_tool") == 1
    assert shown("model_calls_total", model="test/scripted") == 3


def test_a_decision_counts_by_boundary_stream_and_verdict(
    metrics: RuntimeMetrics, shown: Callable[..., float | None]
) -> None:
    metrics.count_decision(made())
    metrics.count_decision(made())
    metrics.count_decision(made(verdict="escalated"))
    where = {"boundary": "refund", "stream": "shop.RefundRequested"}
    assert shown("decisions_total", **where, verdict="accepted") == 2
    assert shown("decisions_total", **where, verdict="escalated") == 1


def test_every_rejection_counts_by_its_code(metrics: RuntimeMetrics, shown: Callable[..., float | None]) -> None:
    refused = Attempt(number=1, raw_response="no", rejections=(Rejection(code="not_json"), Rejection(code="mine")))
    metrics.count_decision(made(refused, refused.model_copy(update={"number": 2})))
    assert shown("rejections_total", boundary="refund", code="not_json") == 2
    assert shown("rejections_total", boundary="refund", code="mine") == 2


def test_calls_are_counted_under_the_requested_model_whatever_the_provider_reports(
    metrics: RuntimeMetrics, registry: CollectorRegistry, shown: Callable[..., float | None]
) -> None:
    usage = Usage(prompt_tokens=100, completion_tokens=20)
    answered = Attempt(number=1, model_reported="scripted-20260701-x7", usage=usage, cost_usd=0.25, latency_ms=1500)
    failed = Attempt(number=2, failure="timeout", latency_ms=9000)
    metrics.count_calls(made(answered, failed))
    model = {"model": "test/scripted"}
    assert shown("model_calls_total", **model) == 2
    assert shown("model_tokens_total", **model, kind="prompt") == 100
    assert shown("model_tokens_total", **model, kind="completion") == 20
    assert shown("model_cost_dollars_total", **model) == 0.25
    assert shown("model_failures_total", **model, reason="timeout") == 1
    assert (shown("model_latency_seconds_count", **model), shown("model_latency_seconds_sum", **model)) == (2, 10.5)
    assert "20260701" not in generate_latest(registry).decode()


def test_a_provider_that_reports_nonsense_does_not_stop_the_counting(
    metrics: RuntimeMetrics, shown: Callable[..., float | None]
) -> None:
    usage = Usage(prompt_tokens=-5, completion_tokens=None)
    metrics.count_calls(made(Attempt(number=1, usage=usage, cost_usd=-1.0)))
    assert shown("model_calls_total", model="test/scripted") == 1
    assert shown("model_tokens_total", model="test/scripted", kind="prompt") is None
    assert shown("model_cost_dollars_total", model="test/scripted") is None


def test_a_commit_tells_its_latency_its_size_and_its_time(
    metrics: RuntimeMetrics, shown: Callable[..., float | None]
) -> None:
    metrics.committed(0.02, 40, at_s=1_782_864_000.0)
    metrics.refused("stale_group")
    assert shown("committed_transactions_total") == 1
    assert shown("refused_transactions_total", reason="stale_group") == 1
    assert shown("commit_latency_seconds_sum") == 0.02
    assert shown("batch_records_sum") == 40
    assert shown("last_commit_timestamp_seconds") == 1_782_864_000.0


def test_a_partition_that_was_lost_is_no_longer_shown(
    metrics: RuntimeMetrics, shown: Callable[..., float | None]
) -> None:
    for partition in (0, 1):
        metrics.set_lag(partition, 10)
        metrics.set_unfinished(partition, 3)
    metrics.rebalanced(lost=[1, 5])
    assert shown("consumer_lag_records", partition="0") == 10
    assert shown("consumer_lag_records", partition="1") is None
    assert shown("unfinished_records", partition="1") is None
    metrics.set_lag(1, 4)
    assert shown("consumer_lag_records", partition="1") == 4
    assert shown("rebalances_total") == 1


def test_the_loop_tells_how_it_stands(metrics: RuntimeMetrics, shown: Callable[..., float | None]) -> None:
    metrics.set_in_flight(12, buffered=80)
    metrics.observe_queue_age(0.3)
    metrics.set_circuit("test/scripted", "open")
    metrics.set_control(killed=True, offset=9)
    metrics.count_dead("not_wire_format")
    metrics.count_repeated()
    metrics.producer_replaced()
    assert (shown("in_flight_decisions"), shown("buffered_records")) == (12, 80)
    assert shown("queue_age_seconds_sum") == 0.3
    assert shown("model_circuit_state", model="test/scripted") == 2
    assert (shown("kill_switch_state"), shown("control_offset")) == (1, 9)
    assert shown("dead_records_total", reason="not_wire_format") == 1
    assert (shown("repeated_events_total"), shown("replaced_producers_total")) == (1, 1)


def test_a_series_is_looked_up_once_however_often_it_is_told(
    registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_up = []
    labels = MetricWrapperBase.labels

    def counting(self: MetricWrapperBase, *values: Any) -> MetricWrapperBase:
        looked_up.append(values)
        return labels(self, *values)

    monkeypatch.setattr(MetricWrapperBase, "labels", counting)
    metrics = RuntimeMetrics(registry, "shop")
    decision = made(Attempt(number=1, usage=Usage(prompt_tokens=1), cost_usd=0.1, latency_ms=1))
    once = None
    for _ in range(100):
        metrics.count_decision(decision)
        metrics.count_calls(decision)
        metrics.committed(0.1, 3, at_s=1.0)
        metrics.set_lag(0, 1)
        once = once or len(looked_up)
    assert len(looked_up) == once


def test_names_and_labels_are_of_the_house(metrics: RuntimeMetrics, registry: CollectorRegistry) -> None:
    metrics.count_calls(made(Attempt(number=1, failure="timeout", usage=Usage(prompt_tokens=1), latency_ms=1)))
    metrics.count_decision(made(Attempt(number=1, rejections=(Rejection(code="not_json"),))))
    metrics.set_lag(0, 1)
    families = list(registry.collect())
    samples = [sample for family in families for sample in family.samples]
    assert all(re.fullmatch(r"driftline(_[a-z]+){2,}", sample.name) for sample in samples)
    found = {label for sample in samples for label in sample.labels}
    assert found <= LABELS
    assert len(families) > 20


def test_a_call_of_another_model_than_the_boundarys_counts_under_that_one(
    metrics: RuntimeMetrics, shown: Callable[..., float | None]
) -> None:
    metrics.count_calls(made(Attempt(number=1, failure="timeout"), Attempt(number=2, model_requested="test/spare")))
    assert shown("model_calls_total", model="test/scripted") == 1
    assert shown("model_calls_total", model="test/spare") == 1
