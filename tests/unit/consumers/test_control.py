"""The control topic: which settings hold, and what a record that cannot be read does not do."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

import pytest
from pydantic import ValidationError

from driftline.consumers.control import Controls, ControlState, control_record, make_setting, read_controls
from driftline.log import AppTopics, MemoryLog, Outgoing
from driftline.schemas import Codec, Contracts, Registry, RegistryUnreachable, UsageError
from driftline.schemas.control import ControlSetting, Kill, Throttle
from driftline.schemas.names import CONTROL_SETTING, ESCALATED

AT = datetime(2026, 11, 21, 5, tzinfo=UTC)
TOPICS = AppTopics("shop")


@pytest.fixture
def codec() -> Codec:
    return Codec(Registry("mock://"), Contracts.load())


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog()


def put(log: MemoryLog, codec: Codec, *values: Kill | Throttle) -> None:
    log.commit([control_record(make_setting(value, "", "ana", AT), TOPICS, codec, "id") for value in values])


def put_raw(log: MemoryLog, value: bytes | None, key: bytes = b"kill") -> None:
    log.commit([Outgoing(TOPICS.control, key, value, 1)])


def put_setting(log: MemoryLog, codec: Codec, setting: str, value: str, key: bytes = b"kill") -> None:
    said = ControlSetting(setting=setting, value=value, by="ana", at=AT)
    put_raw(log, codec.encode(TOPICS.control, CONTROL_SETTING, said.model_dump()), key)


def state(log: MemoryLog, codec: Codec) -> ControlState:
    return read_controls(log, TOPICS, codec).state


def test_nothing_is_in_force_before_the_first_record(log: MemoryLog, codec: Codec) -> None:
    assert state(log, codec) == ControlState(False, None, None, None)


def test_of_each_setting_the_last_record_holds(log: MemoryLog, codec: Codec) -> None:
    put(log, codec, Kill(killed=True), Throttle(decisions_per_minute=30, in_flight_max=8), Kill(killed=False))
    put(log, codec, Throttle(in_flight_max=2))
    assert state(log, codec) == ControlState(False, None, 2, offset=3)


def test_a_kill_leaves_the_throttle_as_it_is(log: MemoryLog, codec: Codec) -> None:
    put(log, codec, Throttle(decisions_per_minute=0.5), Kill(killed=True))
    assert state(log, codec) == ControlState(True, 0.5, None, offset=1)


def test_what_is_in_force_tells_who_set_it_where_and_why(log: MemoryLog, codec: Codec) -> None:
    said = make_setting(Kill(killed=True), "discounts run away", "ana", AT)
    log.commit([control_record(said, TOPICS, codec, "id")])
    held = read_controls(log, TOPICS, codec).in_force["kill"]
    assert (held.setting, str(held.at)) == (said, "shop.control[0]@0")


UNREADABLE = {
    "not_wire_format": b"poison",
    "no_value": None,
}


@pytest.mark.parametrize("why", UNREADABLE)
@pytest.mark.parametrize("killed", [True, False])
def test_bytes_that_do_not_decode_neither_stop_nor_resume_an_app_and_are_warned_of(
    log: MemoryLog, codec: Codec, caplog: pytest.LogCaptureFixture, killed: bool, why: str
) -> None:
    put(log, codec, Kill(killed=killed))
    put_raw(log, UNREADABLE[why])
    assert state(log, codec) == ControlState(killed, offset=0)
    (warning,) = caplog.records
    assert warning.levelno == logging.WARNING
    assert f"shop.control[0]@1 cannot be obeyed, and what held before still holds: {why}" in warning.getMessage()


SENSELESS = {
    "an unknown setting": ("speed", '{"killed":false}', b"speed"),
    "a key that is another setting's": ("kill", '{"killed":false}', b"throttle"),
    "a value that is no JSON": ("kill", "no", b"kill"),
    "a value that is no object": ("kill", "false", b"kill"),
    "a value of another type": ("kill", '{"killed":0}', b"kill"),
    "a value without its field": ("kill", "{}", b"kill"),
    "a rate of none": ("throttle", '{"decisions_per_minute":0}', b"throttle"),
    "an endless rate": ("throttle", '{"decisions_per_minute":1e999}', b"throttle"),
    "half a decision": ("throttle", '{"in_flight_max":0.5}', b"throttle"),
}


@pytest.mark.parametrize("what", SENSELESS)
def test_a_setting_that_makes_no_sense_changes_nothing_and_is_warned_of(
    log: MemoryLog, codec: Codec, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    put(log, codec, Kill(killed=True), Throttle(in_flight_max=3))
    put_setting(log, codec, *SENSELESS[what])
    assert state(log, codec) == ControlState(True, None, 3, offset=1)
    assert "shop.control[0]@2 cannot be obeyed" in caplog.text


def test_another_record_than_a_setting_changes_nothing(log: MemoryLog, codec: Codec) -> None:
    put(log, codec, Kill(killed=True))
    other = {"boundary": "b", "decision_id": "d", "attempts": 1, "codes": [], "message": "m"}
    put_raw(log, codec.encode(TOPICS.control, ESCALATED, other))
    assert state(log, codec) == ControlState(True, offset=0)


def test_a_value_with_fields_of_a_later_version_is_obeyed(log: MemoryLog, codec: Codec) -> None:
    put_setting(log, codec, "kill", '{"killed":true,"until":"noon"}')
    assert state(log, codec).killed


@pytest.mark.parametrize(
    ("key", "mend"), [(b"kill", "driftline kill shop"), (b"throttle", "driftline throttle shop")]
)
def test_a_setting_of_which_only_an_unreadable_record_is_left_is_not_taken_for_unset(
    log: MemoryLog, codec: Codec, key: bytes, mend: str
) -> None:
    put_raw(log, b"poison", key)
    controls = read_controls(log, TOPICS, codec)
    with pytest.raises(UsageError, match=rf"shop\.control\[0\]@0 cannot be read, and no earlier .*`{mend}"):
        controls.require_known()


def test_a_setting_is_known_again_once_it_was_set_anew(log: MemoryLog, codec: Codec) -> None:
    put_raw(log, b"poison")
    put(log, codec, Kill(killed=False))
    put_raw(log, b"poison")
    read_controls(log, TOPICS, codec).require_known()


def test_a_record_whose_schema_nobody_can_tell_now_is_not_passed_over(log: MemoryLog, codec: Codec) -> None:
    put(log, codec, Kill(killed=True))
    (record,) = log.read_to_latest(TOPICS.control, 0)
    deaf = Controls("shop", Codec(Registry("http://127.0.0.1:1", retries_max=0), Contracts.load()))
    with pytest.raises(RegistryUnreachable):
        deaf.apply(record)
    assert deaf.state.offset is None


@pytest.mark.parametrize(
    "limits", [{"decisions_per_minute": 0}, {"decisions_per_minute": float("nan")}, {"in_flight_max": 0}]
)
def test_a_throttle_that_would_stop_the_app_is_refused(limits: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        Throttle.model_validate(limits)
