"""What evidence costs: time and memory of e-processes, each as the ratio to its limit (above 1 is missed).

Run: python bench/detectors.py
"""

import tracemalloc
from collections.abc import Callable, Sequence
from functools import partial
from time import perf_counter

import numpy as np

from driftline.detectors import (
    BettingEProcess,
    BettingEProcesses,
    EDetector,
    MmdEProcess,
    RunningMeanInterval,
    SoftRank,
    SoftRanks,
    Standing,
    StratumChange,
    SwapLearner,
    next_stratum,
    power_over_strata,
    smallest_detectable_change,
)

STRATA, EVENTS, BASELINES = 10_000, 1000, 4
PEEKED_EVERY = 100
# Of two times ten million updates together, and of one update by itself.
MANY_S_MAX = 2.0
UPDATE_US_MAX = 20.0
SWAP_US_MAX = 50.0
# A model call takes at least this long; what is done once a call must be lost in it.
MODEL_CALL_MS_MIN = 200.0
PLAN_S_MAX = 10.0
GROWTH_KB_MAX = 4.0


def told(what: str, taken: float, limit: float, unit: str) -> None:
    print(f"  {what:52s} {taken:9.3g} {unit:3s} limit {limit:g}, ratio {taken / limit:.3f}")


def seconds(work: Callable[[], object]) -> float:
    started = perf_counter()
    work()
    return perf_counter() - started


def many_strata() -> None:
    print(
        f"{STRATA} strata x {EVENTS} events in batches of one event a stratum, e-values every {PEEKED_EVERY} batches"
    )
    rng, strata = np.random.default_rng(1), np.arange(STRATA)
    verdicts = [rng.choice(np.array([-1, 0, 1], np.int8), p=[0.1, 0.8, 0.1], size=STRATA) for _ in range(EVENTS)]
    fields = [rng.integers(-20, 21, size=STRATA) / 20 for _ in range(EVENTS // 10)]
    answers = [
        np.where(rng.random((STRATA, BASELINES + 1)) < 0.2, rng.integers(1, 5, (STRATA, BASELINES + 1)), 0)
        for _ in range(EVENTS)
    ]

    def feed(processes: BettingEProcesses | SoftRanks, batches: Sequence[np.ndarray]) -> float:
        started = perf_counter()
        for number, batch in enumerate(batches, start=1):
            processes.update(strata, batch)
            if number % PEEKED_EVERY == 0:
                processes.log_e_values.max()
        return perf_counter() - started

    signed = feed(BettingEProcesses(STRATA), verdicts)
    told("signed, verdicts", signed, MANY_S_MAX, "s")
    ranked = feed(SoftRanks(STRATA), answers)
    told(f"soft rank, {BASELINES} baselines, codes", ranked, MANY_S_MAX, "s")
    told("both together", signed + ranked, MANY_S_MAX, "s")
    per_event = 1e6 * feed(BettingEProcesses(STRATA), fields) / (STRATA * len(fields))
    told("signed, a field of 41 values: one update", per_event, UPDATE_US_MAX, "us")


def one_by_one() -> None:
    print("one update by itself, with its e-value asked for after each")
    rng, events = np.random.default_rng(2), 2000
    differences = rng.choice([-1.0, 0.0, 1.0], size=events).tolist()
    codes = rng.integers(3, size=(events, BASELINES + 1)).tolist()
    signed, rank, mmd, detector, mean = (
        BettingEProcess(),
        SoftRank(),
        MmdEProcess(),
        EDetector(),
        RunningMeanInterval(),
    )

    def each(name: str, update: Callable[[int], None], ask: Callable[[], object]) -> None:
        started = perf_counter()
        for number in range(events):
            update(number)
            ask()
        told(name, 1e6 * (perf_counter() - started) / events, UPDATE_US_MAX, "us")

    each("signed", lambda i: signed.update(differences[i]), lambda: signed.log_e_value)
    each("soft rank", lambda i: rank.update(codes[i][0], codes[i][1:]), lambda: rank.log_e_value)
    each("MMD", lambda i: mmd.update(codes[i][:2], codes[i][2:4]), lambda: mmd.log_e_value)
    each("e-detector", lambda i: detector.update(differences[i]), lambda: detector.log_value)
    each("interval of the running mean", lambda i: mean.update(differences[i]), lambda: mean.interval)


def swap_learner() -> None:
    print("swap learner, one update")
    rng, events = np.random.default_rng(3), 1000
    names = [f"feature-{number}" for number in range(200)]
    rows = rng.normal(size=(2 * events, 200))
    named = [dict(zip(names, row, strict=True)) for row in rows.tolist()]
    fields = rng.integers(5, size=(2 * events, 5)).tolist()
    one_hot = [{f"field-{number}={value}": 1.0 for number, value in enumerate(row)} for row in fields]
    by_name, placed, few = SwapLearner(), SwapLearner(200), SwapLearner()

    def each(name: str, update: Callable[[int], None]) -> None:
        started = perf_counter()
        for number in range(0, 2 * events, 2):
            update(number)
        told(name, 1e6 * (perf_counter() - started) / events, SWAP_US_MAX, "us")

    each("200 numbers by name", lambda i: by_name.update(named[i], named[i + 1]))
    each("200 numbers with places of their own", lambda i: placed.update_difference(rows[i] - rows[i + 1]))
    each("5 fields, one-hot", lambda i: few.update(one_hot[i], one_hot[i + 1]))


def memory() -> None:
    print("memory that 50,000 further events take")
    rng, learner, detector, mean = np.random.default_rng(4), SwapLearner(), EDetector(), RunningMeanInterval()
    processes, ranks = BettingEProcesses(10), SoftRanks(10)

    def feed(events: int) -> None:
        for _ in range(events // 10):
            drawn = rng.random(10)
            processes.update(range(10), drawn)
            ranks.update(range(10), rng.integers(3, size=(10, BASELINES + 1)))
            for d in drawn.tolist():
                detector.update(d)
                mean.update(d)
            learner.update({"a": drawn[0], "b": drawn[1]}, {"a": drawn[2], "b": drawn[3]})

    feed(1000)
    tracemalloc.start()
    feed(1000)
    before = tracemalloc.get_traced_memory()[0]
    feed(50_000)
    grown = (tracemalloc.get_traced_memory()[0] - before) / 1024
    tracemalloc.stop()
    told("all processes together", grown, GROWTH_KB_MAX, "KB")


def choosing_and_planning() -> None:
    print("once a call, and once a plan")
    for strata in (20, 1000):
        standings = {f"s{number}": Standing(number / strata, number, 50) for number in range(strata)}
        taken = seconds(partial(next_stratum, standings, seed=1))
        told(f"next of {strata} strata", 1000 * taken, MODEL_CALL_MS_MIN, "ms")
    plan = [StratumChange(0.15, 0.8, 500)] * 10
    told("power over 10 strata x 500 events, 1000 paths", seconds(lambda: power_over_strata(plan)), PLAN_S_MAX, "s")
    taken = seconds(lambda: smallest_detectable_change([500] * 10, 0.05))
    told("smallest detectable change there, 200 paths each", taken, PLAN_S_MAX, "s")


if __name__ == "__main__":
    many_strata()
    one_by_one()
    swap_learner()
    memory()
    choosing_and_planning()
