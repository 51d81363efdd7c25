"""The race's checker: a sound log passes, and each way in which one can be wrong is told as such."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from tests.faults.checker import DecisionSeen
from tests.faults.desk import MACHINE, make_desk
from tests.faults.machine_checker import (
    ACCEPTED,
    ASKED,
    NUDGE_AFTER,
    REJECTED,
    TABLE,
    TIMER,
    MachineReport,
    MachineSeen,
    RowTold,
    Told,
    check_machine,
)

from driftline.consumers.machine_rows import without_memory
from driftline.consumers.rows import Row, Rows
from driftline.schemas import Event, canonical_json
from driftline.schemas.names import TIMER_FIRED

NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)
KEY = b"row-0"
Log = tuple[MachineSeen, list[DecisionSeen]]


def told(offset: int, type_: str, name: str = "", cause: str = "", **value: Any) -> Told:
    source = f"driftline:desk/{name}" if name else "web"
    return Told((0, offset), KEY, f"id-{offset}", type_, source, cause, NOON, value)


def request(offset: int, expected: int) -> Told:
    return told(offset, ASKED, transition="bump", expected_version=expected, by="mara", reason="")


def accepted(offset: int, asked: int, version: int) -> Told:
    said = {"version_after": version, "state_before": "offered", "state_after": "offered", "transition": "bump"}
    return told(offset, ACCEPTED, "spine", f"id-{asked}", **said, request_id=f"id-{asked}", by="mara", reason="")


def rows_of(moves: list[tuple[int, Told]]) -> list[Row]:
    """The rows that driftline's own fold makes of these, each at the offset of its input."""
    rows = Rows(make_desk("desk").row_fold)
    row: Row | None = None
    made = []
    for offset, one in moves:
        record = TIMER_FIRED if one.type == TIMER else one.type
        event = Event(one.id, one.type, one.source, "row-0", one.time, record, one.value)
        row = rows.fold_on(row, event, offset)
        assert row is not None
        made.append(row)
    return made


@pytest.fixture
def log() -> Log:
    """Asked, offered; two race for version 2; the timer fires; one asks too late."""
    asked, offered = told(0, "desk.Asked"), told(1, "desk.Offered", "sell", "id-0")
    due = NOON + NUDGE_AFTER
    timer = replace(told(6, TIMER, "timer", timer="nudge", row_version=3, due_at=due), time=due)
    won = accepted(4, 2, 3)
    made = rows_of([(0, asked), (0, offered), (2, won), (6, timer)])
    rows = [RowTold(0, KEY, row.version, row.as_of, row.state, row.data) for row in made[1:]]
    lost = {
        "version": 3,
        "state": "offered",
        "row": canonical_json(without_memory(made[2].data)),
    }
    events = [asked, offered, request(2, 2), request(3, 2), won]
    events += [told(5, REJECTED, "spine", "id-3", **lost), timer]
    return MachineSeen("desk", events, rows), [DecisionSeen((0, 0), (0, 0), "row-0", ("id-1",), 1, 0.0)]


def judged(log: Log) -> MachineReport:
    return check_machine(*log, dead=(), more={})


def test_a_sound_log_that_driftline_folds_passes(log: Log) -> None:
    report = judged(log)
    assert report.violations == []
    assert (report.accepted, report.rejected, report.fired, report.void, report.versions_max) == (1, 1, 1, 0, 4)


def test_the_table_is_that_of_the_desk() -> None:
    assert {state: dict(moves) for state, moves in MACHINE.table.items()} == TABLE


def change(log: Log, offset: int, **changes: Any) -> None:
    events = log[0].events
    place = next(index for index, one in enumerate(events) if one.at[1] == offset)
    events[place] = replace(events[place], **changes)


def win_twice(log: Log) -> None:
    change(log, 5, type=ACCEPTED, value=accepted(5, 3, 3).value)


def lose_an_answer(log: Log) -> None:
    del log[0].events[5]


def answer_twice(log: Log) -> None:
    log[0].events.append(replace(log[0].events[4], at=(0, 7), id="id-7"))


def refuse_the_winner(log: Log) -> None:
    change(log, 4, type=REJECTED, value=log[0].events[5].value)


def write_a_version_twice(log: Log) -> None:
    log[0].rows.insert(1, log[0].rows[0])


def lose_an_update(log: Log) -> None:
    log[0].rows[-1] = replace(log[0].rows[-1], data=log[0].rows[0].data)


def lose_a_row(log: Log) -> None:
    del log[0].rows[-1]


def lose_what_was_decided(log: Log) -> None:
    del log[0].events[1]


def commit_without_a_cause(log: Log) -> None:
    log[0].events.append(told(8, "desk.Offered", "sell", "nothing"))


@pytest.mark.parametrize(
    ("wrong", "kind"),
    [
        (win_twice, "lost updates"),
        (lose_an_answer, "requests not answered exactly once"),
        (answer_twice, "requests not answered exactly once"),
        (refuse_the_winner, "refused and could have been carried out"),
        (write_a_version_twice, "versions written twice or backwards"),
        (lose_an_update, "rows that the accepted events do not make"),
        (lose_a_row, "rows not of the last event"),
        (lose_what_was_decided, "committed and not on the log"),
        (commit_without_a_cause, "committed without a cause"),
    ],
)
def test_what_is_wrong_is_told(log: Log, wrong: Callable[[Log], None], kind: str) -> None:
    wrong(log)
    assert any(kind in str(violation) for violation in judged(log).violations)
