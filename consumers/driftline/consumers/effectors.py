"""Effectors: the only code of an app that changes the outside world.

An effector is told the events that the app's boundaries have committed, and what its spine has answered to who asked
for a transition, in order per workflow. It does what they say: at least once, since no transaction spans Kafka and
the world. The event's id is its idempotency key: what is asked twice under one key must be done once. What became of
it returns to the log as a fact, exactly once.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from driftline.consumers.boundary import Boundary, OnExhausted
from driftline.consumers.machine_rows import ANSWERS
from driftline.schemas import DriftlineError, Event, UsageError
from driftline.schemas.names import EFFECT_REPORTED, ESCALATED


@dataclass(frozen=True, slots=True)
class EffectResult:
    """What an effect led to."""

    data: Mapping[str, Any] = field(default_factory=dict)
    """For the log; JSON data, or the fields of the effector's own record."""
    detail: str = ""
    """One sentence for people; an own record has no place for it."""


class EffectFailed(DriftlineError):
    """Raised by an effector: the outside world did not do it.

    Attributes:
        retryable: Whether the same may succeed in a while. Otherwise the failure is reported on the log, for good.
    """

    def __init__(self, message: str, retryable: bool = False) -> None:
        super().__init__(message)
        self.retryable = retryable


class Act(Protocol):
    """What an effector does for one event.

    Args:
        event: Committed by a boundary of the app, or by its spine.
        idempotency_key: Equal whenever the same event is acted on again, after a crash or a rebalance.

    Returns:
        What to report; a mapping stands for `EffectResult(data)`.

    Raises:
        EffectFailed: It could not be done.
    """

    def __call__(self, event: Event, idempotency_key: str, /) -> Mapping[str, Any] | EffectResult:
        """Do it. Must end well within the group's five minutes."""


@dataclass(frozen=True)
class Effector:
    """What an app does in the outside world when its boundaries, or its spine, have committed something.

    Args:
        name: Unique in the app.
        on: Record names that boundaries of the app propose, or `driftline.Escalated`; on the state-machine spine also
            `driftline.TransitionAccepted` and `driftline.TransitionRejected`, which tell what became of a request.
            Facts from outside are never acted on, whatever their type.
        act: Does it. Anything it raises but `EffectFailed` is a fault of its own and stops the effector.
        result: Record name of the fact that says it was done. A failure is a `driftline.EffectReported` always.

    Raises:
        UsageError: The name cannot be a group's, or there is nothing to act on.
    """

    name: str
    on: Sequence[str]
    act: Act
    result: str = EFFECT_REPORTED

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9_-]{0,99}", self.name):
            raise UsageError(f"{self.name!r} cannot name an effector", "use lower-case letters, digits, - and _")
        if isinstance(self.on, str) or not self.on:
            raise UsageError(f"effector {self.name}: `on` is a list of the record names that it acts on")

    @property
    def results(self) -> tuple[str, ...]:
        """Every record name that it may report with."""
        return tuple(dict.fromkeys((self.result, EFFECT_REPORTED)))


def check_effectors(
    app: str, boundaries: Sequence[Boundary], effectors: Sequence[Effector], *, answers: bool
) -> None:
    """Prove that every effector has something to act on, and a name of its own.

    Args:
        app: Name.
        boundaries: Of the app.
        effectors: Of the app.
        answers: Whether the app's spine answers requests for transitions.

    Raises:
        UsageError: Two of one name, or one on a record that neither a boundary nor the spine commits.
    """
    names = [effector.name for effector in effectors]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise UsageError(f"app {app}: two effectors with the name {', '.join(sorted(twice))}")
    committed = _committed(boundaries)
    for effector in effectors:
        for record in effector.on:
            if record in ANSWERS and not answers:
                raise UsageError(
                    f"app {app}: effector {effector.name} acts on {record}, which the event log never commits",
                    "requests for transitions are answered on the state-machine spine alone",
                )
            if record not in committed and record not in ANSWERS:
                raise UsageError(
                    f"app {app}: effector {effector.name} acts on {record}, which no boundary commits",
                    f"name some of {', '.join(sorted(committed)) or 'what a boundary proposes'}",
                )


def _committed(boundaries: Sequence[Boundary]) -> Collection[str]:
    """Every record that a boundary may commit."""
    escalating = {ESCALATED for boundary in boundaries if boundary.on_exhausted is OnExhausted.ESCALATE}
    return {record for boundary in boundaries for record in boundary.proposes} | escalating
