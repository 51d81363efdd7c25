"""Both spines under the real decider, one partition in memory: rows, transitions, requests, timers."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from driftline.consumers import Answer, App, Boundary, Fold, Machine, Prompt, ProposalRequest, Timer, Transition
from driftline.consumers import spine as spines
from driftline.consumers.deciding import Decided, Decider
from driftline.consumers.effectors import Effector
from driftline.consumers.machine_rows import ACCEPTED, ACCEPTED_KEPT
from driftline.consumers.partition import OwnedPartition
from driftline.consumers.restoring import RowRestorer
from driftline.consumers.rows import Row, Rows, row_record
from driftline.log import Coordinates, MemoryLog, Record, Unfinished, to_event, to_outgoing
from driftline.schemas import Codec, Event, Registry, UsageError
from driftline.schemas.names import (
    CLOCK_TICKED,
    EFFECT_REPORTED,
    ESCALATED,
    TIMER_FIRED,
    TRANSITION_ACCEPTED,
    TRANSITION_REJECTED,
    TRANSITION_REQUESTED,
)

NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)
RECORDS = ("shop.Asked", "shop.Noted", "shop.Offered", "shop.Closed", "shop.Mailed")
MACHINE = Machine(
    "init",
    ["closed", "expired"],
    [
        Transition("init", "shop.Asked", "open"),
        Transition("open", "shop.Noted", "open"),
        Transition("open", "shop.Offered", "offered"),
        Transition("offered", "shop.Closed", "closed"),
        Transition("offered", "timer:expiry", "expired"),
        Transition("offered", "approve", "closed"),
    ],
    [Timer("expiry", "offered", timedelta(days=30))],
)


def count(row: Mapping[str, Any], event: Event) -> Mapping[str, Any]:
    return {**row, "seen": row.get("seen", 0) + 1}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> App:
    """On the state-machine spine; a note and a question are decided."""
    folder = tmp_path_factory.mktemp("shop")
    for name in RECORDS:
        (folder / name).mkdir()
        fields = [{"name": "text", "type": "string", "default": ""}]
        schema = {"type": "record", "name": name.partition(".")[2], "namespace": "shop", "fields": fields}
        (folder / name / "1.avsc").write_text(json.dumps(schema))
    prompt = Prompt("{{ {'row': row, 'legal': legal, 'version': row_version} | tojson }}")
    on = ["shop.Asked", "shop.Noted"]
    boundary = Boundary("sell", on, prompt, "acme/seller", ["shop.Offered", "shop.Closed"], max_attempts=2)
    fold = Fold(count, "1")
    return App("shop", [boundary], folder, RECORDS[:2], fold, "state-machine", machine=MACHINE)


class Seller:
    """Answers with what the script says, and keeps what it was asked."""

    def __init__(self, *script: str) -> None:
        self.script = deque(script)
        self.asked: list[ProposalRequest] = []

    async def propose(self, request: ProposalRequest) -> Answer:
        self.asked.append(request)
        return Answer(json.dumps({"type": self.script.popleft(), "payload": {"text": "here you are"}}))


class Partition:
    """One partition that is decided record by record; what is committed to its events comes back as its input."""

    def __init__(self, app: App, proposer: Seller, rows: Rows | None = None) -> None:
        self.app = app
        self.codec = Codec(Registry("mock://"), app.contracts)
        for topic, record in app.subjects():
            self.codec.registry.ensure(topic, app.contracts.require(record))
        self.owner = OwnedPartition(0, Unfinished(0, 0), rows or Rows(app.row_fold))
        self.decider = Decider(app, self.codec, proposer, lambda: NOON)
        self.log: list[Event] = []
        self.inputs: deque[Record] = deque()
        self.decided: list[Decided] = []

    def feed(self, *events: Event) -> None:
        """Put facts on the log, and decide until nothing is left."""
        for event in events:
            self._append(to_outgoing(event, "shop.events", self.codec, 0))
            while self.inputs:
                decided = asyncio.run(self.decider.decide(self.inputs.popleft(), self.owner))
                self.decided.append(decided)
                for outgoing in decided.outgoing:
                    if outgoing.topic == "shop.events":
                        self._append(outgoing)

    def row(self, workflow: str = "w") -> Row:
        found = self.owner.rows.get(workflow.encode())
        assert found is not None
        return found

    def written_rows(self) -> list[int]:
        """Versions of the rows that were written, in order."""
        rows = [one for decided in self.decided for one in decided.outgoing if one.topic == "shop.state"]
        return [self.codec.decode(one.value or b"").value["version"] for one in rows]

    def of(self, record: str) -> list[Event]:
        return [event for event in self.log if event.record == record]

    def _append(self, outgoing: Any) -> None:
        at = Coordinates("shop.events", 0, len(self.log))
        record = Record(at, outgoing.key, outgoing.value, outgoing.timestamp_ms, outgoing.headers)
        self.inputs.append(record)
        self.log.append(to_event(record, self.codec))


def fact(record: str, number: int = 0, workflow: str = "w", **data: Any) -> Event:
    time = NOON + timedelta(minutes=number)
    return Event(f"{record}-{workflow}-{number}", record, "web", workflow, time, record, data or {"text": ""})


def tick(days: float) -> Event:
    time = NOON + timedelta(days=days)
    return Event(f"tick-{days}", CLOCK_TICKED, "ticker", "clock", time, CLOCK_TICKED, {"ticked_at": time})


def request(transition: str, expected_version: int, number: int = 0) -> Event:
    data: dict[str, Any] = {
        "transition": transition,
        "expected_version": expected_version,
        "by": "mara",
        "reason": "she asked",
    }
    return fact(TRANSITION_REQUESTED, number, **data)


def test_what_a_boundary_commits_is_in_the_row_in_the_same_transaction(shop: App) -> None:
    partition = Partition(shop, Seller("shop.Offered"))
    partition.feed(fact("shop.Asked"))
    first = partition.decided[0]
    assert partition.row().state == "offered"
    assert {outgoing.topic for outgoing in first.outgoing} == {"shop.decisions", "shop.events", "shop.state"}
    assert first.decision is not None
    assert (first.decision.row_version_before, first.decision.row_version_after) == (1, 2)


def test_a_committed_event_that_is_read_back_moves_nothing_a_second_time(shop: App) -> None:
    partition = Partition(shop, Seller("shop.Offered"))
    partition.feed(fact("shop.Asked"))
    assert len(partition.decided) == 2
    assert partition.written_rows() == [2]
    assert (partition.row().version, partition.row().data["seen"]) == (2, 2)


def test_the_prompt_sees_the_row_its_version_and_what_is_legal(shop: App) -> None:
    seller = Seller("shop.Offered")
    Partition(shop, seller).feed(fact("shop.Asked"))
    told = json.loads(seller.asked[0].messages[0]["content"])
    assert told == {"row": {"seen": 1, "state": "open"}, "legal": ["shop.Offered"], "version": 1}


def test_an_illegal_transition_is_a_typed_rejection_with_the_row_in_it(shop: App) -> None:
    seller = Seller("shop.Closed", "shop.Offered")
    partition = Partition(shop, seller)
    partition.feed(fact("shop.Asked"))
    decision = partition.decided[0].decision
    assert decision is not None
    [rejection] = decision.attempts[0].rejections
    assert (rejection.code, rejection.path, rejection.expected) == ("illegal_transition", "/type", "shop.Offered")
    told = json.loads(rejection.actual or "")
    assert told == {
        "proposed": "shop.Closed",
        "row": {"state": "open", "version": 1, "data": {"seen": 1, "state": "open"}},
    }
    assert decision.verdict == "accepted"


def test_where_nothing_is_legal_no_model_is_asked(shop: App) -> None:
    seller = Seller("shop.Offered")
    partition = Partition(shop, seller)
    partition.feed(fact("shop.Asked"), request("approve", 2), fact("shop.Noted", 5))
    assert partition.row().state == "closed"
    assert len(seller.asked) == 1
    assert partition.row().data["seen"] == 4, "the fact has happened, and is folded in"


def test_a_request_of_the_version_that_is_there_is_carried_out_and_answered(shop: App) -> None:
    partition = Partition(shop, Seller("shop.Offered"))
    partition.feed(fact("shop.Asked"), request("approve", 2))
    [accepted] = partition.of(TRANSITION_ACCEPTED)
    assert accepted.data == {
        "request_id": f"{TRANSITION_REQUESTED}-w-0",
        "transition": "approve",
        "by": "mara",
        "reason": "she asked",
        "state_before": "offered",
        "state_after": "closed",
        "version_after": 3,
    }
    assert (partition.row().state, partition.row().version) == ("closed", 3)


@pytest.mark.parametrize(
    ("asked", "code"),
    [(request("approve", 1), "stale_version"), (request("shop.Asked", 2), "illegal_transition")],
)
def test_a_request_that_cannot_be_carried_out_is_answered_with_the_row_and_moves_nothing(
    shop: App, asked: Event, code: str
) -> None:
    partition = Partition(shop, Seller("shop.Offered"))
    partition.feed(fact("shop.Asked"), asked)
    [rejected] = partition.of(TRANSITION_REJECTED)
    assert json.loads(rejected.data["rejection"])["code"] == code
    assert (rejected.data["state"], rejected.data["version"]) == ("offered", 2)
    assert json.loads(rejected.data["row"])["seen"] == 2
    assert partition.row().version == 2


def test_of_many_requests_for_one_version_one_wins(shop: App) -> None:
    partition = Partition(shop, Seller("shop.Offered"))
    partition.feed(fact("shop.Asked"), *(request("approve", 2, number) for number in range(20)))
    assert len(partition.of(TRANSITION_ACCEPTED)) == 1
    assert len(partition.of(TRANSITION_REJECTED)) == 19


def answers(partition: Partition) -> list[Event]:
    return [event for event in partition.log if event.record in (TRANSITION_ACCEPTED, TRANSITION_REJECTED)]


def test_a_request_that_lies_on_the_log_twice_is_answered_twice_alike_and_moves_the_row_once(shop: App) -> None:
    partition = Partition(shop, Seller("shop.Offered"))
    partition.feed(fact("shop.Asked"), request("approve", 2), fact("shop.Noted", 3), request("approve", 2))
    first, second = answers(partition)
    assert first == second
    assert (first.record, first.data["state_after"], first.data["version_after"]) == (
        TRANSITION_ACCEPTED,
        "closed",
        3,
    )
    assert partition.row().version == 4, "asked, offered, approved, noted"


def test_a_request_that_was_refused_as_stale_is_refused_again_under_the_same_id(shop: App) -> None:
    partition = Partition(shop, Seller("shop.Offered", "shop.Closed"))
    partition.feed(fact("shop.Asked"), request("approve", 1), fact("shop.Noted", 3), request("approve", 1))
    first, second = answers(partition)
    assert first.id == second.id
    assert first.record == second.record == TRANSITION_REJECTED


@pytest.mark.parametrize("other", [{"by": "otto"}, {"transition": "shop.Closed"}, {"expected_version": 1}])
def test_another_request_under_the_same_id_is_no_repeat(shop: App, other: dict[str, Any]) -> None:
    partition = Partition(shop, Seller("shop.Offered"))
    asked = request("approve", 2)
    partition.feed(fact("shop.Asked"), asked, replace(asked, data={**asked.data, **other}))
    assert [event.record for event in answers(partition)] == [TRANSITION_ACCEPTED, TRANSITION_REJECTED]


def test_a_repeat_is_known_after_a_restart_by_the_row(shop: App) -> None:
    partition = Partition(shop, Seller("shop.Offered"))
    partition.feed(fact("shop.Asked"), request("approve", 2))
    rows = [one for decided in partition.decided for one in decided.outgoing if one.topic == "shop.state"]
    stored = [Record(Coordinates("shop.state", 0, n), one.key, one.value, 1) for n, one in enumerate(rows)]
    restarted = Partition(shop, Seller(), Rows.restored(shop.row_fold, stored, partition.codec))
    restarted.feed(request("approve", 2))
    assert answers(restarted) == answers(partition)
    assert restarted.row() == partition.row()


def test_a_repeat_is_known_among_the_last_requests_that_were_accepted_and_the_row_stays_small(shop: App) -> None:
    transitions = [*MACHINE.transitions, Transition("offered", "bump", "offered")]
    partition = Partition(replace(shop, machine=replace(MACHINE, transitions=transitions)), Seller("shop.Offered"))
    bumps = [request("bump", 2 + number, number) for number in range(ACCEPTED_KEPT + 1)]
    partition.feed(fact("shop.Asked"), *bumps, *bumps)
    again = [event.record for event in answers(partition)][len(bumps) :]
    assert again == [TRANSITION_REJECTED] + [TRANSITION_ACCEPTED] * ACCEPTED_KEPT
    assert len(partition.row().data[ACCEPTED]) == ACCEPTED_KEPT
    assert partition.row().version == 2 + len(bumps)


def test_a_repeat_is_known_whatever_the_apps_fold_and_its_upgrade_keep_of_the_row(shop: App) -> None:
    forgetful = replace(shop, fold=Fold(lambda row, event: {}, "1"))
    partition = Partition(forgetful, Seller("shop.Offered"))
    partition.feed(fact("shop.Asked"), request("approve", 2), fact("shop.Noted", 3))
    newer = replace(shop, fold=Fold(count, "2", {"1/1": lambda data: {"state": data["state"]}}))
    rows = Rows(newer.row_fold)
    rows.keep(b"w", partition.row())
    rows.upgrade()
    upgraded = Partition(newer, Seller(), rows)
    upgraded.feed(request("approve", 2))
    assert answers(upgraded) == answers(partition)


def test_a_version_that_no_canonical_number_holds_is_stale_as_any_other(shop: App) -> None:
    partition = Partition(shop, Seller("shop.Offered"))
    partition.feed(fact("shop.Asked"), request("approve", 2), request("approve", 2**62, 1))
    assert [event.record for event in answers(partition)] == [TRANSITION_ACCEPTED, TRANSITION_REJECTED]


def test_a_timer_fires_when_event_time_has_come_and_moves_the_row(shop: App) -> None:
    partition = Partition(shop, Seller("shop.Offered"))
    partition.feed(fact("shop.Asked"), tick(29))
    assert not partition.of(TIMER_FIRED)
    partition.feed(tick(30))
    [fired] = partition.of(TIMER_FIRED)
    assert (fired.workflow, fired.time, fired.data["row_version"]) == ("w", NOON + timedelta(days=30), 2)
    assert partition.row().state == "expired"


def test_a_tick_has_no_row_of_its_own_and_a_timer_fires_once(shop: App) -> None:
    partition = Partition(shop, Seller("shop.Offered"))
    partition.feed(fact("shop.Asked"), tick(30), tick(31), tick(60))
    assert len(partition.of(TIMER_FIRED)) == 1
    assert len(partition.owner.rows) == 1


def test_a_timer_is_void_when_the_row_has_moved_on_and_fires_anew_while_the_row_still_has_it(shop: App) -> None:
    partition = Partition(shop, Seller("shop.Offered"))
    partition.feed(fact("shop.Asked"))
    void = Event(
        "early",
        "timer:expiry",
        "driftline:shop/timer",
        "w",
        NOON,
        TIMER_FIRED,
        {"timer": "expiry", "row_version": 1, "due_at": NOON},
    )
    partition.feed(void)
    assert (partition.row().state, partition.row().version) == ("offered", 2)
    partition.feed(tick(30))
    assert partition.row().state == "expired"


def test_timers_survive_a_restart_in_the_row(shop: App) -> None:
    partition = Partition(shop, Seller("shop.Offered"))
    partition.feed(fact("shop.Asked"))
    rows = [one for decided in partition.decided for one in decided.outgoing if one.topic == "shop.state"]
    stored = [Record(Coordinates("shop.state", 0, n), one.key, one.value, 1) for n, one in enumerate(rows)]
    restarted = Partition(shop, Seller(), Rows.restored(shop.row_fold, stored, partition.codec))
    restarted.feed(tick(30))
    assert restarted.row().state == "expired"


def test_leaving_the_state_ends_its_timer(shop: App) -> None:
    partition = Partition(shop, Seller("shop.Offered"))
    partition.feed(fact("shop.Asked"), request("approve", 2), tick(90))
    assert not partition.of(TIMER_FIRED)
    assert "timers" not in partition.row().data


@pytest.fixture
def event_log_shop(shop: App) -> App:
    def wait(row: Mapping[str, Any], event: Event) -> Mapping[str, Any]:
        due = (
            {"timers": {"nudge": (event.time + timedelta(days=7)).isoformat()}}
            if event.record == "shop.Asked"
            else {}
        )
        return {**row, "last": event.record, **due}

    return replace(shop, spine="event-log", machine=None, fold=Fold(wait, "1"))


def test_the_event_log_folds_what_is_committed_when_its_turn_comes(event_log_shop: App) -> None:
    prompt = Prompt("{{ row | tojson }}")
    app = replace(event_log_shop, boundaries=[replace(event_log_shop.boundaries[0], prompt=prompt)])
    partition = Partition(app, Seller("shop.Offered"))
    partition.feed(fact("shop.Asked"))
    assert partition.written_rows() == [1, 2]
    decision = partition.decided[0].decision
    assert decision is not None
    assert (decision.row_version_before, decision.row_version_after) == (1, 1)


def test_a_timer_that_a_fold_sets_fires_on_the_event_log_too_and_is_gone_once_it_fired(event_log_shop: App) -> None:
    prompt = Prompt("{{ row | tojson }}")
    app = replace(event_log_shop, boundaries=[replace(event_log_shop.boundaries[0], prompt=prompt)])
    partition = Partition(app, Seller("shop.Offered"))
    partition.feed(fact("shop.Asked"), tick(7), tick(8))
    assert [event.data["timer"] for event in partition.of(TIMER_FIRED)] == ["nudge"]
    assert (partition.row().data["last"], partition.row().data["timers"]) == (TIMER_FIRED, {})


def test_rows_that_are_the_truth_are_upgraded_and_never_folded_anew(shop: App) -> None:
    assert shop.row_fold is not None
    rows = Rows(shop.row_fold)
    rows.keep(b"w", Row({"state": "open", "noted": 3}, 5, 9, "0"))
    with pytest.raises(UsageError, match="the row of w was made by version 0, the app is at 1/1"):
        rows.upgrade()
    fold = Fold(count, "1", {"0": lambda data: {"state": data["state"], "seen": data["noted"]}})
    upgraded = Rows(replace(shop, fold=fold).row_fold)
    upgraded.keep(b"w", Row({"state": "open", "noted": 3}, 5, 9, "0"))
    upgraded.upgrade()
    row = upgraded.get(b"w")
    assert row is not None
    assert (row.data, row.version, row.fold_version) == ({"state": "open", "seen": 3}, 5, "1/1")


@pytest.mark.parametrize("change", [{"spine": "event-log"}, {"machine": None}])
def test_a_spine_and_a_table_that_do_not_belong_together_are_refused(shop: App, change: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="give `machine` with state-machine alone"):
        replace(shop, **change)


@pytest.mark.parametrize("on", ["shop.Offerred", "timer:patience"])
def test_an_app_whose_table_waits_for_what_never_comes_is_refused(shop: App, on: str) -> None:
    moves = [*MACHINE.transitions, Transition("open", on, "closed")]
    with pytest.raises(UsageError, match=f"{on} leads from open to closed") as refused:
        replace(shop, machine=replace(MACHINE, transitions=moves))
    assert "shop.Asked, shop.Noted, shop.Offered, shop.Closed, driftline.Escalated" in refused.value.mend


def test_an_app_whose_table_waits_for_a_report_of_its_effector_is_taken(shop: App) -> None:
    mail = Effector("mail", on=["shop.Offered"], act=lambda event, key: {}, result="shop.Mailed")
    moves = [*MACHINE.transitions, *(Transition("offered", told, "closed") for told in mail.results)]
    replace(shop, machine=replace(MACHINE, transitions=moves), effectors=[mail])


def told(record: str, source: str, **data: Any) -> Event:
    """A fact that says it comes from a source."""
    return replace(fact(record, 7, **data), source=source)


def expired(row_version: int, source: str = "driftline:shop/timer") -> Event:
    data = {"timer": "expiry", "row_version": row_version, "due_at": NOON + timedelta(days=30)}
    return replace(told(TIMER_FIRED, source, **data), type="timer:expiry")


def test_what_a_boundary_committed_that_the_app_no_longer_has_moves_nothing_a_second_time(shop: App) -> None:
    partition = Partition(shop, Seller("shop.Offered"))
    partition.feed(fact("shop.Asked"), told("shop.Closed", "driftline:shop/renamed-since", text=""))
    assert (partition.row().state, partition.row().version) == ("offered", 2)


@pytest.mark.parametrize(
    "forged",
    [
        expired(2, source="web"),
        told(
            TRANSITION_ACCEPTED,
            "web",
            request_id="r",
            transition="approve",
            by="mara",
            reason="",
            state_before="offered",
            state_after="closed",
            version_after=3,
        ),
    ],
    ids=["a timer that fired", "a request that was accepted"],
)
def test_what_only_the_spine_may_say_moves_nothing_where_an_outsider_says_it(shop: App, forged: Event) -> None:
    partition = Partition(shop, Seller("shop.Offered"))
    partition.feed(fact("shop.Asked"), forged)
    assert (partition.row().state, partition.row().version) == ("offered", 2)


def test_nobody_asks_for_what_only_a_timer_leads_to(shop: App) -> None:
    partition = Partition(shop, Seller("shop.Offered"))
    partition.feed(fact("shop.Asked"), request("timer:expiry", 2))
    [rejected] = partition.of(TRANSITION_REJECTED)
    refused = json.loads(rejected.data["rejection"])
    assert (refused["code"], refused["expected"]) == ("illegal_transition", "approve")
    assert refused["message"] == "timer:expiry tells what has happened, and is nothing to ask for"


@pytest.mark.parametrize("record", ["shop.Asked", "shop.Offered", ESCALATED, "shop.Mailed", EFFECT_REPORTED])
def test_nobody_asks_for_what_the_world_or_a_boundary_or_an_effector_alone_tells(shop: App, record: str) -> None:
    mail = Effector("mail", on=["shop.Offered"], act=lambda event, key: {}, result="shop.Mailed")
    moves = [*MACHINE.transitions, Transition("init", "begin", "open")]
    moves += [Transition("init", told, "open") for told in ("shop.Offered", ESCALATED, *mail.results)]
    app = replace(shop, machine=replace(MACHINE, transitions=moves), effectors=[mail])
    partition = Partition(app, Seller())
    partition.feed(request(record, 0))
    [rejected] = partition.of(TRANSITION_REJECTED)
    refused = json.loads(rejected.data["rejection"])
    assert (refused["code"], refused["expected"]) == ("illegal_transition", "begin")
    assert refused["message"] == f"{record} tells what has happened, and is nothing to ask for"
    assert len(partition.owner.rows) == 0


def test_a_word_that_the_state_does_not_know_is_refused_as_leading_nowhere(shop: App) -> None:
    partition = Partition(shop, Seller("shop.Offered"))
    partition.feed(fact("shop.Asked"), request("settle", 2))
    [rejected] = partition.of(TRANSITION_REJECTED)
    assert json.loads(rejected.data["rejection"])["message"] == "settle leads nowhere from the state offered"


def test_a_request_for_a_workflow_without_a_row_is_answered_and_may_begin_one(shop: App) -> None:
    begun = replace(MACHINE, transitions=[*MACHINE.transitions, Transition("init", "begin", "open")])
    partition = Partition(replace(shop, machine=begun), Seller())
    partition.feed(request("begin", 1), request("approve", 0, 1), request("begin", 0, 2))
    codes = [json.loads(event.data["rejection"])["code"] for event in partition.of(TRANSITION_REJECTED)]
    assert codes == ["stale_version", "illegal_transition"]
    assert [event.data["row"] for event in partition.of(TRANSITION_REJECTED)] == ["{}", "{}"]
    assert (partition.row().state, partition.row().version) == ("open", 1)


def test_on_the_event_log_a_request_is_a_fact_that_nobody_answers(event_log_shop: App) -> None:
    partition = Partition(event_log_shop, Seller())
    partition.feed(request("approve", 0))
    assert partition.row().data["last"] == TRANSITION_REQUESTED
    assert [event.record for event in partition.log] == [TRANSITION_REQUESTED]


@pytest.mark.parametrize("name", ["spine", "timer", "effector/mail"])
def test_no_boundary_has_a_name_that_sources_of_the_app_have_already(shop: App, name: str) -> None:
    with pytest.raises(UsageError, match=f"a boundary is named {name}"):
        replace(shop, boundaries=[replace(shop.boundaries[0], name=name)])


def test_a_row_that_a_commit_makes_uncanonical_sends_its_input_to_the_dead_topic_and_stays_as_it_was(
    shop: App,
) -> None:
    def overflow(row: Mapping[str, Any], event: Event) -> Mapping[str, Any]:
        return {"sum": 2**60} if event.record == "shop.Offered" else dict(row)

    partition = Partition(replace(shop, fold=Fold(overflow, "1")), Seller("shop.Offered", "shop.Offered"))
    partition.feed(fact("shop.Asked"), fact("shop.Asked", 1, "other"))
    assert [outgoing.topic for one in partition.decided for outgoing in one.outgoing] == ["shop.dead", "shop.dead"]
    assert [one.dead for one in partition.decided] == ["not_canonical", "not_canonical"]
    assert len(partition.owner.rows) == 0


def test_a_fact_at_the_end_of_time_starts_no_timer_and_is_folded_all_the_same(shop: App) -> None:
    partition = Partition(shop, Seller("shop.Offered"))
    partition.feed(replace(fact("shop.Asked"), time=datetime(9999, 12, 31, tzinfo=UTC)))
    assert partition.row().data == {"seen": 2, "state": "offered"}


def test_events_that_move_no_row_do_not_make_its_timer_fire_again(shop: App) -> None:
    partition = Partition(shop, Seller("shop.Offered"))
    partition.feed(fact("shop.Asked"))
    due = partition.owner.rows.due(NOON + timedelta(days=31))
    partition.feed(request("approve", 1), told("shop.Offered", "driftline:shop/sell", text=""), tick(31))
    assert [timer.name for timer in due] == ["expiry"]
    assert not partition.of(TIMER_FIRED)


def test_a_timer_at_a_fraction_of_a_millisecond_fires_once(event_log_shop: App) -> None:
    prompt = Prompt("{{ row | tojson }}")
    app = replace(event_log_shop, boundaries=[replace(event_log_shop.boundaries[0], prompt=prompt)])
    partition = Partition(app, Seller("shop.Offered"))
    rows = partition.owner.rows
    asked = replace(fact("shop.Asked"), time=NOON.replace(microsecond=123_456))
    rows.keep(b"w", rows.fold(b"w", asked, 0))
    partition.feed(tick(8), tick(9), tick(10))
    assert len(partition.of(TIMER_FIRED)) == 1
    assert partition.row().data["timers"] == {}


def test_more_timers_than_a_transaction_should_hold_fire_in_several_and_each_once(
    shop: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spines, "TIMERS_A_TICK", 3)
    partition = Partition(shop, Seller(*["shop.Offered"] * 10))
    partition.feed(*(fact("shop.Asked", 0, f"w{number}") for number in range(10)), tick(31))
    assert sorted(event.workflow for event in partition.of(TIMER_FIRED)) == [f"w{number}" for number in range(10)]
    assert max(len(one.outgoing) for one in partition.decided) <= 4
    told_again = partition.of(CLOCK_TICKED)[1:]
    assert {event.data["ticked_at"] for event in told_again} == {NOON + timedelta(days=31)}
    assert len({event.id for event in told_again}) == len(told_again) == 3


def test_the_timers_that_an_upgrade_sets_fire_and_those_that_it_drops_do_not(shop: App) -> None:
    def changed(data: Mapping[str, Any]) -> Mapping[str, Any]:
        timers = {} if data["name"] == "dropped" else {"expiry": "2026-07-03T12:00:00.000Z"}
        return {"state": "offered", "timers": timers}

    due = {"expiry": "2026-07-02T12:00:00.000Z"}
    rows = Rows(replace(shop, fold=Fold(count, "1", {"0": changed})).row_fold)
    for name in ("dropped", "moved"):
        rows.keep(name.encode(), Row({"state": "offered", "name": name, "timers": due}, 5, 9, "0"))
    rows.upgrade()
    found = rows.due(NOON + timedelta(days=9))
    assert [(timer.key, timer.due_at) for timer in found] == [(b"moved", NOON + timedelta(days=2))]


def test_what_the_event_log_decided_is_refused_by_a_table_with_what_would_be_legal(shop: App) -> None:
    from driftline.consumers.judging import Case, Proposal

    verifier = shop.bound["sell"].judge.verifiers[-1]
    [refused] = verifier.verify(Proposal("shop.Closed", {}), Case({"event": {}, "row": {"state": "open"}}))
    assert refused.expected == "shop.Noted or shop.Offered"


def log_of(partition: Partition, *topics: str) -> MemoryLog:
    """What a partition has written: its events, and what it decided on the topics named."""
    log = MemoryLog()
    inputs = [to_outgoing(event, "shop.events", partition.codec, 0) for event in partition.log]
    more = [one for decided in partition.decided for one in decided.outgoing if one.topic in topics]
    log.commit([*inputs, *more])
    return log


def test_a_partition_that_nothing_moved_a_row_of_is_restored_without_rows(shop: App) -> None:
    partition = Partition(shop, Seller())
    partition.feed(tick(1), tick(2), request("approve", 7), expired(3))
    restorer = RowRestorer(shop, log_of(partition, "shop.state"), partition.codec)
    assert len(restorer.restore(0, Unfinished(9, 9))) == 0


def test_rows_that_are_the_truth_and_are_gone_are_told_with_what_moved_one(shop: App) -> None:
    partition = Partition(shop, Seller("shop.Offered"))
    partition.feed(tick(1), fact("shop.Asked"))
    restorer = RowRestorer(shop, log_of(partition), partition.codec)
    with pytest.raises(UsageError, match=r"shop.events\[0\]@1 moved one"):
        restorer.restore(0, Unfinished(3, 3))


def renamed(app: App, old: str, new: str, **changes: Any) -> App:
    """The app after a state of its table was given another name."""
    machine = app.require_machine()
    moves = [
        replace(
            one,
            source=new if one.source == old else one.source,
            target=new if one.target == old else one.target,
        )
        for one in machine.transitions
    ]
    timers = [replace(one, state=new if one.state == old else one.state) for one in machine.timers]
    return replace(app, machine=replace(machine, transitions=moves, timers=timers, **changes))


def test_rows_in_a_state_that_the_table_does_not_have_are_refused_before_anything_is_decided(shop: App) -> None:
    partition = Partition(shop, Seller("shop.Offered", "shop.Offered"))
    partition.feed(fact("shop.Asked"), fact("shop.Asked", 1, "other"), request("approve", 2))
    restorer = RowRestorer(renamed(shop, "offered", "proposed"), log_of(partition, "shop.state"), partition.codec)
    with pytest.raises(UsageError, match="the row of other is in the state offered, which") as told:
        restorer.restore(0, Unfinished(9, 9))
    assert "raise the machine's version, and let Fold(..., upgrades={'1/1': function})" in told.value.mend


def test_rows_whose_state_an_upgrade_renames_as_the_table_does_are_taken(shop: App) -> None:
    partition = Partition(shop, Seller("shop.Offered"))
    partition.feed(fact("shop.Asked"))
    fold = Fold(count, "1", {"1/1": lambda data: {**data, "state": "proposed"}})
    newer = replace(renamed(shop, "offered", "proposed", version="2"), fold=fold)
    rows = RowRestorer(newer, log_of(partition, "shop.state"), partition.codec).restore(0, Unfinished(9, 9))
    assert [row.state for _, row in rows.items()] == ["proposed"]


def test_a_decision_that_is_still_to_be_made_by_the_position_stops_whoever_reads_the_rows(shop: App) -> None:
    partition = Partition(shop, Seller("shop.Offered"))
    partition.feed(fact("shop.Asked"))
    restorer = RowRestorer(shop, log_of(partition, "shop.state", "shop.decisions"), partition.codec)
    assert len(restorer.checked(0, Unfinished(2, 2))) == 1
    with pytest.raises(UsageError, match="its position expired, was reset"):
        restorer.checked(0, Unfinished(0, 0))


def test_reading_a_row_costs_an_event_one_look(shop: App, monkeypatch: pytest.MonkeyPatch) -> None:
    partition = Partition(shop, Seller("shop.Offered"))
    partition.feed(fact("shop.Asked"))
    reads: list[object] = []
    read = Rows._read

    def counted(rows: Rows, held: Any) -> Row:
        reads.append(held)
        return read(rows, held)

    monkeypatch.setattr(Rows, "_read", counted)
    moves = [one for one in MACHINE.transitions if not one.on.startswith("timer:")]
    plain = replace(shop, machine=Machine("init", ["closed"], moves))
    for app in (plain, replace(shop, spine="event-log", machine=None)):
        reads.clear()
        rows = Rows(app.row_fold)
        spine = spines.spine_of(app)
        for offset in range(2):
            rows.keep(b"w", spine.take(rows, b"w", fact("shop.Noted", offset), offset).row)
        assert len(reads) == 1, "there was a row before the second event alone"


def test_a_tick_reads_the_rows_whose_timers_it_fires_and_restoring_them_reads_none(
    shop: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert shop.row_fold is not None
    codec = Partition(shop, Seller()).codec
    records = []
    for number in range(500):
        due = (NOON + timedelta(days=1, seconds=number)).isoformat()
        row = Row({"state": "offered", "timers": {"expiry": due}}, 2, number, shop.row_fold.version)
        value = row_record("shop.state", 0, b"w%d" % number, 1, row, codec).value
        records.append(Record(Coordinates("shop.state", 0, number), b"w%d" % number, value, 1))
    reads: list[object] = []
    read = Rows._read

    def counted(rows: Rows, held: Any) -> Row:
        reads.append(held)
        return read(rows, held)

    monkeypatch.setattr(Rows, "_read", counted)
    rows = Rows.restored(shop.row_fold, records, codec)
    assert reads == []
    taken = spines.spine_of(shop).take(rows, b"clock", tick(1 + 2 / 86_400), 500)
    assert [event.workflow for event in taken.emitted] == ["w0", "w1", "w2"]
    assert len(reads) == 3
