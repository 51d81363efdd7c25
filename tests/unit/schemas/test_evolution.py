"""FULL_TRANSITIVE: which changes of a contract pass, which break, and that a break names the field."""

from io import BytesIO
from typing import Any

import pytest
from avro.compatibility import ReaderWriterCompatibilityChecker, SchemaCompatibilityType
from avro.schema import make_avsc_object
from fastavro import schemaless_reader, schemaless_writer
from hypothesis import given
from hypothesis import strategies as st

from driftline.schemas import Contract, ContractError, Contracts
from driftline.schemas.contracts import parse_record
from driftline.schemas.evolution import Break, breaks, breaks_between, obstacles
from driftline.schemas.testing import values_of

NAME = "shop.Order"
ID = {"name": "id", "type": "string"}


def record(*fields: dict[str, Any], **rest: Any) -> dict[str, Any]:
    return {"type": "record", "name": NAME, "fields": [ID, *fields], **rest}


def field(name: str, type: Any, **rest: Any) -> dict[str, Any]:
    return {"name": name, "type": type, **rest}


def enum(*symbols: str, **rest: Any) -> dict[str, Any]:
    return {"type": "enum", "name": "shop.Tier", "symbols": list(symbols), **rest}


def inner(*fields: dict[str, Any], name: str = "shop.Price", **rest: Any) -> dict[str, Any]:
    return {"type": "record", "name": name, "fields": list(fields), **rest}


def told(*versions: dict[str, Any]) -> list[tuple[int, int, str, str]]:
    found = breaks(Contract(NAME, versions))
    return [(b.reader_version, b.writer_version, b.field, b.reason) for b in found]


DATE = {"type": "int", "logicalType": "date"}
MONEY = {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}

PASSES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "a field with a default is added": (record(), record(field("tier", "string", default="basic"))),
    "a nullable field with a default is added": (record(), record(field("t", ["null", "string"], default=None))),
    "a record with a whole default is added": (
        record(),
        record(field("p", inner(field("eur", "int")), default={"eur": 0})),
    ),
    "a field with a default is removed": (record(field("tier", "string", default="basic")), record()),
    "a default changes": (record(field("n", "int", default=1)), record(field("n", "int", default=2))),
    "a doc changes": (record(field("n", "int", doc="a")), record(field("n", "int", doc="b"), doc="c")),
    "fields change places": (
        record(field("a", "int"), field("b", "int")),
        record(field("b", "int"), field("a", "int")),
    ),
    "an enum with a default symbol grows": (
        record(field("t", enum("A", default="A"))),
        record(field("t", enum("A", "B", default="A"))),
    ),
    "the branches of a union change places": (
        record(field("u", ["null", "string"])),
        record(field("u", ["string", "null"])),
    ),
    "a field is renamed with aliases on both sides": (
        record(field("old", "int", aliases=["new"])),
        record(field("new", "int", aliases=["old"])),
    ),
    "a nested record moves to another namespace": (
        record(field("p", inner(field("eur", "int"), name="shop.Price"))),
        record(field("p", inner(field("eur", "int"), name="store.Price"))),
    ),
    "an attribute that Avro does not know is added": (
        record(field("n", "int")),
        record(field("n", "int", scale=[0, 9])),
    ),
}

