"""The page in a real browser: it asks for nothing, complains of nothing, and shows the model's text as text."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from driftline.replay.html import render_html
from driftline.replay.report import report_data
from driftline.replay.result import ForcedResult, Limits
from driftline.replay.store import write_store
from driftline.replay.stored import read_run

CHROMIUM = shutil.which("chromium")
BROWSERS_OWN = "not an origin"
"""Initiator of what Chromium asks for by itself, whatever the page; no name is resolved here anyway."""

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (apt-get install chromium)")


@dataclass(frozen=True)
class Visit:
    document: str
    console: list[str]
    asked: set[str]


def visit(page: str, folder: Path) -> Visit:
    """Open a page from disk; its document, what the console says, and every host that it asks for."""
    (folder / "page.html").write_text(page)
    log = folder / "net.json"
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}"]
    options += ["--disable-background-networking", "--host-resolver-rules=MAP * ~NOTFOUND", f"--log-net-log={log}"]
    command = [str(CHROMIUM), *options, "--enable-logging=stderr", "--dump-dom", (folder / "page.html").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=100)
    asked = [
        event["params"] for event in json.loads(log.read_text())["events"] if "initiator" in event.get("params", {})
    ]
    hosts = {urlsplit(one["url"]).hostname or "" for one in asked if one["initiator"] != BROWSERS_OWN}
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return Visit(done.stdout, console, hosts)


def test_the_page_asks_for_nothing_and_complains_of_nothing(tmp_path: Path, wild: ForcedResult) -> None:
    report = report_data("quiz", "acme/last", "acme/next", wild, Limits())
    run = read_run(write_store(tmp_path / "run", wild, {**report, "report": report}))
    page = render_html(run.report, run.flips, run.segment, run.report)
    seen = visit(page, tmp_path)
    assert (seen.console, seen.asked) == ([], set())
    assert "DIVERGED" in page.upper()
    assert "<h2>Answers that changed</h2>" in seen.document
    assert "<script" not in seen.document
    assert "<img" not in seen.document


def test_a_page_that_did_ask_or_complain_would_be_seen(tmp_path: Path) -> None:
    seen = visit("<img src='http://elsewhere.invalid/x.png'><script>console.error('oh')</script>", tmp_path)
    assert seen.asked == {"elsewhere.invalid"}
    assert any("oh" in line for line in seen.console)
