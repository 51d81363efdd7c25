"""Every kind of violation, put on a small log by hand, is seen by the checker; and nothing else is."""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tests.faults import tracing
from tests.faults.campaign import faults_inside
from tests.faults.checker import DeadSeen, DecisionSeen, EventSeen, LogSeen, RowSeen, check, longest_gap, undecided
from tests.faults.tracing import Traced, transactions

STREAM = "renewal-due"
KEY = b"w1"


def _input(offset: int, stream: str = STREAM, key: bytes | None = KEY) -> EventSeen:
    return EventSeen((0, offset), key, f"in-{offset}", stream, "crm", f"digest {offset}".encode())


def _emitted(offset: int, cause: int) -> EventSeen:
    return EventSeen((0, offset), KEY, f"out-{cause}", "renewed", "driftline:app/renewal", b"")


def _decision(offset: int, of: int, workflow: str = "w1") -> DecisionSeen:
    return DecisionSeen((0, offset), (0, of), workflow, (f"out-{of}",), attempts=1, decided_at=float(of))


def sound() -> LogSeen:
    """Three inputs of one workflow, two decided and one dead, at offsets 0, 1 and 2."""
    places = {("events", 0, offset) for offset in range(5)}
    return LogSeen(
        topics={},
        events=[_input(0), _input(1), _input(2), _emitted(3, 0), _emitted(4, 1)],
        decisions=[_decision(0, 0), _decision(1, 1)],
        dead=[DeadSeen((0, 0), (0, 2), b"digest 2")],
        rows={(0, KEY): RowSeen(version=4, as_of=4)},
        committed=set(places),
        uncommitted=set(places),
    )


@pytest.mark.parametrize("module", ["checker", "reading", "tracing"])
def test_the_checker_shares_nothing_with_what_it_checks(module: str) -> None:
    source = Path(__file__).with_name(f"{module}.py").read_text()
    names = {node.module for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom)}
    assert not [name for name in names if str(name).startswith("driftline")]


def test_a_sound_log_has_no_violation() -> None:
    report = check(sound(), [STREAM])
    assert not report.violations
    assert (report.inputs, report.decided, report.dead, report.emitted, report.folded) == (3, 2, 1, 2, 0)


def test_an_input_that_no_boundary_decides_is_only_folded() -> None:
    seen = sound()
    seen.events.append(_input(5, stream="another"))
    seen.rows[0, KEY] = RowSeen(version=5, as_of=5)
    report = check(seen, [STREAM])
    assert not report.violations
    assert report.folded == 1


def _lose(seen: LogSeen) -> None:
    seen.dead.clear()
    seen.rows[0, KEY] = RowSeen(version=5, as_of=4)


def _lose_keyless(seen: LogSeen) -> None:
    seen.events.append(_input(5, stream="another", key=None))


def _decide_twice(seen: LogSeen) -> None:
    seen.decisions.append(replace(_decision(2, 1), emitted=()))


def _decide_and_bury(seen: LogSeen) -> None:
    seen.dead.append(DeadSeen((0, 1), (0, 1), b"digest 1"))
    seen.rows[0, KEY] = RowSeen(version=3, as_of=4)


def _decide_what_is_no_input(seen: LogSeen) -> None:
    seen.decisions.append(replace(_decision(2, 9), emitted=()))


def _swap(seen: LogSeen) -> None:
    seen.decisions[:] = [_decision(0, 1), _decision(1, 0)]


def _forget_a_decision(seen: LogSeen) -> None:
    seen.decisions.pop()
    seen.dead.append(DeadSeen((0, 1), (0, 1), b"digest 1"))
    seen.rows[0, KEY] = RowSeen(version=3, as_of=4)


def _emit_twice(seen: LogSeen) -> None:
    seen.events.append(_emitted(5, 1))
    seen.rows[0, KEY] = RowSeen(version=5, as_of=5)


def _forget_an_emission(seen: LogSeen) -> None:
    seen.events.pop()
    seen.rows[0, KEY] = RowSeen(version=3, as_of=3)


def _cut_a_dead_value(seen: LogSeen) -> None:
    seen.dead[0] = replace(seen.dead[0], digest=b"half of it")


def _leave_open(seen: LogSeen) -> None:
    seen.open.append(("events", 0))


def _lag_a_row(seen: LogSeen) -> None:
    seen.rows[0, KEY] = RowSeen(version=4, as_of=3)


def _fold_twice(seen: LogSeen) -> None:
    seen.rows[0, KEY] = RowSeen(version=5, as_of=4)


def _add_a_row(seen: LogSeen) -> None:
    seen.rows[0, b"nobody"] = RowSeen(version=1, as_of=0)


