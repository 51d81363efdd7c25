"""Rows, the dead topic and the artifacts, without a broker."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.consumers import Fold
from driftline.consumers.artifacts import app_artifacts
from driftline.consumers.dead import DETAIL_BYTES_MAX, VALUE_BYTES_MAX, input_offset, to_dead
from driftline.consumers.restoring import RowRestorer
from driftline.consumers.row_bytes import FoldVersionCheck
from driftline.consumers.rows import Row, Rows, row_record
from driftline.examples.renewals.app import app as renewals
from driftline.log import Coordinates, MemoryLog, Outgoing, Record, Unfinished
from driftline.schemas import (
    Codec,
    Contracts,
    Event,
    NotCanonical,
    Registry,
    Undecodable,
    UndecodableReason,
    UsageError,
    content_hash,
)

TIME = datetime(2026, 7, 1, tzinfo=UTC)


def count(row: Mapping[str, Any], event: Event) -> Mapping[str, Any]:
    return {**row, "seen": row.get("seen", 0) + 1, "at": event.time, "state": "open", "amount": 450.0}


def event(**data: Any) -> Event:
    return Event("e1", "t", "web", "w", TIME, "shop.Asked", data)


def lying_at(offset: int, outgoing: Outgoing) -> Record:
    return Record(Coordinates("shop.state", 0, offset), outgoing.key, outgoing.value, outgoing.timestamp_ms)


@pytest.fixture
def codec() -> Codec:
    return Codec(Registry("mock://rows"), renewals.contracts)


def written(rows: Rows, codec: Codec) -> list[Record]:
    """The records of a state topic that hold these rows."""
    made = [row_record("shop.state", 0, key, 1, row, codec) for key, row in rows.items()]
    return [lying_at(offset, outgoing) for offset, outgoing in enumerate(made)]


def test_rows_come_back_as_they_were_written(codec: Codec) -> None:
    rows = Rows(Fold(count, "1"))
    for offset, key in enumerate([b"a", b"b", b"a"]):
        rows.keep(key, rows.fold(key, event(), offset))
    restored = Rows.restored(Fold(count, "1"), written(rows, codec), codec)
    assert dict(restored.items()) == dict(rows.items())
    kept = restored.get(b"a")
    assert kept is not None
    assert (kept.version, kept.as_of, kept.data["seen"]) == (2, 2, 2)
    assert kept.data["at"] == "2026-07-01T00:00:00.000Z"


def test_a_tombstone_removes_its_row(codec: Codec) -> None:
    rows = Rows(Fold(count, "1"))
    rows.keep(b"a", rows.fold(b"a", event(), 0))
    gone = Record(Coordinates("shop.state", 0, 1), b"a", None, 1)
    assert len(Rows.restored(Fold(count, "1"), [*written(rows, codec), gone], codec)) == 0


def test_rows_of_another_fold_version_are_not_current(codec: Codec) -> None:
    rows = Rows(Fold(count, "1"))
    rows.keep(b"a", rows.fold(b"a", event(), 0))
    assert Rows.restored(Fold(count, "1"), written(rows, codec), codec).current
    assert not Rows.restored(Fold(count, "2"), written(rows, codec), codec).current


def test_a_folded_row_is_not_kept_before_it_is_said_so() -> None:
    rows = Rows(Fold(count, "1"))
    assert rows.fold(b"a", event(), 0) is not None
    assert rows.get(b"a") is None


def test_an_app_without_a_fold_keeps_no_rows() -> None:
    assert Rows(None).fold(b"a", event(), 0) is None


def test_a_fold_that_raises_names_the_event() -> None:
    broken = Fold(lambda row, given: {"x": row["missing"]}, "1")
    with pytest.raises(
        UsageError, match=r"the fold fails on the t e1 of w: KeyError\('missing'\); mend the app's fold"
    ):
        Rows(broken).fold(b"a", event(), 0)


def test_a_row_that_canonical_json_refuses_says_so_before_it_is_written() -> None:
    row = Rows(Fold(lambda data, given: {"n": 2**60}, "1")).fold(b"a", event(), 0)
    assert row is not None
    with pytest.raises(NotCanonical):
        _ = row.json


def poison(value: bytes | None = b"\x01", **changes: Any) -> Record:
    return Record(Coordinates("shop.events", 1, 42), changes.get("key", b"k"), value, changes.get("time", 7), HEADERS)


HEADERS = (("ce_id", b"\xff"), ("driftline_offset", b"1"), ("empty", b""))


def test_a_dead_record_holds_the_original_and_why() -> None:
    dead = to_dead(poison(), "shop.dead", Undecodable(UndecodableReason.CORRUPT, "it is"))
    assert (dead.topic, dead.partition, dead.key, dead.value, dead.timestamp_ms) == ("shop.dead", 1, b"k", b"\x01", 7)
    assert tuple(dead.headers[:3]) == HEADERS
    assert dict(dead.headers[3:]) == {
        "driftline_reason": b"corrupt",
        "driftline_detail": b"corrupt: it is",
        "driftline_topic": b"shop.events",
        "driftline_partition": b"1",
        "driftline_offset": b"42",
    }


def test_a_dead_record_is_found_by_its_own_offset_and_not_by_a_header_that_came_with_it() -> None:
    dead = to_dead(poison(), "shop.dead", Undecodable(UndecodableReason.CORRUPT, "it is"))
    assert input_offset(Record(Coordinates("shop.dead", 1, 0), dead.key, dead.value, 7, dead.headers)) == 42
    assert input_offset(Record(Coordinates("shop.dead", 1, 0), None, None, 7)) is None


def test_a_long_detail_is_cut_between_characters() -> None:
    dead = to_dead(poison(), "shop.dead", Undecodable(UndecodableReason.CORRUPT, "é" * 5_000 + "\ud800"))
    detail = dict(dead.headers)["driftline_detail"]
    assert DETAIL_BYTES_MAX - 2 < len(detail) <= DETAIL_BYTES_MAX
    assert detail.decode().endswith("é")


def test_bytes_that_would_not_fit_again_stay_at_the_source() -> None:
    dead = to_dead(
        poison(b"x" * (VALUE_BYTES_MAX + 1)), "shop.dead", Undecodable(UndecodableReason.OVERSIZE, "large")
    )
    assert (dead.value, dead.headers[-1]) == (None, ("driftline_value", b"left at the source"))


@pytest.mark.parametrize("time", [-1, 0])
def test_a_record_without_a_time_gets_the_earliest(time: int) -> None:
    dead = to_dead(poison(time=time), "shop.dead", Undecodable(UndecodableReason.CORRUPT, ""))
    assert dead.timestamp_ms == 1


def test_every_artifact_is_found_by_the_hash_of_its_content(codec: Codec) -> None:
    records = app_artifacts(renewals, codec, 1)
    values = [codec.decode(record.value).value for record in records]
    assert all(value["hash"] == content_hash(value["content"]) for value in values)
    assert [record.key for record in records] == [value["hash"].encode() for value in values]


def test_what_a_decision_names_is_among_the_artifacts(codec: Codec) -> None:
    values = [codec.decode(record.value).value for record in app_artifacts(renewals, codec, 1)]
    kinds = {value["hash"]: value["kind"] for value in values}
    for bound in renewals.bound.values():
        assert kinds[bound.boundary.prompt.hash] == "prompt"
        assert kinds[bound.judge.version] == "verifier"
        assert [kinds[verifier.version] for verifier in bound.boundary.verifiers] == ["policy"]
    assert Contracts.load().keys() < renewals.contracts.keys()


def test_a_group_whose_position_was_lost_is_told_before_anything_is_decided_again(codec: Codec) -> None:
    """After offsets expire the broker hands out the beginning; the rows remember that they have seen more."""
    log, topics = MemoryLog(), renewals.topics
    due = Event("e1", "renewal-due.one-year", "crm", "c1", TIME, "driftline.renewals.RenewalDue", {})
    row = Rows(renewals.fold).fold(b"c1", due, 41)
    assert row is not None
    log.commit([row_record(topics.state, 0, b"c1", 1, row, codec)])
    restorer = RowRestorer(renewals, log, codec)
    with pytest.raises(UsageError, match="seen offset 41"):
        restorer.restore(0, Unfinished(0, 0))
    with pytest.raises(UsageError, match="seen offset 41"):
        restorer.restore(0, Unfinished(0, 60, (41,)))
    for standing in (Unfinished(42, 42), Unfinished(7, 42, (7, 8))):
        assert dict(restorer.restore(0, standing).items()) == {b"c1": row}


CODEC = Codec(Registry("mock://row-bytes"), renewals.contracts)


@given(
    state=st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=80),
    version=st.integers(0, 2**40),
    as_of=st.integers(0, 2**62),
    fold_version=st.text(st.characters(exclude_categories=["Cs"]), max_size=70),
    asked=st.text(max_size=3),
)
def test_the_version_that_bytes_tell_is_the_one_that_decoding_tells(
    state: str | None, version: int, as_of: int, fold_version: str, asked: str
) -> None:
    row = Row({"state": state, "fold_version": "1"}, version, as_of, fold_version)
    value = row_record("shop.state", 0, b"k", 1, row, CODEC).value or b""
    assert FoldVersionCheck(CODEC, "shop.state", fold_version).holds(value) in (True, None)
    other = fold_version + asked.encode(errors="ignore").decode() + "1"
    assert FoldVersionCheck(CODEC, "shop.state", other).holds(value) in (False, None)
    assert FoldVersionCheck(CODEC, "shop.state", "").state_in(value) in ((state or "").encode(), None)
    restored = Rows.restored(renewals.fold, [Record(Coordinates("shop.state", 0, 0), b"k", value, 1)], CODEC)
    assert dict(restored.states()) == {b"k": state or None}


def test_of_a_row_whose_state_is_short_its_bytes_tell_the_version_without_decoding() -> None:
    value = row_record("shop.state", 0, b"k", 1, Row({"state": "open"}, 300, 2**40, "1/1"), CODEC).value or b""
    assert FoldVersionCheck(CODEC, "shop.state", "1/1").holds(value) is True
    assert FoldVersionCheck(CODEC, "shop.state", "1/1").state_in(value) == b"open"
    assert FoldVersionCheck(CODEC, "shop.state", "1/2").holds(value) is False
    assert FoldVersionCheck(CODEC, "shop.state", "1/1").holds(b"\x00\x00\x00\x63\x00" + value[5:]) is None
    assert FoldVersionCheck(CODEC, "shop.state", "1/1").state_in(b"\x00\x00\x00\x63\x00" + value[5:]) is None


def test_a_record_of_the_state_topic_that_is_no_row_is_told_as_such_and_not_blamed_on_an_event(codec: Codec) -> None:
    broken = Record(Coordinates("shop.state", 0, 0), b"a", b"\x00garbage", 1)
    rows = Rows.restored(Fold(count, "1"), [broken], codec)
    with pytest.raises(UsageError, match=r"shop\.state holds a record that is no row"):
        rows.get(b"a")