BREAKS: dict[str, tuple[dict[str, Any], dict[str, Any], list[tuple[int, int, str, str]]]] = {
    "a field without a default is added": (
        record(),
        record(field("n", "int")),
        [(2, 1, "n", "it was not written and has no default")],
    ),
    "a field without a default is removed": (
        record(field("n", "int")),
        record(),
        [(1, 2, "n", "it was not written and has no default")],
    ),
    "a field is renamed with an alias on one side": (
        record(field("old", "int")),
        record(field("new", "int", aliases=["old"])),
        [(1, 2, "old", "it was not written and has no default")],
    ),
    "int widens to long, which only one side can read": (
        record(field("n", "int")),
        record(field("n", "long")),
        [(1, 2, "n", "it expects int and long was written")],
    ),
    "a type changes": (
        record(field("n", "int")),
        record(field("n", "string")),
        [
            (1, 2, "n", "it expects int and string was written"),
            (2, 1, "n", "it expects string and int was written"),
        ],
    ),
    "a field becomes nullable": (
        record(field("s", "string")),
        record(field("s", ["null", "string"])),
        [(1, 2, "s", "it expects string and null was written")],
    ),
    "a union gains a branch": (
        record(field("u", ["null", "string"])),
        record(field("u", ["null", "string", "int"])),
        [(1, 2, "u", "int was written and its union has no such branch")],
    ),
    "an enum without a default symbol grows": (
        record(field("t", enum("A"))),
        record(field("t", enum("A", "B"))),
        [(1, 2, "t", "it does not know the enum symbol B and has no default symbol")],
    ),
    "an enum loses a symbol": (
        record(field("t", enum("A", "B", default="A"))),
        record(field("t", enum("A"))),
        [(2, 1, "t", "it does not know the enum symbol B and has no default symbol")],
    ),
    "a field of a nested record changes": (
        record(field("p", inner(field("eur", "int"), field("vat", "int")))),
        record(field("p", inner(field("eur", "int"), field("vat", "string")))),
        [
            (1, 2, "p.vat", "it expects int and string was written"),
            (2, 1, "p.vat", "it expects string and int was written"),
        ],
    ),
    "a field of a record inside a union inside an array changes": (
        record(field("l", {"type": "array", "items": ["null", inner(field("eur", "int"))]})),
        record(field("l", {"type": "array", "items": ["null", inner(field("eur", "int"), field("vat", "int"))]})),
        [(2, 1, "l.vat", "it was not written and has no default")],
    ),
    "a type that is used twice changes in both places": (
        record(field("was", inner(field("eur", "int"))), field("now", "shop.Price")),
        record(field("was", inner(field("eur", "long"))), field("now", "shop.Price")),
        [
            (1, 2, "was.eur", "it expects int and long was written"),
            (1, 2, "now.eur", "it expects int and long was written"),
        ],
    ),
    "a map's values change": (
        record(field("m", {"type": "map", "values": "int"})),
        record(field("m", {"type": "map", "values": "long"})),
        [(1, 2, "m", "it expects int and long was written")],
    ),
    "a nested record is renamed": (
        record(field("p", inner(field("eur", "int")))),
        record(field("p", inner(field("eur", "int"), name="shop.Cost"))),
        [
            (1, 2, "p", "its type's name changed from shop.Cost to shop.Price"),
            (2, 1, "p", "its type's name changed from shop.Price to shop.Cost"),
        ],
    ),
    "a nested record is renamed with an alias on one side": (
        record(field("p", inner(field("eur", "int")))),
        record(field("p", inner(field("eur", "int"), name="shop.Cost", aliases=["shop.Price"]))),
        [(1, 2, "p", "its type's name changed from shop.Cost to shop.Price")],
    ),
    "a fixed changes its size": (
        record(field("h", {"type": "fixed", "name": "shop.Hash", "size": 16})),
        record(field("h", {"type": "fixed", "name": "shop.Hash", "size": 32})),
        [
            (1, 2, "h", "it expects 16 bytes and 32 were written"),
            (2, 1, "h", "it expects 32 bytes and 16 were written"),
        ],
    ),
}

NOT_SEEN_BY_AVRO: dict[str, tuple[dict[str, Any], dict[str, Any], list[str]]] = {
    "string becomes bytes, which need not be UTF-8": (
        record(field("s", "string")),
        record(field("s", "bytes")),
        ["s"],
    ),
    "a number becomes a date": (record(field("d", "int")), record(field("d", DATE)), ["d"]),
    "a date widens to a plain long": (record(field("d", DATE)), record(field("d", "long")), ["d"]),
    "a decimal shifts its point": (record(field("m", MONEY)), record(field("m", {**MONEY, "scale": 4})), ["m"]),
    "a new field's default is not of its union's first branch": (
        record(),
        record(field("s", ["null", "string"], default="x")),
        ["s"],
    ),
    "a new field's default is no symbol": (record(), record(field("t", enum("A"), default="B")), ["t"]),
    "a new field's default leaves out a field": (
        record(),
        record(field("p", inner(field("eur", "int")), default={})),
        ["p"],
    ),
}


@pytest.mark.parametrize(("old", "new"), PASSES.values(), ids=PASSES)
def test_a_change_that_every_version_can_read_passes(old: dict[str, Any], new: dict[str, Any]) -> None:
    assert told(old, new) == []


@pytest.mark.parametrize(("old", "new", "expected"), BREAKS.values(), ids=BREAKS)
def test_a_breaking_change_is_told_with_versions_field_and_reason(
    old: dict[str, Any], new: dict[str, Any], expected: list[tuple[int, int, str, str]]
) -> None:
    assert told(old, new) == expected


