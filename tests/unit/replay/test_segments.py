"""Segments: which decisions a selection takes, and segments as files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace as changed
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from driftline.consumers.artifacts import Artifact
from driftline.examples.renewals.app import app as renewals
from driftline.log import MemoryLog, Outgoing
from driftline.replay import (
    AppSubject,
    Candidate,
    ForcedResult,
    Segment,
    Selection,
    export_segment,
    load_segment,
    open_segment_file,
    read_segment_file,
)
from driftline.replay.testing import OwnModels, log_of
from driftline.schemas import BadInput, Codec, Contracts, Decision, UsageError

Log = tuple[MemoryLog, Codec]


@pytest.fixture
def quiz_log(make_question: Callable[..., Decision], contracts: Contracts) -> Log:
    """Ten questions a minute apart, the odd ones of another stream, each workflow asked twice."""
    decisions = [
        make_question(number, stream="other" if number % 2 else "quiz", workflow=f"w{number // 2}")
        for number in range(10)
    ]
    return log_of(decisions, contracts)


def minute(number: int) -> datetime:
    return datetime.fromisoformat("2026-09-22T12:00Z") + timedelta(minutes=number)


def taken(log: Log, selection: Selection) -> list[str]:
    return [logged.decision.decision_id for logged in load_segment(*log, "quiz", selection).decisions]


def test_without_a_selection_the_segment_is_the_whole_log_with_its_coordinates(quiz_log: Log) -> None:
    segment = load_segment(*quiz_log, "quiz", Selection())
    assert [str(logged.at) for logged in segment.decisions] == [f"quiz.decisions[0]@{at}" for at in range(10)]
    assert segment.planned() == {"recorded/other": 5, "recorded/quiz": 5}


def test_times_are_event_times_and_the_end_is_excluded(quiz_log: Log) -> None:
    assert taken(quiz_log, Selection(start=minute(3), stop=minute(6))) == ["d3", "d4", "d5"]


def test_offsets_begin_and_end_where_they_say(quiz_log: Log) -> None:
    assert taken(quiz_log, Selection(offsets={0: (4, 6)})) == ["d4", "d5"]
    assert taken(quiz_log, Selection(offsets={0: (8, 99)})) == ["d8", "d9"]


def test_offsets_and_times_both_hold(quiz_log: Log) -> None:
    assert taken(quiz_log, Selection(start=minute(5), offsets={0: (4, 7)})) == ["d5", "d6"]


def test_streams_and_keys_narrow_the_segment(quiz_log: Log) -> None:
    assert taken(quiz_log, Selection(streams=frozenset({"other"}))) == ["d1", "d3", "d5", "d7", "d9"]
    assert taken(quiz_log, Selection(keys=frozenset({"w1", "w4"}))) == ["d2", "d3", "d8", "d9"]
    assert taken(quiz_log, Selection(streams=frozenset({"quiz"}), keys=frozenset({"w1"}))) == ["d2"]


def test_decisions_come_in_order_of_event_time_over_all_partitions(
    make_question: Callable[..., Decision], contracts: Contracts
) -> None:
    decisions = [make_question(number) for number in (4, 0, 3, 1, 2)]
    partitioned = [
        one.model_copy(update={"input": one.input.model_copy(update={"partition": number % 2})})
        for number, one in enumerate(decisions)
    ]
    assert taken(log_of(partitioned, contracts, partitions=2), Selection()) == ["d0", "d1", "d2", "d3", "d4"]


@pytest.mark.parametrize(
    "selection",
    [
        Selection(start=minute(60)),
        Selection(stop=minute(0)),
        Selection(streams=frozenset({"third"})),
        Selection(keys=frozenset({"nobody"})),
        Selection(offsets={0: (10, 12)}),
    ],
)
def test_an_empty_segment_is_one_line_that_says_what_the_log_holds(quiz_log: Log, selection: Selection) -> None:
    with pytest.raises(UsageError) as caught:
        load_segment(*quiz_log, "quiz", selection)
    held = "[0] offsets 0 to 9, events from 2026-09-22T12:00:00.000Z to 2026-09-22T12:09:00.000Z"
    assert str(caught.value).startswith(f"the segment is empty: quiz.decisions holds {held}")
    assert "\n" not in str(caught.value)


def test_a_stream_that_is_not_there_is_answered_by_those_that_are(quiz_log: Log) -> None:
    with pytest.raises(UsageError, match="asked for are of other, quiz; widen"):
        load_segment(*quiz_log, "quiz", Selection(streams=frozenset({"third"})))


def test_a_log_without_decisions_holds_nothing(contracts: Contracts, quiz_log: Log) -> None:
    with pytest.raises(UsageError, match=r"quiz\.decisions holds nothing"):
        load_segment(MemoryLog(), quiz_log[1], "quiz", Selection())


@pytest.mark.parametrize("offsets", [{0: (11, 12)}, {1: (0, 1)}, {0: (5, 4)}])
def test_offsets_that_are_not_on_the_log_are_told_with_those_that_are(
    quiz_log: Log, offsets: dict[int, tuple[int, int]]
) -> None:
    with pytest.raises(
        UsageError, match=r"is not on the log, which holds \[0\] offsets 0 to 9; give --offsets within"
    ):
        load_segment(*quiz_log, "quiz", Selection(offsets=offsets))


@pytest.mark.parametrize("value", [b"not a decision", b"", None])
def test_a_record_that_is_no_decision_is_named_by_its_coordinates(quiz_log: Log, value: bytes | None) -> None:
    log, codec = quiz_log
    log.commit([Outgoing("quiz.decisions", b"w1", value, 1_800_000_000_000, (), 0)])
    with pytest.raises(BadInput, match=r"quiz\.decisions\[0\]@10 is no decision"):
        load_segment(log, codec, "quiz", Selection())


def test_a_segment_comes_back_from_a_file_as_it_went_with_what_it_names(tmp_path: Path, quiz_log: Log) -> None:
    segment = load_segment(*quiz_log, "quiz", Selection())
    decision = segment.decisions[0].decision
    needed = [
        Artifact(decision.prompt_hash, "prompt", "quiz", "{{ messages }} 'é'\n"),
        Artifact(decision.verifier_version, "verifier_spec", "quiz", "[streams]"),
    ]
    artifacts = {one.hash: one for one in (*needed, Artifact("0", "prompt", "other", "unused"))}
    export_segment(segment, artifacts, tmp_path / "segment.parquet")
    again, carried = read_segment_file(tmp_path / "segment.parquet", "quiz", Selection())
    assert again.decisions == segment.decisions
    assert carried == {one.hash: one for one in needed}


def test_a_segment_of_a_log_is_the_segment_of_its_file(
    tmp_path: Path, renewals_history: Segment, renewals_subject: AppSubject
) -> None:
    log = log_of([logged.decision for logged in renewals_history.decisions], renewals.contracts)
    segment = load_segment(*log, "renewals", Selection())
    assert segment == changed(renewals_history, span=segment.span)
    export_segment(segment, renewals_subject.artifacts, tmp_path / "s.parquet")
    subject, again = open_segment_file(tmp_path / "s.parquet", renewals, Selection())
    assert again.decisions == segment.decisions
    assert subject.artifacts == renewals_subject.artifacts


def test_a_replay_over_the_file_is_the_replay_over_the_log(
    tmp_path: Path,
    replay: Callable[..., ForcedResult],
    renewals_history: Segment,
    renewals_subject: AppSubject,
) -> None:
    export_segment(renewals_history, renewals_subject.artifacts, tmp_path / "s.parquet")
    subject, again = open_segment_file(tmp_path / "s.parquet", renewals, Selection())
    candidate = Candidate("sim/renewals-fenced")
    over_log = replay(renewals_history, OwnModels(), subject=renewals_subject, candidate=candidate)
    over_file = replay(again, OwnModels(), subject=subject, candidate=candidate)
    assert changed(over_file, from_ledger=0) == over_log


def test_a_selection_applies_to_a_file_as_to_the_log(tmp_path: Path, quiz_log: Log) -> None:
    path = tmp_path / "segment.parquet"
    export_segment(load_segment(*quiz_log, "quiz", Selection()), {}, path)
    for selection in (
        Selection(offsets={0: (2, 4)}),
        Selection(start=minute(3), stop=minute(5)),
        Selection(streams=frozenset({"other"}), keys=frozenset({"w2"})),
    ):
        segment, _ = read_segment_file(path, "quiz", selection)
        assert [logged.decision.decision_id for logged in segment.decisions] == taken(quiz_log, selection)


@pytest.mark.parametrize("name", ["it's a week.parquet", "week [1].parquet", "w*k?.parquet", 'a "week".parquet'])
def test_a_file_may_have_any_name(name: str, tmp_path: Path, quiz_log: Log) -> None:
    folder = tmp_path / "o'clock [ab]"
    folder.mkdir()
    segment = load_segment(*quiz_log, "quiz", Selection())
    export_segment(segment, {}, folder / name)
    assert read_segment_file(folder / name, "quiz", Selection())[0].decisions == segment.decisions
    assert [path.name for path in folder.iterdir()] == [name]


def test_a_segment_that_cannot_be_written_is_one_line_and_leaves_nothing(tmp_path: Path, quiz_log: Log) -> None:
    segment = load_segment(*quiz_log, "quiz", Selection())
    with pytest.raises(BadInput, match="segment"):
        export_segment(segment, {}, tmp_path / "nowhere" / "s.parquet")
    (tmp_path / "taken").mkdir()
    with pytest.raises(BadInput, match="taken"):
        export_segment(segment, {}, tmp_path / "taken")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


@pytest.mark.parametrize("content", [b"", b"PAR1 and then nothing", b'{"kind": "decision"}'])
def test_a_file_that_is_no_segment_is_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "segment.parquet"
    path.write_bytes(content)
    with pytest.raises(BadInput, match="not a segment file") as caught:
        read_segment_file(path, "quiz", Selection())
    assert "\n" not in str(caught.value)


def test_a_selection_that_takes_nothing_of_a_file_is_told(tmp_path: Path, quiz_log: Log) -> None:
    export_segment(load_segment(*quiz_log, "quiz", Selection()), {}, tmp_path / "s.parquet")
    with pytest.raises(UsageError, match="the segment is empty"):
        read_segment_file(tmp_path / "s.parquet", "quiz", Selection(start=minute(60)))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="there is no segment file"):
        read_segment_file(tmp_path / "nowhere.parquet", "quiz", Selection())


def test_a_sample_takes_whole_workflows_and_a_larger_one_holds_the_smaller(quiz_log: Log) -> None:
    def workflows(sample: int, seed: int) -> set[str]:
        found = load_segment(*quiz_log, "quiz", Selection(sample=sample, sample_seed=seed)).decisions
        assert len(found) == 2 * sample, "each workflow was asked twice"
        return {logged.decision.workflow for logged in found}

    assert workflows(2, seed=3) < workflows(4, seed=3)
    assert len({frozenset(workflows(2, seed)) for seed in range(12)}) > 1


def test_a_sample_of_a_file_is_that_of_the_log(
    quiz_log: Log, tmp_path: Path, make_question: Callable[..., Decision]
) -> None:
    export_segment(load_segment(*quiz_log, "quiz", Selection()), {}, tmp_path / "all.parquet")
    selection = Selection(sample=3, sample_seed=1)
    again, _ = read_segment_file(tmp_path / "all.parquet", "quiz", selection)
    assert again.decisions == load_segment(*quiz_log, "quiz", selection).decisions


def test_a_sample_of_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match="at least one workflow"):
        Selection(sample=0)
