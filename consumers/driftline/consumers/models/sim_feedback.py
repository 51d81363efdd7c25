"""How the simulator reads a rejection at the end of the messages, and mends its proposal."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from driftline.consumers.proposing import Message
from driftline.schemas import RejectionCode

_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_FLOOR = re.compile(r"at least|no less|minimum|>", re.IGNORECASE)
_FENCED = re.compile(r"```(?:json)?\s*(\{.*\})\s*```", re.DOTALL)


@dataclass(frozen=True, slots=True)
class LastAnswer:
    """What the assistant said last."""

    text: str | None = None
    proposal: Mapping[str, Any] | None = None
    """The proposal in it, a code fence taken off; None where there is none."""


def rejections_at_end(messages: Sequence[Message]) -> Sequence[Mapping[str, Any]] | None:
    """The rejections in the last message; None where it is no feedback."""
    content = messages[-1].get("content") if messages else None
    feedback = _object(content) if isinstance(content, str) else None
    if feedback is None or feedback.get("status") != "rejected":
        return None
    told = feedback.get("rejections")
    return [each for each in told if isinstance(each, dict)] if isinstance(told, list) else []


def last_proposal(messages: Sequence[Message]) -> LastAnswer:
    """What the assistant said last."""
    for message in reversed(messages):
        text = message.get("content")
        if message.get("role") == "assistant" and isinstance(text, str):
            fenced = _FENCED.search(text)
            proposal = _object(fenced[1] if fenced else text)
            whole = proposal is not None and isinstance(proposal.get("payload"), dict) and "type" in proposal
            return LastAnswer(text, proposal if whole else None)
    return LastAnswer()


def mended(
    last: Mapping[str, Any] | None, rejections: Sequence[Mapping[str, Any]], fresh: Mapping[str, Any]
) -> Mapping[str, Any]:
    """The last proposal as the rejections ask for it, or the fresh one where they do not say how."""
    codes = {rejection.get("code") for rejection in rejections}
    if last is None or codes not in ({RejectionCode.NOT_JSON}, {RejectionCode.POLICY_VIOLATION}):
        return fresh
    if RejectionCode.NOT_JSON in codes:
        return last
    proposal: Mapping[str, Any] | None = last
    for rejection in rejections:
        if proposal is not None:
            proposal = _obeying(proposal, str(rejection.get("path", "")), str(rejection.get("expected", "")))
    return proposal or fresh


def _obeying(last: Mapping[str, Any], path: str, expected: str) -> Mapping[str, Any] | None:
    name, bound = path.rpartition("/")[2], _NUMBER.search(expected)
    value = last["payload"].get(name)
    if bound is None or isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    limit = float(bound[0])
    allowed = max(value, limit) if _FLOOR.search(expected) else min(value, limit)
    return {**last, "payload": {**last["payload"], name: allowed}}


def _object(text: str) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
