from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from driftline.detectors import (
    ArmOutcome,
    JudgeSummary,
    LevelSummary,
    Observation,
    SequentialJudge,
    betting_interval,
)
from driftline.detectors.evidence import EquivalenceWatch

CLAIMS, RENEWALS = "claims/Claim", "renewals/RenewalDue"


def outcome(accepted: float = 1.0, discount: float = 0.15, text: str = "") -> ArmOutcome:
    features = {f"discount={discount}": 1.0, "discount": discount}
    return ArmOutcome(accepted, features, {"bytes": f"{discount} {text}", "action": str(discount)})


def seen(baseline: ArmOutcome, candidate: ArmOutcome, stratum: str = CLAIMS) -> Observation:
    return Observation(stratum, baseline, candidate)


def judge(
    planned: int = 500, *, strata: Sequence[str] = (CLAIMS,), delta: float = 0.05, locate: bool = False
) -> SequentialJudge:
    return SequentialJudge(strata, planned=dict.fromkeys(strata, planned), delta=delta, locate=locate)


def fed(a_judge: SequentialJudge, observations: Sequence[Observation]) -> SequentialJudge:
    """The judge after the observations, or after as many of them as it took to decide."""
    for observation in observations:
        if not a_judge.done:
            a_judge.observe(observation)
    return a_judge


def row(summary: JudgeSummary, stratum: str, level: str) -> tuple[int, float | None, bool]:
    (found,) = [r for r in summary.strata if (r.stratum, r.level) == (stratum, level)]
    return found.events, found.e_value, found.named


SAME = seen(outcome(), outcome())
WORSE = seen(outcome(), outcome(accepted=0.0))
BETTER = seen(outcome(accepted=0.0), outcome())
DEARER = seen(outcome(), outcome(discount=0.25))


def test_reading_on_names_the_strata_of_the_whole_segment_and_leaves_the_alarm_as_it_was() -> None:
    strata = (CLAIMS, RENEWALS)
    down, up, same = seen(outcome(), outcome(accepted=0.0)), BETTER, (SAME, seen(outcome(), outcome(), RENEWALS))
    against = [down, replace(up, stratum=RENEWALS), *same] * 60
    stopped, read_on = (
        SequentialJudge(strata, planned=dict.fromkeys(strata, 120), read_on=whether) for whether in (False, True)
    )
    for one in (stopped, read_on):
        for observation in against:
            (one.observe_after_stop if one.done else one.observe)(observation)
    at_alarm, at_end = stopped.summary(), read_on.summary()
    assert not any(row(at_alarm, name, "verdict")[2] for name in strata)
    assert all(row(at_end, name, "verdict")[2] for name in strata)
    for told in ("decision", "e_value", "events_at_stop"):
        assert getattr(at_end, told) == getattr(at_alarm, told)


def test_a_broken_verdict_diverges_and_is_named() -> None:
    summary = fed(judge(), [WORSE] * 30).summary()
    assert summary.decision == "diverged"
    assert summary.events_at_stop <= 12
    assert summary.e_value >= 20
    assert row(summary, CLAIMS, "verdict")[2]
    assert not row(summary, CLAIMS, "action")[2]


def test_a_dearer_action_with_the_same_verdict_diverges_and_is_named() -> None:
    summary = fed(judge(), [DEARER, SAME] * 40).summary()
    assert summary.decision == "diverged"
    assert row(summary, CLAIMS, "action")[2]
    assert not row(summary, CLAIMS, "verdict")[2]


def test_two_strata_that_move_in_opposite_directions_do_not_cancel() -> None:
    opposite = replace(BETTER, stratum=RENEWALS)
    summary = fed(judge(strata=(CLAIMS, RENEWALS)), [WORSE, opposite] * 30).summary()
    assert summary.decision == "diverged"
    verdict = summary.levels[0]
    assert verdict.change == pytest.approx(0.0, abs=0.1)
    assert min(r.e_value or 0.0 for r in summary.strata if r.level == "verdict") > 5


