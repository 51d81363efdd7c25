"""Asking an app's tools, in production: all that one round wants to know at once."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from driftline.consumers.conversing import ToolsAsked
from driftline.consumers.tools import TOLD_BYTES_MAX, Tool, ToolQuestion
from driftline.schemas import DriftlineError, NotCanonical, Read, ReadStatus, canonical_json, to_json_data

_log = logging.getLogger(__name__)

Protect = Callable[[str, Mapping[str, Any]], Mapping[str, Any]]
"""From a record name and the fields of an answer to the fields with personal data masked."""


def unprotected(record: str, fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """As they are: where nothing is written to a log."""
    return fields


async def ask_tools(asked: ToolsAsked, protect: Protect) -> Sequence[Read]:
    """Ask each tool what the model wants to know.

    A tool that fails costs no decision: the model is told so, by the kind of the failure alone, for its text may hold
    an address or a key.

    Raises:
        DriftlineError: A mistake of the app that every call would meet, e.g. a record that has no contract.
    """
    return await asyncio.gather(*(_ask(question, protect) for question in asked.questions))


async def _ask(question: ToolQuestion, protect: Protect) -> Read:
    tool, refusal = question.tool, question.refusal
    if tool is None or refusal is not None:
        return question.unanswered(refusal or ReadStatus.UNKNOWN_TOOL, question.reason)
    try:
        async with asyncio.timeout(tool.timeout_s):
            found = await _answer(tool, question.value)
    except TimeoutError:
        return question.unanswered(ReadStatus.TIMEOUT, f"the tool gave no answer within {tool.timeout_s:g} s")
    except DriftlineError:
        raise
    except Exception as error:  # noqa: BLE001 - an app's own code; the model is told and the decision goes on
        _log.warning("the tool %s failed: %s", tool.name, type(error).__name__)
        return question.unanswered(ReadStatus.FAILED, f"the tool failed: {type(error).__name__}")
    return _told(question, tool, found, protect)


async def _answer(tool: Tool, value: Any) -> Any:
    if inspect.iscoroutinefunction(tool.answer):
        return await tool.answer(value)
    return await asyncio.to_thread(tool.answer, value)


def _told(question: ToolQuestion, tool: Tool, found: Any, protect: Protect) -> Read:
    try:
        answer = canonical_json(to_json_data(found if tool.record is None else protect(tool.record, found)))
    except (NotCanonical, TypeError, AttributeError) as error:
        _log.warning("the tool %s answered no JSON data: %s", tool.name, type(error).__name__)
        return question.unanswered(ReadStatus.BAD_ANSWER, "the tool answered what is no JSON data")
    if len(answer.encode()) > TOLD_BYTES_MAX:
        reason = f"the tool answered more than {TOLD_BYTES_MAX} bytes; ask for less"
        return question.unanswered(ReadStatus.BAD_ANSWER, reason)
    return question.told(ReadStatus.OK, answer)
