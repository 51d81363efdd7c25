"""What the exporter shows: the latest of each alert, under few labels, and never more than it may."""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from driftline.console.exporter_command import make_registry
from driftline.console.exporting import AlertBoard, AppStanding, ExporterCollector, LabelLimits
from driftline.console.exporting.collector import LogState
from driftline.console.exporting.nights import read_nights
from driftline.console.exporting.watcher import Watcher, _Fold
from driftline.console.health import Health
from driftline.console.logs import LogFormat, set_up_logs
from driftline.log import Coordinates, Record, Settings
from driftline.schemas import (
    Alert,
    ArmRef,
    BadInput,
    Codec,
    Contracts,
    DivergenceAlert,
    EnvironmentDriftAlert,
    MigrationAlert,
    MigrationRun,
    Registry,
    ReplayCompleted,
    StratumChange,
)

NOON = datetime(2026, 10, 1, 12, tzinfo=UTC)
LABELS = {"app", "mode", "candidate", "incumbent", "boundary", "stream", "level", "verdict", "reason"}
UNITS = "ratio|dollars|usd|seconds|records|state|total|calls|pairs|decisions|value|offsets|runs|up"
"""`up` as Prometheus' own."""

Found = dict[tuple[str, frozenset[tuple[str, str]]], float]


def arm(model: str, prompt_hash: str = "p", parameters_hash: str = "") -> ArmRef:
    return ArmRef(model=model, prompt_hash=prompt_hash, verifier_version="v", parameters_hash=parameters_hash)


def stratum(stream: str = "due", level: str = "verdict", **fields: Any) -> StratumChange:
    given: dict[str, Any] = {
        "boundary": "renewal",
        "events": 40,
        "change": -0.25,
        "interval_lo": -0.4,
        "interval_hi": -0.1,
        "e_value": 99.0,
        "named": True,
    }
    return StratumChange(stream=stream, level=level, **{**given, **fields})


def completed(**fields: Any) -> ReplayCompleted:
    given: dict[str, Any] = {
        "run_id": "r1",
        "app": "renewals",
        "mode": "forced",
        "baseline": arm("acme/one"),
        "candidate": arm("acme/two"),
        "verdict": "diverged",
        "stopped_because": "alarm",
        "alpha": 0.05,
        "delta": 0.05,
        "events": 150,
        "compared": 64,
        "paid_calls": 70,
        "overspent_calls": 3,
        "cost_usd": 1.5,
        "coverage": 0.98,
        "e_value": 123.0,
        "strata": (stratum(),),
        "completed_at": NOON,
    }
    return ReplayCompleted(**{**given, **fields})


def night(number: int, verdict: str = "equivalent", later_h: float = 2.5, **fields: Any) -> ReplayCompleted:
    """What a night leaves that ended so many days after noon and was counted so many hours later."""
    ends_at = NOON + timedelta(days=number)
    given = {"run_id": f"n{number}", "candidate": arm("log"), "strata": (), "night_ends_at": ends_at}
    counted = {"completed_at": ends_at + timedelta(hours=later_h), "verdict": verdict, "mode": "nightly"}
    return completed(**{**given, **counted, **fields})


def diverged(run_id: str = "r1") -> DivergenceAlert:
    return DivergenceAlert(
        run_id=run_id,
        app="renewals",
        baseline=arm("acme/one"),
        candidate=arm("acme/two"),
        alpha=0.05,
        e_value=123.0,
        paid_calls=70,
        change=-0.25,
        interval_lo=-0.4,
        interval_hi=-0.1,
        named=(stratum(),),
        examples=("renewals.decisions[0]@12",),
        raised_at=NOON,
    )


def drifted(model: str = "acme/one") -> EnvironmentDriftAlert:
    told = diverged().model_dump(exclude={"kind", "candidate"})
    return EnvironmentDriftAlert(**told, incumbent=arm(model))


def advised() -> MigrationAlert:
    run = MigrationRun(
        run_id="r1",
        incumbent="acme/one",
        candidate="acme/two",
        level="verdict",
        against="incumbent",
        effect=-0.25,
        interval_lo=-0.4,
        interval_hi=-0.1,
        confidence=0.95,
        delta=0.05,
        diagnosis_e_value=30.0,
        first_event_time=NOON,
        last_event_time=NOON,
        offsets=("renewals.decisions[0]@0-149",),
    )
    return MigrationAlert(
        run_id="m1",
        app="renewals",
        boundaries=("renewal", "winback"),
        streams=("due",),
        recurs_by="candidates",
        incumbent_ends_at=None,
        runs=(run, run),
        predicates=(),
        advice="move to P5",
        raised_at=NOON,
    )


