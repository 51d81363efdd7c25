"""A recorded incumbent: runs of a file, none of which may stand for two arms at once."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from driftline.replay import Candidate, ForcedResult, Segment
from driftline.replay.arms import Incumbent
from driftline.replay.incumbent import incumbent_parts
from driftline.replay.recordings import require_distinct_runs
from driftline.replay.testing import OwnModels
from driftline.schemas import ArmRef, Attempt, Decision, UsageError

ARMS = tuple(ArmRef(model=name, prompt_hash="p", verifier_version="v") for name in ("log", "today", "next"))
EVENTS = 40
Name = Callable[[str], str]


def said(event: int, replicate: int) -> str:
    """One decision in four wavers between the runs, each time in another of them."""
    return "no" if event % 4 == 0 and event // 4 % 3 == replicate else "yes"


@pytest.fixture
def recorded(tmp_path: Path) -> Name:
    """Three runs of a model over the questions; its model strings."""
    path = tmp_path / "answers.jsonl"
    lines = [
        {
            "set": "quiz",
            "event_id": f"w{event}",
            "stream": "quiz",
            "time": f"2026-03-01T12:{event:02}:00Z",
            "messages": [],
            "model": "acme/last",
            "replicate": replicate,
            "response": said(event, replicate),
            "reference": "yes",
        }
        for event in range(EVENTS)
        for replicate in range(3)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return lambda run: f"recorded/{path}#acme/last{run}"


@pytest.fixture
def logged(questions: Callable[..., Segment], make_question: Callable[..., Decision]) -> Segment:
    """The log holds run 0."""
    attempts = [[Attempt(number=1, raw_response=said(event, 0))] for event in range(EVENTS)]
    return questions(decisions=[make_question(event, attempt) for event, attempt in enumerate(attempts)])


def beside(model: str, runs: int = 1) -> Incumbent:
    return Incumbent(Candidate(model, incumbent=True), runs)


def test_a_candidate_that_is_a_run_of_the_floor_is_refused(recorded: Name) -> None:
    with pytest.raises(UsageError, match=r"the candidate acme/last@1 is itself a run of the incumbent"):
        require_distinct_runs(Candidate(recorded("@1")), beside(recorded(""), 2))
    require_distinct_runs(Candidate(recorded("@2")), beside(recorded(""), 2))


@pytest.mark.parametrize(("run", "held"), [("@1", 1), ("", 3)])
def test_a_floor_of_more_runs_than_the_recording_holds_is_refused(run: str, held: int, recorded: Name) -> None:
    with pytest.raises(UsageError, match=rf"holds {held} runs? of the incumbent .* --floor asks for 4; give --floor"):
        require_distinct_runs(Candidate("acme/next"), beside(recorded(run), 4))


def test_a_run_is_refused_before_anything_is_asked(
    recorded: Name, logged: Segment, replay: Callable[..., ForcedResult]
) -> None:
    class NeverAsked:
        async def propose(self, request: object) -> None:
            raise AssertionError("asked")

    with pytest.raises(UsageError, match="is itself a run of the incumbent"):
        replay(logged, NeverAsked(), candidate=Candidate(recorded("@0")), incumbent=beside(recorded("@0")))


def test_an_incumbent_that_is_the_logs_own_run_is_no_noise_floor(
    recorded: Name, logged: Segment, replay: Callable[..., ForcedResult]
) -> None:
    """The log and a copy of it never differ, and next to them every waver of a third run would be a change."""
    candidate = Candidate(recorded("@1"))
    copied = replay(logged, OwnModels(), candidate=candidate, incumbent=beside(recorded("@0")), read_on=True)
    own = replay(logged, OwnModels(), candidate=candidate, incumbent=beside(recorded("@2")), read_on=True)
    assert {level.noise for level in copied.judged.levels} == {None}
    assert None not in {level.noise for level in own.judged.levels}
    for incumbent, result, has_floor in (("@0", copied, False), ("@2", own, True)):
        log, today, following = ARMS
        arms = log, today.model_copy(update={"model": recorded(incumbent)}), following
        floor = incumbent_parts(logged, candidate, arms, result, 0.05)["noise_floor"]
        assert (floor is not None) is has_floor
