"""`driftline run` as an operator has it: several processes, deaths among them, and stops."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.ports import steady_port

from driftline.console.supervisor import ProcessesFailed, RestartLimits, Supervisor
from driftline.consumers import App
from driftline.consumers.prepare import prepare
from driftline.examples.renewals.app import app as renewals
from driftline.log import KafkaReader, Settings
from driftline.producers import Publisher
from driftline.producers.renewals import synthetic_renewals
from driftline.schemas import Codec, Decision, Registry

pytestmark = pytest.mark.integration

DRIFTLINE = Path(sys.executable).with_name("driftline")
WAIT_S = 90.0
APP = """
from dataclasses import replace
from driftline.examples.renewals.app import app as renewals

(boundary,) = renewals.boundaries
slow = replace(boundary, parameters={{"sim_latency_ms": {latency_ms}, "sim_sleep": True}})
app = replace(renewals, name="{name}", boundaries=[slow])
"""


def wait_until(condition: Callable[[], bool], what: str, run: subprocess.Popen[str] | None = None) -> None:
    """Wait for what another process does; at once an error when that one has ended."""
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert run is None or run.poll() is None, f"it ended before {what}: {run.communicate()}"
        assert time.monotonic() < deadline, f"waited in vain until {what}"
        time.sleep(0.05)


class Shop:
    """One app with slow models, its log, and the command line over it."""

    def __init__(self, name: str, settings: Settings, folder: Path, latency_ms: int) -> None:
        self.app: App = replace(renewals, name=name)
        self._settings = settings
        self._folder = folder
        self._runs: list[subprocess.Popen[str]] = []
        (folder / f"{name}_shop.py").write_text(APP.format(name=name, latency_ms=latency_ms))
        self.reference = f"{name}_shop:app"
        self.environment = {
            **os.environ,
            "DRIFTLINE_HOME": str(folder / "home"),
            "DRIFTLINE_BOOTSTRAP_SERVERS": settings.require_bootstrap(),
            "DRIFTLINE_REGISTRY_URL": settings.require_registry(),
            "DRIFTLINE_KAFKA": json.dumps(settings.kafka),
            "DRIFTLINE_PARTITIONS": str(settings.partitions),
        }
        prepare(self.app, settings)

    def publish(self, events: int) -> None:
        with Publisher(self.app.name, self.app.schemas, self._settings, source="crm") as publisher:
            for event in synthetic_renewals(events, 1):
                publisher.publish_event(event)

    def start(self, *options: str) -> subprocess.Popen[str]:
        run = subprocess.Popen(
            [DRIFTLINE, "run", self.reference, "--json", *options],
            cwd=self._folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._runs.append(run)
        return run

    def end(self) -> None:
        for run in self._runs:
            run.kill()
            run.communicate()

    def decisions(self) -> list[Decision]:
        reader = KafkaReader(self._settings)
        codec = Codec(Registry(self._settings.require_registry()), self.app.contracts)
        records = reader.read(reader.span(self.app.topics.decisions))
        return [Decision.model_validate(codec.decode(record.value).value) for record in records]

    def decided(self) -> int:
        reader = KafkaReader(self._settings)
        return sum(1 for _ in reader.read(reader.span(self.app.topics.decisions)))


MakeShop = Callable[..., Shop]


@pytest.fixture
def make_shop(cluster: Settings, app_name: str, tmp_path: Path) -> Iterator[MakeShop]:
    made: list[Shop] = []

    def make(latency_ms: int = 200) -> Shop:
        made.append(Shop(app_name, cluster, tmp_path, latency_ms))
        return made[-1]

    yield make
    for shop in made:
        shop.end()


def children_of(pid: int) -> dict[int, int]:
    """Process ids of a supervisor's processes, by slot."""
    found = {}
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        words = Path(f"/proc/{child}/cmdline").read_text().split("\0")
        if "--slot" in words:
            found[int(words[words.index("--slot") + 1])] = int(child)
    return found


