"""`driftline diagnose` and `driftline reliability` as a user calls them, over a run of the bundled segment."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import duckdb
import pytest
from typer.testing import CliRunner, Result

from driftline.console.diagnose_run import FILE
from driftline.console.main import app as command_line
from driftline.console.replay_run import ReplayRequest, run_replay
from driftline.consumers.prompt import Prompt
from driftline.examples import renewals as example
from driftline.replay import Candidate, Limits
from driftline.replay.arms import Incumbent
from driftline.replay.run_request import REQUEST, write_request
from driftline.schemas import UsageError

FOLDER = Path(example.__path__[0])
INFLATED = "sim/renewals-inflated"
Replayed = Callable[..., Path]


@pytest.fixture
def replayed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Replayed:
    """Make a run over the bundled segment; its folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DRIFTLINE_HOME", str(tmp_path / "home"))

    def run(
        model: str | None, prompt: str | None = None, floor: int = 0, parameters: Mapping[str, Any] | None = None
    ) -> Path:
        tried = None if prompt is None else Prompt.from_file(FOLDER / "prompts" / prompt)
        request = ReplayRequest(
            "driftline.examples.renewals.app:app",
            Candidate(model, tried, parameters or {}),
            limits=Limits(concurrency=1, read_on=True),
            segment_file=FOLDER / "segment.parquet",
            incumbent=Incumbent(Candidate(incumbent=True), floor) if floor else None,
        )
        folder = run_replay(request).database.parent
        write_request(folder, request)
        return folder

    return run


def call(*arguments: str) -> Result:
    return CliRunner().invoke(command_line, list(arguments), env={"COLUMNS": "140"})


def refused(*arguments: str) -> str:
    error = call(*arguments).exception
    assert isinstance(error, UsageError)
    return str(error)


def test_a_candidate_that_broke_a_rule_is_confirmed_and_the_file_lies_beside_the_run(replayed: Replayed) -> None:
    folder = replayed(INFLATED)
    done = call("diagnose", folder.name)
    assert done.exit_code == 1, done.exception
    assert f"CANDIDATE  sim/renewals → {INFLATED}, run {folder.name}" in done.stdout
    assert "cause: model: the model is all that the candidate changes" in done.stdout
    assert "advice: pin: the candidate fails decisions" in done.stdout
    data = json.loads((folder / FILE).read_text())
    assert (data["conclusion"], data["direction"], data["alpha"]) == ("candidate", "worse", 0.05)


def test_the_same_diagnosis_again_is_paid_by_the_ledger(replayed: Replayed) -> None:
    replayed(INFLATED)
    first, again = (json.loads(call("diagnose", "--json").stdout) for _ in range(2))
    assert again == {**first, "from_ledger": first["paid_calls"]}


def test_a_model_that_did_not_change_is_not_blamed_for_what_failed_by_chance(replayed: Replayed) -> None:
    replayed("sim/renewals")
    open_, cleared = call("diagnose"), call("diagnose", "--delta", "0.5")
    assert (open_.exit_code, cleared.exit_code) == (4, 0)
    assert "UNKNOWN" in open_.stdout
    assert "NOT THE MODEL" in cleared.stdout


def test_of_a_new_model_with_a_new_prompt_the_guilty_one_is_named(replayed: Replayed) -> None:
    replayed(INFLATED, "v2.md")
    done = call("diagnose")
    assert done.exit_code == 1, done.exception
    assert f"CANDIDATE  sim/renewals → {INFLATED} (prompt v2.md#" in done.stdout
    assert "cause: model: the model alone makes the batch fail; the prompt alone" in done.stdout
    assert "under each of 4 arms" in done.stdout
    for arm in ("incumbent", "candidate", "model alone", "prompt alone"):
        assert f"\n{arm} " in done.stdout


def test_a_run_that_kept_no_request_is_one_line(replayed: Replayed) -> None:
    folder = replayed(INFLATED)
    (folder / REQUEST).unlink()
    assert "does not say what it was asked" in refused("diagnose", folder.name)


def test_a_run_with_repeats_is_decomposed_by_stream(replayed: Replayed) -> None:
    folder = replayed(INFLATED, floor=3)
    shown = call("reliability", folder.name)
    assert shown.exit_code == 0, shown.exception
    assert f"run {folder.name}: sim/renewals, 3 runs of 240 events" in shown.stdout
    data = json.loads(call("reliability", "--json").stdout)
    assert set(data["streams"]) == {
        f"renewal/renewal-due.{kind}" for kind in ("month-to-month", "one-year", "two-year")
    }
    two_year = data["streams"]["renewal/renewal-due.two-year"]
    assert two_year["mu"] < -0.1
    assert two_year["mu_interval"][1] < 0
    assert 0 < data["pooled"]["sigma2"] < 0.05


