"""Mode `free`: what a workflow does when it is lived again from outside facts alone."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from driftline.console.main import app as driftline
from driftline.consumers import (
    Answer,
    App,
    Boundary,
    Fold,
    OnExhausted,
    Prompt,
    ProposalRequest,
    Proposer,
    ProposerFailure,
)
from driftline.consumers.deciding import drive
from driftline.consumers.engine import Input
from driftline.consumers.rows import Rows
from driftline.examples.renewals.app import app as renewals
from driftline.log import Coordinates, MemoryLog, decision_record, to_outgoing
from driftline.producers.renewals import synthetic_renewals
from driftline.replay import AppSubject, Candidate, Ledger, Limits, LoggedDecision, Selection, Spending, query
from driftline.replay.free import FreeReplay, FreeResult, WorkflowPair
from driftline.replay.free_report import free_data, free_id_of
from driftline.replay.free_store import write_free_store
from driftline.replay.sandbox import AT_ONCE_MAX, as_read
from driftline.replay.stored import read_report
from driftline.replay.testing import OwnModels
from driftline.replay.workflows import History, build_history, is_committed, load_workflows
from driftline.schemas import Codec, Event, InputCoordinates, Registry, UsageError
from driftline.schemas.names import ESCALATED

NOON = datetime(2026, 9, 22, 12, tzinfo=UTC)
CANDIDATE = Candidate("acme/next")
Model = Callable[[Mapping[str, Any]], tuple[str, Mapping[str, Any]]]
World = Callable[[Event], Event | None]
RECORDS: Mapping[str, list[dict[str, Any]]] = {
    "shop.Asked": [{"name": "want", "type": "string"}],
    "shop.Paid": [{"name": "amount", "type": "double"}],
    "shop.Offered": [
        {"name": "price", "type": "double"},
        {"name": "why", "type": "string", "compare": "free-text"},
    ],
    "shop.Declined": [{"name": "why", "type": "string", "compare": "free-text"}],
    "shop.Shipped": [{"name": "parcels", "type": "int", "default": 1}],
    "shop.Pleaded": [{"name": "times", "type": "int"}],
}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> App:
    """Asked, it offers or declines; paid, it ships; what it declined it may plead for, and pleads again."""
    folder = tmp_path_factory.mktemp("shop")
    for name, fields in RECORDS.items():
        place = folder / name
        place.mkdir()
        short = name.partition(".")[2]
        schema = {"type": "record", "name": short, "namespace": "shop", "fields": fields}
        (place / "1.avsc").write_text(json.dumps(schema))
    prompt = Prompt("{{ {'event': event, 'row': row, 'stream': stream} | tojson }}")

    def boundary(name: str, on: str, *proposes: str) -> Boundary:
        return Boundary(name, [on], prompt, "acme/last", proposes, max_attempts=2)

    return App(
        "shop",
        [
            boundary("quote", "shop.Asked", "shop.Offered", "shop.Declined"),
            boundary("ship", "shop.Paid", "shop.Shipped", "shop.Declined"),
            boundary("plead", "shop.Pleaded", "shop.Pleaded", "shop.Shipped"),
        ],
        folder,
        facts=["shop.Asked", "shop.Paid"],
        fold=Fold(lambda row, event: {"seen": [*row.get("seen", []), event.record]}, version="1"),
    )


def sensible(context: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """Offers at what was seen so far, and ships what was paid."""
    if context["stream"] == "shop.Paid":
        return "shop.Shipped", {"parcels": 1}
    return "shop.Offered", {"price": 10.0 * len(context["row"]["seen"]), "why": "as ever"}


def tight(context: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """Declines whoever wants a lot."""
    if context["event"].get("want") == "a lot":
        return "shop.Declined", {"why": "too much"}
    return sensible(context)


class Models:
    """Models by name, each a function of what the prompt shows; counts what it is asked."""

    def __init__(self, **models: Model) -> None:
        self.models = {f"acme/{name}": model for name, model in models.items()}
        self.asked: list[ProposalRequest] = []
        self.yields = 0
        self.failure = ProposerFailure.TIMEOUT
        self.fails: Callable[[ProposalRequest], bool] = lambda request: False

    async def propose(self, request: ProposalRequest) -> Answer:
        self.asked.append(request)
        if self.fails(request):
            return Answer(None, self.failure)
        for _ in range(self.yields and len(self.asked) % self.yields):
            await asyncio.sleep(0)
        kind, payload = self.models[request.model](json.loads(request.messages[0]["content"]))
        return Answer(json.dumps({"type": kind, "payload": payload}), cost_usd=0.1)


def asks(number: int, want: str = "a bit", workflow: str | None = None) -> Event:
    name = workflow or f"w{number}"
    time = NOON + timedelta(minutes=number)
    return Event(f"ask-{number}", "shop.Asked", "web", name, time, "shop.Asked", {"want": want})


def pays(event: Event) -> Event | None:
    """Who is offered something pays for it."""
    if event.record != "shop.Offered":
        return None
    data = {"amount": event.data["price"]}
    return Event(f"pay-{event.id}", "shop.Paid", "bank", event.workflow, event.time, "shop.Paid", data, event.id)


def silent(event: Event) -> Event | None:
    return None


Lived = tuple[list[tuple[Coordinates, Event]], dict[tuple[int, int], LoggedDecision]]


async def live(app: App, facts: Iterable[Event], proposer: Proposer, world: World, seed: int = 0) -> Lived:
    """What an app makes of facts on one partition: all facts come first, and the world answers what is committed."""
    log, rows = deque(facts), Rows(app.fold)
    decided: dict[tuple[int, int], LoggedDecision] = {}
    events: list[tuple[Coordinates, Event]] = []
    while log:
        event = log.popleft()
        at = Coordinates(app.topics.events, 0, len(events))
        events.append((at, event))
        key = event.workflow.encode()
        row = rows.fold(key, event, at.offset)
        rows.keep(key, row)
        bound = app.by_stream.get(event.type)
        if bound is None:
            continue
        given = InputCoordinates(
            topic=at.topic, partition=0, offset=at.offset, event_id=event.id, event_time=event.time
        )
        data = {} if row is None else row.data
        outcome = await drive(Input(app.name, bound, event, given, data, 1, seed), proposer)
        place = Coordinates(app.topics.decisions, 0, len(decided))
        decided[0, at.offset] = LoggedDecision(place, outcome.decision(event.time))
        for emitted in outcome.emitted:
            read = as_read(emitted, app.contracts)
            answer = world(read)
            log.extend([read] if answer is None else [read, answer])
    return events, decided


def history_of(app: App, lived: Lived) -> History:
    """The workflows of what was lived."""
    events, decided = lived
    by_workflow: dict[str, list[tuple[Coordinates, Event]]] = {}
    for at, event in events:
        by_workflow.setdefault(event.workflow, []).append((at, event))
    return build_history(app, by_workflow.values(), decided)


def past(app: App, *facts: Event, world: World = pays) -> History:
    return history_of(app, asyncio.run(live(app, facts, Models(last=sensible), world)))


Run = Callable[..., FreeResult]


@pytest.fixture
def run(shop: App, ledger: Ledger, as_subject: Callable[[App], AppSubject]) -> Run:
    """Live a history again with scripted models."""

    def make(history: History, proposer: Proposer, **given: Any) -> FreeResult:
        app, candidate = given.pop("app", shop), given.pop("candidate", CANDIDATE)
        incumbent = given.pop("incumbent", False)
        store, spending = given.pop("ledger", ledger), given.pop("spending", None)
        limits = Limits(**given)
        subject = as_subject(app)
        replay = FreeReplay(
            "run", history, subject, candidate, proposer, store, limits, lambda: NOON, spending, incumbent
        )
        return asyncio.run(replay.run())

    return make


def only(result: FreeResult) -> WorkflowPair:
    assert len(result.pairs) == 1
    return result.pairs[0]


def test_who_decides_as_the_log_did_departs_nowhere_and_ends_with_the_same_row(shop: App, run: Run) -> None:
    """Two facts of a workflow lie on the log before what the first one led to: the sandbox keeps that order."""
    history = past(shop, asks(1, workflow="w"), asks(2, workflow="w"), asks(3))
    result = run(history, Models(next=sensible))
    assert [pair.candidate.departure for pair in result.pairs] == [None, None]
    assert [pair.candidate.state_equal for pair in result.pairs] == [True, True]
    assert sum(len(pair.candidate.run.decisions) for pair in result.pairs) == 6
    assert result.coverage == 1.0
    assert result.departed().count == 0
    assert result.departed().workflows == 2


def test_a_departure_is_the_first_decision_that_differs_and_travels_to_all_that_hung_on_it(
    shop: App, run: Run
) -> None:
    pair = only(run(past(shop, asks(1, "a lot")), Models(next=tight)))
    departure, travel = pair.candidate.departure, pair.candidate.travel
    assert departure is not None
    assert (departure.index, departure.boundary, departure.level) == (0, "quote", "action")
    assert (departure.input, str(departure.at)) == ("shop.events[0]@0", "shop.decisions[0]@0")
    assert (departure.then.type, departure.now.type) == ("shop.Offered", "shop.Declined")
    assert (travel.decisions_changed, travel.decisions_missing, travel.decisions_extra) == (0, 1, 0)
    assert (travel.events_changed, travel.events_missing, travel.events_extra) == (1, 1, 0)
    assert pair.candidate.state_equal is False


def test_a_fact_whose_cause_happened_otherwise_is_withheld_and_costs_coverage(shop: App, run: Run) -> None:
    result = run(past(shop, asks(1, "a lot"), asks(2)), Models(next=tight))
    assert [pair.candidate.run.facts_withheld for pair in sorted(result.pairs, key=lambda p: p.workflow.name)] == [
        1,
        0,
    ]
    assert result.coverage == 0.75
    assert (result.verdict, result.stopped_because) == ("inconclusive", "coverage")


def test_a_field_that_is_not_compared_is_no_departure_and_withholds_nothing(shop: App, run: Run) -> None:
    def wordy(context: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
        kind, payload = sensible(context)
        return kind, {**payload, "why": "in other words"} if "why" in payload else payload

    pair = only(run(past(shop, asks(1)), Models(next=wordy)))
    assert pair.candidate.departure is None
    assert pair.candidate.run.facts_withheld == 0
    assert pair.candidate.travel.events_changed == 0


def test_a_later_decision_is_where_a_workflow_departs_when_the_earlier_ones_held(shop: App, run: Run) -> None:
    def stingy(context: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
        return ("shop.Declined", {"why": "no"}) if context["stream"] == "shop.Paid" else sensible(context)

    pair = only(run(past(shop, asks(1)), Models(next=stingy)))
    assert pair.candidate.departure is not None
    assert (pair.candidate.departure.index, pair.candidate.departure.stream) == (1, "shop.Paid")
    assert pair.candidate.run.facts_withheld == 0


def test_an_escalation_is_the_same_whatever_it_says_of_the_attempts(shop: App, run: Run) -> None:
    """What a person answered to it is fed: the case that she was handed is the same."""

    def misfit(context: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
        return ("shop.Offered", {"price": "high"}) if context["stream"] == "shop.Asked" else sensible(context)

    def unheard(context: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
        return ("shop.Nothing", {}) if context["stream"] == "shop.Asked" else sensible(context)

    def approves(event: Event) -> Event | None:
        offered = replace(event, record="shop.Offered", data={"price": 1.0})
        return pays(offered) if event.record == ESCALATED else None

    history = history_of(shop, asyncio.run(live(shop, [asks(1)], Models(last=misfit), approves)))
    pair = only(run(history, Models(next=unheard)))
    assert [str(one.outcome.verdict) for one in pair.candidate.run.decisions] == ["escalated", "accepted"]
    assert pair.candidate.run.committed[0].data != history.workflows[0].events[1].event.data
    assert (pair.candidate.departure, pair.candidate.run.facts_withheld) == (None, 0)


def test_an_event_that_was_never_decided_is_passed_over_as_the_log_did(shop: App, run: Run) -> None:
    events, decided = asyncio.run(live(shop, [asks(1), asks(2, workflow="w1")], Models(last=sensible), silent))
    del decided[0, 1]
    events = [(at, event) for at, event in events if event.causation_id != "ask-2"]
    models = Models(next=sensible)
    pair = only(run(history_of(shop, (events, decided)), models))
    assert len(models.asked) == 1
    assert pair.candidate.state_equal is True
    assert pair.candidate.run.row == '{"seen":["shop.Asked","shop.Offered"]}'


def test_a_fact_that_lies_on_the_log_twice_is_decided_twice_and_each_answer_is_its_own(shop: App, run: Run) -> None:
    models = Models(next=sensible)
    pair = only(run(past(shop, asks(1), asks(1), world=silent), models))
    assert len({request.key.decision_id for request in models.asked}) == 2
    assert (pair.candidate.departure, pair.candidate.state_equal) == (None, True)


def test_an_effector_reports_from_outside_and_a_boundary_does_not() -> None:
    assert is_committed("shop", "driftline:shop/quote")
    assert not is_committed("shop", "driftline:shop/effector/crm")
    assert not is_committed("shop", "driftline:other/quote")
    assert not is_committed("shop", "web")


def pleading(app: App) -> App:
    """A shop in which a quote may be a plea, which another boundary decides."""
    quote = replace(app.boundaries[0], proposes=["shop.Offered", "shop.Pleaded"])
    return replace(app, boundaries=[quote, *app.boundaries[1:]])


def test_what_only_the_candidate_commits_feeds_the_boundary_that_decides_it(shop: App, run: Run) -> None:
    def pleads_once(context: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
        if context["stream"] == "shop.Asked":
            return "shop.Pleaded", {"times": 1}
        return "shop.Shipped", {}

    app = pleading(shop)
    pair = only(run(past(app, asks(1), world=silent), Models(next=pleads_once), app=app))
    assert [one.logged is None for one in pair.candidate.run.decisions] == [False, True]
    assert [event.record for event in pair.candidate.run.committed] == ["shop.Pleaded", "shop.Shipped"]
    assert pair.candidate.run.committed[1].data == {"parcels": 1}, "the default that a reader of the log would see"
    assert (pair.candidate.travel.decisions_extra, pair.candidate.travel.events_extra) == (1, 1)
    assert pair.candidate.run.row == '{"seen":["shop.Asked","shop.Pleaded","shop.Shipped"]}'


def test_what_takes_another_events_place_is_decided_by_the_boundary_of_its_own_type(shop: App, run: Run) -> None:
    def pleads(context: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
        return ("shop.Pleaded", {"times": 1}) if context["stream"] == "shop.Asked" else ("shop.Shipped", {})

    def takes_money(context: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
        return ("shop.Paid", {"amount": 1.0}) if context["stream"] == "shop.Asked" else ("shop.Shipped", {})

    quote = replace(shop.boundaries[0], proposes=["shop.Pleaded", "shop.Paid"])
    app = replace(shop, boundaries=[quote, *shop.boundaries[1:]])
    history = history_of(app, asyncio.run(live(app, [asks(1)], Models(last=pleads), silent)))
    pair = only(run(history, Models(next=takes_money), app=app))
    assert [one.outcome.given.bound.boundary.name for one in pair.candidate.run.decisions] == ["quote", "ship"]
    travel = pair.candidate.travel
    assert (travel.decisions_changed, travel.decisions_missing, travel.decisions_extra) == (0, 1, 1)


def test_what_comes_when_its_place_has_passed_is_fed_at_once(shop: App, run: Run) -> None:
    """A fact came again after its first answer, and the log decided it to nothing; the candidate answers it again."""
    app = replace(shop, boundaries=[replace(one, on_exhausted=OnExhausted.REJECT) for one in shop.boundaries])

    def once(context: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
        return sensible(context) if len(context.get("row", {}).get("seen", [1, 2])) == 1 else ("shop.Nothing", {})

    def asked_again(event: Event) -> Event | None:
        return asks(1)

    history = history_of(app, asyncio.run(live(app, [asks(1)], Models(last=once), asked_again)))
    pair = only(run(history, Models(next=sensible), app=app))
    assert pair.candidate.run.row == '{"seen":["shop.Asked","shop.Offered","shop.Asked","shop.Offered"]}'
    departure = pair.candidate.departure
    assert departure is not None
    assert (departure.index, departure.level, departure.then.verdict) == (1, "verdict", "rejected")


def test_an_answer_without_a_text_is_asked_for_again_and_is_not_its_own_repeat(shop: App, run: Run) -> None:
    models = Models(next=sensible)
    models.fails, models.failure = lambda request: request.key.attempt == 1, ProposerFailure.REFUSED
    pair = only(run(past(shop, asks(1), world=silent), models))
    (decision,) = pair.candidate.run.decisions
    assert [attempt.failure for attempt in decision.outcome.attempts] == ["refused", None]
    assert pair.candidate.departure is None


def test_the_incumbent_is_what_the_log_says_and_not_what_the_code_says_today(shop: App, run: Run) -> None:
    history, models = past(shop, asks(1)), Models(next=sensible, last=sensible)
    app = replace(shop, boundaries=[replace(one, proposer="acme/code") for one in shop.boundaries])
    run(history, models, app=app, incumbent=True)
    assert {(request.key.arm, request.model) for request in models.asked} == {
        ("candidate", "acme/next"),
        ("incumbent", "acme/last"),
    }


def test_the_arm_that_covers_less_gives_the_coverage(shop: App, run: Run) -> None:
    history = past(shop, asks(1, "a lot"), asks(2))
    assert run(history, Models(next=sensible, last=tight), incumbent=True).coverage == 0.75


def test_a_candidate_that_feeds_itself_is_stopped_and_has_departed(shop: App, run: Run) -> None:
    def pleads_for_ever(context: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
        return "shop.Pleaded", {"times": 1}

    app, models = pleading(shop), Models(next=pleads_for_ever)
    pair = only(run(past(app, asks(1), world=silent), models, app=app))
    assert len(models.asked) == AT_ONCE_MAX + 2
    assert (pair.candidate.run.ended, pair.evidence, pair.candidate.state_equal) == ("runaway", True, False)


def test_a_fact_caused_in_another_workflow_ends_the_sandbox_and_costs_coverage(shop: App, run: Run) -> None:
    def crosses(event: Event) -> Event | None:
        paid = pays(event)
        return None if paid is None or event.workflow != "w1" else replace(paid, workflow="w2")

    events, decided = asyncio.run(live(shop, [asks(1), asks(2)], Models(last=sensible), crosses))
    offered = next(event.id for _, event in events if event.record == "shop.Offered" and event.workflow == "w1")
    parts = [[(at, event) for at, event in events if event.workflow == name] for name in ("w1", "w2")]
    history = build_history(shop, parts, decided, lambda asked: asked & {offered})
    result = run(history, Models(next=sensible))
    ended = {pair.workflow.name: pair.candidate.run.ended for pair in result.pairs}
    assert ended == {"w1": None, "w2": "foreign_cause"}
    assert result.departed().workflows == 1
    assert result.coverage == pytest.approx(1 / 3)


def test_a_cause_that_the_log_does_not_know_came_from_outside(shop: App, run: Run) -> None:
    history = past(shop, replace(asks(1), causation_id="a phone call"))
    assert only(run(history, Models(next=sensible))).candidate.run.facts_withheld == 0


def test_the_same_run_again_pays_nothing_and_says_the_same(shop: App, run: Run) -> None:
    history, models = past(shop, *(asks(n, "a lot" if n % 3 else "a bit") for n in range(12))), Models(next=tight)
    models.models["acme/last"] = sensible
    first = run(history, models, incumbent=True)
    paid = len(models.asked)
    again = run(history, models, incumbent=True, concurrency=1)
    assert len(models.asked) == paid
    assert (first.from_ledger, again.from_ledger) == (0, paid)
    reports = [free_data(history, CANDIDATE, one, Limits()) for one in (first, again)]
    assert [report.pop("from_ledger") for report in reports] == [0, paid]
    assert reports[0] == reports[1]


def test_an_interrupted_run_goes_on_from_the_ledger(shop: App, run: Run) -> None:
    history, models = past(shop, *(asks(n) for n in range(6))), Models(next=sensible)

    def dies(context: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
        if len(models.asked) == 7:
            raise KeyboardInterrupt
        return sensible(context)

    models.models["acme/next"] = dies
    with pytest.raises(KeyboardInterrupt):
        run(history, models, concurrency=1)
    models.models["acme/next"] = sensible
    result = run(history, models, concurrency=1)
    assert result.from_ledger == 6
    assert len(models.asked) == 7 + 6, "twelve answers, and the call that was in flight"


def test_the_order_in_which_answers_come_changes_nothing(shop: App, run: Run, tmp_path: Path) -> None:
    history = past(shop, *(asks(n, "a lot" if n % 2 else "a bit") for n in range(20)))
    found = []
    for number, yields in enumerate((0, 5)):
        models, fresh = Models(next=tight, last=sensible), Ledger(tmp_path / f"{number}.sqlite")
        models.yields = yields
        result = run(history, models, incumbent=True, ledger=fresh, concurrency=1 if yields == 0 else 7)
        fresh.close()
        found.append(free_data(history, CANDIDATE, result, Limits()))
    assert found[0] == found[1]


def test_a_lost_call_makes_its_workflow_no_evidence_and_is_asked_again_next_time(shop: App, run: Run) -> None:
    history, models = past(shop, *(asks(n) for n in range(3))), Models(next=sensible)
    models.fails = lambda request: request.key.workflow == "w1"
    lost = run(history, models)
    assert lost.departed().workflows == 2
    assert lost.coverage == pytest.approx(4 / 6)
    assert (lost.verdict, lost.stopped_because) == ("inconclusive", "coverage")
    models.fails = lambda request: False
    assert run(history, models).departed().workflows == 3


def test_a_limit_of_calls_ends_the_run_at_the_first_workflow_that_it_cuts(shop: App, run: Run) -> None:
    history, models = past(shop, *(asks(n) for n in range(8))), Models(next=sensible)
    result = run(history, models, calls_max=5, concurrency=1)
    assert len(models.asked) == 5
    assert (len(result.pairs), result.planned) == (2, 8)
    assert (result.verdict, result.stopped_because) == ("inconclusive", "budget_ended")


def test_a_budget_holds_and_the_same_run_goes_on_with_a_larger_one(shop: App, run: Run, ledger: Ledger) -> None:
    def price(logged: LoggedDecision, request: ProposalRequest) -> float:
        return 0.1

    history, models = past(shop, *(asks(n) for n in range(8))), Models(next=sensible)
    cut = run(history, models, spending=Spending(0.7, 0.0, price), concurrency=1)
    assert ledger.paid_usd("run") == pytest.approx(0.7)
    assert (cut.stopped_because, len(cut.pairs)) == ("budget_ended", 3)
    whole = run(history, models, spending=Spending(9.0, ledger.paid_usd("run"), price))
    assert (len(whole.pairs), whole.from_ledger, len(models.asked)) == (8, 7, 16)
    assert whole.cost_usd == pytest.approx(1.6)


def test_the_incumbent_shares_no_answer_with_a_candidate_of_its_own_model(shop: App, run: Run) -> None:
    history, models = past(shop, asks(1)), Models(last=sensible)
    run(history, models, candidate=Candidate("acme/last"), incumbent=True)
    assert sorted(request.key.arm for request in models.asked) == ["candidate"] * 2 + ["incumbent"] * 2


def test_without_an_incumbent_rates_are_told_and_no_verdict(shop: App, run: Run) -> None:
    history = past(shop, *(asks(n, "a lot") for n in range(30)), world=silent)
    result = run(history, Models(next=tight))
    assert result.departed().value == 1.0
    assert (result.verdict, result.stopped_because) == ("inconclusive", "no_incumbent")
    assert "without an incumbent arm" in result.note


def test_a_prompt_that_needs_what_the_log_lacks_is_refused_before_anything_is_paid(shop: App, run: Run) -> None:
    models = Models(next=sensible)
    with pytest.raises(UsageError, match="want"):
        run(past(shop, asks(1)), models, candidate=Candidate("acme/next", Prompt("{{ event.want }}")))
    assert not models.asked


@pytest.fixture(scope="module")
def quarter() -> History:
    """What the example app decided of 300 renewals with the simulated incumbent."""
    facts = synthetic_renewals(300, seed=11)
    return history_of(renewals, asyncio.run(live(renewals, facts, OwnModels(), silent, seed=11)))


@pytest.mark.parametrize(
    ("model", "expected"), [("sim/renewals-inflated", "diverged"), ("sim/renewals", "equivalent")]
)
def test_the_simulator_is_told_from_its_own_noise_by_the_incumbent(
    model: str, expected: str, quarter: History, run: Run
) -> None:
    """Some workflows depart under the log's own model too: what counts is whether the candidate's do otherwise."""
    result = run(quarter, OwnModels(), app=renewals, candidate=Candidate(model), incumbent=True)
    assert result.verdict == expected
    assert result.departed(incumbent=True).count > 0
    assert len(result.pairs) == 300


def test_a_report_tells_where_workflows_depart_and_what_that_leads_to(shop: App, run: Run) -> None:
    history = past(shop, asks(1, "a lot"), asks(2), asks(3, "a lot"))
    report = free_data(history, CANDIDATE, run(history, Models(next=tight)), Limits())
    assert json.loads(json.dumps(report)) == report
    (place,) = report["by_place"]
    told = {name: place[name] for name in ("index", "boundary", "then", "now", "workflows", "state_changed")}
    assert told == {
        "index": 0,
        "boundary": "quote",
        "then": "shop.Offered",
        "now": "shop.Declined",
        "workflows": 2,
        "state_changed": 2,
    }
    arm = report["arms"]["candidate"]
    assert (arm["departed"]["count"], arm["state_changed"]["count"]) == (2, 2)
    assert (arm["travel"]["facts_withheld"], arm["travel_mean"]["decisions_missing"]) == (2, 1.0)
    assert {one["workflow"] for one in report["departures"]} == {"w1", "w3"}
    assert (report["arms"]["incumbent"], report["levels"], report["e_value"]) == (None, None, None)


def on_a_log(app: App, lived: Lived) -> tuple[MemoryLog, Codec]:
    """What was lived, written to a log in memory at the offsets that it had."""
    events, decided = lived
    registry, log = Registry("mock://free"), MemoryLog()
    for topic, record in app.subjects():
        registry.ensure(topic, app.contracts.require(record))
    codec = Codec(registry, app.contracts)
    log.commit([to_outgoing(event, app.topics.events, codec, 0) for _, event in events])
    log.commit([decision_record(one.decision, app.topics.decisions, codec) for one in decided.values()])
    return log, codec


def test_a_workflow_belongs_to_the_segment_in_which_it_begins_and_is_read_to_its_end(shop: App) -> None:
    facts = [asks(1, workflow="early"), asks(10), asks(11, workflow="early"), asks(12)]
    lived = asyncio.run(live(shop, facts, Models(last=sensible), pays))
    log, codec = on_a_log(shop, lived)
    since = Selection(start=NOON + timedelta(minutes=5), stop=NOON + timedelta(minutes=11))
    history = load_workflows(log, codec, shop, since)
    assert [workflow.name for workflow in history.workflows] == ["w10"]
    assert [logged.event.record for logged in history.workflows[0].events] == [
        "shop.Asked",
        "shop.Offered",
        "shop.Paid",
        "shop.Shipped",
    ]
    assert history.workflows == history_of(shop, lived).workflows[1:2]


def test_a_workflow_whose_beginning_is_gone_is_left_out_and_counted(shop: App) -> None:
    events, decided = asyncio.run(live(shop, [asks(1), asks(2)], Models(last=sensible), pays))
    gone = [(at, event) for at, event in events if event.id == "ask-1"]
    kept = [one for one in events if one not in gone]
    log, codec = on_a_log(shop, ([*kept[:1], *kept[:1], *kept[1:]], decided))
    history = load_workflows(log, codec, shop, Selection())
    assert (history.headless, [workflow.name for workflow in history.workflows]) == (1, ["w2"])


def test_a_sample_is_of_whole_workflows(shop: App) -> None:
    log, codec = on_a_log(shop, asyncio.run(live(shop, map(asks, range(6)), Models(last=sensible), pays)))
    few, more = (load_workflows(log, codec, shop, Selection(sample=size)).workflows for size in (2, 4))
    assert (len(few), len(more)) == (2, 4)
    assert {one.name for one in few} < {one.name for one in more}
    assert {len(one.events) for one in more} == {4}


def test_a_selection_by_offsets_is_refused_for_it_cuts_workflows(shop: App) -> None:
    log, codec = on_a_log(shop, asyncio.run(live(shop, [asks(1)], Models(last=sensible), pays)))
    with pytest.raises(UsageError, match="whole workflows"):
        load_workflows(log, codec, shop, Selection(offsets={0: (0, 1)}))


def test_a_segment_in_which_no_workflow_begins_says_so(shop: App) -> None:
    log, codec = on_a_log(shop, asyncio.run(live(shop, [asks(1)], Models(last=sensible), pays)))
    with pytest.raises(UsageError, match="no workflow of shop"):
        load_workflows(log, codec, shop, Selection(start=NOON + timedelta(days=1)))


def test_a_run_has_the_id_of_its_plan(shop: App, as_subject: Callable[[App], AppSubject]) -> None:
    subject, history = as_subject(shop), past(shop, asks(1))
    first = free_id_of(history, subject, CANDIDATE, Limits())
    assert free_id_of(past(shop, asks(1)), subject, CANDIDATE, Limits(usd_max=1.0)) == first
    others = [
        free_id_of(past(shop, asks(2)), subject, CANDIDATE, Limits()),
        free_id_of(history, subject, Candidate("acme/other"), Limits()),
        free_id_of(history, subject, CANDIDATE, Limits(), incumbent=True),
    ]
    assert first not in others


def stored(folder: Path, history: History, result: FreeResult) -> Path:
    report = free_data(history, CANDIDATE, result, Limits())
    return write_free_store(folder, result, report, "2026-09-22T12:00:00.000Z")


def test_every_workflow_is_a_row_under_each_arm_and_every_departure_one(shop: App, run: Run, tmp_path: Path) -> None:
    history = past(shop, asks(1, "a lot"), asks(2), asks(3, "a lot"))
    result = run(history, Models(next=tight, last=sensible), incumbent=True)
    database = stored(tmp_path, history, result)
    told = "workflow, arm, departed, departed_index, departed_boundary, departed_level, state_equal, facts_withheld"
    assert query(database, f"SELECT {told} FROM workflows ORDER BY arm, workflow")[1] == [
        ("w1", "candidate", True, 0, "quote", "action", False, 1),
        ("w2", "candidate", False, None, None, None, True, 0),
        ("w3", "candidate", True, 0, "quote", "action", False, 1),
        ("w1", "incumbent", False, None, None, None, True, 0),
        ("w2", "incumbent", False, None, None, None, True, 0),
        ("w3", "incumbent", False, None, None, None, True, 0),
    ]
    told = "workflow, arm, coordinates, then_type, now_type, then_payload->'price'"
    first = {pair.workflow.name: pair.candidate.departure for pair in result.pairs}
    assert query(database, f"SELECT {told} FROM departures ORDER BY workflow")[1] == [
        (name, "candidate", str(departure.at), "shop.Offered", "shop.Declined", "10")
        for name, departure in sorted(first.items())
        if departure is not None
    ]


def test_places_in_the_database_are_those_of_the_report(shop: App, run: Run, tmp_path: Path) -> None:
    history = past(shop, asks(1, "a lot"), asks(2), asks(3, "a lot"))
    result = run(history, Models(next=tight))
    (place,) = free_data(history, CANDIDATE, result, Limits())["by_place"]
    sql = 'SELECT boundary, stream, "index", level, then_type, now_type, workflows, state_changed FROM by_place'
    names = ("boundary", "stream", "index", "level", "then", "now", "workflows", "state_changed")
    assert query(stored(tmp_path, history, result), sql)[1] == [tuple(place[name] for name in names)]


def test_a_stored_free_run_says_what_it_said(shop: App, run: Run, tmp_path: Path) -> None:
    history = past(shop, asks(1, "a lot"), asks(2))
    result = run(history, Models(next=tight))
    database = stored(tmp_path, history, result)
    report = free_data(history, CANDIDATE, result, Limits())
    assert read_report(database) == report
    counts = "SELECT mode, verdict, planned, compared, calls, cost_usd FROM run"
    assert query(database, counts)[1] == [("free", "inconclusive", 2, 2, result.calls, result.cost_usd)]
    for table in ("run", "workflows", "departures"):
        parquet = query(database, f"FROM '{database.parent}/{table}.parquet'")
        assert parquet == query(database, f"FROM {table}")


def test_every_column_of_a_free_run_is_in_the_readme(shop: App, run: Run, tmp_path: Path) -> None:
    history = past(shop, asks(1))
    database = stored(tmp_path, history, run(history, Models(next=sensible)))
    text = (Path(__file__).parents[3] / "replay" / "README.md").read_text()
    for table in ("workflows", "departures"):
        for column in query(database, f"FROM {table} LIMIT 0")[0]:
            of_a_side = f"…_{column.removeprefix('then_').removeprefix('now_')}"
            assert f"`{column}`" in text or f"`{of_a_side}`" in text, (table, column)


def shown(*arguments: str) -> Result:
    return CliRunner().invoke(driftline, ["report", *arguments])


@pytest.fixture
def home(shop: App, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home folder of a user who has made a free run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DRIFTLINE_HOME", str(tmp_path))
    history = past(shop, asks(1, "a lot"), asks(2))
    stored(tmp_path / "runs" / "lived", history, run(history, Models(next=tight)))
    return tmp_path


def test_a_stored_free_run_is_shown_again(home: Path) -> None:
    told = shown("lived")
    assert told.exit_code == 0, told.exception
    assert told.output.startswith("INCONCLUSIVE  shop: acme/last → acme/next, free\n")
    assert "w1 departs at decision 1 (quote/shop.Asked)" in told.output
    assert json.loads(shown("--json").output)["mode"] == "free"


@pytest.mark.parametrize("option", ["--html", "--markdown", "--baseline"])
def test_a_free_run_has_no_page_and_says_so(home: Path, option: str) -> None:
    error = shown("lived", option, "lived").exception
    assert isinstance(error, UsageError)
    assert "a run in mode free has no page" in str(error)
    assert not (home / "lived").exists()
