"""Tools through LiteLLM: a real server that speaks the OpenAI API calls them, is told, and answers."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict

from driftline.consumers import Tool
from driftline.consumers.conversing import converse
from driftline.consumers.deciding import drive_steps
from driftline.consumers.models import LiteLLMProposer
from driftline.consumers.proposing import Answer, CallKey, ProposalRequest, ProposerFailure, ToolCall

pytestmark = pytest.mark.filterwarnings("ignore:.*using the `ReadOnly` qualifier:UserWarning")

KEY = "sk-proj-Zm9vYmFyYmF6cXV4-0123456789abcdef"
TEXT = '{"a": 1}'


class Order(BaseModel):
    """What the tools are asked with."""

    model_config = ConfigDict(extra="forbid")
    order: str


PAYMENTS = Tool("payments", "What was paid for an order.", Order, lambda order: {"paid": 40})
STOCK = Tool("stock", "How many are left.", Order, lambda order: 7)


def completion(message: Mapping[str, Any], finish_reason: str) -> dict[str, Any]:
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "gpt-4o-2024-08-06",
        "choices": [{"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish_reason}],
        "usage": {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100},
    }


def called(name: str, arguments: str = '{"order":"A1"}', id: str | None = "call_7") -> dict[str, Any]:
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def calling(*calls: Mapping[str, Any], content: str | None = None) -> dict[str, Any]:
    return completion({"content": content, "tool_calls": list(calls)}, "tool_calls")


SAYING = completion({"content": TEXT}, "stop")


class OpenAI(ThreadingHTTPServer):
    """Gives its answers one after the other, and keeps what it was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: list[Mapping[str, Any]] = []
        self.asked: list[dict[str, Any]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: OpenAI

    def do_POST(self) -> None:
        self.server.asked.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
        body = json.dumps(self.server.answers.pop(0)).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def provider() -> Iterator[OpenAI]:
    server = OpenAI()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


async def ask_on(provider: OpenAI, tools: Sequence[Tool], reads_max: int) -> Answer:
    """One attempt, as the engine makes it."""
    proposer = LiteLLMProposer(api_key=KEY)
    request = ProposalRequest(
        model="openai/gpt-4o",
        messages=[{"role": "user", "content": "a?"}],
        key=CallKey("decision", "event"),
        parameters={"api_base": provider.url},
        tools=[tool.shown for tool in tools],
        may_ask=bool(tools),
    )
    return await drive_steps(converse(request, tools, reads_max), proposer)


def attempt(
    provider: OpenAI, *answers: Mapping[str, Any], tools: Sequence[Tool] = (PAYMENTS, STOCK), reads_max: int = 8
) -> Answer:
    provider.answers = list(answers)
    answer = asyncio.run(ask_on(provider, tools, reads_max))
    assert not provider.answers, "the attempt ended before the script"
    return answer


def test_a_provider_that_takes_over_is_sent_no_thinking_of_another(provider: OpenAI) -> None:
    provider.answers = [SAYING]
    turn = {
        "role": "assistant",
        "content": "aside",
        "thinking_blocks": [{"type": "thinking", "signature": "EqoBCkg"}],
    }
    request = ProposalRequest(
        model="openai/gpt-4o", messages=[turn], key=CallKey("d", "w"), parameters={"api_base": provider.url}
    )
    assert asyncio.run(LiteLLMProposer(api_key=KEY).propose(request)).text == TEXT
    assert provider.asked[0]["messages"] == [{"role": "assistant", "content": "aside"}]


def test_a_model_that_calls_a_tool_is_told_and_answers(provider: OpenAI) -> None:
    answer = attempt(provider, calling(called("payments")), SAYING)
    first, second = provider.asked
    assert first["tools"] == [PAYMENTS.shown, STOCK.shown]
    assert (first["tool_choice"], second["tool_choice"]) == ("auto", "auto")
    question, asking, said = second["messages"]
    assert question == {"role": "user", "content": "a?"}
    assert (asking["role"], asking.get("content"), asking["tool_calls"]) == ("assistant", None, [called("payments")])
    assert said == {"role": "tool", "tool_call_id": "call_7", "name": "payments", "content": '{"paid":40}'}
    assert (answer.text, answer.failure, answer.finish_reason, answer.tool_calls) == (TEXT, None, "stop", ())
    assert [(read.call_id, read.name, read.answer, read.round) for read in answer.reads] == [
        ("call_7", "payments", '{"paid":40}', 1)
    ]


def test_an_attempt_costs_what_its_rounds_cost(provider: OpenAI) -> None:
    answer = attempt(provider, calling(called("payments")), calling(called("stock")), SAYING)
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (3000, 300)
    assert answer.cost_usd == pytest.approx(3 * (1000 * 2.5e-6 + 100 * 1e-5))


def test_past_the_limit_the_tools_are_still_shown_and_none_may_be_called(provider: OpenAI) -> None:
    attempt(provider, calling(called("payments")), SAYING, reads_max=1)
    first, second = provider.asked
    assert (first["tool_choice"], second["tool_choice"]) == ("auto", "none")
    assert second["tools"] == first["tools"]


def test_a_model_that_calls_on_past_the_limit_has_answered_nothing(provider: OpenAI) -> None:
    answer = attempt(provider, calling(called("payments")), calling(called("payments")), reads_max=1)
    assert (answer.failure, answer.text, len(answer.reads)) == (ProposerFailure.EMPTY, None, 1)


def test_calls_that_come_in_one_answer_are_told_in_one_round_each_under_its_id(provider: OpenAI) -> None:
    calls = [called("payments", id="a"), called("stock", id="b"), called("payments", '{"order":"B2"}', "c")]
    answer = attempt(provider, calling(*calls), SAYING)
    _, asking, *said = provider.asked[1]["messages"]
    assert asking["tool_calls"] == calls
    assert [(one["tool_call_id"], one["content"]) for one in said] == [
        ("a", '{"paid":40}'),
        ("b", "7"),
        ("c", '{"paid":40}'),
    ]
    assert {read.round for read in answer.reads} == {1}


@pytest.mark.parametrize("missing", [None, ""])
def test_calls_without_an_id_get_one_each(missing: str | None, provider: OpenAI) -> None:
    attempt(provider, calling(called("payments", id=missing), called("stock", id=missing)), SAYING)
    _, asking, *said = provider.asked[1]["messages"]
    ids = [one["id"] for one in asking["tool_calls"]]
    assert len(set(ids)) == 2
    assert all(ids)
    assert [one["tool_call_id"] for one in said] == ids


def test_calls_of_one_id_are_told_apart(provider: OpenAI) -> None:
    attempt(provider, calling(called("payments", id="same"), called("stock", id="same")), SAYING)
    _, asking, *said = provider.asked[1]["messages"]
    ids = [one["id"] for one in asking["tool_calls"]]
    assert len(set(ids)) == 2
    assert [(one["tool_call_id"], one["content"]) for one in said] == list(
        zip(ids, ['{"paid":40}', "7"], strict=True)
    )


@pytest.mark.parametrize("arguments", ["", "{", '["A1"]', '{"order": "A1", "pin": "0815"}', '{"order": NaN}'])
def test_a_model_that_calls_badly_is_told_and_goes_on(arguments: str, provider: OpenAI) -> None:
    answer = attempt(provider, calling(called("payments", arguments)), SAYING)
    (read,) = answer.reads
    assert (read.status, answer.text) == ("bad_arguments", TEXT)
    said = json.loads(provider.asked[1]["messages"][-1]["content"])
    assert said["status"] == "bad_arguments"
    assert "0815" not in said["message"]


def test_what_a_model_says_beside_its_calls_is_no_answer_yet(provider: OpenAI) -> None:
    answer = attempt(provider, calling(called("payments"), content="Let me see."), SAYING)
    assert answer.text == TEXT


def test_without_tools_a_request_says_nothing_of_them_and_a_call_is_no_answer(provider: OpenAI) -> None:
    answer = attempt(provider, calling(called("payments")), tools=())
    assert not {"tools", "tool_choice"} & provider.asked[0].keys()
    assert (answer.failure, answer.reads) == (ProposerFailure.EMPTY, ())


def test_what_the_model_is_shown_is_the_same_in_every_request(provider: OpenAI) -> None:
    """Answers are filed under it: a library that rewrote it in place would have everything paid for again."""
    before = json.dumps(PAYMENTS.shown)
    attempt(provider, calling(called("payments")), SAYING)
    assert json.dumps(PAYMENTS.shown) == before


def simulated(**changes: Any) -> Answer:
    request = ProposalRequest(
        model="sim/renewals",
        messages=[{"role": "user", "content": json.dumps({"order": "A1", "days": 3})}],
        key=CallKey("decision", "event"),
        tools=[PAYMENTS.shown, STOCK.shown],
        **changes,
    )
    return asyncio.run(LiteLLMProposer().propose(request))


def test_the_simulator_asks_each_tool_that_it_is_shown_what_the_case_has() -> None:
    answer = simulated()
    assert (answer.text, answer.finish_reason) == (None, "tool_calls")
    assert answer.tool_calls == tuple(
        ToolCall(f"call-{name}", name, '{"order": "A1"}') for name in ("payments", "stock")
    )


def test_the_simulator_strays_in_the_share_of_its_calls_that_it_is_told_to() -> None:
    assert {call.arguments for call in simulated(parameters={"sim_stray_reads": 1}).tool_calls} == {
        '{"order": "A1-other"}'
    }
