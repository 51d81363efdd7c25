"""One model, four trials, whole conversations: it disagrees with itself, and nothing may be made of that."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Mapping, Sequence
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.acceptance.recordings import recording

from driftline.detectors import ArmOutcome, Observation, SequentialJudge, mismatch_interval
from driftline.schemas import canonical_json, content_hash

pytestmark = pytest.mark.acceptance

TASKS, TRIALS, ORDERS = 50, 4, 20
WRITES = (
    *("book_reservation", "cancel_reservation", "send_certificate"),
    *("update_reservation_baggages", "update_reservation_flights", "update_reservation_passengers"),
)
Trial = Mapping[str, Any]
Call = tuple[str, str]


def calls(trial: Trial) -> list[Call]:
    """Names and canonical arguments of what the agent called, in order."""
    made = [call["function"] for message in trial["messages"] for call in message.get("tool_calls") or ()]
    return [(call["name"], canonical_json(json.loads(call["arguments"]))) for call in made]


def writes(trial: Trial) -> list[Call]:
    return [call for call in calls(trial) if call[0] in WRITES]


def outcome(trial: Trial) -> ArmOutcome:
    """The reward is the verdict; what was written is the action."""
    written = writes(trial)
    features = {f"write={name}": 1.0 for name, _ in written} | {"writes": len(written) / 10}
    return ArmOutcome(trial["reward"], features, {"action": content_hash(canonical_json(written))})


@pytest.fixture(scope="module")
def trials(recordings: Path) -> Sequence[Sequence[Trial]]:
    """By replicate and task."""
    found: list[list[Trial]] = [[] for _ in range(TRIALS)]
    with gzip.open(recording(recordings, "taubench-airline-trajectories"), "rt", encoding="utf-8") as lines:
        for trial in sorted(map(json.loads, lines), key=lambda trial: trial["task_id"]):
            found[trial["replicate"]].append(trial)
    assert [len(trial) for trial in found] == [TASKS] * TRIALS
    return found


@pytest.mark.parametrize(
    ("compared", "share"),
    [(lambda trial: calls(trial)[:1], 0.27), (writes, 0.61), (lambda trial: trial["reward"], 0.29)],
    ids=["first call", "writes", "reward"],
)
def test_trials_of_one_model_disagree_this_often(
    compared: Callable[[Trial], Any], share: float, trials: Sequence[Sequence[Trial]]
) -> None:
    differ = [
        compared(one) != compared(other)
        for first, second in permutations(trials, 2)
        for one, other in zip(first, second, strict=True)
    ]
    low, high = mismatch_interval(np.array(differ, dtype=float), running=False)
    assert np.mean(differ) == pytest.approx(share, abs=0.005)
    assert low > 0.2
    assert high < 0.7


def judged(pairs: Sequence[tuple[Trial, Trial]], order: Sequence[int]) -> SequentialJudge:
    judge = SequentialJudge(["free"], planned={"free": TASKS})
    for index in order:
        if judge.decision is None:
            before, after = pairs[index]
            judge.observe(Observation("free", outcome(before), outcome(after)))
    return judge


def test_one_trial_against_another_raises_no_alert_in_more_than_5_percent_of_orders(
    trials: Sequence[Sequence[Trial]],
) -> None:
    """At 50 tasks read whole a net rate may pass for equivalent; the note says how little that excludes."""
    rng, judges = np.random.default_rng(66), []
    for first, second in permutations(trials, 2):
        pairs = list(zip(first, second, strict=True))
        judges += [judged(pairs, rng.permutation(TASKS).tolist()) for _ in range(ORDERS)]
    assert sum(judge.decision == "diverged" for judge in judges) <= 0.05 * len(judges)
    assert all(judge.note.startswith("net rate") for judge in judges if judge.decision == "equivalent")
