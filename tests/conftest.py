"""What all tests share: a real local Kafka and registry a session, and names of its own for each test."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from driftline.console.local import LocalKafka, LocalRegistry
from driftline.log import Settings
from driftline.schemas import content_hash

RECORDINGS = Path(__file__).parents[2] / "shared" / "data"
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # As in a job that a shell runs in the background: every program that a test interrupts would inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
# A broker that lives for minutes never earns back what the second compiler costs.
os.environ.setdefault("JAVA_TOOL_OPTIONS", "-XX:TieredStopAtLevel=1")
CLIENTS: dict[str, str | int | bool] = {
    "fetch.wait.max.ms": 20,
    "heartbeat.interval.ms": 500,
    "reconnect.backoff.ms": 10,
    "reconnect.backoff.max.ms": 50,
}
"""For a broker on this machine and clients that live for seconds. librdkafka lets a fetch wait 500 ms at the end of a
partition, and whatever else that connection is asked waits behind it; a member learns of a rebalance from its next
heartbeat, after 3 s; a new client loses 50 ms before its first request."""


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """Settings of a real Kafka and a real registry that live as long as the session."""
    home = tmp_path_factory.mktemp("driftline")
    kafka, registry = LocalKafka(home), LocalRegistry(home)
    try:
        brokers = kafka.start(ephemeral=True).bootstrap_servers
        url = registry.start(ephemeral=True).url
        yield Settings(home=home, bootstrap_servers=brokers, registry_url=url, partitions=2, kafka=CLIENTS)
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
