"""Repeated answers out of stored runs and recordings, and what they decompose to."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from driftline.consumers import SpecJudge
from driftline.consumers.prompt import Prompt
from driftline.replay import Candidate, ForcedResult, Segment, report_data, write_store
from driftline.replay.arms import Incumbent
from driftline.replay.reliable import Repeated, reliability_data, repeated_in_recording, repeated_in_run
from driftline.replay.result import Limits
from driftline.replay.run_request import REQUEST, RunArm, RunPrompt, RunRequest
from driftline.schemas import UsageError

SPEC = SpecJudge.parse('[streams.quiz]\naccept = "equals-reference"\n')
STABILITY = Path(__file__).parents[3] / "examples/driftline/examples/recordings/stability.toml"


def recording(path: Path, answers: Sequence[tuple[int, str, int, str]]) -> Path:
    """A file of (event, model, replicate, response); the right answer is `yes`."""
    lines = [
        {
            "set": "quiz",
            "event_id": f"e{event}",
            "stream": "quiz",
            "time": f"2026-03-01T12:{event:02}:00Z",
            "messages": [],
            "model": model,
            "replicate": replicate,
            "response": response,
            "reference": "yes",
        }
        for event, model, replicate, response in answers
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture
def answers(tmp_path: Path) -> Path:
    """Of three questions `old` gets the first right in both runs, the second in one, and answers the third once."""
    old = [
        (2, "old", 0, "yes"),
        (0, "old", 0, "yes"),
        (0, "old", 1, "yes"),
        (1, "old", 0, "no"),
        (1, "old", 1, "yes"),
    ]
    new = [(0, "new", 0, "no"), (1, "new", 0, "no"), (0, "new", 1, "yes")]
    return recording(tmp_path / "answers.jsonl", [*old, *new])


def test_runs_of_a_recording_are_joined_by_event_in_log_order(answers: Path) -> None:
    found = repeated_in_recording(answers, "old", SPEC)
    assert (found.runs, found.candidate) == (["old@0", "old@1"], [])
    assert [event.workflow for event in found.events] == ["e0", "e1", "e2"]
    assert [event.baseline for event in found.events[:2]] == [(1.0, 1.0), (0.0, 1.0)]
    assert math.isnan(found.events[2].baseline[1])


def test_a_candidate_is_one_run_or_all_of_its_model(answers: Path) -> None:
    one = repeated_in_recording(answers, "old", SPEC, "new@0")
    assert [event.candidate for event in one.events] == [(0.0,), (0.0,), ()]
    every = repeated_in_recording(answers, "old", SPEC, "new")
    assert [event.candidate for event in every.events] == [(0.0, 1.0), (0.0,), ()]


def test_a_run_that_is_the_candidate_is_no_run_of_the_incumbent(answers: Path) -> None:
    with pytest.raises(UsageError, match=r"fewer than 2 runs of old beside the candidate \(old@0\)"):
        repeated_in_recording(answers, "old", SPEC, "old@1")


def test_figures_are_plain_json_and_an_endless_time_is_null(answers: Path) -> None:
    data = reliability_data(repeated_in_recording(answers, "old", SPEC, "new@0"))
    pooled = data["pooled"]
    assert (pooled["events"], pooled["sigma2"], pooled["disagreement"]) == (2, 0.25, 0.5)
    assert (pooled["mu"], pooled["t_star"]) == (-0.75, pytest.approx(0.25 / 0.75**2))
    assert pooled["t_star_interval"][1] is None
    assert json.loads(json.dumps(data, allow_nan=False)) == data


def test_alpha_is_a_probability(answers: Path) -> None:
    with pytest.raises(UsageError, match="alpha lies between 0 and 1"):
        reliability_data(repeated_in_recording(answers, "old", SPEC), alpha=0.0)


def stored(folder: Path, result: ForcedResult) -> tuple[Path, dict[str, Any]]:
    report = report_data("quiz", "acme/last", "acme/next", result, Limits())
    return write_store(folder, result, {**report, "report": report}), report


def test_a_run_that_asked_the_incumbent_once_says_how_to_ask_it_more_often(
    tmp_path: Path,
    replay: Callable[..., ForcedResult],
    questions: Callable[..., Segment],
    says: Callable[[str], Any],
) -> None:
    database, report = stored(tmp_path, replay(questions(9), says("yes")))
    with pytest.raises(
        UsageError, match="`driftline replay` as it was called, with `--floor 3` added, for acme/next"
    ):
        repeated_in_run(database, report)


def test_a_prompt_that_the_log_holds_is_named_by_its_hash(
    tmp_path: Path,
    replay: Callable[..., ForcedResult],
    questions: Callable[..., Segment],
    says: Callable[[str], Any],
) -> None:
    database, report = stored(tmp_path, replay(questions(9), says("yes")))
    arm = RunArm(model="acme/next", prompt=RunPrompt(name="quiz/answer", text="what?"), parameters={"top_p": 0.5})
    asked = RunRequest(app="quiz", candidate=arm, verifier=tmp_path / "my spec.toml")
    (tmp_path / REQUEST).write_text(asked.model_dump_json())
    with pytest.raises(UsageError) as refused:
        repeated_in_run(database, report)
    candidate = f"acme/next,prompt={Prompt('what?').hash[:12]},top_p=0.5"
    command = (
        f"driftline replay --app quiz --candidate {candidate} --verifier '{tmp_path / 'my spec.toml'}' --floor 3"
    )
    assert f"`{command}` makes one that does" in str(refused.value)


def test_the_runs_of_a_stored_run_are_of_whoever_was_asked_as_the_incumbent(
    tmp_path: Path,
    replay: Callable[..., ForcedResult],
    questions: Callable[..., Segment],
    says: Callable[[str], Any],
) -> None:
    other = Incumbent(Candidate("acme/other", incumbent=True), 2)
    database, report = stored(tmp_path, replay(questions(9), says("yes"), incumbent=other))
    report["incumbent"] = {"model": "acme/other", "runs": 2}
    assert repeated_in_run(database, report).model == "acme/other"


def test_runs_of_real_models_have_half_of_their_disagreement_as_variance(recordings: Path) -> None:
    """Five runs of gpt-4o at temperature 0 with a strict schema: no run shifts as a whole, 4 to 20 % disagree."""
    spec = SpecJudge.from_file(STABILITY)
    for name, disagreement in (("navigate", 0.201), ("logical-deduction", 0.055), ("ruin-names", 0.041)):
        found = repeated_in_recording(recordings / f"stability-{name}.jsonl.gz", "openai/gpt-4o", spec)
        assert (len(found.runs), len(found.events)) == (5, 250)
        pooled = reliability_data(found)["pooled"]
        assert pooled["sigma2"] == pytest.approx(_disagreement(found) / 2)
        assert pooled["disagreement"] == pytest.approx(disagreement, abs=0.001)
        assert (pooled["mu"], pooled["slope"]["verdict"]) == (None, "independent calls")


def _disagreement(repeated: Repeated) -> float:
    """Share of the pairs of runs that disagree, counted one by one."""
    pairs = [(one, two) for one in range(5) for two in range(one)]
    differ = [event.baseline[one] != event.baseline[two] for event in repeated.events for one, two in pairs]
    return sum(differ) / len(differ)
