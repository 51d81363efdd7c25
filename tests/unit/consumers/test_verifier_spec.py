"""The verifier spec of recordings: how an answer is found, normalised and accepted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from driftline.consumers import Answer, Case, Judgement, SpecJudge
from driftline.schemas import BadInput

HAPPY = r"""
[streams.s]
extract = ['\\boxed\{([^{}]*)\}', 'answer is (\d+)']
normalise = ["strip"]
accept = "equals-reference"
"""


def judged(spec: str, text: str | None, reference: Any = None, facts: dict[str, Any] | None = None) -> Judgement:
    return SpecJudge.parse(spec).for_stream("s").judge(Answer(text, facts=facts), Case({}, reference))


def answer_in(text: str, extract: str, normalise: str = "[]") -> str | None:
    spec = f'[streams.s]\nextract = {extract}\nnormalise = {normalise}\naccept = "non-empty"'
    proposal = judged(spec, text).proposal
    return None if proposal is None else proposal.payload["answer"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (r"so \boxed{4}", "4"),
        (r"\boxed{3} no, \boxed{4}", "4"),
        (r"the answer is 7, \boxed{4}, the answer is 8", "4"),
        ("the answer is 7. The answer is 8", "8"),
        ("nothing", None),
    ],
)
def test_the_first_extractor_that_matches_counts_by_its_last_match(text: str, found: str | None) -> None:
    proposal = judged(HAPPY, text, r"\boxed{4}").proposal
    assert (None if proposal is None else proposal.payload["answer"]) == found


def test_a_match_in_which_the_group_took_no_part_finds_nothing() -> None:
    assert answer_in("yes, maybe", "['(yes|no)|maybe']") == "yes"


def test_an_extractor_may_find_an_empty_answer() -> None:
    assert answer_in("<>", "['<([a-z]*)>', '(<)']") == ""


@pytest.mark.parametrize(
    ("pointer", "found"),
    [
        ("/Answer", "B"),
        ("/list/1/x", "2"),
        ("/a~1b/~0", "deep"),
        ("/flag", "true"),
        ("/half", "0.5"),
        ("/list", '[0, {"x": 2}]'),
        ("/none", None),
        ("/missing", None),
        ("/list/01", None),
        ("/list/-", None),
        ("/list/²", None),
        ("/Answer/0", None),
    ],
)
def test_a_pointer_finds_a_value_as_json_writes_it(pointer: str, found: str | None) -> None:
    text = '{"Answer": "B", "list": [0, {"x": 2}], "a/b": {"~": "deep"}, "flag": true, "half": 0.5, "none": null}'
    assert answer_in(text, f"['json:{pointer}']") == found


@pytest.mark.parametrize("text", ["no json", '{"Answer": "B"} and more', "[" * 100_000])
def test_a_pointer_finds_nothing_in_what_is_not_json_as_a_whole(text: str) -> None:
    assert answer_in(text, "['json:/Answer']") is None


def test_without_extractors_the_whole_text_is_the_answer() -> None:
    assert answer_in(" a b ", "[]") == " a b "


@pytest.mark.parametrize(
    ("normalise", "found"),
    [
        ("[]", " (b)! "),
        ("['strip']", "(b)!"),
        ("['upper']", " (B)! "),
        ("['alphanumeric']", "b"),
        ("['alphanumeric', 'upper']", "B"),
        ("['upper', 'strip']", "(B)!"),
    ],
)
def test_normalisers_apply_in_the_order_given(normalise: str, found: str) -> None:
    assert answer_in(" (b)! ", "[]", normalise) == found


@pytest.mark.parametrize(
    ("reference", "accepted"),
    [(r"\boxed{4}", True), ("4", True), (" 4 ", True), (4, True), ("the answer is 4", True), ("5", False)],
)
def test_a_reference_is_read_as_an_answer_is_or_stands_as_it_is(reference: Any, accepted: bool) -> None:
    assert judged(HAPPY, r"\boxed{4}", reference).accepted is accepted


def test_a_wrong_answer_is_told_what_was_expected() -> None:
    (rejection,) = judged(HAPPY, r"\boxed{5}", r"\boxed{4}").rejections
    assert (rejection.code, rejection.expected, rejection.actual) == ("wrong_answer", "4", "5")


def test_without_a_reference_no_answer_equals_it() -> None:
    (rejection,) = judged(HAPPY, r"\boxed{5}").rejections
    assert rejection.expected == "a reference answer, and there is none"


@pytest.mark.parametrize(
    ("flag", "accepted"),
    [("1", True), (1, True), (1.0, True), (True, True), ("0", False), (None, False), ("", False)],
)
def test_a_flag_of_the_answer_decides(flag: Any, accepted: bool) -> None:
    spec = '[streams.s]\naccept = "reference-flag"'
    assert judged(spec, "text", facts={"reference": flag}).accepted is accepted


def test_an_answer_without_a_flag_is_not_accepted() -> None:
    assert not judged('[streams.s]\naccept = "reference-flag"', "text", reference="1").accepted


@pytest.mark.parametrize(("text", "accepted"), [("a1", True), ("a1 ", False), ("b1", False)])
def test_a_pattern_matches_the_whole_answer(text: str, accepted: bool) -> None:
    assert judged("[streams.s]\naccept = 'matches'\npattern = 'a\\d'", text).accepted is accepted


def test_without_a_pattern_what_was_extracted_matches() -> None:
    spec = "[streams.s]\naccept = 'matches'\nextract = ['(\\d)']"
    assert judged(spec, "a 1").accepted
    assert judged(spec, "a").rejections[0].code == "not_extracted"


@pytest.mark.parametrize(("text", "accepted"), [("a", True), (" ", False), ("", False)])
def test_an_answer_that_is_not_empty_is_accepted(text: str, accepted: bool) -> None:
    assert judged('[streams.s]\naccept = "non-empty"\nnormalise = ["strip"]', text).accepted is accepted


def test_a_call_without_an_answer_is_rejected() -> None:
    assert judged(HAPPY, None, "4").rejections[0].code == "no_answer"


def test_a_lone_surrogate_is_judged_as_the_log_holds_it() -> None:
    spec = '[streams.s]\naccept = "non-empty"'
    action = judged(spec, "a\ud800").action
    assert action == judged(spec, "a\\ud800").action
    assert action is not None
    assert action.compared == {"answer": "a\\ud800"}


def test_the_version_is_that_of_the_text() -> None:
    assert SpecJudge.parse(HAPPY).version == SpecJudge.parse(HAPPY, "other.toml").version
    assert SpecJudge.parse(HAPPY).version != SpecJudge.parse(HAPPY.replace("strip", "upper")).version


@pytest.mark.parametrize(
    ("spec", "where"),
    [
        ("[streams.s]\nextract = ['(']\naccept = 'non-empty'", r'\[streams\."s"\] extract: bad regex .*unterminated'),
        ("[streams.s]\nextract = ['a{9999999999999}(b)']\naccept = 'non-empty'", "extract: bad regex .*too large"),
        ("[streams.s]\nextract = ['ok']\naccept = 'non-empty'", "extract: the regex 'ok' has no group"),
        ("[streams.s]\nextract = ['json:Answer']\naccept = 'non-empty'", "extract: 'json:Answer' is not json:/Poin"),
        ("[streams.s]\naccept = 'matches'\npattern = '['", "bad regex '\\['"),
        ("[streams.s]\naccept = 'matches'", "needs `pattern` or `extract`"),
        ("[streams.s]\naccept = 'non-empty'\npattern = 'a'", "`pattern` goes only with"),
        ("[streams.s]\naccept = 'sometimes'", r'\[streams\."s"\] accept: Input should be'),
        ("[streams.s]\nnormalise = ['lower']\naccept = 'non-empty'", r"normalise\.0: Input should be"),
        ("[streams.s]\nextract = 'x'\naccept = 'non-empty'", "extract: Input should be"),
        ("[streams.s]\nacept = 'non-empty'", r'\[streams\."s"\] acc?ept: '),
        ("[streams.s]\naccept = 'non-empty'\nmore = 1", "more: Extra inputs"),
        ("[streams]\ns = 1", r'\[streams\."s"\] is no table'),
        ("streams = 1", "a spec holds tables"),
        ("[stream.s]\naccept = 'non-empty'", "a spec holds tables"),
        ("", "a spec holds tables"),
        ("[streams.s\n", "not TOML: .*line 1"),
    ],
)
def test_a_wrong_spec_is_one_line_that_names_the_file_and_the_field(spec: str, where: str) -> None:
    with pytest.raises(BadInput, match=rf"^SPEC\.toml: .*{where}") as caught:
        SpecJudge.parse(spec)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"verifier spec .*none\.toml: .*; give the path of a TOML file"):
        SpecJudge.from_file(tmp_path / "none.toml")


def test_a_stream_that_the_spec_does_not_name_is_refused() -> None:
    with pytest.raises(BadInput, match=r'SPEC\.toml: no \[streams\."other"\]; add the table; the spec has s'):
        SpecJudge.parse(HAPPY).for_stream("other")
