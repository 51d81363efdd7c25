"""The wire format: whatever bytes arrive, a record or `Undecodable`, soon and in little memory."""

import json
import tracemalloc
from datetime import UTC, datetime
from typing import Any

import pytest
from confluent_kafka.schema_registry import Schema
from hypothesis import given
from hypothesis import strategies as st

from driftline.schemas import Codec, Contract, ContractError, Contracts, Registry, Undecodable, UndecodableReason
from driftline.schemas.testing import values_of
from driftline.schemas.wire import HEADER

OWN = Contracts.load()
TOPIC = "renewals.events"
HUGE_LENGTHS = (
    b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    b"\x80\x80\x80\x80\x80\x01",
    b"\xff" * 9 + b"\x01",
    b"\x01",
)
"""2^63 - 1, 2^34, -2^63 and -1, as Avro writes them."""


def a_codec(*contracts: Contract) -> Codec:
    return Codec(Registry("mock://"), Contracts(contracts) if contracts else OWN)


def record(*fields: dict[str, Any], name: str = "shop.Order", **rest: Any) -> dict[str, Any]:
    return {"type": "record", "name": name, "fields": list(fields), **rest}


def field(name: str, type: Any, **rest: Any) -> dict[str, Any]:
    return {"name": name, "type": type, **rest}


PRIMITIVES = {"string": "ab", "int": 7, "long": 300, "double": 0.5, "boolean": True, "null": None}


def small(contract: Contract) -> Any:
    """One small value, with one item in every array and the last branch of every union."""
    names = contract.parsed["__named_schemas"]

    def of(schema: Any) -> Any:
        if isinstance(schema, list):
            return of(schema[-1])
        if isinstance(schema, str):
            return PRIMITIVES[schema] if schema in PRIMITIVES else of(names[schema])
        if "logicalType" in schema:
            return datetime(2026, 1, 1, tzinfo=UTC)
        if schema["type"] == "array":
            return [of(schema["items"])]
        if schema["type"] == "record":
            return {field["name"]: of(field["type"]) for field in schema["fields"]}
        return of(schema["type"])

    return of(contract.parsed)


def registered_by_others(codec: Codec, schema: str, kind: str) -> int:
    """The id of a schema that somebody put into the registry without driftline."""
    codec.registry.subjects()
    client: Any = codec.registry._client
    return int(client.register_schema("theirs", Schema(schema, kind)))


def survives(codec: Codec, data: bytes | None) -> bool:
    """Whether the bytes decode; anything but `Undecodable` fails the test."""
    try:
        codec.decode(data)
    except Undecodable:
        return False
    return True


@pytest.fixture(params=sorted(OWN))
def own(request: pytest.FixtureRequest) -> Contract:
    """Each of driftline's own contracts."""
    return OWN[request.param]


@given(st.data())
def test_every_value_of_every_record_survives_the_wire(data: st.DataObject) -> None:
    codec, contract = a_codec(), data.draw(st.sampled_from(list(OWN.values())))
    value = data.draw(values_of(contract))
    decoded = codec.decode(codec.encode(TOPIC, contract.name, value))
    assert (decoded.name, decoded.value) == (contract.name, value)


def test_every_change_of_one_byte_ends_in_a_record_or_undecodable(own: Contract) -> None:
    codec = a_codec()
    good = codec.encode(TOPIC, own.name, small(own))
    for position in range(HEADER.size, len(good)):
        changed = bytearray(good)
        for byte in range(256):
            changed[position] = byte
            survives(codec, bytes(changed))


def test_every_truncation_is_undecodable(own: Contract) -> None:
    codec = a_codec()
    good = codec.encode(TOPIC, own.name, small(own))
    assert not any(survives(codec, good[:length]) for length in range(len(good)))


def test_a_corrupt_length_anywhere_allocates_nothing_of_its_size(own: Contract) -> None:
    codec = a_codec()
    good = codec.encode(TOPIC, own.name, small(own))
    tracemalloc.start()
    try:
        for position in range(HEADER.size, len(good)):
            for length in HUGE_LENGTHS:
                survives(codec, good[:position] + length + good[position:])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000


