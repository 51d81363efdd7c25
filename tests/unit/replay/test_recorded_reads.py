"""Replays of decisions that were made with tools: no tool is asked, and what one told then is quoted by what it was
asked."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from driftline.consumers import App, Input, Tool
from driftline.consumers.deciding import drive
from driftline.consumers.models.answers import CallFailed, ProviderCall
from driftline.consumers.models.sim import answer_sim
from driftline.consumers.proposing import Answer, ProposalRequest, Proposer, ProposerFailure, ToolCall
from driftline.detectors import Moved
from driftline.examples.renewals.app import app as renewals
from driftline.log import Coordinates
from driftline.producers.renewals import synthetic_renewals
from driftline.replay import (
    AppSubject,
    Candidate,
    ForcedReplay,
    ForcedResult,
    Ledger,
    Limits,
    LoggedDecision,
    Segment,
    Spending,
)
from driftline.replay.diagnosing import BatchDiagnosis
from driftline.replay.diagnosis_plan import Diagnosing
from driftline.replay.diagnosis_result import DiagnosisResult
from driftline.replay.free import FreeReplay, FreeResult
from driftline.replay.rounds import rounds_of
from driftline.replay.shadow import ShadowReplay
from driftline.replay.testing import segment_of
from driftline.replay.workflows import History, build_history
from driftline.schemas import Attempt, Codec, Contract, Contracts, Decision, InputCoordinates, Registry
from driftline.schemas.names import DECISION

NOON = datetime(2026, 9, 22, 12, tzinfo=UTC)
EVENTS = 400
SIM, INFLATED = Candidate("sim/renewals"), Candidate("sim/renewals-inflated")
STILL = Moved(actions=False, changed_and_accepted=0, text=None, same_text=0, batch=12)


class Customer(BaseModel):
    """What the tools are asked with."""

    customer_id: str


def tickets(customer: Customer) -> Mapping[str, Any]:
    return {"customer": customer.customer_id, "open": len(customer.customer_id)}


def never(customer: Customer) -> Mapping[str, Any]:
    raise AssertionError("a replay asks no tool")


def with_tool(answer: Callable[[Customer], Any], *names: str) -> App:
    """The example app, whose proposer may read."""
    tools = [Tool(name, f"The {name} of a customer.", Customer, answer) for name in names or ("tickets",)]
    return replace(renewals, boundaries=[replace(renewals.boundaries[0], tools=tools)])


class Simulated:
    """The simulator without LiteLLM, tools included; counts and may fail at a chosen request."""

    def __init__(self, dies_at: int = 0) -> None:
        self.asked: list[ProposalRequest] = []
        self.dies_at = dies_at

    async def propose(self, request: ProposalRequest) -> Answer:
        self.asked.append(request)
        if len(self.asked) == self.dies_at:
            raise Killed
        await asyncio.sleep(0)
        tools = request.tools if request.may_ask else ()
        name = request.model.partition("/")[2]
        call = ProviderCall(name, tuple(request.messages), request.key, request.parameters, 60.0, tools)
        try:
            own = await answer_sim(call)
        except CallFailed as failed:
            return Answer(None, failed.failure, failed.detail)
        return Answer(own.text, usage=own.usage, cost_usd=0.01, tool_calls=own.tool_calls)

    @property
    def rounds(self) -> list[int]:
        """Of each request: how often the model was told something before it."""
        return [sum(message["role"] == "tool" for message in request.messages) for request in self.asked]


class Killed(Exception):
    """The end of a process, as far as a run can tell."""


Lived = tuple[Segment, History]


def lived(count: int = EVENTS) -> Lived:
    """What the app with its tool made of renewals: its decisions, and its workflows."""
    app, model = with_tool(tickets), Simulated()
    events, decided = [], {}
    for offset, event in enumerate(synthetic_renewals(count, seed=11)):
        at = InputCoordinates(
            topic=app.topics.events, partition=0, offset=offset, event_id=event.id, event_time=event.time
        )
        row = {} if app.fold is None else app.fold.function({}, event)
        given = Input(app.name, app.by_stream[event.type], event, at, row, 1, 11)
        decision = asyncio.run(drive(given, model)).decision(event.time)
        place = Coordinates(app.topics.decisions, 0, offset)
        decided[0, offset] = LoggedDecision(place, decision)
        events.append((Coordinates(app.topics.events, 0, offset), event))
    segment = segment_of([logged.decision for logged in decided.values()])
    return segment, build_history(app, [[one] for one in events], decided)


@pytest.fixture(scope="module")
def history() -> Lived:
    return lived()


@pytest.fixture(scope="module")
def segment(history: Lived) -> Segment:
    return history[0]


@pytest.fixture
def subject(as_subject: Callable[[App], AppSubject]) -> AppSubject:
    """Today's rules, with a tool that must not be asked."""
    return as_subject(with_tool(never))


