"""`sim/<name>`: a seeded simulator in place of a model. It is no model, and says so in what it reports.

It gives demos and tests a ground truth: versions whose differences are known.

=========================  ===================================================================================
version                    differs from `sim/renewals` in
=========================  ===================================================================================
`sim/renewals`             (the incumbent) follows the projection rule; 3 % of cases go to the neighbouring action,
                           8 % of discounts to a neighbour, 4 % above the ceiling of the prompt, 1 % are prose
`sim/renewals-inflated`    discounts of `Two year` contracts are 12 points higher, so that a share passes 30 %
`sim/renewals-fenced`      two thirds of the first attempts come in a ```json code fence
`sim/renewals-reworded`    the wording of `rationale`, and nothing else
`sim/renewals-noisier`     numbers stray twice as far and actions twice as often, both symmetric: means stay
`sim/contracts`            (the incumbent of another app) follows the rules of its prompts; at outreach 3 % of offers
                           and 4 % of the rest go to the neighbouring action; 8 % of discounts go to a neighbour,
                           4 % above the ceiling of the prompt, 20 % of risks to a neighbour; 1 % of offers merge
                           contracts, 5 % to those whose product has ended are of that product; 1 % are prose
`sim/contracts-inflated`   discounts of `Two year` contracts are 12 points higher, so that a share passes 30 %
`sim/contracts-noisier`    numbers stray twice as far, and actions at outreach twice as often
`sim/contracts-reworded`   the wording of `rationale`, and nothing else
=========================  ===================================================================================

All versions of `sim/contracts…` are tempted alike to do what the state of a case does not allow. Of the cases that
are settled (closed, expired, with a person), 8 % get an offer and 4 % are closed again; of the offers that were
declined, 25 % are followed by a second one; of those without a reply, 10 % are followed by a second one and 3 % are
closed. Where `legal` in the message says which records are legal, it takes back 97 % of the proposals that are not.

What an answer depends on: the version, the `CallKey`, the renewal (or the task, event, row and what is legal) in the
messages, the ceiling in the system prompt and the rejection at the end of the messages, if there is one. Randomness
is f(version, call key) alone: two arms never share a draw, and the same call gets the same answer on every machine.
The versions of an app share all distributions but for the difference named above.

After a rejection it mends the proposal with probability 0.9: it obeys `expected` of a policy violation, writes plain
JSON where the last answer was none, and otherwise draws again; else it insists on its last answer.

Every version asks each tool that it is shown once, with the values that the case has under the names of its
arguments; what it is told changes nothing in what it proposes.

Parameters: `sim_latency_ms` (median, default 900), `sim_failure_rate` (default 0; timeouts, rate limits and provider
errors in equal parts), `sim_sleep` (default false: latency is told and not spent), `sim_stray_reads` (default 0;
share of the calls of tools that ask about another case).
"""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from driftline.consumers.models.answers import CallFailed, ProviderAnswer, ProviderCall
from driftline.consumers.models.contract_analyst import Brief, ContractHabits, propose_contract
from driftline.consumers.models.draws import Draws
from driftline.consumers.models.renewal_analyst import (
    CEILING_PCT_DEFAULT,
    PROSE_SHARE,
    REWORDED_RATIONALES,
    Habits,
    Renewal,
    propose,
    prose,
)
from driftline.consumers.models.sim_feedback import last_proposal, mended, rejections_at_end
from driftline.consumers.proposing import Message, ProposerFailure, ToolCall
from driftline.schemas import Usage, UsageError

