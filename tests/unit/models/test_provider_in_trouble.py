"""LiteLLM and a steady proposer around it, before a real server that speaks the OpenAI API and misbehaves."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from driftline.consumers import Answer, CallKey, ProposalRequest, ProposerFailure
from driftline.consumers.models import LiteLLMProposer, Patience, SteadyProposer
from driftline.consumers.models.retry_after import retry_after_s
from driftline.schemas import UsageError

pytestmark = pytest.mark.filterwarnings("ignore:.*using the `ReadOnly` qualifier:UserWarning")

KEY = "sk-proj-Zm9vYmFyYmF6cXV4-0123456789abcdef"
AT_ONCE = Patience(wait_s=0.0, wait_s_max=0.0, jitter_s=0.0, retry_after_s_max=0.0, probe_s=0.001, probe_s_max=0.001)


@dataclass(frozen=True)
class Reply:
    """What the server sends; None as status hangs, and 0 hangs up."""

    status: int | None = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    share: float = 1.0


def completion(content: str | None, finish_reason: str = "stop", **message: Any) -> Reply:
    value = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "gpt-4o-2024-08-06",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": content, **message},
                "finish_reason": finish_reason,
            }
        ],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
    }
    return Reply(body=json.dumps(value).encode())


def error(status: int, **headers: str) -> Reply:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(status, json.dumps({"error": {"message": "in trouble", "type": "t"}}).encode(), named)


GOOD = completion('{"a": 1}')
CUT = Reply(body=GOOD.body, share=0.5)
HANG, HANG_UP = Reply(None), Reply(0)
HTML = Reply(body=b"<html>busy</html>", headers={"content-type": "text/html"})


class Server(ThreadingHTTPServer):
    """Replies by script, in the order of the requests; the last one for ever."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 256

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.ended = threading.Event()
        self.lock = threading.Lock()
        self.scripts: dict[str, list[Reply]] = {}
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def next(self, model: str) -> Reply:
        with self.lock:
            self.asked.append(model)
            script = self.scripts[model]
            return script.pop(0) if len(script) > 1 else script[0]


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        reply = self.server.next(asked["model"])
        self.close_connection = True
        if reply.status is None:
            self.server.ended.wait()
        elif reply.status:
            self._send(reply.status, reply)

    def _send(self, status: int, reply: Reply) -> None:
        with contextlib.suppress(ConnectionError):  # the caller may have stopped waiting
            self.send_response(status)
            headers = {"content-type": "application/json", "connection": "close", **reply.headers}
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(reply.body)))
            self.end_headers()
            self.wfile.write(reply.body[: int(len(reply.body) * reply.share)])

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    LiteLLMProposer().warm_up()
    server = Server()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.ended.set()
    server.shutdown()
    server.server_close()
    thread.join()


def request(server: Server, name: str = "d", *fallbacks: str, timeout_s: float = 30.0) -> ProposalRequest:
    return ProposalRequest(
        model="openai/gpt-4o",
        messages=[{"role": "user", "content": "a?"}],
        key=CallKey(name, "w"),
        parameters={"api_base": server.url},
        timeout_s=timeout_s,
        fallbacks=fallbacks,
    )


def ask(server: Server, *requests: ProposalRequest) -> Sequence[Answer]:
    async def run() -> Sequence[Answer]:
        proposer = SteadyProposer(LiteLLMProposer(api_key=KEY), AT_ONCE)
        return await asyncio.gather(*map(proposer.propose, requests))

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("trouble", "failure"),
    [
        (error(429, retry_after="7"), ProposerFailure.RATE_LIMITED),
        (error(408), ProposerFailure.TIMEOUT),
        (error(500), ProposerFailure.PROVIDER_ERROR),
        (error(503), ProposerFailure.PROVIDER_ERROR),
        (error(403), ProposerFailure.PROVIDER_ERROR),
        (CUT, ProposerFailure.PROVIDER_ERROR),
        (HANG_UP, ProposerFailure.PROVIDER_ERROR),
        (HTML, ProposerFailure.PROVIDER_ERROR),
        (Reply(body=b'{"choices": 7}'), ProposerFailure.PROVIDER_ERROR),
        (Reply(body=b'{"choices": ['), ProposerFailure.PROVIDER_ERROR),
    ],
)
def test_a_call_that_fails_is_made_again_and_stays_on_the_record(
    server: Server, trouble: Reply, failure: ProposerFailure
) -> None:
    server.scripts["gpt-4o"] = [trouble, trouble, GOOD]
    (answer,) = ask(server, request(server))
    assert (answer.text, answer.failure, answer.model_requested) == ('{"a": 1}', None, None)
    assert [(call.attempt, call.failure) for call in answer.earlier] == [(1, failure), (2, failure)]
    assert all(call.failure_detail and call.latency_ms is not None for call in answer.earlier)
    assert KEY[:12] not in repr(answer)
    assert len(server.asked) == 3


