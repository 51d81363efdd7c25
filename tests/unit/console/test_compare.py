"""`driftline compare` and `driftline report` as a user calls them, over small recordings written here."""

from __future__ import annotations

import gzip
import json
import random
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from driftline.console.main import app
from driftline.schemas import BadInput, UsageError

SPEC = '[streams.quiz]\naccept = "equals-reference"\n[streams.other]\naccept = "equals-reference"\n'
LEVEL = {"mismatch", "baseline_rate", "candidate_rate", "change", "interval_at_stop", "interval"}
TOP = {"verdict", "alpha", "delta", "events", "paid_calls", "overspent_calls", "cost_usd", "stopped_because"}
SECTIONS = {"levels", "strata", "noise_floor", "attribution", "migration"}
Compare = Callable[..., Result]


def line(number: int, model: str, response: str, replicate: int = 0, **more: Any) -> dict[str, Any]:
    return {
        "set": "quiz",
        "event_id": f"e{number}",
        "stream": "other" if number % 2 else "quiz",
        "time": "2026-03-01T12:00:00Z",
        "messages": [{"role": "user", "content": f"question {number}"}],
        "model": model,
        "replicate": replicate,
        "response": response,
        "reference": "yes",
        "cost_usd": 0.5,
        **more,
    }


def recording(path: Path, lines: Iterable[dict[str, Any]]) -> Path:
    text = "".join(json.dumps(one) + "\n" for one in lines).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


@pytest.fixture
def answers(tmp_path: Path) -> Path:
    """60 questions: `old` says yes in six runs (now and then not), `new` says no, over two streams."""
    lines = [line(n, "acme/new", "no") for n in range(60)]
    runs = ((n, run) for n in range(60) for run in range(6))
    return recording(
        tmp_path / "answers.jsonl.gz",
        [*lines, *(line(n, "acme/old", "maybe" if (n + 7 * run) % 20 == 0 else "yes", run) for n, run in runs)],
    )


@pytest.fixture
def compare(tmp_path: Path) -> Compare:
    (tmp_path / "SPEC.toml").write_text(SPEC)

    def run(file: Path, baseline: str, candidate: str, *options: str) -> Result:
        arms = ["--baseline", baseline, "--candidate", candidate, "--verifier", str(tmp_path / "SPEC.toml")]
        return CliRunner().invoke(app, ["compare", str(file), *arms, *options])

    return run


def written(path: Path) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(path.read_text())
    return data


def test_a_changed_model_diverges_and_the_json_has_the_names_that_scripts_read(
    answers: Path, compare: Compare, tmp_path: Path
) -> None:
    done = compare(answers, "acme/old", "acme/new", "--json", str(tmp_path / "out.json"))
    assert done.exit_code == 1, done.output
    data = written(tmp_path / "out.json")
    assert data.keys() == TOP | SECTIONS
    assert list(data["levels"]) == ["bytes", "canonical", "arguments", "action", "verdict", "state"]
    assert data["levels"]["verdict"].keys() == LEVEL | {"flips_down", "flips_up", "e_value"}
    assert data["strata"][0].keys() == {"stream", "level", "e_value", "named", "change", "interval"}
    assert {stratum["stream"] for stratum in data["strata"]} == {"quiz", "other"}
    assert data["migration"] == {"recommend": None, "evidence": []}
    assert (data["noise_floor"], data["levels"]["state"], data["levels"]["arguments"]) == (None, None, None)
    assert all(data["levels"][level]["e_value"] > 20 for level in ("bytes", "canonical"))


def test_without_an_incumbent_the_cause_of_a_divergence_is_unknown_and_says_what_would_tell(
    answers: Path, compare: Compare, tmp_path: Path
) -> None:
    out = tmp_path / "out.json"
    done = compare(answers, "acme/old", "acme/new", "--json", str(out))
    attribution = written(out)["attribution"]
    assert attribution["cause"] == "unknown"
    assert "give --incumbent" in attribution["why"]
    assert attribution["contrasts"] == {"environment": None, "candidate": None}
    assert attribution["verifier_drift"] == 0
    assert attribution["why"] in " ".join(done.output.split())


