"""The README tells the truth: its code runs, its commands and files exist, its output is what the code prints."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.main import get_command

from driftline.console.main import app as command_line
from driftline.consumers import Answer, App, Input, ProposalRequest, decide, load_app
from driftline.consumers.engine import Outcome
from driftline.schemas import Event, InputCoordinates

ROOT = Path(__file__).parents[2]
ROOMS = [readme.parent.name for readme in ROOT.glob("*/README.md")]
README = (ROOT / "README.md").read_text()
DRIFTLINE = Path(sys.executable).with_name("driftline")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.S | re.M)


@pytest.fixture
def refunds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> App:
    """The README's app, written to disk as it stands and loaded by name; its state machine lies beside it."""
    code, machine = blocks("python")
    (tmp_path / "readme_refunds.py").write_text(code)
    (tmp_path / "readme_refunds_machine.py").write_text(machine.replace("from refunds ", "from readme_refunds "))
    for text in blocks("json"):
        folder = tmp_path / "schemas" / json.loads(text)["name"]
        folder.mkdir(parents=True)
        (folder / "1.avsc").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    return load_app("readme_refunds:app")


def decided(app: App, answers: Sequence[Mapping[str, object]]) -> tuple[Outcome, list[str]]:
    """The README's boundary with scripted answers: the outcome, and the last message of each request."""
    event = Event(
        id="e1",
        type="shop.RefundRequested",
        source="test",
        workflow="c-17",
        time=datetime(2026, 7, 1, tzinfo=UTC),
        record="shop.RefundRequested",
        data={"order": "A1", "paid": 40.0},
    )
    at = InputCoordinates(topic="refunds.events", partition=0, offset=0, event_id="e1", event_time=event.time)
    deciding = decide(Input(app.name, app.by_stream[event.type], event, at, {}))
    request, told = next(deciding), []
    for answer in answers:
        assert isinstance(request, ProposalRequest)
        told.append(str(request.messages[-1]["content"]))
        try:
            request = deciding.send(Answer(json.dumps(answer)))
        except StopIteration as finished:
            return finished.value, told
    raise AssertionError("the boundary wants more answers")


def test_the_first_boundary_takes_no_more_than_25_lines_of_user_code() -> None:
    code, _ = blocks("python")
    assert sum(bool(line.strip()) and not line.startswith("#") for line in code.splitlines()) <= 25


def test_the_first_boundary_commits_what_its_policy_allows(refunds: App) -> None:
    grant = {"type": "shop.RefundGranted", "payload": {"amount": 40, "reason": "late"}}
    outcome, told = decided(refunds, [grant])
    assert (outcome.verdict, outcome.emitted[0].record) == ("accepted", "shop.RefundGranted")
    assert told == ['{"order": "A1", "paid": 40}']


def test_the_first_boundary_feeds_a_refusal_back_and_takes_the_mended_proposal(refunds: App) -> None:
    grants = [{"type": "shop.RefundGranted", "payload": {"amount": a, "reason": "late"}} for a in (400, 100)]
    outcome, told = decided(refunds, grants)
    assert outcome.verdict == "accepted"
    feedback = json.loads(told[1])
    assert (feedback["status"], feedback["rejections"][0]["rule_id"]) == ("rejected", "refund-cap")


def test_the_state_machine_pays_once_and_tells_the_second_grant_that_nothing_is_legal(refunds: App) -> None:
    moved = load_app("readme_refunds_machine:app")
    assert moved.name == refunds.name
    machine = moved.require_machine()
    assert machine.target("open", "shop.RefundGranted") == "paid"
    assert machine.legal("paid") == []


def test_the_state_machine_lets_a_person_approve_what_was_escalated(refunds: App) -> None:
    machine = load_app("readme_refunds_machine:app").require_machine()
    waiting = machine.target("open", "driftline.Escalated")
    assert waiting is not None
    assert (machine.target(waiting, "approve"), machine.target(waiting, "timer:patience")) == ("paid", "lapsed")


def test_every_file_of_the_repository_that_a_readme_names_is_there() -> None:
    pattern = rf"(?<![\w/$.])((?:{'|'.join(ROOMS)})/[\w./-]*\w)"
    texts = [README, *(path.read_text() for path in ROOT.glob("*/README.md"))]
    named = {name for text in texts for name in re.findall(pattern, text) if "shop." not in name}
    assert "deploy/compose.yaml" in named
    there = [
        name for name in named if (ROOT / name).exists() or (ROOT / name.split("/")[0] / "driftline" / name).exists()
    ]
    assert sorted(named.difference(there)) == []


def named_commands() -> set[tuple[str, ...]]:
    """Every `driftline …` that a README, the changelog or an error message of ours names."""
    code = [path.read_text() for path in ROOT.glob("*/driftline/**/*.py")]
    texts = [
        *(path.read_text() for path in ROOT.glob("*/README.md")),
        README,
        (ROOT / "CHANGELOG.md").read_text(),
        *code,
    ]
    found = set()
    for text in texts:
        for words in re.findall(r"(?:`|\$ |\| |Example: )driftline((?: [a-z][a-z-]*)+)", text):
            found.add(tuple(words.split()))
    return found


def test_every_command_that_is_named_somewhere_exists() -> None:
    commands = get_command(command_line).commands  # type: ignore[attr-defined]
    for words in named_commands():
        assert words[0] in commands, f"driftline {' '.join(words)}"
        group = getattr(commands[words[0]], "commands", None)
        if group is not None and len(words) > 1:
            assert words[1] in group, f"driftline {' '.join(words)}"


def test_the_shown_verdict_is_what_the_code_prints_now(tmp_path: Path) -> None:
    (command,) = re.findall(r"^\$ (driftline replay --app renewals --segment .*)$", README, flags=re.M)
    arguments = command.split()[1:]
    environment = {**os.environ, "DRIFTLINE_HOME": str(tmp_path), "COLUMNS": "100"}
    done = subprocess.run(
        [DRIFTLINE, *arguments], capture_output=True, text=True, cwd=ROOT, env=environment, check=False
    )
    assert done.returncode == 1, done.stderr
    printed = [line.rstrip() for line in done.stdout.replace(str(tmp_path), ".driftline").splitlines()]
    shown = next(block for block in blocks("text") if block.startswith("DIVERGED  renewals")).splitlines()
    left_out = shown.index("…")  # the second example
    first, last = shown[:left_out], shown[left_out + 1 :]
    assert printed[: len(first)] == first
    assert printed[-len(last) :] == last
