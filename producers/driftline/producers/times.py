"""Times in JSON payloads: RFC 3339 text where the Avro schema asks for a timestamp."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from driftline.schemas import BadInput
from driftline.schemas.cloudevents import parse_time

TIMESTAMPS = {"timestamp-millis", "timestamp-micros"}


def times_of(schema: Any, value: Any, at: str = "data") -> Any:
    """The value with every text that stands where the schema has a timestamp read as one; the rest as it is.

    Raises:
        BadInput: Such a text is no time; names the field.
    """
    if isinstance(schema, list):
        branches = [branch for branch in schema if branch != "null"]
        return times_of(branches[0], value, at) if len(branches) == 1 else value
    if not isinstance(schema, dict):
        return value
    if schema.get("logicalType") in TIMESTAMPS and isinstance(value, str):
        return _time(value, at)
    if schema["type"] == "record" and isinstance(value, Mapping):
        fields = {field["name"]: field["type"] for field in schema["fields"]}
        return {name: times_of(fields.get(name), item, f"{at}.{name}") for name, item in value.items()}
    if schema["type"] == "array" and isinstance(value, list):
        return [times_of(schema["items"], item, f"{at}.{index}") for index, item in enumerate(value)]
    if schema["type"] == "map" and isinstance(value, Mapping):
        return {name: times_of(schema["values"], item, f"{at}.{name}") for name, item in value.items()}
    return times_of(schema["type"], value, at) if isinstance(schema["type"], (dict, list)) else value


def _time(text: str, at: str) -> datetime:
    try:
        return parse_time(text)
    except ValueError as error:
        raise BadInput(f"{at}: {error}", "write it as 2026-07-01T00:00:00Z") from error
