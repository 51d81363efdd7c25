"""The latest of each alert: what `driftline.alerts` says of now, folded. Pure: no Kafka, no clock."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
from driftline.schemas.alerts import NIGHTLY_MODE

K = TypeVar("K")
V = TypeVar("V")

ReplayKey = tuple[str, str, str]
"""App, mode, candidate as `candidate_label` says it."""

HASH_DIGITS = 8
"""Of a prompt's hash in a label: enough to tell the prompts of one model apart."""
NO_CANDIDATES = (NIGHTLY_MODE, "incumbent")
"""Modes of which an app has few, however many candidates it tries."""
DIVERGED = "diverged"
ONE_GO_S = 12 * 3600.0
"""Nights that are counted within so long of each other may have come in one go, faster than they are scraped."""


@dataclass(frozen=True, slots=True)
class LabelLimits:
    """How many label sets are shown at most; what a model, an app or a stream is called is not ours to bound.

    Attributes:
        candidates: Of (app, mode, candidate); of those that have not diverged the one that is told of longest ago
            goes first. About 20 series each, and six for each of its strata.
        strata: Of (boundary, stream, level) within one replay; the named ones stay, then those with most pairs.
        others: Of each other kind: (app, mode), (app, incumbent), (app, boundary), nights and incumbents. It is there
            for names that run wild, not for apps: what makes room is what was told of longest ago, as a dead job is.
    """

    candidates: int = 100
    strata: int = 30
    others: int = 500


@dataclass(frozen=True, slots=True)
class ReplaySeen:
    """The latest replay of one app, mode and candidate."""

    completed: ReplayCompleted
    strata: Sequence[StratumChange]
    """Those that are shown."""
    divergence: DivergenceAlert | None = None
    """Its own alert, where it diverged."""


class Latest(Generic[K, V]):
    """The latest value of each key, of at most so many keys.

    The one that was put longest ago makes room, and one that is `spared` only where no other is left.
    """

    def __init__(self, keys_max: int, spared: Callable[[V], bool] = lambda _: False) -> None:
        self._keys_max = keys_max
        self._spared = spared
        self._held: dict[K, V] = {}

    def put(self, key: K, value: V) -> V | None:
        """Hold the value; the one that had to make room for it, if any."""
        self._held.pop(key, None)
        evicted = self._make_room() if len(self._held) >= self._keys_max else None
        self._held[key] = value
        return evicted

    def _make_room(self) -> V:
        unspared = (key for key, value in self._held.items() if not self._spared(value))
        return self._held.pop(next(unspared, next(iter(self._held))))

    def snapshot(self) -> dict[K, V]:
        """A copy, oldest first."""
        return dict(self._held)

    def drop(self, key: K) -> None:
        """Hold nothing of the key."""
        self._held.pop(key, None)

    def get(self, key: K) -> V | None:
        """What is held of the key."""
        return self._held.get(key)


class AlertBoard:
    """Folds alerts in the order of the log; later ones of the same labels win.

    A later replay of the same app, mode and candidate wins; `candidate_label` says which candidates are the same.
    An empty night tells that it was counted, and changes nothing else.

    Not for several threads; `snapshot` is what others may hold.

    Args:
        limits: Bounds on the label sets.
    """

    def __init__(self, limits: LabelLimits | None = None) -> None:
        self._limits = limits or LabelLimits()
        self._candidates: Latest[ReplayKey, ReplaySeen] = Latest(self._limits.candidates, _has_diverged)
        self._others: Latest[ReplayKey, ReplaySeen] = Latest(self._limits.others)
        self._night_ends: Latest[str, float] = Latest(self._limits.others)
        self._nights_diverged: Latest[str, ReplayCompleted] = Latest(self._limits.others)
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
            {**self._candidates.snapshot(), **self._others.snapshot()},
            self._night_ends.snapshot(),
            self._nights_diverged.snapshot(),
            self._succeeded.snapshot(),
            self._drifts.snapshot(),
            self._migrations.snapshot(),
            self._left_out,
        )

    def _complete(self, alert: ReplayCompleted) -> None:
        is_night = alert.mode == NIGHTLY_MODE
        if is_night:
            self._count_night(alert)
        if not is_night or alert.events:
            self._show(alert)
        if not self._is_old_night(alert):
            latest = max(alert.completed_at.timestamp(), self._succeeded.get((alert.app, alert.mode)) or 0.0)
            self._count(self._succeeded.put((alert.app, alert.mode), latest))

    def _show(self, alert: ReplayCompleted) -> None:
        strata = {(one.boundary, one.stream, one.level): one for one in alert.strata}
        shown = sorted(strata.values(), key=lambda one: (not one.named, -one.events))[: self._limits.strata]
        self._left_out += len(strata) - len(shown)
        evicted = self._of(alert.mode).put(_key(alert), ReplaySeen(alert, shown))
        self._left_out += 0 if evicted is None else 1 + len(evicted.strata)

    def _count_night(self, alert: ReplayCompleted) -> None:
        """A night in which nothing was decided says nothing of the rules."""
        before = self._nights_diverged.get(alert.app)
        if alert.verdict == DIVERGED:
            self._count(self._nights_diverged.put(alert.app, alert))
        elif before is not None and alert.events and _ends_later(alert, before):
            self._nights_diverged.drop(alert.app)
        if alert.night_ends_at is not None:
            newest = max(alert.night_ends_at.timestamp(), self._night_ends.get(alert.app) or 0.0)
            self._count(self._night_ends.put(alert.app, newest))

    def _is_old_night(self, alert: ReplayCompleted) -> bool:
        """Whether a later night of the app was counted before: catching an old one up makes up for none."""
        if alert.night_ends_at is None:
            return False
        return alert.night_ends_at.timestamp() < (self._night_ends.get(alert.app) or 0.0)

    def _of(self, mode: str) -> Latest[ReplayKey, ReplaySeen]:
        return self._others if mode in NO_CANDIDATES else self._candidates

    def _diverge(self, alert: DivergenceAlert) -> None:
        """The alert follows the `ReplayCompleted` of its run, and has no mode of its own."""
        for held in (self._candidates, self._others):
            for key, seen in held.snapshot().items():
                if seen.completed.run_id == alert.run_id:
                    held.put(key, replace(seen, divergence=alert))

    def _count(self, evicted: object | None) -> None:
        self._left_out += evicted is not None


@dataclass(frozen=True, slots=True)
class BoardSnapshot:
    """What a board said at one moment."""

    replays: Mapping[ReplayKey, ReplaySeen]
    """Of the mode `nightly` the last night in which something was decided."""
    night_ends: Mapping[str, float]
    """Unix time at which the newest night that was counted was over, by app."""
    nights_diverged: Mapping[str, ReplayCompleted]
    """The last night that diverged, by app, until a later one in which something was decided does not."""
    succeeded: Mapping[tuple[str, str], float]
    """Unix time of the last completed replay, by app and mode; of nights that of the newest."""
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


def _has_diverged(seen: ReplaySeen) -> bool:
    return seen.completed.verdict == DIVERGED


def _ends_later(alert: ReplayCompleted, diverged: ReplayCompleted) -> bool:
    """Whether a night ends what one that diverged began: a later night, that did not come in one go with it."""
    if (alert.completed_at - diverged.completed_at).total_seconds() < ONE_GO_S:
        return False
    return (alert.night_ends_at or alert.completed_at) > (diverged.night_ends_at or diverged.completed_at)
