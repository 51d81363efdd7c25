"""A server that answers as a test tells it: for the failures that a real registry does not produce on request."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from hypothesis import settings

settings.register_profile("driftline", deadline=None)  # No test fails because the machine is busy.
settings.load_profile("driftline")

Answer = tuple[int, Any]
"""HTTP status and JSON body; a `str` body goes out as it stands."""
Answers = Callable[[str, str, Any], Answer | None]
"""(method, path without query, JSON body) to the answer; None hangs until the test is over."""
Serve = Callable[[Answers], str]
"""Start a server; its URL."""


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start servers on free ports of this machine."""
    over = threading.Event()
    running: list[tuple[ThreadingHTTPServer, threading.Thread]] = []

    def start(answers: Answers) -> str:
        server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(answers, over))
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        running.append((server, thread))
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    over.set()
    for server, thread in running:
        server.shutdown()
        server.server_close()
        thread.join()


class FakeRegistry:
    """The part of Confluent's API that driftline uses, with what was asked of it. It judges no compatibility."""

    def __init__(self, level: str = "BACKWARD") -> None:
        self.asked: list[tuple[str, str]] = []
        self.authorizations: list[str] = []
        """Headers of that name, where requests bore one."""
        self.subjects: dict[str, list[int]] = {}
        self.schemas: list[str] = []
        self.levels: dict[str, str] = {"": level}
        self.refuse: dict[str, Answer] = {}
        """Answer by schema text."""

    def __call__(self, method: str, path: str, body: Any) -> Answer:
        """One request."""
        self.asked.append((method, path))
        match method, path.strip("/").split("/"):
            case "GET", ["subjects"]:
                return 200, list(self.subjects)
            case "GET", ["schemas", "ids", number]:
                return self._schema(int(number))
            case method, ["config", *subject]:
                return self._level(method, "".join(subject), body)
            case "GET", ["subjects", subject, "versions", *version] if subject in self.subjects:
                return self._versions(subject, version)
            case "POST", ["subjects", subject, "versions"]:
                return self._register(subject, body["schema"])
            case "POST", ["subjects", subject] if subject in self.subjects:
                return self._look_up(subject, body["schema"])
            case _:
                return 404, {"error_code": 40401, "message": "subject not found"}

    def _schema(self, number: int) -> Answer:
        if not 0 < number <= len(self.schemas):
            return 404, {"error_code": 40403, "message": "schema not found"}
        return 200, {"schema": self.schemas[number - 1]}

    def _level(self, method: str, subject: str, body: Any) -> Answer:
        if method == "PUT":
            self.levels[subject] = body["compatibility"]
            return 200, body
        if subject not in self.levels:
            return 404, {"error_code": 40408, "message": "no level of its own"}
        return 200, {"compatibilityLevel": self.levels[subject]}

    def _versions(self, subject: str, version: list[str]) -> Answer:
        ids = self.subjects[subject]
        if not version:
            return 200, list(range(1, len(ids) + 1))
        number = int(version[0])
        schema = self.schemas[ids[number - 1] - 1]
        return 200, {"subject": subject, "version": number, "id": ids[number - 1], "schema": schema}

    def _register(self, subject: str, schema: str) -> Answer:
        if schema in self.refuse:
            return self.refuse[schema]
        if schema not in self.schemas:
            self.schemas.append(schema)
        schema_id = self.schemas.index(schema) + 1
        ids = self.subjects.setdefault(subject, [])
        ids.extend([schema_id] if schema_id not in ids else [])
        return 200, {"id": schema_id}

    def _look_up(self, subject: str, schema: str) -> Answer:
        ids = [number for number in self.subjects[subject] if self.schemas[number - 1] == schema]
        if not ids:
            return 404, {"error_code": 40403, "message": "schema not found"}
        version = self.subjects[subject].index(ids[0]) + 1
        return 200, {"subject": subject, "version": version, "id": ids[0], "schema": schema}


@pytest.fixture
def fake_registry() -> FakeRegistry:
    """A registry to be served."""
    return FakeRegistry()


def _handler(answers: Answers, over: threading.Event) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            if isinstance(answers, FakeRegistry) and "Authorization" in self.headers:
                answers.authorizations.append(self.headers["Authorization"])
            answer = answers(self.command, self.path.partition("?")[0], body)
            if answer is None:
                over.wait()
                return
            status, said = answer
            text = (said if isinstance(said, str) else json.dumps(said)).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = do_PUT = _answer  # noqa: N815 - the names that http.server calls

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    return Handler