def board_of(alerts: Iterable[Alert], limits: LabelLimits | None = None) -> AlertBoard:
    board = AlertBoard(limits)
    for alert in alerts:
        board.take(alert)
    return board


def shown(state: LogState) -> Found:
    """What a scrape sees, as Prometheus parses it; a label set that comes twice fails here as it does there."""
    registry, collector = CollectorRegistry(), ExporterCollector()
    registry.register(collector)
    collector.show(state)
    found: Found = {}
    for family in text_string_to_metric_families(generate_latest(registry).decode()):
        for sample in family.samples:
            key = sample.name, frozenset(sample.labels.items())
            assert key not in found, key
            found[key] = sample.value
    return found


def state_of(apps: dict[str, str], nights: Mapping[str, float | None] | None) -> LogState:
    """What a watcher of these apps shows before it has read anything."""
    states: list[LogState] = []
    settings = Settings(bootstrap_servers="127.0.0.1:1", registry_url="http://127.0.0.1:1", apps=apps)
    Watcher(settings, states.append, Health(), nights=nights).run(lambda: True)
    return states[-1]


def shown_of(*alerts: Alert, limits: LabelLimits | None = None) -> Found:
    return shown(LogState(up=True, board=board_of(alerts, limits).snapshot()))


def value(found: Found, name: str, **labels: str) -> float | None:
    return found.get((f"driftline_{name}", frozenset(labels.items())))


REPLAY = {"app": "renewals", "mode": "forced", "candidate": "acme/two"}
STRATUM = {**REPLAY, "boundary": "renewal", "stream": "due", "level": "verdict"}


def test_a_replay_that_diverged_is_shown_with_its_rate_interval_and_sample_count() -> None:
    found = shown_of(completed(), diverged())
    assert value(found, "replay_divergence_ratio", **REPLAY) == -0.25
    assert value(found, "replay_divergence_lower_ratio", **REPLAY) == -0.4
    assert value(found, "replay_divergence_upper_ratio", **REPLAY) == -0.1
    assert value(found, "replay_compared_pairs", **REPLAY) == 64
    assert value(found, "replay_e_value", **REPLAY) == 123
    assert value(found, "replay_coverage_ratio", **REPLAY) == 0.98
    assert (value(found, "replay_paid_calls", **REPLAY), value(found, "replay_cost_dollars", **REPLAY)) == (70, 1.5)
    assert value(found, "stratum_change_ratio", **STRATUM) == -0.25
    assert value(found, "stratum_named_state", **STRATUM) == 1


def test_the_noise_floor_stands_beside_the_change_where_the_replay_had_one() -> None:
    found = shown_of(completed(noise=0.08, noise_lo=0.02, noise_hi=0.2))
    names = ("replay_noise_ratio", "replay_noise_lower_ratio", "replay_noise_upper_ratio")
    assert [value(found, name, **REPLAY) for name in names] == [0.08, 0.02, 0.2]


def test_the_verdict_and_why_it_stopped_are_one_hot() -> None:
    found = shown_of(completed(verdict="inconclusive", stopped_because="budget_ended"))
    verdicts = {v: value(found, "replay_verdict_state", **REPLAY, verdict=v) for v in ("diverged", "inconclusive")}
    assert verdicts == {"diverged": 0, "inconclusive": 1}
    assert value(found, "replay_stopped_state", **REPLAY, reason="budget_ended") == 1
    assert value(found, "replay_stopped_state", **REPLAY, reason="alarm") == 0


def test_a_later_replay_of_the_same_labels_takes_the_place_of_the_earlier_and_of_its_divergence() -> None:
    later = completed(run_id="r2", verdict="equivalent", completed_at=NOON + timedelta(hours=1))
    found = shown_of(completed(), diverged(), later)
    assert value(found, "replay_verdict_state", **REPLAY, verdict="diverged") == 0
    assert value(found, "replay_divergence_ratio", **REPLAY) is None
    assert value(found, "replay_completed_timestamp_seconds", **REPLAY) == (NOON + timedelta(hours=1)).timestamp()


