"""Mode `free` on a real Kafka: it reads an app's events and decisions, and leaves no trace on them."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import typer
from tests.integration.traces import ends, groups, positions

from driftline.console.free_run import FreeDone, free_and_exit, print_free, run_free
from driftline.console.plan_command import print_plans
from driftline.console.replay_options import Mode
from driftline.console.replay_run import ReplayRequest
from driftline.consumers import Answer, App, ProposalRequest
from driftline.consumers.artifacts import read_artifacts
from driftline.consumers.effector_runner import EffectorRunner
from driftline.consumers.effectors import Effector
from driftline.consumers.engine import answer_of
from driftline.consumers.prepare import prepare
from driftline.consumers.runtime import Runtime
from driftline.examples.renewals.app import RENEWED
from driftline.examples.renewals.app import app as renewals
from driftline.log import KafkaReader, Settings
from driftline.producers import Publisher
from driftline.producers.renewals import synthetic_renewals
from driftline.replay import AppSubject, Candidate, Ledger, Limits, Selection, query
from driftline.replay.free import FreeReplay
from driftline.replay.stored import read_report
from driftline.replay.testing import OwnModels
from driftline.replay.workflows import History, history_row, load_workflows
from driftline.schemas import Codec, Event, Registry, UsageError, canonical_json, parse_json

pytestmark = pytest.mark.integration

README = Path(__file__).parents[2] / "replay" / "README.md"
NAME = "relived"
CUSTOMERS = 120
NOON = datetime(2026, 10, 1, 12, tzinfo=UTC)


def in_books(event: Event, idempotency_key: str, /) -> Mapping[str, str]:
    """An effector that does nothing but report."""
    return {"booked": idempotency_key}


def next_year(event: Event) -> Event:
    """The same customer's next contract, due a year later."""
    return replace(event, id=f"{event.id}-again", time=event.time.replace(year=event.time.year + 1))