Forced = Callable[..., ForcedResult]


@pytest.fixture
def forced(ledger: Ledger, subject: AppSubject) -> Forced:
    """Run a segment in mode `forced`."""

    def run(segment: Segment, proposer: Proposer, candidate: Candidate = SIM, **given: Any) -> ForcedResult:
        rules, store = given.pop("subject", subject), given.pop("ledger", ledger)
        spending = given.pop("spending", None)
        limits = Limits(**given)
        replay = ForcedReplay("run", segment, rules, candidate, proposer, store, limits, lambda: NOON, spending)
        return asyncio.run(replay.run())

    return run


def same(one: ForcedResult, other: ForcedResult) -> bool:
    """Whether two runs have found the same, whoever paid."""
    return replace(one, from_ledger=0) == replace(other, from_ledger=0)


def test_the_history_was_made_with_the_tool(segment: Segment) -> None:
    """Else the tests below would show nothing."""
    for logged in segment.decisions:
        first = logged.decision.attempts[0]
        assert [(read.name, read.status) for read in first.reads] == [("tickets", "ok")]


def test_a_forced_replay_asks_the_model_twice_a_decision_and_no_tool(segment: Segment, forced: Forced) -> None:
    model = Simulated()
    result = forced(segment, model, read_on=True)
    assert (result.verdict, result.coverage) == ("equivalent", 1.0)
    assert sorted(model.rounds) == [0] * EVENTS + [1] * EVENTS
    reads = [read for pair in result.pairs for read in pair.candidate.answer.reads]
    assert [(read.name, read.status, read.round) for read in reads] == [("tickets", "ok", 1)] * EVENTS
    then = {read.answer for logged in segment.decisions for read in logged.decision.attempts[0].reads}
    assert {read.answer for read in reads} == then


def test_a_forced_replay_with_tools_finds_a_candidate_that_differs(segment: Segment, forced: Forced) -> None:
    result = forced(segment, Simulated(), INFLATED)
    assert (result.verdict, result.stopped_because, result.coverage) == ("diverged", "alarm", 1.0)


class Once:
    """Hands all decisions out at once."""

    def __init__(self, segment: Segment) -> None:
        self.left = list(segment.decisions)

    def poll(self, timeout_s: float) -> Sequence[LoggedDecision]:
        came, self.left = self.left, []
        return came


def test_a_shadow_asks_no_tool(segment: Segment, subject: AppSubject, ledger: Ledger) -> None:
    limits, model = Limits(calls_max=60, alpha=1e-4, delta=1e-3), Simulated()
    given = ("run", "renewals", Once(segment), subject, SIM, model, ledger, limits, lambda: NOON)
    result = asyncio.run(ShadowReplay(*given).run())
    assert (len(result.pairs), result.coverage) == (60, 1.0)
    assert sorted(model.rounds) == [0] * 60 + [1] * 60


def free(history: History, subject: AppSubject, ledger: Ledger, model: Proposer, **given: Any) -> FreeResult:
    candidate = given.pop("candidate", SIM)
    replay = FreeReplay("run", history, subject, candidate, model, ledger, Limits(**given), lambda: NOON, None, False)
    return asyncio.run(replay.run())


def test_a_free_replay_asks_no_tool(history: Lived, subject: AppSubject, ledger: Ledger) -> None:
    model = Simulated()
    result = free(history[1], subject, ledger, model, read_on=True)
    assert (len(result.pairs), result.coverage) == (EVENTS, 1.0)
    assert {1, 0} <= set(model.rounds)


