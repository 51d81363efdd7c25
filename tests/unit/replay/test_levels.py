"""Levels: each is measured on its own, whatever a model wrote."""

from __future__ import annotations

import json
import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.consumers import Case, SpecJudge
from driftline.consumers.proposing import Answer
from driftline.replay import AppSubject, JudgedAnswer, Segment, canonical_text
from driftline.replay.arms import judge_answer
from driftline.replay.level_features import LEAVES_MAX, NUMBER_MAX, json_features, text_features
from driftline.replay.levels import LEVELS
from driftline.schemas import Decision

OFFER = {
    "type": "driftline.renewals.ContractRenewedWithOffer",
    "payload": {"term_months": 12, "discount_pct": 20, "rationale": "A fair offer."},
}
PLAIN = json.dumps(OFFER)
JSON_SPEC = SpecJudge.parse('[streams.quiz]\nextract = ["json:/Answer"]\naccept = "non-empty"\n')

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
layout = st.sampled_from([None, 0, 2])
"""Texts as models write them: anything, JSON in some layout, either of them in fences and white space."""
texts = st.text() | st.builds(lambda value, indent: json.dumps(value, indent=indent), json_values, layout)
fenced = st.recursive(
    texts,
    lambda inner: st.builds(
        "{}```{}{}\n{}{}```{}".format,
        st.sampled_from(["", " ", "\n"]),
        st.sampled_from(["", "json", "c++", "a b"]),
        st.sampled_from(["", " \t"]),
        inner,
        st.sampled_from(["", "\n", " "]),
        st.sampled_from(["", "\x1c", "\n\n"]),
    ),
    max_leaves=3,
)


@pytest.fixture
def judge(renewals_history: Segment, renewals_subject: AppSubject) -> Callable[[str | None], JudgedAnswer]:
    decision = renewals_history.decisions[0].decision

    return lambda text: judge_answer(Answer(text), decision, renewals_subject)


def differing(one: JudgedAnswer, other: JudgedAnswer) -> set[str]:
    return {level for level in LEVELS if one.hashes.get(level) != other.hashes.get(level)}


def test_a_code_fence_changes_bytes_and_verdict_and_not_the_canonical_text(
    judge: Callable[[str], JudgedAnswer],
) -> None:
    assert differing(judge(PLAIN), judge(f"```json\n{PLAIN}\n```")) == {"bytes", "verdict", "action", "arguments"}


def test_reworded_free_text_changes_arguments_and_neither_action_nor_verdict(
    judge: Callable[[str], JudgedAnswer],
) -> None:
    reworded = {**OFFER, "payload": {**OFFER["payload"], "rationale": "An offer that is fair."}}  # type: ignore[dict-item]
    assert differing(judge(PLAIN), judge(json.dumps(reworded))) == {"bytes", "canonical", "arguments"}


def test_the_layout_of_json_changes_bytes_alone(judge: Callable[[str], JudgedAnswer]) -> None:
    assert differing(judge(PLAIN), judge(json.dumps(OFFER, indent=2, sort_keys=True))) == {"bytes"}


def test_another_number_is_another_action(judge: Callable[[str], JudgedAnswer]) -> None:
    other = json.dumps({**OFFER, "payload": {**OFFER["payload"], "discount_pct": 25}})  # type: ignore[dict-item]
    assert differing(judge(PLAIN), judge(other)) == {"bytes", "canonical", "arguments", "action"}


def test_prose_and_no_answer_have_no_action_and_still_compare(
    judge: Callable[[str | None], JudgedAnswer],
) -> None:
    prose, nothing = judge("I would renew."), judge(None)
    assert "action" not in prose.hashes
    assert differing(prose, nothing) == {"bytes", "canonical"}
    assert prose.outcome().features == nothing.outcome().features == {"action=none": 1.0}


def test_every_level_of_an_answer_is_described_to_the_detectors(judge: Callable[[str], JudgedAnswer]) -> None:
    plain, fenced = judge(PLAIN).outcome(), judge(f"```json\n{PLAIN}\n```").outcome()
    assert plain.level_features["bytes"]["fenced"] < fenced.level_features["bytes"]["fenced"]
    assert plain.level_features["canonical"] == fenced.level_features["canonical"]
    assert plain.level_features["canonical"]["/payload/discount_pct"] == 20.0
    assert plain.level_features["arguments"]["/discount_pct=20.0"] == 1.0
    assert "arguments" not in fenced.level_features


def test_a_run_of_the_floor_is_told_by_its_hashes_alone(judge: Callable[[str], JudgedAnswer]) -> None:
    one = judge(PLAIN)
    assert (one.floor_outcome().hashes, one.floor_outcome().accepted) == (one.hashes, one.outcome().accepted)
    assert (one.floor_outcome().features, one.floor_outcome().level_features) == ({}, {})


@given(texts, json_values)
def test_whatever_a_model_writes_is_described_by_few_finite_numbers(text: str, value: object) -> None:
    for features in (text_features(text), json_features(value)):
        assert all(math.isfinite(number) for number in features.values())
        assert len(features) <= 2 * LEAVES_MAX
    assert json_features({"deep": [value, 10**400]})["/deep/1"] == NUMBER_MAX


def test_a_long_text_is_described_by_its_beginning_and_its_length() -> None:
    short, long = text_features("word " * 1000), text_features("word " * 9000)
    assert {name for name in short if short[name] != long[name]} == {"length"}


@given(fenced)
def test_the_canonical_text_of_a_canonical_text_is_that_text(text: str) -> None:
    once = canonical_text(text)
    assert canonical_text(once) == once


@given(json_values, layout, layout)
def test_json_in_any_layout_or_fence_has_one_canonical_text(
    value: object, one: int | None, other: int | None
) -> None:
    text = json.dumps(value, indent=one)
    again = f" ```json\n{json.dumps(value, indent=other)}\n```\n"
    if "NaN" not in text and "Infinity" not in text and canonical_text(text) != text:
        assert canonical_text(again) == canonical_text(text)


@given(st.text(alphabet=st.characters(), max_size=30) | fenced)
def test_no_text_that_a_model_can_write_breaks_the_levels(text: str) -> None:
    judged = JudgedAnswer(Answer(text), JSON_SPEC.for_stream("quiz").judge(Answer(text), Case({})))
    assert judged.hashes == JudgedAnswer(Answer(text), judged.judgement).hashes
    assert judged.hashes.keys() <= set(LEVELS)


def test_a_lone_surrogate_in_an_extracted_answer_can_be_compared(
    make_question: Callable[..., Decision],
) -> None:
    answers = [Answer('{"Answer": "\\ud800"}'), Answer('{"Answer": "\\ud801"}')]
    judged = [JudgedAnswer(one, JSON_SPEC.for_stream("quiz").judge(one, Case({}))) for one in answers]
    assert differing(*judged) == {"bytes", "canonical", "action"}


def test_a_text_that_opens_fences_without_end_takes_time_in_proportion_to_its_length() -> None:
    """Each of these took minutes with a regex that backtracks, or with a copy for each layer."""
    for text in ("```\n" * 100_000, "```json\n" + " " * 200_000, "```\n" * 100_000 + "```" * 100_000):
        assert len(canonical_text(text)) <= len(text)