@given(st.data())
def test_random_bytes_under_a_known_schema_end_in_a_record_or_undecodable(data: st.DataObject) -> None:
    codec, contract = a_codec(), data.draw(st.sampled_from(list(OWN.values())))
    schema_id = codec.registry.ensure(TOPIC, contract)
    survives(codec, HEADER.pack(0, schema_id) + data.draw(st.binary(max_size=400)))


@given(st.data())
def test_a_damaged_record_of_any_content_ends_in_a_record_or_undecodable(data: st.DataObject) -> None:
    codec, contract = a_codec(), data.draw(st.sampled_from(list(OWN.values())))
    good = codec.encode(TOPIC, contract.name, data.draw(values_of(contract)))
    start, end = sorted(data.draw(st.tuples(*[st.integers(HEADER.size, len(good))] * 2)))
    survives(codec, good[:start] + data.draw(st.binary(max_size=12)) + good[end:])


@given(st.binary())
def test_random_bytes_end_in_undecodable(data: bytes) -> None:
    assert not survives(a_codec(), data)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (None, UndecodableReason.NO_VALUE),
        (b"", UndecodableReason.NOT_WIRE_FORMAT),
        (b"\x00\x00\x00\x01", UndecodableReason.NOT_WIRE_FORMAT),
        (b'{"json": true}', UndecodableReason.NOT_WIRE_FORMAT),
        (HEADER.pack(0, 4711) + b"x", UndecodableReason.UNKNOWN_SCHEMA_ID),
        (HEADER.pack(0, 2**32 - 1), UndecodableReason.UNKNOWN_SCHEMA_ID),
    ],
)
def test_bytes_that_are_none_of_ours_say_why(data: bytes | None, reason: UndecodableReason) -> None:
    with pytest.raises(Undecodable) as caught:
        a_codec().decode(data)
    assert caught.value.reason is reason


def test_bytes_after_the_end_are_noticed() -> None:
    codec = a_codec()
    good = codec.encode(TOPIC, "driftline.Artifact", dict.fromkeys(("hash", "kind", "name", "content"), ""))
    with pytest.raises(Undecodable) as caught:
        codec.decode(good + b"\x00")
    assert caught.value.reason is UndecodableReason.TRAILING_BYTES


@pytest.mark.parametrize(
    "unsafe",
    [
        record(field("next", ["null", "shop.Order"])),
        record(field("many", {"type": "array", "items": "null"})),
        {"type": "enum", "name": "shop.Order", "symbols": ["A"]},
        {"type": "record", "name": "shop.Order", "fields": [field("a", "shop.Elsewhere")]},
        {"__fastavro_parsed": True, "__named_schemas": {}, "type": "record", "name": "shop.Order", "fields": [1]},
    ],
    ids=["recursive", "items of no bytes", "no record", "a reference", "not what it claims"],
)
def test_a_foreign_schema_that_cannot_be_decoded_safely_is_refused_before_a_byte_is_read(unsafe: Any) -> None:
    codec = a_codec(Contract("shop.Order", [record(field("a", "int"))]))
    schema_id = registered_by_others(codec, json.dumps(unsafe), "AVRO")
    with pytest.raises(Undecodable) as caught:
        codec.decode(HEADER.pack(0, schema_id) + b"\x02" * 100_000)
    assert caught.value.reason is UndecodableReason.NOT_AVRO


@pytest.mark.parametrize(("text", "kind"), [('syntax = "proto3";', "PROTOBUF"), ("{}", "JSON"), ("not json", "AVRO")])
def test_a_schema_id_of_another_format_is_undecodable(text: str, kind: str) -> None:
    codec = a_codec()
    schema_id = registered_by_others(codec, text, kind)
    with pytest.raises(Undecodable) as caught:
        codec.decode(HEADER.pack(0, schema_id) + b"\x00")
    assert caught.value.reason is UndecodableReason.NOT_AVRO


def test_a_record_of_an_older_version_is_read_into_the_packaged_one() -> None:
    old, new = record(field("id", "string")), record(field("id", "string"), field("tier", "string", default="basic"))
    registry = Registry("mock://")
    written = Codec(registry, Contracts([Contract("shop.Order", [old])])).encode(TOPIC, "shop.Order", {"id": "7"})
    read = Codec(registry, Contracts([Contract("shop.Order", [old, new])])).decode(written)
    assert read.value == {"id": "7", "tier": "basic"}


