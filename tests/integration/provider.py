"""An OpenAI-compatible server on this machine that can kill its client at a chosen request."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Provider(ThreadingHTTPServer):
    """An OpenAI-compatible server that answers by what it is asked, and can kill its client at a chosen request."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked = 0
        self.answered = 0
        self.kill_at = 0
        self.client: subprocess.Popen[str] | None = None
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def take(self) -> bool:
        """Whether the request is to be answered."""
        with self.lock:
            self.asked += 1
            if self.asked == self.kill_at and self.client is not None:
                os.kill(self.client.pid, signal.SIGKILL)
                return False
            self.answered += 1
            return True


class _Handler(BaseHTTPRequestHandler):
    server: Provider

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.server.take():
            body = json.dumps(answer(str(asked["messages"][-1]["content"]))).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


def answer(question: str) -> dict[str, Any]:
    """Renews every contract, for one year or two by the length of the question."""
    payload = {"term_months": 12 * (1 + len(question) % 2), "rationale": "It goes on."}
    text = json.dumps({"type": "driftline.renewals.ContractRenewed", "payload": payload})
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
    usage = {"prompt_tokens": 9, "completion_tokens": 9, "total_tokens": 18}
    return {
        "id": "1",
        "object": "chat.completion",
        "created": 1,
        "model": "mine",
        "choices": [choice],
        "usage": usage,
    }


@contextmanager
def serving() -> Iterator[Provider]:
    """A provider that answers until the block ends."""
    server = Provider()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
