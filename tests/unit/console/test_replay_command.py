"""`driftline replay` over a bundled segment: its plan, several candidates, verify, and the ledger behind them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from driftline.console.main import app as command_line
from driftline.console.replay_command import print_runs
from driftline.console.replay_run import ReplayDone, ReplayRequest, run_replay, run_replays
from driftline.consumers.prompt import Prompt
from driftline.consumers.proposing import Answer
from driftline.examples import renewals as example
from driftline.replay.arms import Candidate
from driftline.replay.ledger import AnswerKey, Ledger
from driftline.schemas import BadInput, UsageError

FOLDER = Path(example.__path__[0])
RENEWALS = ("--app", "driftline.examples.renewals.app:app", "--segment", str(FOLDER / "segment.parquet"))
Ran = Callable[..., tuple[int, Any]]


@pytest.fixture
def ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ran:
    """Run a command that prints JSON: its exit code, and what it printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DRIFTLINE_HOME", str(tmp_path / "home"))

    def run(*arguments: str) -> tuple[int, Any]:
        result = CliRunner().invoke(command_line, [*arguments, "--json"])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.exit_code, json.loads(result.stdout)

    return run


@pytest.fixture
def printed(ran: Ran) -> Callable[..., str]:
    """What a command prints for a person."""

    def run(*arguments: str) -> str:
        result = CliRunner().invoke(command_line, list(arguments), env={"COLUMNS": "110"})
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.stdout

    return run


def test_a_plan_spends_nothing_and_names_the_run_that_follows_it(ran: Ran) -> None:
    code, plan = ran("replay", "plan", *RENEWALS, "--candidate", "sim/renewals-inflated")
    assert (code, plan["to_pay"], plan["usd"]) == (0, 240, 0.0)
    assert not (Path("home") / "runs").exists()
    _, report = ran("replay", *RENEWALS, "--candidate", "sim/renewals-inflated")
    assert report["run_id"] == plan["run_id"]
    _, after = ran("replay", "plan", *RENEWALS, "--candidate", "sim/renewals-inflated")
    assert after["in_ledger"] == report["paid_calls"] + report["overspent_calls"] > 0


def test_a_plan_for_a_person_tells_dollars_budget_power_and_the_changed_prompt(printed: Callable[..., str]) -> None:
    prompt = ("--prompt", str(FOLDER / "prompts" / "v2.md"))
    plan = printed("replay", "plan", *RENEWALS, "--candidate", "openai/gpt-4o", *prompt, "--budget-usd", "0.1")
    for said in ("+You decide contract renewals", "at most 240 calls to pay", "price map", "budget $0.1: ends after"):
        assert said in plan
    assert "smallest change found with 80% power" in plan


def test_an_unknown_price_refuses_the_run_before_it_begins(ran: Ran) -> None:
    with pytest.raises(UsageError, match=r"price of openai/nobodys is unknown \(litellm .*--allow-unpriced"):
        ran("replay", *RENEWALS, "--candidate", "openai/nobodys")


def test_several_candidates_are_runs_of_their_own_and_the_worst_gives_the_exit_code(ran: Ran) -> None:
    both = ("--candidate", "sim/renewals", "--candidate", "sim/renewals-inflated")
    code, together = ran("replay", *RENEWALS, *both, "--concurrency", "1")
    assert (code, [run["candidate"] for run in together["runs"]]) == (1, ["sim/renewals", "sim/renewals-inflated"])
    _, alone = ran("replay", *RENEWALS, *both[2:], "--concurrency", "1")
    assert {**together["runs"][1], "timings": None} == {**alone, "timings": None}


def test_refresh_asks_anew_once_and_without_it_the_new_answers_stand(ran: Ran) -> None:
    command = ("replay", *RENEWALS, "--candidate", "sim/renewals-inflated", "--concurrency", "1")
    _, first = ran(*command)
    _, refreshed = ran(*command, "--refresh")
    _, resumed = ran(*command)
    assert refreshed["timings"]["from_ledger"] == 0
    assert resumed["timings"]["from_ledger"] == resumed["paid_calls"] == first["paid_calls"]
    _, held = ran("cache", "stats")
    paid = first["paid_calls"]
    assert [(model["answers"], model["retired"]) for model in held["models"]] == [(2 * paid, paid)]