def test_a_divergence_belongs_to_the_replay_of_its_own_run() -> None:
    found = shown_of(completed(), diverged(run_id="another"))
    assert value(found, "replay_divergence_ratio", **REPLAY) is None


def test_another_candidate_mode_or_app_has_series_of_its_own() -> None:
    others = completed(mode="shadow"), completed(app="claims"), completed(candidate=arm("acme/three"))
    found = shown_of(completed(), *others)
    assert sum(name == "driftline_replay_e_value" for name, _ in found) == 4


def test_what_an_alert_does_not_know_is_not_shown() -> None:
    found = shown_of(completed(cost_usd=None, strata=(stratum(change=None),)))
    assert value(found, "replay_cost_dollars", **REPLAY) is None
    assert value(found, "stratum_change_ratio", **STRATUM) is None
    assert value(found, "stratum_change_lower_ratio", **STRATUM) == -0.4


def test_drift_is_shown_for_the_incumbent_and_advice_for_each_boundary() -> None:
    found = shown_of(drifted(), advised())
    assert value(found, "environment_drift_ratio", app="renewals", incumbent="acme/one") == -0.25
    assert (
        value(found, "environment_drift_timestamp_seconds", app="renewals", incumbent="acme/one") == NOON.timestamp()
    )
    for boundary in ("renewal", "winback"):
        assert value(found, "migration_confirmed_runs", app="renewals", boundary=boundary) == 2


def test_the_last_success_is_that_of_the_mode_and_never_goes_back() -> None:
    earlier = completed(run_id="r0", completed_at=NOON - timedelta(days=3), candidate=arm("acme/three"))
    found = shown_of(completed(), earlier, completed(mode="shadow", completed_at=NOON + timedelta(days=1)))
    assert value(found, "replay_last_success_timestamp_seconds", app="renewals", mode="forced") == NOON.timestamp()


def test_the_budget_of_a_night_is_shown_for_each_app_that_has_one(tmp_path: Path) -> None:
    path = tmp_path / "nights.toml"
    path.write_text("[apps.renewals.limits]\nbudget_usd = 5.0\n[apps.claims]\n")
    found = shown(state_of({}, read_nights(path)))
    assert value(found, "nightly_budget_usd", app="renewals") == 5
    assert value(found, "nightly_budget_usd", app="claims") is None


def test_a_file_of_nights_that_is_wrong_stops_the_exporter_only_where_it_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    assert (read_nights(None), caplog.messages) == (None, [])
    (tmp_path / "nightly.toml").write_text("[apps.renewals]\nsampel = 3\n")
    assert read_nights(None) is None
    assert any("sampel" in message for message in caplog.messages)
    with pytest.raises(BadInput, match="sampel"):
        read_nights(Path("nightly.toml"))


def never(state: LogState) -> set[str]:
    """Apps that show the time 0 for their last night, once the alerts were read."""
    found = shown(replace(state, up=True, board=state.board or AlertBoard().snapshot()))
    labels = [
        dict(key)
        for (name, key), at_s in found.items()
        if name.endswith("last_success_timestamp_seconds") and not at_s
    ]
    assert all(label["mode"] == "nightly" for label in labels)
    return {label["app"] for label in labels}


def test_the_apps_of_the_nights_file_are_missing_until_their_first_night_and_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nights.toml").write_text("[apps.claims]\n")
    (tmp_path / "none.toml").touch()
    apps = {"renewals": "a:b", "claims": "c:d"}
    assert never(state_of(apps, read_nights(tmp_path / "nights.toml"))) == {"claims"}
    assert never(state_of(apps, read_nights(tmp_path / "none.toml"))) == set()
    assert never(state_of(apps, None)) == {"renewals", "claims"}


@pytest.mark.parametrize("mode", ["forced", "incumbent", "shadow"])
def test_a_replay_that_is_no_night_does_not_stand_for_one(mode: str) -> None:
    board = board_of([completed(mode=mode)]).snapshot()
    assert never(LogState(board=board, apps=("renewals",))) == {"renewals"}


def test_a_night_that_was_counted_is_the_last_success_of_its_app() -> None:
    board = board_of([completed(mode="nightly", candidate=arm("log"))]).snapshot()
    state = LogState(up=True, board=board, apps=("renewals",))
    assert never(state) == set()
    name = "replay_last_success_timestamp_seconds"
    assert value(shown(state), name, app="renewals", mode="nightly") == NOON.timestamp()