@pytest.mark.parametrize(("old", "new", "fields"), NOT_SEEN_BY_AVRO.values(), ids=NOT_SEEN_BY_AVRO)
def test_a_change_that_avros_own_check_lets_pass_is_told(
    old: dict[str, Any], new: dict[str, Any], fields: list[str]
) -> None:
    assert avro_says(new, old)
    assert [found for found in told(old, new) if found[:2] == (2, 1)]
    assert sorted({told_field for _, _, told_field, _ in told(old, new)}) == fields


@pytest.mark.parametrize(("old", "new"), PASSES.values(), ids=PASSES)
@given(data=st.data())
def test_what_passes_is_really_read_in_both_directions(
    old: dict[str, Any], new: dict[str, Any], data: st.DataObject
) -> None:
    for writer, reader in ((old, new), (new, old)):
        read(reader, writer, data.draw(values_of(Contract(NAME, [writer]))))


TYPES = st.sampled_from(
    [
        "int",
        "long",
        "double",
        "string",
        "boolean",
        ["null", "int"],
        ["null", "long"],
        ["string", "null"],
        ["int", "string"],
        {"type": "array", "items": "int"},
        {"type": "array", "items": "long"},
        {"type": "map", "values": ["null", "int"]},
        enum("A", "B"),
        enum("A", "B", "C", default="A"),
        inner(field("x", "int")),
        inner(field("x", "long"), field("y", ["null", "string"], default=None)),
        ["null", inner(field("x", "double"))],
        DATE,
    ]
)


@given(TYPES, TYPES, st.data())
def test_whatever_passes_of_any_two_types_is_really_read(one: Any, other: Any, data: st.DataObject) -> None:
    reader, writer = record(field("f", one)), record(field("f", other))
    if not obstacles(reader, writer):
        read(reader, writer, data.draw(values_of(Contract(NAME, [writer]))))


@given(TYPES, TYPES)
def test_nothing_passes_that_avros_own_check_refuses(one: Any, other: Any) -> None:
    reader, writer = record(field("f", one)), record(field("f", other))
    assert avro_says(reader, writer) or obstacles(reader, writer)


@given(TYPES)
def test_a_version_always_reads_itself(one: Any) -> None:
    assert obstacles(record(field("f", one)), record(field("f", one))) == []


def test_the_first_version_must_still_read_the_third() -> None:
    without = record()
    string = record(field("t", "string", default=""))
    number = record(field("t", "int", default=0))
    assert told(without, string) == told(without, number) == []
    assert [(reader, writer) for reader, writer, *_ in told(string, without, number)] == [(1, 3), (3, 1)]


def test_a_break_reads_as_one_line() -> None:
    line = str(Break(NAME, 2, 1, "price.vat", "it was not written and has no default"))
    assert line == (
        "shop.Order: version 2 cannot read version 1: field price.vat: it was not written and has no default"
    )


@pytest.mark.parametrize(
    "schema",
    [
        record(field("a", "int"), field("a", "int")),
        record(field("a", ["string", "string"])),
        {"type": "record", "name": "not a name", "fields": []},
        record(field("a", "Unknown")),
    ],
)
def test_a_single_version_that_other_libraries_would_refuse_is_refused(schema: dict[str, Any]) -> None:
    with pytest.raises(ContractError, match="version 1 is not valid Avro"):
        breaks(Contract(NAME, [schema]))


def test_a_logical_type_that_avros_library_does_not_know_is_no_obstacle() -> None:
    schema = record(field("t", {"type": "long", "logicalType": "timestamp-nanos"}))
    assert told(schema, schema) == []


def test_driftlines_own_contracts_hold() -> None:
    assert [line for contract in Contracts.load().values() for line in breaks(contract)] == []


def test_a_schema_from_elsewhere_is_held_against_every_version() -> None:
    theirs = record(field("n", "int"))
    lines = breaks_between(Contract(NAME, [record(), record(field("t", "int", default=0))]), theirs, "registry 3")
    assert lines == [
        "shop.Order: registry 3 cannot read version 1: field n: it was not written and has no default",
        "shop.Order: registry 3 cannot read version 2: field n: it was not written and has no default",
    ]


def read(reader: dict[str, Any], writer: dict[str, Any], value: Any) -> Any:
    out = BytesIO()
    schemaless_writer(out, parse_record(writer), value)
    out.seek(0)
    return schemaless_reader(out, parse_record(writer), parse_record(reader))


def avro_says(reader: dict[str, Any], writer: dict[str, Any]) -> bool:
    checker: Any = ReaderWriterCompatibilityChecker()  # type: ignore[no-untyped-call]
    result = checker.get_compatibility(make_avsc_object(reader), make_avsc_object(writer))
    return result.compatibility is SchemaCompatibilityType.compatible
