"""`recorded/…`: answers from a file, and what is said of a file that cannot answer."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.consumers.models import LiteLLMProposer, RecordedAnswers
from driftline.consumers.models.recorded import split_recorded
from driftline.consumers.proposing import Answer, CallKey, ProposalRequest, ProposerFailure
from driftline.schemas import BadInput, UsageError
from driftline.schemas.recorded import RecordedLine, parse_recorded_line, read_recorded

pytestmark = pytest.mark.filterwarnings("ignore:.*using the `ReadOnly` qualifier:UserWarning")

MODEL = "openai/gpt-4o"


def line(**changes: Any) -> dict[str, Any]:
    return {
        "set": "s",
        "event_id": "e1",
        "stream": "questions",
        "time": "2025-03-01T10:58:34+00:00",
        "messages": [{"role": "user", "content": "?"}],
        "model": MODEL,
        "params": {"temperature": 0},
        "replicate": 0,
        "response": "yes",
        "reference": "Yes",
        "latency_ms": 12.5,
        "cost_usd": 0.25,
        "completion_tokens": 7.0,
        **changes,
    }


def write(path: Path, *lines: Mapping[str, Any] | str) -> Path:
    text = "".join((each if isinstance(each, str) else json.dumps(each)) + "\n" for each in lines)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)
    return path


def ask(model: str, event_id: str = "e1", replicate: int = 0, attempt: int = 1, **parameters: Any) -> Answer:
    key = CallKey("decision", event_id, replicate=replicate, attempt=attempt)
    request = ProposalRequest(model, [{"role": "user", "content": "?"}], key, parameters)
    return asyncio.run(LiteLLMProposer().propose(request))


@pytest.mark.parametrize("name", ["answers.jsonl", "answers.jsonl.gz", "a b/ünïcode/answers.jsonl"])
def test_the_row_comes_back_as_it_was_recorded(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, line())
    answer = ask(f"recorded/{path}#{MODEL}")
    assert (answer.text, answer.failure, answer.facts) == ("yes", None, {"reference": "Yes"})
    assert (answer.latency_ms, answer.cost_usd) == (12.5, 0.25)
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (None, 7)
    assert (answer.model_reported, answer.finish_reason) == (MODEL, None)


def test_what_was_not_recorded_stays_unknown(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", line(latency_ms=None, cost_usd=None, completion_tokens=None))
    answer = ask(f"recorded/{path}#{MODEL}")
    assert (answer.latency_ms, answer.cost_usd, answer.usage.completion_tokens) == (None, None, None)


@pytest.mark.parametrize("word", ["replicate", "claude", "clarifai", "gemini", "ft:davinci-002", "azure"])
def test_no_word_in_the_path_sends_the_messages_to_somebody_else(tmp_path: Path, word: str) -> None:
    """LiteLLM looks for such words anywhere in a model's name."""
    assert ask(f"recorded/{write(tmp_path / word / 'a.jsonl', line())}#{MODEL}").text == "yes"


def test_whatever_parameters_were_recorded_the_answer_is_the_recorded_one(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", line())
    answer = ask(f"recorded/{path}#{MODEL}", thinking={"x": 1}, functions=[{}], tools=5, top_k="a", temperature="b")
    assert answer.text == "yes"


def test_a_path_may_climb_out_of_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "data" / "a.jsonl", line())
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    assert ask(f"recorded/../data/a.jsonl#{MODEL}").text == "yes"


