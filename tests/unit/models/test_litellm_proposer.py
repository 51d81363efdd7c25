"""A real provider, as a small server on 127.0.0.1 that speaks the OpenAI API, on good days and bad ones."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from driftline.consumers.models import LiteLLMProposer
from driftline.consumers.models.failures import safe_line
from driftline.consumers.proposing import Answer, CallKey, ProposalRequest, ProposerFailure
from driftline.schemas import UsageError

pytestmark = pytest.mark.filterwarnings("ignore:.*using the `ReadOnly` qualifier:UserWarning")

KEY = "sk-proj-Zm9vYmFyYmF6cXV4-0123456789abcdef"
PLAIN_KEY = "correcthorsebattery"
SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "integer"}},
    "required": ["a"],
    "additionalProperties": False,
}


def completion(message: Mapping[str, Any], finish_reason: str = "stop") -> dict[str, Any]:
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "gpt-4o-2024-08-06",
        "system_fingerprint": "fp_44709d6fcb",
        "choices": [{"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish_reason}],
        "usage": {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100},
    }


class OpenAI(BaseHTTPRequestHandler):
    """Does what the model's name says."""

    requests: list[dict[str, Any]]

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.requests.append(asked)
        model = asked["model"]
        if model == "slow":
            time.sleep(1.0)
        if model.isdecimal():
            words = f"Incorrect API key provided: {self.headers['authorization']}; see {KEY[:12]}***{KEY[-4:]}"
            self._reply(int(model), {"error": {"message": words, "type": "t", "code": "c"}})
        elif model == "cut":
            self._reply(200, completion({"content": "{}"}), share=0.5)
        else:
            self._reply(200, ANSWERS.get(model, completion({"content": '{"a": 1}'})))

    def _reply(self, status: int, value: Mapping[str, Any], share: float = 1.0) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        with contextlib.suppress(ConnectionError):  # the caller may have stopped waiting
            self.wfile.write(body[: int(len(body) * share)])
        self.close_connection = share < 1

    def log_message(self, format: str, *args: Any) -> None:
        pass


ANSWERS: Mapping[str, Mapping[str, Any]] = {
    "refusal": completion({"content": None, "refusal": "I cannot help with that."}),
    "filtered": completion({"content": ""}, "content_filter"),
    "empty": completion({"content": ""}),
    "blank": completion({"content": " \n"}),
    "null": completion({"content": None}),
    "house-model": {**completion({"content": "{}"}), "model": "house-model"},
    "choiceless": {**completion({}), "choices": []},
}


@pytest.fixture(scope="module")
def base() -> Iterator[str]:
    OpenAI.requests = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), OpenAI)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()
    thread.join()


def ask(
    base: str, model: str, *, proposer: LiteLLMProposer | None = None, timeout_s: float = 30.0, **parameters: Any
) -> Answer:
    request = ProposalRequest(
        model=f"openai/{model}",
        messages=[{"role": "user", "content": "a?"}],
        key=CallKey("decision", "event"),
        parameters={"api_base": base, **parameters},
        json_schema=SCHEMA,
        timeout_s=timeout_s,
    )
    return asyncio.run((proposer or LiteLLMProposer(api_key=KEY)).propose(request))


def test_a_good_answer_is_recorded_with_all_that_the_provider_said(base: str) -> None:
    ticks = iter([10.0, 10.25])
    answer = ask(base, "gpt-4o", proposer=LiteLLMProposer(api_key=KEY, clock=lambda: next(ticks)), temperature=0.5)
    assert (answer.text, answer.failure) == ('{"a": 1}', None)
    assert (answer.model_reported, answer.fingerprint) == ("gpt-4o-2024-08-06", "fp_44709d6fcb")
    assert (answer.finish_reason, answer.latency_ms) == ("stop", 250.0)
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (1000, 100)
    assert answer.cost_usd == pytest.approx(1000 * 2.5e-6 + 100 * 1e-5)


def test_the_request_carries_the_schema_and_the_parameters_and_nothing_of_ours(base: str) -> None:
    ask(base, "gpt-4o", temperature=0.5, sim_latency_ms=5)
    asked = OpenAI.requests[-1]
    assert asked["response_format"]["json_schema"] == {"name": "proposal", "strict": True, "schema": SCHEMA}
    assert asked["temperature"] == 0.5
    assert asked.keys() == {"model", "messages", "response_format", "temperature"}


def test_a_model_without_structured_output_is_asked_for_text(base: str) -> None:
    ask(base, "gpt-4")
    assert "response_format" not in OpenAI.requests[-1]


def test_the_price_of_a_model_that_nobody_knows_is_unknown_and_not_nothing(base: str) -> None:
    assert ask(base, "house-model").cost_usd is None


