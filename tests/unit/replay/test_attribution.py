"""The cause: what two contrasts with the incumbent of today say together, and what cannot be said."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.replay.attribution import Attribution, attribute

Contrast = str | None
CONTRASTS = (None, "diverged", "equivalent", "inconclusive")
VERDICTS = CONTRASTS[1:]


def found(
    verdict: str, environment: Contrast, change: Contrast, changed: Sequence[str] = ("model",), drifted: int = 0
) -> Attribution:
    return attribute(
        verdict=verdict, environment=environment, change=change, changed=changed, drifted=drifted, compared=50
    )


@pytest.mark.parametrize(
    ("verdict", "environment", "change", "cause"),
    [
        ("diverged", "diverged", "equivalent", "environment"),
        ("diverged", "diverged", "inconclusive", "environment"),
        ("diverged", "equivalent", "diverged", "model"),
        ("diverged", "inconclusive", "diverged", "model"),
        ("diverged", "diverged", "diverged", "environment and model"),
        ("equivalent", "diverged", "diverged", "environment and model"),
        ("equivalent", "equivalent", "equivalent", "none"),
        ("inconclusive", "equivalent", "equivalent", "unknown"),
        ("diverged", "equivalent", "equivalent", "unknown"),
        ("equivalent", "inconclusive", "equivalent", "unknown"),
        ("diverged", None, None, "unknown"),
        ("equivalent", None, None, "none"),
        ("inconclusive", None, None, "unknown"),
    ],
)
def test_the_contrasts_give_the_cause(verdict: str, environment: Contrast, change: Contrast, cause: str) -> None:
    assert found(verdict, environment, change).cause == cause


def test_arms_that_were_shown_to_be_equivalent_are_not_said_to_be_too_little_read() -> None:
    shown, open_ = found("equivalent", "inconclusive", "equivalent"), found("inconclusive", "inconclusive", None)
    assert shown.why.startswith("log and candidate are equivalent; too little was read to say so of both with")
    assert open_.why == "nothing diverged, and too little was read to call the arms equivalent"


def test_a_run_without_coverage_is_said_to_lack_it_and_not_to_have_found_nothing() -> None:
    lacking = attribute(
        verdict="inconclusive",
        environment=None,
        change=None,
        changed=(),
        drifted=0,
        compared=50,
        stopped_because="coverage",
    )
    assert lacking.cause == "unknown"
    assert lacking.why.startswith("coverage is too low for a verdict")


def test_rules_that_changed_are_the_cause_where_nothing_diverged() -> None:
    by_rules = found("equivalent", "equivalent", "equivalent", drifted=7)
    assert (by_rules.cause, by_rules.why) == ("verifier", "today's rules judge 7 of 50 logged answers otherwise")
    assert found("diverged", "equivalent", "diverged", drifted=7).cause == "model"


@pytest.mark.parametrize(
    ("changed", "cause"),
    [(["prompt"], "prompt"), (["parameters"], "parameters"), (["model", "prompt"], "model or prompt")],
)
def test_the_side_of_the_candidate_is_named_after_what_it_changes(changed: list[str], cause: str) -> None:
    assert found("diverged", "equivalent", "diverged", changed).cause == cause


def test_the_sentence_says_what_the_candidate_changes_and_what_would_tell_more() -> None:
    assert (
        "changes the prompt and the parameters," in found("diverged", None, "diverged", ["prompt", "parameters"]).why
    )
    assert "give --incumbent" in found("diverged", None, None).why
    assert "the candidate's part is not known" in found("diverged", "diverged", "inconclusive").why


@given(
    st.sampled_from(VERDICTS),
    st.sampled_from(CONTRASTS),
    st.sampled_from(CONTRASTS),
    st.sampled_from([(), ("model",)]),
    st.sampled_from([0, 3]),
)
def test_an_alarm_is_never_voided_and_no_alarm_is_never_blamed(
    verdict: str, environment: Contrast, change: Contrast, changed: Sequence[str], drifted: int
) -> None:
    cause = found(verdict, environment, change, changed, drifted).cause
    assert set(cause.split(" and ")) <= {"environment", "verifier", "none", "unknown", "model", "candidate"}
    assert ("environment" in cause) == (environment == "diverged")
    assert (("model" if changed else "candidate") in cause) == (change == "diverged")
