"""What a model asks tools, in the engine: what is asked, refused and told, and what of it is on the record."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

from driftline.consumers import Answer, Input, Outcome, ProposalRequest, ProposerFailure, Tool
from driftline.consumers.boundary import BoundBoundary
from driftline.consumers.deciding import RECORD_BYTES_MAX, drive
from driftline.consumers.proposing import FailedCall, ToolCall
from driftline.consumers.tools import ARGUMENTS_BYTES_MAX, REFUSALS_MAX, read_messages
from driftline.log import decision_record
from driftline.schemas import (
    Codec,
    Contracts,
    Decision,
    Read,
    Registry,
    Usage,
    UsageError,
    Verdict,
    canonical_json,
    content_hash,
)
from driftline.schemas.names import DECISION

GOOD = '{"type": "shop.RefundGranted", "payload": {"order": "A1", "amount": 40, "count": 1, "reason": "late"}}'
TOO_MUCH = GOOD.replace("40", "90")
NOW = datetime(2026, 11, 21, tzinfo=UTC)

Bind = Callable[..., BoundBoundary]
Give = Callable[..., Input]
Played = tuple[Outcome, list[ProposalRequest]]


class Order(BaseModel):
    """What the shop's tools are asked with."""

    order: str
    days: int = Field(default=30, ge=1, le=365)


class Scripted:
    """Gives its answers one after the other, and keeps what it was asked."""

    def __init__(self, *answers: Answer | str) -> None:
        self.left = [Answer(answer) if isinstance(answer, str) else answer for answer in answers]
        self.asked: list[ProposalRequest] = []

    async def propose(self, request: ProposalRequest) -> Answer:
        self.asked.append(request)
        return self.left.pop(0)


def payments(order: Order) -> Mapping[str, Any]:
    return {"order": order.order, "paid": 40.0, "days": order.days}


PAYMENTS = Tool("payments", "What was paid for an order.", Order, payments)
STOCK = Tool("stock", "How many are left.", Order, lambda order: 7)


def call(name: str = "payments", arguments: Any = None, id: str = "c1") -> ToolCall:
    given = {"order": "A1"} if arguments is None else arguments
    return ToolCall(id, name, given if isinstance(given, str) else json.dumps(given))


def asks(*calls: ToolCall, **answer: Any) -> Answer:
    return Answer(None, tool_calls=calls, **answer)


def play(given: Input, *answers: Answer | str) -> Played:
    model = Scripted(*answers)
    outcome = asyncio.run(drive(given, model))
    assert not model.left, "the engine ended before the script"
    return outcome, model.asked


@pytest.fixture
def shop(bound: Bind, given: Give) -> Callable[..., Input]:
    """An input of a boundary with tools."""

    def make(*tools: Tool, **changes: Any) -> Input:
        return given(bound(tools=tools or (PAYMENTS, STOCK), **changes))

    return make


def told(request: ProposalRequest) -> list[Any]:
    """What tools said, as the model is told it."""
    return [json.loads(message["content"]) for message in request.messages if message["role"] == "tool"]


def reads_of(outcome: Outcome) -> list[tuple[str, str, str]]:
    return [(read.name, read.status, read.arguments) for attempt in outcome.attempts for read in attempt.reads]


def test_a_model_that_asks_is_told_and_answers(shop: Callable[..., Input]) -> None:
    outcome, (first, second) = play(shop(), asks(call()), GOOD)
    assert outcome.verdict is Verdict.ACCEPTED
    assert (len(outcome.attempts), first.key) == (1, second.key)
    called, said = second.messages[len(first.messages) :]
    function = {"name": "payments", "arguments": '{"days":30,"order":"A1"}'}
    assert called == {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "c1", "type": "function", "function": function}],
    }
    answer = '{"days":30,"order":"A1","paid":40}'
    assert said == {"role": "tool", "tool_call_id": "c1", "name": "payments", "content": answer}


