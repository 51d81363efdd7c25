"""What was deleted from the log is told by every command that reads history from it."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient
from typer.testing import CliRunner

from driftline.console.main import app as command_line
from driftline.consumers import App
from driftline.consumers.prepare import prepare
from driftline.consumers.runtime import Runtime
from driftline.examples.renewals.app import app as renewals
from driftline.log import KafkaReader, Settings
from driftline.producers import Publisher
from driftline.producers.renewals import synthetic_renewals
from driftline.replay.testing import OwnModels

pytestmark = pytest.mark.integration

NOON = datetime(2026, 10, 1, 12, tzinfo=UTC)
CUSTOMERS = 60
LOW = 5
"""The first offset that is left of every partition."""


@pytest.fixture(scope="module")
def app(cluster: Settings) -> App:
    """The renewals app with a history whose beginning is deleted, of events and of decisions."""
    app = replace(renewals, name="cutoff")
    prepare(app, cluster)
    with Publisher(app.name, source="crm", schemas=app.schemas, settings=cluster) as publisher:
        for event in synthetic_renewals(CUSTOMERS, seed=5):
            publisher.publish_event(event)
    Runtime(app, cluster, OwnModels(), lambda: NOON, seed=5).run(until_end=True)
    admin, reader = AdminClient({"bootstrap.servers": cluster.require_bootstrap()}), KafkaReader(cluster)
    topics = app.topics.events, app.topics.decisions
    cuts = [TopicPartition(topic, at, LOW) for topic in topics for at in reader.span(topic).ranges]
    for future in admin.delete_records(cuts).values():
        future.result(60)
    return app


@pytest.fixture
def workplace(tmp_path: Path, cluster: Settings, app: App, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder: the app as a module of hers, and the cluster in the environment."""
    module = "from dataclasses import replace\nfrom driftline.examples.renewals.app import app as renewals\n"
    (tmp_path / "my_cutoff_app.py").write_text(f"{module}app = replace(renewals, name={app.name!r})\n")
    (tmp_path / "driftline.toml").write_text(f'[apps]\n{app.name} = "my_cutoff_app:app"\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("DRIFTLINE_BOOTSTRAP_SERVERS", cluster.require_bootstrap())
    monkeypatch.setenv("DRIFTLINE_REGISTRY_URL", cluster.require_registry())
    monkeypatch.setenv("DRIFTLINE_KAFKA", json.dumps(cluster.kafka))
    monkeypatch.setenv("DRIFTLINE_HOME", str(tmp_path / "home"))
    return tmp_path


def told(*arguments: str) -> str:
    """What a command says beside its result, as one line."""
    result = CliRunner().invoke(command_line, list(arguments), env={"COLUMNS": "200"})
    assert result.exit_code in {0, 1, 4}, (result.output, result.exception)
    return " ".join(result.stderr.split())


TRIED = ("--candidate", "sim/renewals", "--max-calls", "5")
COMMANDS = {
    "forced": ("replay", *TRIED),
    "plan": ("replay", "plan", *TRIED),
    "verify": ("replay", "--mode", "verify"),
    "export": ("segment", "export", "left.parquet"),
    "free": ("replay", "--mode", "free", "--candidate", "sim/renewals"),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_where_history_begins_is_told_by_whoever_reads_it(command: str, workplace: Path, app: App) -> None:
    said = told(*COMMANDS[command], "--app", app.name)
    assert f"{app.topics.decisions}[0]: history begins at offset {LOW}, what came before is deleted" in said


def test_whole_workflows_miss_the_events_that_are_deleted_too(workplace: Path, app: App) -> None:
    assert f"{app.topics.events}[0]: history begins at offset {LOW}," in told(*COMMANDS["free"], "--app", app.name)


def test_a_selection_that_begins_later_misses_nothing(workplace: Path, app: App) -> None:
    verify = told(*COMMANDS["verify"], "--app", app.name, "--offsets", f"0:{LOW + 1}-{LOW + 3}")
    assert "history begins" not in verify
