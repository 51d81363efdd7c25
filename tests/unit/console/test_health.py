"""Health over HTTP, asked as a probe asks."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Counter

from driftline.console.health import Health, HealthServer, health_endpoints
from driftline.console.supervised_run import child_port, supervisor_endpoints
from driftline.schemas import UsageError


class Clock:
    """A clock that tests advance."""

    def __init__(self) -> None:
        self.time = 100.0

    def __call__(self) -> float:
        return self.time


class Probe:
    """Asks one server."""

    def __init__(self, port: int) -> None:
        self.port = port

    def ask(self, path: str, method: str = "GET", **headers: str) -> tuple[int, str, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        found = answer.status, answer.headers["Content-Type"], answer.read().decode()
        connection.close()
        return found

    def json(self, path: str) -> tuple[int, dict[str, Any]]:
        status, _, body = self.ask(path)
        return status, json.loads(body)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def health(clock: Clock) -> Health:
    return Health(clock)


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def probe(health: Health, registry: CollectorRegistry) -> Iterator[Probe]:
    with HealthServer(health_endpoints(health, registry), port=0, host="127.0.0.1") as server:
        yield Probe(server.port)


def test_it_begins_alive_and_not_ready(probe: Probe) -> None:
    assert probe.json("/livez") == (200, {"live": True, "last_beat_s": 0.0})
    assert probe.json("/readyz") == (503, {"ready": False, "why": ["not yet assigned"], "last_beat_s": 0.0})


def test_it_is_ready_once_every_condition_is_met(probe: Probe, health: Health) -> None:
    health.ready(False, "killed", about="control")
    health.ready(False, "circuit of openai/gpt-4o is open", about="circuit openai/gpt-4o")
    health.ready(True)
    why = ["killed", "circuit of openai/gpt-4o is open"]
    assert probe.json("/readyz") == (503, {"ready": False, "why": why, "last_beat_s": 0.0})
    health.ready(True, about="control")
    health.ready(True, about="circuit openai/gpt-4o")
    assert probe.json("/readyz")[0] == 200


def test_a_loop_that_stands_still_for_more_than_a_minute_is_dead(probe: Probe, health: Health, clock: Clock) -> None:
    health.ready(True)
    clock.time += 60.0
    assert probe.json("/livez")[0] == 200
    clock.time += 0.1
    assert probe.json("/livez") == (503, {"live": False, "last_beat_s": 60.1})
    assert probe.json("/readyz") == (503, {"ready": False, "why": ["last poll 60.1 s ago"], "last_beat_s": 60.1})
    health.beat()
    assert probe.json("/livez")[0] == 200


def test_metrics_come_in_the_format_that_is_asked_for(probe: Probe, registry: CollectorRegistry) -> None:
    Counter("driftline_decisions_total", "Decisions.", registry=registry).inc(3)
    status, content_type, body = probe.ask("/metrics")
    assert (status, content_type.startswith("text/plain")) == (200, True)
    assert "driftline_decisions_total 3.0" in body
    _, content_type, body = probe.ask("/metrics", Accept="application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    assert body.endswith("# EOF\n")


def test_a_probe_may_ask_for_the_head_alone_and_any_query(probe: Probe) -> None:
    assert probe.ask("/livez?verbose", "HEAD") == (200, "application/json", "")


def test_another_path_is_told_what_there_is(probe: Probe) -> None:
    assert probe.json("/") == (404, {"endpoints": ["/livez", "/metrics", "/readyz"]})


def test_a_port_that_is_taken_is_said_with_the_option_that_mends_it(probe: Probe) -> None:
    with (
        pytest.raises(UsageError, match=rf"port {probe.port}: Address already in use; give another --http-port"),
        HealthServer({}, probe.port, "127.0.0.1"),
    ):
        pass


class Family:
    """A supervisor's endpoints over one process that answers and the states that a test sets."""

    def __init__(self, child: Probe, registry: CollectorRegistry) -> None:
        self.slot = 0
        self.states = {0: "running", 1: "waiting"}
        # The one process that there is serves where the supervisor looks for slot 0.
        self._port = child.port - 1
        assert child_port(self._port, self.slot) == child.port
        self._endpoints = supervisor_endpoints(lambda: self.states, self._port, registry)

    def ask(self, path: str) -> tuple[int, dict[str, Any]]:
        reply = self._endpoints[path]("")
        return reply.status, json.loads(reply.body)


@pytest.fixture
def family(probe: Probe, registry: CollectorRegistry) -> Family:
    return Family(probe, registry)


def test_a_supervisor_is_ready_when_every_process_is(family: Family, health: Health) -> None:
    health.ready(True)
    status, told = family.ask("/readyz")
    assert (status, told["ready"], told["processes"]["1"]) == (503, False, {"state": "waiting", "says": None})
    family.states[1] = "ended"
    status, told = family.ask("/readyz")
    assert (status, told["processes"]["0"]["says"]["ready"]) == (200, True)
    health.ready(False, "killed")
    status, told = family.ask("/readyz")
    assert (status, told["processes"]["0"]["says"]["why"]) == (503, ["killed"])


def test_a_supervisor_lives_while_no_process_says_that_it_hangs(family: Family, clock: Clock) -> None:
    assert family.ask("/livez")[0] == 200
    clock.time += 61
    status, told = family.ask("/livez")
    assert (status, told["processes"]["0"]["says"]["live"]) == (503, False)


def test_a_process_that_does_not_answer_yet_is_alive_and_not_ready(registry: CollectorRegistry) -> None:
    with HealthServer({}, 0, "127.0.0.1") as closed:
        port = closed.port
    endpoints = supervisor_endpoints(lambda: {0: "running"}, port - 1, registry)
    assert endpoints["/livez"]("").status == 200
    assert endpoints["/readyz"]("").status == 503