def test_pruning_wants_to_be_told_what(ran: Ran, printed: Callable[..., str]) -> None:
    with pytest.raises(UsageError, match="say what is to be removed"):
        printed("cache", "prune")
    assert "there is no ledger" in printed("cache", "prune", "--retired")
    ran("replay", *RENEWALS, "--candidate", "sim/renewals", "--max-calls", "5")
    assert printed("cache", "prune", "--model", "sim/renewals").startswith("5 answers removed")


def test_a_sample_is_replayed_as_a_segment_of_its_own(ran: Ran) -> None:
    _, plan = ran("replay", "plan", *RENEWALS, "--candidate", "sim/renewals", "--sample", "30")
    assert plan["decisions"] == plan["calls"] == 30


def test_verify_over_a_file_needs_no_candidate_and_takes_none(ran: Ran, printed: Callable[..., str]) -> None:
    code, verified = ran("replay", "--mode", "verify", *RENEWALS)
    assert (code, verified["verdict"], verified["decisions"]) == (0, "equivalent", 240)
    assert printed("replay", "--mode", "verify", *RENEWALS).startswith("EQUIVALENT  renewals")
    with pytest.raises(UsageError, match="verify asks no model"):
        ran("replay", "--mode", "verify", *RENEWALS, "--candidate", "sim/renewals")


@pytest.mark.parametrize(
    "given",
    [
        ("--html", "a.html"),
        ("--markdown", "a.md"),
        ("--budget-usd", "0"),
        ("--max-calls", "0"),
        ("--estimate",),
        ("--locate",),
        ("--refresh",),
        ("--mmd",),
        ("--for", "10m"),
        ("--sample", "5"),
        ("--alpha", "0.05"),
        ("plan",),
    ],
)
def test_verify_refuses_by_name_what_it_would_pass_over(ran: Ran, given: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match=f"verify asks no model.*; leave {given[0]} out"):
        ran("replay", "--mode", "verify", *RENEWALS, *given)


def test_verify_names_all_that_it_refuses_at_once(ran: Ran) -> None:
    with pytest.raises(UsageError, match="leave --html, --locate, --max-calls out"):
        ran("replay", "--mode", "verify", *RENEWALS, "--max-calls", "9", "--html", "a.html", "--locate")


@pytest.mark.parametrize("mode", ["forced", "free"])
def test_a_length_of_time_is_refused_where_nothing_is_followed(mode: str, ran: Ran) -> None:
    with pytest.raises(UsageError, match=f"--for is of the mode shadow, {mode} ends"):
        ran("replay", "--mode", mode, *RENEWALS, "--candidate", "sim/renewals", "--for", "10m")


def test_a_page_that_cannot_be_written_is_told_before_anything_is_paid(ran: Ran) -> None:
    with pytest.raises(BadInput, match=r"cannot write nowhere/a\.html: No such file or directory"):
        ran("replay", *RENEWALS, "--candidate", "sim/renewals-inflated", "--html", "nowhere/a.html")
    assert not Path("home").exists()


def test_the_verdict_is_printed_before_a_page_fails(tmp_path: Path, ran: Ran) -> None:
    """The run itself puts a folder where the page was to go."""
    (tmp_path / "home").mkdir()
    command = ["replay", *RENEWALS, "--candidate", "sim/renewals-inflated", "--html", "home/runs"]
    result = CliRunner().invoke(command_line, command)
    assert isinstance(result.exception, BadInput)
    assert result.stdout.startswith("DIVERGED  renewals")


def test_a_finished_run_is_handed_out_before_the_next_begins(ran: Ran) -> None:
    candidates = Candidate("sim/renewals"), Candidate("sim/renewals-inflated")
    finished = run_replays([ReplayRequest(RENEWALS[1], one, segment_file=Path(RENEWALS[3])) for one in candidates])
    assert next(finished).report["candidate"] == "sim/renewals"
    assert len(list(Path("home/runs").iterdir())) == 1
    assert next(finished).report["candidate"] == "sim/renewals-inflated"