def test_another_state_diverges_where_states_are_judged() -> None:
    before = replace(outcome(), hashes={"state": "open"})
    after = replace(outcome(), hashes={"state": "closed"})
    stateful = SequentialJudge([CLAIMS], planned={CLAIMS: 500}, exit_levels=("verdict", "action", "state"))
    summary = fed(stateful, [seen(before, after)] * 40).summary()
    assert summary.decision == "diverged"
    assert row(summary, CLAIMS, "state")[2]


def test_bytes_that_always_differ_decide_nothing() -> None:
    reworded = seen(outcome(text="yes"), outcome(text="Yes."))
    summary = fed(judge(), [reworded] * 500).summary()
    assert summary.decision == "equivalent"
    (level,) = [level for level in summary.levels if level.level == "bytes"]
    assert (level.mismatch, level.decides) == (1.0, False)
    assert (level.e_value or 0.0) > 1e6
    assert not row(summary, CLAIMS, "bytes")[2]
    assert summary.e_value == 1.0


def test_equal_arms_are_equivalent_before_the_plan_is_read_whole_and_the_note_limits_it() -> None:
    same = fed(judge(), [SAME] * 500)
    assert same.decision == "equivalent"
    assert same.summary().events_at_stop < 400
    assert same.note.startswith("net rate equivalent")


def test_rates_that_stay_are_not_called_equal_while_one_level_alone_stands_at_the_alarm() -> None:
    strata = [f"claims/{number}" for number in range(12)]
    a_judge = SequentialJudge(
        strata, planned=dict.fromkeys(strata, 400), delta=0.4, exit_levels=("verdict", "action")
    )
    moved = [replace(DEARER, stratum=strata[0])] * 8
    fed(a_judge, [*moved, *(replace(SAME, stratum=name) for name in strata for _ in range(200))])
    found = row(a_judge.summary(), strata[0], "action")[1] or 0.0
    assert found >= 20 > a_judge.e_value
    assert a_judge.decision is None
    unmoved = SequentialJudge(strata, planned=dict.fromkeys(strata, 400), delta=0.4)
    assert fed(unmoved, [replace(SAME, stratum=name) for name in strata for _ in range(200)]).decision == "equivalent"


def test_a_planned_stratum_that_was_not_seen_forbids_equivalence() -> None:
    both = fed(judge(strata=(CLAIMS, RENEWALS)), [SAME] * 500)
    assert both.decision is None
    assert both.summary().events == 500


def test_an_indicator_that_moves_forbids_equivalence() -> None:
    def refund(value: float) -> ArmOutcome:
        return ArmOutcome(1.0, {"refund": value}, {})

    with_indicator = SequentialJudge([CLAIMS], planned={CLAIMS: 200}, indicators=["refund"])
    moved = [seen(refund(0.0), refund(float(i % 10 == 0))) for i in range(200)]
    assert fed(with_indicator, moved).decision != "equivalent"


def test_an_indicator_adds_power_to_its_direction() -> None:
    def run(indicators: Sequence[str]) -> int:
        a_judge = SequentialJudge([CLAIMS], planned={CLAIMS: 500}, indicators=indicators)
        rng = np.random.default_rng(51)
        for _ in range(500):
            noise = {f"word={word}": 1.0 for word in rng.integers(500, size=6)}
            moved = float(rng.random() < 0.2)
            before, after = ArmOutcome(1.0, {"x": 0.0}, {}), ArmOutcome(1.0, {"x": moved, **noise}, {})
            fed(a_judge, [seen(before, after)])
        return a_judge.summary().events_at_stop

    assert run(["x"]) <= run([]) + 10


def test_when_both_fall_at_the_same_event_it_is_diverged() -> None:
    """The action alarms at its n-th event; planned as n events of one verdict, equivalence falls there too."""
    alarm = fed(judge(delta=1e-6), [DEARER] * 50).summary().events_at_stop
    assert fed(judge(alarm, delta=1e-6), [SAME] * alarm).decision == "equivalent"
    assert fed(judge(alarm, delta=1e-6), [SAME] * (alarm - 1)).decision is None
    assert fed(judge(alarm, delta=1e-6), [DEARER] * alarm).decision == "diverged"


