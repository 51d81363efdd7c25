"""Logs: their two forms, and what never leaves the process by them."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import structlog

from driftline.console.logs import LOGGER, NOT_LOGGED, LogFormat, choose_format, set_up_logs
from driftline.log import Coordinates, Record

NOW = datetime(2026, 11, 21, 8, 30, tzinfo=UTC)
SECRET = "correct-horse-battery"
RECORD = Record(Coordinates("shop.events", 0, 7), b"c-17", b"what the record holds", 0)

Lines = Callable[[], list[dict[str, Any]]]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def stream(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    monkeypatch.setenv("SHOP_API_KEY", SECRET)
    logger = logging.getLogger(LOGGER)
    before = list(logger.handlers), logger.level, logger.propagate
    found = io.StringIO()
    set_up_logs(None, "shop", 2, found, lambda: NOW)
    yield found
    logger.handlers[:], logger.level, logger.propagate = before
    structlog.contextvars.clear_contextvars()


@pytest.fixture
def lines(stream: io.StringIO) -> Lines:
    return lambda: [json.loads(line) for line in stream.getvalue().splitlines()]


@pytest.fixture
def log(stream: io.StringIO) -> logging.Logger:
    return logging.getLogger("driftline.shop")


def test_a_line_says_when_where_and_of_which_slot(log: logging.Logger, lines: Lines) -> None:
    log.info("a rebalance took %d partitions", 3, extra={"partitions": [0, 1, 2]})
    (line,) = lines()
    assert line.pop("pid") > 0
    assert line == {
        "timestamp": "2026-11-21T08:30:00.000+00:00",
        "level": "info",
        "logger": "driftline.shop",
        "event": "a rebalance took 3 partitions",
        "partitions": [0, 1, 2],
        "app": "shop",
        "slot": 2,
    }


def test_fields_that_were_bound_before_come_with_every_line(log: logging.Logger, lines: Lines) -> None:
    structlog.contextvars.bind_contextvars(partition=4)
    log.info("paused")
    log.info("resumed")
    assert [line["partition"] for line in lines()] == [4, 4]


def test_setting_up_again_writes_no_line_twice(log: logging.Logger, stream: io.StringIO, lines: Lines) -> None:
    set_up_logs(LogFormat.JSON, "shop", 2, stream, lambda: NOW)
    log.info("once")
    assert len(lines()) == 1


def test_no_secret_is_in_a_message_a_field_or_a_traceback(log: logging.Logger, stream: io.StringIO) -> None:
    try:
        raise ValueError(f"bad key {SECRET}")
    except ValueError:
        log.exception("calling with %s", SECRET, extra={"used": SECRET, "call_id": SECRET, "all": [{"a": SECRET}]})
    log.info("at https://user:hidden-word@broker/?api_key=hidden-word&x=1")
    assert SECRET not in stream.getvalue()
    assert "hidden-word" not in stream.getvalue()
    assert "ValueError: bad key [struck out]" in stream.getvalue()


def test_no_value_of_a_record_is_in_a_line(log: logging.Logger, stream: io.StringIO, lines: Lines) -> None:
    log.info("took %s and %s", RECORD, RECORD.value, extra={"record": RECORD, "raw": RECORD.value})
    log.info("said", extra={"raw_response": "what the record holds", "inner": {"payload": "what the record holds"}})
    log.info("%(value)s of %(topic)s", {"value": "what the record holds", "topic": "shop.events"})
    assert "holds" not in stream.getvalue()
    first, second, third = lines()
    assert first["event"] == "took <Record> and <21 bytes>"
    assert (first["record"], first["raw"]) == ("<Record>", "<21 bytes>")
    assert (second["raw_response"], second["inner"]) == (NOT_LOGGED, {"payload": NOT_LOGGED})
    assert third["event"] == f"{NOT_LOGGED} of shop.events"


def test_other_handlers_see_the_record_as_it_was_logged(
    log: logging.Logger, stream: io.StringIO, caplog: pytest.LogCaptureFixture
) -> None:
    logging.getLogger(LOGGER).addHandler(caplog.handler)
    log.info("took %s", b"bytes")
    assert caplog.messages == ["took b'bytes'"]


def test_ids_of_ours_are_not_taken_for_keys(log: logging.Logger, lines: Lines) -> None:
    id_ = "0d5e9f2a-7c1b-5f44-9a57-2f1f0c3f9b6e"
    log.info("decided", extra={"decision_id": id_})
    assert lines()[0]["decision_id"] == id_


def test_a_terminal_gets_lines_for_people_and_a_pipe_json() -> None:
    assert choose_format(None, Terminal()) is LogFormat.HUMAN
    assert choose_format(None, io.StringIO()) is LogFormat.JSON
    assert choose_format(LogFormat.JSON, Terminal()) is LogFormat.JSON


def test_a_line_for_people_is_one_line_of_text(stream: io.StringIO, log: logging.Logger) -> None:
    set_up_logs(LogFormat.HUMAN, "shop", 2, stream, lambda: NOW)
    log.warning("process 1 was ended by SIGKILL", extra={"child": 1})
    (line,) = stream.getvalue().splitlines()
    assert "process 1 was ended by SIGKILL" in line
    assert "child=1" in line
    assert not line.startswith("{")


def test_a_traceback_for_people_shows_no_local_variable(stream: io.StringIO, log: logging.Logger) -> None:
    set_up_logs(LogFormat.HUMAN, "shop", 2, stream, lambda: NOW)
    held = RECORD.value
    try:
        raise KeyError("gone")
    except KeyError:
        log.exception("failed")
    assert held is not None
    assert "KeyError" in stream.getvalue()
    assert held.decode() not in stream.getvalue()