def test_a_workflow_in_which_a_call_has_no_answer_on_the_log_ends_early(
    history: Lived, subject: AppSubject, ledger: Ledger
) -> None:
    stray = Candidate("sim/renewals", parameters={"sim_stray_reads": 1})
    result = free(history[1], subject, ledger, Simulated(), candidate=stray)
    assert {pair.candidate.run.ended for pair in result.pairs} == {"unrecorded_read"}
    assert (result.verdict, result.stopped_because, result.coverage) == ("inconclusive", "coverage", 0.0)


def diagnose(segment: Segment, subject: AppSubject, ledger: Ledger, model: Proposer) -> DiagnosisResult:
    batch = replace(segment, decisions=segment.decisions[:12])
    incumbent = Candidate(incumbent=True)
    asked = Diagnosing("run", batch, subject, incumbent, INFLATED, 1, STILL, Limits(concurrency=1))
    return asyncio.run(BatchDiagnosis(asked, model, ledger, lambda: NOON).run())


def test_a_diagnosis_asks_no_tool(segment: Segment, subject: AppSubject, ledger: Ledger) -> None:
    model = Simulated()
    result = diagnose(segment, subject, ledger, model)
    assert (result.coverage, result.paid_calls) == (1.0, 24)
    assert model.rounds == [0, 1] * 24


def test_a_diagnosis_that_is_killed_between_two_rounds_pays_only_what_is_missing(
    segment: Segment, subject: AppSubject, ledger: Ledger, tmp_path: Path
) -> None:
    other = Ledger(tmp_path / "other.sqlite")
    whole = diagnose(segment, subject, other, Simulated())
    other.close()
    with pytest.raises(Killed):
        diagnose(segment, subject, ledger, Simulated(dies_at=10))
    again = Simulated()
    result = diagnose(segment, subject, ledger, again)
    assert len(again.asked) == 48 - 9
    assert replace(result, from_ledger=0) == whole


@pytest.mark.parametrize("dies_at", [1, 2, 7, 100, 800])
def test_a_run_that_is_killed_pays_only_the_rounds_that_are_missing_and_finds_the_same(
    dies_at: int, segment: Segment, forced: Forced, tmp_path: Path
) -> None:
    """At an even request it is killed between two rounds of one attempt."""
    first, other = Simulated(), Ledger(tmp_path / "other.sqlite")
    whole = forced(segment, first, concurrency=1, read_on=True, ledger=other)
    other.close()
    with pytest.raises(Killed):
        forced(segment, Simulated(dies_at), concurrency=1, read_on=True)
    again = Simulated()
    assert same(forced(segment, again, concurrency=1, read_on=True), whole)
    assert len(again.asked) == len(first.asked) - (dies_at - 1)
    assert again.rounds[0] == (dies_at - 1) % 2


def test_the_same_run_again_asks_nobody(segment: Segment, forced: Forced) -> None:
    first, again = Simulated(), Simulated()
    assert same(forced(segment, first, INFLATED), forced(segment, again, INFLATED))
    assert (len(first.asked) > 0, again.asked) == (True, [])


def test_what_is_retired_is_asked_anew_round_by_round(
    segment: Segment, forced: Forced, subject: AppSubject, ledger: Ledger
) -> None:
    forced(segment, Simulated(), calls_max=5)
    keys = []
    for logged in segment.decisions:
        request = SIM.request(logged.decision, subject, "run", 0)
        key = SIM.key(logged.decision, subject, request)
        rounds = rounds_of(logged.decision, subject, request, key)
        rounds.carry(ledger.get)
        keys += rounds.keys
    assert ledger.retire(keys) == 10
    again = Simulated()
    forced(segment, again, calls_max=5)
    assert len(again.asked) == 10


def test_a_limit_of_calls_counts_answers_and_leaves_no_round_unanswered_in_a_free_replay(
    history: Lived, subject: AppSubject, ledger: Ledger
) -> None:
    model = Simulated()
    free(history[1], subject, ledger, model, calls_max=10)
    begun = model.rounds.count(0)
    assert 0 < begun <= 10
    assert len(model.asked) - begun >= begun


