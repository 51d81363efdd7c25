"""The local Kafka, started for real: what a start, a stop and a kill leave behind."""

import os
import re
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from tests.ports import steady_port

from driftline.console.local import LocalKafka, LocalRegistry, read_endpoints, service
from driftline.console.local.errors import ExitedEarlyError, NotReadyError, OtherPortError, PortInUseError
from driftline.console.local.kafka import Proxied
from driftline.console.local.processes import birth_of, wait_until
from driftline.console.local.service import free_port

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]

CLUSTER = "[^;]*, or use an existing cluster: export DRIFTLINE_BOOTSTRAP_SERVERS=.* DRIFTLINE_REGISTRY_URL="
"""The end of every error that leaves a user without a local Kafka."""


@pytest.fixture
def kafka(tmp_path: Path) -> Iterator[LocalKafka]:
    kafka = LocalKafka(tmp_path / "home")
    yield kafka
    kafka.stop()


def _start(kafka: LocalKafka, port: int | None = None) -> str:
    """Start with durable data, and still die with the test session."""
    address = kafka.start(port, die_with_caller=True).bootstrap_servers
    assert address is not None
    return address


def _write(address: str, value: bytes) -> None:
    admin = AdminClient({"bootstrap.servers": address})
    for created in admin.create_topics([NewTopic("kept", 1, 1)]).values():
        created.result(timeout=60)
    producer = Producer({"bootstrap.servers": address, "acks": "all"})
    producer.produce("kept", value)
    assert producer.flush(10) == 0


def _read(address: str) -> bytes | None:
    consumer = Consumer({"bootstrap.servers": address, "group.id": "reader", "enable.auto.commit": False})
    try:
        consumer.assign([TopicPartition("kept", 0, 0)])
        message = consumer.poll(20)
        assert message is not None
        assert message.error() is None
        value = message.value()
        assert value is None or isinstance(value, bytes)
        return value
    finally:
        consumer.close()


def test_an_ephemeral_kafka_starts_answers_and_leaves_nothing(kafka: LocalKafka, tmp_path: Path) -> None:
    started = kafka.start(ephemeral=True)
    assert started.running
    assert started.started_now
    assert started.version.startswith("4.")
    assert started.data_dir is not None
    assert started.pid is not None
    assert started.data_dir.is_dir()
    assert read_endpoints(tmp_path / "home") == {"bootstrap_servers": started.bootstrap_servers}
    _write(str(started.bootstrap_servers), b"x")
    assert _read(str(started.bootstrap_servers)) == b"x"

    assert kafka.stop()

    assert not kafka.status().running
    assert birth_of(started.pid) is None
    assert not started.data_dir.parent.exists()
    assert read_endpoints(tmp_path / "home") == {}
    assert sorted(path.name for path in (tmp_path / "home" / "kafka").iterdir()) == [".lock", "kafka.log"]
    assert any("started" in line for line in kafka.logs())
    assert not kafka.stop()


def test_clients_of_the_proxied_listener_are_sent_to_the_proxy(tmp_path: Path) -> None:
    proxied = Proxied(free_port(), free_port())
    kafka = LocalKafka(tmp_path / "home", proxied=proxied)
    try:
        direct = kafka.start(ephemeral=True).bootstrap_servers
        ports = [_advertised_port(address) for address in (f"127.0.0.1:{proxied.port}", str(direct))]
        assert ports == [proxied.advertised_port, int(str(direct).partition(":")[2])]
    finally:
        kafka.stop()


def _advertised_port(address: str) -> int:
    (broker,) = AdminClient({"bootstrap.servers": address}).list_topics(timeout=60).brokers.values()
    return int(broker.port)


def test_two_starts_at_once_are_one_broker(kafka: LocalKafka, tmp_path: Path) -> None:
    twin = LocalKafka(tmp_path / "home")
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda each: each.start(ephemeral=True), [kafka, twin])
    assert first.pid == second.pid
    assert [first.started_now, second.started_now].count(True) == 1
    with pytest.raises(OtherPortError, match="driftline kafka stop"):
        kafka.start(port=free_port())


def test_a_killed_broker_starts_again_on_its_port_with_its_data(kafka: LocalKafka) -> None:
    address = _start(kafka, steady_port())
    _write(address, b"survivor")
    pid = kafka.status().pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    assert wait_until(lambda: not kafka.status().running, 10)

    assert _start(kafka) == address
    assert _read(address) == b"survivor"


def test_a_clean_stop_keeps_the_data(kafka: LocalKafka, tmp_path: Path) -> None:
    _write(_start(kafka), b"kept")
    assert kafka.stop()
    assert (tmp_path / "home" / "kafka" / "data" / ".kafka_cleanshutdown").exists()
    assert _read(_start(kafka)) == b"kept"


def test_a_port_in_use_is_one_line_with_a_way_out(kafka: LocalKafka) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        with pytest.raises(PortInUseError, match=f"port {port} is in use .*driftline kafka start --port{CLUSTER}"):
            kafka.start(port=port, ephemeral=True)
    assert not kafka.status().running


@pytest.mark.parametrize("kind", [LocalKafka, LocalRegistry])
def test_the_answer_of_another_on_the_port_is_not_taken_for_its_own(
    kind: type[LocalKafka] | type[LocalRegistry], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = kind(tmp_path / "home")
    other, port = kind(tmp_path / "other"), free_port()
    try:
        other.start(port, ephemeral=True)
        monkeypatch.setattr(local._service.recipe, "preferred_port", port)
        monkeypatch.setattr(service, "is_free", lambda _: True)

        assert local.start(die_with_caller=True).running

        assert str(port) not in "".join(read_endpoints(tmp_path / "home").values())
    finally:
        local.stop()
        other.stop()


def test_kafkas_of_two_homes_run_side_by_side(kafka: LocalKafka, tmp_path: Path) -> None:
    other = LocalKafka(tmp_path / "other")
    try:
        first, second = kafka.start(ephemeral=True), other.start(ephemeral=True)
        assert first.bootstrap_servers != second.bootstrap_servers
        assert other.stop()
        assert kafka.status().running
    finally:
        other.stop()


def test_a_broker_that_cannot_start_shows_why(kafka: LocalKafka, tmp_path: Path) -> None:
    _start(kafka)
    kafka.stop()
    (tmp_path / "home" / "kafka" / "data" / "meta.properties").write_text(
        "version=1\ncluster.id=damaged\nnode.id=7\n"
    )
    with pytest.raises(ExitedEarlyError, match=r"(?i)kafka ended before it answered: java.*node") as raised:
        _start(kafka)
    assert re.search(CLUSTER, raised.value.mend)
    assert "\n" not in raised.value.mend
    assert raised.value.log_tail
    assert not kafka.status().running


def test_a_broker_that_is_not_ready_in_time_is_one_line_with_a_way_out(
    kafka: LocalKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka._service.recipe, "ready_timeout_s", 0.0)
    with pytest.raises(NotReadyError, match=f"did not answer within 0 s; see why: driftline kafka logs{CLUSTER}"):
        _start(kafka)
    assert not kafka.status().running
