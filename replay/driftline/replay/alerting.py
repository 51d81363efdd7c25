"""What replay may write: alerts, onto driftline's own topics and nowhere else."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any

from driftline.detectors import JudgeSummary, StratumSummary
from driftline.log import ALERTS, Coordinates, LogReader, LogWriter, Outgoing
from driftline.log.topics import OWN_PREFIX
from driftline.replay.levels import EXIT_FAMILY, VERDICT
from driftline.replay.report import examples
from driftline.replay.result import Contrast, ForcedResult, Limits
from driftline.replay.segment import Segment
from driftline.schemas import (
    Alert,
    ArmRef,
    Codec,
    DivergenceAlert,
    Envelope,
    EnvironmentDriftAlert,
    ReplayCompleted,
    StratumChange,
    UsageError,
)
from driftline.schemas.cloudevents import epoch_ms, to_headers

EXAMPLES_MAX = 5
DIVERGED = "diverged"
TRANSACTIONAL_ID_PREFIX = "driftline-replay"
"""An app's ids start with `driftline.`, so that a replay can neither fence an app nor be fenced by one."""


class ForbiddenTopic(UsageError):
    """Replay tried to write to a topic that is not driftline's own."""


class ReplayWriter:
    """A writer that refuses every topic but `driftline.*`: what replay does cannot reach an app."""

    def __init__(self, writer: LogWriter) -> None:
        self._writer = writer

    def commit(self, records: Sequence[Outgoing]) -> list[Coordinates]:
        """Write the records in one transaction.

        Raises:
            ForbiddenTopic: One of them is for another topic; nothing is written.
        """
        with self.transaction() as write:
            return write(records)

    @contextmanager
    def transaction(self) -> Iterator[Callable[[Sequence[Outgoing]], list[Coordinates]]]:
        """One transaction; yields what writes into it, and that raises `ForbiddenTopic` as `commit` does.

        It begins with taking over the writer's id: whoever held that before can commit no more.
        """
        with self._writer.transaction() as transaction:
            yield lambda records: transaction.write(_own(records))


def _own(records: Sequence[Outgoing]) -> Sequence[Outgoing]:
    for record in records:
        if not record.topic.startswith(OWN_PREFIX):
            raise ForbiddenTopic(f"replay may not write to {record.topic}, only to {OWN_PREFIX}*")
    return records


def alerts_of(
    segment: Segment,
    baseline: ArmRef,
    candidate: ArmRef,
    result: ForcedResult,
    limits: Limits,
    now: datetime,
    mode: str = "forced",
    incumbent: ArmRef | None = None,
) -> list[Alert]:
    """`ReplayCompleted` always; each of the others by what it speaks of, whatever the other says.

    `DivergenceAlert` speaks of the candidate: when the verdict is `diverged` and, where the incumbent was asked too,
    the candidate diverges from what that answers today. `EnvironmentDriftAlert` when the incumbent of today diverges
    from the log.
    """
    judged = result.judged
    strata = _strata(judged)
    noise, noise_lo, noise_hi = _noise(judged)
    completed = ReplayCompleted(
        run_id=result.run_id,
        app=segment.app,
        mode=mode,
        baseline=baseline,
        candidate=candidate,
        verdict=result.verdict,
        stopped_because=result.stopped_because,
        alpha=limits.alpha,
        delta=limits.delta,
        events=len(segment.decisions),
        compared=judged.events_at_stop,
        paid_calls=result.paid_calls,
        overspent_calls=result.overspent_calls,
        cost_usd=result.cost_usd,
        coverage=result.coverage,
        e_value=judged.e_value,
        strata=strata,
        completed_at=now,
        noise=noise,
        noise_lo=noise_lo,
        noise_hi=noise_hi,
    )
    alerts: list[Alert] = [completed]
    if result.verdict == DIVERGED and (result.change is None or result.change.verdict == DIVERGED):
        alerts.append(_divergence(completed, judged, result, now))
    if incumbent is not None and result.environment is not None and result.environment.verdict == DIVERGED:
        alerts.append(_environment_drift(completed, incumbent, result.environment, result, now))
    return alerts


def _noise(judged: JudgeSummary) -> tuple[float | None, float | None, float | None]:
    """The noise floor of the verdict with both ends of its interval, where the run had one."""
    noise = next((level.noise for level in judged.levels if level.level == VERDICT), None)
    return (None, None, None) if noise is None else (noise.mismatch, *noise.interval)


