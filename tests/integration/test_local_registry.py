"""The local schema registry, started for real."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from tests.ports import steady_port

from driftline.console.local import LocalRegistry, read_endpoints
from driftline.console.local.processes import birth_of, wait_until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]

RECORD = '{"type": "record", "name": "Thing", "namespace": "test", "fields": [{"name": "a", "type": "string"}]}'


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[LocalRegistry]:
    registry = LocalRegistry(tmp_path / "home")
    yield registry
    registry.stop()


def _client(url: str | None) -> SchemaRegistryClient:
    """A client to be used with `with`: it keeps its connection open."""
    return SchemaRegistryClient({"url": url})


def _register(url: str | None) -> int:
    with _client(url) as client:
        return int(client.register_schema("thing", Schema(RECORD, "AVRO")))


def test_an_ephemeral_registry_registers_and_leaves_nothing(registry: LocalRegistry, tmp_path: Path) -> None:
    started = registry.start(ephemeral=True)
    assert started.started_now
    assert started.pid is not None
    assert read_endpoints(tmp_path / "home") == {"registry_url": started.url}
    identity = _register(started.url)
    with _client(started.url) as client:
        assert client.get_schema(identity).schema_type == "AVRO"
    again = registry.start()
    assert (again.pid, again.started_now) == (started.pid, False)

    assert registry.stop()

    assert birth_of(started.pid) is None
    assert read_endpoints(tmp_path / "home") == {}
    assert sorted(path.name for path in (tmp_path / "home" / "registry").iterdir()) == [".lock", "registry.log"]


def test_a_killed_registry_starts_again_with_its_schemas(registry: LocalRegistry) -> None:
    started = registry.start(steady_port(), die_with_caller=True)
    identity = _register(started.url)
    assert started.pid is not None
    os.kill(started.pid, signal.SIGKILL)
    assert wait_until(lambda: not registry.status().running, 10)

    again = registry.start(die_with_caller=True)
    assert again.url == started.url
    with _client(again.url) as client:
        assert client.get_subjects() == ["thing"]
        assert client.get_latest_version("thing").schema_id == identity