def test_the_model_is_shown_each_tool_with_the_schema_of_its_arguments(shop: Callable[..., Input]) -> None:
    _, (request,) = play(shop(), GOOD)
    payments, stock = (tool["function"] for tool in request.tools)
    assert (payments["name"], stock["name"]) == ("payments", "stock")
    assert payments["description"] == "What was paid for an order."
    assert payments["parameters"] == Order.model_json_schema()
    assert request.may_ask


def test_the_record_holds_every_read_of_every_round(shop: Callable[..., Input]) -> None:
    outcome, _ = play(shop(), asks(call(), call("stock", id="c2")), asks(call("stock", {"order": "B2"}, "c3")), GOOD)
    (attempt,) = outcome.decision(NOW).attempts
    found = [(read.call_id, read.name, read.arguments, read.answer, read.round) for read in attempt.reads]
    assert found == [
        ("c1", "payments", '{"days":30,"order":"A1"}', '{"days":30,"order":"A1","paid":40}', 1),
        ("c2", "stock", '{"days":30,"order":"A1"}', "7", 1),
        ("c3", "stock", '{"days":30,"order":"B2"}', "7", 2),
    ]
    for read in attempt.reads:
        assert read.status == "ok"
        assert read.arguments_hash == content_hash(read.arguments)
        assert read.answer_hash == content_hash(read.answer or "")


def test_an_attempt_has_taken_what_all_its_rounds_have_taken(shop: Callable[..., Input]) -> None:
    asking = asks(call(), usage=Usage(prompt_tokens=10, completion_tokens=2), cost_usd=0.25, latency_ms=100.0)
    saying = Answer(GOOD, usage=Usage(prompt_tokens=30, completion_tokens=5), cost_usd=0.5, latency_ms=40.0)
    (attempt,) = play(shop(), asking, saying)[0].attempts
    assert (attempt.usage.prompt_tokens, attempt.usage.completion_tokens) == (40, 7)
    assert (attempt.cost_usd, attempt.latency_ms) == (0.75, 140.0)


def test_what_one_round_does_not_tell_is_not_known_of_the_attempt(shop: Callable[..., Input]) -> None:
    asking = asks(call(), usage=Usage(prompt_tokens=10), cost_usd=0.25)
    saying = Answer(GOOD, usage=Usage(prompt_tokens=30, completion_tokens=5))
    (attempt,) = play(shop(), asking, saying)[0].attempts
    assert (attempt.usage.prompt_tokens, attempt.usage.completion_tokens, attempt.cost_usd) == (40, None, None)


def test_calls_past_the_limit_are_refused_and_the_model_has_to_answer(shop: Callable[..., Input]) -> None:
    calls = [call(id=f"c{number}") for number in range(3)]
    outcome, (first, second) = play(shop(reads_max=2), asks(*calls), GOOD)
    assert [status for _, status, _ in reads_of(outcome)] == ["ok", "ok", "limit"]
    assert told(second)[2]["status"] == "limit"
    assert (first.may_ask, second.may_ask) == (True, False)
    assert second.tools == first.tools


def test_the_limit_counts_the_calls_of_all_rounds_of_an_attempt(shop: Callable[..., Input]) -> None:
    outcome, asked = play(shop(reads_max=3), asks(call(), call(id="c2")), asks(call(), call(id="c2")), GOOD)
    assert [status for _, status, _ in reads_of(outcome)] == ["ok", "ok", "ok", "limit"]
    assert [request.may_ask for request in asked] == [True, True, False]


def test_a_model_that_asks_where_it_has_to_answer_has_answered_nothing(shop: Callable[..., Input]) -> None:
    outcome, asked = play(shop(reads_max=1, max_attempts=1), asks(call()), asks(call()))
    (attempt,) = outcome.attempts
    assert (attempt.failure, attempt.raw_response, len(attempt.reads)) == (ProposerFailure.EMPTY, None, 1)
    assert attempt.rejections[0].message == "the model asked tools where it had to answer"
    assert len(asked) == 2


