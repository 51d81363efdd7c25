"""Recorded decisions become history on the real log: all of a file's, once, or nothing."""

import gzip
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from driftline.log import AppTopics, KafkaReader, Settings, TopicAdmin, to_event
from driftline.log.clients import make_producer
from driftline.producers import ImportSummary, JudgedLine, import_recorded
from driftline.schemas import (
    BadInput,
    Codec,
    Contracts,
    Decision,
    Event,
    Registry,
    Rejection,
    Verdict,
    canonical_json,
)
from driftline.schemas.ids import derive_id
from driftline.schemas.recorded import RecordedLine

pytestmark = pytest.mark.integration

Row = dict[str, Any]
NOT_BLUE = Rejection(code="wrong_answer", message="not blue")


def _row(event_id: str, response: str = "blue", model: str = "lab/old", **other: Any) -> Row:
    return {
        "set": "colours",
        "event_id": event_id,
        "stream": "sky",
        "time": "2023-07-25T16:23:27+00:00",
        "messages": [{"role": "user", "content": "Which colour?"}],
        "model": model,
        "params": {"temperature": 0.1},
        "replicate": 0,
        "response": response,
        "reference": "blue",
        "latency_ms": 12.5,
        "cost_usd": 0.25,
        "completion_tokens": 3,
        **other,
    }


def _judge(line: RecordedLine) -> JudgedLine:
    if line.response == "blue":
        return JudgedLine(Verdict.ACCEPTED, (), "answer", canonical_json({"answer": "BLUE"}))
    return JudgedLine(Verdict.REJECTED, (NOT_BLUE,))


Write = Callable[..., Path]
Import = Callable[..., ImportSummary]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(*rows: Row | str, name: str = "colours.jsonl") -> Path:
        path = tmp_path / name
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        path.write_text("\n".join(lines) + "\n")
        return path

    return write


@pytest.fixture
def import_(cluster: Settings, app_name: str) -> Import:
    def import_(path: Path, model: str = "lab/old", **other: Any) -> ImportSummary:
        return import_recorded(
            path,
            app=app_name,
            model=model,
            judge=_judge,
            prompt_hash="prompt-1",
            settings=cluster,
            **{"judge_version": f"{app_name}-spec-1", "spec_text": "accept = blue", **other},
        )

    return import_


class History:
    """What lies on an app's topics."""

    def __init__(self, cluster: Settings, app: str) -> None:
        self.topics = AppTopics(app)
        self._reader = KafkaReader(cluster)
        self._codec = Codec(Registry(cluster.require_registry()), Contracts.load())

    def events(self) -> list[Event]:
        records = self._reader.read(self._reader.span(self.topics.events))
        return [to_event(record, self._codec) for record in records]

    def decisions(self) -> list[Decision]:
        records = self._reader.read(self._reader.span(self.topics.decisions))
        return [Decision.model_validate(self._codec.decode(record.value).value) for record in records]

    def artifact(self, name: str) -> dict[str, Any]:
        """The newest of that name."""
        return self.artifacts(name)[-1]

    def artifacts(self, name: str) -> list[dict[str, Any]]:
        records = self._reader.read(self._reader.span("driftline.artifacts"))
        found = [self._codec.decode(record.value).value for record in records]
        return [value for value in found if value["name"] == name]


@pytest.fixture
def history(cluster: Settings, app_name: str) -> History:
    return History(cluster, app_name)


def test_a_line_becomes_an_event_and_the_decision_that_was_made_of_it(
    write: Write, import_: Import, history: History, app_name: str
) -> None:
    summary = import_(write(_row("e1", id="fact-1")))
    (event,), (decision,) = history.events(), history.decisions()
    assert (event.id, event.type, event.source, event.workflow) == ("fact-1", "sky", "recording:colours", "e1")
    assert event.time == decision.decided_at == datetime(2023, 7, 25, 16, 23, 27, tzinfo=UTC)
    assert decision.decision_id == derive_id(app_name, "recorded", str(decision.input))
    assert decision.input.event_id == "fact-1"
    assert decision.context_value() == {"messages": _row("")["messages"], "reference": "blue"}
    assert (decision.model_requested, decision.parameters) == ("lab/old", '{"temperature":0.1}')
    assert (decision.prompt_hash, decision.verifier_version) == ("prompt-1", f"{app_name}-spec-1")
    assert (decision.verdict, decision.action_type, decision.action_payload) == (
        "accepted",
        "answer",
        '{"answer":"BLUE"}',
    )
    (attempt,) = decision.attempts
    assert (attempt.raw_response, attempt.facts) == ("blue", '{"reference":"blue"}')
    assert (attempt.usage.completion_tokens, attempt.cost_usd, attempt.latency_ms) == (3, 0.25, 12.5)
    assert history.artifact(app_name)["content"] == "accept = blue"
    assert summary == ImportSummary(app_name, "lab/old", 0, 1, 1, 0, {"accepted": 1})


def test_a_rejected_answer_keeps_why(write: Write, import_: Import, history: History) -> None:
    import_(write(_row("e1", "red"), _row("e2", "")))
    decisions = history.decisions()
    assert [decision.verdict for decision in decisions] == ["rejected", "rejected"]
    assert all(decision.attempts[0].rejections == (NOT_BLUE,) for decision in decisions)


def test_importing_the_same_again_writes_nothing_and_says_so(
    write: Write, import_: Import, history: History, app_name: str
) -> None:
    path = write(_row("e1"), _row("e2", "red"))
    import_(path)
    again = import_(path)
    assert (again.events, again.decisions, again.skipped) == (0, 0, 2)
    assert str(again) == f"nothing new: all 2 decisions of lab/old are on {app_name}.decisions already"
    assert len(history.events()) == len(history.decisions()) == 2