def test_a_call_that_hangs_is_given_up_and_made_again(server: Server) -> None:
    server.scripts["gpt-4o"] = [HANG, GOOD]
    (answer,) = ask(server, request(server, timeout_s=0.5))
    assert answer.text == '{"a": 1}'
    assert [call.failure for call in answer.earlier] == [ProposerFailure.TIMEOUT]


@pytest.mark.parametrize(
    ("said", "failure", "text"),
    [
        (completion(None, refusal="I cannot."), ProposerFailure.REFUSED, None),
        (completion("", "content_filter"), ProposerFailure.REFUSED, None),
        (completion(""), ProposerFailure.EMPTY, None),
        (completion("no JSON"), None, "no JSON"),
        (completion('{"a": 1'), None, '{"a": 1'),
    ],
)
def test_what_the_model_answered_is_taken_as_it_is(
    server: Server, said: Reply, failure: ProposerFailure | None, text: str | None
) -> None:
    server.scripts["gpt-4o"] = [said]
    (answer,) = ask(server, request(server))
    assert (answer.failure, answer.text, answer.earlier) == (failure, text, ())
    assert len(server.asked) == 1


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_request_that_the_provider_calls_wrong_fails_at_once(server: Server, status: int) -> None:
    server.scripts["gpt-4o"] = [error(status)]
    (answer,) = ask(server, request(server))
    assert (answer.failure, answer.at_fault) == (ProposerFailure.PROVIDER_ERROR, True)
    assert len(server.asked) == 1


@pytest.mark.parametrize("status", [401, 404])
def test_a_mistake_of_the_users_ends_it_at_once(server: Server, status: int) -> None:
    server.scripts["gpt-4o"] = [error(status)]
    with pytest.raises(UsageError):
        ask(server, request(server))
    assert len(server.asked) == 1


def test_a_fallback_that_nobody_serves_is_the_users_mistake_before_anything_is_asked(server: Server) -> None:
    with pytest.raises(UsageError, match="no provider is known for the model 'nobody/knows'"):
        ask(server, request(server, "d", "nobody/knows"))
    assert server.asked == []


def test_an_outage_is_outlasted_by_all_who_ask(server: Server) -> None:
    server.scripts["gpt-4o"] = [*[error(503)] * 150, GOOD]
    answers = ask(server, *(request(server, f"d{number}") for number in range(100)))
    assert {(answer.text, answer.failure) for answer in answers} == {('{"a": 1}', None)}
    assert sum(len(answer.earlier) for answer in answers) == 150
    assert len(server.asked) == 250


def test_the_fallback_answers_while_the_model_is_down(server: Server) -> None:
    server.scripts = {"gpt-4o": [error(500)], "gpt-4o-mini": [GOOD]}
    answers = ask(server, *(request(server, f"d{number}", "openai/gpt-4o-mini") for number in range(20)))
    assert {(answer.text, answer.model_requested) for answer in answers} == {('{"a": 1}', "openai/gpt-4o-mini")}


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"retry_after": "7"}, 7.0),
        ({"retry_after": "1.5"}, 1.5),
        ({"retry_after": "7", "retry_after_ms": "250"}, 0.25),
        ({}, None),
        ({"retry_after": "soon"}, None),
        ({"retry_after": "-3"}, None),
        ({"retry_after": "nan"}, None),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
def test_a_failed_answer_says_when_to_ask_again(
    server: Server, status: int, headers: Mapping[str, str], expected: float | None
) -> None:
    server.scripts["gpt-4o"] = [error(status, **headers)]
    answer = asyncio.run(LiteLLMProposer(api_key=KEY).propose(request(server)))
    assert answer.retry_after_s == expected


NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


@dataclass
class Response:
    headers: Mapping[str, str]


def told(**headers: datetime | str) -> float | None:
    failed = ValueError()
    written = {
        name.replace("_", "-").title(): format_datetime(value, usegmt=True) if isinstance(value, datetime) else value
        for name, value in headers.items()
    }
    failed.response = Response(written)  # type: ignore[attr-defined]
    return retry_after_s(failed, lambda: NOW)


def test_a_date_is_held_against_the_providers_own_clock() -> None:
    theirs = NOW + timedelta(days=3)
    assert told(retry_after=theirs + timedelta(seconds=90), date=theirs) == 90.0


def test_a_date_of_a_provider_that_tells_no_time_is_held_against_ours() -> None:
    assert told(retry_after=NOW + timedelta(seconds=90)) == 90.0


def test_a_date_that_has_passed_is_no_wait() -> None:
    assert told(retry_after=NOW - timedelta(seconds=90)) == 0.0


@pytest.mark.parametrize("value", ["", "Sat, 99 Nov 2026", "Fri, 31 Dec 99999 23:59:59 GMT"])
def test_a_date_that_is_none_says_nothing(value: str) -> None:
    assert told(retry_after=value) is None
