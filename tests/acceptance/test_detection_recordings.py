"""What the detectors reach on recorded outputs of real models."""

import gzip
import json
import re
from collections import defaultdict
from collections.abc import Callable
from itertools import permutations
from pathlib import Path
from statistics import median

import numpy as np
import pytest

from driftline.detectors import (
    ArmOutcome,
    BettingEProcess,
    BettingEProcesses,
    Observation,
    SequentialJudge,
    SoftRank,
    SwapLearner,
    betting_interval,
)

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
GPT4, GPT35 = "openai/gpt-4", "openai/gpt-3.5-turbo"
STABILITY_SETS = ("logical-deduction", "navigate", "ruin-names")
ORDERS, DRAWS = 100, 600

pytestmark = pytest.mark.acceptance

Arms = dict[tuple[str, int], dict[str, ArmOutcome]]
Record = dict[str, str]


def read(name: str, outcome: Callable[[Record], ArmOutcome]) -> Arms:
    """Outcomes of a recording by (model, replicate) and event."""
    path = DATA / f"{name}.jsonl.gz"
    if not path.exists():
        pytest.skip(f"the recording {name} is not in ../shared/data")
    arms: Arms = defaultdict(dict)
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for record in map(json.loads, lines):
            arms[record["model"], record["replicate"]][record["event_id"]] = outcome(record)
    return arms


def boxed(text: str) -> str | None:
    found = re.findall(r"\\boxed\{([^{}]*)\}", text)
    return found[-1].strip() if found else None


def happy(record: Record) -> ArmOutcome:
    answer = boxed(record["response"])
    features = {f"answer={answer}": 1.0}
    if answer is not None and answer.isdecimal():
        features["answer"] = float(answer)
    accepted = float(answer == boxed(record["reference"]))
    return ArmOutcome(accepted, features, {"bytes": record["response"], "action": str(answer)})


def leetcode(record: Record) -> ArmOutcome:
    fenced = float("```" in record["response"])
    return ArmOutcome(float(record["reference"] == "1"), {"fenced": fenced}, {"bytes": record["response"]})


def plain(text: str) -> str:
    return re.sub(r"[()\s]", "", text).lower()


def free_text(record: Record) -> str:
    """The last answer of the reference's kind in the text: yes or no, or a letter in brackets."""
    kind = r"\([A-Za-z]\)" if len(plain(record["reference"])) == 1 else r"(?i:\byes\b|\bno\b)"
    found = re.findall(kind, record["response"])
    return plain(found[-1]) if found else "unparsed"


def either_form(record: Record) -> ArmOutcome:
    outcome = strict_json(record)
    if outcome.hashes["action"] != "unparsed":
        return outcome
    answer = free_text(record)
    return ArmOutcome(float(answer == plain(record["reference"])), {f"answer={answer}": 1.0}, {"action": answer})


def strict_json(record: Record) -> ArmOutcome:
    try:
        answer = plain(str(json.loads(record["response"])["Answer"]))
    except (ValueError, KeyError, TypeError):
        answer = "unparsed"
    accepted = float(answer == plain(record["reference"]))
    return ArmOutcome(accepted, {f"answer={answer}": 1.0}, {"bytes": record["response"], "action": answer})


def paired(arms: Arms, baseline: str, candidate: str) -> list[Observation]:
    before, after = arms[baseline, 0], arms[candidate, 0]
    return [Observation("set", before[event], after[event]) for event in sorted(before.keys() & after.keys())]


def change(observation: Observation) -> float:
    return observation.candidate.accepted - observation.baseline.accepted


def alarm_of_signed(events: list[Observation]) -> float:
    process = BettingEProcess()
    for event in events:
        process.update(change(event))
        if process.e_value >= 20:
            return process.n
    return float("inf")


def alarm_of_judge(events: list[Observation]) -> float:
    judge = SequentialJudge(["set"], planned={"set": len(events)})
    for number, event in enumerate(events, start=1):
        judge.observe(event)
        if judge.decision is not None:
            return number if judge.decision == "diverged" else float("inf")
    return float("inf")


