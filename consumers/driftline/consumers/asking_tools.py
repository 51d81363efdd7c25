"""Asking an app's tools, in production: all that one round wants to know at once."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

from driftline.consumers.conversing import ToolsAsked
from driftline.consumers.tools import TOLD_BYTES_MAX, Tool, ToolQuestion
from driftline.schemas import Read, ReadStatus, UsageError, canonical_json, to_json_data

_log = logging.getLogger(__name__)

ANSWER_KINDS = (str, int, float, bool, type(None), bytes, datetime, date, time, Decimal, UUID)
"""What an answer holds beside lists and mappings: what a datum of Avro does."""

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
        UsageError: A mistake of the app that every call would meet, e.g. a record that has no contract.
    """
    return await asyncio.gather(*(_ask(question, protect) for question in asked.questions))


async def _ask(question: ToolQuestion, protect: Protect) -> Read:
    tool, refusal = question.tool, question.refusal
    if tool is None or refusal is not None:
        return question.unanswered(refusal or ReadStatus.UNKNOWN_TOOL, question.reason)
    limit = asyncio.timeout(tool.timeout_s)
    try:
        async with limit:
            found = await _answer(tool, question.value)
    except UsageError:
        raise
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        return question.unanswered(ReadStatus.FAILED, "the tool failed: CancelledError")  # of something it waited for
    except Exception as error:  # noqa: BLE001 - an app's own code; the model is told and the decision goes on
        if isinstance(error, TimeoutError) and limit.expired():
            return question.unanswered(ReadStatus.TIMEOUT, f"the tool gave no answer within {tool.timeout_s:g} s")
        _log.warning("the tool %s failed: %s", tool.name, type(error).__name__)
        return question.unanswered(ReadStatus.FAILED, f"the tool failed: {type(error).__name__}")
    return _told(question, tool, found, protect)


async def _answer(tool: Tool, value: Any) -> Any:
    if inspect.iscoroutinefunction(tool.answer):
        return await tool.answer(value)
    found = await _in_thread(tool.answer, value)
    return await found if inspect.isawaitable(found) else found


async def _in_thread(function: Callable[[Any], Any], value: Any) -> Any:
    """As `asyncio.to_thread`, in a thread that nobody waits for: one that hangs must neither take a place from other
    work nor hold up the end of the process."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Any] = loop.create_future()

    def settle(found: Any, error: BaseException | None) -> None:
        if done.done():
            return  # nobody waits any more
        if error is None:
            done.set_result(found)
        else:
            done.set_exception(RuntimeError("no next item") if isinstance(error, StopIteration) else error)

    def run() -> None:
        found, failed = None, None
        try:
            found = function(value)
        except Exception as error:  # noqa: BLE001 - it is raised where it is waited for
            failed = error
        except BaseException as error:  # noqa: BLE001 - a tool must not end the process
            failed = RuntimeError(type(error).__name__)
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(settle, found, failed)

    threading.Thread(target=contextvars.copy_context().run, args=(run,), daemon=True).start()
    return await done


def _told(question: ToolQuestion, tool: Tool, found: Any, protect: Protect) -> Read:
    try:
        _require_json_data(found)
        shown = found if tool.record is None else _protected(tool.record, found, protect)
        answer = canonical_json(to_json_data(shown))
        size = len(answer.encode())
    except Exception as error:
        if isinstance(error, UsageError):
            raise
        _log.warning("the tool %s answered no JSON data of its kind: %s", tool.name, type(error).__name__)
        of = "" if tool.record is None else f" that fits {tool.record}"
        return question.unanswered(ReadStatus.BAD_ANSWER, f"the tool answered what is no JSON data{of}")
    if size > TOLD_BYTES_MAX:
        reason = f"the tool answered more than {TOLD_BYTES_MAX} bytes; ask for less"
        return question.unanswered(ReadStatus.BAD_ANSWER, reason)
    return question.told(ReadStatus.OK, answer)


def _protected(record: str, found: Any, protect: Protect) -> Mapping[str, Any]:
    if not isinstance(found, Mapping):
        raise TypeError("no fields of a record")
    return protect(record, found)


def _require_json_data(value: Any) -> None:
    """Refuse what would be told by its `str`, which may hold an address in memory or a key.

    Raises:
        TypeError: It is, or holds, such a value.
    """
    if isinstance(value, Mapping):
        for item in value.values():
            _require_json_data(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            _require_json_data(item)
    elif not isinstance(value, ANSWER_KINDS):
        raise TypeError("no JSON data")
