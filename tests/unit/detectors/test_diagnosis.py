import math
from collections.abc import Sequence

import numpy as np
import pytest

from driftline.detectors import Advice, Diagnosis, FailingBatch, Moved, advise, cause_of
from driftline.detectors.diagnosis import events_to_alarm

ALL_STILL = Moved(actions=False, changed_and_accepted=0, text=False, same_text=0, batch=20)


def diagnosed(events: Sequence[Sequence[float]], delta: float = 0.05, by_repeat: bool = False) -> Diagnosis:
    batch = FailingBatch(0.05, delta, by_repeat)
    for differences in events:
        batch.update(differences)
    return batch.diagnosis()


CONFIRMED = diagnosed([[1.0]] * 12)
CLEARED = diagnosed([[0.0] * 20] * 20)
OPEN = diagnosed([[1.0]] * 3)


def test_what_the_incumbent_passes_and_the_candidate_fails_afresh_is_the_candidates_fault() -> None:
    assert (CONFIRMED.conclusion, CONFIRMED.direction, CONFIRMED.alarm_after) == ("candidate", "worse", 8)
    assert CONFIRMED.e_value >= 20
    assert CONFIRMED.interval[0] > 0


def test_a_candidate_that_passes_more_of_the_batch_is_not_blamed_for_it() -> None:
    found = diagnosed([[-1.0]] * 12)
    assert (found.conclusion, found.direction) == ("unknown", "better")
    assert "passes more" in found.reason


def test_both_alike_over_many_repeats_is_not_the_model() -> None:
    assert (CLEARED.conclusion, CLEARED.alarm_after, CLEARED.shift) == ("not the model", None, 0.0)
    assert max(map(abs, CLEARED.interval)) < 0.05


def test_too_little_evidence_is_unknown_and_says_what_would_tell() -> None:
    assert (OPEN.conclusion, OPEN.direction) == ("unknown", None)
    assert "fewer than 8" in OPEN.reason
    assert "times the repeats" in diagnosed([[0.0]] * 40).reason


def test_nothing_read_is_unknown() -> None:
    found = diagnosed([])
    assert (found.conclusion, found.shift, found.interval) == ("unknown", None, (-1.0, 1.0))


@pytest.mark.parametrize("alpha", [0.05, 0.025, 0.01])
def test_the_fewest_bets_that_can_alarm_are_just_enough(alpha: float) -> None:
    fewest = events_to_alarm(alpha)
    alarmed = []
    for events in (fewest - 1, fewest):
        batch = FailingBatch(alpha)
        for _ in range(events):
            batch.update([1.0])
        alarmed.append(batch.alarmed)
    assert alarmed == [False, True]


def test_one_odd_decision_makes_no_alarm_however_often_it_is_asked() -> None:
    odd = [[1.0] * 100, *[[0.0] * 100] * 9]
    assert diagnosed(odd).conclusion == "unknown"


def test_by_repeat_a_handful_of_decisions_can_alarm() -> None:
    assert diagnosed([[1.0] * 10] * 2).conclusion == "unknown"
    assert diagnosed([[1.0] * 10] * 2, by_repeat=True).conclusion == "candidate"


@pytest.mark.parametrize("differences", [[], [1.5], [math.nan]])
def test_what_is_no_difference_is_refused(differences: list[float]) -> None:
    with pytest.raises(ValueError, match="differences"):
        FailingBatch().update(differences)


def failed_once(rng: np.random.Generator, drop: float, decisions: int = 150) -> tuple[list[float], list[float]]:
    """How likely both models pass each of the decisions that the incumbent passed and the candidate failed, once."""
    before = rng.beta(4, 1, decisions)
    after = np.clip(before - drop, 0, 1)
    picked = (rng.random(decisions) < before) & (rng.random(decisions) >= after)
    return before[picked].tolist(), after[picked].tolist()


def rerun(drop: float, runs: int, by_repeat: bool = False) -> tuple[float, float, float]:
    """Share of batches blamed on the candidate in fresh pairs; in pairs with the log; share that the old resolves."""
    rng = np.random.default_rng(5)
    fresh, against_log, resolved = [], [], []
    for _ in range(runs):
        paired, naive = FailingBatch(by_repeat=by_repeat), FailingBatch()
        for before, after in zip(*failed_once(rng, drop), strict=True):
            old, new = (rng.random(2) < before).astype(float), (rng.random(2) < after).astype(float)
            paired.update((old - new).tolist())
            naive.update((1.0 - new).tolist())
            resolved.append(old.mean())
        fresh.append(paired.diagnosis().conclusion == "candidate")
        against_log.append(naive.alarmed)
    return float(np.mean(fresh)), float(np.mean(against_log)), float(np.mean(resolved))


@pytest.mark.parametrize("by_repeat", [False, True])
def test_with_nothing_changed_the_old_model_resolves_the_batch_and_only_fresh_pairs_blame_nobody(
    by_repeat: bool,
) -> None:
    """The trap: the batch was picked because it failed once, so most of it passes when it is run again."""
    blamed, blamed_by_the_log, resolved = rerun(0.0, runs=150, by_repeat=by_repeat)
    assert resolved > 0.5
    assert blamed_by_the_log > 0.1
    assert blamed <= 0.05