def median_alarm(events: list[Observation], alarm: Callable[[list[Observation]], float]) -> float:
    orders = [np.random.default_rng(seed).permutation(len(events)) for seed in range(ORDERS)]
    return median(alarm([events[index] for index in order]) for order in orders)


@pytest.fixture(scope="module")
def happy_arms() -> Arms:
    return read("llmdrift-happy", happy)


@pytest.fixture(scope="module")
def leetcode_arms() -> Arms:
    return read("llmdrift-leetcode", leetcode)


@pytest.mark.parametrize("alarm", [alarm_of_signed, alarm_of_judge])
def test_happy_numbers_gpt_4_alarms_within_25_events(
    happy_arms: Arms, alarm: Callable[[list[Observation]], float]
) -> None:
    assert median_alarm(paired(happy_arms, f"{GPT4}-0314", f"{GPT4}-0613"), alarm) <= 25


@pytest.mark.parametrize("population", [None, 1000])
def test_happy_numbers_gpt_4_has_its_interval_inside_60_to_36_points(
    happy_arms: Arms, population: int | None
) -> None:
    events = paired(happy_arms, f"{GPT4}-0314", f"{GPT4}-0613")
    low, high = betting_interval([change(event) for event in events], population=population)
    assert len(events) == 500
    assert -0.60 <= low < high <= -0.36


@pytest.mark.parametrize("alarm", [alarm_of_signed, alarm_of_judge])
def test_happy_numbers_gpt_35_alarms_within_160_events(
    happy_arms: Arms, alarm: Callable[[list[Observation]], float]
) -> None:
    assert median_alarm(paired(happy_arms, f"{GPT35}-0301", f"{GPT35}-0613"), alarm) <= 160


@pytest.mark.parametrize("alarm", [alarm_of_signed, alarm_of_judge])
def test_leetcode_gpt_4_alarms_within_35_events(
    leetcode_arms: Arms, alarm: Callable[[list[Observation]], float]
) -> None:
    assert median_alarm(paired(leetcode_arms, f"{GPT4}-0314", f"{GPT4}-0613"), alarm) <= 35


@pytest.fixture(scope="module")
def same_model_pairs() -> list[list[Observation]]:
    """gpt-4o against itself: all ordered pairs of its five runs over three sets; of the events those that differ.

    Events on which the arms agree in everything move no e-value, so they are left out.
    """
    pairs: defaultdict[tuple[int, int], list[Observation]] = defaultdict(list)
    for name in STABILITY_SETS:
        arms = read(f"stability-{name}", strict_json)
        runs = {run: arm for (model, run), arm in arms.items() if model == "openai/gpt-4o"}
        for first, second in permutations(sorted(runs), 2):
            for event in sorted(runs[first].keys() & runs[second].keys()):
                before, after = runs[first][event], runs[second][event]
                if (before.accepted, before.features) != (after.accepted, after.features):
                    pairs[first, second].append(Observation(name, before, after))
    assert len(pairs) == 20
    return list(pairs.values())


@pytest.fixture(scope="module")
def permuted_draws(same_model_pairs: list[list[Observation]]) -> list[list[Observation]]:
    """Each draw: a pair of runs in a random order of events, its labels swapped event by event by a coin."""
    rng, draws = np.random.default_rng(61), []
    for number in range(DRAWS):
        events = same_model_pairs[number % len(same_model_pairs)]
        draws.append([swapped(events[index], rng.random() < 0.5) for index in rng.permutation(len(events))])
    return draws


def swapped(event: Observation, swap: bool) -> Observation:
    return Observation(event.stratum, event.candidate, event.baseline) if swap else event


def largest_signed(draws: list[list[Observation]]) -> np.ndarray:
    """The largest e-value that the pooled signed statistic ever has; shape (draws,)."""
    processes, largest = BettingEProcesses(len(draws)), np.ones(len(draws))
    for number in range(max(len(draw) for draw in draws)):
        going = [index for index, draw in enumerate(draws) if number < len(draw)]
        processes.update(going, [change(draws[index][number]) for index in going])
        largest = np.maximum(largest, processes.e_values)
    return largest


