"""What a verdict costs: paid calls against a test of fixed size, and time against the fastest model call.

Run: python bench/detection.py
"""

from time import perf_counter

import numpy as np
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


if __name__ == "__main__":
    calls_against_a_fixed_test()
    time_against_a_model_call()
    time_of_intervals_and_order()
