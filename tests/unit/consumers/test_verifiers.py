"""The verifier chain: parse, schema, policy, budget."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given as hypothesis_given
from hypothesis import strategies as st

from driftline.consumers import Answer, Budget, Case, Judgement, Policy, ProposerFailure, Refusal, VerifierChain, rule
from driftline.consumers.boundary import BoundBoundary
from driftline.consumers.parsing import ANSWER_CHARACTERS_MAX
from driftline.consumers.verifiers import MISMATCHES_TOLD_MAX
from driftline.schemas import Contract, UsageError

GOOD = {"type": "shop.RefundGranted", "payload": {"order": "A1", "amount": 40, "count": 1, "reason": "late"}}
CASE = Case({"event": {"order": "A1", "paid": 40}, "stream": "s", "row": {}})
SHAPE = {"type": "record", "name": "shop.Granted", "fields": [{"name": "amount", "type": "double"}]}

Bind = Callable[..., BoundBoundary]


@pytest.fixture
def chain(bound: Bind) -> VerifierChain:
    return bound().judge


def judged(chain: VerifierChain, text: str) -> Judgement:
    return chain.judge(Answer(text), CASE)


def payload(**changes: Any) -> str:
    return json.dumps({**GOOD, "payload": {**GOOD["payload"], **changes}})  # type: ignore[dict-item]


def code_of(judgement: Judgement) -> str:
    return judgement.rejections[0].code


@pytest.mark.parametrize("layout", [None, 2])
def test_a_proposal_that_fits_is_accepted_however_it_is_laid_out(chain: VerifierChain, layout: int | None) -> None:
    judgement = judged(chain, json.dumps(GOOD, indent=layout))
    assert judgement.accepted
    assert judgement.proposal is not None
    assert judgement.proposal.type == "shop.RefundGranted"


def test_free_text_is_no_part_of_the_action(chain: VerifierChain) -> None:
    one, other = judged(chain, payload(reason="late")).action, judged(chain, payload(reason="lost")).action
    assert one == other
    assert one is not None
    assert one.compared == {"order": "A1", "amount": 40, "count": 1}
    assert one.features["shop.RefundGranted/amount"] == 0.4


@pytest.mark.parametrize(
    "text",
    [
        "",
        "I would grant it.",
        "```json\n" + json.dumps(GOOD) + "\n```",
        json.dumps(GOOD) + "\nI hope that this helps.",
        json.dumps(GOOD) + json.dumps(GOOD),
        json.dumps(GOOD).replace('"count": 1', '"count": 1, "count": 2'),
        json.dumps(GOOD).replace("40", "NaN"),
        json.dumps(GOOD).replace("40", "Infinity"),
        json.dumps(GOOD).replace("40", "9" * 5_000),
        json.dumps(GOOD).replace("40", "[" * 200_000),
        json.dumps(GOOD).replace("late", "x" * ANSWER_CHARACTERS_MAX),
        "\ufeff" + json.dumps(GOOD),
    ],
    ids=lambda text: text[:20] + "…" + text[-10:],
)
def test_what_is_not_one_json_object_is_not_parsed(chain: VerifierChain, text: str) -> None:
    judgement = judged(chain, text)
    assert code_of(judgement) == "not_json"
    assert judgement.proposal is None
    assert judgement.rejections[0].retryable


@pytest.mark.parametrize("value", ["9007199254740993", "1e999", '"\\ud800"', "1" + "0" * 400, "1e16"])
def test_what_canonical_json_refuses_is_refused(chain: VerifierChain, value: str) -> None:
    assert code_of(judged(chain, json.dumps(GOOD).replace("40", value))) == "not_canonical"


@pytest.mark.parametrize("text", ["1", "[]", "null", '"x"', "{}", '{"type": 1, "payload": {}}', '{"type": "x"}'])
def test_json_that_is_no_proposal_does_not_fit(chain: VerifierChain, text: str) -> None:
    assert code_of(judged(chain, text)) == "schema_mismatch"


def test_a_field_beside_type_and_payload_does_not_fit(chain: VerifierChain) -> None:
    judgement = judged(chain, json.dumps({**GOOD, "committed": True}))
    assert (code_of(judgement), judgement.rejections[0].actual) == ("schema_mismatch", "committed")


def test_a_call_that_failed_is_no_answer(chain: VerifierChain) -> None:
    judgement = chain.judge(Answer(None, ProposerFailure.REFUSED, "content filter"), CASE)
    rejection = judgement.rejections[0]
    assert (rejection.code, rejection.actual, rejection.message) == ("no_answer", "refused", "content filter")


def test_a_record_that_the_boundary_does_not_propose_is_named(chain: VerifierChain) -> None:
    judgement = judged(chain, '{"type": "shop.Bonus", "payload": {}}')
    rejection = judgement.rejections[0]
    assert (rejection.code, rejection.path, rejection.actual) == ("unknown_action", "/type", "shop.Bonus")
    assert rejection.expected == "one of shop.RefundGranted, shop.RefundRefused"


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"amount": "40"}, "/payload/amount"),
        ({"amount": True}, "/payload/amount"),
        ({"count": 1.5}, "/payload/count"),
        ({"order": None}, "/payload/order"),
        ({"bonus": 5}, "/payload/bonus"),
    ],
)
def test_a_payload_that_does_not_fit_the_schema_is_told_where(
    chain: VerifierChain, changes: dict[str, Any], path: str
) -> None:
    judgement = judged(chain, payload(**changes))
    assert [(rejection.code, rejection.path) for rejection in judgement.rejections] == [("schema_mismatch", path)]
    assert judgement.proposal is not None


def test_of_very_many_mismatches_the_first_are_told(chain: VerifierChain) -> None:
    judgement = judged(chain, payload(**{f"extra{number}": number for number in range(5_000)}))
    assert len(judgement.rejections) == MISMATCHES_TOLD_MAX


def test_a_field_with_a_default_may_be_left_out(chain: VerifierChain) -> None:
    assert judged(
        chain, '{"type": "shop.RefundGranted", "payload": {"order": "", "amount": 1, "reason": ""}}'
    ).accepted


def test_what_policy_refuses_carries_the_rule_and_keeps_the_action(chain: VerifierChain) -> None:
    judgement = judged(chain, payload(amount=41))
    rejection = judgement.rejections[0]
    assert (rejection.code, rejection.rule_id, rejection.rule_version) == ("policy_violation", "within-paid", "1")
    assert judgement.action is not None


def test_every_rule_that_refuses_is_told() -> None:
    rules = [rule(name, "1")(lambda proposal, context, policy: Refusal("", "", "", "no")) for name in ("a", "b")]
    chain = VerifierChain([Contract("shop.Granted", [SHAPE])], [Policy(rules)])
    judgement = judged(chain, '{"type": "shop.Granted", "payload": {"amount": 1}}')
    assert [rejection.rule_id for rejection in judgement.rejections] == ["a", "b"]


def test_a_rule_that_raises_stops_the_decision_and_is_named(bound: Bind) -> None:
    broken = rule("broken", "1")(lambda proposal, context, policy: policy["no such table"])
    with pytest.raises(UsageError, match=r"the policy rule broken fails on a shop\.RefundGranted: KeyError"):
        judged(bound(verifiers=[Policy([broken])]).judge, json.dumps(GOOD))


def version(fields: dict[str, Any] = SHAPE, rules: Any = (), text: str = "", budget: Budget | None = None) -> str:
    return VerifierChain([Contract("shop.Granted", [fields])], [Policy(rules, text)], budget or Budget()).version


def test_the_version_changes_with_the_schema_as_bytes_see_it() -> None:
    wider = {**SHAPE, "fields": [*SHAPE["fields"], {"name": "more", "type": "int"}]}
    assert version(wider) != version()
    assert version({**SHAPE, "doc": "for people"}) == version()


def test_the_version_changes_with_the_policy_file_and_the_budget() -> None:
    assert len({version(), version(text="cap = 1"), version(budget=Budget(3)), version(budget=Budget(2, 1.0))}) == 4


def test_the_version_changes_with_a_rule_version_and_not_with_its_code() -> None:
    one = rule("cap", "1")(lambda proposal, context, policy: None)
    rewritten = rule("cap", "1")(lambda proposal, context, policy: Refusal("", "", "", ""))
    raised = rule("cap", "2")(lambda proposal, context, policy: None)
    assert version(rules=[one]) == version(rules=[rewritten])
    assert version(rules=[one]) != version(rules=[raised])


def test_the_model_is_shown_one_closed_object(chain: VerifierChain) -> None:
    shown = chain.json_schema()
    assert (shown["type"], shown["additionalProperties"]) == ("object", False)
    assert shown["properties"]["type"]["enum"] == ["shop.RefundGranted", "shop.RefundRefused"]


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=())),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
mutated = st.builds(
    lambda changes, extra: json.dumps({**GOOD, "payload": {**GOOD["payload"], **changes}, **extra}),  # type: ignore[dict-item]
    st.dictionaries(st.sampled_from(["order", "amount", "count", "reason", "x/~y"]), values, max_size=3),
    st.dictionaries(st.sampled_from(["type", "payload", "z"]), values, max_size=1),
)
spliced = st.builds(
    lambda at, text: json.dumps(GOOD)[:at] + text + json.dumps(GOOD)[at:], st.integers(0, 90), st.text(max_size=5)
)


@hypothesis_given(text=st.text(st.characters(exclude_categories=())) | mutated | spliced)
def test_whatever_a_model_writes_is_judged_and_never_raises(bound: Bind, text: str) -> None:
    judgement = judged(bound().judge, text)
    assert judgement.accepted == (not judgement.rejections)
    assert judgement == judged(bound().judge, text)


@hypothesis_given(text=mutated)
def test_what_is_accepted_can_be_compared_and_recorded(bound: Bind, text: str) -> None:
    judgement = judged(bound().judge, text)
    if judgement.accepted:
        assert judgement.action is not None
        assert all(0 <= value <= 1 for value in judgement.action.features.values())
