"""Fields that a schema tags as personal data: what is written in their place, and that nothing else is touched."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.schemas import Codec, Contract, ContractError, Contracts, Registry, UsageError
from driftline.schemas.evolution import breaks
from driftline.schemas.pii import HASH, MASK, MASKED, hashed, protect, protection_of

KEY, OTHER_KEY = b"0123456789abcdef", b"fedcba9876543210"
TOPIC = "shop.events"


def record(*fields: dict[str, Any], name: str = "shop.Order") -> dict[str, Any]:
    return {"type": "record", "name": name, "fields": list(fields)}


def field(name: str, type: Any, pii: Any = None, **rest: Any) -> dict[str, Any]:
    return {"name": name, "type": type, **({} if pii is None else {"pii": pii}), **rest}


def contract(*versions: dict[str, Any]) -> Contract:
    return Contract("shop.Order", versions)


PERSON = record(field("email", "string", HASH), field("city", "string"), name="shop.Person")
EVERYWHERE = contract(
    record(
        field("name", "string", MASK),
        field("email", ["null", "string"], HASH),
        field("phones", {"type": "array", "items": "string"}, HASH),
        field("notes", {"type": "map", "values": ["null", "string"]}, MASK),
        field("buyer", PERSON),
        field("others", {"type": "array", "items": "shop.Person"}),
        field("by_role", {"type": "map", "values": ["null", "shop.Person"]}),
        field("amount", "int"),
    )
)
PERSONAL = (
    "Ada",
    "ada@example.org",
    "+49 1",
    "+49 2",
    "limps",
    "bob@example.org",
    "eve@example.org",
    "max@example.org",
)
VALUE = {
    "name": "Ada",
    "email": "ada@example.org",
    "phones": ["+49 1", "+49 2"],
    "notes": {"health": "limps", "none": None},
    "buyer": {"email": "bob@example.org", "city": "Paris"},
    "others": [{"email": "eve@example.org", "city": "Rome"}],
    "by_role": {"payer": {"email": "eve@example.org", "city": "Oslo"}, "nobody": None},
    "amount": 3,
}


def test_a_tagged_value_is_replaced_wherever_it_stands_and_nothing_else_is() -> None:
    found = protect(EVERYWHERE, VALUE, KEY)
    assert not any(personal in json.dumps(found) for personal in PERSONAL)
    assert found["name"] == MASKED
    assert found["notes"] == {"health": MASKED, "none": None}
    assert found["buyer"] == {"email": hashed("bob@example.org", KEY), "city": "Paris"}
    assert found["by_role"]["nobody"] is None
    assert found["amount"] == 3
    assert VALUE["name"] == "Ada"  # the caller's own stays


def test_equal_values_stay_equal_across_records_and_differ_under_another_key() -> None:
    one, again = (protect(contract(PERSON), {"email": "a@b.c", "city": "x"}, KEY)["email"] for _ in range(2))
    assert one == again == protect(EVERYWHERE, {**VALUE, "email": "a@b.c"}, KEY)["email"]
    assert one != hashed("a@b.d", KEY)
    assert one != hashed("a@b.c", OTHER_KEY)


@given(st.text(), st.sampled_from([HASH, MASK]))
def test_protecting_twice_changes_nothing(text: str, tag: str) -> None:
    tagged = contract(record(field("email", "string", tag)))
    once = protect(tagged, {"email": text}, KEY)
    assert protect(tagged, once, OTHER_KEY) == once


def test_a_contract_without_tags_costs_nothing() -> None:
    plain = contract(record(field("email", "string")))
    assert protection_of(plain) is None
    value = {"email": "a@b.c"}
    assert protect(plain, value) is value


def test_what_driftline_itself_writes_is_not_tagged() -> None:
    assert not any(protection_of(found) for found in Contracts.load().values())


def test_without_a_key_what_is_to_be_hashed_is_refused_by_name_and_never_told() -> None:
    with pytest.raises(UsageError, match=r"shop\.Order.*DRIFTLINE_PII_SECRET_FILE") as refused:
        protect(EVERYWHERE, VALUE)
    assert not any(personal in str(refused.value) for personal in PERSONAL)


@pytest.mark.parametrize(
    ("tagged", "told"),
    [
        (field("email", "string", "encrypt"), r"shop\.Order\.email: pii is 'encrypt'"),
        (field("age", "int", MASK), "only strings"),
        (field("buyer", PERSON, HASH), "only strings"),
        (field("id", {"type": "string", "logicalType": "uuid"}, HASH), "only strings"),
        (field("ages", {"type": "array", "items": "long"}, MASK), "only strings"),
    ],
)
def test_a_tag_that_cannot_be_kept_is_refused(tagged: dict[str, Any], told: str) -> None:
    with pytest.raises(ContractError, match=told):
        protection_of(contract(record(tagged)))


def test_adding_a_tag_is_a_compatible_change_and_dropping_it_opens_nothing() -> None:
    plain, tagged = record(field("email", "string")), record(field("email", "string", HASH))
    evolved = contract(plain, tagged, plain)
    assert breaks(evolved) == []
    assert protect(evolved, {"email": "a@b.c"}, KEY)["email"] == hashed("a@b.c", KEY)


def test_a_renamed_field_keeps_its_tag_and_of_two_tags_the_stricter_holds() -> None:
    mail = record(field("mail", "string", MASK))
    renamed = contract(mail, record(field("email", "string", HASH, aliases=["mail"])))
    assert protect(renamed, {"email": "a@b.c"}, KEY)["email"] == MASKED


def codec(found: Contract, key: bytes | None = KEY) -> Codec:
    return Codec(Registry("mock://"), Contracts([found]), key)


def test_the_codec_writes_no_personal_value() -> None:
    data = codec(EVERYWHERE).encode(TOPIC, "shop.Order", VALUE, prove=True)
    assert not any(personal.encode() in data for personal in PERSONAL)


def test_the_codec_hides_what_another_program_wrote_as_it_was() -> None:
    plain = contract(record(field("email", "string"), field("city", "string", default="")))
    tagged = contract(record(field("email", "string", HASH), field("city", "string", default="")))
    reading = codec(tagged)
    written = Codec(reading.registry, Contracts([plain])).encode(TOPIC, "shop.Order", {"email": "a@b.c"})
    assert b"a@b.c" in written
    assert reading.decode(written).value == {"email": hashed("a@b.c", KEY), "city": ""}
    without_key = Codec(reading.registry, Contracts([tagged]))
    assert without_key.decode(written).value == {"email": MASKED, "city": ""}
    unknown = Codec(reading.registry, Contracts([]))
    assert unknown.decode(written).value == {"email": "a@b.c", "city": ""}  # no tag anywhere
