"""Putting what a command found onto `driftline.alerts`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from driftline.console.common import Log, now
from driftline.log import Coordinates, TransactionalWriter
from driftline.replay.alerting import TRANSACTIONAL_ID_PREFIX, ReplayWriter, publish_alerts
from driftline.replay.arms import LOG_ARM
from driftline.replay.identity import RUN_ID_DIGITS
from driftline.replay.result import Limits
from driftline.schemas import Alert, ArmRef, ReplayCompleted, canonical_json, content_hash
from driftline.schemas.alerts import NIGHTLY_MODE


def publish_all(log: Log, run_id: str, alerts: Sequence[Alert]) -> dict[str, Coordinates]:
    """Publish the alerts of one run; where each lies, by kind. One that is there already is not repeated.

    Raises:
        UsageError: Another process publishes for the same run.
        EnvironmentUnreachable: A broker or the registry does not answer.
    """
    writer = TransactionalWriter(log.settings, f"{TRANSACTIONAL_ID_PREFIX}.{run_id}")
    try:
        placed = publish_alerts(ReplayWriter(writer), log.reader, log.codec, alerts)
    finally:
        writer.close()
    return {alert.kind: at for alert, at in zip(alerts, placed, strict=True)}


def publish_night(
    log: Log, app: str, night: str, ends_at: datetime, decisions: int, verdict: str, limits: Limits
) -> Coordinates:
    """Say on `driftline.alerts` that a night was counted whole, and what today's rules say of it; where that lies.

    It is no test: its e-value is 1 whatever the verdict.

    Args:
        log: Where it is said.
        app: Whose night it is.
        night: Its date.
        ends_at: When it was over: an old night that is caught up does not pass for the last one.
        decisions: How many were made in it.
        verdict: Of today's rules.
        limits: What the record says of alpha and delta.

    Raises:
        UsageError: Another process publishes for the same night.
        EnvironmentUnreachable: A broker or the registry does not answer.
    """
    run_id = content_hash(canonical_json({"night": night, "app": app}))[:RUN_ID_DIGITS]
    nothing = ArmRef(model=LOG_ARM, prompt_hash=LOG_ARM, verifier_version=LOG_ARM)
    completed = ReplayCompleted(
        run_id=run_id,
        app=app,
        mode=NIGHTLY_MODE,
        baseline=nothing,
        candidate=nothing,
        verdict=verdict,
        stopped_because="segment_ended",
        alpha=limits.alpha,
        delta=limits.delta,
        events=decisions,
        compared=decisions,
        paid_calls=0,
        overspent_calls=0,
        cost_usd=0.0,
        coverage=1.0,
        e_value=1.0,
        strata=(),
        completed_at=now(),
        night_ends_at=ends_at,
    )
    return publish_all(log, run_id, [completed])[completed.kind]