def test_forced_and_free_share_the_rounds_that_were_paid(
    history: Lived, subject: AppSubject, forced: Forced, ledger: Ledger
) -> None:
    model = Simulated()
    forced(history[0], model, read_on=True)
    paid = len(model.asked)
    free(history[1], subject, ledger, model, read_on=True)
    later = [request for request in model.asked[paid:] if request.key.attempt == 1]
    assert later == []


def test_a_budget_is_asked_for_every_round(segment: Segment, forced: Forced) -> None:
    admitted: list[ProposalRequest] = []

    def room(logged: LoggedDecision, request: ProposalRequest) -> float:
        admitted.append(request)
        return 0.01

    model, spending = Simulated(), Spending(1_000.0, room=room)
    forced(segment, model, calls_max=20, spending=spending)
    assert len(model.asked) == 40
    assert {id(request) for request in admitted} == {id(request) for request in model.asked}
    assert spending.paid_usd == pytest.approx(0.4)


def test_a_budget_that_ends_between_two_rounds_leaves_the_first_in_the_ledger(
    segment: Segment, forced: Forced
) -> None:
    model = Simulated()
    short = Spending(0.05, room=lambda logged, request: 0.01)
    result = forced(segment, model, spending=short, concurrency=1)
    assert (len(model.asked), len(result.pairs), result.stopped_because) == (5, 2, "budget_ended")
    more = Simulated()
    ample = Spending(0.07, 0.05, room=lambda logged, request: 0.01)
    again = forced(segment, more, spending=ample, concurrency=1)
    assert (more.rounds, len(again.pairs)) == ([1, 0], 3)


@pytest.mark.parametrize("limit", [0.005, 0.05])
def test_what_was_paid_of_an_attempt_is_never_more_than_the_budget(
    limit: float, segment: Segment, forced: Forced
) -> None:
    model, spending = Simulated(), Spending(limit, room=lambda logged, request: 0.01)
    forced(segment, model, spending=spending)
    assert spending.paid_usd == pytest.approx(0.01 * len(model.asked))
    assert spending.paid_usd <= limit


@pytest.mark.parametrize("budget", [0.205, 0.3])
def test_where_a_budget_ends_does_not_depend_on_what_came_back_when(
    budget: float, segment: Segment, forced: Forced, tmp_path: Path
) -> None:
    class Late(Simulated):
        def __init__(self, seed: int) -> None:
            super().__init__()
            self.random = random.Random(seed)

        async def propose(self, request: ProposalRequest) -> Answer:
            for _ in range(self.random.randrange(1, 40)):
                await asyncio.sleep(0)
            return await super().propose(request)

    seen = set()
    for seed in range(4):
        spending, ledger = Spending(budget, room=lambda logged, request: 0.02), Ledger(tmp_path / f"{seed}.sqlite")
        result = forced(segment, Late(seed), INFLATED, spending=spending, ledger=ledger)
        seen.add((tuple(pair.index for pair in result.pairs), result.judged.e_value, result.stopped_because))
    assert len(seen) == 1


def test_a_call_that_the_log_has_no_answer_to_costs_coverage_and_is_named(segment: Segment, forced: Forced) -> None:
    model = Simulated()
    result = forced(segment, model, Candidate("sim/renewals", parameters={"sim_stray_reads": 1}))
    assert (result.verdict, result.stopped_because, result.coverage) == ("inconclusive", "coverage", 0.0)
    assert set(model.rounds) == {0}, "what was not told cannot be answered"
    for pair in result.pairs:
        arguments = f'{{"customer_id":"{pair.logged.decision.workflow}-other"}}'
        detail = f"the log has no answer of the tool tickets to {arguments}"
        answer = pair.candidate.answer
        assert (answer.failure, answer.failure_detail) == (ProposerFailure.NOT_RECORDED, detail)
        assert [read.status for read in answer.reads] == ["unrecorded"]


def test_a_few_calls_without_an_answer_leave_a_verdict(segment: Segment, forced: Forced) -> None:
    stray = Candidate("sim/renewals-inflated", parameters={"sim_stray_reads": 0.05})
    result = forced(segment, Simulated(), stray, order_seed=1)
    assert (result.verdict, result.stopped_because) == ("diverged", "alarm")
    assert 0.9 <= result.coverage < 1.0