REVISION = 1
"""Goes up with every change of a distribution; the reported fingerprint carries it."""
SIM_VERSIONS: Mapping[str, Habits] = {
    "renewals": Habits(),
    "renewals-inflated": Habits(two_year_extra_pct=12.0),
    "renewals-fenced": Habits(fence_share=2 / 3),
    "renewals-reworded": Habits(rationales=REWORDED_RATIONALES),
    "renewals-noisier": Habits(spread=2.0),
}
CONTRACT_VERSIONS: Mapping[str, ContractHabits] = {
    "contracts": ContractHabits(),
    "contracts-inflated": ContractHabits(two_year_extra_pct=12.0),
    "contracts-noisier": ContractHabits(spread=2.0),
    "contracts-reworded": ContractHabits(rationales=REWORDED_RATIONALES),
}
MEND_SHARE = 0.9
LATENCY_MS_DEFAULT = 900.0
FAILURES = (ProposerFailure.TIMEOUT, ProposerFailure.RATE_LIMITED, ProposerFailure.PROVIDER_ERROR)
CHARACTERS_PER_TOKEN = 4

_CEILING = re.compile(r"at most\s+(\d+(?:\.\d+)?)\s*(?:%|percent)", re.IGNORECASE)
_DECODER = json.JSONDecoder()

Read = TypeVar("Read")


def check_sim(name: str) -> None:
    """Prove that the version exists, before anything is asked.

    Raises:
        UsageError: It does not; lists those that do.
    """
    _habits(name)


async def answer_sim(call: ProviderCall) -> ProviderAnswer:
    """Answer as the version does.

    Raises:
        CallFailed: A simulated failure.
        UsageError: No such version, a parameter that makes no sense, or no renewal in the messages.
    """
    habits = _habits(call.name)
    draws = Draws(call.name, call.key)
    latency_ms = _latency_ms(call.parameters, draws)
    if call.parameters.get("sim_sleep"):
        await asyncio.sleep(min(latency_ms / 1000, call.timeout_s))
    _fail_perhaps(call, latency_ms, draws)
    calls = () if _was_told(call.messages) else _tool_calls(call, draws)
    text = None if calls else _answer_text(call.messages, habits, draws)
    read = sum(len(str(message.get("content"))) for message in call.messages)
    written = len(text or "") + sum(len(one.arguments) for one in calls)
    return ProviderAnswer(
        text=text,
        model_reported=f"sim/{call.name}",
        fingerprint=f"driftline-simulator-{REVISION}",
        finish_reason="tool_calls" if calls else "stop",
        usage=Usage(prompt_tokens=_tokens(read), completion_tokens=_tokens(written)),
        cost_usd=0.0,
        latency_ms=latency_ms,
        tool_calls=calls,
    )


def _was_told(messages: Sequence[Message]) -> bool:
    return any(message.get("role") == "tool" for message in messages)


def _tool_calls(call: ProviderCall, draws: Draws) -> tuple[ToolCall, ...]:
    """One call of each tool, with what the case has under the names of its arguments."""
    case = _last_in(call.messages, lambda value: value) or {}
    stray = _number(call.parameters, "sim_stray_reads", 0.0, 0.0, 1.0)
    return tuple(_tool_call(tool["function"], case, stray, draws) for tool in call.tools)


def _tool_call(function: Mapping[str, Any], case: Mapping[str, Any], stray: float, draws: Draws) -> ToolCall:
    names = function["parameters"].get("properties", {})
    arguments = {name: case[name] for name in names if name in case}
    if draws.chance(f"stray read {function['name']}", stray):
        arguments = {name: f"{value}-other" if isinstance(value, str) else value for name, value in arguments.items()}
    return ToolCall(f"call-{function['name']}", function["name"], _json(arguments))


def _habits(name: str) -> Habits | ContractHabits:
    habits = SIM_VERSIONS.get(name) or CONTRACT_VERSIONS.get(name)
    if habits is None:
        known = ", ".join(f"sim/{version}" for version in (*SIM_VERSIONS, *CONTRACT_VERSIONS))
        raise UsageError(f"the simulator has no version {name!r}", f"it has {known}")
    return habits


def _answer_text(messages: Sequence[Message], habits: Habits | ContractHabits, draws: Draws) -> str:
    fresh = _fresh(messages, habits, draws)
    rejections = rejections_at_end(messages)
    if rejections is None:
        return _first_answer(fresh, habits.fence_share, draws)
    last = last_proposal(messages)
    if last.text is not None and not draws.chance("mend", MEND_SHARE):
        return last.text
    return _json(mended(last.proposal, rejections, fresh))


