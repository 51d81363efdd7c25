"""Thinking beside tools, through LiteLLM: a real server that speaks Anthropic's API and wants its blocks back."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from driftline.consumers import Tool
from driftline.consumers.conversing import converse
from driftline.consumers.deciding import drive_steps
from driftline.consumers.models import LiteLLMProposer
from driftline.consumers.proposing import CallKey, ProposalRequest
from driftline.replay.ledger import AnswerKey, Ledger

pytestmark = pytest.mark.filterwarnings("ignore:.*using the `ReadOnly` qualifier:UserWarning")

KEY = "sk-ant-api03-Zm9vYmFyYmF6cXV4-0123456789"
THOUGHT = {"type": "thinking", "thinking": "I have to look.", "signature": "EqoBCkgIARABGAIiQL2UoU0b"}
HIDDEN = {"type": "redacted_thinking", "data": "EmwKAhgBEgy3va3pzix"}
CALL = {"type": "tool_use", "id": "toolu_1", "name": "payments", "input": {"order": "A1"}}
SAID = {"type": "text", "text": '{"a": 1}'}


class Order(BaseModel):
    order: str


PAYMENTS = Tool("payments", "What was paid for an order.", Order, lambda order: {"paid": 40})


class Anthropic(ThreadingHTTPServer):
    """Thinks, calls a tool, and answers what comes back as Anthropic does where the thinking is missing: 400."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[dict[str, Any]] = []

    def answer(self, request: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
        messages: Sequence[Mapping[str, Any]] = request["messages"]
        turns = [message["content"] for message in messages if message["role"] == "assistant"]
        if not turns:
            return 200, said("tool_use", THOUGHT, HIDDEN, CALL)
        if [block["type"] for block in turns[-1]] != ["thinking", "redacted_thinking", "tool_use"]:
            told = "Expected `thinking` or `redacted_thinking`, but found `tool_use`"
            return 400, {"type": "error", "error": {"type": "invalid_request_error", "message": told}}
        return 200, said("end_turn", SAID)


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: Anthropic

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.asked.append(request)
        status, answer = self.server.answer(request)
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


def said(stop_reason: str, *blocks: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-4-5-20250929",
        "content": list(blocks),
        "stop_reason": stop_reason,
        "stop_sequence": None,
        "usage": {"input_tokens": 100, "output_tokens": 10},
    }


@pytest.fixture
def provider() -> Iterator[Anthropic]:
    server = Anthropic()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def request_(provider: Anthropic) -> ProposalRequest:
    return ProposalRequest(
        model="anthropic/claude-sonnet-4-5",
        messages=[{"role": "user", "content": "a?"}],
        key=CallKey("decision", "event"),
        parameters={
            "api_base": f"http://127.0.0.1:{provider.server_port}",
            "thinking": {"type": "enabled", "budget_tokens": 1024},
            "max_tokens": 2048,
        },
        tools=[PAYMENTS.shown],
        may_ask=True,
    )


def test_a_model_that_thinks_before_it_calls_a_tool_gets_its_thinking_back(
    provider: Anthropic, request_: ProposalRequest
) -> None:
    answer = asyncio.run(drive_steps(converse(request_, [PAYMENTS], 8), LiteLLMProposer(api_key=KEY)))
    assert (answer.text, answer.failure, answer.failure_detail) == (SAID["text"], None, "")
    assert [(read.name, read.answer) for read in answer.reads] == [("payments", '{"paid":40}')]
    assert answer.thinking == ()
    assert provider.asked[1]["messages"][1]["content"][:2] == [THOUGHT, HIDDEN]


def test_an_answer_out_of_the_ledger_still_has_its_thinking(request_: ProposalRequest, tmp_path: Path) -> None:
    key = AnswerKey("decision", "chain", request_.model, "prompt", "{}", "test", 0)
    answer = asyncio.run(LiteLLMProposer(api_key=KEY).propose(request_))
    assert [block["type"] for block in answer.thinking] == ["thinking", "redacted_thinking"]
    with closing(Ledger(tmp_path / "ledger.sqlite")) as ledger:
        ledger.put(key, answer, "run", "2026-01-05T12:00:00.000Z")
        held = ledger.get(key)
    assert held is not None
    assert held.thinking == answer.thinking
