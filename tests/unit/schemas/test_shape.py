"""Shapes: the same verdict as fastavro and as JSON Schema, and every mismatch by its JSON Pointer."""

from typing import Any

import pytest
from fastavro.validation import validate
from hypothesis import assume, given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from driftline.schemas import Codec, Contract, ContractError, Contracts, Registry, Shape
from driftline.schemas.testing import values_of

NAMES = st.sampled_from(["a", "b", "c", "d"])
PRIMITIVES = st.sampled_from(["null", "boolean", "int", "long", "float", "double", "string"])
SYMBOLS = ("RED", "GREEN")
JSON_DATA = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(SYMBOLS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=10,
)


def contract_of(*fields: dict[str, Any], **rest: Any) -> Contract:
    return Contract("shop.Order", [{"type": "record", "name": "shop.Order", "fields": list(fields), **rest}])


def field(name: str, type: Any, **rest: Any) -> dict[str, Any]:
    return {"name": name, "type": type, **rest}


@st.composite
def contracts(draw: st.DrawFn) -> Contract:
    """Records of every type that a proposal may hold, nested, with named types used again by name."""
    names: list[str] = []

    def named(kind: str, **rest: Any) -> dict[str, Any]:
        names.append(f"shop.T{len(names)}")
        return {"type": kind, "name": names[-1], **rest}

    def a_type(depth: int) -> Any:
        inner = ["array", "map", "record", "enum", "union", "again"] if depth else []
        match draw(st.sampled_from(["primitive", *inner])):
            case "array":
                return {"type": "array", "items": draw(st.sampled_from(["int", "string", "boolean"]))}
            case "map":
                return {"type": "map", "values": a_type(depth - 1)}
            case "enum":
                return named("enum", symbols=list(SYMBOLS))
            case "record":
                fields = [field(name, a_type(depth - 1)) for name in draw(st.lists(NAMES, unique=True, max_size=3))]
                return named("record", fields=fields)
            case "union":
                return ["null", draw(PRIMITIVES.filter(lambda kind: kind != "null"))]
            case "again" if names:
                return draw(st.sampled_from(names))
        return draw(PRIMITIVES)

    fields = [field(name, a_type(3)) for name in draw(st.lists(NAMES, unique=True, min_size=1))]
    return contract_of(*fields)


@given(contracts(), st.data())
def test_a_value_made_for_the_schema_fits_and_can_be_encoded_and_shown_to_a_model(
    contract: Contract, data: st.DataObject
) -> None:
    shape, value = Shape(contract), data.draw(values_of(contract))
    assert shape.mismatches(value) == []
    assert Draft202012Validator(shape.json_schema()).is_valid(value)
    Codec(Registry("mock://"), Contracts([contract])).encode("t", contract.name, value, prove=True)


@given(contracts(), st.data())
def test_the_verdict_on_any_data_is_that_of_fastavro(contract: Contract, data: st.DataObject) -> None:
    value = data.draw(mutated(contract))
    assume(not knows_better_than_fastavro(value))
    theirs = validate(value, contract.parsed, raise_errors=False, strict=True)
    assert (not [r for r in Shape(contract).mismatches(value) if r.expected != "no such field"]) == theirs


@given(contracts(), st.data())
def test_what_json_schema_accepts_fits(contract: Contract, data: st.DataObject) -> None:
    shape, value = Shape(contract), data.draw(mutated(contract))
    assume(not knows_better_than_fastavro(value) and not has_long_or_whole_numbers(value))
    assert Draft202012Validator(shape.json_schema()).is_valid(value) == (shape.mismatches(value) == [])


@given(contracts(), st.data())
def test_what_fits_has_no_mismatch_and_what_does_not_has_one(contract: Contract, data: st.DataObject) -> None:
    shape, value = Shape(contract), data.draw(mutated(contract))
    assert shape._fits(value) == (not list(shape._check(contract.parsed, value, "")))


def mutated(contract: Contract) -> st.SearchStrategy[Any]:
    """Values that fit, values that fit but for one field, and anything at all."""
    fits = values_of(contract)
    return fits | st.builds(lambda value, name, other: {**value, name: other}, fits, NAMES, JSON_DATA) | JSON_DATA


def knows_better_than_fastavro(value: Any) -> bool:
    """Numbers that Avro's validator takes and its writer cannot write: NaN, infinities, beyond a 32-bit float."""
    if isinstance(value, (dict, list)):
        return any(map(knows_better_than_fastavro, value.values() if isinstance(value, dict) else value))
    return isinstance(value, (int, float)) and not abs(value) < 3.4e38


