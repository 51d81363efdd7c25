"""Evidence of one night is carried to the next: saved as JSON, read back, and fed on as if nothing had been."""

import json
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftline.detectors import (
    BettingEProcess,
    BettingEProcesses,
    EDetector,
    MmdEProcess,
    RunningMeanInterval,
    SoftRank,
    SoftRanks,
    SwapLearner,
)
from driftline.detectors.carried import FORMAT

REFUSED = r"this state of a|this is not the saved state of a"

# Bytes that numpy and the interpreter may keep for themselves between two looks.
ALLOCATED_BYTES_SLACK = 4096


@dataclass(frozen=True)
class Case:
    """A kind of process: how one is made, fed with one event and asked; what events may be, and some of them."""

    make: Callable[[], Any]
    feed: Callable[[Any, Any], None]
    value: Callable[[Any], Any]
    events: st.SearchStrategy[Any]
    some: Sequence[Any]


Differences = st.sampled_from([-1.0, 0.0, 1.0]) | st.floats(-1.0, 1.0)
Features = st.dictionaries(st.sampled_from(["a", "b=x", "b=y", "c"]), st.floats(-1e6, 1e6), max_size=4)
Pairs = st.tuples(st.integers(0, 2), st.integers(0, 2))
Codes = st.lists(st.integers(0, 2), min_size=3, max_size=3)


def log_e(process: Any) -> Any:
    return process.log_e_value


def log_es(processes: Any) -> Any:
    return processes.log_e_values.tolist() + processes.n.tolist()


SOME_DIFFERENCES = (1.0, -1.0, 0.0, 0.25, 1 / 3, -0.7)
SOME_CODES = ([0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 1, 2])
SOME_STRATA = (0, 1, 2, 1)


def feed_one(process: Any, event: Any) -> None:
    process.update(event)


def feed_two(process: Any, event: Any) -> None:
    process.update(*event)


CASES = {
    "betting": Case(lambda: BettingEProcess(0.1), feed_one, log_e, Differences, SOME_DIFFERENCES),
    "one-sided betting": Case(
        lambda: BettingEProcess(two_sided=False), feed_one, log_e, Differences, SOME_DIFFERENCES
    ),
    "betting of many strata": Case(
        lambda: BettingEProcesses(3, 0.1),
        lambda p, event: p.update([event[0], 2], [event[1], 1.0]),
        log_es,
        st.tuples(st.integers(0, 2), Differences),
        tuple(zip((0, 1, 2, 2, 1, 2), SOME_DIFFERENCES, strict=True)),
    ),
    "soft rank": Case(SoftRank, lambda p, codes: p.update(codes[0], codes[1:]), log_e, Codes, SOME_CODES),
    "soft ranks of many strata": Case(
        lambda: SoftRanks(3),
        lambda p, event: p.update([event[0]], [event[1]]),
        log_es,
        st.tuples(st.integers(0, 2), Codes),
        tuple(zip(SOME_STRATA, SOME_CODES, strict=True)),
    ),
    "swap learner": Case(
        lambda: SwapLearner(32, min_effect=0.05),
        feed_two,
        log_e,
        st.tuples(Features, Features),
        (({"a": 1.0}, {"b=x": 2.0}), ({"b=x": 1.0, "c": 0.3}, {"b=x": 1.0, "c": 0.1}), ({"c": 0.2}, {"c": 0.2})),
    ),
    "mmd": Case(
        MmdEProcess,
        feed_two,
        log_e,
        st.tuples(Pairs, Pairs),
        (((0, 0), (0, 1)), ((0, 1), (2, 2)), ((0, 0), (0, 0))),
    ),
    "e-detector": Case(lambda: EDetector(0.1), feed_one, lambda p: p.log_value, Differences, SOME_DIFFERENCES),
    "running mean interval": Case(
        lambda: RunningMeanInterval(0.1, (-1.0, 2.0)), feed_one, lambda p: p.interval, Differences, SOME_DIFFERENCES
    ),
}

every_kind = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


def fed(case: Case, process: Any, events: Sequence[Any]) -> Any:
    for event in events:
        case.feed(process, event)
    return process


def reread(process: Any) -> Any:
    return type(process).from_state(json.loads(json.dumps(process.state(), allow_nan=False)))


@every_kind
@settings(deadline=None)
@given(data=st.data())
def test_a_process_that_was_saved_half_way_ends_with_the_same_bits(case: Case, data: st.DataObject) -> None:
    events = data.draw(st.lists(case.events, max_size=12))
    half = data.draw(st.integers(0, len(events)))
    unbroken = fed(case, case.make(), events)
    resumed = fed(case, reread(fed(case, case.make(), events[:half])), events[half:])
    assert case.value(resumed) == case.value(unbroken)
    assert np.array_equal(resumed.n, unbroken.n)
    assert json.dumps(resumed.state()) == json.dumps(unbroken.state())


@every_kind
def test_asking_in_between_changes_nothing(case: Case) -> None:
    asked = case.make()
    for event in 5 * tuple(case.some):
        case.feed(asked, event)
        case.value(asked)
        asked.state()
    assert case.value(asked) == case.value(fed(case, case.make(), 5 * tuple(case.some)))


@every_kind
@pytest.mark.parametrize("foreign", [None, [], "betting", {}, {"kind": "judge", "format": FORMAT}])
def test_what_is_no_state_of_this_kind_is_refused(case: Case, foreign: object) -> None:
    with pytest.raises(ValueError, match="this is not the saved state of a"):
        type(case.make()).from_state(foreign)


@every_kind
def test_a_state_of_another_format_is_refused(case: Case) -> None:
    process = case.make()
    with pytest.raises(ValueError, match=f"has format {FORMAT + 1}, and only format {FORMAT} can be read"):
        type(process).from_state({**process.state(), "format": FORMAT + 1})


@every_kind
@pytest.mark.parametrize("damage", [None, "x", [[1.0]], {}, [1.0, [2.0]], float("nan"), [True]])
def test_a_state_with_any_field_missing_or_ill_formed_is_refused(case: Case, damage: object) -> None:
    process = fed(case, case.make(), case.some)
    state = process.state()
    for name in state.keys() - {"kind", "format"}:
        with pytest.raises(ValueError, match=REFUSED):
            type(process).from_state({**state, name: damage})
        with pytest.raises(ValueError, match=REFUSED):
            type(process).from_state({key: value for key, value in state.items() if key != name})


@every_kind
def test_memory_does_not_grow_with_the_number_of_events(case: Case) -> None:
    events = 10 * tuple(case.some)
    process = fed(case, case.make(), events)
    length = numbers(process.state())
    tracemalloc.start()
    try:
        fed(case, process, events)
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(20):
            fed(case, process, events)
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert grown < ALLOCATED_BYTES_SLACK
    assert numbers(process.state()) == length


def numbers(state: Any) -> int:
    """How many numbers a state holds."""
    if isinstance(state, dict):
        return sum(numbers(value) for value in state.values())
    return sum(map(numbers, state)) if isinstance(state, list) else 1