def test_the_smallest_effect_worth_an_alarm_silences_a_smaller_one() -> None:
    tolerant = SequentialJudge([CLAIMS], planned={CLAIMS: 1000}, min_effect=0.2)
    assert fed(tolerant, ([WORSE] + [SAME] * 9) * 100).decision != "diverged"


def test_evidence_after_the_decision_is_refused() -> None:
    decided = fed(judge(), [WORSE] * 30)
    with pytest.raises(RuntimeError, match="decided"):
        decided.observe(SAME)


def test_locating_goes_on_after_the_alarm_until_a_stratum_is_named() -> None:
    strata = [CLAIMS, *(f"claims/{number}" for number in range(7))]
    plain, locating = judge(strata=strata), judge(strata=strata, locate=True)
    for event in [WORSE] * 60:
        if not plain.done:
            plain.observe(event)
        if not locating.done:
            locating.observe(event)
        if locating.done:
            break
    assert plain.alarm_after == locating.alarm_after
    assert locating.alarm_after is not None and locating.alarm_after < locating.summary().events_at_stop
    assert locating.decision == "diverged" and locating.e_value == plain.e_value
    assert any(stratum.named for stratum in locating.summary().strata)
    assert not any(stratum.named for stratum in plain.summary().strata)


def test_an_alarm_stands_when_no_stratum_can_be_named() -> None:
    strata = [CLAIMS, *(f"claims/{number}" for number in range(7))]
    alarm_after = fed(judge(strata=strata), [WORSE] * 60).alarm_after or 0
    located = fed(judge(strata=strata, locate=True), [WORSE] * alarm_after + [SAME] * 50)
    assert (located.decision, located.done) == ("diverged", False)


def test_reading_on_narrows_the_interval_alone() -> None:
    decided = fed(judge(), [WORSE] * 30)
    before = decided.summary()
    for _ in range(200):
        decided.observe_after_stop(SAME)
    after = decided.summary()
    assert (after.decision, after.e_value) == (before.decision, before.e_value)
    assert after.events_at_stop == before.events
    assert after.events == before.events + 200
    assert after.levels[0].interval_at_stop == before.levels[0].interval
    assert after.strata[0].interval_at_stop == before.strata[0].interval
    low, high = after.levels[0].interval
    assert high - low < 0.5 * (before.levels[0].interval[1] - before.levels[0].interval[0])


def test_a_plan_read_whole_leaves_doubt_about_further_events() -> None:
    verdict = fed(judge(40, delta=1e-6), [WORSE, BETTER] * 20).summary().levels[0]
    assert verdict.interval == betting_interval([-1.0, 1.0] * 20, running=False)


def test_reading_on_before_a_decision_is_refused() -> None:
    with pytest.raises(RuntimeError, match="evidence"):
        judge().observe_after_stop(SAME)


def test_the_summary_counts_flips_rates_and_mismatches() -> None:
    summary = fed(judge(), [WORSE, BETTER, SAME, DEARER, WORSE]).summary()
    verdict, action, reworded = summary.levels
    assert (verdict.baseline_rate, verdict.candidate_rate, verdict.change) == pytest.approx((0.8, 0.6, -0.2))
    assert (verdict.flips_down, verdict.flips_up, verdict.mismatch) == (2, 1, 0.6)
    assert (action.mismatch, action.change, action.flips_up) == (0.2, None, None)
    assert (action.level, reworded.level, reworded.decides) == ("action", "bytes", False)
    assert verdict.interval == betting_interval([-1, 1, 0, 0, -1], running=False)
    assert (summary.decision, summary.events) == (None, 5)


def test_the_summary_of_nothing_says_nothing() -> None:
    summary = judge().summary()
    assert (summary.decision, summary.e_value, summary.events) == (None, 1.0, 0)
    assert summary.levels[0].mismatch is None
    assert summary.levels[0].interval == (-1.0, 1.0)


def test_a_level_that_one_arm_lacks_is_a_mismatch() -> None:
    unparsed = replace(outcome(), hashes={})
    level = fed(judge(), [SAME, seen(outcome(), unparsed)]).summary().levels[1]
    assert (level.level, level.mismatch) == ("action", 0.5)


