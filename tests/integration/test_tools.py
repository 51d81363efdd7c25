"""Tools on the real broker: decisions hold what the model read, and a replay asks nobody and leaves no trace."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from tests.integration.traces import ends, groups, positions
from typer.testing import CliRunner

from driftline.console.main import app as command_line
from driftline.consumers import App, Tool
from driftline.consumers.models import LiteLLMProposer
from driftline.consumers.prepare import prepare
from driftline.consumers.runtime import Runtime
from driftline.examples.renewals.app import app as renewals
from driftline.log import KafkaReader, Settings
from driftline.producers import Publisher
from driftline.producers.renewals import synthetic_renewals
from driftline.replay import Segment, Selection, load_segment
from driftline.schemas import Codec, Registry, content_hash

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore:.*using the `ReadOnly` qualifier:UserWarning"),
]

NAME = "reading"
CUSTOMERS = 240
NOON = datetime(2026, 10, 1, 12, tzinfo=UTC)
MODULE = """
from dataclasses import replace
from pathlib import Path
from pydantic import BaseModel
from driftline.consumers import Tool
from driftline.examples.renewals.app import app as renewals

class Customer(BaseModel):
    customer_id: str

def tickets(customer):
    with Path({calls!r}).open("a") as calls:
        calls.write(customer.customer_id + "\\n")
    return {{"open": len(customer.customer_id)}}

tool = Tool("tickets", "Open tickets of a customer.", Customer, tickets)
app = replace(renewals, name={name!r}, boundaries=[replace(renewals.boundaries[0], tools=[tool])])
"""


class Customer(BaseModel):
    """What the tool is asked with."""

    customer_id: str


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the tool writes down that it was asked."""
    return tmp_path_factory.mktemp("tools") / "calls"


@pytest.fixture(scope="module")
def app(cluster: Settings, calls: Path) -> App:
    """The renewals app with a tool, and a history that its runtime decided on the broker."""

    def tickets(customer: Customer) -> Mapping[str, Any]:
        with calls.open("a") as file:
            file.write(f"{customer.customer_id}\n")
        return {"open": len(customer.customer_id)}

    tool = Tool("tickets", "Open tickets of a customer.", Customer, tickets)
    app = replace(renewals, name=NAME, boundaries=[replace(renewals.boundaries[0], tools=[tool])])
    prepare(app, cluster)
    with Publisher(app.name, source="crm", schemas=app.schemas, settings=cluster) as publisher:
        for event in synthetic_renewals(CUSTOMERS, seed=5):
            publisher.publish_event(event)
    Runtime(app, cluster, LiteLLMProposer(), lambda: NOON, seed=5).run(until_end=True)
    return app


@pytest.fixture(scope="module")
def segment(app: App, cluster: Settings) -> Segment:
    codec = Codec(Registry(cluster.require_registry()), app.contracts)
    return load_segment(KafkaReader(cluster), codec, app.name, Selection())


@pytest.fixture
def workplace(tmp_path: Path, cluster: Settings, app: App, calls: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder: the app as a module of hers, and the cluster in the environment."""
    (tmp_path / "my_reading_app.py").write_text(MODULE.format(calls=str(calls), name=app.name))
    (tmp_path / "driftline.toml").write_text(f'[apps]\n{app.name} = "my_reading_app:app"\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("DRIFTLINE_BOOTSTRAP_SERVERS", cluster.require_bootstrap())
    monkeypatch.setenv("DRIFTLINE_REGISTRY_URL", cluster.require_registry())
    monkeypatch.setenv("DRIFTLINE_HOME", str(tmp_path / "home"))
    return tmp_path


def replayed(app: App, *options: str) -> tuple[int, dict[str, Any]]:
    """Exit code and report of the command."""
    ran = CliRunner().invoke(command_line, ["replay", "--app", app.name, "--json", *options])
    assert ran.exit_code in {0, 1, 4}, (ran.stderr, ran.exception)
    report: dict[str, Any] = json.loads(ran.stdout)
    return ran.exit_code, report


def test_the_decisions_on_the_log_hold_what_the_model_read(segment: Segment, calls: Path) -> None:
    assert len(segment.decisions) == CUSTOMERS
    for logged in segment.decisions:
        (read,) = logged.decision.attempts[0].reads
        customer = logged.decision.workflow
        assert (read.name, read.status, read.round) == ("tickets", "ok", 1)
        assert read.arguments == f'{{"customer_id":"{customer}"}}'
        assert read.answer == f'{{"open":{len(customer)}}}'
        assert read.answer_hash == content_hash(read.answer)
    asked = calls.read_text().split()
    assert sorted(asked) == sorted(logged.decision.workflow for logged in segment.decisions)


MODES = {
    "the same model": (("--candidate", "sim/renewals"), {"equivalent", "inconclusive"}),
    "another model": (("--candidate", "sim/renewals-inflated"), {"diverged"}),
    "another model, free": (("--mode", "free", "--candidate", "sim/renewals-inflated"), None),
    "beside the incumbent": (
        ("--candidate", "sim/renewals-inflated", "--incumbent", "sim/renewals"),
        {"diverged"},
    ),
}


@pytest.mark.parametrize("mode", MODES)
def test_a_replay_asks_no_tool_leaves_no_trace_and_comes_to_its_verdict(
    mode: str, app: App, segment: Segment, cluster: Settings, workplace: Path, calls: Path
) -> None:
    options, verdicts = MODES[mode]
    before, groups_before = (ends(cluster, f"{app.name}."), positions(cluster, app.group)), groups(cluster)
    calls_before = calls.read_text()
    code, report = replayed(app, *options)
    assert verdicts is None or report["verdict"] in verdicts
    assert code == {"equivalent": 0, "diverged": 1, "inconclusive": 4}[report["verdict"]]
    assert report["coverage"] == 1.0
    assert (ends(cluster, f"{app.name}."), positions(cluster, app.group)) == before
    assert groups(cluster) <= groups_before
    assert calls.read_text() == calls_before


def test_calls_that_the_log_has_no_answer_to_cost_the_verdict_and_are_named(
    app: App, segment: Segment, workplace: Path, calls: Path
) -> None:
    before = calls.read_text()
    code, report = replayed(app, "--candidate", "sim/renewals", "--param", "sim_stray_reads=1")
    assert (code, report["verdict"], report["stopped_because"]) == (4, "inconclusive", "coverage")
    assert "the log has no answer of the tool tickets to" in json.dumps(report["lost"])
    assert calls.read_text() == before
