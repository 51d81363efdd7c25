"""When a provider may be asked again: `Retry-After` of RFC 9110, 10.2.3, and OpenAI's `retry-after-ms`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from driftline.consumers.models.answers import causes


def retry_after_s(error: Exception, now: Callable[[], datetime]) -> float | None:
    """Seconds until the call behind an error may be made again; None where the provider has not said, or nonsense.

    A date is held against the provider's own `Date`, so that its clock need not agree with ours.

    Args:
        error: What LiteLLM raised, with its causes.
        now: The wall clock, for a response without a `Date`.
    """
    for cause in causes(error):
        headers = _headers(cause)
        told = _milliseconds(headers) or _seconds(headers.get("retry-after")) or _date(headers, now)
        if told is not None and 0 <= told < math.inf:
            return told
    return None


def _headers(error: BaseException) -> Mapping[str, str]:
    found: Any = getattr(getattr(error, "response", None), "headers", None)
    found = found or getattr(error, "litellm_response_headers", None) or {}
    return {str(name).lower(): str(value) for name, value in found.items()}


def _milliseconds(headers: Mapping[str, str]) -> float | None:
    told = _seconds(headers.get("retry-after-ms"))
    return None if told is None else told / 1000


def _seconds(value: str | None) -> float | None:
    try:
        return None if value is None else float(value)
    except ValueError:
        return None


def _date(headers: Mapping[str, str], now: Callable[[], datetime]) -> float | None:
    until = _parsed(headers.get("retry-after"))
    return None if until is None else max(0.0, (until - (_parsed(headers.get("date")) or now())).total_seconds())


def _parsed(value: str | None) -> datetime | None:
    try:
        found = None if value is None else parsedate_to_datetime(value)
    except ValueError:
        return None
    return found.replace(tzinfo=UTC) if found is not None and found.tzinfo is None else found