@settings(max_examples=30)
@given(st.lists(st.sampled_from([SAME, WORSE, BETTER, DEARER]), max_size=30), st.booleans())
def test_the_order_in_which_strata_are_declared_does_not_matter(events: list[Observation], reverse: bool) -> None:
    strata = [RENEWALS, CLAIMS] if reverse else [CLAIMS, RENEWALS]
    mixed = [replace(event, stratum=strata[i % 2]) for i, event in enumerate(events)]
    mixed = [replace(event, floor=(event.baseline, SAME.baseline, DEARER.candidate)) for event in mixed]
    one = fed(floored(strata=(CLAIMS, RENEWALS)), mixed).summary()
    other = fed(floored(strata=(RENEWALS, CLAIMS)), mixed).summary()
    assert (one.decision, one.events_at_stop) == (other.decision, other.events_at_stop)
    assert one.levels[0].interval == other.levels[0].interval
    named = [{(r.stratum, r.level) for r in summary.strata if r.named} for summary in (one, other)]
    assert named[0] == named[1]


def exchangeable(rng: np.random.Generator) -> Observation:
    """Noise that depends on the event and the stratum, verdict and action tied together, alike in both arms."""
    stratum, usual = (CLAIMS, 0.15) if rng.random() < 0.5 else (RENEWALS, 0.25)

    def answer() -> ArmOutcome:
        discount = usual if rng.random() < 0.5 else float(rng.choice([0.05, 0.15, 0.25]))
        return outcome(float(discount < 0.2 or rng.random() < 0.3), discount)

    return seen(answer(), answer(), stratum)


def test_unchanged_arms_diverge_at_most_at_the_nominal_rate() -> None:
    rng, paths, diverged = np.random.default_rng(52), 300, 0
    for _ in range(paths):
        a_judge = judge(100, strata=(CLAIMS, RENEWALS), delta=1e-6)
        diverged += fed(a_judge, [exchangeable(rng) for _ in range(100)]).decision == "diverged"
    assert diverged <= binom.ppf(0.999, paths, 0.05)


def test_a_net_change_just_beyond_delta_passes_for_equivalent_at_most_at_the_nominal_rate() -> None:
    rng, paths, passed = np.random.default_rng(53), 300, 0
    population = np.repeat([-1.0, 0.0, 1.0], [31, 254, 15])  # net -16 of 300, delta 15 of 300
    for _ in range(paths):
        watch = EquivalenceWatch(1, delta=0.05, alpha=0.05, population=300)
        for difference in rng.permutation(population):
            watch.update([float(difference)])
        passed += watch.inside
    assert passed <= binom.ppf(0.999, paths, 0.05)


def answer(value: str, accepted: float = 1.0) -> ArmOutcome:
    return ArmOutcome(accepted, {f"answer={value}": 1.0}, {"action": value})


def held(candidate: ArmOutcome, *floor: ArmOutcome, stratum: str = CLAIMS) -> Observation:
    """A candidate held against runs of the incumbent, the first of which is the log."""
    return Observation(stratum, floor[0], candidate, floor)


def floored(planned: int = 500, *, strata: Sequence[str] = (CLAIMS,), delta: float = 0.05) -> SequentialJudge:
    return SequentialJudge(strata, planned=dict.fromkeys(strata, planned), delta=delta, floor_runs=3)


def drawn(rng: np.random.Generator, share: float) -> ArmOutcome:
    """Another answer with a chance of `share`; as often accepted as the usual one."""
    other = rng.random() < share
    return answer(f"other {rng.integers(2)}" if other else "usual", float(rng.random() < 0.8))


def level_of(summary: JudgeSummary, level: str) -> LevelSummary:
    return next(found for found in summary.levels if found.level == level)


