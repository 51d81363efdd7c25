"""`kill -9` in the middle of a run over HTTP, and the same command again: one result, and no call paid twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.integration.provider import Provider, serving

from driftline.examples import renewals as example

DRIFTLINE = Path(sys.executable).with_name("driftline")
SEGMENT = Path(example.__path__[0]) / "segment.parquet"
CALLS = 60


@pytest.fixture
def provider() -> Iterator[Provider]:
    with serving() as server:
        yield server


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