def test_text_that_comes_with_calls_where_it_has_to_answer_is_the_answer(shop: Callable[..., Input]) -> None:
    outcome, _ = play(shop(reads_max=1), asks(call()), Answer(GOOD, tool_calls=(call(),)))
    assert outcome.verdict is Verdict.ACCEPTED


def test_without_tools_nothing_is_shown_and_a_call_is_no_answer(bound: Bind, given: Give) -> None:
    outcome, (request,) = play(given(bound(max_attempts=1)), asks(call()))
    assert (request.tools, request.may_ask) == ((), False)
    assert (outcome.attempts[0].failure, outcome.attempts[0].reads) == ("empty", ())


def test_a_tool_that_there_is_not_is_told_with_those_that_there_are(shop: Callable[..., Input]) -> None:
    outcome, (_, second) = play(shop(), asks(call("refunds")), GOOD)
    assert reads_of(outcome) == [("refunds", "unknown_tool", '{"order":"A1"}')]
    message = "there is no such tool; there is payments, stock"
    assert told(second) == [{"status": "unknown_tool", "message": message}]


SECRET = "4111111111111111"


def test_bad_arguments_are_told_field_by_field_without_what_was_written(shop: Callable[..., Input]) -> None:
    outcome, (_, second) = play(shop(), asks(call(arguments={"order": 4111111111111111, "days": SECRET})), GOOD)
    (answer,) = told(second)
    assert answer["status"] == "bad_arguments"
    order, days = answer["message"].split("; ")
    assert order == "order: Input should be a valid string"
    assert days == "days: Input should be less than or equal to 365"
    assert SECRET not in answer["message"]
    assert outcome.verdict is Verdict.ACCEPTED


@pytest.mark.parametrize(
    "arguments",
    ["", "[]", "null", '"A1"', "{", "NaN", '{"order": "A1", "order": "B2"}', '{"order": 1e999}', "x" * 40_000],
)
def test_arguments_that_are_no_object_are_told_so(arguments: str, shop: Callable[..., Input]) -> None:
    outcome, (_, second) = play(shop(), asks(call(arguments=arguments)), GOOD)
    assert told(second)[0]["status"] == "bad_arguments"
    assert outcome.verdict is Verdict.ACCEPTED


def test_a_call_without_arguments_is_a_call_with_none(shop: Callable[..., Input]) -> None:
    class Nothing(BaseModel):
        pass

    outcome, (_, second) = play(shop(Tool("clock", "", Nothing, lambda _: "noon")), asks(call("clock", "")), GOOD)
    assert (told(second), reads_of(outcome)) == (["noon"], [("clock", "ok", "{}")])


def test_the_same_arguments_in_other_words_are_the_same_call(shop: Callable[..., Input]) -> None:
    """Order, spaces, numbers and defaults do not tell calls apart: a recorded answer is found by what is meant."""
    written = ['{"order":"A1"}', '{ "days": 30.0, "order": "A1" }', '{"order": "\\u0041\\u0031", "days": "30"}']
    outcome, _ = play(shop(), asks(*(call(arguments=one, id=str(index)) for index, one in enumerate(written))), GOOD)
    assert {read.arguments for read in outcome.attempts[0].reads} == {'{"days":30,"order":"A1"}'}


def test_arguments_are_told_back_under_the_names_that_the_schema_has(shop: Callable[..., Input]) -> None:
    class Aliased(BaseModel):
        order_id: str = Field(alias="orderId")

    tool = Tool("orders", "", Aliased, lambda asked: asked.order_id)
    outcome, (_, second) = play(shop(tool), asks(call("orders", {"orderId": "A1"})), GOOD)
    assert reads_of(outcome) == [("orders", "ok", '{"orderId":"A1"}')]
    assert told(second) == ["A1"]