def has_long_or_whole_numbers(value: Any) -> bool:
    """Numbers where JSON Schema differs on purpose: it bounds no integer, and 1.0 is an integer to it."""
    if isinstance(value, (dict, list)):
        return any(map(has_long_or_whole_numbers, value.values() if isinstance(value, dict) else value))
    return isinstance(value, (int, float)) and (not -(2**31) <= value < 2**31 or isinstance(value, float))


def test_every_mismatch_is_told_with_its_pointer() -> None:
    item = {"type": "record", "name": "Item", "fields": [field("sku", "string"), field("count", "int")]}
    shape = Shape(contract_of(field("items", {"type": "array", "items": item}), field("note", ["null", "string"])))
    found = shape.mismatches({"items": [{"sku": 1}, {"sku": "x", "count": 2, "extra": 3}], "note": 4}, "/payload")
    assert [(r.path, r.expected, r.actual) for r in found] == [
        ("/payload/items/0/sku", "string", "1"),
        ("/payload/items/0/count", "a value", "nothing"),
        ("/payload/items/1/extra", "no such field", "3"),
        ("/payload/note", "string", "4"),
    ]
    assert {(r.code, r.rule_id, r.retryable) for r in found} == {("schema_mismatch", "schema", True)}


def test_names_with_slashes_and_tildes_are_escaped_as_rfc_6901_has_it() -> None:
    shape = Shape(contract_of(field("by_key", {"type": "map", "values": "int"})))
    assert [r.path for r in shape.mismatches({"by_key": {"a/b": "x"}, "~tilde/": 1})] == [
        "/by_key/a~1b",
        "/~0tilde~1",
    ]


@pytest.mark.parametrize("declared", ["Price", "shop.Price"])
def test_a_type_that_is_used_again_is_known_by_its_short_and_by_its_full_name(declared: str) -> None:
    price = {"type": "record", "name": "Price", "fields": [field("eur", "double")]}
    contract = Contract(
        "shop.Order",
        [
            {
                "type": "record",
                "name": "Order",
                "namespace": "shop",
                "fields": [field("was", price), field("now", ["null", declared])],
            }
        ],
    )
    shape = Shape(contract)
    assert shape.mismatches({"was": {"eur": 1.5}, "now": {"eur": 2}}) == []
    assert [r.path for r in shape.mismatches({"was": {"eur": 1.5}, "now": {"eur": "2"}})] == ["/now/eur"]
    properties = shape.json_schema()["properties"]
    assert properties["now"]["anyOf"][1] == properties["was"]


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("int", 2**31),
        ("int", True),
        ("int", 1.0),
        ("long", 2**63),
        ("float", 1e39),
        ("float", float("nan")),
        ("double", float("inf")),
        ("double", 10**400),
        ("double", "1"),
        ("boolean", 1),
        ("string", None),
        ("string", "\ud800"),
        ({"type": "enum", "name": "Colour", "symbols": ["RED"]}, "red"),
        ({"type": "enum", "name": "Colour", "symbols": ["RED"]}, ["RED"]),
        ({"type": "map", "values": "int"}, {"\ud800": 1}),
        (["int", "boolean"], "neither"),
    ],
)
def test_a_value_that_avro_would_bend_or_break_on_is_refused(kind: Any, value: Any) -> None:
    [rejection] = Shape(contract_of(field("a", kind))).mismatches({"a": value})
    assert rejection.path.startswith("/a")
    rejection.model_dump_json()


def test_an_unknown_field_of_any_name_is_refused_and_can_be_written_down() -> None:
    [rejection] = Shape(contract_of()).mismatches({"\ud800": "\udfff"})
    assert (rejection.path, rejection.actual) == ("/\\ud800", "\\udfff")


def test_a_field_with_a_default_may_be_left_out_though_the_model_is_asked_for_it() -> None:
    shape = Shape(contract_of(field("tier", "string", default="basic", doc="Which tier.")))
    assert shape.mismatches({}) == []
    assert shape.json_schema()["required"] == ["tier"]
    assert shape.json_schema()["properties"]["tier"] == {"type": "string", "description": "Which tier."}


@pytest.mark.parametrize(
    "kind",
    [
        "bytes",
        {"type": "fixed", "name": "Hash", "size": 16},
        {"type": "long", "logicalType": "timestamp-millis"},
        ["null", {"type": "bytes", "logicalType": "decimal", "precision": 4}],
        {"type": "array", "items": "bytes"},
    ],
)
def test_a_type_that_json_cannot_carry_is_refused_when_the_app_is_built(kind: Any) -> None:
    with pytest.raises(ContractError, match=r"shop\.Order\.a: a proposal cannot hold"):
        Shape(contract_of(field("a", kind)))


def test_a_recursive_record_is_refused_when_the_app_is_built() -> None:
    with pytest.raises(ContractError, match="holds itself"):
        Shape(contract_of(field("next", ["null", "shop.Order"])))
