"""Tools: what a proposer may read while it makes a proposal. A tool changes nothing: that is for effectors.

Every call and what the model was told of it is on the decision, so that a replay answers from the record: by name and
canonical arguments, never by position.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.errors import PydanticUserError

from driftline.consumers.proposing import THINKING, Message, ToolCall
from driftline.schemas import NotCanonical, Read, ReadStatus, UsageError, canonical_json, content_hash, parse_json
from driftline.schemas.fields import escape_surrogates

READS_MAX_DEFAULT = 8
TOLD_BYTES_MAX = 24 * 1024
"""Of one answer: those of all attempts must fit the decision's record."""
READS_OF_DECISION_MAX = 24
"""Calls of all attempts of a boundary: with their answers, arguments and ids below the megabyte of a record."""
ARGUMENTS_BYTES_MAX = 8 * 1024
"""Of what a model asks one tool: those of all calls must fit as well, whatever it writes."""
NAME_CHARACTERS_MAX = 64
_NAME = re.compile(f"[A-Za-z][A-Za-z0-9_-]{{0,{NAME_CHARACTERS_MAX - 1}}}")
"""Of a tool's name; of a longer one that a model writes, so much is kept that it is too long there as well."""
ID_CHARACTERS_MAX = 8192
"""A call of a longer id gets one from here. Some providers carry a signature of thousands in it."""
REFUSED_CHARACTERS_MAX = 1000
"""What is kept of arguments that are none."""
_NOT_KNOWN_AGAIN = ('"uniqueItems":true', '"writeOnly":true')
"""In the JSON Schema of a set, and of a secret, which is written as stars."""
REFUSALS_MAX = 8
"""Of one round, past the calls that are let through; further calls are as if they had not been made."""


@dataclass(frozen=True)
class Tool:
    """Something that a proposer may ask for. It only reads: it is asked again after a crash, and never in a replay.

    Args:
        name: Unique in the boundary.
        description: What the model is told of it.
        arguments: What it is asked with; the model is shown its JSON Schema. A call is known again by them, so there
            are no sets, whose order changes, no secrets and no excluded fields.
        answer: Given an instance of `arguments`, returns JSON data. A coroutine function is awaited; any other runs
            in a thread, several at once.
        record: Record name of the answer: it must fit, and its fields tagged `pii` are masked before the model or the
            log sees them; None for an answer that holds no personal data.
        timeout_s: Of one call. A thread that takes longer is left behind and not stopped.

    Raises:
        UsageError: The name is none that providers take, the arguments are no model with a JSON Schema, or a call
            could not be known again by them.
    """

    name: str
    description: str
    arguments: type[BaseModel]
    answer: Callable[[Any], Any]
    record: str | None = None
    timeout_s: float = 10.0

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            what = f"use at most {NAME_CHARACTERS_MAX} letters, digits, - and _"
            raise UsageError(f"{self.name!r} cannot name a tool", what)
        if not isinstance(self.arguments, type) or not issubclass(self.arguments, BaseModel):
            raise UsageError(f"the arguments of the tool {self.name} are no pydantic model", "give the class of one")
        if not self.timeout_s > 0:
            raise UsageError(f"the tool {self.name} has a timeout of {self.timeout_s} s", "give it more than 0")
        try:
            shown = canonical_json(self.shown)
        except (PydanticUserError, NotCanonical) as error:
            what = f"the arguments of the tool {self.name} have no JSON Schema: {error.args[0]}"
            raise UsageError(what, "use fields that JSON can carry") from error
        hidden = any(field.exclude for field in self.arguments.model_fields.values())
        if hidden or any(mark in shown for mark in _NOT_KNOWN_AGAIN):
            what = f"a call of the tool {self.name} cannot be known again by its arguments"
            raise UsageError(what, "use lists for sets, and neither secrets nor excluded fields")

    @cached_property
    def shown(self) -> Mapping[str, Any]:
        """What the model is shown, in the form of OpenAI's chat completions, which LiteLLM translates."""
        function = {
            "name": self.name,
            "description": self.description,
            "parameters": self.arguments.model_json_schema(),
        }
        return {"type": "function", "function": function}


@dataclass(frozen=True, slots=True)
class ToolQuestion:
    """A call that a model made of a tool, sorted out: what the tool is to be asked, or why it is not."""

    call: ToolCall
    round: int
    """Request of the attempt, from 1, that was answered with it."""
    arguments: str
    """Canonical JSON; of what is no JSON object, of its text."""
    tool: Tool | None = None
    value: BaseModel | None = None
    """The arguments as the tool takes them; None where it is not to be asked."""
    refusal: ReadStatus | None = None
    reason: str = ""
    """Of the refusal, for the model."""

    @property
    def identity(self) -> tuple[str, str]:
        """Tool name and canonical arguments: what a recorded answer is found by."""
        return self.call.name, self.arguments

    def told(self, status: ReadStatus, answer: str) -> Read:
        """The record of what the model is told."""
        return Read(
            call_id=self.call.id,
            name=self.call.name,
            arguments=self.arguments,
            arguments_hash=content_hash(self.arguments),
            answer_hash=content_hash(answer),
            status=status,
            answer=answer,
            round=self.round,
        )

    def unanswered(self, status: ReadStatus, reason: str) -> Read:
        """The record of a call that the tool has not answered; the reason is all that the model is told."""
        return self.told(status, canonical_json({"status": status, "message": reason}))


