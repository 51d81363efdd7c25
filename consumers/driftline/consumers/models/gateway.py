"""The one place that imports LiteLLM: late, quiet, and with driftline's own providers registered.

The import takes seconds, so it waits for the first call. LiteLLM's help texts, logs, callbacks, cache and retries
are off for driftline's calls: they print, they leak, or they hide an attempt from the record.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from driftline.consumers.models.answers import ANSWER, CALL, Carried, ProviderAnswer, ProviderCall
from driftline.consumers.models.recorded import answer_recorded, check_recorded
from driftline.consumers.models.sim import answer_sim, check_sim
from driftline.schemas import UsageError

QUIET_LOGGERS = ("LiteLLM", "LiteLLM Router", "LiteLLM Proxy", "httpx", "httpcore", "openai")
"""What would log a request's address or body, in which some providers carry the key."""
READ_ONLY_WARNING = r".*using the `ReadOnly` qualifier"
"""What pydantic says of LiteLLM's own types."""
TIMEOUT_S_DEFAULT = 600.0


@dataclass(frozen=True, slots=True)
class OwnProvider:
    """A provider that ships with driftline."""

    check: Callable[[str], None]
    """Raises `UsageError` when the name after the provider cannot be served."""
    answer: Callable[[ProviderCall], Awaitable[ProviderAnswer]]


OWN_PROVIDERS: Mapping[str, OwnProvider] = {
    "recorded": OwnProvider(check_recorded, answer_recorded),
    "sim": OwnProvider(check_sim, answer_sim),
}


@cache
def load_litellm() -> Any:
    """The LiteLLM module, set up; imported on the first call.

    Raises:
        UsageError: It is not installed.
    """
    _quiet_logs()
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # else the import fetches a price map
    os.environ.setdefault("LITELLM_MODE", "PRODUCTION")  # else it reads whatever .env lies above it
    # LiteLLM imports its providers when they are first called, in threads, where no `catch_warnings` is safe.
    warnings.filterwarnings("ignore", message=READ_ONLY_WARNING, category=UserWarning)
    # An interrupted call that had not begun: the interruption is said by whoever asked for it.
    warnings.filterwarnings("ignore", message=r"coroutine '.*acompletion' was never awaited", category=RuntimeWarning)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the import alone: third parties' deprecations
            import litellm
    except ModuleNotFoundError as error:
        raise UsageError(
            f"models need {error.name}, which is not installed", "pip install 'driftline[llm]'"
        ) from None
    _quiet(litellm)
    _quiet_logs()
    _register(litellm)
    return litellm


def _quiet(litellm: Any) -> None:
    litellm.suppress_debug_info = True
    litellm.set_verbose = False
    litellm.telemetry = False
    litellm.disable_aiohttp_transport = True  # its sessions outlive the loop and complain about it


def _quiet_logs() -> None:
    for name in QUIET_LOGGERS:
        logger = logging.getLogger(name)
        logger.setLevel(max(logger.level, logging.CRITICAL if name.startswith("LiteLLM") else logging.WARNING))


def _register(litellm: Any) -> None:
    taken = {item["provider"] for item in litellm.custom_provider_map}
    for provider, own in OWN_PROVIDERS.items():
        if provider not in taken:
            handler = _handler_class(litellm)(own)
            litellm.custom_provider_map.append({"provider": provider, "custom_handler": handler})


@cache
def _handler_class(litellm: Any) -> Any:
    class Handler(litellm.CustomLLM):  # type: ignore[misc]
        """One of driftline's own providers, as LiteLLM calls it."""

        def __init__(self, own: OwnProvider) -> None:
            super().__init__()
            self._own = own

        async def acompletion(self, *_args: Any, **kwargs: Any) -> Any:
            answer = await self._own.answer(_provider_call(kwargs))
            return _fill(litellm, kwargs["model_response"], answer)

    return Handler


def _provider_call(kwargs: Mapping[str, Any]) -> ProviderCall:
    metadata = (kwargs.get("litellm_params") or {}).get("metadata") or {}
    call: Carried | None = metadata.get(CALL)
    if call is None:
        raise UsageError(f"the model {kwargs['model']!r} needs a call key", "call it through LiteLLMProposer")
    messages: Sequence[Any] = kwargs["messages"]
    timeout = kwargs.get("timeout")
    return ProviderCall(
        name=call.name,
        messages=tuple(messages),
        key=call.key,
        parameters=call.parameters,
        timeout_s=float(timeout) if isinstance(timeout, (int, float)) else TIMEOUT_S_DEFAULT,
        tools=call.tools,
    )


def _fill(litellm: Any, response: Any, answer: ProviderAnswer) -> Any:
    message = litellm.Message(role="assistant", content=answer.text)
    response.choices = [litellm.Choices(message=message, finish_reason=answer.finish_reason or "stop")]
    response.model = answer.model_reported
    response.system_fingerprint = answer.fingerprint
    read, written = answer.usage.prompt_tokens or 0, answer.usage.completion_tokens or 0
    response.usage = litellm.Usage(prompt_tokens=read, completion_tokens=written, total_tokens=read + written)
    response._hidden_params[ANSWER] = answer
    return response
