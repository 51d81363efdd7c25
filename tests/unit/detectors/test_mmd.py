from itertools import permutations
from math import log

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from driftline.detectors import (
    BettingEProcess,
    BettingEProcesses,
    MmdEProcess,
    SoftRank,
    SpreadEProcess,
    mmd_statistic,
    spread_difference,
)

PATHS, EVENTS = 3000, 300

Answers = st.tuples(*[st.integers(0, 3)] * 4)


def halves(answers: np.ndarray) -> np.ndarray:
    """`mmd_statistic` / 2 of answers L, A', B, B' in the last axis."""
    first, second, third, fourth = np.moveaxis(answers, -1, 0)
    across = [first == third, first == fourth, second == third, second == fourth]
    return np.asarray(((first == second) + 1.0 * (third == fourth) - np.sum(across, axis=0) / 2) / 2)


def share_alarmed(answers: np.ndarray) -> float:
    """The share of paths that ever reach 20, peeked at after every event; answers of shape (paths, events, 4)."""
    processes = BettingEProcesses(len(answers), two_sided=False)
    alarmed = np.zeros(len(answers), dtype=bool)
    for column in halves(answers).T:
        processes.update(np.arange(len(answers)), column)
        alarmed |= processes.log_e_values >= log(20)
    return float(alarmed.mean())


def drawn(rng: np.random.Generator, incumbent: list[float], candidate: list[float]) -> np.ndarray:
    shape = (PATHS, EVENTS, 2)
    arms = [rng.choice(len(law), p=law, size=shape) for law in (incumbent, candidate)]
    return np.concatenate(arms, axis=-1)


@settings(deadline=None)
@given(Answers)
def test_over_all_orders_of_four_answers_the_statistic_has_mean_zero(answers: tuple[int, ...]) -> None:
    each = [mmd_statistic((one, two), (three, four)) for one, two, three, four in permutations(answers)]
    assert np.mean(each) == pytest.approx(0.0, abs=1e-12)
    assert -2.0 <= min(each) <= max(each) <= 2.0
    differences = [spread_difference((one, two), (three, four)) for one, two, three, four in permutations(answers)]
    assert sum(differences) == 0.0


@settings(deadline=None)
@given(st.lists(Answers, max_size=30))
def test_the_process_bets_on_half_the_statistic_in_one_direction(fed: list[tuple[int, ...]]) -> None:
    process, bets = MmdEProcess(), BettingEProcesses(1, two_sided=False)
    for one, two, three, four in fed:
        process.update((one, two), (three, four))
        bets.update([0], [halves(np.array([one, two, three, four]))])
    assert process.log_e_value == pytest.approx(float(bets.log_e_values[0]), abs=1e-9)
    assert process.n == len(fed)


def test_independent_answers_of_one_law_alarm_at_most_at_the_nominal_rate_when_peeked_at_always() -> None:
    answers = drawn(np.random.default_rng(81), [0.5, 0.3, 0.2], [0.5, 0.3, 0.2])
    assert share_alarmed(answers) <= binom.ppf(0.999, PATHS, 0.05) / PATHS


def test_answers_that_agree_by_event_and_are_merely_exchangeable_alarm_at_most_at_the_nominal_rate() -> None:
    """Three answers of an event are alike and one, which may be any, is another: far from independent."""
    rng = np.random.default_rng(82)
    odd = rng.integers(4, size=(PATHS, EVENTS, 1))
    answers = (np.arange(4) == odd).astype(int)
    assert share_alarmed(answers) <= binom.ppf(0.999, PATHS, 0.05) / PATHS


def test_a_candidate_that_always_gives_the_commonest_answer_is_seen() -> None:
    assert share_alarmed(drawn(np.random.default_rng(83), [0.6, 0.2, 0.2], [1.0])) > 0.99


def test_a_candidate_that_varies_more_around_the_same_answer_is_seen() -> None:
    assert share_alarmed(drawn(np.random.default_rng(84), [0.95, 0.05], [0.6, 0.2, 0.2])) > 0.95


