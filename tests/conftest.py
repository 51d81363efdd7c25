"""What all tests share: a real local Kafka and registry a session, and names of its own for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from driftline.console.local import LocalKafka, LocalRegistry
from driftline.log import Settings
from driftline.schemas import content_hash

RECORDINGS = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """Settings of a real Kafka and a real registry that live as long as the session."""
    home = tmp_path_factory.mktemp("driftline")
    kafka, registry = LocalKafka(home), LocalRegistry(home)
    try:
        brokers = kafka.start(ephemeral=True).bootstrap_servers
        url = registry.start(ephemeral=True).url
        yield Settings(home=home, bootstrap_servers=brokers, registry_url=url, partitions=2)
    finally:
        registry.stop()
        kafka.stop()


@pytest.fixture
def app_name(request: pytest.FixtureRequest) -> str:
    """An app name that is one test's own, the same in every run: ids and simulated draws follow from it."""
    return f"app{content_hash(request.node.nodeid)[:12]}"


@pytest.fixture(scope="session")
def recordings() -> Path:
    """The folder of real models' recordings."""
    if not RECORDINGS.is_dir():
        pytest.skip("the recordings are not beside this checkout (../shared/data)")
    return RECORDINGS
