"""The detectors beside the tests that everybody knows: McNemar, Clopper-Pearson and Benjamini-Hochberg."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from driftline.detectors import BettingEProcess, e_bh, mismatch_interval

Flips = st.tuples(st.integers(0, 60), st.integers(0, 60))
Chances = st.lists(st.floats(1e-9, 1.0), min_size=1, max_size=30)


def e_value(down: int, up: int, two_sided: bool = True) -> float:
    process = BettingEProcess(two_sided=two_sided)
    for d in [-1.0] * down + [1.0] * up:
        process.update(d)
    return process.e_value


def p_value(down: int, up: int) -> float:
    """Exact McNemar on as many discordant events; those on which the arms agree do not enter."""
    return float(mcnemar([[5, down], [up, 7]], exact=True).pvalue)


@given(Flips)
def test_no_table_is_stronger_evidence_to_the_signed_statistic_than_to_mcnemar_looked_at_once(
    flips: tuple[int, int],
) -> None:
    """At a fixed number of flips both are functions of their imbalance, and a chance is at most 1/e (Markov)."""
    assert p_value(*flips) <= 1.0 / e_value(*flips) + 1e-9


@pytest.mark.parametrize("needed", [20.0, 100.0])
def test_wherever_the_signed_statistic_alarms_mcnemar_rejects(needed: float) -> None:
    tables = [(down, up) for down in range(41) for up in range(41) if e_value(down, up) >= needed]
    assert len(tables) > 100
    assert all(p_value(*table) <= 1.0 / needed for table in tables)


@pytest.mark.parametrize("flips", [1, 8, 15, 40])
def test_both_rank_the_tables_of_so_many_flips_alike(flips: int) -> None:
    tables = [(down, flips - down) for down in range(flips // 2 + 1)]
    assert all(e_value(*one) > e_value(*more_even) for one, more_even in pairwise(tables))
    assert all(p_value(*one) <= p_value(*more_even) for one, more_even in pairwise(tables))


@given(Flips)
def test_the_direction_of_the_flips_turns_neither(flips: tuple[int, int]) -> None:
    down, up = flips
    assert e_value(down, up) == pytest.approx(e_value(up, down), rel=1e-12)
    assert p_value(down, up) == pytest.approx(p_value(up, down), rel=1e-12)


@given(Flips)
def test_one_sided_evidence_is_for_the_commoner_direction(flips: tuple[int, int]) -> None:
    down, up = flips
    assume(down != up)
    forward, backward = e_value(down, up, two_sided=False), e_value(up, down, two_sided=False)
    assert (forward > backward) == (up > down)
    assert (forward + backward) / 2 == pytest.approx(e_value(down, up), rel=1e-9)


@given(st.integers(0, 80), st.integers(0, 80), st.sampled_from([0.05, 0.01]))
def test_the_interval_of_a_rate_holds_the_exact_one_of_a_fixed_size(differing: int, equal: int, alpha: float) -> None:
    """Clopper-Pearson is the narrowest that inverts exact tests of the count; peeking costs the rest."""
    assume(differing + equal > 0)
    low, high = mismatch_interval([1.0] * differing + [0.0] * equal, alpha, running=False)
    exact_low, exact_high = proportion_confint(differing, differing + equal, alpha, method="beta")
    assert low <= exact_low + 1e-4
    assert high >= exact_high - 1e-4


@given(Chances, st.sampled_from([0.01, 0.05, 0.2]))
def test_e_bh_on_inverse_chances_rejects_what_benjamini_and_hochberg_reject(
    chances: list[float], alpha: float
) -> None:
    steps = alpha * np.arange(1, len(chances) + 1) / len(chances)
    assume(np.abs(np.sort(chances) / steps - 1.0).min() > 1e-9)  # at equality the two round apart
    rejected, *_ = multipletests(chances, alpha, method="fdr_bh")
    assert e_bh([1.0 / chance for chance in chances], alpha) == np.flatnonzero(rejected).tolist()


def test_e_bh_on_e_values_of_flips_names_no_more_than_benjamini_and_hochberg_on_their_mcnemar() -> None:
    rng, named, rejected = np.random.default_rng(81), 0, 0
    for _ in range(100):
        up = rng.binomial(40, np.where(np.arange(12) < 6, 0.85, 0.5))
        chances = [p_value(40 - int(count), int(count)) for count in up]
        by_e = set(e_bh([e_value(40 - int(count), int(count)) for count in up], 0.05))
        by_p = set(np.flatnonzero(multipletests(chances, 0.05, method="fdr_bh")[0]).tolist())
        assert by_e <= by_p
        named, rejected = named + len(by_e), rejected + len(by_p)
    assert rejected >= named > 0.6 * rejected
