"""`driftline migrate advise` on a real Kafka: waiting workflows end in an alert, stateless ones never do."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from driftline.console.log_commands import alert_line
from driftline.console.main import app as command
from driftline.consumers import App, Fold
from driftline.consumers.artifacts import read_artifacts
from driftline.consumers.control import make_setting, write_setting
from driftline.consumers.prepare import prepare
from driftline.consumers.runtime import Runtime
from driftline.examples.renewals.app import app as renewals
from driftline.log import ALERTS, Coordinates, KafkaReader, Settings
from driftline.producers import Publisher
from driftline.producers.renewals import synthetic_renewals
from driftline.replay import AppSubject, Candidate, ForcedReplay, Ledger, Limits, Selection, load_segment
from driftline.replay.free import FreeReplay
from driftline.replay.free_report import free_data
from driftline.replay.report import report_data
from driftline.replay.segment import Segment, build_segment
from driftline.replay.store import write_store
from driftline.replay.testing import OwnModels
from driftline.replay.workflows import load_workflows
from driftline.schemas import Codec, Event, MigrationAlert, Registry, to_json_data
from driftline.schemas.cloudevents import from_headers
from driftline.schemas.control import STATE_MACHINE, SpineCut

pytestmark = pytest.mark.integration

NOON = datetime(2026, 10, 1, 12, tzinfo=UTC)
INCUMBENT = "sim/renewals"
CORRECTED = "customer-corrected"
"""A fact that no boundary decides: it only folds."""


def waiting(customers: int = 60) -> list[Event]:
    """Each contract comes due, the customer's record changes two hours later, and after nine it comes due again."""
    due = list(synthetic_renewals(customers, seed=5))
    return [event for first in due for event in (first, later(first, 2, CORRECTED), later(first, 9, first.type))]


def stateless(customers: int = 60) -> list[Event]:
    """Each contract comes due, and that is all there is."""
    return list(synthetic_renewals(customers, seed=5))


def later(event: Event, hours: int, type_: str) -> Event:
    return replace(event, id=f"{event.id}-{hours}", time=event.time + timedelta(hours=hours), type=type_)


def promised(row: Mapping[str, Any], event: Event) -> Mapping[str, Any]:
    """What the customer was promised: no input tells it, the model does."""
    return {"promises": [*row.get("promises", ()), event.data["rationale"]]} if "rationale" in event.data else row


@pytest.fixture
def live(
    cluster: Settings, app_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Sequence[Event]], App]:
    """Have an app decide events on the broker, and leave two confirmed runs and a free run of the incumbent."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DRIFTLINE_BOOTSTRAP_SERVERS", cluster.require_bootstrap())
    monkeypatch.setenv("DRIFTLINE_REGISTRY_URL", cluster.require_registry())
    monkeypatch.setenv("DRIFTLINE_KAFKA", json.dumps(cluster.kafka))
    monkeypatch.setenv("DRIFTLINE_HOME", str(tmp_path / "home"))

    def make(events: Sequence[Event]) -> App:
        app = replace(renewals, name=app_name, effectors=[], fold=Fold(promised, version="1"))
        prepare(app, cluster)
        with Publisher(app.name, source="crm", schemas=app.schemas, settings=cluster) as publisher:
            for event in events:
                publisher.publish_event(event)
        Runtime(app, cluster, OwnModels(), lambda: NOON, seed=5).run(until_end=True)
        History(app, cluster, tmp_path / "home").write()
        return app

    return make


class History:
    """Runs on disk, made by replay itself from the app's log."""

    def __init__(self, app: App, cluster: Settings, home: Path) -> None:
        self._app, self._reader = app, KafkaReader(cluster)
        self._codec = Codec(Registry(cluster.require_registry()), app.contracts)
        self._subject = AppSubject(app, read_artifacts(self._reader, self._codec))
        self._runs = home / "runs"
        home.mkdir()
        self._ledger = Ledger(home / "ledger.sqlite")

    def write(self) -> None:
        whole = load_segment(self._reader, self._codec, self._app.name, Selection())
        ordered = sorted(whole.decisions, key=lambda one: one.decision.input.event_time)
        half = len(ordered) // 2
        for candidate, decisions in (
            ("sim/renewals-fenced", ordered[:half]),
            ("sim/renewals-inflated", ordered[half:]),
        ):
            self._forced(candidate, build_segment(self._app.name, whole.span, decisions))
        self._free()
        self._ledger.close()

    def _forced(self, candidate: str, segment: Segment) -> None:
        limits = Limits(read_on=True)
        given = (candidate.partition("-")[2], segment, self._subject, Candidate(candidate), OwnModels(), self._ledger)
        result = asyncio.run(ForcedReplay(*given, limits, lambda: NOON).run())
        report = report_data(self._app.name, INCUMBENT, candidate, result, limits)
        report["attribution"] = {"cause": "model", "why": "", "contrasts": contrasts()}
        folder = self._runs / result.run_id
        write_store(folder, result, {**report, "report": report})
        diagnosis = {"run_id": result.run_id, "conclusion": "candidate", "e_value": 40.0, "interval": [0.2, 0.7]}
        (folder / "diagnosis.json").write_text(json.dumps(diagnosis))

    def _free(self) -> None:
        history = load_workflows(self._reader, self._codec, self._app, Selection())
        limits, candidate = Limits(), Candidate(INCUMBENT)
        given = (
            "free",
            history,
            self._subject,
            candidate,
            OwnModels(),
            self._ledger,
            limits,
            lambda: NOON,
            None,
            True,
        )
        result = asyncio.run(FreeReplay(*given).run())
        (self._runs / "free").mkdir()
        (self._runs / "free" / "free.json").write_text(json.dumps(free_data(history, candidate, result, limits)))


