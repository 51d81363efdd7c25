"""`LiteLLMProposer`: one call to one model through LiteLLM, with everything that the record wants to know of it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from typing import Any

from driftline.consumers.models.answers import ANSWER, CALL, CallFailed, Carried, ProviderAnswer, causes
from driftline.consumers.models.failures import classify, known_secrets, unknown_provider
from driftline.consumers.models.gateway import OWN_PROVIDERS, load_litellm
from driftline.consumers.proposing import THINKING, Answer, ProposalRequest, ProposerFailure, ToolCall
from driftline.schemas import Usage, UsageError
from driftline.schemas.fields import escape_surrogates

SIM_PARAMETERS = "sim_"
"""Parameters of this prefix speak to the simulator; a real provider would refuse a request that has them."""
NOT_PARAMETERS = (
    frozenset({"api_key", "extra_headers", "headers"})
    | {"cache", "caching", "callbacks", "fallbacks", "max_retries", "mock_response", "num_retries"}
    | {"base_url", "messages", "metadata", "model", "n", "stream", "timeout"}
)
"""Would put a key on the log, hide an attempt from the record, or break the one-call-one-answer rule."""
REFUSING = frozenset({"content_filter", "refusal"})
TAKES_THINKING = frozenset({"anthropic", "azure_ai", "bedrock", "vertex_ai"})
"""LiteLLM's names of those that sign it, and refuse an answer of a tool without it; others refuse the field."""


