"""The three tests of a run beside one run of the incumbent: each speaks of its own two arms alone."""

from __future__ import annotations

from functools import partial

import numpy as np
import numpy.typing as npt
import pytest

from driftline.consumers.judging import Judgement
from driftline.consumers.proposing import Answer
from driftline.detectors import SequentialJudge
from driftline.replay.contrasts import Contrasts
from driftline.replay.levels import JudgedAnswer
from driftline.schemas import Rejection

Floats = npt.NDArray[np.float64]
STRATUM = "quiz/quiz"
DECISIONS, DRAWS = 300, 60
REFUSED = Judgement((Rejection(code="wrong_answer", expected="yes", actual="no", rule_id="gold", rule_version="1"),))


def answers(rng: np.random.Generator, difficulty: Floats, able: float) -> list[JudgedAnswer]:
    """What is not too difficult is answered as it should be; a twentieth of all answers is the toss of a coin."""
    right = np.where(rng.random(DECISIONS) < 0.05, rng.random(DECISIONS) < 0.5, difficulty < able)
    return [
        JudgedAnswer(Answer("yes"), Judgement()) if good else JudgedAnswer(Answer("no"), REFUSED) for good in right
    ]


def contrasts(log: float, today: float, candidate: float, seed: int) -> Contrasts:
    """All decisions, of arms that are so able, the noise of each being its own."""
    rng = np.random.default_rng(seed)
    difficulty = rng.random(DECISIONS)
    new_judge = partial(SequentialJudge, [STRATUM], planned={STRATUM: DECISIONS})
    found = Contrasts(new_judge, runs=1, locate=False)
    arms = (answers(rng, difficulty, able) for able in (log, today, candidate))
    for before, run, after in zip(*arms, strict=True):
        found.observe(STRATUM, before, after, [run])
    return found


@pytest.mark.parametrize("today", [0.2, 0.95], ids=["worse", "sharper"])
def test_an_incumbent_that_moved_is_an_environment_that_moved_and_no_word_on_a_candidate_that_stayed(
    today: float,
) -> None:
    found = [contrasts(0.6, today, 0.6, seed) for seed in range(DRAWS)]
    assert sum(one.main.decision == "diverged" for one in found) <= 0.05 * DRAWS
    environments = [one.environment() for one in found]
    assert all(one is not None and one.verdict == "diverged" for one in environments)


def test_a_candidate_that_moved_diverges_from_log_and_incumbent_alike() -> None:
    for seed in range(10):
        found = contrasts(0.8, 0.8, 0.4, seed)
        change, environment = found.change(), found.environment()
        assert found.main.decision == "diverged"
        assert change is not None
        assert environment is not None
        assert change.verdict == "diverged"
        assert environment.verdict != "diverged"