def test_two_prompts_on_one_model_are_two_candidates_with_labels_that_stay() -> None:
    first, second = arm("acme/one", "1a2b3c4d5e6f"), arm("acme/one", "ffff00001111")
    found = shown_of(
        completed(run_id="r1", candidate=first, e_value=1.0),
        completed(run_id="r2", candidate=second, e_value=2.0),
        completed(run_id="r3", candidate=arm("acme/one"), e_value=3.0),
    )
    labels = ("acme/one#1a2b3c4d", "acme/one#ffff0000", "acme/one")
    assert [value(found, "replay_e_value", **{**REPLAY, "candidate": label}) for label in labels] == [1, 2, 3]


def test_candidates_that_differ_in_parameters_alone_have_series_of_their_own() -> None:
    warm, cold = arm("acme/one", "p", "aaaa1111bbbb"), arm("acme/one", "1a2b3c4d5e6f", "cccc2222dddd")
    found = shown_of(
        completed(run_id="r1", candidate=warm, e_value=1.0),
        completed(run_id="r2", candidate=cold, e_value=2.0),
        completed(run_id="r3", candidate=arm("acme/one"), e_value=3.0),
    )
    labels = ("acme/one?aaaa1111", "acme/one?cccc2222#1a2b3c4d", "acme/one")
    assert [value(found, "replay_e_value", **{**REPLAY, "candidate": label}) for label in labels] == [1, 2, 3]


def test_prompts_beyond_the_limit_make_room_as_models_do() -> None:
    alerts = [completed(run_id=f"r{n}", candidate=arm("acme/one", f"{n:08}")) for n in range(5)]
    found = shown_of(*alerts, limits=LabelLimits(candidates=2))
    kept = {labels["candidate"] for name, each in found if name.endswith("e_value") for labels in [dict(each)]}
    assert kept == {"acme/one#00000003", "acme/one#00000004"}


def test_a_record_that_is_no_alert_is_logged_with_its_coordinates(monkeypatch: pytest.MonkeyPatch) -> None:
    logger, stream = logging.getLogger("driftline"), io.StringIO()
    monkeypatch.setattr(logger, "handlers", [])
    monkeypatch.setattr(logger, "level", logger.level)
    monkeypatch.setattr(logger, "propagate", logger.propagate)
    set_up_logs(LogFormat.JSON, "exporter", 0, stream)
    fold = _Fold(Codec(Registry("mock://exporter-unreadable"), Contracts.load()), None)
    fold.take([Record(Coordinates("driftline.alerts", 0, 7), b"renewals", b"no alert", 0)])
    assert json.loads(stream.getvalue())["event"] == "driftline.alerts[0]@7 cannot be read as an alert"
    assert fold.unreadable == 1


def test_an_app_that_never_had_a_night_shows_0_once_the_alerts_were_read_and_nothing_before() -> None:
    labels = {"app": "claims", "mode": "nightly"}
    unread = shown(LogState(apps=("claims",)))
    assert value(unread, "replay_last_success_timestamp_seconds", **labels) is None
    read = shown(LogState(up=True, board=AlertBoard().snapshot(), apps=("claims",)))
    assert value(read, "replay_last_success_timestamp_seconds", **labels) == 0


def test_a_log_that_is_away_leaves_what_was_seen_on_show() -> None:
    state = LogState(up=False, board=board_of([completed()]).snapshot(), standings={"renewals": AppStanding(7, 3)})
    found = shown(state)
    assert value(found, "exporter_up") == 0
    assert value(found, "replay_e_value", **REPLAY) == 123
    assert value(found, "group_lag_records", app="renewals") == 7
    assert value(found, "dead_topic_offsets", app="renewals") == 3


def test_candidates_beyond_the_limit_make_room_oldest_first_and_are_counted() -> None:
    alerts = [completed(run_id=f"r{n}", candidate=arm(f"acme/{n}")) for n in range(5)]
    found = shown_of(*alerts, limits=LabelLimits(candidates=3))
    kept = {labels["candidate"] for name, each in found if name.endswith("e_value") for labels in [dict(each)]}
    assert kept == {"acme/2", "acme/3", "acme/4"}
    assert value(found, "exporter_left_out_series_total") == 2 * (1 + 1)  # a replay and its stratum, twice