def as_version_2(segment: Segment) -> Segment:
    """The decisions as the version before wrote them: reads had no place for what was answered."""
    now = Contracts.load()
    then = Contracts([Contract(DECISION, now[DECISION].versions[:2])])
    registry = Registry("mock://reads")
    writer, reader = Codec(registry, then), Codec(registry, now)
    found = []
    for logged in segment.decisions:
        value = logged.decision.model_dump()
        for attempt in value["attempts"]:
            for read in attempt["reads"]:
                read.pop("answer", None), read.pop("round", None)
        written = writer.encode("renewals.decisions", DECISION, value)
        found.append(replace(logged, decision=Decision.model_validate(reader.decode(written).value)))
    return replace(segment, decisions=found)


def test_decisions_that_did_not_record_what_tools_answered_cost_coverage(segment: Segment, forced: Forced) -> None:
    older = as_version_2(segment)
    reads = [read for logged in older.decisions for attempt in logged.decision.attempts for read in attempt.reads]
    assert {read.answer for read in reads} == {None}
    assert {read.name for read in reads} == {"tickets"}
    result = forced(older, Simulated())
    assert (result.verdict, result.stopped_because, result.coverage) == ("inconclusive", "coverage", 0.0)


class Asks:
    """Asks tools round after round, then says what it was told."""

    def __init__(self, *rounds: Sequence[tuple[str, str]]) -> None:
        self.rounds = rounds
        self.asked: list[ProposalRequest] = []

    async def propose(self, request: ProposalRequest) -> Answer:
        self.asked.append(request)
        told = [message for message in request.messages if message["role"] == "tool"]
        done = sum(1 for message in request.messages if message.get("tool_calls"))
        if done < len(self.rounds) and request.may_ask:
            calls = [
                ToolCall(f"{done}-{index}", name, json.dumps({"customer_id": who}))
                for index, (name, who) in enumerate(self.rounds[done])
            ]
            return Answer(None, tool_calls=tuple(calls))
        return Answer(json.dumps([message["content"] for message in told]))


class Counting:
    """A tool whose every answer is another."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, customer: Customer) -> str:
        self.calls += 1
        return f"{customer.customer_id} at {self.calls}"


NAMES = ("tickets", "invoices")


def decided_by(model: Proposer, **changes: Any) -> Segment:
    """One decision of a model's own, told by tools whose every answer is another."""
    app = with_tool(Counting(), *NAMES)
    boundary = replace(app.boundaries[0], max_attempts=1, **changes)
    app = replace(app, boundaries=[boundary])
    (event,) = synthetic_renewals(1, seed=11)
    at = InputCoordinates(topic=app.topics.events, partition=0, offset=0, event_id=event.id, event_time=event.time)
    given = Input(app.name, app.by_stream[event.type], event, at, {}, 1)
    return segment_of([asyncio.run(drive(given, model)).decision(event.time)])


def quoted(segment: Segment, model: Proposer, forced: Forced, as_subject: Callable[[App], AppSubject]) -> Any:
    """What a candidate was told of the one decision; its failure where it came to nothing."""
    subject = as_subject(with_tool(never, *NAMES))
    (pair,) = forced(segment, model, Candidate("acme/next"), subject=subject).pairs
    return json.loads(pair.candidate.answer.text or "null") or pair.candidate.answer.failure


AsSubject = Callable[[App], AppSubject]


def test_answers_are_found_by_what_was_asked_and_never_by_position(forced: Forced, as_subject: AsSubject) -> None:
    log = decided_by(Asks([("tickets", "A"), ("tickets", "B")], [("invoices", "A")]))
    (attempt,) = log.decisions[0].decision.attempts
    then = {read.name + read.arguments: json.loads(read.answer or "") for read in attempt.reads}
    other = Asks([("invoices", "A")], [("tickets", "B"), ("tickets", "A")])
    assert quoted(log, other, forced, as_subject) == [
        json.dumps(then[key])
        for key in ('invoices{"customer_id":"A"}', 'tickets{"customer_id":"B"}', 'tickets{"customer_id":"A"}')
    ]


def test_a_tool_of_another_name_has_told_nothing(forced: Forced, as_subject: AsSubject) -> None:
    log = decided_by(Asks([("tickets", "A")]))
    assert quoted(log, Asks([("invoices", "A")]), forced, as_subject) == "not_recorded"


