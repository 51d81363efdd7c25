import json
import socket
from pathlib import Path

import pytest

from driftline.console.local import LocalKafka
from driftline.console.local.kafka import _write_properties, new_cluster_id
from driftline.console.local.service import free_port, is_free, telling_line


def test_a_port_with_a_listener_is_not_free() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        assert not is_free(listener.getsockname()[1])
    assert is_free(free_port())


def test_nothing_is_touched_before_a_start(tmp_path: Path) -> None:
    kafka = LocalKafka(tmp_path / "home")
    assert not kafka.status().running
    assert not kafka.stop()
    assert kafka.logs() == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("record", ["", "{}", '{"pid": 1}', "[]"])
def test_a_damaged_run_record_reads_as_not_running(tmp_path: Path, record: str) -> None:
    (tmp_path / "kafka").mkdir()
    (tmp_path / "kafka" / "run.json").write_text(record)
    assert not LocalKafka(tmp_path).status().running


def test_a_run_record_with_a_recycled_pid_reads_as_not_running(tmp_path: Path) -> None:
    (tmp_path / "kafka").mkdir()
    run = {"pid": 1, "birth": "before", "port": 1, "version": "4", "work": "/nowhere", "ephemeral": False}
    (tmp_path / "kafka" / "run.json").write_text(json.dumps(run))
    kafka = LocalKafka(tmp_path)
    assert not kafka.status().running
    assert not kafka.stop()


def test_cluster_ids_have_kafkas_form() -> None:
    identities = [new_cluster_id() for _ in range(500)]
    assert {len(identity) for identity in identities} == {22}
    assert not any(identity.startswith("-") for identity in identities)


def test_properties_survive_any_path(tmp_path: Path) -> None:
    path = _write_properties(tmp_path / "p", {"log.dirs": "/häus/a b\\c/𝄞"})
    assert path.read_text() == "log.dirs=/h\\u00e4us/a b\\\\c/\\ud834\\udd1e\n"


@pytest.mark.parametrize(
    ("log", "told"),
    [
        ([], "it logged nothing"),
        (["", "Killed", ""], "Killed"),
        (["12:00 ERROR no room (Kafka)", "bye"], "no room (Kafka)"),
        (
            ["ERROR Exiting (Kafka)", "java.lang.RuntimeException: wrong node", "\tat a.b(C.java:1)"],
            "java.lang.RuntimeException: wrong node",
        ),
        (["a.AException: outer", "Caused by: b.BException: inner", "\tat x"], "b.BException: inner"),
    ],
)
def test_the_line_that_tells_most_is_found(log: list[str], told: str) -> None:
    assert telling_line(log) == told
