"""One attempt of a proposer that may ask tools: request after request, until it answers.

A generator, like the engine that it is part of: whoever drives it makes the requests and gets what tools say, in
production from the tools and in a replay from the record.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from driftline.consumers.proposing import Answer, ProposalRequest, ProposerFailure
from driftline.consumers.tools import Tool, ToolQuestion, read_messages, sort_out
from driftline.schemas import Read, ReadStatus, Usage


@dataclass(frozen=True, slots=True)
class ToolsAsked:
    """What the model wants to be told before it answers: a `Read` for each question, in their order."""

    questions: tuple[ToolQuestion, ...]


ARGUMENTS_SHOWN_MAX = 200
"""Characters, where a person is told of a call that the log has no answer to."""
Number = TypeVar("Number", int, float)
T = TypeVar("T")
Steps = Generator[ProposalRequest | ToolsAsked, Answer | Sequence[Read], T]
"""Yields what is to be asked next, of the model or of tools; gets the answer sent in; returns its result."""


def converse(request: ProposalRequest, tools: Sequence[Tool], reads_max: int) -> Steps[Answer]:
    """Ask for one attempt. At most `reads_max` calls of tools are let through; past them the model must answer.

    Yields:
        A request, for which an `Answer` is sent in; where it calls tools, `ToolsAsked`, for which the `Read` of each
        question is sent in, and then the next request.

    Returns:
        The answer, with the reads that came before it and what all rounds have cost; `not_recorded` where a read is
        `unrecorded`.
    """
    base, rounds, reads = tuple(request.messages), list[Answer](), list[Read]()
    while True:
        answer = yield request
        if not isinstance(answer, Answer):
            raise TypeError("a request is answered by an Answer")
        rounds.append(answer)
        if not answer.tool_calls or answer.failure is not None or not request.may_ask:
            return _merged(rounds, reads)
        told = yield ToolsAsked(sort_out(answer.tool_calls, tools, len(rounds), reads_max - len(reads)))
        if isinstance(told, Answer):
            raise TypeError("tools that were asked are answered by reads")
        reads += told
        unrecorded = [read for read in told if read.status == ReadStatus.UNRECORDED]
        if unrecorded:
            return _lost(_merged(rounds, reads), unrecorded[0])
        request = replace(
            request,
            messages=(*base, *read_messages(reads, [one.thinking for one in rounds])),
            may_ask=len(reads) < reads_max,
            key=replace(request.key, attempt=_next_attempt(request, answer)),
        )


def _next_attempt(request: ProposalRequest, answer: Answer) -> int:
    """After the failed calls of this round, of which a very long outage leaves only some on the record."""
    return answer.earlier[-1].attempt + 1 if answer.earlier else request.key.attempt


def _lost(answer: Answer, read: Read) -> Answer:
    asked = read.arguments[:ARGUMENTS_SHOWN_MAX] + "…" * (len(read.arguments) > ARGUMENTS_SHOWN_MAX)
    detail = f"the log has no answer of the tool {read.name} to {asked}"
    return replace(answer, text=None, failure=ProposerFailure.NOT_RECORDED, failure_detail=detail)


def _merged(rounds: Sequence[Answer], reads: Sequence[Read]) -> Answer:
    """The last answer, for what all of them have taken."""
    last = rounds[-1]
    if last.tool_calls and not (last.text or "").strip() and last.failure is None:
        why = "the model asked tools where it had to answer"
        last = replace(last, text=None, failure=ProposerFailure.EMPTY, failure_detail=why)
    if len(rounds) == 1 and not last.tool_calls:
        return last
    return replace(
        last,
        tool_calls=(),
        thinking=(),
        usage=Usage(
            prompt_tokens=_sum(rounds, lambda one: one.usage.prompt_tokens),
            completion_tokens=_sum(rounds, lambda one: one.usage.completion_tokens),
        ),
        cost_usd=_sum(rounds, lambda one: one.cost_usd),
        latency_ms=_sum(rounds, lambda one: one.latency_ms),
        earlier=tuple(call for one in rounds for call in one.earlier),
        reads=tuple(reads),
    )


def _sum(rounds: Sequence[Answer], told: Callable[[Answer], Number | None]) -> Number | None:
    """The sum of what is told; None where a round was answered and does not tell, or none does."""
    if any(told(one) is None and one.failure is None for one in rounds):
        return None
    known = [value for value in map(told, rounds) if value is not None]
    return sum(known) if known else None