def _fresh(messages: Sequence[Message], habits: Habits | ContractHabits, draws: Draws) -> Mapping[str, Any]:
    """What the version proposes where nothing was rejected yet."""
    ceiling_pct = _ceiling_in(messages)
    if isinstance(habits, ContractHabits):
        return propose_contract(_brief_in(messages), ceiling_pct, habits, draws)
    return propose(_renewal_in(messages), ceiling_pct, habits, draws)


def _first_answer(proposal: Mapping[str, Any], fence_share: float, draws: Draws) -> str:
    if draws.chance("prose", PROSE_SHARE):
        return prose(proposal)
    text = _json(proposal)
    return f"```json\n{text}\n```" if draws.chance("fence", fence_share) else text


def _json(proposal: Mapping[str, Any]) -> str:
    return json.dumps(proposal, ensure_ascii=False)


def _renewal_in(messages: Sequence[Message]) -> Renewal:
    renewal = _last_in(messages, Renewal.of)
    if renewal is not None:
        return renewal
    wanted = "customer_id, contract, monthly_charges and churn_signal"
    raise UsageError(
        f"this simulator decides renewals only, and no user message holds a JSON object with {wanted}",
        "end the prompt with {{ event | tojson }}",
    )


def _brief_in(messages: Sequence[Message]) -> Brief:
    brief = _last_in(messages, Brief.of)
    if brief is not None:
        return brief
    raise UsageError(
        "this simulator decides contracts only, and no user message holds a JSON object with task, event and row",
        "end the prompt with {{ {'task': 'score', 'event': event, 'row': row} | tojson }}",
    )


def _last_in(messages: Sequence[Message], read: Callable[[Mapping[str, Any]], Read | None]) -> Read | None:
    """What the last object that can be read so holds, of all user messages."""
    for message in reversed(messages):
        if message.get("role") == "user":
            for value in _objects_from_the_end(str(message.get("content"))):
                found = read(value)
                if found is not None:
                    return found
    return None


def _objects_from_the_end(text: str) -> Iterator[dict[str, Any]]:
    at = text.rfind("{")
    while at >= 0:
        try:
            value, _ = _DECODER.raw_decode(text, at)
        except (ValueError, RecursionError):
            pass
        else:
            yield value
        at = text.rfind("{", 0, at)


def _ceiling_in(messages: Sequence[Message]) -> float:
    for message in messages:
        found = _CEILING.search(str(message.get("content"))) if message.get("role") == "system" else None
        if found:
            return float(found[1])
    return CEILING_PCT_DEFAULT


def _latency_ms(parameters: Mapping[str, Any], draws: Draws) -> float:
    median = _number(parameters, "sim_latency_ms", LATENCY_MS_DEFAULT, 0.0, math.inf)
    return round(float(median) * math.exp(draws.uniform("latency") - 0.5), 3)


def _fail_perhaps(call: ProviderCall, latency_ms: float, draws: Draws) -> None:
    if latency_ms > call.timeout_s * 1000:
        raise CallFailed(ProposerFailure.TIMEOUT, "simulated: slower than the timeout", call.timeout_s * 1000)
    if draws.chance("failure", _number(call.parameters, "sim_failure_rate", 0.0, 0.0, 1.0)):
        failure = draws.pick("which failure", FAILURES)
        raise CallFailed(failure, f"simulated: {failure.value}", latency_ms)


def _number(parameters: Mapping[str, Any], name: str, default: float, low: float, high: float) -> float:
    value = parameters.get(name, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise UsageError(f"the parameter {name} is {value!r}", f"give a number from {low:g} to {high:g}")
    return float(value)


def _tokens(characters: int) -> int:
    return -(-characters // CHARACTERS_PER_TOKEN)