def test_what_has_not_diverged_makes_room_before_what_has() -> None:
    verdicts = ["diverged", "equivalent", "diverged", "inconclusive", "equivalent"]
    alerts = [completed(run_id=f"r{n}", candidate=arm(f"acme/{n}"), verdict=v) for n, v in enumerate(verdicts)]
    found = shown_of(*alerts, limits=LabelLimits(candidates=3))
    kept = {labels["candidate"] for name, each in found if name.endswith("e_value") for labels in [dict(each)]}
    assert kept == {"acme/0", "acme/2", "acme/4"}


def test_thirty_apps_with_a_candidate_a_night_and_an_incumbent_are_shown_whole() -> None:
    alerts: list[Alert] = []
    for n in range(30):
        app = f"app{n}"
        alerts += [completed(run_id=f"c{n}", app=app), night(0, app=app)]
        alerts.append(
            completed(run_id=f"i{n}", app=app, mode="incumbent", candidate=arm("acme/one"), verdict="equivalent")
        )
    found = shown_of(*alerts)
    shown_modes = [dict(labels)["mode"] for name, labels in found if name == "driftline_replay_compared_pairs"]
    assert {mode: shown_modes.count(mode) for mode in shown_modes} == {"forced": 30, "nightly": 30, "incumbent": 30}
    assert value(found, "exporter_left_out_series_total") == 0


def test_forty_apps_of_four_modes_each_lose_no_last_success() -> None:
    modes = ("nightly", "incumbent", "forced", "shadow")
    board = board_of(completed(run_id=f"{n}{mode}", app=f"app{n}", mode=mode) for n in range(40) for mode in modes)
    assert len(board.snapshot().succeeded) == 160


def test_how_many_were_left_out_is_not_told_before_the_alerts_were_read() -> None:
    assert value(shown(LogState()), "exporter_left_out_series_total") is None
    assert value(shown_of(), "exporter_left_out_series_total") == 0


def test_of_too_many_strata_the_named_stay_then_those_with_most_pairs() -> None:
    strata = [stratum(stream=f"s{n}", events=n, named=n == 1) for n in range(6)]
    found = shown_of(completed(strata=tuple(strata)), limits=LabelLimits(strata=3))
    kept = {dict(labels)["stream"] for name, labels in found if name == "driftline_stratum_pairs"}
    assert kept == {"s1", "s5", "s4"}
    assert value(found, "exporter_left_out_series_total") == 3


def test_a_stratum_that_an_alert_names_twice_is_one_series() -> None:
    found = shown_of(completed(strata=(stratum(e_value=1.0), stratum(e_value=2.0))))
    assert value(found, "stratum_e_value", **STRATUM) == 2


def test_a_thousand_incumbents_and_apps_stay_within_the_limits() -> None:
    limits = LabelLimits(candidates=10, strata=5, others=10)
    alerts: list[Alert] = [drifted(f"acme/{n}") for n in range(1000)]
    alerts += [completed(run_id=f"r{n}", app=f"app{n}") for n in range(1000)]
    alerts += [night(n, "diverged", app=f"app{n}") for n in range(1000)]
    found = shown_of(*alerts, limits=limits)
    assert len(found) < 800
    assert (value(found, "exporter_left_out_series_total") or 0) > 4900


def test_every_name_tells_its_unit_and_no_label_is_an_id_a_key_or_a_hash() -> None:
    board = board_of([completed(), diverged(), drifted(), advised(), night(0, "diverged")]).snapshot()
    found = shown(LogState(board=board, standings={"renewals": AppStanding(7, 3)}, budgets={"renewals": 5.0}))
    for name, labels in found:
        assert re.fullmatch(rf"driftline_[a-z_]*({UNITS})", name), name
        assert {label for label, _ in labels} <= LABELS, name


@pytest.mark.parametrize("text", ['acme/"two"', "acme\\two", "two\nlines"])
def test_a_candidate_of_any_name_comes_through_a_scrape(text: str) -> None:
    found = shown_of(completed(candidate=arm(text)))
    assert value(found, "replay_e_value", **{**REPLAY, "candidate": text}) == 123


def test_the_process_shows_its_own_memory_beside_the_series() -> None:
    text = generate_latest(make_registry(ExporterCollector())).decode()
    assert "process_resident_memory_bytes" in text
    assert "driftline_exporter_up 0.0" in text
