"""What a night leaves on `driftline.alerts`: one record when all of it is counted, and none before."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace as changed
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from driftline.console.nightly import NightDone, run_nightly
from driftline.console.nightly_config import load_config
from driftline.console.nightly_output import exit_code, summary_data, summary_lines
from driftline.consumers import App
from driftline.consumers.prepare import prepare
from driftline.consumers.runtime import Runtime
from driftline.examples.renewals.app import app as renewals
from driftline.log import ALERTS, KafkaReader, Settings
from driftline.producers import Publisher
from driftline.producers.renewals import synthetic_renewals
from driftline.replay.nights_kept import KEPT
from driftline.replay.testing import OwnModels
from driftline.schemas import Codec, Registry

pytestmark = pytest.mark.integration

NIGHT, BEFORE, AFTER = date(2026, 10, 2), date(2026, 10, 1), date(2026, 10, 3)
DECISIONS = 60
MODULE = """
from dataclasses import replace
from pathlib import Path
from driftline.consumers import Policy
from driftline.examples.renewals.app import app as renewals, discount_cap, price_floor
rules = Policy.from_file(Path("policy.toml"), discount_cap, price_floor)
app = replace(renewals, name={name!r}, boundaries=[replace(renewals.boundaries[0], verifiers=[rules])])
"""
RULES = 'version = "{version}"\n[discount]\ncap_pct = {cap}\n[restructure]\nfloor_share = 0.6\n'
MISSING, DIVERGING = "sim/nobody", "sim/renewals-fenced"


@pytest.fixture
def app(cluster: Settings, app_name: str) -> App:
    """The renewals app, whose runtime decided in one night."""
    app = changed(renewals, name=app_name)
    prepare(app, cluster)
    with Publisher(app.name, source="crm", schemas=app.schemas, settings=cluster) as publisher:
        for event in synthetic_renewals(DECISIONS, seed=5):
            publisher.publish_event(event)
    noon = datetime(NIGHT.year, NIGHT.month, NIGHT.day, 12, tzinfo=UTC)
    Runtime(app, cluster, OwnModels(), lambda: noon, seed=5).run(until_end=True)
    return app


@pytest.fixture
def workplace(tmp_path: Path, cluster: Settings, app: App, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder, with a home and an app of its own."""
    (tmp_path / f"{app.name}_code.py").write_text(MODULE.format(name=app.name))
    (tmp_path / "policy.toml").write_text(RULES.format(version="2026-07", cap=30))
    (tmp_path / "driftline.toml").write_text(f'[apps]\n{app.name} = "{app.name}_code:app"\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("DRIFTLINE_BOOTSTRAP_SERVERS", cluster.require_bootstrap())
    monkeypatch.setenv("DRIFTLINE_REGISTRY_URL", cluster.require_registry())
    monkeypatch.setenv("DRIFTLINE_HOME", str(tmp_path / "home"))
    return tmp_path


Run = Callable[..., NightDone]


@pytest.fixture
def run(workplace: Path, app: App) -> Run:
    """One night, with these candidates."""

    def night(*candidates: str, night: date = NIGHT, incumbent: bool = False) -> NightDone:
        tried = "".join(f"[[apps.{app.name}.candidates]]\nmodel = '{model}'\n" for model in candidates)
        watch = f"[apps.{app.name}.incumbent]\nsample = 20\n" if incumbent else ""
        path = workplace / "nightly.toml"
        path.write_text(f"[apps.{app.name}]\n{watch}{tried}")
        [done] = run_nightly(load_config(path), [night])
        return done

    return night


@pytest.fixture
def alerts(cluster: Settings, app: App) -> Callable[[], list[dict[str, Any]]]:
    """This app's alerts, in log order."""

    def read() -> list[dict[str, Any]]:
        reader, codec = KafkaReader(cluster), Codec(Registry(cluster.require_registry()), app.contracts)
        mine = [record for record in reader.read(reader.span(ALERTS)) if record.key == app.name.encode()]
        return [dict(codec.decode(record.value).value) for record in mine]

    return read


Alerts = Callable[[], list[dict[str, Any]]]


def parts_of(done: NightDone) -> dict[str, Any]:
    """Parts of candidates."""
    return {name: part for name, part in done.parts.items() if name not in ("verify", "incumbent")}


def test_a_night_of_rules_alone_is_told_and_only_once(run: Run, alerts: Alerts) -> None:
    assert [run().already, run().already] == [False, True]
    [told] = alerts()
    assert (told["mode"], told["verdict"], told["events"], told["e_value"]) == ("nightly", "equivalent", DECISIONS, 1)


def test_what_todays_rules_decide_otherwise_is_told(workplace: Path, run: Run, alerts: Alerts) -> None:
    (workplace / "policy.toml").write_text(RULES.format(version="2026-08", cap=0))
    assert run().parts["verify"]["verdict"] == "diverged"
    assert [(told["mode"], told["verdict"]) for told in alerts()] == [("nightly", "diverged")]


def test_every_run_of_a_night_is_told_under_a_mode_of_its_own_and_the_night_last(run: Run, alerts: Alerts) -> None:
    run(DIVERGING, incumbent=True)
    completed = [told for told in alerts() if told["kind"] == "ReplayCompleted"]
    assert [told["mode"] for told in completed] == ["incumbent", "forced", "nightly"]


def test_a_strong_divergence_has_the_pairs_of_an_alarm_on_its_first_night(run: Run, alerts: Alerts) -> None:
    [part] = parts_of(run(DIVERGING)).values()
    [compared] = [told["compared"] for told in alerts() if told.get("mode") == "forced"]
    assert part["verdict"] == "diverged"
    assert compared == part["compared"] == part["events"] >= 30
    assert part["paid_calls"] + part["overspent_calls"] < DECISIONS


def test_a_part_that_fails_costs_the_others_nothing_and_the_night_its_record(run: Run, alerts: Alerts) -> None:
    done = run(MISSING, DIVERGING, incumbent=True)
    assert [part["verdict"] for part in parts_of(done).values()] == ["diverged"]
    assert "nobody" in str(done.error)
    assert exit_code([done]) == 2
    assert "not all of it counted" in next(summary_lines([done]))[0]
    assert summary_data([done])["nights"][0]["error"]["exit_code"] == 2
    told = alerts()
    assert {one.get("mode") for one in told} == {"incumbent", "forced", None}
    mended = run(DIVERGING, incumbent=True)
    assert (mended.already, mended.errors, parts_of(mended)) == (False, (), parts_of(done))
    assert [one["mode"] for one in alerts()[len(told) :]] == ["nightly"]


def test_a_night_whose_process_died_before_its_record_counted_is_told_by_the_next_one(
    workplace: Path, app: App, run: Run, alerts: Alerts
) -> None:
    done = run(DIVERGING)
    before, path = alerts(), workplace / "home" / "nights" / app.name / KEPT
    kept = json.loads(path.read_text())
    del kept["nights"][str(NIGHT)]["parts"]["nightly"]
    path.write_text(json.dumps(kept))
    again = run(DIVERGING)
    assert (again.already, again.parts) == (False, done.parts)
    assert alerts() == before, "it was on the log, and is not repeated"
    assert run(DIVERGING).already


def delete(cluster: Settings, topic: str) -> None:
    admin, ranges = (
        AdminClient({"bootstrap.servers": cluster.require_bootstrap()}),
        KafkaReader(cluster).span(topic).ranges,
    )
    below = [TopicPartition(topic, partition, stop) for partition, (_, stop) in ranges.items() if stop]
    for future in admin.delete_records(below).values():
        future.result(60)


def test_what_was_counted_before_the_log_was_cut_off_stays_and_what_is_missing_fails(
    cluster: Settings, app: App, run: Run
) -> None:
    before = run()
    delete(cluster, app.topics.decisions)
    done = run(DIVERGING)
    assert (done.decisions, done.parts) == (DECISIONS, before.parts)
    assert "no longer holds the decisions of the night" in str(done.error)
    assert run().already


def test_a_night_that_was_deleted_is_no_empty_one(cluster: Settings, app: App, run: Run, alerts: Alerts) -> None:
    delete(cluster, app.topics.decisions)
    done = run()
    assert "has been deleted: history exists from [0]@" in str(done.error)
    assert (exit_code([done]), done.parts, alerts()) == (2, {}, [])


def test_empty_nights_around_decisions_are_told_as_such(run: Run, alerts: Alerts) -> None:
    assert [run(DIVERGING, night=night).errors for night in (BEFORE, AFTER)] == [(), ()]
    assert [(told["mode"], told["verdict"], told["events"]) for told in alerts()] == [
        ("nightly", "inconclusive", 0)
    ] * 2