@pytest.mark.parametrize(
    ("model", "failure"),
    [
        ("429", ProposerFailure.RATE_LIMITED),
        ("400", ProposerFailure.PROVIDER_ERROR),
        ("403", ProposerFailure.PROVIDER_ERROR),
        ("500", ProposerFailure.PROVIDER_ERROR),
        ("503", ProposerFailure.PROVIDER_ERROR),
        ("cut", ProposerFailure.PROVIDER_ERROR),
        ("refusal", ProposerFailure.REFUSED),
        ("filtered", ProposerFailure.REFUSED),
        ("empty", ProposerFailure.EMPTY),
        ("blank", ProposerFailure.EMPTY),
        ("null", ProposerFailure.EMPTY),
        ("choiceless", ProposerFailure.EMPTY),
    ],
)
def test_a_bad_answer_is_a_typed_failure_and_asked_for_once(
    base: str, model: str, failure: ProposerFailure, capfd: pytest.CaptureFixture[str]
) -> None:
    before = len(OpenAI.requests)
    answer = ask(base, model)
    assert (answer.failure, answer.text) == (failure, None)
    assert answer.failure_detail
    assert "\n" not in answer.failure_detail
    assert answer.latency_ms is not None
    assert len(OpenAI.requests) == before + 1, "a retry would hide an attempt from the record"
    assert capfd.readouterr() == ("", ""), "LiteLLM's advice belongs on no user's screen"


def test_a_slow_answer_is_a_timeout_and_is_not_waited_for(base: str) -> None:
    ask(base, "gpt-4o")  # the first call of a process imports for a while
    started = time.monotonic()
    assert ask(base, "slow", timeout_s=0.2).failure is ProposerFailure.TIMEOUT
    assert time.monotonic() - started < 0.9


def test_a_provider_that_does_not_listen_is_a_provider_error() -> None:
    answer = ask("http://127.0.0.1:9/v1", "gpt-4o")
    assert answer.failure is ProposerFailure.PROVIDER_ERROR


@pytest.mark.parametrize("status", ["400", "403", "429", "500"])
@pytest.mark.parametrize("key", [KEY, PLAIN_KEY])
def test_no_key_shows_up_in_an_answer_or_a_log(
    base: str, status: str, key: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.DEBUG):
        answer = ask(base, status, proposer=LiteLLMProposer(api_key=key))
    shown = repr(answer) + caplog.text + "".join(capfd.readouterr())
    for piece in (key, key[:8], key[-8:], KEY[-4:]):
        assert piece not in shown


@pytest.mark.parametrize("status", ["401", "404"])
def test_no_key_shows_up_in_an_error_however_it_is_printed(base: str, status: str) -> None:
    with pytest.raises(UsageError) as caught:
        ask(base, status)
    shown = "".join(traceback.format_exception(caught.value)) + caught.value.mend
    assert KEY[:8] not in shown
    assert KEY[-4:] not in shown


def test_a_refused_key_names_the_variable_to_set(base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(UsageError, match=r"valid key; set OPENAI_API_KEY"):
        ask(base, "401")


def test_a_missing_key_names_the_variable_to_set(base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(UsageError, match=r"valid key; set OPENAI_API_KEY"):
        ask(base, "gpt-4o", proposer=LiteLLMProposer())


def test_a_key_of_the_environment_is_used_and_never_shown(base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", PLAIN_KEY)
    assert ask(base, "gpt-4o", proposer=LiteLLMProposer()).failure is None
    assert PLAIN_KEY[:8] not in repr(ask(base, "500", proposer=LiteLLMProposer()))


@pytest.mark.parametrize("model", ["gpt-4o", "nobody/gpt-4o", "", "/", "sim"])
def test_a_model_string_without_a_known_provider_is_the_users_mistake(model: str) -> None:
    with pytest.raises(UsageError, match="no provider is known"):
        asyncio.run(LiteLLMProposer().propose(ProposalRequest(model, [], CallKey("d", "e"))))


@pytest.mark.parametrize("name", ["api_key", "num_retries", "stream", "caching", "extra_headers"])
def test_a_parameter_that_would_leak_or_hide_something_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=f"{name} is no model parameter"):
        asyncio.run(LiteLLMProposer().propose(ProposalRequest("openai/gpt-4o", [], CallKey("d", "e"), {name: "x"})))


def test_two_hundred_calls_at_once_are_each_answered() -> None:
    async def run() -> list[Answer]:
        proposer = LiteLLMProposer()
        calls = (
            proposer.propose(ProposalRequest("sim/renewals", [RENEWAL], CallKey(f"d{number}", "e")))
            for number in range(200)
        )
        return list(await asyncio.gather(*calls))

    answers = asyncio.run(run())
    assert {answer.failure for answer in answers} == {None}
    assert len({answer.latency_ms for answer in answers}) == 200, "each got its own key's draws"


RENEWAL = {
    "role": "user",
    "content": '{"customer_id": "c", "contract": "One year", "monthly_charges": 80.0, "churn_signal": false}',
}


def test_a_cancelled_call_stays_cancelled() -> None:
    async def run() -> None:
        request = ProposalRequest("sim/renewals", [RENEWAL], CallKey("d", "e"), {"sim_sleep": True})
        task = asyncio.create_task(LiteLLMProposer().propose(request))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())


def test_what_looks_like_a_key_is_struck_out_of_a_line_and_the_rest_stays() -> None:
    line = safe_line(
        "POST https://u:pw@host/v1?key=abc&x=1 with hunter2secret: the\nmodel is   busy", ["hunter2secret"]
    )
    assert line == "POST https://host/v1?key=[struck out]&x=1 with [struck out] the model is busy"
