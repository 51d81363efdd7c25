"""A transition table mined from a log is one that a machine takes, whatever exceptions the log holds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.consumers import Machine
from driftline.replay.mining import INITIAL, Edge, End, Mined, table_of


def mined(*walked: tuple[str, str, str, int], ends: dict[str, int]) -> Mined:
    left: dict[str, int] = {}
    for source, _, _, times in walked:
        left[source] = left.get(source, 0) + times
    edges = tuple(
        Edge(source, on, target, times, times / left[source], "shop.events[0]@7")
        for source, on, target, times in walked
    )
    stand = tuple(End(state, count, "shop.events[0]@9") for state, count in ends.items())
    return Mined("shop", sum(ends.values()), sum(left.values()), edges, stand, 0)


def machine_of(found: Mined) -> Machine:
    names: dict[str, Machine] = {}
    exec(compile(table_of(found), "table.py", "exec"), names)
    return names["machine"]


def test_a_state_that_only_an_exception_leads_to_is_no_state_of_the_table() -> None:
    found = mined(
        (INITIAL, "Ordered", "ordered", 150),
        ("ordered", "Shipped", "shipped", 149),
        ("ordered", "Escalated", "escalated", 1),
        ends={"shipped": 149, "escalated": 1},
    )
    assert "escalated" in found.terminal
    assert machine_of(found).states == (INITIAL, "ordered", "shipped")
    assert "# rare: 1 times, 0.7% of what left ordered" in table_of(found)


def test_what_only_an_exception_reaches_is_told_with_all_that_follows_from_it() -> None:
    found = mined(
        (INITIAL, "Ordered", "ordered", 150),
        ("ordered", "Shipped", "shipped", 149),
        ("ordered", "Disputed", "disputed", 1),
        ("disputed", "Settled", "settled", 1),
        ends={"shipped": 149, "settled": 1},
    )
    assert machine_of(found).states == (INITIAL, "ordered", "shipped")
    assert "# nothing above leads to disputed: 1 times" in table_of(found)


def test_the_commonest_of_two_targets_is_legal_and_the_other_is_told() -> None:
    found = mined(
        (INITIAL, "Ordered", "ordered", 10),
        (INITIAL, "Ordered", "held", 4),
        ("held", "Ordered", "ordered", 4),
        ends={"ordered": 14},
    )
    assert machine_of(found).target(INITIAL, "Ordered") == "ordered"
    assert "# the same trigger leads elsewhere more often: 4 times" in table_of(found)
    assert "# nothing above leads to held: 4 times" in table_of(found)


@pytest.mark.parametrize("seen", [1, 5])
def test_what_repeats_itself_in_a_terminal_state_is_told_as_such(seen: int) -> None:
    found = mined((INITIAL, "Paid", "paid", 5), ("paid", "Thanked", "paid", seen), ends={"paid": 5})
    assert machine_of(found).terminal == ["paid"]
    assert f"# paid is terminal: {seen} times" in table_of(found)


@given(
    walks=st.lists(st.lists(st.sampled_from("abcd"), min_size=1, max_size=4, unique=True), min_size=1, max_size=300)
)
def test_a_log_of_which_no_workflow_comes_back_to_a_state_gives_a_table_that_a_machine_takes(
    walks: list[list[str]],
) -> None:
    seen: dict[tuple[str, str, str], int] = {}
    ends: dict[str, int] = {}
    for walk in (sorted(one) for one in walks):
        for source, target in zip([INITIAL, *walk], walk, strict=False):
            seen[source, target.upper(), target] = seen.get((source, target.upper(), target), 0) + 1
        ends[walk[-1]] = ends.get(walk[-1], 0) + 1
    found = mined(*((*edge, times) for edge, times in seen.items()), ends=ends)
    assert {edge.target for edge in found.legal} <= set(machine_of(found).states)