class LiteLLMProposer:
    """Answers requests through LiteLLM; implements `Proposer`.

    One request is one call: no retries, no cache, no fallback. Nothing is imported or asked before the first
    request. Not promised: that LiteLLM passes a parameter on as it stands (`api_base` is a parameter, a key is not:
    parameters are recorded).

    Args:
        api_key: Key for providers that do not find theirs in the environment; never recorded or logged.
        clock: Seconds from any origin, never going back.
    """

    def __init__(self, *, api_key: str | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._api_key = api_key
        self._clock = clock
        self._checked: set[str] = set()

    async def propose(self, request: ProposalRequest) -> Answer:
        """Answer one request; failures of the model or the network are an `Answer` with `failure`.

        Raises:
            UsageError: The model string names no provider, file or version; a key is missing or refused; a
                parameter is none.
        """
        self.check(request)
        litellm = load_litellm()
        arguments = self._arguments(litellm, request)
        started = self._clock()
        try:
            async with asyncio.timeout(request.timeout_s):
                response = await litellm.acompletion(**arguments)
        except TimeoutError:
            failed = CallFailed(ProposerFailure.TIMEOUT, f"no answer within {request.timeout_s:g} s")
            return _failed(failed, (self._clock() - started) * 1000)
        except Exception as error:
            failed = classify(litellm, error, request.model, self._secrets(), self._api_key is not None)
            if _is_own(request.model) and not _was_meant(error):
                raise  # a fault of driftline's own provider is no failure of a model
            return _failed(failed, (self._clock() - started) * 1000)
        return _answer(response, (self._clock() - started) * 1000, bool(request.tools))

    def warm_up(self) -> None:
        """Import LiteLLM now, which takes seconds, and not under the first request.

        Raises:
            UsageError: It is not installed.
        """
        load_litellm()

    def check(self, request: ProposalRequest) -> None:
        """Prove, before anything is asked, that the model strings, fallbacks too, and the parameters can be served.

        Raises:
            UsageError: They cannot; lists what can.
        """
        refused = sorted(NOT_PARAMETERS & request.parameters.keys())
        if refused:
            mend = "keys come from the environment; retries, caches and streams are not for replayable calls"
            raise UsageError(f"{refused[0]} is no model parameter", mend)
        for model in (request.model, *request.fallbacks):
            if model not in self._checked:
                _check_model(model)
                self._checked.add(model)

    def _arguments(self, litellm: Any, request: ProposalRequest) -> dict[str, Any]:
        arguments: dict[str, Any] = {
            "model": request.model,
            "messages": _messages(litellm, request),
            "timeout": request.timeout_s,
            "num_retries": 0,
            "max_retries": 0,
            "caching": False,
            "no-log": True,
        }
        if _is_own(request.model):
            provider, _, name = request.model.partition("/")
            carried = Carried(name, request.key, request.parameters, request.tools if request.may_ask else ())
            return {**arguments, "model": f"{provider}/driftline", "metadata": {CALL: carried}}
        if self._api_key is not None:
            arguments["api_key"] = self._api_key
        structured = _response_format(litellm, request)
        spoken = {name: value for name, value in request.parameters.items() if not name.startswith(SIM_PARAMETERS)}
        return {**structured, **spoken, **_tools(request), **arguments}

    def _secrets(self) -> frozenset[str]:
        return known_secrets() | ({self._api_key} if self._api_key else set())


def _check_model(model: str) -> None:
    if _is_own(model):
        provider, _, name = model.partition("/")
        OWN_PROVIDERS[provider].check(name)
        return
    litellm = load_litellm()
    mistake = unknown_provider(model, lambda: litellm.get_llm_provider(model))
    if mistake:
        raise mistake


def _is_own(model: str) -> bool:
    provider, slash, _ = model.partition("/")
    return bool(slash) and provider in OWN_PROVIDERS


def _was_meant(error: Exception) -> bool:
    return any(isinstance(cause, CallFailed) for cause in causes(error))


def _messages(litellm: Any, request: ProposalRequest) -> list[dict[str, Any]]:
    """Without thinking where a provider takes over that knows none, in the middle of an attempt."""
    takes = not _is_own(request.model) and litellm.get_llm_provider(request.model)[1] in TAKES_THINKING
    told = [dict(message) for message in request.messages]
    return told if takes else [{name: part for name, part in one.items() if name != THINKING} for one in told]


def _response_format(litellm: Any, request: ProposalRequest) -> dict[str, Any]:
    if request.json_schema is None or not _takes_json_schema(litellm, request.model):
        return {}
    schema = {"name": "proposal", "strict": True, "schema": dict(request.json_schema)}
    return {"response_format": {"type": "json_schema", "json_schema": schema}}


def _takes_json_schema(litellm: Any, model: str) -> bool:
    """LiteLLM's own list where it knows the model; else whether the provider takes a response format at all."""
    name, provider, _, _ = litellm.get_llm_provider(model)
    if model in litellm.model_cost or name in litellm.model_cost:
        return bool(litellm.supports_response_schema(model=name, custom_llm_provider=provider))
    return "response_format" in (litellm.get_supported_openai_params(name, custom_llm_provider=provider) or ())


def _tools(request: ProposalRequest) -> dict[str, Any]:
    """The tools, shown on while the model may no longer ask: some providers refuse a chat that has called others."""
    if not request.tools:
        return {}
    return {
        "tools": [dict(tool) for tool in request.tools],
        "tool_choice": "auto" if request.may_ask else "none",
        "_skip_mcp_handler": True,  # else LiteLLM imports `mcp`, which driftline does not need, for any tool
    }


def _answer(response: Any, measured_ms: float, offered_tools: bool) -> Answer:
    own: ProviderAnswer | None = response._hidden_params.get(ANSWER)
    return _own_answer(own) if own else _real_answer(response, measured_ms, offered_tools)


def _own_answer(own: ProviderAnswer) -> Answer:
    empty = not own.tool_calls and not (own.text and own.text.strip())
    return Answer(
        text=None if empty else own.text,
        failure=ProposerFailure.EMPTY if empty else None,
        failure_detail="the model answered nothing" if empty else "",
        model_reported=own.model_reported,
        fingerprint=own.fingerprint,
        finish_reason=own.finish_reason,
        facts=own.facts,
        usage=own.usage,
        cost_usd=own.cost_usd,
        latency_ms=own.latency_ms,
        tool_calls=own.tool_calls,
    )


def _real_answer(response: Any, measured_ms: float, offered_tools: bool) -> Answer:
    choice = response.choices[0] if response.choices else None
    text = choice.message.content if choice else None
    calls = _tool_calls(choice.message) if choice and offered_tools else ()
    failure, detail = _lack(choice, text, bool(calls))
    usage = getattr(response, "usage", None)
    return Answer(
        text=None if failure else text,
        failure=failure,
        failure_detail=detail,
        model_reported=response.model,
        fingerprint=getattr(response, "system_fingerprint", None),
        finish_reason=choice.finish_reason if choice else None,
        usage=Usage(
            prompt_tokens=getattr(usage, "prompt_tokens", None),
            completion_tokens=getattr(usage, "completion_tokens", None),
        ),
        cost_usd=response._hidden_params.get("response_cost"),
        latency_ms=measured_ms,
        tool_calls=calls,
        thinking=_thinking(choice.message) if choice and calls else (),
    )


def _thinking(message: Any) -> tuple[Mapping[str, Any], ...]:
    """What can be sent again: a block with a lone surrogate cannot."""
    blocks = [dict(block) for block in getattr(message, THINKING, None) or ()]
    written = [json.dumps(block, ensure_ascii=False) for block in blocks]
    return tuple(block for block, text in zip(blocks, written, strict=True) if escape_surrogates(text) == text)


def _tool_calls(message: Any) -> tuple[ToolCall, ...]:
    calls = getattr(message, "tool_calls", None) or ()
    return tuple(ToolCall(call.id or "", call.function.name or "", call.function.arguments or "") for call in calls)


def _lack(choice: Any, text: str | None, asks: bool) -> tuple[ProposerFailure | None, str]:
    if choice is not None and (_refusal(choice.message) or choice.finish_reason in REFUSING):
        return ProposerFailure.REFUSED, "the model or its provider refused to answer"
    if not asks and (not text or not text.strip()):
        return ProposerFailure.EMPTY, "the model answered nothing"
    return None, ""


def _refusal(message: Any) -> str | None:
    extra: Mapping[str, Any] = getattr(message, "provider_specific_fields", None) or {}
    refusal: str | None = getattr(message, "refusal", None) or extra.get("refusal")
    return refusal


def _failed(failed: CallFailed, measured_ms: float) -> Answer:
    latency_ms = measured_ms if failed.latency_ms is None else failed.latency_ms
    return Answer(
        text=None,
        failure=failed.failure,
        failure_detail=failed.detail,
        latency_ms=latency_ms,
        retry_after_s=failed.retry_after_s,
        at_fault=failed.at_fault,
    )