def test_the_same_call_again_is_told_the_next_answer_and_then_the_last_one(
    forced: Forced, as_subject: AsSubject
) -> None:
    log = decided_by(Asks([("tickets", "A")], [("tickets", "A")]))
    told = quoted(log, Asks([("tickets", "A")], [("tickets", "A")], [("tickets", "A")]), forced, as_subject)
    assert told == ['"A at 1"', '"A at 2"', '"A at 2"']


def test_of_a_long_call_that_the_log_has_no_answer_to_a_person_is_told_the_beginning(
    forced: Forced, as_subject: AsSubject
) -> None:
    log, subject = decided_by(Asks([("tickets", "A")])), as_subject(with_tool(never, *NAMES))
    (pair,) = forced(log, Asks([("tickets", "B" * 5_000)]), Candidate("acme/next"), subject=subject).pairs
    detail = pair.candidate.answer.failure_detail
    assert detail.startswith('the log has no answer of the tool tickets to {"customer_id":"BBB')
    assert detail.endswith("B…")
    assert len(detail) < 300


def test_a_refused_call_is_refused_again_whatever_the_log_says(forced: Forced, as_subject: AsSubject) -> None:
    log = decided_by(Asks([("tickets", "A")]))
    (told,) = quoted(log, Asks([("nowhere", "A")]), forced, as_subject)
    assert json.loads(told)["status"] == "unknown_tool"


def test_a_tool_that_failed_then_is_quoted_to_have_failed(forced: Forced, as_subject: AsSubject) -> None:
    log = decided_by(Asks([("tickets", "A")]), tools=with_tool(never, *NAMES).boundaries[0].tools)
    (told,) = quoted(log, Asks([("tickets", "A")]), forced, as_subject)
    assert json.loads(told) == {"status": "failed", "message": "the tool failed: AssertionError"}


def test_what_an_attempt_was_told_that_came_to_nothing_is_not_quoted_where_a_later_one_was_told(
    forced: Forced, as_subject: AsSubject
) -> None:
    """The candidate is held against the later attempt, and is told what that one was told."""
    (logged,) = decided_by(Asks([("tickets", "A")])).decisions
    (attempt,) = logged.decision.attempts
    (read,) = attempt.reads
    early = read.model_copy(update={"answer": '"A too early"'})
    lost = Attempt(number=1, failure="timeout", rejections=attempt.rejections, reads=(early,))
    later = attempt.model_copy(update={"number": 2})
    log = segment_of([logged.decision.model_copy(update={"attempts": (lost, later)})])
    assert quoted(log, Asks([("tickets", "A")], [("tickets", "A")]), forced, as_subject) == ['"A at 1"'] * 2


def test_of_a_decision_that_was_all_lost_what_tools_told_is_still_quoted(
    forced: Forced, as_subject: AsSubject
) -> None:
    (logged,) = decided_by(Asks([("tickets", "A"), ("tickets", "B")])).decisions
    (attempt,) = logged.decision.attempts
    one, other = attempt.reads
    lost = Attempt(number=1, failure="timeout", rejections=attempt.rejections, reads=(one,))
    later = attempt.model_copy(update={"number": 2, "reads": (other,)})
    log = segment_of([logged.decision.model_copy(update={"attempts": (lost, later)})])
    assert quoted(log, Asks([("tickets", "A"), ("tickets", "B")]), forced, as_subject) == ['"A at 1"', '"B at 2"']


def test_a_lower_limit_of_today_is_asked_for_anew_and_not_answered_by_what_a_higher_one_brought(
    segment: Segment, forced: Forced, as_subject: AsSubject
) -> None:
    """The last round says that no more may be asked: another question, though the chat is the same."""
    log = decided_by(Asks([("tickets", "A")]))
    asking = Asks([("tickets", "A")], [("tickets", "A")])
    assert len(quoted(log, asking, forced, as_subject)) == 2
    app = with_tool(never, *NAMES)
    lower = as_subject(replace(app, boundaries=[replace(app.boundaries[0], reads_max=1)]))
    (pair,) = forced(log, asking, Candidate("acme/next"), subject=lower).pairs
    assert json.loads(pair.candidate.answer.text or "") == ['"A at 1"']