def test_a_change_that_leaves_the_rate_of_mismatch_exactly_as_it_was_is_seen_here_and_by_no_rank() -> None:
    """p.p = p.q = 3/8 for these laws, so L and B differ as often as L and A'."""
    answers = drawn(np.random.default_rng(85), [0.5, 0.25, 0.25], [0.5, 0.5, 0.0])
    assert share_alarmed(answers) > 0.5
    ranked = 0
    for path in answers[:100, :, :3].tolist():
        process, alarmed = SoftRank(), False
        for logged, again, candidate in path:
            process.update(candidate, [logged, again])
            alarmed |= process.e_value >= 20
        ranked += alarmed
    assert ranked <= binom.ppf(0.999, 100, 0.05)


def test_another_kernel_may_compare_numbers() -> None:
    def near(one: float, other: float) -> float:
        return 1.0 - min(abs(one - other), 1.0)

    assert mmd_statistic((0.0, 0.0), (0.5, 0.5), near) == pytest.approx(1.0)
    process = MmdEProcess(near)
    process.update((0.0, 0.0), (0.5, 0.5))
    assert process.e_value > 1.0


def test_a_kernel_outside_its_range_is_refused_and_changes_nothing() -> None:
    process = MmdEProcess(lambda one, other: 2.0)
    with pytest.raises(ValueError, match="kernel"):
        process.update(("a", "a"), ("a", "a"))
    assert process.n == 0


@settings(deadline=None)
@given(st.lists(Answers, max_size=30), st.floats(0.0, 0.9))
def test_the_spread_process_has_half_its_capital_on_either_bet(fed: list[tuple[int, ...]], min_effect: float) -> None:
    process, mmd = SpreadEProcess(min_effect), MmdEProcess(min_effect=min_effect)
    difference = BettingEProcess(1 - (1 - min_effect) ** 2)
    for one, two, three, four in fed:
        process.update((one, two), (three, four))
        mmd.update((one, two), (three, four))
        difference.update(float(one == two) - float(three == four))
    assert process.e_value == pytest.approx((mmd.e_value + difference.e_value) / 2, rel=1e-9)


def shares_seen(answers: np.ndarray, min_effect: float = 0.0) -> dict[str, float]:
    """By process, the share of paths on which it ever reaches 20."""
    alarmed = {"mmd": 0, "spread": 0}
    for path in answers.tolist():
        processes: dict[str, MmdEProcess | SpreadEProcess] = {
            "mmd": MmdEProcess(min_effect=min_effect),
            "spread": SpreadEProcess(min_effect),
        }
        tops = dict.fromkeys(processes, 1.0)
        for one, two, three, four in path:
            for name, process in processes.items():
                process.update((one, two), (three, four))
                tops[name] = max(tops[name], process.e_value)
        for name, top in tops.items():
            alarmed[name] += top >= 20
    return {name: count / len(answers) for name, count in alarmed.items()}


def test_independent_answers_of_one_law_alarm_the_spread_process_at_most_at_the_nominal_rate() -> None:
    answers = drawn(np.random.default_rng(87), [0.5, 0.3, 0.2], [0.5, 0.3, 0.2])[:400]
    assert shares_seen(answers)["spread"] <= binom.ppf(0.999, 400, 0.05) / 400


@pytest.mark.parametrize("incumbent, candidate", [([0.93, 0.07], [0.8, 0.2]), ([0.8, 0.2], [0.93, 0.07])])
def test_a_little_more_or_less_spread_is_seen_where_the_square_of_it_is_not(
    incumbent: list[float], candidate: list[float]
) -> None:
    seen = shares_seen(drawn(np.random.default_rng(88), incumbent, candidate)[:100])
    assert seen["spread"] > 0.9
    assert seen["mmd"] < 0.5


def test_with_a_smallest_effect_laws_at_its_border_alarm_at_most_at_the_nominal_rate() -> None:
    """Within .4 of one another in total variation, and found at once where no effect is too small."""
    answers = drawn(np.random.default_rng(86), [1.0] + [0.0] * 8, [0.6] + [0.05] * 8)[:150]
    assert min(shares_seen(answers).values()) > 0.5
    assert max(shares_seen(answers, min_effect=0.4).values()) <= binom.ppf(0.999, 150, 0.05) / 150
