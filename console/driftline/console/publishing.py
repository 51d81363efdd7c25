"""Putting what a command found onto `driftline.alerts`."""

from __future__ import annotations

from collections.abc import Sequence

from driftline.console.common import Log
from driftline.log import Coordinates, TransactionalWriter
from driftline.replay.alerting import TRANSACTIONAL_ID_PREFIX, ReplayWriter, publish_alerts
from driftline.schemas import Alert


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