def ask(port: int, path: str) -> tuple[int, str]:
    """Status and body; 0 where nobody answers yet."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    except OSError:
        return 0, ""
    finally:
        connection.close()


def test_a_process_that_is_killed_is_started_again_and_every_event_is_decided_once(make_shop: MakeShop) -> None:
    shop = make_shop(latency_ms=500)
    shop.publish(80)
    port = steady_port(3)
    run = shop.start("--processes", "2", "--until-end", "--in-flight", "4", "--http-port", str(port))
    wait_until(lambda: shop.decided() > 0 and len(children_of(run.pid)) == 2, "decisions are committed", run)
    wait_until(lambda: ask(port, "/readyz")[0] == 200, "every process is ready", run)
    killed = children_of(run.pid)
    os.kill(killed[0], signal.SIGKILL)
    wait_until(lambda: children_of(run.pid).get(0, killed[0]) != killed[0], "the process is started again", run)
    counted = f'driftline_process_restarts_total{{app="{shop.app.name}",slot="0"}} 1.0'
    wait_until(lambda: counted in ask(port, "/metrics")[1], "the restart is counted", run)
    stdout, stderr = run.communicate(timeout=WAIT_S)
    assert run.returncode == 0, stderr
    decisions = shop.decisions()
    assert Counter((d.input.partition, d.input.offset) for d in decisions).most_common(1)[0][1] == 1
    assert len(decisions) == 80
    summary = json.loads(stdout)
    # On a very slow machine the watchdog may end a process too, and says so.
    assert (summary["processes"], summary["restarts"]) == (2, stderr.count("it is started again"))
    assert 0 < sum(summary["decisions"].values()) <= 80
    assert "process 0 was ended by SIGKILL; it is started again in" in stderr


def test_a_stop_ends_all_processes_with_what_they_decided_committed(make_shop: MakeShop) -> None:
    shop = make_shop(latency_ms=400)
    shop.publish(2_000)
    run = shop.start("--processes", "2", "--in-flight", "4")
    wait_until(lambda: shop.decided() > 0, "decisions are committed", run)
    children = children_of(run.pid)
    run.send_signal(signal.SIGTERM)
    stdout, stderr = run.communicate(timeout=WAIT_S)
    assert run.returncode == 0, stderr
    assert len(children) == 2
    assert not any(Path(f"/proc/{child}").exists() for child in children.values())
    decisions = shop.decisions()
    assert 0 < len(decisions) < 2_000
    assert len(decisions) == len({d.decision_id for d in decisions}) == sum(json.loads(stdout)["decisions"].values())


def test_the_processes_end_with_a_supervisor_that_is_killed(make_shop: MakeShop) -> None:
    shop = make_shop()
    run = shop.start("--processes", "2")
    wait_until(lambda: len(children_of(run.pid)) == 2, "two processes run", run)
    children = children_of(run.pid)
    run.kill()
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in children.values()), "they have ended")


def test_a_process_that_always_fails_ends_as_a_crash_loop_that_says_why(cluster: Settings) -> None:
    brokers = {"DRIFTLINE_BOOTSTRAP_SERVERS": cluster.require_bootstrap()}
    dead = {**os.environ, **brokers, "DRIFTLINE_REGISTRY_URL": "http://127.0.0.1:1"}
    supervisor = Supervisor(
        lambda slot: [str(DRIFTLINE), "run", "driftline.examples.renewals.app:app", "--slot", str(slot)],
        slots=[0],
        environment=dead,
        limits=RestartLimits(restarts_max=1, backoff_s_first=0.01),
    )
    with pytest.raises(ProcessesFailed, match="crash loop") as caught:
        supervisor.run()
    assert "process 0 ended with exit code 3 (no schema registry answers at http://127.0.0.1:1" in str(caught.value)
    assert (caught.value.exit_code, supervisor.restarts()) == (3, 1)


def test_what_no_restart_can_mend_ends_all_at_once(make_shop: MakeShop) -> None:
    shop = make_shop()
    run = shop.start("--processes", "2", "--http-port", "65535")
    stdout, stderr = run.communicate(timeout=WAIT_S)
    assert (run.returncode, stdout) == (2, "")
    last = stderr.splitlines()[-1]
    assert re.match(r"driftline: process [01] ended with exit code 2 \(Invalid value for '--http-port'", last), last
    assert "and was not started again" in last


def test_one_process_serves_its_health_while_it_runs(make_shop: MakeShop) -> None:
    shop = make_shop()
    port = steady_port()
    run = shop.start("--http-port", str(port))
    wait_until(lambda: ask(port, "/readyz")[0] == 200, "it is ready", run)
    assert ask(port, "/livez")[0] == 200
    assert "process_resident_memory_bytes" in ask(port, "/metrics")[1]
    run.send_signal(signal.SIGTERM)
    _, stderr = run.communicate(timeout=WAIT_S)
    assert run.returncode == 0, stderr
    assert ask(port, "/livez")[0] == 0