def test_what_is_finished_stays_on_the_screen_when_the_next_run_is_interrupted(
    ran: Ran, capsys: pytest.CaptureFixture[str]
) -> None:
    done = run_replay(ReplayRequest(RENEWALS[1], Candidate("sim/renewals"), segment_file=Path(RENEWALS[3])))

    def runs() -> Iterator[ReplayDone]:
        yield done
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        print_runs(runs())
    assert f"run {done.report['run_id']}" in capsys.readouterr().out


def test_candidates_of_one_model_are_told_apart_by_what_each_has_of_its_own(
    ran: Ran, printed: Callable[..., str]
) -> None:
    v2 = FOLDER / "prompts" / "v2.md"
    own = f"sim/renewals,prompt={v2}", "sim/renewals-inflated,sim_latency_ms=50,temperature=0.2"
    command = ["replay", *RENEWALS, *(part for text in own for part in ("--candidate", text))]
    _, found = ran(*command)
    assert [run["tried"]["parameters"] for run in found["runs"]] == [{}, {"sim_latency_ms": 50, "temperature": 0.2}]
    assert found["runs"][0]["tried"]["prompt_hash"] == Prompt.from_file(v2).hash
    assert "+You decide contract renewals" in found["runs"][0]["prompt_diff"]
    shown = printed(*command)
    assert f"sim/renewals → sim/renewals (prompt v2.md#{Prompt.from_file(v2).hash[:8]})" in shown
    assert "sim/renewals → sim/renewals-inflated (sim_latency_ms=50, temperature=0.2)" in shown


def test_the_page_of_a_run_shows_what_the_prompt_changes(printed: Callable[..., str]) -> None:
    prompt = ("--prompt", str(FOLDER / "prompts" / "v2.md"))
    printed("replay", *RENEWALS, *prompt, "--html", "run.html")
    page = Path("run.html").read_text()
    assert "+You decide contract renewals" in page
    assert "prompt v2.md#" in page


@pytest.mark.parametrize("candidate", ["sim/nope", "foo/bar"])
def test_a_plan_of_a_model_that_is_not_there_is_refused_as_its_run_is(ran: Ran, candidate: str) -> None:
    with pytest.raises(UsageError, match=candidate.partition("/")[0]) as of_plan:
        ran("replay", "plan", *RENEWALS, "--candidate", candidate)
    with pytest.raises(UsageError) as of_run:
        ran("replay", *RENEWALS, "--candidate", candidate)
    assert str(of_plan.value) == str(of_run.value)


def test_what_several_candidates_may_cost_is_said_to_be_of_each(printed: Callable[..., str]) -> None:
    told = " ".join(printed("replay", "--help").replace("│", " ").split())
    assert "of each candidate may pay." in told
    assert "may be paid of each candidate." in told


def test_a_plan_takes_off_the_budget_what_the_run_has_paid(ran: Ran, printed: Callable[..., str]) -> None:
    plan = ("replay", "plan", *RENEWALS, "--candidate", "openai/gpt-4o", "--budget-usd", "0.1")
    _, before = ran(*plan)
    assert before["paid_usd"] == 0.0
    key = AnswerKey("elsewhere", "0", "openai/gpt-4o", "0", "{}", "test")
    with closing(Ledger(Path("home/ledger.sqlite"))) as ledger:
        ledger.put(key, Answer("yes", cost_usd=0.075), before["run_id"], "2026-09-22T12:00:00.000Z")
    calls = before["to_pay"] * (0.1 - 0.075) / before["usd"]
    assert f"budget $0.1: $0.0750 of it is paid, ends after about {calls:.0f} more paid calls" in printed(*plan)


def test_a_shadow_of_a_file_is_refused(ran: Ran) -> None:
    with pytest.raises(UsageError, match="a segment file it cannot"):
        ran("replay", "--mode", "shadow", *RENEWALS, "--candidate", "sim/renewals")


BESIDE = ("--incumbent", "log", "--floor", "2")