def contrasts() -> dict[str, Any]:
    change = {"verdict": "diverged", "levels": {"verdict": {"change": -0.3, "interval": [-0.45, -0.15]}}}
    return {"environment": {"verdict": "inconclusive"}, "candidate": change}


def advise(app: App, *options: str) -> tuple[int, dict[str, Any]]:
    ran = CliRunner().invoke(command, ["migrate", "advise", app.name, "--json", *options])
    assert ran.exit_code in {0, 1, 4}, ran.output
    return ran.exit_code, json.loads(ran.stdout)


def alerts_of(app: App, cluster: Settings) -> list[MigrationAlert]:
    reader, codec = KafkaReader(cluster), Codec(Registry(cluster.require_registry()), app.contracts)
    records = [record for record in reader.read(reader.span(ALERTS)) if record.key == app.name.encode()]
    return [MigrationAlert.model_validate(codec.decode(record.value).value) for record in records]


def test_waiting_workflows_end_in_an_alert_whose_evidence_lies_on_the_log(
    live: Callable[[Sequence[Event]], App], cluster: Settings, tmp_path: Path
) -> None:
    app = live(waiting())
    code, told = advise(app, "--html", str(tmp_path / "why.html"))
    assert (code, told["conclusion"], told["missing"]) == (1, "migrate", [])
    (alert,) = alerts_of(app, cluster)
    assert [run.candidate for run in alert.runs] == ["sim/renewals-fenced", "sim/renewals-inflated"]
    assert {one.name: one.interval_lo > one.threshold for one in alert.predicates} == {
        "pauses": True,
        "state_not_reconstructible": True,
        "world_moves_on": True,
    }
    reader = KafkaReader(cluster)
    for predicate in alert.predicates:
        records = [reader.read_one(Coordinates.parse(at)) for at in predicate.examples]
        assert records, predicate.name
        types = {from_headers(record.headers).type for record in records if record is not None}
        assert types, predicate.name
        assert (types == {CORRECTED}) == (predicate.name == "world_moves_on")
    for run in alert.runs:
        for lies in run.offsets:
            first = reader.read_one(Coordinates.parse(lies.rpartition("-")[0]))
            assert first is not None, lies
    page = (tmp_path / "why.html").read_text()
    assert alert.predicates[2].examples[0] in page
    line = alert_line({"at": told["alert"], **to_json_data(alert.model_dump())})
    assert line.startswith(f"{told['alert']}  MigrationAlert  {app.name}")


def test_the_same_evidence_raises_the_same_alert_once(
    live: Callable[[Sequence[Event]], App], cluster: Settings
) -> None:
    app = live(waiting())
    assert (advise(app, "--no-publish")[1]["alert"], alerts_of(app, cluster)) == (None, [])
    first, second = advise(app)[1], advise(app)[1]
    assert first["alert"] == second["alert"] is not None
    assert len(alerts_of(app, cluster)) == 1


def test_a_log_that_was_cut_over_is_told_so_and_raises_no_alert(
    live: Callable[[Sequence[Event]], App], cluster: Settings
) -> None:
    app = live(waiting())
    cut = SpineCut(spine=STATE_MACHINE, rows_version="1", offsets={"0": 7}, rows_hash="rows")
    codec = Codec(Registry(cluster.require_registry()), app.contracts)
    write_setting(make_setting(cut, "cut over", "mara", NOON), app.topics, cluster, codec, "moved")
    code, told = advise(app)
    assert (code, told["conclusion"], told["alert"]) == (0, "moved", None)
    assert told["since"] == {"offsets": {"0": 7}, "by": "mara", "at": "2026-10-01T12:00:00.000Z"}
    assert alerts_of(app, cluster) == []


def test_workflows_of_one_event_never_end_in_an_alert(
    live: Callable[[Sequence[Event]], App], cluster: Settings
) -> None:
    app = live(stateless())
    code, told = advise(app, "--incumbent-ends", "2027-03-31")
    assert (code, told["conclusion"], told["recurs_by"]) == (0, "gate", "windows")
    assert [one["holds"] for one in told["predicates"]].count(True) <= 1
    assert alerts_of(app, cluster) == []