def test_a_run_without_repeats_says_in_one_line_how_to_make_some(replayed: Replayed) -> None:
    folder = replayed(INFLATED)
    said = refused("reliability", folder.name)
    assert f"run {folder.name} did not ask the incumbent more than once" in said
    segment = FOLDER / "segment.parquet"
    command = f"driftline replay --app driftline.examples.renewals.app:app --candidate {INFLATED}"
    assert f"`{command} --segment {segment} --floor 3` makes one" in said


def test_the_command_that_makes_repeats_tries_the_same_candidate(replayed: Replayed) -> None:
    folder = replayed(None, "v2.md", parameters={"stop": ["a b"]})
    said = refused("reliability", folder.name)
    assert "--candidate 'log,prompt=FILE,stop=[\"a b\"]' --segment" in said
    assert "--floor 3`, with the file of sim/renewals (prompt v2.md#" in said


@pytest.fixture
def quiz(tmp_path: Path) -> list[str]:
    """Options of a recording: `old` in three runs, one of them wrong now and then, and `new`, always wrong."""
    spec, file = tmp_path / "SPEC.toml", tmp_path / "answers.jsonl"
    spec.write_text('[streams.quiz]\naccept = "equals-reference"\n')
    line: dict[str, Any] = {"set": "quiz", "stream": "quiz", "messages": [], "reference": "yes"}
    lines = []
    for number in range(40):
        said = {"old": ["yes", "no" if number % 4 == 0 else "yes", "yes"], "new": ["no"]}
        for model, runs in said.items():
            for replicate, response in enumerate(runs):
                at = {"event_id": f"e{number}", "time": f"2026-03-01T12:{number:02}:00Z"}
                lines.append({**line, **at, "model": model, "replicate": replicate, "response": response})
    file.write_text("".join(json.dumps(one) + "\n" for one in lines))
    return ["reliability", "--file", str(file), "--verifier", str(spec)]


def test_a_recording_is_decomposed_without_a_run(quiz: list[str]) -> None:
    done = call(*quiz, "--model", "old", "--candidate", "new")
    assert done.exit_code == 0, done.exception
    assert "answers.jsonl: old, 3 runs of 40 events" in done.stdout
    assert "candidate new@0, 40 events in pairs" in done.stdout
    data = json.loads(call(*quiz, "--model", "old", "--json").stdout)
    assert data["pooled"]["sigma2"] == pytest.approx(10 / 40 / 3)
    assert data["pooled"]["mu"] is None


def test_a_recording_wants_a_model_and_a_run_wants_none(quiz: list[str]) -> None:
    assert "a recording takes --model and --verifier" in refused(*quiz)
    assert "are of a recording" in refused("reliability", "--model", "old")


def test_a_diagnosis_that_asked_nothing_takes_the_place_of_none_that_did(replayed: Replayed) -> None:
    folder = replayed(INFLATED)
    nothing = call("diagnose", "--max-calls", "2")
    assert nothing.exit_code == 4
    assert json.loads((folder / FILE).read_text())["stopped_because"] == "too_small"
    call("diagnose")
    call("diagnose", "--max-calls", "2")
    assert json.loads((folder / FILE).read_text())["conclusion"] == "candidate"


def test_a_segment_file_that_moved_is_one_line(replayed: Replayed) -> None:
    folder = replayed(INFLATED)
    asked = json.loads((folder / REQUEST).read_text())
    (folder / REQUEST).write_text(json.dumps(asked | {"segment_file": str(folder / "moved.parquet")}))
    assert "there is no segment file" in refused("diagnose", folder.name)


@pytest.mark.parametrize("command", ["diagnose", "reliability"])
def test_a_run_that_compared_no_decisions_is_one_line(command: str, replayed: Replayed) -> None:
    folder = replayed(INFLATED)
    with duckdb.connect(str(folder / "replay.duckdb")) as db:
        db.execute("""UPDATE run SET report = json_merge_patch(report, '{"mode": "free"}')""")
    assert f"run {folder.name} is of the mode free" in refused(command, folder.name)
