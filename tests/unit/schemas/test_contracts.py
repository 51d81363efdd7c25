"""The `.avsc` folders: what is read from them, and one line for everything that is wrong with them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from driftline.schemas import Contract, ContractError, Contracts
from driftline.schemas.contracts import PACKAGED, parse_record, same_contract

Write = Callable[..., Path]


def record(*fields: dict[str, Any], name: str = "shop.Order", **rest: Any) -> dict[str, Any]:
    return {"type": "record", "name": name, "fields": list(fields), **rest}


def field(name: str, type: Any, **rest: Any) -> dict[str, Any]:
    return {"name": name, "type": type, **rest}


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write schemas as versions 1, 2, … of a record; the folder of all records."""

    def write(folder: str, *versions: Any) -> Path:
        (tmp_path / folder).mkdir()
        for number, schema in enumerate(versions, 1):
            text = schema if isinstance(schema, str) else json.dumps(schema)
            (tmp_path / folder / f"{number}.avsc").write_text(text, encoding="utf-8")
        return tmp_path

    return write


@pytest.mark.parametrize(
    "schema",
    [record(), record(name="Order", namespace="shop"), record(name="shop.Order", namespace="ignored")],
    ids=["full name", "namespace and short name", "full name beside a namespace"],
)
def test_a_record_is_found_by_its_full_name_however_it_is_declared(write: Write, schema: Any) -> None:
    assert Contracts.load(write("shop.Order", schema))["shop.Order"].latest == schema


def test_a_record_without_a_namespace_is_its_short_name(write: Write) -> None:
    assert "Order" in Contracts.load(write("Order", record(name="Order")))


def test_a_reference_by_short_name_resolves_within_the_namespace(write: Write) -> None:
    price = {"type": "record", "name": "Price", "fields": [field("eur", "double")]}
    schema = record(field("was", price), field("is", "Price"), name="Order", namespace="shop")
    parsed = Contracts.load(write("shop.Order", schema))["shop.Order"].parsed
    assert parsed["fields"][1]["type"] == "shop.Price"


def test_driftlines_own_contracts_are_always_there() -> None:
    assert {path.name for path in PACKAGED.iterdir()} == set(Contracts.load())


def test_a_folder_that_is_named_twice_is_read_once(write: Write) -> None:
    folder = write("shop.Order", record())
    assert set(Contracts.load(folder, folder, PACKAGED)) == {*Contracts.load(), "shop.Order"}


def test_versions_come_in_the_order_of_their_numbers_not_of_their_names(write: Write) -> None:
    schemas = [record(doc=f"v{number}") for number in range(1, 12)]
    assert list(Contracts.load(write("shop.Order", *schemas))["shop.Order"].versions) == schemas


def test_files_are_read_as_utf8_wherever_they_are_read(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "latin-1")
    folder = write("shop.Order", json.dumps(record(doc="façade × ∑"), ensure_ascii=False))
    assert Contracts.load(folder)["shop.Order"].latest["doc"] == "façade × ∑"


@pytest.mark.parametrize("hidden", [".git", "__pycache__"])
def test_folders_that_tools_leave_behind_are_no_records(write: Write, hidden: str) -> None:
    folder = write("shop.Order", record())
    (folder / hidden).mkdir()
    assert "shop.Order" in Contracts.load(folder)


NODE = record(field("next", ["null", "shop.Order"]))


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ("{", "not readable as JSON"),
        ('{"type": "record", "type": "record"}', "repeats a key"),
        ("[" * 100_000, "nested too deeply"),
        (3, "not an Avro schema"),
        ({}, "not an Avro schema"),
        ([], "not an Avro record"),
        ({"type": "enum", "name": "shop.Order", "symbols": ["A"]}, "not an Avro record"),
        ({"type": "record", "name": 3, "fields": []}, "not an Avro schema"),
        (record({"name": "a"}), "missing 'type'"),
        (record(field("a", "Unknown")), "Unknown"),
        (record(field("a", {"type": "array"})), "items"),
        (record(field("a", "int", default="x")), "Default value"),
        (record(name="shop.Other"), "holds the record shop.Other"),
        (NODE, "holds itself"),
        (record(field("a", {"type": "array", "items": "null"})), "take no bytes"),
        (record(field("a", {"type": "array", "items": record(name="shop.Empty")})), "take no bytes"),
    ],
)
def test_a_file_that_is_no_safe_contract_is_refused_by_name(write: Write, schema: Any, said: str) -> None:
    folder = write("shop.Order", schema)
    with pytest.raises(ContractError) as caught:
        Contracts.load(folder)
    assert "shop.Order/1.avsc: " in str(caught.value)
    assert said in str(caught.value)


@pytest.mark.parametrize("name", ["01.avsc", "v1.avsc", "latest.avsc", "١.avsc"])
def test_a_file_that_is_not_named_by_its_version_is_refused(write: Write, name: str) -> None:
    folder = write("shop.Order")
    (folder / "shop.Order" / name).write_text(json.dumps(record()))
    with pytest.raises(ContractError, match=r"rename it to 1\.avsc"):
        Contracts.load(folder)


def test_a_gap_in_the_versions_is_refused(write: Write) -> None:
    folder = write("shop.Order", record(), record(), record())
    (folder / "shop.Order" / "2.avsc").unlink()
    with pytest.raises(ContractError, match="version 2 is missing"):
        Contracts.load(folder)


def test_a_record_folder_given_in_place_of_its_parent_is_noticed(write: Write) -> None:
    folder = write("shop.Order", record())
    with pytest.raises(ContractError, match="lies in no record's folder"):
        Contracts.load(folder / "shop.Order")


def test_a_record_folder_without_versions_is_refused(write: Write) -> None:
    with pytest.raises(ContractError, match=r"no \.avsc file"):
        Contracts.load(write("shop.Order"))


def test_a_folder_that_is_not_there_is_refused_with_what_to_create(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="no schema folder"):
        Contracts.load(tmp_path / "nowhere")


def test_one_name_in_two_folders_is_refused_naming_both(tmp_path: Path) -> None:
    for place in ("a", "b"):
        (tmp_path / place / "shop.Order").mkdir(parents=True)
        (tmp_path / place / "shop.Order" / "1.avsc").write_text(json.dumps(record()))
    with pytest.raises(ContractError, match=r"declared twice, in .*/a/shop\.Order and .*/b/shop\.Order"):
        Contracts.load(tmp_path / "a", tmp_path / "b")


def test_a_record_that_is_not_there_is_refused_with_those_that_are() -> None:
    contracts = Contracts([Contract("shop.Order", [record()])])
    with pytest.raises(ContractError, match=r"known are shop\.Order"):
        contracts.require("shop.Ordre")


def test_an_array_is_safe_when_its_items_take_at_least_a_byte() -> None:
    inner = record(field("nothing", "null"), field("something", ["null", "null"][:1]), name="shop.Inner")
    parse_record(record(field("a", {"type": "array", "items": inner})))


@pytest.mark.parametrize(
    ("other", "same"),
    [
        (record(field("a", "int", default=1, doc="other words")), True),
        ({"fields": [field("a", "int", default=1)], "name": "Order", "namespace": "shop", "type": "record"}, True),
        (record(field("a", "int", default=2)), False),
        (record(field("a", "long", default=1)), False),
        (record(field("a", {"type": "int", "logicalType": "date"}, default=1)), False),
        ({"type": "nonsense"}, False),
    ],
)
def test_docs_and_spelling_make_no_other_contract_and_all_else_does(other: Any, same: bool) -> None:
    assert same_contract(record(field("a", "int", default=1, doc="words")), other) is same