@pytest.fixture(scope="module")
def app(cluster: Settings) -> App:
    """The renewals app with a history: decided twice a customer, and reported on by an effector in between."""
    app = replace(renewals, name=NAME, effectors=[Effector("books", on=RENEWED, act=in_books)])
    prepare(app, cluster)
    due = list(synthetic_renewals(CUSTOMERS, seed=5))
    for events in (due, [next_year(event) for event in due[: CUSTOMERS // 2]]):
        with Publisher(app.name, source="crm", schemas=app.schemas, settings=cluster) as publisher:
            for event in events:
                publisher.publish_event(event)
        Runtime(app, cluster, OwnModels(), lambda: NOON, seed=5).run(until_end=True)
        EffectorRunner(app, app.effectors[0], cluster, lambda: NOON).run(until_end=True)
    Runtime(app, cluster, OwnModels(), lambda: NOON, seed=5).run(until_end=True)
    return app


@pytest.fixture(scope="module")
def codec(app: App, cluster: Settings) -> Codec:
    return Codec(Registry(cluster.require_registry()), app.contracts)


@pytest.fixture(scope="module")
def history(app: App, cluster: Settings, codec: Codec) -> History:
    return load_workflows(KafkaReader(cluster), codec, app, Selection())


@pytest.fixture
def workplace(tmp_path: Path, cluster: Settings, app: App, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder: the app as a module of hers, and the cluster in the environment."""
    module = "from dataclasses import replace\nfrom driftline.examples.renewals.app import app as renewals\n"
    (tmp_path / "my_relived_app.py").write_text(f"{module}app = replace(renewals, name={app.name!r})\n")
    (tmp_path / "driftline.toml").write_text(f'[apps]\n{app.name} = "my_relived_app:app"\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("DRIFTLINE_BOOTSTRAP_SERVERS", cluster.require_bootstrap())
    monkeypatch.setenv("DRIFTLINE_REGISTRY_URL", cluster.require_registry())
    monkeypatch.setenv("DRIFTLINE_KAFKA", json.dumps(cluster.kafka))
    monkeypatch.setenv("DRIFTLINE_HOME", str(tmp_path / "home"))
    return tmp_path


class AsLogged:
    """Answers every attempt with what the log has for it."""

    def __init__(self, history: History) -> None:
        decisions = [logged.decision for workflow in history.workflows for logged in workflow.decisions]
        self._decisions = {decision.decision_id: decision for decision in decisions}

    async def propose(self, request: ProposalRequest) -> Answer:
        return answer_of(self._decisions[request.key.decision_id].attempts[request.key.attempt - 1])


def test_what_the_log_answers_lives_every_workflow_again_to_the_row_that_the_runtime_wrote(
    app: App, cluster: Settings, codec: Codec, history: History, tmp_path: Path
) -> None:
    assert len(history.workflows) == CUSTOMERS
    ledger = Ledger(tmp_path / "ledger.sqlite")
    subject = AppSubject(app, read_artifacts(KafkaReader(cluster), codec))
    given = ("r", history, subject, Candidate("acme/log"), AsLogged(history), ledger, Limits(), lambda: NOON)
    result = asyncio.run(FreeReplay(*given).run())
    ledger.close()
    assert result.coverage == 1.0
    assert [pair.workflow.name for pair in result.pairs if pair.candidate.departure is not None] == []
    assert sum(len(pair.candidate.run.decisions) for pair in result.pairs) == CUSTOMERS + CUSTOMERS // 2
    rows = {pair.workflow.name: pair.candidate.run.row for pair in result.pairs}
    assert rows == rows_on(app, cluster, codec)
    assert rows == {workflow.name: history_row(app, workflow) for workflow in history.workflows}


def rows_on(app: App, cluster: Settings, codec: Codec) -> dict[str, str]:
    """The latest row of each workflow on the state topic, as canonical JSON."""
    found, reader = {}, KafkaReader(cluster)
    for record in reader.read(reader.span(app.topics.state)):
        assert record.key is not None
        found[record.key.decode()] = canonical_json(parse_json(codec.decode(record.value).value["data"]))
    return found


def test_facts_from_outside_are_those_that_no_boundary_committed(history: History) -> None:
    kinds = {(logged.event.source, logged.committed) for one in history.workflows for logged in one.events}
    assert kinds == {
        ("crm", False),
        (f"driftline:{NAME}/renewal", True),
        (f"driftline:{NAME}/effector/books", False),
    }


def test_a_whole_run_leaves_no_record_no_position_and_no_group_with_the_app_and_pays_once(
    workplace: Path, cluster: Settings, app: App, capsys: pytest.CaptureFixture[str]
) -> None:
    before, groups_before = (ends(cluster), positions(cluster, app.group)), groups(cluster)
    request = ReplayRequest(app.name, Candidate("sim/renewals-inflated"))
    first, again = (run_free([request])[0] for _ in range(2))
    assert (ends(cluster), positions(cluster, app.group)) == before
    assert groups(cluster) <= groups_before
    assert first.report["workflows"]["compared"] == CUSTOMERS
    assert first.report["arms"]["candidate"]["departed"]["count"] > 0
    assert first.report["arms"]["candidate"]["travel"]["facts_withheld"] > 0
    assert (first.report["timings"]["from_ledger"], again.report["timings"]["from_ledger"]) == (
        0,
        again.report["calls"],
    )
    assert untimed(first) == untimed(again)
    assert json.loads(again.file.read_text()) == read_report(again.database) == again.report
    counted = query(again.database, "SELECT count(*) FILTER (departed) FROM workflows WHERE arm = 'candidate'")[1]
    assert counted == [(again.report["arms"]["candidate"]["departed"]["count"],)]
    print_free(again)
    shown = capsys.readouterr().out
    assert "where workflows depart first" in shown
    assert again.report["departures"][0]["first"]["at"] in shown


def test_a_plan_tells_the_calls_of_a_run_in_which_every_workflow_goes_as_it_went(
    workplace: Path, app: App, history: History, capsys: pytest.CaptureFixture[str]
) -> None:
    def planned() -> Mapping[str, Any]:
        print_plans([request], Mode.FREE, as_json=True)
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        return found

    request = ReplayRequest(app.name, Candidate("sim/renewals"), limits=Limits(order_seed=3))
    before = planned()
    attempts = sum(len(logged.decision.attempts) for one in history.workflows for logged in one.decisions)
    assert (before["calls"], before["incumbent_calls"], before["in_ledger"]) == (2 * attempts, attempts, 0)
    assert (before["workflows"], before["pairs"], before["usd"]) == (CUSTOMERS, CUSTOMERS, 0.0)
    assert sum(stratum["events"] for stratum in before["power"]["strata"]) == CUSTOMERS
    report = run_free([request])[0].report
    assert report["run_id"] == before["run_id"]
    assert report["calls"] == pytest.approx(before["calls"], rel=0.1), "it is the log's own model again"
    assert planned()["in_ledger"] >= 0.8 * report["calls"], "what is paid is not planned again"


def test_a_plan_ends_with_the_last_workflow_that_fits_the_calls(
    workplace: Path, app: App, capsys: pytest.CaptureFixture[str]
) -> None:
    print_plans([ReplayRequest(app.name, Candidate("sim/renewals"), limits=Limits(calls_max=40))], Mode.FREE, False)
    shown = capsys.readouterr().out
    assert f"PLAN  {app.name}: sim/renewals → sim/renewals, free" in shown
    found = re.search(r"about (\d+) calls to pay .* in (\d+) workflows", shown)
    assert found is not None
    assert 30 < int(found[1]) <= 40
    assert "of workflows depart otherwise by the model's own noise" in shown


def test_the_readme_runs_as_it_stands(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    section = README.read_text().partition("## Mode free")[2]
    code = section.partition("```python\n")[2].partition("```")[0]
    exec(code.replace("driftline.examples.renewals.app", "my_relived_app"), {})
    assert "Rate(workflows=120, count=" in capsys.readouterr().out


def test_the_command_prints_one_object_and_exits_with_the_verdict(
    workplace: Path, app: App, capsys: pytest.CaptureFixture[str]
) -> None:
    request = ReplayRequest(app.name, Candidate("sim/renewals"))
    with pytest.raises(typer.Exit) as left:
        free_and_exit([request], as_json=True, incumbent=False)
    report = json.loads(capsys.readouterr().out)
    assert (report["mode"], report["verdict"], left.value.exit_code) == ("free", "inconclusive", 4)
    assert report["stopped_because"] in {"no_incumbent", "coverage"}


def untimed(done: FreeDone) -> dict[str, object]:
    return {name: value for name, value in done.report.items() if name != "timings"}


def test_what_holds_no_events_cannot_be_lived_again(workplace: Path, app: App) -> None:
    request = ReplayRequest(app.name, Candidate("sim/renewals"), segment_file=workplace / "week.parquet")
    with pytest.raises(UsageError, match="a segment file"):
        run_free([request])