def test_with_a_floor_unchanged_arms_diverge_at_most_at_the_nominal_rate_whenever_one_looks() -> None:
    """Events differ in how much the incumbent varies on them, and some have lost runs of the floor."""
    rng, paths, diverged = np.random.default_rng(54), 300, 0
    for _ in range(paths):
        a_judge = floored(60, strata=(CLAIMS, RENEWALS), delta=1e-6)
        for event in range(60):
            share = rng.choice([0.0, 0.1, 0.5])
            runs = [drawn(rng, share) for _ in range(1 + 3)]
            left = runs[1 : 4 - (rng.random() < 0.1) * 2]
            stratum = (CLAIMS, RENEWALS)[event % 2]
            if not a_judge.done:
                a_judge.observe(Observation(stratum, runs[1], runs[0], tuple(left)))
        diverged += a_judge.decision == "diverged"
    assert diverged <= binom.ppf(0.999, paths, 0.05)


def against_a_floor(candidate_share: float, incumbent_share: float) -> tuple[list[Observation], list[Observation]]:
    """400 events with a floor of three runs, and the same without it."""
    rng = np.random.default_rng(55)
    events = [held(drawn(rng, candidate_share), *(drawn(rng, incumbent_share) for _ in range(3))) for _ in range(400)]
    return events, [replace(event, floor=()) for event in events]


def test_a_candidate_that_is_sharper_than_the_incumbent_is_seen_with_a_floor() -> None:
    events, _ = against_a_floor(0.0, 0.25)
    summary = fed(floored(), events).summary()
    assert summary.decision == "diverged"
    noise = level_of(summary, "action").noise
    assert noise is not None and noise.excess < -0.1


def test_a_candidate_that_spreads_is_seen_at_fewer_calls_with_a_floor() -> None:
    events, without = against_a_floor(0.35, 0.1)
    seen_after = fed(floored(), events).alarm_after
    assert seen_after is not None and seen_after < (fed(judge(), without).alarm_after or 400)


def test_verdicts_that_flip_as_often_up_as_down_are_not_equivalent_where_there_is_a_floor() -> None:
    """The net rate stands still, one verdict in nine is another, and the incumbent never wavers."""
    steady = [held(answer("a"), *[answer("a")] * 3)] * 7
    swap = [held(answer("a", 0.0), *[answer("a")] * 3), held(answer("a"), *[answer("a", 0.0)] * 3)]
    events = [*steady, *swap] * 80
    without = [replace(event, floor=()) for event in events]
    calm = SequentialJudge([CLAIMS], planned={CLAIMS: 720}, min_effect=0.3)
    assert fed(calm, without).decision == "equivalent"
    strict = SequentialJudge([CLAIMS], planned={CLAIMS: 720}, min_effect=0.3, floor_runs=3)
    assert fed(strict, events).decision is None


def test_with_a_floor_equal_arms_are_equivalent_and_the_note_says_what_was_shown() -> None:
    same = fed(floored(), [held(answer("a"), *[answer("a")] * 3)] * 500)
    assert same.decision == "equivalent"
    assert "differs from runs of the incumbent by less than delta more often" in same.note
    assert not same.note.startswith("net rate")


def test_where_the_floor_was_lost_nothing_is_equivalent_and_the_other_evidence_counts() -> None:
    lost = fed(floored(), [held(answer("a"), answer("a"))] * 500)
    assert lost.decision is None
    assert lost.summary().levels[0].noise is None
    assert fed(floored(), [Observation(CLAIMS, outcome(), outcome(accepted=0.0))] * 40).decision == "diverged"


def test_the_excess_beyond_delta_passes_for_equivalent_at_most_at_the_nominal_rate() -> None:
    rng, paths, passed = np.random.default_rng(56), 300, 0
    population = np.repeat([1.0, 0.0, -0.25], [19, 273, 8])  # an excess of 17 of 300, delta 15 of 300
    for _ in range(paths):
        watch = EquivalenceWatch(0, delta=0.05, alpha=0.05, population=300, excesses=1)
        for excess in rng.permutation(population):
            watch.update([], [float(excess)])
        passed += watch.inside
    assert passed <= binom.ppf(0.999, paths, 0.05)


def test_the_smallest_effect_worth_an_alarm_silences_soft_rank_and_excess_too() -> None:
    rng = np.random.default_rng(57)
    slight = [held(answer("b" if rng.random() < 0.1 else "a"), *[answer("a")] * 3) for _ in range(600)]
    assert fed(floored(1000), slight).decision == "diverged"
    tolerant = SequentialJudge([CLAIMS], planned={CLAIMS: 1000}, floor_runs=3, min_effect=0.2)
    assert fed(tolerant, slight).decision != "diverged"


