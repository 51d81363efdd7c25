"""What `--candidate` says of each candidate: model, prompt, parameters and verifier of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.console.candidates import Parts, tried_of
from driftline.consumers.prompt import Prompt
from driftline.examples import renewals as example
from driftline.replay.segment_file import read_artifacts_of_file
from driftline.schemas import BadInput, UsageError, canonical_json

FOLDER = Path(example.__path__[0])
APP, SEGMENT = "driftline.examples.renewals.app:app", FOLDER / "segment.parquet"
V1, V2 = (Prompt.from_file(FOLDER / "prompts" / name) for name in ("v1.md", "v2.md"))
NOTHING = Parts()
NAMES = st.from_regex(r"[a-z_]{1,8}", fullmatch=True).filter(lambda name: name not in ("prompt", "verifier"))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text('ab=",', max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("xyz", min_size=1), inner, max_size=3),
    max_leaves=6,
)


def test_each_candidate_has_a_prompt_parameters_and_a_verifier_of_its_own() -> None:
    v2 = FOLDER / "prompts" / "v2.md"
    texts = [f"sim/renewals,prompt={v2},temperature=0.2", "openai/gpt-4o,verifier=other.toml", "log,temperature=0"]
    shared = Parts(None, str(FOLDER / "prompts" / "v1.md"), {"temperature": 1, "top_p": 0.5}, "spec.toml")
    found = [
        (one.candidate.model, one.candidate.prompt, dict(one.candidate.parameters), one.verifier)
        for one in tried_of(APP, SEGMENT, texts, shared)
    ]
    assert found == [
        ("sim/renewals", V2, {"temperature": 0.2, "top_p": 0.5}, "spec.toml"),
        ("openai/gpt-4o", V1, {"temperature": 1, "top_p": 0.5}, "other.toml"),
        (None, V1, {"temperature": 0, "top_p": 0.5}, "spec.toml"),
    ]


@given(st.dictionaries(NAMES, VALUES, max_size=4))
def test_parameters_come_back_whatever_commas_they_hold(parameters: dict[str, object]) -> None:
    text = ",".join(["a/b", *(f"{name}={canonical_json(value)}" for name, value in parameters.items())])
    assert Parts.parse(text, NOTHING) == Parts("a/b", None, parameters, None)


def test_a_prompt_that_the_log_or_the_segment_holds_is_named_by_the_beginning_of_its_hash() -> None:
    (one,) = tried_of(APP, SEGMENT, [f"sim/renewals,prompt={V1.hash[:8]}"], NOTHING)
    assert one.candidate.prompt is not None
    assert (one.candidate.prompt.hash, one.candidate.prompt.text) == (V1.hash, V1.text)


def test_a_hash_that_nobody_has_is_told_with_those_that_are_there() -> None:
    assert V1.hash in read_artifacts_of_file(SEGMENT)
    with pytest.raises(BadInput, match=f"no prompts begin with 00000000.*name one of {V1.hash[:12]} \\(renewals/"):
        tried_of(APP, SEGMENT, [], Parts(None, "00000000"))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a/b,temperature=warm", ",temperature=warm is not ,NAME=JSON"),
        ("a/b,temperature=1 warm", " warm is not ,NAME=JSON"),
        ("a/b,warm", ",warm is not ,NAME=JSON"),
        ("a/b,top_p=1, top_p=2", "gives top_p twice"),
        ("a/b,prompt=absent.md", "absent.md"),
    ],
)
def test_a_part_that_cannot_be_is_told(text: str, told: str) -> None:
    with pytest.raises(BadInput, match=told):
        tried_of(APP, SEGMENT, [text], NOTHING)


def test_a_recording_may_have_a_comma_in_its_path() -> None:
    text = "recorded/a,b.jsonl.gz#acme/one@1,temperature=0.2"
    assert Parts.parse(text, NOTHING) == Parts("recorded/a,b.jsonl.gz#acme/one@1", None, {"temperature": 0.2}, None)


def test_one_candidate_in_two_spellings_is_tried_once() -> None:
    texts = ["a/b,temperature=0,top_p=1", "a/b,top_p=1.0,temperature=0.0", "a/b,temperature=0"]
    assert [one.candidate.parameters for one in tried_of(APP, SEGMENT, texts, NOTHING)] == [
        {"temperature": 0, "top_p": 1},
        {"temperature": 0},
    ]


def test_another_verifier_alone_is_no_candidate_and_the_mode_that_judges_anew_is_named() -> None:
    with pytest.raises(UsageError, match=r"nothing but the verifier.*--mode verify"):
        tried_of(APP, SEGMENT, ["log,verifier=other.toml"], NOTHING)


def test_a_candidate_that_changes_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match="changes nothing"):
        tried_of(APP, SEGMENT, ["log"], NOTHING)