def sort_out(calls: Sequence[ToolCall], tools: Iterable[Tool], round_: int, left: int) -> tuple[ToolQuestion, ...]:
    """What tools are to be asked for the calls of one round; those past `left` are refused."""
    known = {tool.name: tool for tool in tools}
    kept = _told_apart(calls[: max(left, 0) + REFUSALS_MAX], round_)
    return tuple(_question(call, known, round_, index < left) for index, call in enumerate(kept))


def _told_apart(calls: Sequence[ToolCall], round_: int) -> Iterator[ToolCall]:
    """The calls as a record can hold them, with an id each: providers refuse a round where two share one."""
    taken: set[str] = set()
    for index, call in enumerate(calls):
        id_: str = escape_surrogates(call.id)
        if not 0 < len(id_) <= ID_CHARACTERS_MAX:
            id_ = f"call_{round_}_{index}"
        while id_ in taken:
            id_ += "_"
        taken.add(id_)
        yield replace(call, id=id_, name=escape_surrogates(call.name)[: NAME_CHARACTERS_MAX + 1])


def _question(call: ToolCall, known: Mapping[str, Tool], round_: int, has_room: bool) -> ToolQuestion:
    raw, tool = _arguments_of(call), known.get(call.name)
    text = canonical_json(escape_surrogates(call.arguments[:REFUSED_CHARACTERS_MAX]) if raw is None else raw)
    if tool is None:
        reason = f"there is no such tool; there is {', '.join(known) or 'none'}"
        return ToolQuestion(call, round_, text, refusal=ReadStatus.UNKNOWN_TOOL, reason=reason)
    if raw is None:
        reason = f"the arguments are no JSON object, or longer than {ARGUMENTS_BYTES_MAX} bytes"
        return ToolQuestion(call, round_, text, tool, refusal=ReadStatus.BAD_ARGUMENTS, reason=reason)
    try:
        value = tool.arguments.model_validate_json(text)
        text = canonical_json(value.model_dump(mode="json", by_alias=True))
    except Exception as error:  # noqa: BLE001 - validators are an app's own code; the model is told
        return ToolQuestion(call, round_, text, tool, refusal=ReadStatus.BAD_ARGUMENTS, reason=_mistakes(error))
    if not has_room:
        reason = "the limit of calls is reached; answer with what you know"
        return ToolQuestion(call, round_, text, tool, refusal=ReadStatus.LIMIT, reason=reason)
    return ToolQuestion(call, round_, text, tool, value)


def _arguments_of(call: ToolCall) -> dict[str, Any] | None:
    """The arguments as data; a call without any gives none."""
    if len(call.arguments.encode("utf-8", "surrogatepass")) > ARGUMENTS_BYTES_MAX:
        return None
    try:
        found = parse_json(call.arguments or "{}")
        canonical_json(found)
    except (ValueError, NotCanonical, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _mistakes(error: Exception) -> str:
    """What is wrong with arguments, field by field, in the words of pydantic and of an app's validators; of anything
    else that these raise, its kind alone."""
    if isinstance(error, NotCanonical):
        return error.message
    if not isinstance(error, ValidationError):
        return f"the arguments cannot be read: {type(error).__name__}"
    found = error.errors(include_url=False, include_context=False, include_input=False)
    return "; ".join(f"{'/'.join(map(str, one['loc'])) or 'arguments'}: {one['msg']}" for one in found)


def read_messages(reads: Sequence[Read], thinking: Sequence[Sequence[Mapping[str, Any]]] = ()) -> list[Message]:
    """The reads as the model is told them: each round's calls, then what became of each.

    Args:
        reads: Of all rounds.
        thinking: What the provider wants back with the calls, by round.
    """
    messages: list[Message] = []
    for round_ in dict.fromkeys(read.round for read in reads):
        asked = [read for read in reads if read.round == round_]
        calling: Message = {"role": "assistant", "content": None, "tool_calls": [_called(read) for read in asked]}
        blocks = thinking[round_ - 1] if thinking else ()
        messages.append({**calling, THINKING: [dict(block) for block in blocks]} if blocks else calling)
        for read in asked:
            told = {"role": "tool", "tool_call_id": read.call_id, "name": read.name, "content": read.answer or ""}
            messages.append(told)
    return messages


def _called(read: Read) -> dict[str, Any]:
    """As a provider takes it back: a name or arguments that a model made up may be none that it takes."""
    arguments = read.arguments if isinstance(json.loads(read.arguments), dict) else "{}"
    name = read.name if _NAME.fullmatch(read.name) else "unknown"
    return {"id": read.call_id, "type": "function", "function": {"name": name, "arguments": arguments}}
