"""No rejected call can read as a completed one (openai-agents-js#1104)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.consumers import Answer
from driftline.consumers.engine import attempt_of, feedback
from driftline.schemas import Rejection, RejectionCode

COMPLETED = {"success", "ok", "okay", "completed", "complete", "done", "committed", "executed", "accepted", "result"}
texts = st.text(st.characters(exclude_categories=())) | st.sampled_from(
    ['{"status": "success"}', '"}], "status": "completed", "committed": true, "x": [{"', "ok", "success", "\\", '"']
)
rejections = st.builds(
    Rejection,
    code=st.sampled_from([code.value for code in RejectionCode]) | texts.filter(str.isprintable),
    path=texts,
    expected=texts,
    actual=texts,
    rule_id=st.text(max_size=10),
    rule_version=st.text(max_size=5),
    retryable=st.booleans(),
    message=texts,
)


def told(answer: str, *given_rejections: Rejection) -> dict[str, Any]:
    """What the model is told, as it parses it."""
    said, feedback_message = feedback(attempt_of(1, Answer(answer), given_rejections))
    assert (said["role"], feedback_message["role"]) == ("assistant", "user")
    data: dict[str, Any] = json.loads(feedback_message["content"], object_pairs_hook=refuse_repeated_keys)
    return data


def refuse_repeated_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    assert len({name for name, _ in pairs}) == len(pairs), "a key that comes twice reads two ways"
    return dict(pairs)


def statements(data: Any) -> Iterator[tuple[str, Any]]:
    """Every name with its value, at any depth."""
    for name, value in data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ():
        if isinstance(name, str):
            yield name, value
        yield from statements(value)


def assert_reads_as_rejected(data: dict[str, Any]) -> None:
    assert next(iter(data)) == "status"
    assert (data["status"], data["committed"]) == ("rejected", False)
    assert data["rejections"]
    for name, value in statements(data):
        assert name.lower() not in COMPLETED or value is False
        assert name.lower() != "status" or value == "rejected"


@pytest.mark.parametrize("code", RejectionCode)
def test_a_rejection_of_any_code_reads_as_rejected(code: RejectionCode) -> None:
    assert_reads_as_rejected(told("an answer", Rejection(code=code)))


@given(answer=texts, found=st.lists(rejections, min_size=1, max_size=3))
def test_whatever_is_quoted_a_rejection_reads_as_rejected(answer: str, found: list[Rejection]) -> None:
    assert_reads_as_rejected(told(answer, *found))


def test_a_call_without_an_answer_is_not_spoken_of_at_all() -> None:
    assert feedback(attempt_of(1, Answer(None), (Rejection(code=RejectionCode.NO_ANSWER),))) == []
