"""Metrics of one runtime, for Prometheus: cheap enough to be told of every decision.

Names are `driftline_<noun>_<unit>`. Labels are few and bounded by the app's own code and settings: never an id, a
key, a hash, or a model name that a provider reported (the requested one stands for it).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from driftline.schemas import Attempt, Decision, ReadStatus

QUEUE_AGE_BUCKETS_S = (0.001, 0.005, 0.025, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
MODEL_LATENCY_BUCKETS_S = (0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60, 120)
COMMIT_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)
BATCH_BUCKETS = (1, 3, 10, 30, 100, 300, 1000, 3000)
CIRCUIT_STATES: Mapping[str, int] = {"closed": 0, "half_open": 1, "open": 2}
"""What `driftline_model_circuit_state` shows for each state of a circuit breaker."""


class _Children:
    """The series of one metric and app, each looked up once: `labels()` takes a lock and a tuple every time."""

    __slots__ = ("_app", "_found", "_metric")

    def __init__(self, metric: Any, app: str) -> None:
        self._metric = metric
        self._app = app
        self._found: dict[tuple[str | int, ...], Any] = {}

    def __call__(self, *values: str | int) -> Any:
        child = self._found.get(values)
        if child is None:
            child = self._found[values] = self._metric.labels(self._app, *values)
        return child

    def forget(self, *values: str | int) -> None:
        """Show the series no longer."""
        if self._found.pop(values, None) is not None:
            self._metric.remove(self._app, *values)


class RuntimeMetrics:
    """What one runtime did and is doing. Safe for many threads, as prometheus_client is.

    Not promised: exactness over restarts. Counters begin at 0 with the process, and what was committed just before it
    died may not be counted; what is on the log is the truth.

    Args:
        registry: Where the metrics are registered, once each: a second instance on the same one is a ValueError.
        app: The label `app` of every series.
    """

    def __init__(self, registry: CollectorRegistry, app: str) -> None:
        self._registry = registry
        self._app = app
        self._make_decision_metrics()
        self._make_model_metrics()
        self._make_loop_metrics()
        self._make_commit_metrics()
        self._make_partition_metrics()

    def _make_decision_metrics(self) -> None:
        self._decisions = self._counter("decisions", "Committed decisions.", "boundary", "stream", "verdict")
        self._rejections = self._counter(
            "rejections", "Proposals that a verifier refused, by code.", "boundary", "code"
        )
        self._dead = self._counter("dead_records", "Inputs that no retry can decide.", "reason")
        self._repeated = self._counter("repeated_events", "Inputs whose ce_id was seen before.")

    def _make_model_metrics(self) -> None:
        self._calls = self._counter("model_calls", "Calls of the requested model.", "model")
        self._failures = self._counter(
            "model_failures", "Calls that gave no answer, by typed failure.", "model", "reason"
        )
        self._tokens = self._counter("model_tokens", "Tokens as the provider counted them.", "model", "kind")
        self._dollars = self._counter("model_cost_dollars", "Dollars of the calls whose price is known.", "model")
        self._latency = self._histogram(
            "model_latency_seconds", "From request to the whole answer.", MODEL_LATENCY_BUCKETS_S, "model"
        )
        self._reads = self._counter(
            "tool_reads", "Calls of tools, by what became of them.", "boundary", "tool", "status"
        )
        self._circuit = self._gauge("model_circuit_state", "0 closed, 1 half open, 2 open.", "model")

    def _make_loop_metrics(self) -> None:
        self._in_flight = self._gauge("in_flight_decisions", "Decisions begun and not finished.")()
        self._buffered = self._gauge("buffered_records", "Records polled and not begun.")()
        self._queue_age = self._histogram(
            "queue_age_seconds", "From a record being polled to its decision beginning.", QUEUE_AGE_BUCKETS_S
        )()
        self._killed = self._gauge("kill_switch_state", "1 while the kill switch is on.")()
        self._control = self._gauge(
            "control_offset", "Offset of the control topic up to which settings are in force."
        )
        self._rebalances = self._counter("rebalances", "Changes of the owned partitions.")()

    def _make_commit_metrics(self) -> None:
        self._committed = self._counter("committed_transactions", "Transactions that are visible.")()
        self._refused = self._counter("refused_transactions", "Transactions that were aborted or refused.", "reason")
        self._producers = self._counter("replaced_producers", "Producers let go for a new one.")()
        self._commit_s = self._histogram(
            "commit_latency_seconds", "From begin to visible, of one transaction.", COMMIT_BUCKETS_S
        )()
        self._batch = self._histogram("batch_records", "Records of one transaction.", BATCH_BUCKETS)()
        self._last_commit = self._gauge("last_commit_timestamp_seconds", "Unix time of the last commit.")

    def _make_partition_metrics(self) -> None:
        self._lag = self._gauge("consumer_lag_records", "Offsets behind the partition's end.", "partition")
        self._unfinished = self._gauge(
            "unfinished_records", "Unfinished offsets below the highest finished one.", "partition"
        )

    def count_decision(self, decision: Decision) -> None:
        """Count a decision by verdict, and what its verifiers refused; call it once its transaction is committed."""
        boundary = decision.boundary
        self._decisions(boundary, decision.stream, decision.verdict).inc()
        for attempt in decision.attempts:
            for rejection in attempt.rejections:
                self._rejections(boundary, rejection.code).inc()

    def count_calls(self, decision: Decision) -> None:
        """Count the model calls of a decision, their tokens, dollars and latencies; call it once it is decided.

        Apart from `count_decision`, since calls are paid whether or not the transaction is committed.
        """
        for attempt in decision.attempts:
            self._count_call(attempt.model_requested or decision.model_requested, attempt)
            for read in attempt.reads:
                # A name that is no tool's is a model's invention, and a label must not be.
                tool = "unknown" if read.status == ReadStatus.UNKNOWN_TOOL else read.name
                self._reads(decision.boundary, tool, read.status).inc()

    def _count_call(self, model: str, attempt: Attempt) -> None:
        self._calls(model).inc(1 + max((read.round for read in attempt.reads), default=0))
        usage = attempt.usage
        # Providers report what they like: a counter takes no negative amount.
        if usage.prompt_tokens is not None and usage.prompt_tokens > 0:
            self._tokens(model, "prompt").inc(usage.prompt_tokens)
        if usage.completion_tokens is not None and usage.completion_tokens > 0:
            self._tokens(model, "completion").inc(usage.completion_tokens)
        if attempt.cost_usd is not None and attempt.cost_usd > 0:
            self._dollars(model).inc(attempt.cost_usd)
        if attempt.latency_ms is not None:
            self._latency(model).observe(attempt.latency_ms / 1000)
        if attempt.failure is not None:
            self._failures(model, attempt.failure).inc()

    def count_dead(self, reason: str) -> None:
        """Count an input that went to the dead topic, by its typed reason."""
        self._dead(reason).inc()

    def count_repeated(self) -> None:
        """Count an input whose `ce_id` was seen before; it was decided all the same."""
        self._repeated().inc()

    def committed(self, seconds: float, records: int, at_s: float) -> None:
        """Count a transaction that is visible.

        Args:
            seconds: From begin to visible.
            records: That it wrote.
            at_s: Unix time of it.
        """
        self._committed.inc()
        self._commit_s.observe(seconds)
        self._batch.observe(records)
        self._last_commit().set(at_s)

    def refused(self, reason: str) -> None:
        """Count a transaction of which nothing is visible: `fenced`, `stale_group`, `unknown`, `aborted`, …"""
        self._refused(reason).inc()

    def producer_replaced(self) -> None:
        """Count a producer that was let go for a new one."""
        self._producers.inc()

    def rebalanced(self, lost: Iterable[int] = ()) -> None:
        """Count a change of the owned partitions; the lost ones' lag is another process's to tell from here on."""
        self._rebalances.inc()
        for partition in lost:
            self._lag.forget(partition)
            self._unfinished.forget(partition)

    def observe_queue_age(self, seconds: float) -> None:
        """How long a record waited from being polled until its decision began."""
        self._queue_age.observe(seconds)

    def set_in_flight(self, decisions: int, buffered: int) -> None:
        """Decisions begun and not finished, and records polled and not begun."""
        self._in_flight.set(decisions)
        self._buffered.set(buffered)

    def set_lag(self, partition: int, records: int) -> None:
        """Offsets between the partition's position and its end; control records count too."""
        self._lag(partition).set(records)

    def set_unfinished(self, partition: int, records: int) -> None:
        """Unfinished offsets below the highest finished one: what the position's metadata must hold."""
        self._unfinished(partition).set(records)

    def set_circuit(self, model: str, state: str) -> None:
        """State of a model's circuit breaker.

        Raises:
            KeyError: It is none of `CIRCUIT_STATES`.
        """
        self._circuit(model).set(CIRCUIT_STATES[state])

    def set_control(self, killed: bool, offset: int | None) -> None:
        """Whether the kill switch is on, and up to where the control topic was read; None for an empty one."""
        self._killed.set(killed)
        if offset is not None:
            self._control().set(offset)

    def _counter(self, noun: str, what: str, *labels: str) -> _Children:
        return _Children(
            Counter(f"driftline_{noun}_total", what, ("app", *labels), registry=self._registry), self._app
        )

    def _gauge(self, name: str, what: str, *labels: str) -> _Children:
        return _Children(Gauge(f"driftline_{name}", what, ("app", *labels), registry=self._registry), self._app)

    def _histogram(self, name: str, what: str, buckets: tuple[float, ...], *labels: str) -> _Children:
        metric = Histogram(f"driftline_{name}", what, ("app", *labels), buckets=buckets, registry=self._registry)
        return _Children(metric, self._app)
