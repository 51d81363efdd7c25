"""A replay that diverges reaches a person, by exporter, Prometheus, Alertmanager and webhook; so does a missing one.

The configuration is that of `deploy/`, copied with nothing replaced but addresses and durations, so that a day passes
in seconds. Prometheus and Alertmanager are Debian's; where they are not installed the tests skip and say what to do.
"""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace as changed
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from driftline.console.common import Log
from driftline.console.publishing import publish_night
from driftline.console.replay_run import ReplayDone, ReplayRequest, run_replay
from driftline.consumers import App
from driftline.consumers.prepare import prepare
from driftline.consumers.runtime import Runtime
from driftline.examples.renewals.app import app as renewals
from driftline.log import Coordinates, Settings
from driftline.producers import Publisher
from driftline.producers.renewals import synthetic_renewals
from driftline.replay import Candidate, Limits
from driftline.replay.testing import OwnModels
from driftline.schemas import Contracts

PROMETHEUS, ALERTMANAGER = shutil.which("prometheus"), shutil.which("prometheus-alertmanager")
pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(
        PROMETHEUS is None or ALERTMANAGER is None,
        reason="Prometheus and Alertmanager are not installed: run `deploy/setup.sh monitoring` as root",
    ),
]

DEPLOY = Path(__file__).parents[2] / "deploy"
NAME, IDLE = "watched", "never-replayed"
CANDIDATE = "sim/renewals-inflated"
CUSTOMERS = 400
NOON = datetime(2026, 10, 1, 12, tzinfo=UTC)
MAIN = "from driftline.console.main import main; main()"
DEADLINE_S = 60.0
POLL_S = 0.1
RUNBOOKS = "https://runbooks.example.org/driftline"

Alert = Mapping[str, Any]


class Webhook:
    """What a person's receiver would be: takes Alertmanager's messages."""

    def __init__(self) -> None:
        self._alerts: list[Alert] = []
        self._arrived = threading.Condition()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def wait_for(self, name: str, app: str) -> Alert:
        """The first firing alert of this name and app; fails at the deadline, with what came instead."""
        deadline = time.monotonic() + DEADLINE_S
        with self._arrived:
            while (left := deadline - time.monotonic()) > 0:
                for alert in self._alerts:
                    if _is(alert, name, app):
                        return alert
                self._arrived.wait(left)
            raise AssertionError(f"no {name} of {app} came, but {[alert['labels'] for alert in self._alerts]}")

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        webhook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with webhook._arrived:
                    webhook._alerts.extend(message["alerts"])
                    webhook._arrived.notify_all()
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        return Handler


def _is(alert: Alert, name: str, app: str) -> bool:
    labels = alert["labels"]
    return alert["status"] == "firing" and (labels["alertname"], labels.get("app")) == (name, app)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=60) as answer:
        return bytes(answer.read())


def until(ready: Callable[[], bool], what: Callable[[], str]) -> None:
    """Poll until it is so; fails at the deadline."""
    deadline = time.monotonic() + DEADLINE_S
    while not ready():
        assert time.monotonic() < deadline, what()
        time.sleep(POLL_S)


def answers(url: str) -> bool:
    try:
        return bool(get(url))
    except OSError:
        return False