def test_a_plan_with_an_incumbent_names_the_run_that_follows_and_counts_its_calls(ran: Ran) -> None:
    _, plan = ran("replay", "plan", *RENEWALS, "--candidate", "sim/renewals-inflated", *BESIDE)
    assert plan["incumbent"] == {"model": "sim/renewals", "runs": 2}
    assert (plan["calls"], plan["pairs"], plan["incumbent_calls"]) == (720, 240, 480)
    _, report = ran("replay", *RENEWALS, "--candidate", "sim/renewals-inflated", *BESIDE)
    assert report["run_id"] == plan["run_id"]
    _, after = ran("replay", "plan", *RENEWALS, "--candidate", "sim/renewals-inflated", *BESIDE)
    assert after["in_ledger"] == report["paid_calls"] + report["overspent_calls"] > 0


def test_a_run_beside_the_incumbent_names_the_cause_and_the_noise_floor(ran: Ran) -> None:
    code, report = ran("replay", *RENEWALS, "--candidate", "sim/renewals-inflated", *BESIDE)
    attribution, floor = report["attribution"], report["noise_floor"]
    assert (code, attribution["cause"]) == (1, "model")
    assert attribution["contrasts"]["candidate"]["arms"] == ["sim/renewals today", "sim/renewals-inflated"]
    assert (floor["source"], floor["arms"]) == ("replicates", ["sim/renewals@0", "sim/renewals@1"])


def test_a_floor_alone_is_of_what_the_log_says(ran: Ran) -> None:
    _, named = ran("replay", "plan", *RENEWALS, "--candidate", "sim/renewals-inflated", *BESIDE)
    _, alone = ran("replay", "plan", *RENEWALS, "--candidate", "sim/renewals-inflated", "--floor", "2")
    assert alone["run_id"] == named["run_id"]


def test_a_second_candidate_finds_the_incumbents_answers(ran: Ran) -> None:
    ran("replay", *RENEWALS, "--candidate", "sim/renewals-fenced", *BESIDE, "--estimate")
    _, plan = ran("replay", "plan", *RENEWALS, "--candidate", "sim/renewals-noisier", *BESIDE)
    assert (plan["in_ledger"], plan["to_pay"]) == (480, 240)


def test_refresh_asks_the_incumbent_anew_too(ran: Ran) -> None:
    command = ("replay", *RENEWALS, "--candidate", "sim/renewals-inflated", *BESIDE)
    ran(*command)
    _, refreshed = ran(*command, "--refresh")
    assert refreshed["timings"]["from_ledger"] == 0


@pytest.mark.parametrize("mode", ["free", "verify"])
def test_modes_without_a_candidate_beside_the_log_take_no_incumbent(mode: str, ran: Ran) -> None:
    with pytest.raises(UsageError):
        ran("replay", "--mode", mode, *RENEWALS, *BESIDE)


def test_what_stays_open_names_the_option_that_asks_further(ran: Ran) -> None:
    command = ("replay", *RENEWALS, "--candidate", "sim/renewals", *BESIDE, "--delta", "0.001")
    _, report = ran(*command)
    assert (report["verdict"], report["note"]) == (
        "inconclusive",
        "3 strata are still open; --mmd asks 4 further calls a decision there",
    )
    _, asked = ran(*command, "--mmd")
    assert asked["spread_calls"] == 4 * report["events"]
    assert asked["paid_calls"] == report["paid_calls"] + asked["spread_calls"]
    assert asked["note"] == f"{asked['spread_calls']} of the calls were fresh answers, 4 a decision, in open strata"
    _, refused = ran(*command, "--no-mmd")
    assert refused["note"] == ""


def test_a_plan_with_a_budget_tells_the_most_that_open_strata_may_take(ran: Ran) -> None:
    plan = ("replay", "plan", *RENEWALS, "--candidate", "sim/renewals", *BESIDE)
    assert ran(*plan)[1]["spread_calls"] == 0
    assert ran(*plan, "--mmd")[1]["spread_calls"] == 4 * 240
    assert ran(*plan, "--max-calls", "1002")[1]["spread_calls"] == 280
    assert ran(*plan, "--max-calls", "1002", "--no-mmd")[1]["spread_calls"] == 0
