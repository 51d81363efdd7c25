"""A transition table mined from a log is one that a machine takes, whatever exceptions the log holds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from driftline.consumers import App, Fold, Machine, Transition
from driftline.log import MemoryLog, to_outgoing
from driftline.replay.mined import INITIAL, INITIAL_ELSE, Edge, End, Mined
from driftline.replay.mining import mine, table_of
from driftline.schemas import Codec, Event, Registry, UsageError
from driftline.schemas.names import EFFECT_REPORTED

NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)
Walk = Sequence[tuple[str, str]]
"""What one workflow went through: the last letter of a record, and the state that the fold names after it."""


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
    assert "# rare: 1 times, by 0.7% of the workflows that went on from ordered" in table_of(found)


def test_what_only_an_exception_reaches_is_told_with_all_that_follows_from_it() -> None:
    found = mined(
        (INITIAL, "Ordered", "ordered", 150),
        ("ordered", "Shipped", "shipped", 149),
        ("ordered", "Disputed", "disputed", 1),
        ("disputed", "Settled", "settled", 1),
        ends={"shipped": 149, "settled": 1},
    )
    assert machine_of(found).states == (INITIAL, "ordered", "shipped")
    assert "# nothing in the table leads to disputed: 1 times" in table_of(found)


def test_the_commonest_of_two_targets_is_legal_and_the_other_is_told() -> None:
    found = mined(
        (INITIAL, "Ordered", "ordered", 10),
        (INITIAL, "Ordered", "held", 4),
        ("held", "Ordered", "ordered", 4),
        ends={"ordered": 14},
    )
    assert machine_of(found).target(INITIAL, "Ordered") == "ordered"
    assert "# the same trigger leads elsewhere more often: 4 times" in table_of(found)
    assert "# nothing in the table leads to held: 4 times" in table_of(found)


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


def state_told(row: Mapping[str, Any], event: Event) -> Mapping[str, Any]:
    """A fold that names what the event says, if it says anything."""
    return {**row, "state": event.data["state"]} if event.data.get("state") else dict(row)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> App:
    """An app that only folds, by records that say which state they lead to."""
    folder = tmp_path_factory.mktemp("shop")
    records = [f"shop.{letter}" for letter in "ABC"]
    for name in records:
        (folder / name).mkdir()
        fields = [{"name": "state", "type": "string", "default": ""}]
        schema = {"type": "record", "name": name.partition(".")[2], "namespace": "shop", "fields": fields}
        (folder / name / "1.avsc").write_text(json.dumps(schema))
    return App("shop", [], folder, records, Fold(state_told, "1"))


@pytest.fixture(scope="module")
def codec(shop: App) -> Codec:
    codec = Codec(Registry("mock://"), shop.contracts)
    for topic, record in [*shop.subjects(), ("shop.events", EFFECT_REPORTED)]:
        codec.registry.ensure(topic, shop.contracts.require(record))
    return codec


def walked(shop: App, codec: Codec, *walks: Walk) -> Mined:
    """What is mined of a log on which workflows went so."""
    log = MemoryLog()
    for number, walk in enumerate(walks):
        for step, (letter, state) in enumerate(walk):
            record = f"shop.{letter}"
            time = NOON + timedelta(minutes=step)
            event = Event(f"{number}-{step}", record, "web", f"w{number}", time, record, {"state": state})
            log.commit([to_outgoing(event, "shop.events", codec, 0)])
    return mine(log, codec, shop)


def test_the_way_out_of_a_state_that_workflows_stay_in_for_long_is_no_exception(shop: App, codec: Codec) -> None:
    lived: Walk = [*[("A", "active")] * 300, ("B", "cancelled")]
    found = walked(shop, codec, *[lived] * 3, [("A", "active")])
    machine = machine_of(found)
    assert machine.target("active", "shop.B") == "cancelled"
    assert machine.terminal == ["cancelled"]
    assert found.to_edit == ()


def test_of_many_ways_on_that_few_workflows_took_each_the_commonest_is_legal(shop: App, codec: Codec) -> None:
    found = walked(shop, codec, *([("A", "open"), ("B", f"shelf-{number % 150}")] for number in range(151)))
    assert machine_of(found).target("open", "shop.B") == "shelf-0"
    assert set(found.left_out.values()) == {"rare"}
    assert len(found.left_out) == 149


def test_of_two_targets_the_one_that_leads_to_an_end_is_legal_where_the_other_leads_to_none(
    shop: App, codec: Codec
) -> None:
    found = walked(shop, codec, *[[("A", "open"), ("B", "open"), ("B", "open"), ("B", "done")]] * 3)
    assert machine_of(found).target("open", "shop.B") == "done"
    [why] = [why for edge, why in found.left_out.items() if (edge.source, edge.target) == ("open", "open")]
    assert why == "the same trigger leads to done too, and no end is reached but that way"


def test_an_end_that_only_exceptions_reach_is_reached_by_them(shop: App, codec: Codec) -> None:
    going: Walk = [("A", "up"), ("B", "down")] * 2
    found = walked(shop, codec, *[going] * 150, [*going, ("C", "gone")])
    assert machine_of(found).target("down", "shop.C") == "gone"


def test_workflows_that_never_end_are_told_before_a_machine_refuses_the_table(shop: App, codec: Codec) -> None:
    found = walked(shop, codec, [("A", "up"), ("B", "down"), ("A", "up")], [("A", "up"), ("B", "down")])
    with pytest.raises(UsageError) as refused:
        machine_of(found)
    [told] = found.to_edit
    assert refused.value.message in told
    assert 'Transition("*", "close", "closed")' in told
    assert f"# To edit: {told}." in table_of(found).splitlines()
    edited = replace_in(found, "terminal=[]", 'terminal=["closed"]', Transition("*", "close", "closed"))
    assert edited.terminal == ["closed"]


def replace_in(found: Mined, old: str, new: str, more: Transition) -> Machine:
    """The table as somebody edits it."""
    names: dict[str, Any] = {}
    exec(
        compile(table_of(found).replace(old, new).replace("transitions=[", f"transitions=[{more},"), "t", "exec"),
        names,
    )
    made: Machine = names["machine"]
    return made


def test_a_timer_that_leads_on_is_told_since_the_machine_must_set_it() -> None:
    found = mined((INITIAL, "Offered", "offered", 9), ("offered", "timer:expiry", "expired", 9), ends={"expired": 9})
    assert machine_of(found).target("offered", "timer:expiry") == "expired"
    [told] = found.to_edit
    assert told.startswith("timer:expiry leads on from offered: give the machine timers=")


@pytest.mark.parametrize("state", ['"', "\\", "two\nlines", "\U0001f642", "\u2028", "it's"])
def test_a_state_is_called_in_the_table_as_the_fold_calls_it(shop: App, codec: Codec, state: str) -> None:
    found = walked(shop, codec, [("A", state), ("B", "done")])
    assert machine_of(found).states == (INITIAL, state, "done")


def test_a_fold_that_has_a_state_of_the_initial_ones_name_begins_in_another(shop: App, codec: Codec) -> None:
    found = walked(shop, codec, [("A", INITIAL)])
    assert machine_of(found).states == (INITIAL_ELSE, INITIAL)
    assert machine_of(found).terminal == [INITIAL]


def test_a_report_of_an_effector_is_a_step_where_the_fold_makes_a_state_of_it_and_else_is_none(
    shop: App, codec: Codec
) -> None:
    def sent(row: Mapping[str, Any], event: Event) -> Mapping[str, Any]:
        return {**row, "state": "sent"} if event.record == EFFECT_REPORTED else state_told(row, event)

    report = {"effector": "mail", "status": "done", "detail": "", "data": "{}", "reported_at": NOON}
    log = MemoryLog()
    told: list[tuple[str, Mapping[str, Any]]] = [
        ("shop.A", {"state": "open"}),
        (EFFECT_REPORTED, report),
        ("shop.B", {"state": "done"}),
    ]
    for number, (record, data) in enumerate(told):
        event = Event(f"e{number}", record, "driftline:shop/effector/mail", "w", NOON, record, data)
        log.commit([to_outgoing(event, "shop.events", codec, 0)])
    silent = [edge.target for edge in mine(log, codec, shop).edges]
    assert silent == ["open", "done"]
    seen = [edge.target for edge in mine(log, codec, replace(shop, fold=Fold(sent, "1"))).edges]
    assert seen == ["open", "sent", "done"]


def test_an_app_that_has_a_table_is_told_so(shop: App, codec: Codec) -> None:
    machine = Machine("init", ["done"], [Transition("init", "shop.A", "done")])
    with pytest.raises(UsageError, match="shop has its table already"):
        mine(MemoryLog(), codec, replace(shop, spine="state-machine", machine=machine))


STEPS = st.tuples(st.sampled_from("AB"), st.sampled_from(["p", "q", "r", "s"]))
WALKS = st.lists(st.tuples(st.lists(STEPS, max_size=5), st.integers(1, 120)), min_size=1, max_size=6)
FEW = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@FEW
@given(walks=WALKS, last=st.lists(st.sampled_from(["x", "y"]), min_size=6, max_size=6))
def test_where_all_workflows_end_for_good_a_machine_takes_the_table_whatever_they_did_before(
    shop: App, codec: Codec, walks: list[tuple[list[tuple[str, str]], int]], last: list[str]
) -> None:
    ended = [[*walk, ("C", last[number])] for number, (walk, times) in enumerate(walks) for _ in range(times % 7 + 1)]
    found = walked(shop, codec, *ended)
    assert found.to_edit == ()
    assert {edge.target for edge in found.legal} | {INITIAL} == set(machine_of(found).states)


@FEW
@given(walks=st.lists(st.lists(STEPS, min_size=1, max_size=5), min_size=1, max_size=12))
def test_a_table_is_either_taken_or_told_beforehand_what_must_be_edited(
    shop: App, codec: Codec, walks: list[list[tuple[str, str]]]
) -> None:
    found = walked(shop, codec, *walks)
    assert {*found.legal, *found.left_out} == set(found.edges)
    if found.to_edit:
        with pytest.raises(UsageError, match="the state machine: "):
            machine_of(found)
    else:
        assert machine_of(found).content == found.machine().content
