"""The summary of a run as JSON data, and back from it and summed up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

from driftline.consumers.summary import RunSummary

STREAMS = "streams"
"""The one field that counts pairs: nested in JSON, whose keys are texts."""


def summary_data(summary: RunSummary) -> dict[str, Any]:
    """The summary as JSON data, field by field."""
    found = {item.name: getattr(summary, item.name) for item in fields(summary)}
    data = {name: dict(value) if isinstance(value, Counter) else value for name, value in found.items()}
    streams: dict[str, dict[str, int]] = {}
    for (stream, verdict), count in summary.streams.items():
        streams.setdefault(stream, {})[verdict] = count
    return {**data, STREAMS: streams}


def sum_summaries(data: Iterable[Mapping[str, Any]]) -> RunSummary:
    """The sum of summaries, each as `summary_data` gave it; of texts the last."""
    total = RunSummary()
    for one in data:
        for item in fields(total):
            setattr(total, item.name, _added(getattr(total, item.name), _value(item.name, one)))
    return total


def _value(name: str, data: Mapping[str, Any]) -> Any:
    if name != STREAMS:
        return data[name]
    return {(stream, verdict): count for stream, counts in data[name].items() for verdict, count in counts.items()}


def _added(total: Any, value: Any) -> Any:
    if isinstance(total, Counter):
        return total + Counter(value)
    return value or total if isinstance(total, str) else total + value
