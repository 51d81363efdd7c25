import json
from pathlib import Path

import pytest

from driftline.console.local.places import (
    default_artifacts,
    default_home,
    drop_endpoint,
    read_endpoints,
    set_endpoint,
    write_atomic,
)


def test_each_service_keeps_its_own_key(tmp_path: Path) -> None:
    set_endpoint(tmp_path, "bootstrap_servers", "127.0.0.1:9092")
    set_endpoint(tmp_path, "registry_url", "http://127.0.0.1:8081/apis/ccompat/v7")
    assert json.loads((tmp_path / "local.json").read_text()) == {
        "bootstrap_servers": "127.0.0.1:9092",
        "registry_url": "http://127.0.0.1:8081/apis/ccompat/v7",
    }
    drop_endpoint(tmp_path, "bootstrap_servers")
    assert read_endpoints(tmp_path) == {"registry_url": "http://127.0.0.1:8081/apis/ccompat/v7"}


def test_the_file_goes_with_its_last_key(tmp_path: Path) -> None:
    set_endpoint(tmp_path, "registry_url", "http://127.0.0.1:8081")
    drop_endpoint(tmp_path, "registry_url")
    assert not (tmp_path / "local.json").exists()
    drop_endpoint(tmp_path, "registry_url")


@pytest.mark.parametrize("text", ["", "{", "[]", "null"])
def test_a_damaged_endpoints_file_reads_as_empty(tmp_path: Path, text: str) -> None:
    (tmp_path / "local.json").write_text(text)
    assert read_endpoints(tmp_path) == {}


def test_an_atomic_write_leaves_nothing_but_the_file(tmp_path: Path) -> None:
    write_atomic(tmp_path / "a" / "file", "old")
    write_atomic(tmp_path / "a" / "file", "new")
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["file"]
    assert (tmp_path / "a" / "file").read_text() == "new"


def test_home_follows_the_configuration_and_the_environment_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DRIFTLINE_HOME", raising=False)
    (tmp_path / "driftline.toml").write_text('home = "kept/here"\n')
    assert default_home() == tmp_path / "kept" / "here"
    monkeypatch.setenv("DRIFTLINE_HOME", "elsewhere")
    assert default_home() == tmp_path / "elsewhere"


def test_home_and_artifacts_follow_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DRIFTLINE_HOME", raising=False)
    monkeypatch.delenv("DRIFTLINE_ARTIFACTS", raising=False)
    assert default_home() == tmp_path / ".driftline"
    monkeypatch.setenv("DRIFTLINE_HOME", "elsewhere")
    assert default_home() == tmp_path / "elsewhere"
    assert default_artifacts() == tmp_path / "elsewhere" / "artifacts"
    monkeypatch.setenv("DRIFTLINE_ARTIFACTS", str(tmp_path / "jars"))
    assert default_artifacts() == tmp_path / "jars"