def publish_alerts(
    writer: ReplayWriter, reader: LogReader, codec: Codec, alerts: Sequence[Alert]
) -> list[Coordinates]:
    """Put the alerts on `driftline.alerts`; where each lies. One that is there already is not repeated.

    1. begin, which ends whoever publishes for the same run; 2. see what is there; 3. write what is missing;
    4. commit. So two processes that finish one run together leave its alerts once, and one of them is told that it
    was overtaken.
    """
    records = {alert_id(alert): _record(alert, codec) for alert in alerts}
    with writer.transaction() as write:
        there = _placed(reader, set(records))
        missing = [id_ for id_ in records if id_ not in there]
        if missing:
            there |= dict(zip(missing, write([records[id_] for id_ in missing]), strict=True))
    return [there[id_] for id_ in records]


def _placed(reader: LogReader, wanted: set[str]) -> dict[str, Coordinates]:
    found: dict[str, Coordinates] = {}
    for record in reader.read(reader.span(ALERTS)):
        id_ = (dict(record.headers).get("ce_id") or b"").decode(errors="replace")
        if id_ in wanted:
            found.setdefault(id_, record.at)
    return found


def alert_id(alert: Alert) -> str:
    """The same run says the same only once; when lost calls were answered later it may come to another verdict."""
    verdict = f"/{alert.verdict}" if isinstance(alert, ReplayCompleted) else ""
    return f"{alert.run_id}/{alert.kind}{verdict}"


def _divergence(
    completed: ReplayCompleted, judged: JudgeSummary, result: ForcedResult, now: datetime
) -> DivergenceAlert:
    change, low, high = _verdict_change(judged)
    return DivergenceAlert(
        run_id=completed.run_id,
        app=completed.app,
        baseline=completed.baseline,
        candidate=completed.candidate,
        alpha=completed.alpha,
        e_value=completed.e_value,
        paid_calls=completed.paid_calls,
        change=change,
        interval_lo=low,
        interval_hi=high,
        named=tuple(stratum for stratum in completed.strata if stratum.named),
        examples=tuple(str(pair.logged.at) for pair in examples(result, EXAMPLES_MAX)),
        raised_at=now,
    )


def _environment_drift(
    completed: ReplayCompleted, incumbent: ArmRef, drift: Contrast, result: ForcedResult, now: datetime
) -> EnvironmentDriftAlert:
    change, low, high = _verdict_change(drift.judged)
    today = [replace(pair, candidate=pair.floor[0]) for pair in result.pairs if pair.floor]
    moved = examples(replace(result, judged=drift.judged, pairs=today), EXAMPLES_MAX)
    return EnvironmentDriftAlert(
        run_id=completed.run_id,
        app=completed.app,
        baseline=completed.baseline,
        incumbent=incumbent,
        alpha=completed.alpha,
        e_value=drift.judged.e_value,
        paid_calls=drift.calls,
        change=change,
        interval_lo=low,
        interval_hi=high,
        named=tuple(stratum for stratum in _strata(drift.judged) if stratum.named),
        examples=tuple(str(pair.logged.at) for pair in moved),
        raised_at=now,
    )


def _strata(judged: JudgeSummary) -> tuple[StratumChange, ...]:
    return tuple(_change(stratum) for stratum in judged.strata if stratum.level in EXIT_FAMILY)


def _verdict_change(judged: JudgeSummary) -> tuple[float, float, float]:
    """Net change of the acceptance rate at the stop, and its interval."""
    verdict = next(level for level in judged.levels if level.level == VERDICT)
    return verdict.change_at_stop or 0.0, *verdict.interval_at_stop


def _change(stratum: StratumSummary) -> StratumChange:
    boundary, _, stream = stratum.stratum.partition("/")
    low, high = stratum.interval_at_stop
    return StratumChange(
        boundary=boundary,
        stream=stream,
        level=stratum.level,
        events=stratum.events_at_stop,
        change=stratum.change_at_stop,
        interval_lo=low,
        interval_hi=high,
        e_value=stratum.e_value or 0.0,
        named=stratum.named,
    )


def _record(alert: Alert, codec: Codec) -> Outgoing:
    data: dict[str, Any] = alert.model_dump()
    time = alert.completed_at if isinstance(alert, ReplayCompleted) else alert.raised_at
    envelope = Envelope(alert_id(alert), f"driftline.{alert.kind}", "driftline:replay", alert.app, time)
    value = codec.encode(ALERTS, f"driftline.{alert.kind}", data)
    return Outgoing(ALERTS, alert.app.encode(), value, epoch_ms(time), to_headers(envelope))
