"""What the detectors reach on recorded outputs of real models: the figures that the method promises, as asserts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from statistics import median

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.acceptance.recordings import GPT4, GPT4O, GPT35, STABILITY, paired, read_arms, recording

from driftline.detectors import (
    ArmOutcome,
    BettingEProcess,
    BettingEProcesses,
    MmdEProcess,
    Observation,
    SequentialJudge,
    SoftRanks,
    SwapLearner,
    betting_interval,
)

pytestmark = pytest.mark.acceptance

ORDERS, DRAWS, DRAWS_OF_JUDGE, WHOLE_RUN_ORDERS = 100, 1000, 600, 50
UPGRADES = {
    "gpt-4 on happy numbers": ("llmdrift-happy", f"{GPT4}-0314", f"{GPT4}-0613", 25),
    "gpt-3.5 on happy numbers": ("llmdrift-happy", f"{GPT35}-0301", f"{GPT35}-0613", 160),
    "gpt-4 on leetcode": ("llmdrift-leetcode", f"{GPT4}-0314", f"{GPT4}-0613", 35),
}
RUNS = 5
"""Of gpt-4o, in each of the stability recordings."""
OTHER, OTHER_RUNS = "openai/gpt-35", 6

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Alarm = Callable[[Sequence[Observation]], float]
Event = tuple[str, list[ArmOutcome]]
"""A stratum, and what each run answered."""


def change(observation: Observation) -> float:
    return observation.candidate.accepted - observation.baseline.accepted


def alarm_of_signed(events: Sequence[Observation]) -> float:
    process = BettingEProcess()
    for event in events:
        process.update(change(event))
        if process.e_value >= 20:
            return process.n
    return float("inf")


def alarm_of_judge(events: Sequence[Observation]) -> float:
    judge = SequentialJudge(["set"], planned={"set": len(events)})
    for event in events:
        judge.observe(event)
        if judge.decision is not None:
            break
    return judge.alarm_after or float("inf")


@pytest.mark.parametrize("alarm", [alarm_of_signed, alarm_of_judge])
@pytest.mark.parametrize("upgrade", UPGRADES)
def test_a_real_upgrade_alarms_within_so_many_events(upgrade: str, alarm: Alarm, recordings: Path) -> None:
    name, baseline, candidate, most = UPGRADES[upgrade]
    arms = read_arms(recording(recordings, name))
    events = paired(arms[baseline, 0], arms[candidate, 0])
    orders = [np.random.default_rng(seed).permutation(len(events)) for seed in range(ORDERS)]
    assert median(alarm([events[index] for index in order]) for order in orders) <= most


@pytest.mark.parametrize("population", [None, 500, 1000])
def test_happy_numbers_gpt_4_has_its_interval_inside_60_to_36_points(
    population: int | None, recordings: Path
) -> None:
    arms = read_arms(recording(recordings, "llmdrift-happy"))
    events = paired(arms[f"{GPT4}-0314", 0], arms[f"{GPT4}-0613", 0])
    low, high = betting_interval([change(event) for event in events], population=population)
    assert len(events) == 500
    assert -0.60 <= low <= high <= -0.36


@pytest.fixture(scope="module")
def same_model(recordings: Path) -> list[Event]:
    """Events of three sets that gpt-4o's five runs answered, and did not all answer alike.

    Where all runs agree, any two of them agree and no e-value moves: such events are left out.
    """
    events: list[Event] = []
    for name in STABILITY:
        arms = read_arms(recording(recordings, f"stability-{name}"))
        runs = [arms[GPT4O, number] for number in range(RUNS)]
        answered = [[run[event] for run in runs] for event in sorted(set.intersection(*map(set, runs)))]
        assert len(answered) == 250
        events += [
            (name, answers) for answers in answered if len({answer.hashes["action"] for answer in answers}) > 1
        ]
    return events


def accepted(events: Sequence[Event]) -> Floats:
    """Verdicts; shape (events, RUNS)."""
    return np.array([[answer.accepted for answer in answers] for _, answers in events])


def action_codes(events: Sequence[Event]) -> Ints:
    """Equal codes are equal actions; shape (events, RUNS)."""
    hashes = np.array([[answer.hashes["action"] for answer in answers] for _, answers in events])
    return np.unique(hashes, return_inverse=True)[1].reshape(hashes.shape)


Draw = list[tuple[int, list[int]]]
"""Events in random order, each with its runs in random order: the candidate, the baseline, further runs."""


@pytest.fixture(scope="module")
def draws(same_model: list[Event]) -> list[Draw]:
    """The run labels permuted event by event: then nothing has changed, whatever the five runs did."""
    rng = np.random.default_rng(61)
    places = np.tile(np.arange(RUNS), (len(same_model), 1))
    return [
        list(zip(rng.permutation(len(same_model)).tolist(), rng.permuted(places, axis=1).tolist(), strict=True))
        for _ in range(DRAWS)
    ]


def drawn(values: NDArray[np.generic], draws: Sequence[Draw]) -> NDArray[np.generic]:
    """The values of events in the order of each draw; shape (events, draws, RUNS)."""
    order = np.array([[event for event, _ in draw] for draw in draws]).T
    places = np.array([[runs for _, runs in draw] for draw in draws]).transpose(1, 0, 2)
    return np.take_along_axis(values[order], places, axis=2)


def assert_nominal(largest: Sequence[float] | Floats) -> None:
    """`largest` e-value of each draw, at any moment: at most 5 % alarm at the 5 % level and 1 % at the 1 % level."""
    assert len(largest) >= 600
    for alpha in (0.05, 0.01):
        assert np.mean(np.array(largest) >= 1 / alpha) <= alpha


def test_permuted_labels_alarm_at_most_at_the_nominal_rate_by_the_signed_statistic(
    same_model: list[Event], draws: list[Draw]
) -> None:
    processes, largest = BettingEProcesses(DRAWS), np.ones(DRAWS)
    for verdicts in drawn(accepted(same_model), draws):
        processes.update(np.arange(DRAWS), np.subtract(verdicts[:, 0], verdicts[:, 1]))
        largest = np.maximum(largest, processes.e_values)
    assert_nominal(largest)


def test_permuted_labels_alarm_at_most_at_the_nominal_rate_by_soft_rank_on_four_cached_runs(
    same_model: list[Event], draws: list[Draw]
) -> None:
    processes, largest = SoftRanks(DRAWS), np.ones(DRAWS)
    for actions in drawn(action_codes(same_model), draws):
        processes.update(np.arange(DRAWS), actions)
        largest = np.maximum(largest, processes.e_values)
    assert_nominal(largest)


def test_permuted_labels_alarm_at_most_at_the_nominal_rate_by_the_swap_learner(
    same_model: list[Event], draws: list[Draw]
) -> None:
    largest = []
    for draw in draws:
        learner, top = SwapLearner(), 1.0
        for event, (candidate, baseline, *_) in draw:
            answers = same_model[event][1]
            learner.update(answers[baseline].features, answers[candidate].features)
            top = max(top, learner.e_value)
        largest.append(top)
    assert_nominal(largest)


def test_permuted_labels_alarm_at_most_at_the_nominal_rate_by_mmd(same_model: list[Event], draws: list[Draw]) -> None:
    """Two of the runs against two others, at the action level."""
    codes, largest = action_codes(same_model).tolist(), []
    for draw in draws:
        process, top = MmdEProcess(), 1.0
        for event, (candidate, baseline, other, again, _) in draw:
            answers = codes[event]
            process.update((answers[baseline], answers[other]), (answers[candidate], answers[again]))
            top = max(top, process.e_value)
        largest.append(top)
    assert_nominal(largest)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("floor_runs", [0, RUNS - 1])
def test_permuted_labels_diverge_at_most_at_the_nominal_rate_by_the_whole_judge(
    same_model: list[Event], draws: list[Draw], floor_runs: int
) -> None:
    planned, largest = dict.fromkeys(STABILITY, 250), []
    for draw in draws[:DRAWS_OF_JUDGE]:
        judge, top = SequentialJudge(STABILITY, planned=planned, alpha=1e-9, delta=1e-6, floor_runs=floor_runs), 1.0
        for event, (candidate, *others) in draw:
            stratum, answers = same_model[event]
            runs = tuple(answers[other] for other in others)
            if floor_runs or runs[0].hashes["action"] != answers[candidate].hashes["action"]:
                judge.observe(Observation(stratum, runs[0], answers[candidate], runs[:floor_runs]))
                top = max(top, judge.e_value)
        largest.append(top)
    assert_nominal(largest)


def test_one_model_against_itself_alarms_in_at_most_5_percent_by_the_signed_statistic(
    same_model: list[Event],
) -> None:
    """Whole runs as they were recorded: all ordered pairs of the five, each in random orders."""
    verdicts, rng = accepted(same_model), np.random.default_rng(62)
    pairs = [pair for pair in permutations(range(RUNS), 2) for _ in range(WHOLE_RUN_ORDERS)]
    differences = np.array([rng.permutation(verdicts[:, second] - verdicts[:, first]) for first, second in pairs])
    processes, largest = BettingEProcesses(len(pairs)), np.ones(len(pairs))
    for column in differences.T:
        processes.update(np.arange(len(pairs)), column)
        largest = np.maximum(largest, processes.e_values)
    assert np.mean(largest >= 20) <= 0.05


@dataclass(frozen=True)
class BothModels:
    """Two sets; an answer is an index into `outcomes`, runs have shape (events, runs)."""

    outcomes: Sequence[ArmOutcome]
    runs: Ints
    others: Ints

    def mixed(self, share: float, draws: int, seed: int) -> Ints:
        """By draw and event, in random order: the candidate's answer, of gpt-3.5 in a share, and 4 cached ones."""
        rng, events = np.random.default_rng(seed), len(self.runs)
        order = rng.permuted(np.tile(np.arange(events), (draws, 1)), axis=1)
        found = rng.permuted(self.runs[order], axis=2)
        other = np.take_along_axis(self.others, rng.integers(self.others.shape[1], size=(events, draws)), axis=1).T
        astray = rng.random((draws, events)) < share
        found[:, :, 0] = np.where(astray, np.take_along_axis(other, order, axis=1), found[:, :, 0])
        return found