def _see_committed_alone(seen: LogSeen) -> None:
    seen.uncommitted.discard(("events", 0, 4))


BREAKS: dict[str, tuple[Callable[[LogSeen], None], str]] = {
    "an input without a trace": (_lose, "lost"),
    "an input without key or trace": (_lose_keyless, "lost"),
    "two decisions of one input": (_decide_twice, "repeated"),
    "a decision and a dead record of one input": (_decide_and_bury, "repeated"),
    "a decision of nothing": (_decide_what_is_no_input, "decided though no input"),
    "a workflow's decisions in another order": (_swap, "reordered"),
    "an event of no decision": (_forget_a_decision, "emitted without a decision"),
    "an event twice": (_emit_twice, "emitted without a decision"),
    "a decision without its event": (_forget_an_emission, "decided without what it emitted"),
    "a dead record that is not whole": (_cut_a_dead_value, "dead records not whole"),
    "a transaction left open": (_leave_open, "open transactions"),
    "a row behind": (_lag_a_row, "rows not of the last event"),
    "an event folded twice": (_fold_twice, "rows not of the last event"),
    "a row of no workflow": (_add_a_row, "rows not of the last event"),
    "a record that only committed readers see": (_see_committed_alone, "committed records unseen uncommitted"),
}


@pytest.mark.parametrize("story", BREAKS)
def test_what_is_broken_is_told_by_its_kind(story: str) -> None:
    breaking, kind = BREAKS[story]
    seen = sound()
    breaking(seen)
    assert kind in {violation.kind for violation in check(seen, [STREAM]).violations}


PLACE = ("events", 0, 4)


@pytest.mark.parametrize(
    ("steps", "visible"),
    [
        ([tracing.BEGIN, tracing.FLUSHED], 1),
        ([tracing.BEGIN, tracing.FLUSHED, tracing.ABORTED], 1),
        ([tracing.BEGIN, tracing.FLUSHED, tracing.COMMIT, tracing.ABORTED], 1),
        ([tracing.BEGIN, tracing.FLUSHED, tracing.COMMIT], 0),
        ([tracing.BEGIN, tracing.FLUSHED, tracing.COMMIT, tracing.COMMITTED], 0),
    ],
)
def test_a_visible_record_is_a_violation_unless_its_commit_was_asked_for(steps: list[str], visible: int) -> None:
    report = check(sound(), [STREAM], [Traced(1, 0.0, steps, [PLACE])])
    assert report.aborted_visible == visible
    assert [violation.kind for violation in report.violations] == ["aborted records visible"] * visible


def test_an_aborted_record_that_only_uncommitted_readers_see_is_a_figure() -> None:
    seen = sound()
    seen.uncommitted.add(("events", 0, 7))
    report = check(seen, [STREAM], [Traced(1, 0.0, [tracing.BEGIN, tracing.ABORTED], [("events", 0, 7)])])
    assert report.aborted == 1
    assert not report.violations


def test_a_repeat_is_not_also_told_as_reordered() -> None:
    seen = sound()
    seen.decisions.append(replace(_decision(2, 0), emitted=()))
    assert [violation.kind for violation in check(seen, [STREAM]).violations] == ["repeated"]


def test_rows_are_not_asked_of_an_app_that_keeps_none() -> None:
    seen = sound()
    seen.rows.clear()
    assert not check(seen, [STREAM], rows=False).violations


def test_undecided_counts_inputs_that_are_neither_decided_nor_dead() -> None:
    seen = sound()
    seen.decisions.pop()
    assert undecided(seen, [STREAM]) == 1


def test_the_longest_gap_is_between_neighbours_in_time() -> None:
    assert longest_gap([7.0, 1.0, 2.0]) == 5.0
    assert longest_gap([3.0]) == 0.0


def _line(step: str, at: float, pid: int = 1) -> dict[str, object]:
    return {"step": step, "at": at, "pid": pid, "placed": [["events", 0, int(at)]]}


def test_a_trace_that_breaks_off_is_a_transaction_without_an_end() -> None:
    whole = [_line(step, at) for at, step in enumerate([tracing.BEGIN, tracing.COMMIT, tracing.COMMITTED])]
    ended, broken_off = transactions([*whole, _line(tracing.BEGIN, 4.0)])
    assert (ended.began, ended.ended) == (0, 2)
    assert broken_off.ended is None
    assert ended.placed == [("events", 0, 0), ("events", 0, 1), ("events", 0, 2)]


def test_a_fault_is_inside_where_a_process_died_in_a_transaction_or_the_moment_fell_into_one() -> None:
    ended, broken_off = Traced(1, began=1.0, ended=3.0), Traced(2, began=4.0)
    assert faults_inside([ended, broken_off], [2.0, 3.5]) == 2
