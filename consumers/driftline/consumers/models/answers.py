"""What driftline's own providers say, on its way through LiteLLM.

A LiteLLM response has no place for a recorded judge's flag, a simulated latency or a count that nobody made;
and LiteLLM rewrites every exception. So both travel beside the response: an answer in its hidden parameters,
a failure in the chain of causes of what LiteLLM raises.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from driftline.consumers.proposing import CallKey, Message, ProposerFailure, ToolCall
from driftline.schemas import Usage

CALL = "driftline_call"
"""Where the `Carried` lies in the `metadata` of a LiteLLM call."""
ANSWER = "driftline_answer"
"""Where the `ProviderAnswer` lies in the hidden parameters of a LiteLLM response."""


@dataclass(frozen=True, slots=True)
class Carried:
    """What must reach the provider untouched, and so travels in LiteLLM's `metadata`.

    The name is not given as the model, because LiteLLM looks for words in a model's name wherever they stand: it
    sends the messages to replicate.com when a folder of the recording's path is called `replicates`. The parameters
    are not given as such, because LiteLLM refuses or rewrites some for providers that it does not know.
    """

    name: str
    """The model string after `recorded/` or `sim/`."""
    key: CallKey
    parameters: Mapping[str, Any]
    tools: Sequence[Mapping[str, Any]] = ()
    """Those that the model may ask now."""


@dataclass(frozen=True, slots=True)
class ProviderCall:
    """A call as one of driftline's own providers gets it from LiteLLM."""

    name: str
    """The model string after `recorded/` or `sim/`."""
    messages: tuple[Message, ...]
    key: CallKey
    parameters: Mapping[str, Any]
    timeout_s: float
    tools: Sequence[Mapping[str, Any]] = ()
    """As in `Carried`."""


@dataclass(frozen=True, slots=True)
class ProviderAnswer:
    """An answer of one of driftline's own providers."""

    text: str | None
    model_reported: str
    usage: Usage
    cost_usd: float | None
    latency_ms: float | None
    fingerprint: str | None = None
    finish_reason: str | None = None
    facts: Mapping[str, Any] | None = None
    tool_calls: tuple[ToolCall, ...] = ()


class CallFailed(Exception):
    """A call to one of driftline's own providers gave no answer.

    Attributes:
        failure: Why.
        detail: One line for a person.
        latency_ms: How long it took, where that is known.
        retry_after_s: As in `Answer`.
        at_fault: As in `Answer`.
    """

    def __init__(
        self,
        failure: ProposerFailure,
        detail: str,
        latency_ms: float | None = None,
        *,
        retry_after_s: float | None = None,
        at_fault: bool = False,
    ) -> None:
        super().__init__(detail)
        self.failure = failure
        self.detail = detail
        self.latency_ms = latency_ms
        self.retry_after_s = retry_after_s
        self.at_fault = at_fault


def causes(error: BaseException) -> Iterator[BaseException]:
    """The error and everything it was raised from or while handling, outermost first."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__
