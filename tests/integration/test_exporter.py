"""The exporter on a real broker: what it shows, that it follows, and that nothing that goes away ends it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace as changed
from datetime import UTC, datetime
from pathlib import Path
from urllib.request import urlopen

import pytest
from tests.ports import steady_port

from driftline.console.exporting import Watcher, read_standing
from driftline.console.exporting.collector import LogState
from driftline.console.health import Health
from driftline.console.local import LocalKafka, LocalRegistry
from driftline.consumers import App
from driftline.consumers.prepare import prepare
from driftline.consumers.runtime import Runtime
from driftline.examples.renewals.app import app as renewals
from driftline.log import ALERTS, KafkaReader, Outgoing, Settings, TopicAdmin, TransactionalWriter
from driftline.log.clients import make_producer
from driftline.log.topics import own_specs
from driftline.producers import Publisher
from driftline.producers.renewals import synthetic_renewals
from driftline.replay import ReplayWriter, publish_alerts
from driftline.replay.alerting import TRANSACTIONAL_ID_PREFIX
from driftline.replay.testing import OwnModels
from driftline.schemas import ArmRef, Codec, Contracts, Registry, ReplayCompleted, UsageError

pytestmark = pytest.mark.integration

NOON = datetime(2026, 10, 1, 12, tzinfo=UTC)
MAIN = "from driftline.console.main import main; main()"
DEADLINE_S = 60.0
POLL_S = 0.05
CUSTOMERS = 40


def completed(app: str, run_id: str, verdict: str = "equivalent") -> ReplayCompleted:
    arm = ArmRef(model="acme/two", prompt_hash="p", verifier_version="v")
    return ReplayCompleted(
        run_id=run_id,
        app=app,
        mode="forced",
        baseline=arm,
        candidate=arm,
        verdict=verdict,
        stopped_because="equivalent",
        alpha=0.05,
        delta=0.05,
        events=1,
        compared=1,
        paid_calls=1,
        overspent_calls=0,
        cost_usd=None,
        coverage=1.0,
        e_value=1.0,
        strata=(),
        completed_at=NOON,
    )


def tell(settings: Settings, alert: ReplayCompleted) -> None:
    """Publish an alert as a replay does."""
    codec = Codec(Registry(settings.require_registry()), Contracts.load())
    writer = TransactionalWriter(settings, f"{TRANSACTIONAL_ID_PREFIX}.{alert.run_id}")
    try:
        publish_alerts(ReplayWriter(writer), KafkaReader(settings), codec, [alert])
    finally:
        writer.close()


class Shown:
    """Keeps what the watcher shows; tests wait for what they expect of it."""

    def __init__(self) -> None:
        self._state = LogState()
        self._changed = threading.Condition()

    def show(self, state: LogState) -> None:
        with self._changed:
            self._state = state
            self._changed.notify_all()

    def wait_for(self, expected: Callable[[LogState], bool]) -> LogState:
        """The first state that is as expected; fails at the deadline."""
        with self._changed:
            assert self._changed.wait_for(lambda: expected(self._state), DEADLINE_S), self._state
            return self._state


@contextmanager
def watching(settings: Settings) -> Iterator[Shown]:
    """A watcher in a thread, which must end by itself once it is asked to."""
    shown, stop = Shown(), threading.Event()
    watcher = Watcher(settings, shown.show, Health(), look_s=POLL_S, retry_s=POLL_S)
    thread = threading.Thread(target=watcher.run, args=(stop.is_set,))
    thread.start()
    try:
        yield shown
    finally:
        stop.set()
        thread.join(DEADLINE_S)
    assert not thread.is_alive()


def verdict_of(state: LogState, app: str) -> str | None:
    seen = state.board.replays.get((app, "forced", "acme/two")) if state.board else None
    return seen.completed.verdict if seen else None


@pytest.fixture
def app(cluster: Settings, app_name: str) -> App:
    app = changed(renewals, name=app_name)
    prepare(app, cluster)
    return app


def publish(app: App, cluster: Settings) -> None:
    with Publisher(app.name, source="crm", schemas=app.schemas, settings=cluster) as publisher:
        for event in synthetic_renewals(CUSTOMERS, seed=5):
            publisher.publish_event(event)


def test_alerts_are_shown_from_the_beginning_of_the_topic_and_followed(app: App, cluster: Settings) -> None:
    tell(cluster, completed(app.name, f"{app.name}-1"))
    with watching(cluster) as shown:
        assert shown.wait_for(lambda state: verdict_of(state, app.name) == "equivalent").up
        tell(cluster, completed(app.name, f"{app.name}-2", "diverged"))
        shown.wait_for(lambda state: verdict_of(state, app.name) == "diverged")


def test_a_record_that_is_no_alert_is_counted_and_what_comes_after_it_is_shown(app: App, cluster: Settings) -> None:
    writer = TransactionalWriter(cluster, f"{TRANSACTIONAL_ID_PREFIX}.{app.name}-none")
    ReplayWriter(writer).commit([Outgoing(ALERTS, b"k", b"not an alert", 1_800_000_000_000)])
    writer.close()
    tell(cluster, completed(app.name, f"{app.name}-1"))
    with watching(cluster) as shown:
        assert shown.wait_for(lambda state: verdict_of(state, app.name) == "equivalent").unreadable >= 1


@pytest.mark.parametrize("options", [(), ("--json",)], ids=["lines", "json"])
def test_a_record_that_is_no_alert_is_listed_with_its_coordinates_and_hides_no_other(
    app: App, cluster: Settings, options: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = TransactionalWriter(cluster, f"{TRANSACTIONAL_ID_PREFIX}.{app.name}-none")
    (at,) = ReplayWriter(writer).commit([Outgoing(ALERTS, app.name.encode(), b"not an alert", 1_800_000_000_000)])
    writer.close()
    tell(cluster, completed(app.name, f"{app.name}-1"))
    monkeypatch.setenv("DRIFTLINE_BOOTSTRAP_SERVERS", cluster.require_bootstrap())
    monkeypatch.setenv("DRIFTLINE_REGISTRY_URL", cluster.require_registry())
    words = [sys.executable, "-c", MAIN, "alerts", "--app", app.name, *options]
    done = subprocess.run(words, capture_output=True, text=True, timeout=DEADLINE_S, check=True)
    if options:
        none, alert = json.loads(done.stdout)
        assert (none["at"], set(none), alert["kind"]) == (str(at), {"at", "undecodable"}, "ReplayCompleted")
        assert none["undecodable"].startswith("not_wire_format: ")
    else:
        none, alert = done.stdout.splitlines()
        assert none.startswith(f"{at}  does not decode: not_wire_format: ")
        assert "  ReplayCompleted  " in alert


def test_lag_is_what_was_published_until_it_is_decided(app: App, cluster: Settings) -> None:
    publish(app, cluster)
    before = read_standing(cluster, app.name)
    assert before.lag == KafkaReader(cluster).span(app.topics.events).offsets >= CUSTOMERS
    Runtime(app, cluster, OwnModels(), lambda: NOON, seed=5).run(until_end=True)
    # Behind the last event of a partition lies the control record of the transaction that wrote it.
    assert read_standing(cluster, app.name).lag <= cluster.partitions


def test_what_cannot_be_decided_shows_as_growth_of_the_dead_topic(app: App, cluster: Settings) -> None:
    assert read_standing(cluster, app.name).dead == 0
    producer = make_producer(cluster, {})
    producer.produce(app.topics.events, b"no event", b"w")
    producer.flush()
    Runtime(app, cluster, OwnModels(), lambda: NOON, seed=5).run(until_end=True)
    assert read_standing(cluster, app.name).dead >= 1


def test_an_app_without_topics_is_left_out_and_hides_no_other(app: App, cluster: Settings) -> None:
    with pytest.raises(UsageError, match="no topic"):
        read_standing(cluster, "nowhere")
    settings = cluster.model_copy(update={"apps": {"nowhere": "a:b", app.name: "c:d"}})
    with watching(settings) as shown:
        assert set(shown.wait_for(lambda state: bool(state.standings)).standings) == {app.name}


def test_a_broker_that_goes_away_and_comes_back_costs_nothing_but_the_time(tmp_path: Path, cluster: Settings) -> None:
    kafka = LocalKafka(tmp_path)
    try:
        brokers = kafka.start(steady_port(), die_with_caller=True).bootstrap_servers
        settings = cluster.model_copy(update={"bootstrap_servers": brokers})
        TopicAdmin(settings).ensure(own_specs())
        tell(settings, completed("renewals", "first"))
        with watching(settings) as shown:
            shown.wait_for(lambda state: verdict_of(state, "renewals") == "equivalent")
            kafka.stop()
            away = shown.wait_for(lambda state: not state.up)
            assert verdict_of(away, "renewals") == "equivalent"
            kafka.start(die_with_caller=True)
            shown.wait_for(lambda state: state.up)
            tell(settings, completed("renewals", "second", "diverged"))
            shown.wait_for(lambda state: verdict_of(state, "renewals") == "diverged")
    finally:
        kafka.stop()


def test_a_registry_that_goes_away_is_told_though_the_broker_answers_and_nothing_new_comes(
    tmp_path: Path, cluster: Settings
) -> None:
    TopicAdmin(cluster).ensure(own_specs())
    registry = LocalRegistry(tmp_path)
    try:
        url = registry.start(steady_port(), die_with_caller=True).url
        with watching(cluster.model_copy(update={"registry_url": url, "apps": {}})) as shown:
            shown.wait_for(lambda state: state.up)
            registry.stop()
            shown.wait_for(lambda state: not state.up)
            registry.start(die_with_caller=True)
            shown.wait_for(lambda state: state.up)
    finally:
        registry.stop()


@pytest.fixture
def command(cluster: Settings, tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts `driftline exporter` in an empty folder, and ends what a test has left."""
    started: list[subprocess.Popen[bytes]] = []
    environment = {**os.environ, "DRIFTLINE_REGISTRY_URL": cluster.require_registry()}

    def start(brokers: str) -> subprocess.Popen[bytes]:
        words = [sys.executable, "-c", MAIN, "exporter", "--http-port", "0", "--every", "0.2", "--log-format", "json"]
        words += ["--candidates-max", "1000"]
        given = {**environment, "DRIFTLINE_BOOTSTRAP_SERVERS": brokers}
        with (tmp_path / "log").open("wb") as log:
            started.append(subprocess.Popen(words, stderr=log, cwd=tmp_path, env=given))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def metrics(log: Path, expected: str) -> str:
    """What the process serves, once it shows what is expected; fails at the deadline with its log."""
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        ports = [json.loads(line).get("port") for line in log.read_text().splitlines()]
        if any(ports):
            with urlopen(f"http://127.0.0.1:{ports[0]}/metrics", timeout=60) as answer:
                text: str = answer.read().decode()
            if expected in text:
                return text
        time.sleep(POLL_S)
    raise AssertionError(log.read_text())


