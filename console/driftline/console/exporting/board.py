"""The latest of each alert: what `driftline.alerts` says of now, folded. Pure: no Kafka, no clock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from driftline.schemas import (
    Alert,
    ArmRef,
    DivergenceAlert,
    EnvironmentDriftAlert,
    MigrationAlert,
    ReplayCompleted,
    StratumChange,
)

K = TypeVar("K")
V = TypeVar("V")

ReplayKey = tuple[str, str, str]
"""App, mode, candidate as `candidate_label` says it."""

HASH_DIGITS = 8
"""Of a prompt's hash in a label: enough to tell the prompts of one model apart."""


@dataclass(frozen=True, slots=True)
class LabelLimits:
    """How many label sets are shown at most; what a model, an app or a stream is called is not ours to bound.

    Attributes:
        replays: Of (app, mode, candidate); the one that is told of longest ago goes first.
        strata: Of (boundary, stream, level) within one replay; the named ones stay, then those with most pairs.
        others: Of each other kind: (app, mode), (app, incumbent), (app, boundary).
    """

    replays: int = 50
    strata: int = 30
    others: int = 100


@dataclass(frozen=True, slots=True)
class ReplaySeen:
    """The latest replay of one app, mode and candidate."""

    completed: ReplayCompleted
    strata: Sequence[StratumChange]
    """Those that are shown."""
    divergence: DivergenceAlert | None = None
    """Its own alert, where it diverged."""


class Latest(Generic[K, V]):
    """The latest value of each key, of at most so many keys; the one that was put longest ago makes room."""

    def __init__(self, keys_max: int) -> None:
        self._keys_max = keys_max
        self._held: dict[K, V] = {}

    def put(self, key: K, value: V) -> V | None:
        """Hold the value; the one that had to make room for it, if any."""
        self._held.pop(key, None)
        self._held[key] = value
        if len(self._held) <= self._keys_max:
            return None
        return self._held.pop(next(iter(self._held)))

    def snapshot(self) -> dict[K, V]:
        """A copy, oldest first."""
        return dict(self._held)

    def get(self, key: K) -> V | None:
        """What is held of the key."""
        return self._held.get(key)


class AlertBoard:
    """Folds alerts in the order of the log; later ones of the same labels win.

    A later replay of the same app, mode and candidate wins; `candidate_label` says which candidates are the same.

    Not for several threads; `snapshot` is what others may hold.

    Args:
        limits: Bounds on the label sets.
    """

    def __init__(self, limits: LabelLimits | None = None) -> None:
        self._limits = limits or LabelLimits()
        self._replays: Latest[ReplayKey, ReplaySeen] = Latest(self._limits.replays)
        self._succeeded: Latest[tuple[str, str], float] = Latest(self._limits.others)
        self._drifts: Latest[tuple[str, str], EnvironmentDriftAlert] = Latest(self._limits.others)
        self._migrations: Latest[tuple[str, str], MigrationAlert] = Latest(self._limits.others)
        self._left_out = 0

    def take(self, alert: Alert) -> None:
        """Fold one alert in."""
        match alert:
            case ReplayCompleted():
                self._complete(alert)
            case DivergenceAlert():
                self._diverge(alert)
            case EnvironmentDriftAlert():
                self._count(self._drifts.put((alert.app, alert.incumbent.model), alert))
            case MigrationAlert():
                for boundary in alert.boundaries:
                    self._count(self._migrations.put((alert.app, boundary), alert))

    def snapshot(self) -> BoardSnapshot:
        """What it says now, for other threads."""
        return BoardSnapshot(
            self._replays.snapshot(),
            self._succeeded.snapshot(),
            self._drifts.snapshot(),
            self._migrations.snapshot(),
            self._left_out,
        )

    def _complete(self, alert: ReplayCompleted) -> None:
        strata = {(one.boundary, one.stream, one.level): one for one in alert.strata}
        shown = sorted(strata.values(), key=lambda one: (not one.named, -one.events))[: self._limits.strata]
        self._left_out += len(strata) - len(shown)
        evicted = self._replays.put(_key(alert), ReplaySeen(alert, shown))
        self._left_out += 0 if evicted is None else 1 + len(evicted.strata)
        latest = max(alert.completed_at.timestamp(), self._succeeded.get((alert.app, alert.mode)) or 0.0)
        self._count(self._succeeded.put((alert.app, alert.mode), latest))

    def _diverge(self, alert: DivergenceAlert) -> None:
        """The alert follows the `ReplayCompleted` of its run, and has no mode of its own."""
        for key, seen in self._replays.snapshot().items():
            if seen.completed.run_id == alert.run_id:
                self._replays.put(key, replace(seen, divergence=alert))

    def _count(self, evicted: object | None) -> None:
        self._left_out += evicted is not None


@dataclass(frozen=True, slots=True)
class BoardSnapshot:
    """What a board said at one moment."""

    replays: Mapping[ReplayKey, ReplaySeen]
    succeeded: Mapping[tuple[str, str], float]
    """Unix time of the last completed replay, by app and mode."""
    drifts: Mapping[tuple[str, str], EnvironmentDriftAlert]
    """By app and incumbent."""
    migrations: Mapping[tuple[str, str], MigrationAlert]
    """By app and boundary."""
    left_out: int
    """Label sets that the limits kept out, or put out, since the beginning of the topic."""


def candidate_label(baseline: ArmRef, candidate: ArmRef) -> str:
    """The candidate's model; where it has parameters of its own also `?`, and where it has a prompt of its own `#`,
    each with the first digits of their hash."""
    parameters = f"?{candidate.parameters_hash[:HASH_DIGITS]}" if candidate.parameters_hash else ""
    prompt = f"#{candidate.prompt_hash[:HASH_DIGITS]}" if candidate.prompt_hash != baseline.prompt_hash else ""
    return f"{candidate.model}{parameters}{prompt}"


def _key(alert: ReplayCompleted) -> ReplayKey:
    return alert.app, alert.mode, candidate_label(alert.baseline, alert.candidate)
