"""What a verdict costs and how often it is wrong: false alarms, power and paid calls, beside the usual tests.

    python bench/detection.py [--draws 600] [--seed 61]

The recordings of real models are read at `../shared/data`; where they are not, the simulator alone is shown. In a
scene where nothing changed the share of draws that alarm at any moment is the rate of false alarms; in one where
something did it is the power. Every draw puts the events into an order of its own and deals the runs anew.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from time import perf_counter

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
from bench.kit.rules import LEVELS, OURS, THEIRS, Alarms, Rule
from bench.kit.scenes import Scene, nothing_changed, something_changed
from scipy.stats import norm

from driftline.detectors import (
    ArmOutcome,
    Observation,
    SequentialJudge,
    betting_interval,
    planned_order,
    power_by_simulation,
)

# A model call takes at least this long; judging an event must be lost in it.
MODEL_CALL_MS_MIN = 200.0
EVENTS = 1000
# Draws of a scene in which something changed, for each of one in which nothing did: a power needs fewer digits.
POWER_DRAWS_SHARE = 1 / 4
# Draws for a rule that goes through the events one by one.
SLOW_DRAWS_SHARE = 1 / 3
NAME_WIDTH, CELL_WIDTH = 54, 11
VALID = tuple(rule for rule in THEIRS if rule.valid)
STARTED = perf_counter()


def mcnemar_events(discordant: float, majority: float, alpha: float = 0.05, power: float = 0.8) -> float:
    """Events that a McNemar test, looked at once, needs for `power` (Connor 1987)."""
    change = discordant * (2 * majority - 1)
    z_alpha, z_power = norm.ppf(1 - alpha / 2), norm.ppf(power)
    return float((z_alpha * discordant**0.5 + z_power * (discordant - change**2) ** 0.5) ** 2 / change**2)


def calls_against_a_fixed_test() -> None:
    print("paid calls at the alarm (median), against a McNemar test of power .8 that is looked at once:")
    print("planned for a change of 5 points because the change is not known, or for the very change")
    cautious = mcnemar_events(discordant=0.2, majority=0.625)
    for discordant, majority in ((0.59, 0.91), (0.46, 0.69), (0.2, 0.9), (0.2, 0.75)):
        median = power_by_simulation(discordant, majority, events=EVENTS, seed=1).median_events
        change = discordant * (2 * majority - 1)
        if median is not None:
            knowing = mcnemar_events(discordant, majority)
            ratios = f"ratios {median / cautious:.2f} and {median / knowing:.2f}"
            print(f"  change {change:.2f}: {median:4.0f} calls against {cautious:.0f} or {knowing:.0f}, {ratios}")


def microseconds_per_event(strata: int) -> float:
    rng = np.random.default_rng(2)
    names = [f"boundary/stream-{number}" for number in range(strata)]
    judge = SequentialJudge(names, planned=dict.fromkeys(names, EVENTS), delta=1e-6)
    actions = [ArmOutcome(1.0, {f"action={n}": 1.0, "amount": n / 10}, {"action": str(n)}) for n in range(5)]
    drawn = rng.integers(5, size=(EVENTS, 2))
    started = perf_counter()
    for number, (first, second) in enumerate(drawn):
        if judge.decision is None:
            judge.observe(Observation(names[number % strata], actions[first], actions[second]))
    return 1e6 * (perf_counter() - started) / judge.summary().events


def time_against_a_model_call() -> None:
    print(f"time to judge one event against a model call of {MODEL_CALL_MS_MIN:.0f} ms")
    for strata in (1, 10, 100):
        taken = microseconds_per_event(strata)
        print(f"  {strata:3d} strata: {taken:.0f} us, ratio {taken / 1000 / MODEL_CALL_MS_MIN:.5f}")


def time_of_intervals_and_order() -> None:
    for events, limit_ms in ((500, 200.0), (10_000, 2000.0)):
        draws = np.random.default_rng(3).choice([-1.0, 0.0, 1.0], p=[0.1, 0.85, 0.05], size=events)
        started = perf_counter()
        betting_interval(draws, population=2 * events)
        taken = 1000 * (perf_counter() - started)
        print(f"interval of {events} values: {taken:.1f} ms, ratio to its limit {taken / limit_ms:.3f}")
    started = perf_counter()
    planned_order([f"workflow-{number % 50_000}" for number in range(100_000)], seed=4)
    print(f"order of 100000 records: {1000 * (perf_counter() - started):.0f} ms")


def told(progress: str) -> None:
    print(f"{perf_counter() - STARTED:5.0f} s  {progress}", file=sys.stderr)


def alarms_of(scene: Scene, rules: Iterable[Rule], draws: int, rng: np.random.Generator) -> dict[str, Alarms]:
    told(f"{scene.name}: {scene.events} events, {draws} draws")
    drawn, few = scene.draw(draws, rng), max(1, int(draws * SLOW_DRAWS_SHARE))
    return {rule.name: rule.alarms(drawn.first(few) if rule.slow else drawn) for rule in rules}


def row(name: str, cells: Iterable[str]) -> None:
    print(f"{name:<{NAME_WIDTH}}" + "".join(f"{cell:>{CELL_WIDTH}}" for cell in cells))


def share_text(alarms: Alarms, level: int) -> str:
    return "-" if alarms is None else f"{np.isfinite(alarms[:, level]).mean():.1%}"


def false_alarms(draws: int, rng: np.random.Generator) -> None:
    print("nothing changed: share of the draws that alarm at any moment")
    for scene in nothing_changed():
        found = alarms_of(scene, (*OURS, *THEIRS), draws, rng)
        print()
        row(f"{scene.name}, {scene.events} events", (*(f"at {level:.0%}" for level in LEVELS), "draws"))
        for rule in (*OURS, *THEIRS):
            alarms, note = found[rule.name], "" if rule.valid else " (no level, or peeked at)"
            shares = [share_text(alarms, level) for level in range(len(LEVELS))]
            row(f"  {rule.name}{note}", (*shares, "" if alarms is None else str(len(alarms))))


def power_text(alarms: Alarms, rule: Rule) -> str:
    """Power, and of our rules the median of paid calls at the alarm; "never" where fewer than half alarm."""
    if alarms is None:
        return "-"
    share = f"{np.isfinite(alarms[:, 0]).mean():.2f}"
    if rule in THEIRS:
        return share
    median = np.quantile(alarms[:, 0], 0.5, method="inverted_cdf")
    calls = f"{rule.calls_per_event * median:.0f}" if np.isfinite(median) else "never"
    return f"{share} {calls:>5}"


def power(draws: int, rng: np.random.Generator) -> None:
    rules, few = (*OURS, *VALID), max(1, int(draws * SLOW_DRAWS_SHARE))
    print("\nsomething changed: power at the 5 % level, and the median of paid calls at the alarm")
    print(f"{draws} draws ({few} by the judge and the swap learner); McNemar pays for all events\n")
    for rule in rules:
        print(f"  {label(rule)} {rule.name}")
    row("", map(label, rules))
    scenes = []
    for scene in something_changed():
        found = alarms_of(scene, rules, draws, rng)
        scenes.append((scene, found))
        row(f"{scene.name}, {scene.events} events", (power_text(found[rule.name], rule) for rule in rules))
    dollars_per_regression([(scene, found) for scene, found in scenes if scene.usd_a_call is not None])


def label(rule: Rule) -> str:
    return f"[{(*OURS, *VALID).index(rule)}]"


def dollars_per_regression(known: Sequence[tuple[Scene, dict[str, Alarms]]]) -> None:
    """What all draws spent, those that found nothing included, over how many found it; at recorded prices."""
    if not known:
        return
    rules = (OURS[0], *VALID)
    print()
    row("dollars per detected regression", map(label, rules))
    for scene, found in known:
        row(f"  {scene.name}", (dollars_text(scene, found[rule.name]) for rule in rules))


def dollars_text(scene: Scene, alarms: Alarms) -> str:
    if alarms is None or scene.usd_a_call is None or not np.isfinite(alarms[:, 0]).any():
        return "-"
    calls = np.minimum(alarms[:, 0], scene.events).sum()
    return f"{scene.usd_a_call * calls / np.isfinite(alarms[:, 0]).sum():.4f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=600, help="random draws of each scene")
    parser.add_argument("--seed", type=int, default=61)
    given = parser.parse_args()
    rng = np.random.default_rng(given.seed)
    false_alarms(given.draws, rng)
    power(max(1, int(given.draws * POWER_DRAWS_SHARE)), rng)
    print()
    calls_against_a_fixed_test()
    time_against_a_model_call()
    time_of_intervals_and_order()


if __name__ == "__main__":
    main()
