"""A recorded-decision file: one model's answer to one event a line, `.jsonl` or `.jsonl.gz`."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, BinaryIO, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, StrictStr, ValidationError

from driftline.schemas.errors import BadInput

_UNDERSCORED = re.compile(r"(\d{4}-\d\d-\d\d)_(\d\d)-(\d\d)-(\d\d)")
"""`2025-03-01_10-58-34`, as the stability recordings write a time."""


def parse_recorded_time(text: Any) -> datetime:
    """A recorded time in UTC: ISO 8601, or `2025-03-01_10-58-34`. A time without a zone is taken as UTC.

    Raises:
        ValueError: It is neither, or its UTC time lies outside the years 1 to 9999.
    """
    if not isinstance(text, str):
        raise ValueError("not a text")
    try:
        time = datetime.fromisoformat(_UNDERSCORED.sub(r"\1T\2:\3:\4", text))
    except ValueError:
        raise ValueError(f"{text[:40]!r} is neither ISO 8601 nor 2025-03-01_10-58-34") from None
    try:
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except OverflowError:
        raise ValueError(f"{text[:40]!r} is no time in UTC: its year is not one of 1 to 9999 there") from None


class RecordedLine(BaseModel):
    """One line. Fields that it does not know are left alone: recordings carry what their source had."""

    model_config = ConfigDict(frozen=True, extra="ignore", coerce_numbers_to_str=True)

    event_id: str
    """What was answered; with `model` and `replicate` unique in a file."""
    stream: str
    """Event type."""
    time: Annotated[datetime, BeforeValidator(parse_recorded_time)]
    """When the model answered, UTC."""
    messages: tuple[dict[str, JsonValue], ...]
    """The chat as it was sent."""
    model: StrictStr
    """`provider/name`."""
    response: StrictStr | None
    """The raw text; null or empty when the model answered nothing."""
    id: str | None = None
    """Id of the fact; without one, an importer derives it from the file and the line."""
    set: str = ""
    """Name of the recording."""
    params: dict[str, JsonValue] = {}
    """Model parameters."""
    replicate: int = 0
    """Which run of the same call this is, from 0."""
    reference: JsonValue = None
    """The gold answer, or a judge's flag of this very answer."""
    latency_ms: float | None = None
    """Milliseconds that the call took; null where the source did not say."""
    cost_usd: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    """Dollars, none below 0; null where the source did not say."""
    completion_tokens: int | None = None
    """Tokens written; null where the source did not say."""


def read_recorded(path: Path) -> Iterator[tuple[int, RecordedLine]]:
    """Every line of a recording with its number, from 1. Blank lines are passed over.

    Raises:
        BadInput: The file cannot be read, or a line is malformed; names `file:line: field`.
    """
    number = 0
    try:
        with _open(path) as file:
            for number, raw in enumerate(file, 1):
                if raw.strip():
                    yield number, parse_recorded_line(raw, f"{path}:{number}")
    except FileNotFoundError:
        raise BadInput(f"no recording at {path}", "give the path of a .jsonl or .jsonl.gz file") from None
    except (OSError, EOFError, zlib.error) as error:
        where = f"{path}:{number + 1}" if number else str(path)
        raise BadInput(f"{where}: cannot be read: {error}", "check that the file is whole and readable") from error


def parse_recorded_line(raw: bytes | str, where: str) -> RecordedLine:
    """Parse one line of a recording; `where` is `file:line`.

    Raises:
        BadInput: The line is malformed; names the first field that is.
    """
    try:
        return RecordedLine.model_validate(json.loads(raw))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(str(step) for step in first["loc"])
        at = f"{where}: {field}" if field else where
        raise BadInput(
            f"{at}: {first['msg'][:1].lower()}{first['msg'][1:]}", "see RecordedLine for the form"
        ) from None
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{where}: not JSON: {error}", "a recording holds one JSON object a line") from None


def _open(path: Path) -> BinaryIO:
    return cast(BinaryIO, gzip.open(path, "rb")) if path.suffix == ".gz" else path.open("rb")
