"""Canonical JSON: one text for a value, one value for a text, and a typed refusal of everything else."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from driftline.schemas import NotCanonical, canonical_json, content_hash, parse_json, to_json_data
from driftline.schemas.canonical import parse_canonical, read_json, require_canonical

SAFE_INTEGERS = st.integers(-(2**53) + 1, 2**53 - 1)
FLOATS = st.floats(allow_nan=False, allow_infinity=False).filter(lambda x: not 2**53 <= abs(x) < 1e21)
JSON_DATA = st.recursive(
    st.none() | st.booleans() | SAFE_INTEGERS | FLOATS | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(JSON_DATA | st.floats(allow_nan=False, allow_infinity=False).filter(lambda x: abs(x) < 2**53))
def test_every_value_is_written_as_the_reference_writes_it(value: Any) -> None:
    assert canonical_json(value) == rfc8785.dumps(value).decode()


@given(JSON_DATA)
def test_what_is_written_reads_back_as_the_same_value(value: Any) -> None:
    assert parse_json(canonical_json(value)) == value


@given(JSON_DATA)
def test_what_is_read_back_is_written_as_the_same_text(value: Any) -> None:
    text = canonical_json(value)
    assert canonical_json(parse_json(text)) == text


@given(st.dictionaries(st.text(), JSON_DATA), st.randoms())
def test_the_order_of_keys_makes_no_difference(value: dict[str, Any], random: Any) -> None:
    names = list(value)
    random.shuffle(names)
    assert canonical_json({name: value[name] for name in names}) == canonical_json(value)


def test_keys_are_ordered_by_utf16_as_rfc_8785_has_it() -> None:
    assert canonical_json({"\U0001f600": 1, "\ufb33": 2, "a": 3}) == '{"a":3,"\U0001f600":1,"\ufb33":2}'


@pytest.mark.parametrize(
    "value",
    [
        2**53,
        -(2**53),
        float("nan"),
        float("inf"),
        "\ud800",
        {"\udfff": 1},
        {1: "a key that is a number"},
        {"at": datetime(2026, 1, 1, tzinfo=UTC)},
        {"nested": [{"deep": 10**400}]},
    ],
)
def test_a_value_without_a_canonical_form_is_refused(value: Any) -> None:
    with pytest.raises(NotCanonical):
        canonical_json(value)


@given(st.integers(53, 69).flatmap(lambda bits: st.floats(2.0**bits, 2.0 ** (bits + 1), exclude_max=True)))
def test_a_float_that_would_read_back_as_too_long_an_integer_is_refused_at_once(value: float) -> None:
    if value < 1e21:
        with pytest.raises(NotCanonical):
            canonical_json([value])


def test_a_long_number_inside_a_text_is_a_text() -> None:
    assert canonical_json("12345678901234567890") == '"12345678901234567890"'


def test_nesting_beyond_the_stack_is_refused_and_not_a_crash() -> None:
    value: Any = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(NotCanonical):
        canonical_json(value)
    with pytest.raises(ValueError, match="too deeply"):
        parse_json("[" * 100_000 + "]" * 100_000)
    while value:  # Freed a level at a time: the interpreter's own release of it is recursive.
        value = value[0]


DIGITS = st.text("0123456789", min_size=1, max_size=20)
NUMBERS = st.builds(
    "{}{}{}{}".format,
    st.sampled_from(["", "-"]),
    DIGITS.map(lambda digits: digits.lstrip("0") or "0"),
    st.sampled_from(["", ".0", ".5"]) | DIGITS.map(".{}".format),
    st.sampled_from(["", "e2", "E-7", "e400"]),
)
ODD = [
    "NaN",
    '{"a":1,"a":2}',
    '{"a":1',
    '"\\ud800"',
    '"\\u0041"',
    '"ü"',
    "[1] ",
    " 1",
    "",
    '{"a":[1,2.50]}',
    "[[" * 60,
]
TEXTS = NUMBERS | st.sampled_from([*ODD, "[" * 60 + "]" * 60])


def outcome(read: Callable[[str], Any], text: str) -> Any:
    """What is read, told from what is equal to it, or which error is raised."""
    try:
        return repr(read(text))
    except (ValueError, NotCanonical) as error:
        return type(error), str(error)


@given(TEXTS | JSON_DATA.map(json.dumps) | st.lists(NUMBERS, max_size=3).map(lambda found: f"[{', '.join(found)}]"))
def test_what_is_parsed_as_canonical_is_what_is_parsed_and_proved_canonical(text: str) -> None:
    def in_two_steps(text: str) -> Any:
        value = parse_json(text)
        require_canonical(value)
        return value

    assert outcome(parse_canonical, text) == outcome(in_two_steps, text)


@given(TEXTS | JSON_DATA.map(json.dumps) | st.floats().map(json.dumps) | st.just("[" * 250 + "]" * 250))
def test_what_was_written_is_read_as_python_reads_it(text: str) -> None:
    assert outcome(read_json, text) == outcome(json.loads, text)


@pytest.mark.parametrize("text", ['{"a":1,"a":2}', '{"x":{"a":1,"a":1}}', "NaN", "[Infinity]", "-Infinity", "", "{]"])
def test_text_that_is_not_strict_json_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_json(text)


def test_numbers_that_overflow_are_left_to_canonical_json() -> None:
    with pytest.raises(NotCanonical):
        canonical_json(parse_json("1e999"))


@given(
    st.recursive(
        st.none() | st.booleans() | SAFE_INTEGERS | FLOATS | st.text() | st.binary() | st.datetimes(),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
        max_leaves=12,
    )
)
def test_json_data_of_a_record_survives_canonical_json_type_by_type(datum: Any) -> None:
    data = to_json_data(datum)
    again = parse_json(canonical_json(data))
    assert json.dumps(again, sort_keys=True) == json.dumps(data, sort_keys=True)


def test_a_number_without_a_fraction_reads_the_same_today_and_in_a_replay() -> None:
    live = to_json_data({"price": 450.0, "rate": 0.5, "nothing": -0.0})
    assert str(live) == "{'price': 450, 'rate': 0.5, 'nothing': 0}"


def test_times_become_rfc_3339_in_utc() -> None:
    east = timezone(timedelta(hours=2))
    assert to_json_data(datetime(2026, 3, 1, 12, 0, 0, 999_999, tzinfo=east)) == "2026-03-01T10:00:00.999Z"


def test_the_hash_of_a_text_is_the_hash_of_its_utf8() -> None:
    assert content_hash("naïve") == content_hash("naïve".encode())
    assert len(content_hash("")) == 32
    with pytest.raises(NotCanonical):
        content_hash("\ud800")
