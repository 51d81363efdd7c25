import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from driftline.console.local.commands import kafka_app, registry_app

APPS = pytest.mark.parametrize(("app", "name"), [(kafka_app, "Kafka"), (registry_app, "The schema registry")])


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DRIFTLINE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@APPS
def test_status_of_nothing_exits_3_and_names_the_command(app: typer.Typer, name: str) -> None:
    result = CliRunner().invoke(app, ["status"])
    assert result.exit_code == 3
    assert result.stdout.startswith(f"{name} is not running; start it: driftline ")


@APPS
def test_status_as_json(app: typer.Typer, name: str, home: Path) -> None:
    result = CliRunner().invoke(app, ["status", "--json"])
    assert result.exit_code == 3
    status = json.loads(result.stdout)
    assert status["running"] is False
    assert status["log_file"].startswith(str(home))


@APPS
def test_stop_and_logs_of_nothing_are_no_errors(app: typer.Typer, name: str, home: Path) -> None:
    stopped = CliRunner().invoke(app, ["stop"])
    assert (stopped.exit_code, stopped.stdout) == (0, f"{name} was not running\n")
    logs = CliRunner().invoke(app, ["logs"])
    assert (logs.exit_code, logs.stdout) == (0, "")
    assert not home.exists()


@APPS
@pytest.mark.parametrize("command", ["start", "status", "stop", "logs"])
def test_every_command_has_help_with_an_example(app: typer.Typer, name: str, command: str) -> None:
    result = CliRunner().invoke(app, [command, "--help"])
    assert result.exit_code == 0
    assert f"Example: driftline {'kafka' if app is kafka_app else 'registry'} {command}" in result.stdout
