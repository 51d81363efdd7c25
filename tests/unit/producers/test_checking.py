"""Payloads against their Avro record: every misfit is told by its field."""

from datetime import UTC, datetime
from typing import Any

import pytest

from driftline.producers.checking import PayloadCheck
from driftline.producers.times import times_of
from driftline.schemas import BadInput, Contract, ContractError

LINE = {"type": "record", "name": "Line", "fields": [{"name": "sku", "type": "string"}]}
STAMP = {"type": "long", "logicalType": "timestamp-millis"}
ORDER: dict[str, Any] = {
    "type": "record",
    "name": "Order",
    "namespace": "shop",
    "fields": [
        {"name": "number", "type": "long"},
        {"name": "first", "type": LINE},
        {"name": "note", "type": ["null", "string"], "default": None},
        {"name": "lines", "type": {"type": "array", "items": "Line"}, "default": []},
        {"name": "gifts", "type": {"type": "map", "values": "Line"}, "default": {}},
        {"name": "last", "type": ["null", "Line"], "default": None},
        {"name": "due", "type": ["null", STAMP], "default": None},
        {"name": "seen", "type": {"type": "array", "items": STAMP}, "default": []},
    ],
}


@pytest.fixture
def check() -> PayloadCheck:
    return PayloadCheck(Contract("shop.Order", [ORDER]))


def _order(**fields: Any) -> dict[str, Any]:
    return {"number": 1, "first": {"sku": "a"}, **fields}


@pytest.mark.parametrize(
    "fields",
    [{}, {"note": None}, {"lines": [{"sku": "b"}]}, {"gifts": {"x": {"sku": "b"}}}, {"last": {"sku": "b"}}],
)
def test_what_fits_passes_defaults_left_out(check: PayloadCheck, fields: dict[str, Any]) -> None:
    check(_order(**fields))


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"number": "1"}, r"shop\.Order\.number: expected long, found '1'"),
        ({"number": True}, r"shop\.Order\.number: expected long, found True"),
        ({"number": None}, r"shop\.Order\.number: expected long, found nothing"),
        ({"number": 2**63}, r"shop\.Order\.number"),
        ({"first": {"sku": 1}}, r"shop\.Line\.sku: expected string"),
        ({"unknown": 1}, r"shop\.Order\.unknown is no field"),
        ({"first": {"sku": "a", "b": 1}}, r"shop\.Order\.first\.b is no field"),
        ({"lines": [{"sku": "a", "b": 1}]}, r"shop\.Order\.lines\.b is no field"),
        ({"gifts": {"x": {"sku": "a", "b": 1}}}, r"shop\.Order\.gifts\.b is no field"),
        ({"last": {"sku": "a", "b": 1}}, r"shop\.Order\.last\.b is no field"),
    ],
)
def test_what_does_not_fit_is_told_by_its_field(check: PayloadCheck, fields: dict[str, Any], told: str) -> None:
    with pytest.raises(ContractError, match=told):
        check(_order(**fields))


def test_text_is_read_as_a_time_only_where_the_schema_has_one() -> None:
    text = "2026-07-01T02:00:00+02:00"
    read = times_of(ORDER, _order(note=text, due=text, seen=[text, 5]))
    midnight = datetime(2026, 7, 1, tzinfo=UTC)
    assert (read["note"], read["due"], read["seen"]) == (text, midnight, [midnight, 5])


@pytest.mark.parametrize("text", ["soon", "2026-07-01T00:00:00"])
def test_a_text_that_is_no_time_is_told_by_its_field(text: str) -> None:
    with pytest.raises(BadInput, match=r"data\.seen\.1: "):
        times_of(ORDER, _order(seen=[5, text]))
