"""The exporter's series, made anew for every scrape, so that what is gone is shown no longer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from driftline.console.exporting.board import AlertBoard, BoardSnapshot
from driftline.console.exporting.standings import AppStanding
from driftline.schemas import DivergenceAlert, EnvironmentDriftAlert, MigrationAlert, ReplayCompleted, StratumChange
from driftline.schemas.alerts import NIGHTLY_MODE

K = TypeVar("K", bound=tuple[str, ...])
V = TypeVar("V")

VERDICTS = ("diverged", "equivalent", "inconclusive")
STOPPED_BECAUSE = ("alarm", "equivalent", "segment_ended", "budget_ended", "coverage", "interrupted")

_REPLAY = ("app", "mode", "candidate")
_STRATUM = (*_REPLAY, "boundary", "stream", "level")
_DRIFT = ("app", "incumbent")
_MIGRATION = ("app", "boundary")


@dataclass(frozen=True, slots=True)
class LogState:
    """What the exporter knows at one moment."""

    up: bool = False
    """Whether Kafka and the registry answered when they were asked last."""
    board: BoardSnapshot | None = None
    """None until the alerts were read once."""
    standings: Mapping[str, AppStanding] = field(default_factory=dict)
    """By app; those that have no topics yet are missing."""
    apps: tuple[str, ...] = ()
    """Those that are to have nights: one that never had any shows the time 0, so that its absence can be told."""
    budgets: Mapping[str, float] = field(default_factory=dict)
    """Dollars that a night of an app may cost, by app; those without a budget are missing."""
    unreadable: int = 0
    """Records of the alerts topic that no retry can decode."""


_OF_REPLAY: dict[str, tuple[str, Callable[[ReplayCompleted], float | None]]] = {
    "driftline_replay_e_value": ("Evidence against no change, at the stop.", lambda r: r.e_value),
    "driftline_replay_coverage_ratio": ("Share of the planned decisions that were compared.", lambda r: r.coverage),
    "driftline_replay_planned_decisions": ("Decisions in the segment.", lambda r: r.events),
    "driftline_replay_compared_pairs": ("Pairs that entered the test before it stopped.", lambda r: r.compared),
    "driftline_replay_paid_calls": ("Calls whose answers the verdict rests on.", lambda r: r.paid_calls),
    "driftline_replay_overspent_calls": ("Calls in flight when the test stopped.", lambda r: r.overspent_calls),
    "driftline_replay_cost_dollars": ("Dollars; missing where a price is unknown.", lambda r: r.cost_usd),
    "driftline_replay_noise_ratio": ("Share of the incumbent's own runs whose verdicts differ.", lambda r: r.noise),
    "driftline_replay_noise_lower_ratio": ("Lower end of its interval.", lambda r: r.noise_lo),
    "driftline_replay_noise_upper_ratio": ("Upper end of its interval.", lambda r: r.noise_hi),
    "driftline_replay_completed_timestamp_seconds": ("Unix time of it.", lambda r: r.completed_at.timestamp()),
}
"""Of the latest replay of each app, mode and candidate."""

_OF_DIVERGENCE: dict[str, tuple[str, Callable[[DivergenceAlert], float]]] = {
    "driftline_replay_divergence_ratio": ("Net change of the acceptance rate.", lambda d: d.change),
    "driftline_replay_divergence_lower_ratio": ("Lower end of its confidence sequence.", lambda d: d.interval_lo),
    "driftline_replay_divergence_upper_ratio": ("Upper end of its confidence sequence.", lambda d: d.interval_hi),
}
"""Of a replay that diverged."""

_OF_STRATUM: dict[str, tuple[str, Callable[[StratumChange], float | None]]] = {
    "driftline_stratum_change_ratio": ("Mean paired change of the level.", lambda s: s.change),
    "driftline_stratum_change_lower_ratio": ("Lower end of its confidence sequence.", lambda s: s.interval_lo),
    "driftline_stratum_change_upper_ratio": ("Upper end of its confidence sequence.", lambda s: s.interval_hi),
    "driftline_stratum_e_value": ("Evidence against no change.", lambda s: s.e_value),
    "driftline_stratum_pairs": ("Pairs that entered the test.", lambda s: s.events),
    "driftline_stratum_named_state": ("1 where e-BH names the stratum.", lambda s: s.named),
}

_OF_DRIFT: dict[str, tuple[str, Callable[[EnvironmentDriftAlert], float]]] = {
    "driftline_environment_drift_ratio": ("Change of the acceptance rate since the log.", lambda d: d.change),
    "driftline_environment_drift_lower_ratio": ("Lower end of its confidence sequence.", lambda d: d.interval_lo),
    "driftline_environment_drift_upper_ratio": ("Upper end of its confidence sequence.", lambda d: d.interval_hi),
    "driftline_environment_drift_e_value": ("Evidence against no drift.", lambda d: d.e_value),
    "driftline_environment_drift_paid_calls": ("Calls that the evidence cost.", lambda d: d.paid_calls),
    "driftline_environment_drift_timestamp_seconds": (
        "Unix time of the last alert.",
        lambda d: d.raised_at.timestamp(),
    ),
}

_OF_NIGHT_DIVERGED: dict[str, tuple[str, Callable[[ReplayCompleted], float | None]]] = {
    "driftline_nightly_diverged_timestamp_seconds": (
        "Unix time at which the last night was counted that today's rules judge otherwise.",
        lambda r: r.completed_at.timestamp(),
    ),
    "driftline_nightly_diverged_night_end_timestamp_seconds": (
        "Unix time at which that night was over.",
        lambda r: None if r.night_ends_at is None else r.night_ends_at.timestamp(),
    ),
    "driftline_nightly_diverged_decisions": ("Decisions of that night.", lambda r: r.events),
}
"""Missing where none diverged, or a later night did not."""

_OF_NIGHT_END: dict[str, tuple[str, Callable[[float], float]]] = {
    "driftline_nightly_newest_night_end_timestamp_seconds": (
        "Unix time at which the newest night that was counted was over.",
        float,
    ),
}

_OF_MIGRATION: dict[str, tuple[str, Callable[[MigrationAlert], float]]] = {
    "driftline_migration_advised_timestamp_seconds": (
        "Unix time of the last advice to move from P3 to P5.",
        lambda m: m.raised_at.timestamp(),
    ),
    "driftline_migration_confirmed_runs": ("Divergences that the advice rests on.", lambda m: len(m.runs)),
}

_OF_BUDGET: dict[str, tuple[str, Callable[[float], float]]] = {
    "driftline_nightly_budget_usd": ("Dollars that a night of the app may cost, all its runs together.", float),
}

_OF_APP: dict[str, tuple[str, Callable[[AppStanding], float]]] = {
    "driftline_group_lag_records": ("Offsets that the app's group has not finished.", lambda s: s.lag),
    "driftline_dead_topic_offsets": ("Offsets of the dead topic; bounds its records.", lambda s: s.dead),
}


class ExporterCollector(Collector):
    """Shows what was told last. `show` is the watcher's, `collect` may be called from every thread."""

    def __init__(self) -> None:
        self._state = LogState()

    def show(self, state: LogState) -> None:
        """Show this from now on."""
        self._state = state  # one assignment: a scrape sees the old state or the new one, whole

    def describe(self) -> Iterable[Metric]:
        """Nothing, so that registering does not collect."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Every series; the names are all there even when nothing was read yet."""
        state = self._state
        board = state.board or AlertBoard().snapshot()
        yield _single("driftline_exporter_up", "1 while Kafka and the registry answer.", state.up)
        left_out = None if state.board is None else state.board.left_out
        yield _counter("driftline_exporter_left_out_series", "Label sets kept out by the limits.", left_out)
        yield _counter("driftline_exporter_unreadable_alerts", "Alerts that do not decode.", state.unreadable)
        yield _last_success(state)
        yield from _gauges(_OF_BUDGET, ("app",), {(app,): usd for app, usd in state.budgets.items()})
        replays = {key: seen.completed for key, seen in board.replays.items()}
        yield from _gauges(_OF_REPLAY, _REPLAY, replays)
        yield _one_hot("driftline_replay_verdict_state", "verdict", VERDICTS, replays, lambda r: r.verdict)
        yield _one_hot(
            "driftline_replay_stopped_state", "reason", STOPPED_BECAUSE, replays, lambda r: r.stopped_because
        )
        yield from _gauges(_OF_DIVERGENCE, _REPLAY, dict(_divergences(board)))
        yield from _gauges(_OF_STRATUM, _STRATUM, dict(_strata(board)))
        yield from _gauges(_OF_NIGHT_END, ("app",), {(app,): at_s for app, at_s in board.night_ends.items()})
        diverged = {(app,): night for app, night in board.nights_diverged.items()}
        yield from _gauges(_OF_NIGHT_DIVERGED, ("app",), diverged)
        yield from _gauges(_OF_DRIFT, _DRIFT, board.drifts)
        yield from _gauges(_OF_MIGRATION, _MIGRATION, board.migrations)
        yield from _gauges(_OF_APP, ("app",), {(app,): standing for app, standing in state.standings.items()})


