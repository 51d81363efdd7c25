"""Asking an app's tools: threads, coroutines, failures of every kind, personal data."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from pydantic import BaseModel

from driftline.consumers import Tool
from driftline.consumers.asking_tools import Protect, ask_tools, unprotected
from driftline.consumers.boundary import BoundBoundary
from driftline.consumers.conversing import ToolsAsked
from driftline.consumers.proposing import ToolCall
from driftline.consumers.tools import TOLD_BYTES_MAX, sort_out
from driftline.schemas import Codec, Contract, ContractError, Contracts, Read, Registry, UsageError
from driftline.schemas.pii import MASKED, hashed

KEY = "sk-proj-Zm9vYmFyYmF6cXV4-0123456789abcdef"
PII_KEY = b"0123456789abcdef-of-a-test"
PATIENCE_S = 30.0
"""How long a test waits for what happens at once."""
CUSTOMER = {
    "type": "record",
    "name": "shop.Customer",
    "fields": [
        {"name": "name", "type": "string", "pii": "mask"},
        {"name": "email", "type": "string", "pii": "hash"},
        {"name": "orders", "type": "int"},
    ],
}


class Who(BaseModel):
    """What the tools are asked with."""

    customer: str = "c-17"


def tool(answer: Callable[[Any], Any], name: str = "orders", **changes: Any) -> Tool:
    return Tool(name, "Orders of a customer.", Who, answer, **{"timeout_s": PATIENCE_S, **changes})


def ask(*tools: Tool, protect: Protect = unprotected) -> Sequence[Read]:
    """Ask each tool once, in one round."""
    calls = [ToolCall(f"c-{one.name}", one.name, "{}") for one in tools]
    return asyncio.run(ask_tools(ToolsAsked(sort_out(calls, tools, 1, len(calls))), protect))


def message(read: Read) -> Any:
    return json.loads(read.answer or "")["message"]


def test_a_function_is_asked_in_a_thread_with_its_arguments_as_an_object() -> None:
    def answer(who: Who) -> Mapping[str, Any]:
        return {"customer": who.customer, "main": threading.current_thread() is threading.main_thread()}

    (read,) = ask(tool(answer))
    assert (read.status, read.answer) == ("ok", '{"customer":"c-17","main":false}')


def test_a_coroutine_function_is_awaited_on_the_loop() -> None:
    async def answer(who: Who) -> Mapping[str, Any]:
        await asyncio.sleep(0)
        return {"customer": who.customer, "main": threading.current_thread() is threading.main_thread()}

    (read,) = ask(tool(answer))
    assert (read.status, read.answer) == ("ok", '{"customer":"c-17","main":true}')


async def left_by_another(who: Who) -> Mapping[str, Any]:
    other = asyncio.create_task(asyncio.sleep(PATIENCE_S))
    other.cancel()
    await other
    return {}


def leaves(who: Who) -> Mapping[str, Any]:
    raise SystemExit(3)


@pytest.mark.parametrize("answer", [left_by_another, leaves])
def test_a_tool_that_would_end_the_process_ends_its_own_call(answer: Callable[[Who], Any]) -> None:
    (read,) = ask(tool(answer))
    assert read.status == "failed"


def test_a_function_that_returns_a_coroutine_is_awaited_too() -> None:
    class Client:
        async def __call__(self, who: Who) -> str:
            return who.customer

    (read,) = ask(tool(Client()))
    assert (read.status, read.answer) == ("ok", '"c-17"')


def test_functions_of_one_round_are_asked_at_once() -> None:
    """Each waits for the other."""
    both = threading.Barrier(2)

    def answer(who: Who) -> str:
        both.wait(PATIENCE_S)
        return who.customer

    assert [read.status for read in ask(tool(answer, "one"), tool(answer, "two"))] == ["ok", "ok"]


def test_a_function_and_a_coroutine_of_one_round_are_asked_at_once_and_told_in_the_order_of_the_calls() -> None:
    begun = threading.Event()

    def function(who: Who) -> str:
        assert begun.wait(PATIENCE_S)
        return "function"

    async def coroutine(who: Who) -> str:
        begun.set()
        return "coroutine"

    reads = ask(tool(function, "slow"), tool(coroutine, "fast"))
    assert [(read.name, read.answer) for read in reads] == [("slow", '"function"'), ("fast", '"coroutine"')]


class OutOfOrders(Exception):
    """What an app may raise."""


@pytest.mark.parametrize("error", [OutOfOrders(KEY), ValueError(KEY), StopIteration(KEY), ConnectionError(KEY)])
@pytest.mark.parametrize("as_coroutine", [False, True])
def test_a_tool_that_fails_is_told_by_the_kind_of_its_failure_alone(
    error: Exception, as_coroutine: bool, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    def function(who: Who) -> None:
        raise error

    async def coroutine(who: Who) -> None:
        raise error

    with caplog.at_level(logging.DEBUG):
        (read,) = ask(tool(coroutine if as_coroutine else function))
    kind = "RuntimeError" if isinstance(error, StopIteration) else type(error).__name__
    assert (read.status, message(read)) == ("failed", f"the tool failed: {kind}")
    written = f"{caplog.text}{read.model_dump_json()}{capfd.readouterr()}"
    assert f"the tool orders failed: {kind}" in caplog.text
    assert KEY not in written


def test_a_tool_that_gives_up_by_itself_has_failed_and_not_run_out_of_its_time() -> None:
    def answer(who: Who) -> None:
        raise TimeoutError(KEY)

    (read,) = ask(tool(answer))
    assert (read.status, message(read)) == ("failed", "the tool failed: TimeoutError")


def test_a_tool_that_fails_does_not_disturb_its_neighbour() -> None:
    def answer(who: Who) -> None:
        raise OutOfOrders

    assert [read.status for read in ask(tool(answer, "bad"), tool(lambda who: 1, "good"))] == ["failed", "ok"]


@dataclass
class Hanging:
    """A tool that answers when it is released."""

    released: threading.Event
    ended: threading.Event

    def __call__(self, who: Who) -> str:
        try:
            self.released.wait(PATIENCE_S)
        finally:
            self.ended.set()
        return "late"


@pytest.fixture
def hanging() -> Iterator[Hanging]:
    found = Hanging(threading.Event(), threading.Event())
    yield found
    found.released.set()
    assert found.ended.wait(PATIENCE_S)


def test_a_function_that_hangs_is_left_behind_and_nothing_waits_for_its_thread(hanging: Hanging) -> None:
    """The loop has ended when `ask` returns: an executor's threads would have been waited for."""
    (read,) = ask(tool(hanging, timeout_s=0.01))
    assert (read.status, message(read)) == ("timeout", "the tool gave no answer within 0.01 s")
    assert not hanging.ended.is_set()


