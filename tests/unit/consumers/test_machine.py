"""The transition table: what it refuses at start, what it allows, how it is drawn."""

from __future__ import annotations

from datetime import timedelta

import pytest

from driftline.consumers import Machine, Timer, Transition
from driftline.schemas import UsageError

LIFE = (
    Transition("init", "shop.Asked", "offered"),
    Transition("offered", "shop.Paid", "closed"),
    Transition("offered", "timer:expiry", "expired"),
    Transition("*", "approve", "closed"),
)
EXPIRY = Timer("expiry", "offered", timedelta(days=30))


def machine(*more: Transition, terminal: tuple[str, ...] = ("closed", "expired"), **changes: object) -> Machine:
    return Machine("init", terminal, (*LIFE, *more), **{"timers": (EXPIRY,), **changes})  # type: ignore[arg-type]


def test_what_holds_in_any_state_holds_in_all_but_the_terminal_ones() -> None:
    assert machine().target("init", "approve") == machine().target("offered", "approve") == "closed"
    assert machine().target("closed", "approve") is None


def test_what_is_said_of_one_state_wins_over_what_is_said_of_any() -> None:
    special = machine(Transition("offered", "approve", "expired"))
    assert special.target("offered", "approve") == "expired"
    assert special.target("init", "approve") == "closed"


def test_legal_names_what_leads_out_of_a_state_and_of_that_only_what_is_asked_for() -> None:
    assert set(machine().legal("offered")) == {"shop.Paid", "timer:expiry", "approve"}
    assert machine().legal("offered", ["shop.Paid", "shop.Asked"]) == ["shop.Paid"]


@pytest.mark.parametrize(
    ("more", "changes", "said"),
    [
        ((Transition("lost", "shop.Paid", "closed"),), {}, "lost cannot be reached"),
        ((Transition("offered", "shop.Stuck", "stuck"),), {"terminal": ("closed", "expired")}, ""),
        ((Transition("closed", "shop.Asked", "offered"),), {}, "closed is terminal, and something leads out of it"),
        (
            (Transition("offered", "shop.Paid", "expired"),),
            {},
            "shop.Paid leads from offered to closed and to expired",
        ),
        ((), {"terminal": ()}, "there is no terminal state"),
        ((), {"timers": (Timer("late", "offered", timedelta(1)),)}, "the timer late leads nowhere from offered"),
        ((), {"timers": (EXPIRY, EXPIRY)}, "two timers are named expiry"),
        ((), {"timers": (Timer("expiry", "nowhere", timedelta(1)),)}, "runs in nowhere, which is no state"),
        ((), {"timers": (Timer("expiry", "offered", timedelta(0)),)}, "due before it begins"),
    ],
)
def test_a_table_that_cannot_be_right_is_refused_with_what_is_wrong(
    more: tuple[Transition, ...], changes: dict[str, object], said: str
) -> None:
    if not said:  # what holds in any state leads out of every state but a terminal one
        assert machine(*more, **changes).target("stuck", "approve") == "closed"  # type: ignore[arg-type]
        return
    with pytest.raises(UsageError, match=said):
        machine(*more, **changes)  # type: ignore[arg-type]


def test_a_state_that_nothing_leads_out_of_is_a_dead_end() -> None:
    with pytest.raises(UsageError, match="stuck is a dead end"):
        Machine("init", ["closed"], [*LIFE[:2], Transition("offered", "shop.Stuck", "stuck")])


RECORDS = ("shop.Asked", "shop.Paid")


def test_a_table_that_waits_for_its_timers_the_apps_records_and_words_is_taken() -> None:
    machine(Transition("*", "timer:expiry", "expired")).require_triggers(RECORDS)


@pytest.mark.parametrize(
    ("move", "said"),
    [
        (Transition("init", "timer:expiry", "expired"), "timer:expiry leads from init to expired, and no such timer"),
        (Transition("*", "timer:patience", "expired"), r"timer:patience leads from \* to expired, and no such timer"),
        (Transition("init", "shop.Payd", "closed"), "shop.Payd leads from init to closed, and is no record"),
        (Transition("init", "driftline.TimerFired", "closed"), "driftline.TimerFired leads from init to closed"),
    ],
)
def test_a_transition_that_waits_for_what_never_comes_is_refused_with_what_there_is(
    move: Transition, said: str
) -> None:
    with pytest.raises(UsageError, match=said) as refused:
        machine(move).require_triggers(RECORDS)
    assert "its timers are expiry in offered" in refused.value.mend
    assert "shop.Asked, shop.Paid" in refused.value.mend


def test_the_diagram_has_an_arrow_a_pair_of_states_and_says_where_it_begins_and_ends() -> None:
    lines = machine().mermaid().splitlines()
    assert lines[:2] == ["stateDiagram-v2", "    [*] --> init"]
    assert "    offered --> closed: approve, Paid" in lines or "    offered --> closed: Paid, approve" in lines
    assert {"    closed --> [*]", "    expired --> [*]"} <= set(lines)


def test_a_trigger_with_a_colon_in_it_is_drawn_so_that_mermaid_reads_it() -> None:
    assert "    offered --> expired: timer#58;expiry" in machine().mermaid().splitlines()


def test_what_means_something_to_mermaid_is_escaped_in_labels() -> None:
    odd = machine(Transition("offered", 'pay; "now" #1', "expired"))
    assert "timer#58;expiry, pay#59; #34;now#34; #35;1" in odd.mermaid()


@pytest.mark.parametrize("name", ["in-review", "in review", "state", "End", "größe", "s0", "a:b"])
def test_a_state_whose_name_mermaid_does_not_take_for_one_is_drawn_under_another_and_shows_its_own(name: str) -> None:
    moves = [Transition("init", "shop.Asked", name), Transition(name, "approve", "closed")]
    lines = Machine("init", ["closed"], moves).mermaid().splitlines()
    assert lines == [
        "stateDiagram-v2",
        f'    state "{name.replace(":", "#58;")}" as s1',
        "    [*] --> init",
        "    init --> s1: Asked",
        "    s1 --> closed: approve",
        "    closed --> [*]",
    ]


def test_the_hash_is_of_the_meaning_and_not_of_the_order_in_which_it_is_written() -> None:
    other = Machine("init", ["expired", "closed"], tuple(reversed(LIFE)), (EXPIRY,))
    assert other.hash == machine().hash
    assert machine(version="2").hash != machine().hash