def test_a_record_of_a_newer_version_is_read_by_yesterdays_code() -> None:
    old, new = record(field("id", "string")), record(field("id", "string"), field("tier", "string", default="basic"))
    registry = Registry("mock://")
    newer = Codec(registry, Contracts([Contract("shop.Order", [old, new])]))
    written = newer.encode(TOPIC, "shop.Order", {"id": "7", "tier": "gold"})
    assert Codec(registry, Contracts([Contract("shop.Order", [old])])).decode(written).value == {"id": "7"}


def test_a_schema_that_cannot_be_reconciled_is_undecodable_and_says_so() -> None:
    registry = Registry("mock://")
    theirs = Codec(registry, Contracts([Contract("shop.Order", [record(field("id", "string"))])]))
    written = theirs.encode(TOPIC, "shop.Order", {"id": "7"})
    with pytest.raises(Undecodable) as caught:
        Codec(registry, Contracts([Contract("shop.Order", [record(field("id", "int"))])])).decode(written)
    assert caught.value.reason is UndecodableReason.INCOMPATIBLE


def test_a_record_type_that_is_not_packaged_is_read_as_it_was_written() -> None:
    registry = Registry("mock://")
    theirs = Codec(registry, Contracts([Contract("shop.Order", [record(field("id", "string"))])]))
    decoded = Codec(registry, Contracts([])).decode(theirs.encode(TOPIC, "shop.Order", {"id": "7"}))
    assert (decoded.name, decoded.value) == ("shop.Order", {"id": "7"})


ORDER = Contract(
    "shop.Order",
    [
        record(
            field("id", "string"),
            field("count", "int", default=1),
            field("paid", "boolean", default=False),
            field("tags", ["null", {"type": "array", "items": "string"}], default=None),
            field("note", ["null", "string"]),
        )
    ],
)
FULL = {"id": "7", "count": 1, "paid": True, "tags": None, "note": None}


def test_what_is_left_out_takes_its_default() -> None:
    codec = a_codec(ORDER)
    decoded = codec.decode(codec.encode(TOPIC, "shop.Order", {"id": "7", "note": "x"}))
    assert decoded.value == {"id": "7", "count": 1, "paid": False, "tags": None, "note": "x"}


@pytest.mark.parametrize("tags", [("a",), ("a", "b"), ("a", "b", "c"), ["a", "b"]])
def test_a_tuple_is_an_array_also_inside_a_union(tags: Any) -> None:
    codec = a_codec(ORDER)
    assert codec.decode(codec.encode(TOPIC, "shop.Order", {**FULL, "tags": tags})).value["tags"] == list(tags)


@pytest.mark.parametrize(
    "value",
    [
        {**FULL, "Note": "a misspelt field"},
        {"id": "7"},
        {**FULL, "id": None},
        {**FULL, "id": 7},
        {**FULL, "id": "\ud800"},
        {**FULL, "count": "1"},
        {**FULL, "count": 2**70},
        {**FULL, "tags": 3},
        {**FULL, "tags": [3]},
        {},
        [],
        None,
    ],
)
def test_a_value_that_does_not_fit_is_refused_and_nothing_is_written(value: Any) -> None:
    with pytest.raises(ContractError, match=r"does not fit shop\.Order"):
        a_codec(ORDER).encode(TOPIC, "shop.Order", value)


@pytest.mark.parametrize(
    "change", [{"count": 3.7}, {"count": 2**31}, {"count": True}, {"paid": "no"}, {"paid": None}]
)
def test_a_value_that_fastavro_would_bend_into_shape_is_refused_under_proof(change: dict[str, Any]) -> None:
    with pytest.raises(ContractError, match=r"does not fit shop\.Order"):
        a_codec(ORDER).encode(TOPIC, "shop.Order", {**FULL, **change}, prove=True)


def test_proof_changes_no_byte_of_a_value_that_fits() -> None:
    codec = a_codec(ORDER)
    value = {**FULL, "tags": ("a", "b")}
    assert codec.encode(TOPIC, "shop.Order", value, prove=True) == codec.encode(TOPIC, "shop.Order", value)


def test_a_record_without_a_contract_is_refused() -> None:
    with pytest.raises(ContractError, match=r"no contract for the record shop\.Ordre"):
        a_codec(ORDER).encode(TOPIC, "shop.Ordre", {})
