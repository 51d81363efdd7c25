"""Comparators: what of a payload counts at the action level, as the fields of the `.avsc` declare it."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from driftline.schemas import Contract, ContractError, Shape, canonical_json
from driftline.schemas.comparing import as_set, rounded

numbers = st.floats(-1e9, 1e9, allow_nan=False)
widths = st.sampled_from([0.001, 0.1, 0.5, 1, 5, 100])
items = st.lists(st.integers(-3, 3) | st.text("ab", max_size=2) | st.booleans() | st.lists(st.integers(0, 1)))


def shape_of(*fields: dict[str, Any]) -> Shape:
    return Shape(Contract("shop.Order", [{"type": "record", "name": "shop.Order", "fields": list(fields)}]))


def field(name: str, type: Any, **rest: Any) -> dict[str, Any]:
    return {"name": name, "type": type, **rest}


def array(items: Any = "string") -> dict[str, Any]:
    return {"type": "array", "items": items}


def test_without_comparators_all_of_a_payload_is_compared_with_its_names_sorted() -> None:
    shape = shape_of(field("b", "int"), field("a", array()))
    assert list(shape.compared({"b": 1, "a": ["y", "x", "x"]}).items()) == [("a", ["y", "x", "x"]), ("b", 1)]


def test_free_text_is_left_out_and_exact_is_the_default_said_aloud() -> None:
    shape = shape_of(field("why", "string", compare="free-text"), field("n", "int", compare="exact"))
    assert shape.compared({"why": "so", "n": 1}) == {"n": 1}


def test_an_array_that_is_a_set_forgets_order_and_repetition() -> None:
    shape = shape_of(field("tags", array(), compare="set"))
    assert shape.compared({"tags": ["b", "a", "b"]}) == shape.compared({"tags": ["a", "b"]}) == {"tags": ["a", "b"]}
    assert shape.compared({"tags": ["a"]}) != shape.compared({"tags": ["a", "b"]})


def test_a_number_with_a_tolerance_is_rounded_to_its_nearest_multiple() -> None:
    shape = shape_of(field("pct", "double", compare={"tolerance": 0.5}))
    assert [shape.compared({"pct": pct})["pct"] for pct in (24.8, 25, 25.2, 25.3)] == [25, 25, 25, 25.5]


def test_a_missing_optional_value_stays_missing() -> None:
    shape = shape_of(
        field("pct", ["null", "double"], compare={"tolerance": 1}), field("tags", ["null", array()], compare="set")
    )
    assert shape.compared({"pct": None, "tags": None}) == {"pct": None, "tags": None}
    assert shape.compared({"pct": 1.2, "tags": ["b", "a"]}) == {"pct": 1, "tags": ["a", "b"]}


def test_comparators_count_in_nested_records_arrays_maps_and_unions() -> None:
    inner = {
        "type": "record",
        "name": "shop.Line",
        "fields": [field("note", "string", compare="free-text"), field("price", "double", compare={"tolerance": 1})],
    }
    shape = shape_of(
        field("first", ["null", inner]),
        field("lines", array("shop.Line"), compare="set"),
        field("by_name", {"type": "map", "values": ["null", "shop.Line", "string"]}),
    )
    line = {"note": "x", "price": 9.6}
    payload = {"first": line, "lines": [line, {"note": "y", "price": 10.1}], "by_name": {"a": line, "b": "s"}}
    assert shape.mismatches(payload) == []
    assert shape.compared(payload) == {
        "by_name": {"a": {"price": 10}, "b": "s"},
        "first": {"price": 10},
        "lines": [{"price": 10}],
    }


@pytest.mark.parametrize(
    ("type_", "compare"),
    [
        ("string", "set"),
        ("string", {"tolerance": 1}),
        ("double", {"tolerance": 0}),
        ("double", {"tolerance": "1"}),
        ("double", {"tolerance": math.inf}),
        ("double", {"tolerance": 1, "unit": "m"}),
        ("double", "numeric"),
        (["null", "string", array()], "set"),
    ],
)
def test_a_comparator_that_is_none_or_fits_not_its_field_is_refused_by_name(type_: Any, compare: Any) -> None:
    with pytest.raises(ContractError, match=r"shop\.Order\.pct: compare"):
        shape_of(field("pct", type_, compare=compare))


@given(numbers, numbers, widths)
def test_numbers_more_than_a_tolerance_apart_differ_and_rounding_moves_by_half_of_it_at_most(
    one: float, other: float, width: float
) -> None:
    assert abs(rounded(one, width) - one) <= width / 2 * (1 + 1e-6) + 1e-6
    assume(abs(one - other) > width * (1 + 1e-6) + 1e-6)
    assert rounded(one, width) != rounded(other, width)


@given(numbers, widths)
def test_a_rounded_number_is_rounded_no_further(number: float, width: float) -> None:
    once = rounded(number, width)
    assert rounded(once, width) == once


@pytest.mark.parametrize("number", [1e300, -1e300, 2**60])
def test_a_number_too_large_to_round_stays(number: float) -> None:
    assert rounded(number, 1e-9) == number


@given(items, st.randoms(use_true_random=False))
def test_a_set_is_the_same_in_any_order_and_as_often_as_its_items_are_repeated(
    values: list[Any], random: Any
) -> None:
    again = [*values, *values]
    random.shuffle(again)
    assert canonical_json(as_set(again)) == canonical_json(as_set(values)) == canonical_json(as_set(as_set(values)))
    assert {canonical_json(item) for item in as_set(values)} == {canonical_json(item) for item in values}


def test_integers_and_doubles_that_are_equal_are_one_item() -> None:
    assert len(as_set([1, 1.0, 2])) == 2


def test_items_that_canonical_json_refuses_can_be_compared() -> None:
    assert as_set([2**60, 1, 2**60]) == as_set([1, 2**60])