def test_replicates_are_pinned_or_counted_on_and_never_copied(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", *(line(replicate=number, response=f"run {number}") for number in (2, 4, 7)))
    assert ask(f"recorded/{path}#{MODEL}").text == "run 2", "the lowest there is"
    assert ask(f"recorded/{path}#{MODEL}", replicate=1).text == "run 4"
    assert ask(f"recorded/{path}#{MODEL}@7").text == "run 7"
    for model, replicate in ((MODEL, 3), (f"{MODEL}@7", 1)):
        answer = ask(f"recorded/{path}#{model}", replicate=replicate)
        assert answer.failure is ProposerFailure.NOT_RECORDED
        assert f"repeat {replicate}" in answer.failure_detail


def test_a_second_attempt_gets_the_one_answer_that_there_is(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", line())
    assert ask(f"recorded/{path}#{MODEL}", attempt=2).text == "yes"


def test_an_at_sign_that_belongs_to_the_models_name_is_no_replicate(tmp_path: Path) -> None:
    model = "vertex_ai/claude@20240620"
    path = write(tmp_path / "a.jsonl", line(model=model), line(model=model, replicate=1, response="no"))
    assert ask(f"recorded/{path}#{model}").text == "yes"
    assert ask(f"recorded/{path}#{model}@1").text == "no"


def test_an_event_that_was_not_recorded_costs_coverage_and_gets_no_other_events_answer(tmp_path: Path) -> None:
    answer = ask(f"recorded/{write(tmp_path / 'a.jsonl', line())}#{MODEL}", event_id="e2")
    assert (answer.failure, answer.text) == (ProposerFailure.NOT_RECORDED, None)
    assert "e2" in answer.failure_detail


@pytest.mark.parametrize("response", ["", "  ", None])
def test_an_empty_answer_is_a_failure(tmp_path: Path, response: str | None) -> None:
    path = write(tmp_path / "a.jsonl", line(response=response))
    assert ask(f"recorded/{path}#{MODEL}").failure is ProposerFailure.EMPTY


def test_a_missing_model_lists_those_that_are_there(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", line(), line(model="a/b"))
    with pytest.raises(UsageError, match=r"no answers of the model 'gpt-4o'; it holds a/b, openai/gpt-4o"):
        ask(f"recorded/{path}#gpt-4o")
    with pytest.raises(UsageError, match=r"no replicate 3 of openai/gpt-4o; it holds 0"):
        ask(f"recorded/{path}#{MODEL}@3")


@pytest.mark.parametrize("name", ["", "a.jsonl", "#model", "a.jsonl#"])
def test_a_model_string_without_path_or_model_says_how_to_write_it(name: str) -> None:
    with pytest.raises(UsageError, match=r"recorded/<path>#<model>\[@replicate\]"):
        ask(f"recorded/{name}")


def test_a_missing_file_is_named() -> None:
    with pytest.raises(BadInput, match=r"no recording at nowhere\.jsonl"):
        ask(f"recorded/nowhere.jsonl#{MODEL}")
    with pytest.raises(BadInput, match=r"no recording at nowhere\.jsonl"):
        list(read_recorded(Path("nowhere.jsonl")))


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ("{", r":2: not JSON"),
        ("[1]", r":2: input should be a valid dictionary"),
        ("\x00", r":2: not JSON"),
        (line(model=None), r":2: model: input should be a valid string"),
        (line(time="yesterday"), r":2: time: .*'yesterday' is neither ISO 8601"),
        (line(time=5), r":2: time: .*not a text"),
        (line(replicate="x"), r":2: replicate: "),
        (line(cost_usd=-1), r":2: cost_usd: input should be greater than or equal to 0"),
        (line(cost_usd=float("inf")), r":2: cost_usd: input should be a finite number"),
        (line(messages="?"), r":2: messages: "),
        (line(messages=["?"]), r":2: messages\.0: "),
        ({key: value for key, value in line().items() if key != "event_id"}, r":2: event_id: field required"),
        (line(), r":2: replicate: a second answer of openai/gpt-4o@0 to the event e1"),
    ],
)
def test_a_malformed_line_is_named_with_file_line_and_field(
    tmp_path: Path, bad: Mapping[str, Any] | str, said: str
) -> None:
    path = write(tmp_path / "a.jsonl", line(), bad)
    with pytest.raises(BadInput, match=said) as caught:
        RecordedAnswers.load(path)
    assert str(caught.value).startswith(f"{path}:2: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content", [b"\x1f\x8b\x08broken", gzip.compress(json.dumps(line()).encode())[:-20], b"\xff\xfe"]
)
def test_a_broken_gzip_file_is_bad_input(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(content)
    with pytest.raises(BadInput, match=r"cannot be read"):
        RecordedAnswers.load(path)


def test_bytes_that_are_no_utf8_are_bad_input_with_their_line(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(json.dumps(line()).encode() + b'\n{"a": "\xff"}\n')
    with pytest.raises(BadInput, match=r"a\.jsonl:2: not JSON"):
        RecordedAnswers.load(path)


def test_a_folder_in_place_of_a_file_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot be read"):
        RecordedAnswers.load(tmp_path)


def test_both_time_forms_mean_the_same_moment_and_blank_lines_are_passed_over(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", line(), "", line(event_id="e2", time="2025-03-01_10-58-34"))
    read = dict(read_recorded(path))
    assert read.keys() == {1, 3}
    assert {each.time for each in read.values()} == {datetime(2025, 3, 1, 10, 58, 34, tzinfo=UTC)}


def test_a_line_may_lack_what_has_a_default_and_carry_what_nobody_knows() -> None:
    few = {key: line()[key] for key in ("event_id", "stream", "time", "messages", "model", "response")}
    read = parse_recorded_line(json.dumps({**few, "event_id": 17, "mood": "fine"}), "here:1")
    assert (read.event_id, read.replicate, read.reference, read.params) == ("17", 0, None, {})


def test_a_file_is_read_once_until_it_changes(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", line())
    first = RecordedAnswers.load(path)
    assert RecordedAnswers.load(path) is first
    write(path, line(response="now another"))
    os.utime(path, ns=(1, 1))
    again = RecordedAnswers.load(path).get("e1", MODEL)
    assert again is not None
    assert again.text == "now another"


@given(st.text(st.characters(codec="utf-8", exclude_characters="#"), min_size=1), st.integers(0, 9))
def test_the_last_hash_parts_path_from_model(path: str, replicate: int) -> None:
    assert split_recorded(f"{path}#{MODEL}@{replicate}") == (Path(path), f"{MODEL}@{replicate}")


def test_a_recorded_line_cannot_be_changed() -> None:
    read = RecordedLine.model_validate(line())
    with pytest.raises(ValueError, match="frozen"):
        setattr(read, "model", "other/model")  # noqa: B010
