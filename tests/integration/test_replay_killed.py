"""`kill -9` in the middle of a run over HTTP, and the same command again: one result, and no call paid twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from driftline.examples import renewals as example

DRIFTLINE = Path(sys.executable).with_name("driftline")
SEGMENT = Path(example.__path__[0]) / "segment.parquet"
CALLS = 60


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


@pytest.fixture
def provider() -> Iterator[Provider]:
    server = Provider()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def run(provider: Provider, home: Path, concurrency: int, kill_at: int = 0) -> tuple[int, str]:
    """Exit code and report of one command; its answers come from the provider, which may kill it."""
    tried = ["--candidate", "openai/mine", "--param", f'api_base="{provider.url}"', "--allow-unpriced"]
    limits = ["--max-calls", str(CALLS), "--concurrency", str(concurrency), "--alpha", "1e-9", "--delta", "0.001"]
    app = ["--app", "driftline.examples.renewals.app:app", "--segment", str(SEGMENT), "--json"]
    environment = {**os.environ, "DRIFTLINE_HOME": str(home), "OPENAI_API_KEY": "none"}
    provider.asked, provider.answered, provider.kill_at = 0, 0, kill_at
    command = [str(DRIFTLINE), "replay", *app, *tried, *limits]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as provider.client:
        stdout, stderr = provider.client.communicate(timeout=100)
    assert "Traceback" not in stderr, stderr
    return provider.client.returncode, stdout


def plain(report: str) -> str:
    """The report as it is printed, but for the run id and the timings."""
    data = json.loads(report)
    del data["run_id"], data["timings"]
    return json.dumps(data, indent=2)


@pytest.mark.parametrize("concurrency", [1, 8])
def test_a_killed_run_ends_with_the_bytes_of_an_unbroken_one(
    concurrency: int, provider: Provider, tmp_path: Path
) -> None:
    code, unbroken = run(provider, tmp_path / "unbroken", concurrency)
    assert (code, provider.answered) == (4, CALLS)
    assert json.loads(unbroken)["price_map"].startswith("litellm ")
    killed, _ = run(provider, tmp_path / "killed", concurrency, kill_at=CALLS // 2)
    assert killed == -signal.SIGKILL
    before = provider.answered
    code, resumed = run(provider, tmp_path / "killed", concurrency)
    assert (code, plain(resumed)) == (4, plain(unbroken))
    in_flight = concurrency - 1
    assert CALLS <= before + provider.answered <= CALLS + in_flight, "only what was in flight is asked again"
    assert json.loads(resumed)["timings"]["from_ledger"] == CALLS - provider.answered