def test_a_strict_tool_takes_what_json_writes_as_text(shop: Callable[..., Input]) -> None:
    class Strict(BaseModel):
        model_config = ConfigDict(strict=True)
        day: date

    tool = Tool("calendar", "", Strict, lambda asked: asked.day.isoformat())
    _, (_, second) = play(shop(tool), asks(call("calendar", {"day": "2026-11-21"})), GOOD)
    assert told(second) == ["2026-11-21"]


def test_a_check_of_the_apps_own_that_fails_costs_no_decision_and_is_told_by_its_kind(
    shop: Callable[..., Input],
) -> None:
    class Checked(BaseModel):
        order: str

        @field_validator("order")
        @classmethod
        def known(cls, value: str) -> str:
            raise KeyError(SECRET)

    _, (_, second) = play(shop(Tool("orders", "", Checked, payments)), asks(call("orders")), GOOD)
    (answer,) = told(second)
    assert answer == {"status": "bad_arguments", "message": "the arguments cannot be read: KeyError"}


def test_the_second_attempt_is_told_what_the_first_was_told_by_tools(shop: Callable[..., Input]) -> None:
    outcome, (_, second, third) = play(shop(), asks(call()), TOO_MUCH, GOOD)
    assert list(third.messages[: len(second.messages)]) == list(second.messages)
    assert [message["role"] for message in third.messages[len(second.messages) :]] == ["assistant", "user"]
    assert third.may_ask
    assert [len(attempt.reads) for attempt in outcome.attempts] == [1, 0]


def test_each_attempt_may_make_as_many_calls_as_the_first(shop: Callable[..., Input]) -> None:
    outcome, asked = play(shop(reads_max=1), asks(call()), TOO_MUCH, asks(call("stock")), GOOD)
    assert [request.may_ask for request in asked] == [True, False, True, False]
    assert [status for _, status, _ in reads_of(outcome)] == ["ok", "ok"]


def failed(attempt: int) -> FailedCall:
    return FailedCall(attempt, ProposerFailure.TIMEOUT, "slow")


def test_failed_calls_before_each_round_are_attempts_with_numbers_of_their_own(shop: Callable[..., Input]) -> None:
    outcome, (first, second, third) = play(
        shop(),
        asks(call(), earlier=(failed(1), failed(2))),
        Answer(TOO_MUCH, earlier=(failed(3),)),
        GOOD,
    )
    assert [attempt.number for attempt in outcome.attempts] == [1, 2, 3, 4, 5]
    assert [attempt.failure for attempt in outcome.attempts] == ["timeout"] * 3 + [None, None]
    assert [request.key.attempt for request in (first, second, third)] == [1, 3, 5]


def test_after_an_outage_of_which_some_calls_are_not_kept_no_number_comes_again(shop: Callable[..., Input]) -> None:
    kept = (failed(1), failed(2), failed(299), failed(300))
    outcome, (_, second) = play(shop(), asks(call(), earlier=kept), Answer(GOOD, earlier=(failed(301),)))
    assert second.key.attempt == 301
    assert [attempt.number for attempt in outcome.attempts] == [1, 2, 299, 300, 301, 302]


def test_a_round_that_fails_for_good_ends_the_attempt_with_its_reads_on_the_record(
    shop: Callable[..., Input],
) -> None:
    outcome, (_, _, third) = play(shop(), asks(call()), Answer(None, ProposerFailure.TIMEOUT), GOOD)
    first, second = outcome.attempts
    assert (first.failure, len(first.reads), len(second.reads)) == ("timeout", 1, 0)
    assert told(third) == [], "an attempt without an answer tells the next one nothing"


def test_calls_without_an_id_or_of_one_id_are_told_apart(shop: Callable[..., Input]) -> None:
    calls = [call(id=id) for id in ("", "", "x", "x", "call_1_0", "i" * 10_000)]
    outcome, (_, second) = play(shop(), asks(*calls), GOOD)
    ids = [read.call_id for read in outcome.attempts[0].reads]
    assert len(set(ids)) == len(ids) == 6
    assert all(ids)
    assert [one["tool_call_id"] for one in second.messages if one["role"] == "tool"] == ids