def test_functions_that_hang_take_no_place_from_other_work(hanging: Hanging) -> None:
    """An executor of the size of this machine would be full."""

    async def main() -> str:
        hung = [tool(hanging, f"hung-{number}", timeout_s=0.01) for number in range(80)]
        calls = [ToolCall(one.name, one.name, "{}") for one in hung]
        await ask_tools(ToolsAsked(sort_out(calls, hung, 1, len(calls))), unprotected)
        return await asyncio.wait_for(asyncio.to_thread(lambda: "others go on"), PATIENCE_S)

    assert asyncio.run(main()) == "others go on"


def test_a_coroutine_that_hangs_is_cancelled() -> None:
    cancelled = []

    async def answer(who: Who) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(who.customer)
            raise

    (read,) = ask(tool(answer, timeout_s=0.01))
    assert (read.status, cancelled) == ("timeout", ["c-17"])


def test_an_answer_that_is_too_large_is_not_told_but_that_it_is() -> None:
    (fits, too_large) = ask(
        tool(lambda who: "x" * (TOLD_BYTES_MAX - 2), "fits"), tool(lambda who: "ä" * (TOLD_BYTES_MAX // 2), "large")
    )
    assert (fits.status, len(fits.answer or "")) == ("ok", TOLD_BYTES_MAX)
    assert (too_large.status, len(too_large.answer or "") < 200) == ("bad_answer", True)
    assert message(too_large) == f"the tool answered more than {TOLD_BYTES_MAX} bytes; ask for less"


class Connection:
    """Says its key to whoever prints it."""

    def __str__(self) -> str:
        return KEY


def cycle() -> list[Any]:
    found: list[Any] = []
    found.append(found)
    return found


async def stream() -> AsyncIterator[int]:
    yield 1


NO_JSON: Mapping[str, Callable[[], Any]] = {
    "not a number": lambda: float("nan"),
    "beyond 2^53": lambda: 2**60,
    "more digits than Python prints": lambda: 10**5_000,
    "a lone surrogate": lambda: "\ud800",
    "a key that is no text": lambda: {1: 2},
    "a list that holds itself": cycle,
    "an object": Connection,
    "an object within": lambda: {"rows": [Connection()]},
    "a set": lambda: {KEY},
    "an object of pydantic's": Who,
    "a generator": lambda: (one for one in [KEY]),
    "an async generator": stream,
}


@pytest.mark.parametrize("kind", NO_JSON)
def test_an_answer_that_is_no_json_is_not_told_but_that_it_is_none(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    (read,) = ask(tool(lambda who: NO_JSON[kind]()))
    assert (read.status, message(read)) == ("bad_answer", "the tool answered what is no JSON data")
    assert "the tool orders answered no JSON data" in caplog.text
    assert KEY not in caplog.text


def test_what_a_datum_of_avro_holds_is_told_as_it_is_in_an_event() -> None:
    at = datetime(2026, 11, 21, 12, tzinfo=UTC)
    (read,) = ask(tool(lambda who: {"at": at, "paid": Decimal("4.20"), "share": 0.5, "rows": (1.0, None, b"x")}))
    assert json.loads(read.answer or "") == {
        "at": "2026-11-21T12:00:00.000Z",
        "paid": "4.20",
        "share": 0.5,
        "rows": [1, None, "eA=="],
    }


@pytest.fixture
def codec() -> Codec:
    return Codec(Registry("mock://asking-tools"), Contracts([Contract("shop.Customer", [CUSTOMER])]), PII_KEY)


def ada(who: Who) -> Mapping[str, Any]:
    return {"name": "Ada Lovelace", "email": "ada@example.org", "orders": 3}


def test_personal_data_of_a_record_is_masked_before_model_or_log_sees_it(codec: Codec) -> None:
    (read,) = ask(tool(ada, record="shop.Customer"), protect=codec.protect)
    assert read.status == "ok"
    assert json.loads(read.answer or "") == {
        "name": MASKED,
        "email": hashed("ada@example.org", PII_KEY),
        "orders": 3,
    }


@pytest.mark.parametrize("found", [None, "Ada Lovelace", ["Ada Lovelace"], [{"name": "Ada Lovelace"}]])
def test_an_answer_that_has_no_fields_to_mask_is_not_told(found: Any, codec: Codec) -> None:
    (read,) = ask(tool(lambda who: found, record="shop.Customer"), protect=codec.protect)
    assert read.status == "bad_answer"
    assert "Ada" not in (read.answer or "")


def test_personal_data_that_nobody_can_hash_ends_the_run_and_is_not_told_as_it_is() -> None:
    """As with an event: every call would meet it, and only a key mends it."""
    keyless = Codec(Registry("mock://asking-tools"), Contracts([Contract("shop.Customer", [CUSTOMER])]))
    with pytest.raises(UsageError, match="there is no key for it"):
        ask(tool(ada, record="shop.Customer"), protect=keyless.protect)


def test_a_record_without_a_contract_is_refused_at_the_start(bound: Callable[..., BoundBoundary]) -> None:
    with pytest.raises(ContractError, match=r"no contract for the record shop\.Nobody"):
        bound(tools=(tool(ada, record="shop.Nobody"),))


def test_a_call_that_is_refused_asks_nobody() -> None:
    asked: list[Who] = []
    orders = tool(asked.append)
    calls = [ToolCall("1", "nothing", "{}"), ToolCall("2", "orders", "[]"), ToolCall("3", "orders", "{}")]
    reads = asyncio.run(ask_tools(ToolsAsked(sort_out(calls, [orders], 1, 2)), unprotected))
    assert [read.status for read in reads] == ["unknown_tool", "bad_arguments", "limit"]
    assert asked == []