@pytest.fixture(scope="module")
def both_models(recordings: Path) -> BothModels:
    """What gpt-4o's five runs answered, and six of gpt-3.5's."""
    rows: list[list[ArmOutcome]] = []
    for name in ("navigate", "logical-deduction"):
        arms = read_arms(recording(recordings, f"stability-{name}"))
        runs = [arms[GPT4O, number] for number in range(RUNS)] + [
            arms["openai/gpt-35", number] for number in range(6)
        ]
        rows += [[run[event] for run in runs] for event in sorted(runs[0])]
    outcomes = {(one.hashes["action"], one.accepted): one for row in rows for one in row}
    places = {key: place for place, key in enumerate(outcomes)}
    codes = np.array([[places[one.hashes["action"], one.accepted] for one in row] for row in rows])
    return BothModels(list(outcomes.values()), codes[:, :RUNS], codes[:, RUNS:])


def alarms_of_judge_with_floor(both: BothModels, answers: Ints) -> list[float]:
    """Paid calls at the alarm, by draw; where all agree no e-value moves."""
    alarms = []
    for draw in answers:
        judge = SequentialJudge(["set"], planned={"set": len(draw)}, delta=1e-6, floor_runs=RUNS - 1)
        alarm = float("inf")
        for number in np.flatnonzero((draw != draw[:, :1]).any(axis=1)).tolist():
            candidate, *runs = (both.outcomes[place] for place in draw[number])
            judge.observe(Observation("set", runs[0], candidate, tuple(runs)))
            if judge.decision is not None:
                alarm = number + 1
                break
        alarms.append(alarm)
    return alarms


