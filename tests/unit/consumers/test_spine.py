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
from driftline.consumers.deciding import Decided, Decider
from driftline.consumers.partition import OwnedPartition
from driftline.consumers.rows import Row, Rows
from driftline.log import Coordinates, Record, Unfinished, to_event, to_outgoing
from driftline.schemas import Codec, Event, Registry, UsageError
from driftline.schemas.names import (
    CLOCK_TICKED,
    TIMER_FIRED,
    TRANSITION_ACCEPTED,
    TRANSITION_REJECTED,
    TRANSITION_REQUESTED,
)

NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)
RECORDS = ("shop.Asked", "shop.Noted", "shop.Offered", "shop.Closed")
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
