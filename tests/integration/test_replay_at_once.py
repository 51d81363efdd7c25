"""The same replay over HTTP in two processes at once: one of them pays, the other says so and asks nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.integration.provider import Provider

from driftline.examples import renewals as example

DRIFTLINE = Path(sys.executable).with_name("driftline")
SEGMENT = Path(example.__path__[0]) / "segment.parquet"
CALLS, HELD_AT, DEADLINE_S = 20, 5, 90


class Holding(Provider):
    """Lets one request wait until it is released."""

    def __init__(self) -> None:
        super().__init__()
        self.reached, self.released = threading.Event(), threading.Event()

    def take(self) -> bool:
        taken = super().take()
        if self.asked == HELD_AT:
            self.reached.set()
            self.released.wait(DEADLINE_S)
        return taken


@pytest.fixture
def provider() -> Iterator[Holding]:
    server = Holding()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.released.set()
    server.shutdown()
    server.server_close()


def start(provider: Holding, home: Path) -> subprocess.Popen[str]:
    tried = ["--candidate", "openai/mine", "--param", f'api_base="{provider.url}"', "--allow-unpriced"]
    limits = ["--max-calls", str(CALLS), "--concurrency", "1", "--alpha", "1e-9", "--delta", "0.001"]
    app = ["--app", "driftline.examples.renewals.app:app", "--segment", str(SEGMENT), "--json"]
    return subprocess.Popen(
        [str(DRIFTLINE), "replay", *app, *tried, *limits],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "DRIFTLINE_HOME": str(home), "OPENAI_API_KEY": "none"},
    )


def test_the_same_command_in_two_processes_pays_every_call_once(provider: Holding, tmp_path: Path) -> None:
    with start(provider, tmp_path) as first:
        assert provider.reached.wait(DEADLINE_S)
        with start(provider, tmp_path) as second:
            _, told = second.communicate(timeout=DEADLINE_S)
        asked_meanwhile = provider.asked - HELD_AT
        provider.released.set()
        first.communicate(timeout=DEADLINE_S)
    assert (second.returncode, asked_meanwhile) == (2, 0), told
    assert "is being made by another process; wait for it or end it" in told
    assert (first.returncode, provider.asked) == (4, CALLS)
    with start(provider, tmp_path) as again:
        again.communicate(timeout=DEADLINE_S)
    assert (again.returncode, provider.asked) == (4, CALLS), "it is answered by the ledger"
