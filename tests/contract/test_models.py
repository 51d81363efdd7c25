"""Models and `.avsc` files are written by hand, both; here they are held to each other."""

import types
from collections.abc import Iterator
from datetime import datetime
from typing import Any, Literal, Union, get_args, get_origin

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

from driftline.schemas import Codec, Contract, Contracts, Decision, InputCoordinates, Registry
from driftline.schemas.testing import values_of

AVRO_OF = {
    str: {"string"},
    int: {"int", "long"},
    float: {"double"},
    bool: {"boolean"},
    datetime: {"timestamp-millis"},
}
per_model = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)

Modelled = tuple[type[BaseModel], Contract]


@per_model
@given(data=st.data())
def test_an_instance_survives_the_wire_as_it_is(modelled: Modelled, data: st.DataObject) -> None:
    model, contract = modelled
    codec = Codec(Registry("mock://"), Contracts([contract]))
    sent = model.model_validate(data.draw(values_of(contract)) | kind_of(model))
    received = codec.decode(codec.encode("t", contract.name, sent.model_dump(), prove=True))
    assert model.model_validate(received.value) == sent


@per_model
@given(data=st.data())
def test_an_instance_survives_json_as_it_is(modelled: Modelled, data: st.DataObject) -> None:
    model, contract = modelled
    sent = model.model_validate(data.draw(values_of(contract)) | kind_of(model))
    assert model.model_validate_json(sent.model_dump_json()) == sent


def test_model_and_contract_have_the_same_fields_in_the_same_order(modelled: Modelled) -> None:
    for model, schema in records(*modelled):
        assert list(model.model_fields) == [field["name"] for field in schema["fields"]], schema["name"]


def test_model_and_contract_allow_null_in_the_same_places(modelled: Modelled) -> None:
    for name, ours, theirs in fields(*modelled):
        assert (type(None) in get_args(ours.annotation)) == (isinstance(theirs["type"], list)), name


def test_model_and_contract_have_the_same_types(modelled: Modelled) -> None:
    for name, ours, theirs in fields(*modelled):
        kind, inner = bare(ours.annotation)
        avro, items = bare_avro(theirs["type"])
        assert (inner is None) == (items is None), name
        assert fits(kind, avro) and (inner is None or fits(inner, items)), name


def test_model_and_contract_agree_on_defaults(modelled: Modelled) -> None:
    for name, ours, theirs in fields(*modelled):
        if ours.is_required():
            # A writer must say it; that a reader can do without it is what lets the contract evolve.
            assert theirs.get("default") in (None, []), name
        else:
            default = to_jsonable_python(ours.default)
            assert theirs.get("default", default) == default, name


def test_every_record_and_every_field_says_what_it_is(own: Contract) -> None:
    for schema in named_records(own.parsed):
        assert schema["doc"].strip(), schema["name"]
        for field in schema["fields"]:
            assert field["doc"].strip(), f"{schema['name']}.{field['name']}"


def test_a_model_takes_no_field_that_its_contract_does_not_know(modelled: Modelled) -> None:
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        modelled[0].model_validate({"unheard_of": 1})


def test_a_time_is_kept_in_utc_and_to_the_millisecond_from_the_start() -> None:
    time = datetime.fromisoformat("2026-03-01T12:00:00.123999+02:00")
    at = InputCoordinates(topic="t", partition=0, offset=0, event_id="e", event_time=time)
    assert at.event_time.isoformat() == "2026-03-01T10:00:00.123000+00:00"


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(ValidationError, match="no time zone"):
        InputCoordinates(topic="t", partition=0, offset=0, event_id="e", event_time=datetime(2026, 1, 1))


@given(data=st.data())
def test_a_text_that_no_utf8_can_hold_is_logged_escaped(data: st.DataObject) -> None:
    contract = Contracts.load()["driftline.Decision"]
    value = data.draw(values_of(contract).filter(lambda value: value["attempts"]))
    value["attempts"][0]["raw_response"] = '{"name": "\ud83d"}'
    logged = Decision.model_validate(value)
    assert logged.attempts[0].raw_response == '{"name": "\\ud83d"}'
    Codec(Registry("mock://"), Contracts([contract])).encode("t", contract.name, logged.model_dump())


def kind_of(model: type[BaseModel]) -> dict[str, str]:
    return {"kind": model.__name__} if "kind" in model.model_fields else {}


def records(model: type[BaseModel], contract: Contract) -> Iterator[tuple[type[BaseModel], Any]]:
    """The model with its record, and every model within with its own."""
    by_name = {schema["name"].rpartition(".")[2]: schema for schema in named_records(contract.parsed)}
    found = [model]
    for each in found:
        yield each, by_name.pop(each.__name__)
        kinds = [kind for field in each.model_fields.values() for kind in bare(field.annotation)]
        found += dict.fromkeys(k for k in kinds if is_model(k) and k not in found)
    assert not by_name, f"records without a model: {sorted(by_name)}"


def fields(model: type[BaseModel], contract: Contract) -> Iterator[tuple[str, FieldInfo, Any]]:
    """Every field of the model and of those within: dotted name, the model's, the contract's."""
    for each, schema in records(model, contract):
        for theirs in schema["fields"]:
            yield f"{each.__name__}.{theirs['name']}", each.model_fields[theirs["name"]], theirs


def named_records(schema: Any) -> Iterator[Any]:
    """Every record declared in a parsed schema, outermost first."""
    if isinstance(schema, list):
        for branch in schema:
            yield from named_records(branch)
    elif isinstance(schema, dict):
        if schema["type"] == "record":
            yield schema
            for field in schema["fields"]:
                yield from named_records(field["type"])
        elif schema["type"] == "array":
            yield from named_records(schema["items"])


def bare(annotation: Any) -> tuple[Any, Any]:
    """A type without its `| None`, and what a tuple holds: `tuple[Read, ...]` is (tuple, Read)."""
    if get_origin(annotation) in {Union, types.UnionType}:
        [annotation] = [kind for kind in get_args(annotation) if kind is not type(None)]
    if hasattr(annotation, "__metadata__"):
        annotation = get_args(annotation)[0]
    if get_origin(annotation) is tuple:
        return tuple, get_args(annotation)[0]
    return (str if get_origin(annotation) is Literal else annotation), None


def bare_avro(schema: Any) -> tuple[str, str | None]:
    """The same of an Avro type."""
    if isinstance(schema, list):
        [schema] = [branch for branch in schema if branch != "null"]
    if isinstance(schema, str):
        return schema, None
    if schema["type"] == "array":
        return "array", bare_avro(schema["items"])[0]
    return schema.get("logicalType", schema.get("name", schema["type"])), None


def fits(kind: Any, avro: str | None) -> bool:
    if kind is tuple:
        return avro == "array"
    if is_model(kind):
        return avro == f"driftline.{kind.__name__}"
    return avro in AVRO_OF[kind]


def is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)