def _gauges(
    families: Mapping[str, tuple[str, Callable[[V], float | None]]],
    labels: tuple[str, ...],
    found: Mapping[K, V],
) -> Iterator[Metric]:
    """A family for each name, with a sample for each label set that has a value."""
    for name, (what, value_of) in families.items():
        family = GaugeMetricFamily(name, what, labels=labels)
        for values, subject in found.items():
            value = value_of(subject)
            if value is not None:
                family.add_metric(values, value)
        yield family


def _one_hot(
    name: str,
    label: str,
    states: tuple[str, ...],
    replays: Mapping[tuple[str, str, str], ReplayCompleted],
    state_of: Callable[[ReplayCompleted], str],
) -> Metric:
    family = GaugeMetricFamily(name, f"1 for the {label} of the latest replay.", labels=(*_REPLAY, label))
    for key, completed in replays.items():
        for state in states:
            family.add_metric((*key, state), state_of(completed) == state)
    return family


def _last_success(state: LogState) -> Metric:
    """0 for an app that is to have nights and never completed one; nothing while the alerts are unread."""
    family = GaugeMetricFamily(
        "driftline_replay_last_success_timestamp_seconds",
        "Unix time of the last completed replay, of nights that of the newest, 0 for none ever.",
        labels=("app", "mode"),
    )
    if state.board is not None:
        never = {(app, NIGHTLY_MODE): 0.0 for app in state.apps}
        for values, at_s in {**never, **state.board.succeeded}.items():
            family.add_metric(values, at_s)
    return family


def _divergences(board: BoardSnapshot) -> Iterator[tuple[tuple[str, ...], DivergenceAlert]]:
    for key, seen in board.replays.items():
        if seen.divergence is not None:
            yield key, seen.divergence


def _strata(board: BoardSnapshot) -> Iterator[tuple[tuple[str, ...], StratumChange]]:
    for key, seen in board.replays.items():
        for one in seen.strata:
            yield (*key, one.boundary, one.stream, one.level), one


def _single(name: str, what: str, value: float) -> Metric:
    return GaugeMetricFamily(name, what, value=value)


def _counter(name: str, what: str, value: int | None) -> Metric:
    """Without a sample while nobody knows: one that began at 0 each time would seem to have grown."""
    return CounterMetricFamily(name, what, value=value)