def test_the_command_serves_what_is_on_the_log_and_sigterm_ends_it_with_0(
    app: App, cluster: Settings, command: Callable[..., subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    tell(cluster, completed(app.name, f"{app.name}-1"))
    process = command(cluster.require_bootstrap())
    text = metrics(tmp_path / "log", "driftline_exporter_up 1.0")
    assert f'app="{app.name}"' in text
    process.send_signal(signal.SIGTERM)
    assert process.wait(DEADLINE_S) == 0


def test_without_a_broker_the_command_says_so_serves_0_and_sigterm_ends_it_with_0(
    command: Callable[..., subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    process = command("127.0.0.1:1")
    metrics(tmp_path / "log", "driftline_exporter_up 0.0")
    process.send_signal(signal.SIGTERM)
    assert process.wait(DEADLINE_S) == 0
    assert "Traceback" not in (tmp_path / "log").read_text()


def test_the_command_shows_the_budget_of_the_nights_beside_it_though_the_broker_is_away(
    command: Callable[..., subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    (tmp_path / "nightly.toml").write_text("[apps.renewals.limits]\nbudget_usd = 5.0\n")
    command("127.0.0.1:1")
    assert 'driftline_nightly_budget_usd{app="renewals"} 5.0' in metrics(
        tmp_path / "log", "driftline_exporter_up 0.0"
    )