def test_one_model_against_itself_alarms_in_at_most_5_percent_by_the_signed_statistic(
    same_model_pairs: list[list[Observation]],
) -> None:
    rng = np.random.default_rng(62)
    draws = [
        [events[index] for index in rng.permutation(len(events))] for events in same_model_pairs for _ in range(50)
    ]
    assert np.mean(largest_signed(draws) >= 20) <= 0.05


def test_permuted_labels_alarm_at_most_at_the_nominal_rate_by_the_signed_statistic(
    permuted_draws: list[list[Observation]],
) -> None:
    largest = largest_signed(permuted_draws)
    assert np.mean(largest >= 20) <= 0.05
    assert np.mean(largest >= 100) <= 0.01


def test_permuted_labels_alarm_at_most_at_the_nominal_rate_by_the_swap_learner(
    permuted_draws: list[list[Observation]],
) -> None:
    largest = []
    for draw in permuted_draws:
        learner, top = SwapLearner(), 1.0
        for event in draw:
            learner.update(event.baseline.features, event.candidate.features)
            top = max(top, learner.e_value)
        largest.append(top)
    assert np.mean(np.array(largest) >= 20) <= 0.05
    assert np.mean(np.array(largest) >= 100) <= 0.01


@pytest.mark.parametrize("alpha", [0.05, 0.01])
def test_permuted_labels_diverge_at_most_at_the_nominal_rate_by_the_whole_judge(
    permuted_draws: list[list[Observation]], alpha: float
) -> None:
    diverged = 0
    for draw in permuted_draws:
        planned = dict.fromkeys(STABILITY_SETS, 250)
        judge = SequentialJudge(STABILITY_SETS, planned=planned, alpha=alpha, delta=1e-6)
        for event in draw:
            if judge.decision is None:
                judge.observe(event)
        diverged += judge.decision == "diverged"
    assert diverged / len(permuted_draws) <= alpha


@pytest.fixture(scope="module")
def answers_of_both_models() -> list[tuple[list[str], list[str]]]:
    """Per event of two sets: the answers of gpt-4o's five runs, and those of gpt-3.5's."""
    events = []
    for name in ("navigate", "logical-deduction"):
        arms = read(f"stability-{name}", either_form)
        keys = sorted(arms)
        for event in sorted(arms["openai/gpt-4o", 0]):
            answers: tuple[list[str], list[str]] = ([], [])
            for key in keys:
                if event in arms[key]:
                    answers[key[0] != "openai/gpt-4o"].append(arms[key][event].hashes["action"])
            events.append(answers)
    return events


def alarms_of_soft_rank(events: list[tuple[list[str], list[str]]], share: float, seed: int) -> list[float]:
    """Alarm times over random orders, the candidate being gpt-4o with gpt-3.5 mixed into a share of events."""
    rng, alarms = np.random.default_rng(seed), []
    for _ in range(200):
        process, alarm = SoftRank(), float("inf")
        for index in rng.permutation(len(events)):
            runs, other = events[index]
            candidate, *cached = rng.permutation(runs).tolist()
            process.update(rng.choice(other) if rng.random() < share else candidate, cached)
            if process.e_value >= 20:
                alarm = process.n
                break
        alarms.append(alarm)
    return alarms


def test_a_fifth_of_another_model_mixed_in_alarms_by_soft_rank_within_150_calls(
    answers_of_both_models: list[tuple[list[str], list[str]]],
) -> None:
    alarms = alarms_of_soft_rank(answers_of_both_models, share=0.2, seed=63)
    assert len(answers_of_both_models) == 500
    assert np.mean(np.isfinite(alarms)) >= 0.95
    assert median(alarms) <= 150


def test_nothing_mixed_in_alarms_at_most_at_the_nominal_rate_by_soft_rank(
    answers_of_both_models: list[tuple[list[str], list[str]]],
) -> None:
    """Which of the five runs is the candidate is drawn event by event: the permutation of labels."""
    alarms = alarms_of_soft_rank(answers_of_both_models, share=0.0, seed=64)
    assert np.mean(np.isfinite(alarms)) <= 0.05