def alarms_of_soft_rank(actions: Ints, alpha: float = 0.05) -> Floats:
    """Paid calls at the alarm, by draw."""
    processes, alarms = SoftRanks(len(actions)), np.full(len(actions), np.inf)
    for number, event in enumerate(actions.transpose(1, 0, 2), start=1):
        processes.update(np.arange(len(actions)), event)
        alarms = np.where((processes.e_values >= 1 / alpha) & np.isinf(alarms), number, alarms)
    return alarms


def test_a_fifth_of_another_model_mixed_in_alarms_by_soft_rank_within_150_calls(both_models: BothModels) -> None:
    alarms = alarms_of_soft_rank(both_models.mixed(0.2, draws=400, seed=63))
    assert len(both_models.runs) == 500
    assert np.mean(np.isfinite(alarms)) >= 0.95
    assert np.median(alarms) <= 150


def test_a_fifth_of_another_model_mixed_in_diverges_by_the_whole_judge_within_150_calls(
    both_models: BothModels,
) -> None:
    alarms = alarms_of_judge_with_floor(both_models, both_models.mixed(0.2, draws=60, seed=66))
    assert np.mean(np.isfinite(alarms)) >= 0.95
    assert np.median(alarms) <= 150


def test_nothing_mixed_in_alarms_at_most_at_the_nominal_rate_by_soft_rank(both_models: BothModels) -> None:
    unchanged = both_models.mixed(0.0, draws=1000, seed=64)
    assert np.mean(np.isfinite(alarms_of_soft_rank(unchanged))) <= 0.05
    assert np.mean(np.isfinite(alarms_of_soft_rank(unchanged, alpha=0.01))) <= 0.01


def test_a_fifth_of_another_model_mixed_in_is_six_points_of_excess_mismatch(both_models: BothModels) -> None:
    """A small change: a mismatch rate against the log alone would not tell it from the noise of either model."""
    actions = both_models.mixed(0.2, draws=300, seed=65)
    against_runs = np.mean(actions[:, :, :1] != actions[:, :, 1:])
    among_runs = np.mean([actions[:, :, i] != actions[:, :, j] for i in range(1, RUNS) for j in range(1, i)])
    assert against_runs - among_runs == pytest.approx(0.059, abs=0.01)
