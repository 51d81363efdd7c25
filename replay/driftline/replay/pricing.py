"""What calls will cost: LiteLLM's price map, its version on the record, and tokens estimated from the log."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

from driftline.consumers.models.failures import unknown_provider
from driftline.consumers.models.gateway import OWN_PROVIDERS, load_litellm
from driftline.consumers.proposing import ProposalRequest
from driftline.replay.arms import first_attempt
from driftline.replay.segment import LoggedDecision
from driftline.schemas import Attempt

CHARACTERS_A_TOKEN = 4
"""Of English text, by the providers' own rule of thumb; used where the log recorded no usage."""
COMPLETION_TOKENS_UNKNOWN = 256
"""Where the log holds neither usage nor a text."""
COMPLETION_TOKENS_MIN = 64
"""Room is made for no fewer where the log tells no usage: a text does not show what was thought before it."""
ROOM_FACTOR = 2.0
"""A call is let through when so many times its estimate fits, unless `max_tokens` bounds what it writes."""
MAP_HASH_DIGITS = 12
TOKEN_LIMITS = ("max_completion_tokens", "max_tokens")
"""Parameters that bound what a model writes."""


@dataclass(frozen=True, slots=True)
class Price:
    """Dollars a token of one model; None where nobody knows."""

    model: str
    prompt_usd: float | None
    completion_usd: float | None

    @property
    def known(self) -> bool:
        """Whether both prices are known."""
        return self.prompt_usd is not None and self.completion_usd is not None

    def usd(self, tokens: Tokens) -> float | None:
        """What a call costs; None when the price is unknown."""
        if self.prompt_usd is None or self.completion_usd is None:
            return None
        return tokens.prompt * self.prompt_usd + tokens.completion * self.completion_usd


@dataclass(frozen=True, slots=True)
class Tokens:
    """What a call is expected to read and write."""

    prompt: float
    completion: float
    recorded: bool = True
    """Whether the log's own usage says so; else it is estimated from the length of texts."""


@dataclass
class PriceMap:
    """Prices by model; LiteLLM, whose import takes seconds, is loaded for a provider that is not driftline's own."""

    _known: dict[str, Price] = field(default_factory=dict)
    _beyond: dict[str, float] = field(default_factory=dict)
    _version: str | None = None

    def of(self, model: str) -> Price:
        """The price of a model.

        `recorded/…` and `sim/…` cost nothing. Not guaranteed: that a provider asks what LiteLLM's map says, or that
        an address of one's own (`api_base`) asks what the provider of that name does.

        Raises:
            UsageError: LiteLLM is needed and not installed, or it knows no such provider.
        """
        if model not in self._known:
            self._known[model] = self._look_up(model)
        return self._known[model]

    def learn(self, model: str, room_usd: float, paid_usd: float) -> None:
        """Take to heart what an answer has cost for which so much room would have been made."""
        self._beyond[model] = max(self.beyond(model), paid_usd - room_usd)

    def beyond(self, model: str) -> float:
        """Dollars that an answer of the model is known to have cost beyond the room that would have been made."""
        return self._beyond.get(model, 0.0)

    @property
    def version(self) -> str | None:
        """LiteLLM's version and the hash of the map that was asked; None while it was not."""
        return self._version

    def _look_up(self, model: str) -> Price:
        if model.partition("/")[0] in OWN_PROVIDERS:
            return Price(model, 0.0, 0.0)
        litellm = load_litellm()
        if self._version is None:
            self._version = f"litellm {version('litellm')}, price map {_map_hash(litellm.model_cost)}"
        entry = _entry(litellm, model)
        return Price(model, entry.get("input_cost_per_token"), entry.get("output_cost_per_token"))


def expected_tokens(logged: LoggedDecision, request: ProposalRequest, same_prompt: bool) -> Tokens:
    """What a call will read and write, by the log's own call where the candidate's prompt is the log's.

    Not guaranteed: that another model counts as the log's did, or writes as much.
    """
    attempt = first_attempt(logged.decision)
    usage = attempt.usage
    read = usage.prompt_tokens if same_prompt else None
    written = usage.completion_tokens
    recorded = read is not None and written is not None
    if read is None:
        read = math.ceil(_characters_read(attempt, request) / CHARACTERS_A_TOKEN)
    if written is None:
        text = attempt.raw_response
        written = COMPLETION_TOKENS_UNKNOWN if text is None else math.ceil(len(text) / CHARACTERS_A_TOKEN)
    return Tokens(read, written, recorded)


def _characters_read(attempt: Attempt, request: ProposalRequest) -> int:
    """Of all rounds that the log's attempt had: each reads messages and tools again, and what was told before it."""
    shown = sum(len(str(message.get("content") or "")) for message in request.messages)
    shown += sum(len(json.dumps(dict(tool))) for tool in request.tools)
    rounds = 1 + max((read.round for read in attempt.reads), default=0)
    told = [(rounds - read.round) * (len(read.arguments) + len(read.answer or "")) for read in attempt.reads]
    return rounds * shown + sum(told)


def room_for(tokens: Tokens, parameters: Mapping[str, Any]) -> Tokens:
    """What must fit the budget before a call is made: more than is expected, or all that the parameters allow."""
    bounds = [parameters[name] for name in TOKEN_LIMITS if isinstance(parameters.get(name), int)]
    least = 0 if tokens.recorded else COMPLETION_TOKENS_MIN
    completion = float(min(bounds)) if bounds else max(least, tokens.completion * ROOM_FACTOR)
    return Tokens(tokens.prompt * (1.0 if tokens.recorded else ROOM_FACTOR), completion, tokens.recorded)


def _entry(litellm: Any, model: str) -> Mapping[str, Any]:
    mistake = unknown_provider(model, lambda: litellm.get_llm_provider(model))
    if mistake is not None:
        raise mistake
    name, provider, _, _ = litellm.get_llm_provider(model)
    for known_as in (model, f"{provider}/{name}", name):
        entry: Mapping[str, Any] | None = litellm.model_cost.get(known_as)
        if entry is not None and str(entry.get("litellm_provider", "")).startswith(provider):
            return entry
    return {}


def _map_hash(prices: Mapping[str, Any]) -> str:
    text = json.dumps(prices, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:MAP_HASH_DIGITS]