def test_what_a_model_writes_in_excess_leaves_room_in_the_record(shop: Callable[..., Input], codec: Codec) -> None:
    """Else one bad answer would cost the decision: a record that does not fit goes to the dead topic."""
    long = "\0" * 1_000_000
    calls = [ToolCall(long + str(number), long, long) for number in range(1_000)]
    asking = asks(*calls)
    outcome, (_, second, *_) = play(shop(max_attempts=3), asking, TOO_MUCH, asking, TOO_MUCH, asking, GOOD)
    assert len(told(second)) == 8 + REFUSALS_MAX
    record = decision_record(outcome.decision(NOW), "shop.decisions", codec)
    assert len(record.value or b"") < RECORD_BYTES_MAX / 2
    assert outcome.verdict is Verdict.ACCEPTED


def test_long_arguments_in_every_call_leave_room_in_the_record(shop: Callable[..., Input], codec: Codec) -> None:
    """As valid as they are, and as many as a model may make."""
    text = json.dumps({"order": "x" * (ARGUMENTS_BYTES_MAX - 20)})
    asking = asks(*(call(arguments=text, id=str(number)) for number in range(1_000)))
    tool = Tool("payments", "", Order, lambda order: 40)
    outcome, _ = play(shop(tool, max_attempts=3), asking, TOO_MUCH, asking, TOO_MUCH, asking, GOOD)
    statuses = [status for _, status, _ in reads_of(outcome)]
    assert (statuses.count("ok"), statuses.count("limit")) == (3 * 8, 3 * REFUSALS_MAX)
    record = decision_record(outcome.decision(NOW), "shop.decisions", codec)
    assert len(record.value or b"") < RECORD_BYTES_MAX / 2


@pytest.mark.parametrize("name", ["", "1st", "a b", "ä", "a" * 65, "payments\n"])
def test_a_name_that_providers_refuse_is_refused_at_once(name: str) -> None:
    with pytest.raises(UsageError, match="cannot name a tool"):
        Tool(name, "", Order, payments)


def test_arguments_without_a_json_schema_are_refused_at_once_and_not_at_the_first_event() -> None:
    class Unshown(BaseModel):
        model_config = ConfigDict(arbitrary_types_allowed=True)
        sink: Scripted

    with pytest.raises(UsageError, match="the arguments of the tool sinks have no JSON Schema"):
        Tool("sinks", "", Unshown, payments)


class Hidden(BaseModel):
    """Arguments of which a part is not written down."""

    order: str = Field(default="A1", exclude=True)


class Plain(BaseModel):
    """Arguments as they are to be."""

    order: str = "A1"


class Many(BaseModel):
    """Arguments whose order is another in every process."""

    orders: set[str] = set()


class Secret(BaseModel):
    """Arguments that are written as stars."""

    token: SecretStr


@pytest.mark.parametrize("arguments", [Hidden, Many, Secret])
def test_arguments_by_which_a_call_would_not_be_known_again_are_refused(arguments: type[BaseModel]) -> None:
    with pytest.raises(UsageError, match="cannot be known again by its arguments"):
        Tool("orders", "", arguments, payments)


@pytest.mark.parametrize(("arguments", "timeout_s"), [(dict, 1.0), (Hidden(), 1.0), (Plain, 0.0), (Plain, math.nan)])
def test_what_is_no_model_and_no_time_is_refused_when_the_tool_is_made(arguments: Any, timeout_s: float) -> None:
    with pytest.raises(UsageError, match=r"pydantic model|timeout"):
        Tool("orders", "", arguments, payments, timeout_s=timeout_s)


