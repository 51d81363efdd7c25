"""From a committed event to the fact that says what became of its effect. No Kafka, file or clock of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import stamina

from driftline.consumers.effectors import EffectFailed, Effector, EffectResult
from driftline.schemas import (
    DriftlineError,
    EnvironmentUnreachable,
    Event,
    NotCanonical,
    UsageError,
    canonical_json,
    to_json_data,
)
from driftline.schemas.effects import EffectReported, EffectStatus
from driftline.schemas.ids import derive_id
from driftline.schemas.names import EFFECT_REPORTED

RETRY_S_MAX = 60.0
"""An effect is tried again for so long; nothing polls meanwhile, so it stays well under `POLL_INTERVAL_MS_MAX`."""
RETRY_WAIT_S_MAX = 5.0
"""Between two tries; bounds how late a stop is seen while the outside world is down."""


class Stopped(Exception):
    """A stop was asked for while an effect waited to be tried again; the event is left for the next start."""


@dataclass(frozen=True, slots=True)
class Effect:
    """What became of one event."""

    fact: Event
    """What is put onto the log."""
    done: bool
    """Otherwise it failed for good."""


class Acting:
    """Acts on events one by one.

    Args:
        app: App name.
        effector: Acts.
        now: The wall clock, for `reported_at` alone.
    """

    def __init__(self, app: str, effector: Effector, now: Callable[[], datetime]) -> None:
        self.calls = 0
        """Calls of the effector, tries again included."""
        self._app = app
        self._effector = effector
        self._now = now

    def outcome(self, event: Event, stop: Callable[[], bool] = lambda: False) -> Effect:
        """Act on an event; what became of it.

        Raises:
            Stopped: `stop()` came to be true while it failed.
            EnvironmentUnreachable: It still failed after `RETRY_S_MAX`, though it may succeed later.
            UsageError: The effector raised something else, or returned what cannot be reported.
        """
        try:
            result = self._act(event, stop)
        except EffectFailed as error:
            if not error.retryable:
                return Effect(self._reported(event, EffectStatus.FAILED, EffectResult(detail=error.message)), False)
            if stop():
                raise Stopped from error
            raise EnvironmentUnreachable(
                f"effector {self._effector.name} gave up on {_name(event)}: {error.message}",
                "start it again later: it goes on with this event, under the same key",
            ) from error
        if self._effector.result == EFFECT_REPORTED:
            return Effect(self._reported(event, EffectStatus.DONE, result), True)
        return Effect(self._fact(event, self._effector.result, dict(result.data)), True)

    def _act(self, event: Event, stop: Callable[[], bool]) -> EffectResult:
        """Call the effector, again where it says that this may help."""

        def again(error: Exception) -> bool:
            return isinstance(error, EffectFailed) and error.retryable and not stop()

        try:
            for attempt in stamina.retry_context(
                on=again, attempts=None, timeout=RETRY_S_MAX, wait_max=RETRY_WAIT_S_MAX
            ):
                with attempt:
                    self.calls += 1
                    return self._result(event, self._effector.act(event, event.id))
        except DriftlineError:
            raise
        except Exception as error:
            raise self._fault(event, repr(error)) from error
        raise AssertionError("a retry ends with a result or an error")

    def _result(self, event: Event, found: Any) -> EffectResult:
        if isinstance(found, EffectResult):
            return found
        if isinstance(found, Mapping):
            return EffectResult(found)
        raise self._fault(event, f"it returned a {type(found).__name__}, not a mapping or an EffectResult")

    def _reported(self, event: Event, status: EffectStatus, result: EffectResult) -> Event:
        """The fact in driftline's own record."""
        try:
            data = canonical_json(to_json_data(result.data))
        except NotCanonical as error:
            raise self._fault(event, f"what it returned cannot be reported: {error.message}") from error
        said = EffectReported(
            effector=self._effector.name, status=status, detail=result.detail, data=data, reported_at=self._now()
        )
        return self._fact(event, EFFECT_REPORTED, said.model_dump())

    def _fact(self, event: Event, record: str, data: Mapping[str, Any]) -> Event:
        """A fact whose cause is the event: its id is derived, its time is its cause's."""
        return Event(
            id=derive_id(self._app, self._effector.name, event.id),
            type=record,
            source=f"driftline:{self._app}/effector/{self._effector.name}",
            workflow=event.workflow,
            time=event.time,
            record=record,
            data=data,
            causation_id=event.id,
            traceparent=event.traceparent,
        )

    def _fault(self, event: Event, why: str) -> UsageError:
        return UsageError(
            f"effector {self._effector.name} fails on {_name(event)}: {why}",
            "mend it: it goes on with this event, under the same key",
        )


def _name(event: Event) -> str:
    return f"the {event.type} {event.id} of {event.workflow}"