def test_the_noise_of_the_incumbents_runs_stands_beside_every_change() -> None:
    odd = held(answer("a"), answer("a"), answer("a"), answer("b", 0.0))
    steady = held(answer("a"), *[answer("a")] * 3)
    summary = fed(floored(), [odd, steady, steady, steady]).summary()
    for level in ("verdict", "action"):
        noise = level_of(summary, level).noise
        assert noise is not None
        assert noise.events == 4
        assert noise.mismatch == pytest.approx(2 / 3 / 4)
        assert noise.excess == pytest.approx((1 / 3 - 2 / 3) / 4)
        assert noise.interval[0] <= noise.mismatch <= noise.interval[1]
    assert [stratum.noise for stratum in summary.strata] == [level.noise for level in summary.levels]


def test_a_shift_of_the_wording_alone_is_evidence_at_its_level_and_decides_nothing() -> None:
    rng = np.random.default_rng(58)

    def fenced(fence: float) -> ArmOutcome:
        features = {"bytes": {"fenced": fence, f"word {rng.integers(9)}": 1.0}}
        return ArmOutcome(1.0, {}, {"bytes": str(rng.random())}, level_features=features)

    summary = fed(judge(), [seen(fenced(0.0), fenced(1.0)) for _ in range(500)]).summary()
    assert summary.decision == "equivalent"
    assert (level_of(summary, "bytes").e_value or 0.0) > 100
    assert not any(stratum.named for stratum in summary.strata)


def worded(rng: np.random.Generator) -> ArmOutcome:
    features = {"bytes": {f"word {rng.integers(5)}": 1.0}}
    return ArmOutcome(1.0, {}, {"bytes": str(rng.integers(100))}, level_features=features)


def test_a_wording_that_only_varies_is_no_evidence_at_its_level() -> None:
    rng, paths, alarms = np.random.default_rng(59), 200, 0
    for _ in range(paths):
        a_judge = judge(60, delta=1e-6)
        for _ in range(60):
            a_judge.observe(seen(worded(rng), worded(rng)))
        alarms += (level_of(a_judge.summary(), "bytes").e_value or 0.0) >= 20
    assert alarms <= binom.ppf(0.999, paths, 0.05)


def test_many_tiny_strata_that_did_not_change_diverge_at_most_at_the_nominal_rate() -> None:
    rng, paths, diverged = np.random.default_rng(60), 60, 0
    strata = [f"claims/{number}" for number in range(12)]
    for _ in range(paths):
        a_judge = floored(20, strata=strata, delta=1e-6)
        events = [held(*(drawn(rng, 0.2) for _ in range(4)), stratum=strata[i % 12]) for i in range(240)]
        diverged += fed(a_judge, events).decision == "diverged"
    assert diverged <= binom.ppf(0.999, paths, 0.05)


def test_what_was_not_planned_is_refused_and_changes_nothing() -> None:
    a_judge = judge(1, strata=(CLAIMS, RENEWALS))
    with pytest.raises(ValueError, match="not planned"):
        a_judge.observe(replace(SAME, stratum="other"))
    a_judge.observe(SAME)
    with pytest.raises(ValueError, match="planned events"):
        a_judge.observe(SAME)
    assert a_judge.summary().events == 1


def test_an_outcome_out_of_range_is_refused() -> None:
    with pytest.raises(ValueError, match="accepted"):
        outcome(accepted=1.5)
    with pytest.raises(ValueError, match="finite"):
        ArmOutcome(1.0, {"x": float("inf")}, {})


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="strata"):
        SequentialJudge([], planned={})
    with pytest.raises(ValueError, match="planned events"):
        SequentialJudge([CLAIMS], planned={})
    with pytest.raises(ValueError, match="delta"):
        judge(delta=0.0)
    with pytest.raises(ValueError, match="exit levels"):
        SequentialJudge([CLAIMS], planned={CLAIMS: 1}, exit_levels=["bytes"])
