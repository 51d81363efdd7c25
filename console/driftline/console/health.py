"""Health over HTTP: `/livez`, `/readyz` and `/metrics` of one process, by a thread of its own.

Alive means that the loop turns; ready, that events are being decided. A process that is alive and not ready wants
time or a person; one that is not alive wants to be started again.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from driftline.schemas import UsageError

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

BEAT_S_MAX = 60.0
"""A loop that has not turned for so long is taken for dead; above the longest commit and the longest restore step."""
REQUEST_TIMEOUT_S = 5.0
"""A client that sends nothing for so long is let go, so that it holds no thread."""
CLOSE_POLL_S = 0.05
"""Bounds how long closing the server takes."""
JSON_TYPE = "application/json"
START = "start"
"""The condition that `Health` begins with."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What an endpoint answers."""

    status: int
    body: bytes
    content_type: str = JSON_TYPE

    @classmethod
    def of(cls, well: bool, data: Mapping[str, Any]) -> Reply:
        """200 when all is well, else 503, with a JSON body that says why."""
        return cls(200 if well else 503, json.dumps(data).encode() + b"\n")


Endpoint = Callable[[str], Reply]
"""From the request's `Accept` header to the reply; called in the server's threads."""


class Health:
    """Whether a process is alive and ready. Every method may be called from every thread.

    It begins alive and not ready.

    Args:
        clock: Seconds from any origin, never going back.
        beat_s_max: See `BEAT_S_MAX`.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, beat_s_max: float = BEAT_S_MAX) -> None:
        self._clock = clock
        self._beat_s_max = beat_s_max
        self._beaten = clock()
        self._unmet: dict[str, str] = {START: "not yet assigned"}
        self._changing = threading.Lock()

    def beat(self) -> None:
        """The loop has turned."""
        self._beaten = self._clock()

    def ready(self, ready: bool, why: str = "", about: str = START) -> None:
        """Say whether one condition of being ready is met.

        Args:
            ready: Whether it is.
            why: One phrase for a person when it is not: `killed`, `circuit of openai/gpt-4o is open`.
            about: Which condition; conditions that were never named are met.
        """
        with self._changing:
            if ready:
                self._unmet.pop(about, None)
            else:
                self._unmet[about] = why or about

    def livez(self) -> Reply:
        """200 while the loop turns."""
        silent_s = self._silent_s()
        return Reply.of(silent_s <= self._beat_s_max, {"live": silent_s <= self._beat_s_max, "last_beat_s": silent_s})

    def readyz(self) -> Reply:
        """200 when the loop turns and every condition is met; else why not."""
        silent_s = self._silent_s()
        with self._changing:
            why = list(self._unmet.values())
        if silent_s > self._beat_s_max:
            why.append(f"last poll {silent_s:g} s ago")
        return Reply.of(not why, {"ready": not why, "why": why, "last_beat_s": silent_s})

    def _silent_s(self) -> float:
        return round(self._clock() - self._beaten, 1)


def health_endpoints(health: Health, registry: CollectorRegistry) -> dict[str, Endpoint]:
    """The endpoints of one process."""
    return {
        "/livez": lambda accept: health.livez(),
        "/readyz": lambda accept: health.readyz(),
        "/metrics": metrics_endpoint(registry),
    }


def metrics_endpoint(registry: CollectorRegistry) -> Endpoint:
    """Prometheus' exposition, in the format that the client accepts."""
    from prometheus_client.exposition import choose_encoder

    def expose(accept: str) -> Reply:
        encode, content_type = choose_encoder(accept)
        return Reply(200, encode(registry), content_type)

    return expose


class HealthServer:
    """Serves endpoints while its block runs, on all interfaces: probes come from outside.

    Args:
        endpoints: By path.
        port: 0 lets the system choose one.
        host: Interface; empty for all.

    Raises:
        UsageError: On entering, the port is taken or not allowed.
    """

    def __init__(self, endpoints: Mapping[str, Endpoint], port: int, host: str = "") -> None:
        self._endpoints = endpoints
        self._address = (host, port)
        self._server: ThreadingHTTPServer | None = None
        self._thread: threading.Thread | None = None

    @property
    def port(self) -> int:
        """The port that it serves, inside the block."""
        return self._address[1] if self._server is None else self._server.server_port

    def __enter__(self) -> Self:
        """Bind and serve."""
        try:
            self._server = _Server(self._address, _handler(self._endpoints))
        except OSError as error:
            raise UsageError(
                f"cannot serve health on port {self._address[1]}: {error.strerror}", "give another --http-port"
            ) from error
        serve = self._server.serve_forever
        self._thread = threading.Thread(target=serve, args=(CLOSE_POLL_S,), name="health", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Answer no more."""
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that left in the middle is nothing to say."""


def _handler(endpoints: Mapping[str, Endpoint]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        """Answers GET and HEAD."""

        timeout = REQUEST_TIMEOUT_S

        def do_GET(self) -> None:
            reply = self._reply()
            self._head(reply)
            self.wfile.write(reply.body)

        def do_HEAD(self) -> None:
            self._head(self._reply())

        def _reply(self) -> Reply:
            endpoint = endpoints.get(self.path.partition("?")[0])
            if endpoint is None:
                return Reply(404, json.dumps({"endpoints": sorted(endpoints)}).encode() + b"\n")
            return endpoint(self.headers.get("Accept", ""))

        def _head(self, reply: Reply) -> None:
            self.send_response(reply.status)
            self.send_header("Content-Type", reply.content_type)
            self.send_header("Content-Length", str(len(reply.body)))
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Probes come every few seconds; nobody wants to read of them."""

    return Handler
