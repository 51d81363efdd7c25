"""The decision table of the migration from P3 to P5, a row of it a test."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import product

import pytest

from driftline.detectors.migration import (
    PAUSES,
    PREDICATES,
    STATE,
    WORLD,
    Effect,
    Predicate,
    RunEvidence,
    advise_migration,
    judge_run,
)

MAY = datetime(2026, 5, 1, tzinfo=UTC)
MONTH = timedelta(days=30)
HOLDS = tuple(Predicate(name, 0.8, (0.6, 0.95), 0.05) for name in PREDICATES)

MAY_RUN = RunEvidence(
    run_id="may",
    candidate="acme/next",
    environment="inconclusive",
    change="diverged",
    verdict="diverged",
    effects=(Effect("verdict", "incumbent", -0.3, (-0.4, -0.2)),),
    diagnosis="candidate",
    diagnosis_e_value=25.0,
    alpha=0.05,
    delta=0.05,
    form_only=False,
    window=(MAY, MAY + MONTH),
    offsets=(("renewals.decisions", 0, 0, 99),),
    started_at=MAY + MONTH,
    completed_at=MAY + MONTH,
)
JULY_RUN = replace(
    MAY_RUN,
    run_id="july",
    window=(MAY + 2 * MONTH, MAY + 3 * MONTH),
    offsets=(("renewals.decisions", 0, 100, 199),),
    started_at=MAY + 3 * MONTH,
    completed_at=MAY + 3 * MONTH,
)
"""The same candidate over another window."""
OTHER_RUN = replace(
    MAY_RUN,
    run_id="other",
    candidate="acme/other",
    started_at=MAY + MONTH + timedelta(days=2),
    completed_at=MAY + MONTH + timedelta(days=2),
)
"""Another candidate over the same window, days later."""
DRIFT_RUN = replace(MAY_RUN, environment="diverged", change="inconclusive", diagnosis=None, effects=())
BOTH = (MAY_RUN, JULY_RUN)


def test_divergence_over_two_windows_of_workflows_that_need_a_row_advises_the_migration() -> None:
    advice = advise_migration(BOTH, HOLDS)
    assert (advice.conclusion, advice.missing) == ("migrate", ())
    assert advice.recurrence is not None
    assert (advice.recurrence.by, [run.run_id for run in advice.recurrence.runs]) == ("windows", ["may", "july"])


def test_one_candidate_under_two_names_is_no_second_candidate() -> None:
    """Its prompt lay in another file."""
    renamed = replace(OTHER_RUN, candidate="acme/next (prompt v3.md)", candidate_id="the same")
    advice = advise_migration((replace(MAY_RUN, candidate_id="the same"), renamed), HOLDS)
    assert advice.recurrence is None


def test_a_named_stratum_that_clears_delta_confirms_where_all_decisions_together_do_not() -> None:
    pooled = Effect("verdict", "incumbent", -0.055, (-0.089, -0.021))
    stratum = Effect("verdict of renewal/two-year", "log", -0.232, (-0.34, -0.14))
    assert judge_run(replace(MAY_RUN, effects=(pooled, stratum))).kind == "confirmed"
    assert judge_run(replace(MAY_RUN, effects=(pooled,))).kind == "unknown"


@pytest.mark.parametrize("early", [True, False])
def test_a_run_that_stopped_early_is_to_be_repeated_with_an_estimate(early: bool) -> None:
    wide = (Effect("verdict", "incumbent", -0.2, (-0.5, 0.1)),)
    (missing,) = judge_run(replace(MAY_RUN, effects=wide, stopped_early=early)).missing
    assert ("repeat it with --estimate" in missing) is early


def test_divergence_of_two_candidates_advises_the_migration() -> None:
    advice = advise_migration((MAY_RUN, OTHER_RUN), HOLDS)
    assert advice.conclusion == "migrate"
    assert advice.recurrence is not None
    assert advice.recurrence.by == "candidates"


def test_one_divergence_from_an_incumbent_with_an_end_date_advises_the_migration() -> None:
    advice = advise_migration((MAY_RUN,), HOLDS, incumbent_ends_at=MAY + 9 * MONTH)
    assert advice.conclusion == "migrate"
    assert advice.recurrence is not None
    assert advice.recurrence.by == "end_date"


def test_a_divergence_that_came_once_is_answered_by_pinning_the_incumbent() -> None:
    advice = advise_migration((MAY_RUN,), HOLDS)
    assert (advice.conclusion, advice.evidence_missing) == ("pin", False)
    assert "not shown to recur" in advice.missing[0]


def test_an_incumbent_that_ends_cannot_be_pinned_and_the_boundary_is_gated() -> None:
    assert advise_migration((MAY_RUN,), (), incumbent_ends_at=MAY + 9 * MONTH).conclusion == "gate"


@pytest.mark.parametrize("count", [1, 5])
def test_environment_drift_never_advises_a_migration_however_often_it_comes(count: int) -> None:
    drifts = [
        replace(DRIFT_RUN, run_id=str(number), window=(MAY + number * 2 * MONTH,) * 2) for number in range(count)
    ]
    advice = advise_migration(drifts, HOLDS, incumbent_ends_at=MAY + 9 * MONTH)
    assert advice.conclusion == "environment drift"
    assert advice.recurrence is None


def test_environment_drift_does_not_void_what_a_fresh_incumbent_shows_of_the_candidate() -> None:
    both = [replace(run, environment="diverged") for run in BOTH]
    assert [judge_run(run).environment_drift for run in both] == [True, True]
    assert advise_migration(both, HOLDS).conclusion == "migrate"


def test_where_only_the_form_moved_the_parser_is_adapted() -> None:
    form = replace(MAY_RUN, change="inconclusive", verdict="inconclusive", diagnosis=None, effects=(), form_only=True)
    assert advise_migration((form,), HOLDS).conclusion == "adapt the parser"


def test_a_batch_that_fails_alike_under_both_models_is_not_the_models_fault() -> None:
    innocent = replace(MAY_RUN, diagnosis="not the model")
    assert advise_migration((innocent, JULY_RUN), HOLDS).conclusion == "pin"
    assert advise_migration((innocent,), HOLDS).conclusion == "not the model"


def test_a_batch_that_shows_neither_is_unknown_and_said_so() -> None:
    advice = advise_migration((replace(MAY_RUN, diagnosis="unknown"),), HOLDS)
    assert (advice.conclusion, advice.evidence_missing) == ("unknown", True)
    assert any("does not show the candidate" in one for one in advice.missing)


def test_without_any_run_nothing_is_known() -> None:
    advice = advise_migration((), HOLDS)
    assert (advice.conclusion, advice.evidence_missing) == ("unknown", True)


def test_a_run_that_was_shown_to_be_equivalent_moved_nothing() -> None:
    same = replace(MAY_RUN, change="equivalent", verdict="equivalent", diagnosis=None, effects=())
    advice = advise_migration((same,), HOLDS)
    assert (advice.conclusion, advice.evidence_missing) == ("nothing moved", False)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"change": None}, "was not asked again"),
        ({"change": "inconclusive"}, "did not alarm"),
        ({"diagnosis": None}, "was not diagnosed"),
        ({"diagnosis_e_value": 19.9}, "does not show the candidate"),
        ({"effects": ()}, "clears"),
        ({"effects": (Effect("verdict", "incumbent", -0.3, (-0.6, -0.05)),)}, "clears"),
    ],
)
def test_each_part_of_a_confirmation_alone_can_be_missing(changed: dict[str, object], said: str) -> None:
    judged = judge_run(replace(MAY_RUN, **changed))  # type: ignore[arg-type]
    assert judged.kind != "confirmed"
    assert len(judged.missing) == 1
    assert said in judged.missing[0]
    assert advise_migration((judged.run, replace(JULY_RUN, **changed)), HOLDS).conclusion != "migrate"  # type: ignore[arg-type]


def test_a_change_at_the_state_level_confirms_as_well_as_one_of_the_verdict() -> None:
    effects = (Effect("verdict", "incumbent", 0.0, (-0.1, 0.1)), Effect("state", "log", 0.2, (0.1, 0.3)))
    assert judge_run(replace(MAY_RUN, effects=effects)).kind == "confirmed"


def test_two_candidates_that_may_share_the_answers_of_one_incumbent_count_once() -> None:
    soon = replace(OTHER_RUN, started_at=MAY_RUN.completed_at)
    assert advise_migration((MAY_RUN, soon), HOLDS).conclusion == "pin"


def test_one_candidate_twice_over_the_same_window_does_not_recur() -> None:
    again = replace(OTHER_RUN, candidate=MAY_RUN.candidate)
    assert advise_migration((MAY_RUN, again), HOLDS).conclusion == "pin"


def test_windows_that_overlap_in_time_are_disjoint_by_their_offsets() -> None:
    beside = replace(JULY_RUN, window=MAY_RUN.window)
    assert advise_migration((MAY_RUN, beside), HOLDS).conclusion == "migrate"
    overlapping = replace(beside, offsets=(("renewals.decisions", 0, 99, 199),))
    assert advise_migration((MAY_RUN, overlapping), HOLDS).conclusion == "pin"
    unplaced = replace(beside, offsets=())
    assert advise_migration((MAY_RUN, unplaced), HOLDS).conclusion == "pin"


@pytest.mark.parametrize("shown", [kinds for kinds in product((True, False), repeat=3) if not all(kinds)])
def test_no_two_of_the_three_predicates_make_up_for_the_third(shown: tuple[bool, ...]) -> None:
    refuted = Predicate("", 0.0, (0.0, 0.04), 0.05)
    given = [one if holds else replace(refuted, name=one.name) for one, holds in zip(HOLDS, shown, strict=True)]
    advice = advise_migration(BOTH, given)
    assert (advice.conclusion, advice.evidence_missing) == ("pin", False)
    assert len(advice.missing) == shown.count(False)


@pytest.mark.parametrize("name", PREDICATES)
def test_a_predicate_that_nobody_measured_is_missing_and_not_assumed(name: str) -> None:
    given = [replace(one, measure=None, missing="run it") if one.name == name else one for one in HOLDS]
    advice = advise_migration(BOTH, given)
    assert (advice.conclusion, advice.evidence_missing) == ("pin", True)
    assert advice.missing == (f"{name} is not measured: run it",)
    left_out = advise_migration(BOTH, [one for one in HOLDS if one.name != name])
    assert left_out.conclusion == "pin"


def test_a_share_above_the_threshold_that_may_be_chance_does_not_hold() -> None:
    few = replace(HOLDS[1], measure=0.5, interval=(0.05, 0.95))
    advice = advise_migration(BOTH, (HOLDS[0], few, HOLDS[2]))
    assert (advice.conclusion, advice.evidence_missing) == ("pin", True)


@pytest.mark.parametrize("state", [0.0, 0.9])
def test_a_stateless_classifier_never_gets_a_migration(state: float) -> None:
    """It waits for nothing, so nothing lands meanwhile: however often it diverges, and however noisy its rows are."""
    nothing = (Predicate(PAUSES, 0.0, (0.0, 0.1), 0.05), Predicate(WORLD, 0.0, (0.0, 0.1), 0.05))
    noisy = Predicate(STATE, state, (max(0.0, state - 0.1), 1.0), 0.05)
    for runs, ends in product(([], [MAY_RUN], BOTH, (*BOTH, OTHER_RUN)), (None, MAY + 9 * MONTH)):
        advice = advise_migration(runs, (*nothing, noisy), ends)
        assert advice.conclusion != "migrate"
        assert not advice.evidence_missing


def test_a_predicate_of_another_name_is_refused() -> None:
    with pytest.raises(ValueError, match="predicates are some of"):
        advise_migration(BOTH, (replace(HOLDS[0], name="weekends"),))