def test_with_a_real_drop_fresh_pairs_blame_the_candidate() -> None:
    blamed, _, _ = rerun(0.5, runs=30)
    assert blamed > 0.9


def test_the_interval_holds_for_the_mean_over_a_batch_whose_decisions_differ() -> None:
    rng = np.random.default_rng(9)
    shifts = np.linspace(-0.6, 1.0, 16)
    held = 0
    for _ in range(200):
        draws = (rng.random((16, 8)) < np.abs(shifts)[:, None]) * np.sign(shifts)[:, None]
        low, high = diagnosed(draws.tolist()).interval
        held += low <= shifts.mean() <= high
    assert held / 200 >= 0.95


def test_a_candidate_that_changes_one_thing_fails_by_that() -> None:
    assert cause_of(CONFIRMED, [("model", CONFIRMED)]).name == "model"


def test_without_a_confirmed_candidate_there_is_no_cause() -> None:
    assert cause_of(OPEN, [("model", CONFIRMED), ("prompt", CLEARED)]).name == "unknown"


@pytest.mark.parametrize(
    ("model", "prompt", "name", "reason"),
    [
        (CONFIRMED, CLEARED, "model", "the model alone makes the batch fail; the prompt alone: not the cause"),
        (OPEN, CONFIRMED, "prompt", "the prompt alone makes the batch fail; the model alone: unknown"),
        (CONFIRMED, CONFIRMED, "model and prompt", "each of them alone makes the batch fail"),
        (CLEARED, CLEARED, "model and prompt", "only together do they make the batch fail, neither does alone"),
        (OPEN, CLEARED, "unknown", "neither part alone is shown to make the batch fail"),
    ],
)
def test_crossed_arms_say_which_part_it_is(model: Diagnosis, prompt: Diagnosis, name: str, reason: str) -> None:
    cause = cause_of(CONFIRMED, [("model", model), ("prompt", prompt)])
    assert (cause.name, cause.reason) == (name, reason)


@pytest.mark.parametrize(
    ("model", "prompt", "parameters", "name", "reason"),
    [
        (CLEARED, CLEARED, CONFIRMED, "parameters", "the parameters alone make the batch fail; the model alone: not"),
        (
            CONFIRMED,
            OPEN,
            CONFIRMED,
            "model and parameters",
            "each of them alone makes the batch fail; the prompt",
        ),
        (CLEARED, CLEARED, CLEARED, "model and prompt and parameters", "none of them alone makes the batch fail; wh"),
        (CLEARED, OPEN, CLEARED, "unknown", "no part alone is shown to make the batch fail"),
    ],
)
def test_parameters_are_a_part_of_their_own(
    model: Diagnosis, prompt: Diagnosis, parameters: Diagnosis, name: str, reason: str
) -> None:
    cause = cause_of(CONFIRMED, [("model", model), ("prompt", prompt), ("parameters", parameters)])
    assert cause.name == name
    assert cause.reason.startswith(reason)


def test_a_candidate_that_changes_nothing_of_the_batch_has_no_part_to_blame() -> None:
    assert cause_of(CONFIRMED, []).name == "unknown"


def test_a_confirmed_candidate_is_pinned_and_a_matter_of_form_is_said_so() -> None:
    moved = Moved(actions=True, changed_and_accepted=9, text=True, same_text=15, batch=20)
    advice = advise(CONFIRMED, moved)
    assert advice.name == "pin"
    assert "a parser that takes their form" in advice.reasons[1]
    assert len(advise(CONFIRMED, ALL_STILL).reasons) == 1


def test_other_actions_that_are_accepted_are_gated() -> None:
    moved = Moved(actions=True, changed_and_accepted=9, text=True, same_text=0, batch=20)
    assert advise(OPEN, moved).name == "gate"


@pytest.mark.parametrize(
    ("text", "name"), [(True, "adapt parser"), (False, None), (None, None)], ids=["moved", "still", "no floor"]
)
def test_texts_alone_are_the_parsers_business_where_a_floor_shows_that_they_moved(
    text: bool | None, name: str | None
) -> None:
    advice: Advice = advise(CLEARED, Moved(False, 0, text, 0, 20))
    assert advice.name == name
    assert ("noise floor" in advice.reasons[0]) == (text is None)


def test_few_decisions_that_differ_and_make_no_alarm_are_not_said_to_be_nearly_alike() -> None:
    found = diagnosed([[1.0, 1.0, 0.0, 1.0, 0.0, 1.0, 1.0, 0.0]] * 8)
    assert found.conclusion == "unknown"
    assert found.interval[0] > 0.0
    assert found.reason.startswith("of these 8 decisions the candidate passes less than the incumbent")
    assert found.reason.endswith("diagnose a larger failing batch")