def test_a_mended_spec_is_the_newest_one_though_no_decision_is_new(
    write: Write, import_: Import, history: History, app_name: str
) -> None:
    path = write(_row("e1"))
    assert import_(path).new_spec is None
    mended = import_(path, judge_version=f"{app_name}-spec-2", spec_text="accept = navy")
    assert str(mended).endswith(f"already; the verifier spec is now {app_name}-spec-2")
    assert history.artifact(app_name)["content"] == "accept = navy"
    assert import_(path).new_spec == f"{app_name}-spec-1"
    assert import_(path).new_spec is None
    contents = [artifact["content"] for artifact in history.artifacts(app_name)]
    assert contents == ["accept = blue", "accept = navy", "accept = blue"]
    assert len(history.decisions()) == 1


def test_records_of_others_with_odd_ids_do_not_end_an_import(
    write: Write, import_: Import, history: History, cluster: Settings
) -> None:
    import_(write(_row("e1", id="a")))
    producer = make_producer(cluster, {})
    odd: list[list[tuple[str, Any]]] = [[("ce_id", None)], [("ce_id", b"\xff")], []]
    for headers in odd:
        producer.produce(history.topics.events, b"v", b"k", headers=headers)
    assert producer.flush(30) == 0
    assert import_(write(_row("e1", id="a"), _row("e2", id="b"))).decisions == 1


def test_of_an_overlap_only_the_new_is_imported(write: Write, import_: Import, history: History) -> None:
    import_(write(_row("e1", id="a"), _row("e2", id="b")))
    summary = import_(write(_row("e2", id="b"), _row("e3", id="c"), name="later.jsonl"))
    assert (summary.decisions, summary.skipped) == (1, 1)
    assert sorted(decision.workflow for decision in history.decisions()) == ["e1", "e2", "e3"]


def test_another_model_of_the_same_file_is_another_history(write: Write, import_: Import, history: History) -> None:
    path = write(_row("e1"), _row("e1", "red", model="lab/new"))
    import_(path)
    assert import_(path, "lab/new").decisions == 1
    assert sorted(decision.model_requested for decision in history.decisions()) == ["lab/new", "lab/old"]


def test_the_lowest_replicate_is_taken_unless_another_is_asked(
    write: Write, import_: Import, history: History
) -> None:
    path = write(*[_row("e1", f"run {run}", replicate=run) for run in (3, 1, 2)])
    assert import_(path).replicate == 1
    assert import_(path, replicate=2).replicate == 2
    assert sorted(decision.attempts[0].raw_response or "" for decision in history.decisions()) == ["run 1", "run 2"]


def test_more_lines_than_a_batch_keep_their_own_coordinates(
    write: Write, import_: Import, history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("driftline.producers.recordings.BATCH_LINES_MAX", 3)
    seen: list[tuple[int, int]] = []
    import_(write(*[_row(f"e{n}") for n in range(8)]), on_progress=lambda done, total: seen.append((done, total)))
    by_id = {event.id: event.workflow for event in history.events()}
    assert all(by_id[decision.input.event_id] == decision.workflow for decision in history.decisions())
    assert seen == [(3, 8), (6, 8), (8, 8)]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("{", "not JSON"),
        (json.dumps({**_row("e"), "time": "yesterday"}), "time: "),
        (json.dumps({key: value for key, value in _row("e").items() if key != "messages"}), "messages: "),
        (json.dumps(_row("e", reference=2**60)), "reference: "),
        (json.dumps(_row("e", params={"seed": 2**60})), "params: "),
        (json.dumps(_row("e", messages=[{"content": 2**60}])), "messages: "),
        (json.dumps(_row("e", time="1950-01-01T00:00:00Z")), "time: "),
        (json.dumps(_row("e", response="x" * 1_000_000)), "response: "),
        (json.dumps(_row("e3")), "event_id: 'e3' is on line 4 already"),
    ],
)
def test_a_malformed_line_17_is_told_and_nothing_is_written(
    write: Write, import_: Import, history: History, cluster: Settings, line: str, told: str
) -> None:
    path = write(*[_row(f"e{n}") for n in range(16)], line)
    with pytest.raises(BadInput) as wrong:
        import_(path)
    assert wrong.value.message.startswith(f"{path}:17: {told}")
    assert history.topics.events not in TopicAdmin(cluster).partitions()


def test_a_model_that_is_not_in_the_file_is_told_with_those_that_are(write: Write, import_: Import) -> None:
    path = write(_row("e1"), _row("e1", model="lab/new"))
    with pytest.raises(BadInput, match="'lab/next'; it holds lab/new, lab/old"):
        import_(path, "lab/next")
    with pytest.raises(BadInput, match="no replicate 7 of lab/old; it holds 0"):
        import_(path, replicate=7)


def test_a_file_that_is_not_there_or_not_whole_is_told(write: Write, import_: Import, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no recording at"):
        import_(tmp_path / "nowhere.jsonl")
    cut = tmp_path / "cut.jsonl.gz"
    cut.write_bytes(gzip.compress(json.dumps(_row("e1")).encode() * 50)[:-20])
    with pytest.raises(BadInput, match=r"cut\.jsonl\.gz"):
        import_(cut)


def test_500_decisions_of_gpt_4_are_history_in_one_transaction(
    recordings: Path, import_: Import, history: History
) -> None:
    summary = import_(recordings / "llmdrift-happy.jsonl.gz", "openai/gpt-4-0314")
    assert (summary.events, summary.decisions) == (500, 500)
    decisions = history.decisions()
    assert len({decision.decision_id for decision in decisions}) == 500
    events = {event.id: event for event in history.events()}
    assert all(events[decision.input.event_id].workflow == decision.workflow for decision in decisions)