def test_more_calls_than_a_record_has_room_for_are_refused_at_the_start(bound: Bind) -> None:
    with pytest.raises(UsageError, match="more than 24"):
        bound(tools=(PAYMENTS,), reads_max=9, max_attempts=3)


def test_a_round_that_fails_hides_nothing_of_what_the_others_cost(shop: Callable[..., Input]) -> None:
    asking = replace(asks(call()), cost_usd=0.5, usage=Usage(prompt_tokens=100, completion_tokens=5))
    outcome, _ = play(shop(max_attempts=1), asking, Answer(None, ProposerFailure.TIMEOUT))
    (attempt,) = outcome.attempts
    assert (attempt.failure, attempt.cost_usd, attempt.usage.prompt_tokens) == ("timeout", 0.5, 100)


@pytest.mark.parametrize("changes", [{"tools": (PAYMENTS, PAYMENTS)}, {"reads_max": 0}])
def test_a_boundary_takes_each_tool_once_and_lets_it_be_asked(changes: Mapping[str, Any], bound: Bind) -> None:
    with pytest.raises(UsageError, match="tools have names of their own"):
        bound(**changes)


@pytest.fixture(scope="session")
def codec() -> Codec:
    contracts = Contracts.load()
    registry = Registry("mock://tools")
    registry.ensure("shop.decisions", contracts.require(DECISION))
    return Codec(registry, contracts)


ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=20)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ANY_TEXT, inner, max_size=3),
    max_leaves=8,
)
ORDERS = st.fixed_dictionaries({"order": ANY_TEXT}, optional={"days": st.integers(0, 400) | JSON})
AWKWARD = [
    "",
    "{}",
    "[" * 100_000,
    '{"order":' * 3_000 + "1" + "}" * 3_000,
    '{"order": "\ud800"}',
    '{"order": "\\ud800"}',
    '{"order": "A1", "order": "A1"}',
    '{"order": ' + "9" * 5_000 + "}",
    '{"order": NaN, "days": Infinity}',
    '{"order": "' + "\0" * 100 + '"}',
    '{"order": "' + "x" * 1_000_000 + '"}',
    "\udfff" * ARGUMENTS_BYTES_MAX,
]
ARGUMENTS = st.sampled_from(AWKWARD) | ANY_TEXT | st.builds(json.dumps, JSON | ORDERS, ensure_ascii=st.booleans())
CALLS = st.builds(
    ToolCall,
    id=ANY_TEXT | st.sampled_from(["", "x", "call_1_1", "y" * 100_000]),
    name=ANY_TEXT | st.sampled_from(["payments", "stock", "p" * 1_000_000]),
    arguments=ARGUMENTS,
)


@given(rounds=st.lists(st.lists(CALLS, min_size=1, max_size=4), min_size=1, max_size=3))
@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_a_model_calls_the_decision_is_recorded_and_read_back_as_the_model_was_told(
    rounds: Sequence[Sequence[ToolCall]], shop: Callable[..., Input], codec: Codec
) -> None:
    outcome, asked = play(shop(reads_max=12, max_attempts=2), *(asks(*calls) for calls in rounds), GOOD)
    decision = outcome.decision(NOW)
    record = decision_record(decision, "shop.decisions", codec)
    back = Decision.model_validate(codec.decode(record.value).value)
    assert back == decision
    (attempt,) = back.attempts
    assert read_messages(attempt.reads) == list(asked[-1].messages[len(asked[0].messages) :])
    assert all(canonical_json(json.loads(read.arguments)) == read.arguments for read in attempt.reads)
    assert sum(map(len, rounds)) == len(attempt.reads)
    json.dumps(asked[-1].messages, ensure_ascii=False).encode()


def test_a_read_that_an_older_decision_recorded_is_told_without_its_answer() -> None:
    """Version 2 of the record had no place for it."""
    read = Read(call_id="c", name="payments", arguments="{}", arguments_hash="h", answer_hash="h", status="ok")
    _, said = read_messages([read])
    assert said["content"] == ""
