"""Logs of the commands that run for long: JSON lines for machines, plain lines for people, on stderr.

Everything under the standard logger `driftline` goes through it, so that libraries need no structlog. Fields come
from `extra={...}` or from structlog's contextvars. What leaves here holds no secret (as `safe_line` knows them) and
no value of a record: bytes and objects are shown by their type, and fields that are named like payloads not at all.
"""

from __future__ import annotations

import copy
import logging
import numbers
import os
import sys
from collections.abc import Callable, Collection, Mapping, MutableMapping
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import PurePath
from typing import Any, TextIO

LOGGER = "driftline"
PAYLOAD_FIELDS = frozenset(
    ("value", "key", "data", "context", "payload", "action_payload", "messages", "prompt", "raw_response", "workflow")
)
"""Fields that are struck whatever they hold: what a record, a prompt or a model said, and whose it is."""
NOT_LOGGED = "[not logged]"

_Fields = MutableMapping[str, Any]


class LogFormat(StrEnum):
    """How a line looks."""

    JSON = "json"
    """One JSON object a line."""
    HUMAN = "human"
    """One line for a person."""


def choose_format(asked: LogFormat | None, stream: TextIO) -> LogFormat:
    """What was asked for; else for people on a terminal, and JSON everywhere else."""
    return asked or (LogFormat.HUMAN if stream.isatty() else LogFormat.JSON)


def set_up_logs(
    log_format: LogFormat | None,
    app: str,
    slot: int,
    stream: TextIO | None = None,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> None:
    """Send what is logged under `driftline` to the stream, once; a second call replaces the first.

    Args:
        log_format: None takes what fits the stream.
        app: On every line.
        slot: Process slot, on every line, as is the process id.
        stream: stderr when None.
        now: The wall clock.
    """
    stream = sys.stderr if stream is None else stream
    everywhere = {"app": app, "slot": slot, "pid": os.getpid()}
    handler = _Handler(stream)
    handler.setFormatter(_formatter(choose_format(log_format, stream), everywhere, now))
    logger = logging.getLogger(LOGGER)
    for old in [found for found in logger.handlers if isinstance(found, _Handler)]:
        logger.removeHandler(old)
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False


class _Handler(logging.StreamHandler[TextIO]):
    """Makes plain what is to be put into a message, in a copy: other handlers see the record as it is."""

    def format(self, record: logging.LogRecord) -> str:
        record = copy.copy(record)
        if isinstance(record.args, tuple):
            record.args = tuple(_plain(value) for value in record.args)
        elif record.args:
            record.args = {name: _plain_field(name, value) for name, value in record.args.items()}
        return super().format(record)


def _formatter(
    log_format: LogFormat, everywhere: Mapping[str, Any], now: Callable[[], datetime]
) -> logging.Formatter:
    import structlog

    from driftline.consumers.models.failures import known_secrets

    secrets = known_secrets()

    def stamp(logger: Any, method: str, fields: _Fields) -> _Fields:
        # After the striking: a long app name or a time resembles a key.
        return {"timestamp": now().isoformat(timespec="milliseconds"), **fields, **everywhere}

    def strike(logger: Any, method: str, fields: _Fields) -> _Fields:
        return strike_out(fields, secrets)

    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[
            structlog.contextvars.merge_contextvars,
            structlog.stdlib.add_log_level,
            structlog.stdlib.add_logger_name,
            structlog.stdlib.ExtraAdder(),
        ],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            strike,
            stamp,
            _renderer(log_format),
        ],
    )


def _renderer(log_format: LogFormat) -> Any:
    import structlog

    if log_format is LogFormat.JSON:
        return structlog.processors.JSONRenderer()
    # The plain traceback: the default one prints the values of local variables.
    return structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)


def strike_out(fields: Mapping[str, Any], secrets: Collection[str]) -> dict[str, Any]:
    """The fields without secrets and without what records hold.

    Not guaranteed: a message that was put together before it was logged is searched for secrets, and cannot be for
    values.
    """
    return {name: _struck(name, _plain_field(name, value), secrets) for name, value in fields.items()}


def _plain_field(name: str, value: Any) -> Any:
    return NOT_LOGGED if name in PAYLOAD_FIELDS else _plain(value)


def _plain(value: Any) -> Any:
    """A value as it may be logged: numbers, texts and collections of them; of anything else its type."""
    if value is None or isinstance(value, (bool, str, numbers.Number)):
        return value
    if isinstance(value, Mapping):
        return {str(name): _plain_field(str(name), inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(inner) for inner in value]
    if isinstance(value, (datetime, PurePath, BaseException)):
        return str(value)
    return f"<{len(value)} bytes>" if isinstance(value, bytes) else f"<{type(value).__name__}>"


def _struck(name: str, value: Any, secrets: Collection[str]) -> Any:
    from driftline.consumers.models.failures import STRUCK, safe_line

    if isinstance(value, Mapping):
        return {inner_name: _struck(inner_name, inner, secrets) for inner_name, inner in value.items()}
    if isinstance(value, list):
        return [_struck(name, inner, secrets) for inner in value]
    if not isinstance(value, str):
        return value
    if name.endswith("_id"):  # our own, which resemble keys
        return STRUCK if any(secret in value for secret in secrets) else value
    return "\n".join(_indent(line) + safe_line(line, secrets) for line in value.split("\n"))


def _indent(line: str) -> str:
    return line[: len(line) - len(line.lstrip())]