@contextmanager
def running(command: list[str], log: Path, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The process, ended by SIGTERM after the block."""
    with log.open("wb") as told, subprocess.Popen(command, stdout=told, stderr=told, cwd=folder) as process:
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)


def replaced(path: Path, changes: Mapping[str, str]) -> str:
    """A file of `deploy/` with patterns replaced, each of which must be in it."""
    text = path.read_text()
    for pattern, by in changes.items():
        text, times = re.subn(pattern, by, text)
        assert times, f"{path}: nothing matches {pattern}"
    return text


@pytest.fixture(scope="module")
def app(cluster: Settings) -> App:
    """The renewals app under a name of its own, with a history that its runtime decided on the broker."""
    app = changed(renewals, name=NAME)
    prepare(app, cluster)
    with Publisher(app.name, source="crm", schemas=app.schemas, settings=cluster) as publisher:
        for event in synthetic_renewals(CUSTOMERS, seed=5):
            publisher.publish_event(event)
    Runtime(app, cluster, OwnModels(), lambda: NOON, seed=5).run(until_end=True)
    return app


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory, cluster: Settings, app: App) -> Iterator[Path]:
    """A user's folder: the app as a module, one that was never run beside it, and the cluster in the environment."""
    folder = tmp_path_factory.mktemp("watched")
    module = "from dataclasses import replace\nfrom driftline.examples.renewals.app import app as renewals\n"
    (folder / "my_watched_app.py").write_text(f"{module}app = replace(renewals, name={app.name!r})\n")
    (folder / "driftline.toml").write_text(f'[apps]\n{app.name} = "my_watched_app:app"\n{IDLE} = "idle:app"\n')
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(str(folder))
        patch.setenv("DRIFTLINE_BOOTSTRAP_SERVERS", cluster.require_bootstrap())
        patch.setenv("DRIFTLINE_REGISTRY_URL", cluster.require_registry())
        patch.setenv("DRIFTLINE_KAFKA", json.dumps(cluster.kafka))
        patch.setenv("DRIFTLINE_HOME", str(folder / "home"))
        yield folder


@pytest.fixture(scope="module")
def exporter(workplace: Path) -> Iterator[int]:
    """Port of `driftline exporter`, a process of its own."""
    log = workplace / "exporter.log"
    command = [sys.executable, "-c", MAIN, "exporter", "--http-port", "0", "--every", "0.5", "--log-format", "json"]
    with running(command, log, workplace) as process:
        until(lambda: b'"serving"' in log.read_bytes() or process.poll() is not None, log.read_text)
        yield next(line["port"] for line in map(json.loads, log.read_text().splitlines()) if "port" in line)
    assert process.returncode == 0, log.read_text()


@pytest.fixture(scope="module")
def diverged(workplace: Path, app: App, exporter: int) -> ReplayDone:
    """A real replay, which publishes its alerts itself while the exporter already follows them."""
    done = run_replay(ReplayRequest(app.name, Candidate(CANDIDATE), limits=Limits(order_seed=1)))
    shown = f'candidate="{CANDIDATE}"'.encode()
    until(lambda: shown in metrics_of(exporter), (workplace / "exporter.log").read_text)
    return done


@pytest.fixture(scope="module")
def counted(cluster: Settings, app: App, exporter: int) -> Coordinates:
    """What a night leaves that was counted whole; the next one never comes."""
    told = "2026-10-02", datetime(2026, 10, 3, tzinfo=UTC), CUSTOMERS, "equivalent", Limits()
    placed = publish_night(Log(cluster, Contracts.load()), app.name, *told)
    until(lambda: b'mode="nightly",verdict="equivalent"} 1.0' in metrics_of(exporter), lambda: "no night is shown")
    return placed


def metrics_of(exporter: int) -> bytes:
    return get(f"http://127.0.0.1:{exporter}/metrics")


@pytest.fixture(scope="module")
def webhook() -> Iterator[Webhook]:
    webhook = Webhook()
    yield webhook
    webhook.close()


@pytest.fixture(scope="module")
def alertmanager(workplace: Path, webhook: Webhook) -> Iterator[int]:
    """Port of an Alertmanager with the configuration of `deploy/`."""
    assert ALERTMANAGER is not None
    changes = {r"127\.0\.0\.1:9095": f"127.0.0.1:{webhook.port}", "group_wait: 30s": "group_wait: 0s"}
    changes["group_interval: 5m"] = "group_interval: 1s"
    (workplace / "alertmanager.yml").write_text(replaced(DEPLOY / "alertmanager" / "alertmanager.yml", changes))
    port = free_port()
    command = [ALERTMANAGER, "--config.file=alertmanager.yml", f"--storage.path={workplace / 'alertmanager'}"]
    command += [f"--web.listen-address=127.0.0.1:{port}", "--cluster.listen-address="]
    log = workplace / "alertmanager.log"
    with running(command, log, workplace):
        until(lambda: answers(f"http://127.0.0.1:{port}/-/ready"), log.read_text)
        yield port


@pytest.fixture(scope="module")
def prometheus(
    workplace: Path, diverged: ReplayDone, counted: Coordinates, exporter: int, alertmanager: int
) -> Iterator[str]:
    """URL of a Prometheus with the configuration and rules of `deploy/`, at a pace that a test can wait for.

    It starts after the replay and the night: before that, the app would be one that never ran its job.
    """
    assert PROMETHEUS is not None
    rules = {r"for: \w+": "for: 0s", r"> 26 \* 3600": "> 2"}
    (workplace / "rules.yml").write_text(replaced(DEPLOY / "prometheus" / "rules.yml", rules))
    scraped = {"interval: 15s": "interval: 500ms", r"127\.0\.0\.1:9465": f"127.0.0.1:{exporter}"}
    scraped[r"127\.0\.0\.1:9093"] = f"127.0.0.1:{alertmanager}"
    (workplace / "prometheus.yml").write_text(replaced(DEPLOY / "prometheus" / "prometheus.yml", scraped))
    url = f"http://127.0.0.1:{free_port()}"
    command = [PROMETHEUS, "--config.file=prometheus.yml", f"--storage.tsdb.path={workplace / 'tsdb'}"]
    command += [f"--web.listen-address={url.removeprefix('http://')}", "--log.level=warn"]
    log = workplace / "prometheus.log"
    with running(command, log, workplace):
        until(lambda: answers(f"{url}/-/ready"), log.read_text)
        yield url


def test_a_divergence_reaches_the_webhook_with_what_a_person_needs_to_judge_it(
    prometheus: str, diverged: ReplayDone, webhook: Webhook
) -> None:
    assert diverged.report["verdict"] == "diverged"
    alert = webhook.wait_for("DriftlineDiverged", NAME)
    assert alert["labels"] == {
        "alertname": "DriftlineDiverged",
        "app": NAME,
        "candidate": CANDIDATE,
        "mode": "forced",
        "severity": "page",
    }
    assert alert["annotations"]["runbook_url"] == f"{RUNBOOKS}/DriftlineDiverged.md"
    told = alert["annotations"]["description"]
    found = re.search(
        r"changed by (\S+)%, interval (\S+)% to (\S+)%, after (\d+) pairs, e-value (\S+)\. Named strata:", told
    )
    assert found, told
    rate, low, high, pairs, e_value = (float(number) for number in found.groups())
    assert low <= rate <= high
    assert pairs == diverged.report["events_at_stop"] >= 30
    assert e_value == pytest.approx(diverged.report["e_value"], rel=0.01)


def test_a_job_that_runs_no_more_is_told_of_with_a_day_shortened_to_seconds(
    prometheus: str, webhook: Webhook
) -> None:
    alert = webhook.wait_for("DriftlineNightlyMissing", NAME)
    assert " ago. Nothing watches" in alert["annotations"]["description"]
    assert alert["annotations"]["runbook_url"] == f"{RUNBOOKS}/DriftlineNightlyMissing.md"


def test_a_job_that_never_ran_is_told_of_too(prometheus: str, webhook: Webhook) -> None:
    alert = webhook.wait_for("DriftlineNightlyMissing", IDLE)
    assert "was counted never." in alert["annotations"]["description"]


def dashboard_queries() -> list[str]:
    """Every query of every dashboard, with Grafana's variables as Grafana fills them in."""
    dashboards = [json.loads(path.read_text()) for path in sorted((DEPLOY / "grafana" / "dashboards").glob("*.json"))]
    found = [
        target["expr"] for board in dashboards for panel in board["panels"] for target in panel.get("targets", [])
    ]
    filled = {"$__rate_interval": "1m", "$__range": "1h", "$app": "watched", "$candidate": ".*"}
    for variable, value in filled.items():
        found = [query.replace(variable, value) for query in found]
    return found


def test_prometheus_accepts_every_query_of_the_dashboards(prometheus: str) -> None:
    queries = dashboard_queries()
    assert len(queries) > 20
    for query in queries:
        answer = json.loads(get(f"{prometheus}/api/v1/query?{urllib.parse.urlencode({'query': query})}"))
        assert answer["status"] == "success", query
