"""What a proposer is: it answers a request for a proposal, and never raises for what a model or network does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from driftline.schemas import Read, Usage

Message = Mapping[str, Any]
"""One chat message: `role` and `content`."""
THINKING = "thinking_blocks"
"""Where LiteLLM has a model's thinking, in a message that came and in one that goes."""


class ProposerFailure(StrEnum):
    """Why a call gave no answer. Part of the record, not an exception."""

    TIMEOUT = "timeout"
    RATE_LIMITED = "rate_limited"
    PROVIDER_ERROR = "provider_error"
    REFUSED = "refused"
    EMPTY = "empty"
    NOT_RECORDED = "not_recorded"
    """The recording holds no answer to this event: it costs coverage, and says nothing about the model."""


@dataclass(frozen=True, slots=True)
class CallKey:
    """What identifies a call: the coordinates of the simulator's randomness and of a recording's rows.

    Two calls of equal key get equal answers from `sim/` and `recorded/`; any field that differs makes the
    draws independent.
    """

    decision_id: str
    workflow: str
    """Key of the input: what a recording names its rows by."""
    attempt: int = 1
    arm: str = "log"
    run: str = ""
    replicate: int = 0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class ToolCall:
    """What a model asks a tool, as it wrote it."""

    id: str
    name: str
    arguments: str
    """JSON, or what the model takes for it."""


@dataclass(frozen=True, slots=True)
class ProposalRequest:
    """One call to be made."""

    model: str
    """`provider/name`, `recorded/<path>#<model>[@replicate]` or `sim/<name>`."""
    messages: Sequence[Message]
    """The whole chat, rejections of earlier attempts included."""
    key: CallKey
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """Passed to the provider as they stand (temperature, max_tokens, …)."""
    json_schema: Mapping[str, Any] | None = None
    """JSON Schema of the proposal, for providers with structured output; None for free text."""
    timeout_s: float = 60.0
    fallbacks: Sequence[str] = ()
    """Models to ask where this one is in trouble, in order. One call asks one model: who falls back is its caller."""
    tools: Sequence[Mapping[str, Any]] = ()
    """The tools that the model may ask, in the form of OpenAI's chat completions."""
    may_ask: bool = True
    """Whether it still may; otherwise it is shown them and must answer."""


@dataclass(frozen=True, slots=True)
class FailedCall:
    """A call of the same request that failed before the answer came."""

    attempt: int
    """Of the `CallKey` that it was made with."""
    failure: ProposerFailure
    failure_detail: str = ""
    """As in `Answer`."""
    model_requested: str | None = None
    """As in `Answer`."""
    latency_ms: float | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    text: str | None
    """The raw text; None when the call failed."""
    failure: ProposerFailure | None = None
    failure_detail: str = ""
    """One line for a person; never holds a key or a provider argument."""
    model_reported: str | None = None
    fingerprint: str | None = None
    finish_reason: str | None = None
    facts: Mapping[str, Any] | None = None
    """What the provider said of this answer beyond its text (a recording's `reference` flag)."""
    usage: Usage = field(default_factory=Usage)
    cost_usd: float | None = None
    latency_ms: float | None = None
    model_requested: str | None = None
    """The model that was asked, where it is not the one of the request."""
    earlier: tuple[FailedCall, ...] = ()
    """Failed calls of the same request before this one, in order; of very many, the first and the last."""
    retry_after_s: float | None = None
    """After how many seconds a failed call may be made again, where the provider said so (RFC 9110, 10.2.3)."""
    at_fault: bool = False
    """Whether the provider says of a failed call that the request itself is wrong: asked again, it fails again."""
    tool_calls: tuple[ToolCall, ...] = ()
    """What the model asks tools before it answers; `text` is then none or an aside."""
    thinking: tuple[Mapping[str, Any], ...] = ()
    """Signed blocks that the provider wants back as they came, with what the tools say; in LiteLLM's form."""
    reads: tuple[Read, ...] = ()
    """What tools told the model before it gave this answer."""


class Proposer(Protocol):
    """Answers requests, any number at once."""

    async def propose(self, request: ProposalRequest) -> Answer:
        """Answer one request.

        Failures of the model or the network are an `Answer` with `failure`.

        Raises:
            UsageError: The model string names no provider, file or version: a mistake of the user, not of the model.
        """