def test_reading_goes_on_to_the_end_while_only_calls_up_to_the_stop_are_counted(
    answers: Path, compare: Compare, tmp_path: Path
) -> None:
    done = compare(answers, "acme/old", "acme/new", "--json", str(tmp_path / "out.json"))
    data = written(tmp_path / "out.json")
    assert "DIVERGED" in done.output
    assert data["events"] == 60
    assert 0 < data["paid_calls"] < 30
    assert (data["overspent_calls"], data["cost_usd"]) == (0, 0.5 * data["paid_calls"])
    verdict = data["levels"]["verdict"]
    assert verdict["interval"][1] - verdict["interval"][0] < verdict["interval_at_stop"][1] + 1


def test_the_same_run_twice_never_diverges(answers: Path, compare: Compare) -> None:
    done = compare(answers, "acme/old@0", "acme/old@0", "--delta", "0.5")
    assert done.exit_code == 0, done.output
    assert "EQUIVALENT" in done.output


def test_no_more_events_are_read_than_are_allowed(answers: Path, compare: Compare, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    assert compare(answers, "acme/old", "acme/old@1", "--max-events", "7", "--json", str(out)).exit_code == 4
    assert (written(out)["events"], written(out)["stopped_because"]) == (7, "budget_ended")


def test_the_order_seed_fixes_the_order_and_nothing_else_does(
    answers: Path, compare: Compare, tmp_path: Path
) -> None:
    texts = []
    for number, seed in enumerate((3, 3, 4)):
        out = tmp_path / f"{number}.json"
        compare(
            answers, "acme/old", "acme/old@1", "--max-events", "25", "--order-seed", str(seed), "--json", str(out)
        )
        texts.append(out.read_text())
    assert texts[0] == texts[1] != texts[2]


def test_a_floor_of_replicates_stands_with_its_interval_and_what_exceeds_it(
    answers: Path, compare: Compare, tmp_path: Path
) -> None:
    out = tmp_path / "out.json"
    done = compare(answers, "acme/old", "acme/new", "--floor", "acme/old@1,2,3", "--json", str(out))
    assert "noise" in done.output
    floor = written(out)["noise_floor"]
    assert (floor["source"], floor["arms"]) == ("replicates", ["acme/old@1", "acme/old@2", "acme/old@3"])
    # Of 20 questions three are odd, each in one of the three runs: two of the three pairs of runs differ there.
    verdict = floor["levels"]["verdict"]
    assert verdict["mismatch"] == pytest.approx(3 / 20 * 2 / 3)
    assert verdict["interval"][0] < 0.1 < verdict["interval"][1]
    assert verdict["excess"] == pytest.approx(0.95 - 0.1)


def test_an_incumbent_is_tested_on_its_own_against_both(answers: Path, compare: Compare, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    compare(answers, "acme/old", "acme/new", "--incumbent", "acme/old@5", "--json", str(out))
    data = written(out)
    contrasts = data["attribution"]["contrasts"]
    environment, candidate = contrasts["environment"], contrasts["candidate"]
    assert environment["arms"] == ["acme/old@0", "acme/old@5"]
    assert environment["verdict"] != "diverged"
    assert (candidate["arms"], candidate["verdict"]) == (["acme/old@5", "acme/new@0"], "diverged")
    assert data["noise_floor"]["source"] == "incumbent"
    assert data["attribution"]["cause"] == "model"
    assert "changes the model" in data["attribution"]["why"]


@pytest.fixture
def wavering(tmp_path: Path) -> Path:
    """200 questions that five runs of `old` answer by chance with one of two right words; `new` always has one."""
    rng = random.Random(3)
    lines = [line(n, "acme/old", rng.choice(["yes", "yes "]), run) for n in range(200) for run in range(5)]
    return recording(tmp_path / "wavering.jsonl", [*lines, *(line(n, "acme/new", "yes") for n in range(200))])


def test_a_floor_takes_part_in_the_verdict_and_in_every_level(
    answers: Path, wavering: Path, compare: Compare, tmp_path: Path
) -> None:
    out = tmp_path / "out.json"
    floor = ("--floor", "acme/old@2,3,4", "--json", str(out))
    assert compare(answers, "acme/old", "acme/new", *floor).exit_code == 1
    with_floor = written(out)["paid_calls"]
    compare(answers, "acme/old", "acme/new", "--json", str(out))
    assert with_floor < written(out)["paid_calls"]
    compare(wavering, "acme/old", "acme/new", *floor)
    sharper = written(out)["levels"]["bytes"]["e_value"]
    compare(wavering, "acme/old", "acme/old@1", *floor)
    assert sharper > 20 > written(out)["levels"]["bytes"]["e_value"]


def test_an_incumbent_and_the_log_are_a_floor_of_two_that_takes_part(
    answers: Path, compare: Compare, tmp_path: Path
) -> None:
    out = tmp_path / "out.json"
    done = compare(answers, "acme/old@0", "acme/old@1", "--incumbent", "acme/old@2", "--delta", "0.5")
    assert done.exit_code == 0, done.output
    assert "differs from the run of the incumbent by less than delta more often" in " ".join(done.output.split())
    compare(answers, "acme/old@0", "acme/old@1", "--delta", "0.5", "--json", str(out))
    assert (written(out)["noise_floor"], written(out)["attribution"]["cause"]) == (None, "none")


@pytest.mark.parametrize(("candidate", "incumbent"), [("acme/old@1", "acme/old@1"), ("acme/old@1", "acme/old@0")])
def test_a_run_held_against_itself_is_no_noise_floor(
    candidate: str, incumbent: str, wavering: Path, compare: Compare, tmp_path: Path
) -> None:
    """One run as two of the arms would look like a model without noise, and every other run like a change."""
    out = tmp_path / "out.json"
    compare(wavering, "acme/old@0", candidate, "--incumbent", incumbent, "--json", str(out))
    assert (written(out)["noise_floor"], written(out)["verdict"]) == (None, "equivalent")


def test_levels_that_decide_nothing_have_their_evidence_in_brackets(
    answers: Path, compare: Compare, tmp_path: Path
) -> None:
    notes, page = tmp_path / "o.md", tmp_path / "o.html"
    done = compare(
        answers, "acme/old", "acme/new", "--floor", "acme/old@1,2", "--markdown", str(notes), "--html", str(page)
    )
    rows = {line.split()[0]: line for line in done.output.splitlines() if line.split()}
    assert re.search(r"\(\S+\)", rows["bytes"])
    assert "(" not in rows["action"]
    assert re.search(r"\| bytes \|.*\(\S+\) \|", notes.read_text())
    assert "An e-value in brackets decides nothing" in page.read_text()


def test_answers_that_are_missing_cost_coverage(tmp_path: Path, compare: Compare) -> None:
    lines = [line(n, "acme/old", "yes") for n in range(40)] + [line(n, "acme/new", "yes") for n in range(20)]
    out = tmp_path / "out.json"
    file = recording(tmp_path / "part.jsonl", lines)
    assert compare(file, "acme/old", "acme/new", "--json", str(out)).exit_code == 4
    assert written(out)["stopped_because"] == "coverage"


def test_events_that_only_the_candidate_answered_cost_coverage_too(tmp_path: Path, compare: Compare) -> None:
    """The hard questions: the baseline has no line of them, and the candidate gets every one of them wrong."""
    lines = [line(n, "acme/old", "yes") for n in range(300)]
    lines += [line(n, "acme/new", "yes" if n < 300 else "no") for n in range(500)]
    out = tmp_path / "out.json"
    done = compare(recording(tmp_path / "hole.jsonl", lines), "acme/old", "acme/new", "--json", str(out))
    assert (done.exit_code, written(out)["stopped_because"], written(out)["events"]) == (4, "coverage", 300)
    said = " ".join(done.output.split())
    assert "coverage 60%" in said
    assert "200 without an outcome of the log (not_recorded)" in said
    assert "cause: unknown; coverage is too low for a verdict" in said
    assert "equivalent" not in said


def test_dollars_are_of_the_events_that_both_answered(tmp_path: Path, compare: Compare) -> None:
    lines = [line(n, "acme/old", "yes") for n in range(40)] + [line(n, "acme/new", "yes") for n in range(42)]
    out = tmp_path / "out.json"
    compare(recording(tmp_path / "more.jsonl", lines), "acme/old", "acme/new", "--json", str(out))
    data = written(out)
    assert (data["events"], data["paid_calls"], data["cost_usd"]) == (40, 40, 20.0)


def test_events_meet_by_their_id_whatever_set_they_are_said_to_be_of(tmp_path: Path, compare: Compare) -> None:
    runs = (("acme/old", 0, "yes"), ("acme/old", 1, "yes"), ("acme/old", 2, "yes"), ("acme/new", 0, "no"))
    lines = [line(n, model, said, run, set=f"{model}-{run}") for n in range(60) for model, run, said in runs]
    out, file = tmp_path / "out.json", recording(tmp_path / "sets.jsonl", lines)
    done = compare(file, "acme/old", "acme/new", "--floor", "acme/old@1,2", "--json", str(out))
    data = written(out)
    assert (done.exit_code, data["events"]) == (1, 60)
    assert data["noise_floor"]["levels"]["verdict"]["excess"] == 1.0


SYSTEM, ASKED = {"role": "system", "content": "answer yes or no"}, {"role": "user", "content": "Well?"}


@pytest.mark.parametrize(
    ("model", "more", "cause"),
    [
        ("acme/new", {}, "model"),
        ("acme/new", {"messages": [SYSTEM, ASKED]}, "model"),
        ("acme/new", {"messages": [{**ASKED, "content": "Well, well?"}]}, "model or prompt"),
        ("acme/old", {"messages": [SYSTEM, ASKED]}, "prompt"),
        ("acme/old", {"params": {"temperature": 1}}, "parameters"),
        ("acme/old", {"params": {"temperature": 1}, "messages": [SYSTEM]}, "prompt or parameters"),
    ],
)
def test_the_cause_is_what_the_recording_shows_to_differ(
    model: str, more: dict[str, Any], cause: str, tmp_path: Path, compare: Compare
) -> None:
    lines = [line(n, "acme/old", "yes", run, messages=[ASKED]) for n in range(60) for run in range(2)]
    lines += [line(n, model, "no", 9, **{"messages": [ASKED], **more}) for n in range(60)]
    out, file = tmp_path / "out.json", recording(tmp_path / "causes.jsonl", lines)
    compare(file, "acme/old@0", f"{model}@9", "--incumbent", "acme/old@1", "--json", str(out))
    assert written(out)["attribution"]["cause"] == cause


def test_pages_are_written_and_nothing_else_is_left_behind(
    answers: Path, compare: Compare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = set(tmp_path.iterdir())
    compare(answers, "acme/old", "acme/new", "--html", "o.html", "--markdown", "o.md")
    assert {path.name for path in set(tmp_path.iterdir()) - before} == {"o.html", "o.md"}
    assert "answers.jsonl.gz[0]@" in (tmp_path / "o.html").read_text()
    assert (tmp_path / "o.md").read_text().startswith("## DIVERGED")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--floor", "acme/old"), "names no two runs"),
        (("--floor", "acme/old@1,9"), "holds no replicate 9"),
        (("--floor", "acme/old@1,x"), "names no two runs"),
        (("--incumbent", "acme/none"), "holds no answers of the model 'acme/none'"),
        (("--alpha", "2"), "alpha and delta lie between"),
    ],
)
def test_what_cannot_be_compared_is_one_line_that_mends_it(
    options: tuple[str, str], said: str, answers: Path, compare: Compare
) -> None:
    error = compare(answers, "acme/old", "acme/new", *options).exception
    assert isinstance(error, UsageError)
    assert said in str(error)


def test_a_candidate_within_its_own_floor_is_refused(answers: Path, compare: Compare) -> None:
    error = compare(answers, "acme/old", "acme/old@2", "--floor", "acme/old@1,2").exception
    assert isinstance(error, UsageError)
    assert "itself part of the noise floor" in str(error)


def test_a_malformed_line_is_named(tmp_path: Path, compare: Compare) -> None:
    file = recording(tmp_path / "bad.jsonl", [line(0, "acme/old", "yes"), {"event_id": "e1"}])
    error = compare(file, "acme/old", "acme/old").exception
    assert isinstance(error, BadInput)
    assert f"{file}:2: stream" in str(error)


@pytest.mark.parametrize("time", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
def test_a_time_that_utc_has_no_year_for_is_named_by_its_line(time: str, tmp_path: Path, compare: Compare) -> None:
    file = recording(tmp_path / "bad.jsonl", [line(0, "acme/old", "yes"), line(1, "acme/old", "yes", time=time)])
    error = compare(file, "acme/old", "acme/old").exception
    assert isinstance(error, BadInput)
    assert f"{file}:2: time" in str(error)


@pytest.fixture
def run_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A stored run of the bundled segment."""
    segment = Path(__file__).parents[3] / "examples/driftline/examples/renewals/segment.parquet"
    root = Path(__file__).parents[3]
    monkeypatch.chdir(root)
    monkeypatch.setenv("DRIFTLINE_HOME", str(tmp_path / "home"))
    arms = ["--app", "renewals", "--candidate", "sim/renewals-inflated", "--concurrency", "1", "--locate"]
    done = CliRunner().invoke(app, ["replay", *arms, "--segment", str(segment)])
    assert done.exit_code == 1, done.exception
    return next((tmp_path / "home" / "runs").iterdir()).name


def test_a_stored_run_is_shown_again_and_against_another(run_id: str, tmp_path: Path) -> None:
    page, notes = tmp_path / "run.html", tmp_path / "run.md"
    shown = CliRunner().invoke(app, ["report", run_id, "--baseline", run_id])
    assert shown.exit_code == 0, shown.exception
    assert "DIVERGED  renewals: sim/renewals → sim/renewals-inflated" in shown.output
    assert "against the earlier run" in shown.output
    CliRunner().invoke(app, ["report", "--html", str(page), "--markdown", str(notes)])
    assert "policy_violation discount-cap /payload/discount_pct" in page.read_text()
    assert notes.read_text().startswith("## DIVERGED — renewals: sim/renewals → sim/renewals-inflated")
    printed = json.loads(CliRunner().invoke(app, ["report", run_id, "--json"]).output)
    assert (printed["run_id"], printed["verdict"]) == (run_id, "diverged")


def test_a_run_that_is_not_there_is_one_line(run_id: str) -> None:
    error = CliRunner().invoke(app, ["report", "none"]).exception
    assert isinstance(error, UsageError)
    assert run_id in str(error)


def test_no_event_at_all_is_refused_by_the_options_own_name(answers: Path, compare: Compare) -> None:
    done = compare(answers, "acme/old", "acme/new", "--max-events", "0")
    assert done.exit_code == 2
    assert "--max-events" in done.output


def test_the_help_says_how_a_replicate_is_named() -> None:
    told = CliRunner().invoke(app, ["compare", "--help"], env={"COLUMNS": "160"}).output
    lines = [line.split() for line in told.splitlines() if "MODEL[@REPLICATE]" in line]
    named = [word for words in lines for word in words if word.startswith("--")]
    assert named == ["--baseline", "--candidate", "--incumbent"]


@pytest.mark.parametrize("option", ["--json", "--html", "--markdown"])
def test_a_file_that_cannot_be_written_is_told_before_anything_is_read(
    option: str, compare: Compare, tmp_path: Path
) -> None:
    done = compare(tmp_path / "not there", "acme/old", "acme/new", option, "")
    assert isinstance(done.exception, BadInput)
    assert str(done.exception).startswith("cannot write .: Is a directory; give a file name")


def test_an_answer_cannot_drive_the_terminal_or_leave_the_order_of_the_page(tmp_path: Path, compare: Compare) -> None:
    wild = "no\x1b[2J\x00\x9b\u202e\tend"
    lines = (line(n, model, text) for n in range(60) for model, text in (("acme/old", "yes"), ("acme/new", wild)))
    page = tmp_path / "a.md"
    done = compare(recording(tmp_path / "a.jsonl", lines), "acme/old", "acme/new", "--markdown", str(page))
    for told in (done.stdout, page.read_text()):
        assert r"no\x1b[2J\x00\x9b\u202e" in told
        assert not set(told) & set("\x1b\x00\x9b\u202e")
