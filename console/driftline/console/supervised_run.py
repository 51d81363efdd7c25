"""`driftline run --processes N`: the supervisor of the same command, once a slot."""

from __future__ import annotations

import ctypes
import http.client
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import FrameType
from typing import TYPE_CHECKING, Any

from driftline.console.health import Endpoint, HealthServer, Reply, metrics_endpoint
from driftline.console.logs import choose_format, set_up_logs
from driftline.console.supervisor import Supervisor

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from driftline.console.run_command import RunOptions
    from driftline.consumers.summary import RunSummary

PARENT_VARIABLE = "DRIFTLINE_SUPERVISOR_PID"
"""Set for the processes of a supervisor: its process id."""
MAIN = "from driftline.console.main import main; main()"
ASK_TIMEOUT_S = 1.0
"""How long a process may take to answer a probe; below Kubernetes' default of a probe's patience."""
PR_SET_PDEATHSIG = 1


def run_supervised(options: RunOptions) -> tuple[RunSummary, int]:
    """Run one process a slot; the sum of what those say that ended well, and how many had to be started again.

    What a process that died had committed is on the log and not in the sum.

    Raises:
        ProcessesFailed: A process cannot run, dies again and again, or did not end well when it was asked to.
        UsageError: As of one process.
        EnvironmentUnreachable: As of one process.
    """
    from driftline.console.common import require_app
    from driftline.console.run_summary import sum_summaries
    from driftline.consumers.prepare import prepare
    from driftline.log import load_settings

    settings = load_settings()
    app = require_app(options.app, settings)
    prepare(app, settings)  # once, before many would do it at the same time
    set_up_logs(options.log_format, app.name, options.slot)
    supervisor = Supervisor(
        command=lambda slot: child_command(options, slot),
        slots=range(options.slot, options.slot + options.processes),
        until_end=options.until_end,
        drain_s=options.drain_s,
        environment={**os.environ, PARENT_VARIABLE: str(os.getpid())},
    )
    with _serving(supervisor, app.name, options.http_port), signals_to(supervisor.stop):
        outputs = supervisor.run()
    return sum_summaries(json.loads(output) for output in outputs if output.strip()), supervisor.restarts()


def child_command(options: RunOptions, slot: int) -> list[str]:
    """The command of one slot."""
    given: list[object] = ["run", options.app, "--json", "--slot", slot, "--seed", options.seed]
    given += ["--drain-s", options.drain_s, "--log-format", choose_format(options.log_format, sys.stderr).value]
    if options.until_end:
        given.append("--until-end")
    limits = {
        "--in-flight": options.in_flight,
        "--requests-per-minute": options.requests_per_minute,
        "--tokens-per-minute": options.tokens_per_minute,
        "--budget-usd": options.budget_usd,
    }
    for option, limit in limits.items():
        if limit is not None:
            given += [option, limit]
    if options.http_port:
        given += ["--http-port", child_port(options.http_port, slot)]
    return [sys.executable, "-P", "-c", MAIN, *(str(word) for word in given)]


def child_port(http_port: int, slot: int) -> int:
    """Where the process of a slot serves its health; the supervisor has the port itself."""
    return http_port + 1 + slot


def follow_supervisor() -> None:
    """In a process of a supervisor: ask the kernel to stop it with the supervisor, however that ends. Linux only."""
    parent = os.environ.get(PARENT_VARIABLE)
    if parent is None or sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(parent):  # it died before the request was made
        os.kill(os.getpid(), signal.SIGTERM)


@contextmanager
def signals_to(stop: Callable[[], None]) -> Iterator[None]:
    """Let SIGINT and SIGTERM call `stop`, each time."""

    def handle(number: int, frame: FrameType | None) -> None:
        stop()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _serving(supervisor: Supervisor, app: str, port: int) -> AbstractContextManager[object]:
    if not port:
        return nullcontext()
    from prometheus_client import CollectorRegistry

    registry = CollectorRegistry()
    _register(supervisor, app, registry)
    return HealthServer(supervisor_endpoints(supervisor.states, port, registry), port)


def _register(supervisor: Supervisor, app: str, registry: CollectorRegistry) -> None:
    from prometheus_client import Counter, Gauge

    restarts = Counter(
        "driftline_process_restarts_total",
        "Processes started in place of one that died.",
        ("app", "slot"),
        registry=registry,
    )
    running = Gauge("driftline_running_processes", "Processes that run now.", ("app",), registry=registry)
    running.labels(app).set_function(lambda: list(supervisor.states().values()).count("running"))
    for slot in supervisor.slots:
        restarts.labels(app, slot)
    supervisor.on_start = lambda slot, count: restarts.labels(app, slot).inc(count > 0)


def supervisor_endpoints(
    states: Callable[[], Mapping[int, str]], port: int, registry: CollectorRegistry
) -> dict[str, Endpoint]:
    """The endpoints of a supervisor: its processes' taken together.

    Ready when every process is that has not finished. Alive as long as no process says of itself that it is not: one
    that does not answer is starting, or will be started again.
    """

    def asked(path: str) -> dict[int, tuple[str, int | None, Any]]:
        return {slot: (state, *_ask(child_port(port, slot), path, state)) for slot, state in states().items()}

    def livez(accept: str) -> Reply:
        found = asked("/livez")
        live = all(status in {200, None} for _, status, _ in found.values())
        return Reply.of(live, {"live": live, "processes": _told(found)})

    def readyz(accept: str) -> Reply:
        found = asked("/readyz")
        ready = all(state == "ended" or status == 200 for state, status, _ in found.values())
        return Reply.of(ready, {"ready": ready, "processes": _told(found)})

    return {"/livez": livez, "/readyz": readyz, "/metrics": metrics_endpoint(registry)}


def _told(found: Mapping[int, tuple[str, int | None, Any]]) -> dict[str, Any]:
    return {str(slot): {"state": state, "says": says} for slot, (state, _, says) in found.items()}


def _ask(port: int, path: str, state: str) -> tuple[int | None, Any]:
    """Status and body of a running process's endpoint; no status where it does not answer."""
    if state != "running":
        return None, None
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ASK_TIMEOUT_S)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    except (OSError, http.client.HTTPException, ValueError):
        return None, "no answer"
    finally:
        connection.close()
