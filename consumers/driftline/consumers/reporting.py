"""What a runtime tells of itself: metrics, spans of commits, health, lines of the log."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from prometheus_client import CollectorRegistry

from driftline.consumers.control import ControlState
from driftline.consumers.deciding import Decided
from driftline.consumers.metrics import RuntimeMetrics
from driftline.consumers.partition import OwnedPartition
from driftline.consumers.tracing import Tracer

GAUGES_S = 1.0
"""Between two looks at what is only shown: lag, unfinished offsets, what is in flight."""

_log = logging.getLogger("driftline.runtime")


class HealthSink(Protocol):
    """Told that the loop turns, and whether the process is ready."""

    def beat(self) -> None:
        """The loop has turned."""

    def ready(self, ready: bool, why: str = "", about: str = "start") -> None:
        """One condition of readiness; `about` names it."""


class NoHealth:
    """A `HealthSink` that nobody asks."""

    def beat(self) -> None:
        """Nothing."""

    def ready(self, ready: bool, why: str = "", about: str = "start") -> None:
        """Nothing."""


class Reporting:
    """Told of everything by the thread that talks to Kafka; the metrics are safe for others too.

    Args:
        app: App name.
        metrics: Where counts go; None counts for nobody.
        tracer: Where spans of commits go.
        health: Who is told that the runtime lives.
    """

    def __init__(
        self, app: str, metrics: RuntimeMetrics | None, tracer: Tracer, health: HealthSink | None = None
    ) -> None:
        self.metrics = metrics or RuntimeMetrics(CollectorRegistry(), app)
        self._app = app
        self._tracer = tracer
        self._health = health or NoHealth()
        self._gauges_at = 0.0
        self._control = ControlState()

    def beat(self) -> None:
        """The process lives, though the loop does not turn."""
        self._health.beat()

    def turned(self, now_s: float) -> bool:
        """The loop has turned; whether `show` is due."""
        self._health.beat()
        if now_s - self._gauges_at < GAUGES_S:
            return False
        self._gauges_at = now_s
        return True

    def show(
        self, owned: Mapping[int, OwnedPartition], in_flight: int, waiting: int, lags: Mapping[int, int]
    ) -> None:
        """What is only shown, as it is now."""
        self.metrics.set_in_flight(in_flight, max(0, waiting))
        for number, owner in owned.items():
            self.metrics.set_unfinished(number, owner.tracker.unfinished)
        for number, lag in lags.items():
            self.metrics.set_lag(number, lag)

    def controlled(self, state: ControlState) -> None:
        """What the control topic says; told anew only where it has changed."""
        if state == self._control:
            return
        self._control = state
        self.metrics.set_control(state.killed, state.offset)
        self._health.ready(not state.killed, "the kill switch is on" if state.killed else "", "control")
        if state.killed or state.decisions_per_minute is not None or state.in_flight_max is not None:
            limits = f"{state.decisions_per_minute} decisions a minute, {state.in_flight_max} in flight"
            _log.warning("control offset %s: %s", state.offset, "killed" if state.killed else f"at most {limits}")
        else:
            _log.info("control offset %s: neither killed nor throttled", state.offset)

    def gained(self, partitions: Collection[int]) -> None:
        """Partitions were assigned."""
        self.metrics.rebalanced()
        self._health.ready(True)
        _log.info("assigned partitions %s", sorted(partitions))

    def lost(self, partitions: Collection[int], results: int) -> None:
        """Partitions were revoked, and so many results were dropped with them."""
        self.metrics.rebalanced(partitions)
        _log.info("gave partitions %s up, %d results dropped", sorted(partitions), results)

    def decided(self, decided: Decided) -> None:
        """An input was decided: its calls are paid, whether or not it is committed."""
        if decided.decision is not None:
            self.metrics.count_calls(decided.decision)

    def refused(self, reason: str) -> None:
        """A transaction was aborted or got no answer."""
        self.metrics.refused(reason)
        _log.warning("a transaction was not committed: %s", reason)

    def committed(self, batch: Sequence[Decided], records: int, took_s: float) -> None:
        """A transaction is visible."""
        at_s = time.time()
        self.metrics.committed(took_s, records, at_s)
        for decided in batch:
            if decided.decision is not None:
                self.metrics.count_decision(decided.decision)
            if decided.dead is not None:
                self.metrics.count_dead(decided.dead.value)
            if decided.repeat:
                self.metrics.count_repeated()
        if self._tracer.on:
            began_ns, ended_ns = int((at_s - took_s) * 1e9), int(at_s * 1e9)
            self._tracer.committed(self._app, [decided.traceparent for decided in batch], began_ns, ended_ns)
