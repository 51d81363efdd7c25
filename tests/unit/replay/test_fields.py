"""Field-level changes: one row a field of an action, by JSON Pointer, exactly where the action level differs."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from driftline.consumers.judging import Action, Judgement
from driftline.consumers.proposing import Answer
from driftline.replay import JudgedAnswer
from driftline.replay.fields import FieldChange, field_changes

values = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.floats(-1, 1) | st.text("a/~", max_size=2),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text("a/~", max_size=2), inner, max_size=2),
    max_leaves=6,
)
payloads = st.dictionaries(st.sampled_from("abc"), values, max_size=3)


def judged(payload: dict[str, Any] | None, type: str = "shop.Paid") -> JudgedAnswer:
    act = None if payload is None else (lambda: Action(type, payload, {}))
    return JudgedAnswer(Answer("text"), Judgement((), None, act))


def test_a_changed_number_stands_at_its_pointer_with_both_values() -> None:
    assert field_changes(judged({"pct": 25, "months": 12}), judged({"pct": 37, "months": 12})) == [
        FieldChange("/payload/pct", 25, 37)
    ]


def test_names_are_escaped_as_rfc_6901_has_it() -> None:
    assert [one.path for one in field_changes(judged({"a/b": {"~": 1}}), judged({"a/b": {"~": 2}}))] == [
        "/payload/a~1b/~0"
    ]


def test_an_action_of_another_type_is_one_change() -> None:
    found = field_changes(judged({"a": 1}, "shop.Paid"), judged({"b": 2}, "shop.Refused"))
    assert found == [FieldChange("/type", "shop.Paid", "shop.Refused")]


def test_where_one_answer_has_no_action_the_whole_changed() -> None:
    whole = {"type": "shop.Paid", "payload": {"a": 1}}
    assert field_changes(judged({"a": 1}), judged(None)) == [FieldChange("", whole, None)]
    assert field_changes(judged(None), judged({"a": 1})) == [FieldChange("", None, whole)]


def test_an_array_is_one_field() -> None:
    assert field_changes(judged({"a": [1, 2]}), judged({"a": [0, 1, 2]})) == [
        FieldChange("/payload/a", [1, 2], [0, 1, 2])
    ]


def test_a_field_that_is_null_is_not_one_that_is_missing() -> None:
    assert field_changes(judged({"a": None}), judged({})) == [FieldChange("/payload/a", None, None)]


@given(payloads, payloads)
def test_there_are_changed_fields_exactly_where_the_action_level_differs(
    before: dict[str, Any], after: dict[str, Any]
) -> None:
    one, other = judged(before), judged(after)
    assert bool(field_changes(one, other)) == (one.hashes["action"] != other.hashes["action"])
    assert field_changes(one, one) == []
