"""The simulator: what it answers, to whom it listens, and that its draws are nobody else's."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.consumers.models import SIM_VERSIONS, LiteLLMProposer
from driftline.consumers.models.draws import Draws
from driftline.consumers.models.renewal_analyst import NAMESPACE, Renewal, reference_action
from driftline.consumers.proposing import Answer, CallKey, Message, ProposalRequest, ProposerFailure
from driftline.producers.renewals import projection, synthetic_renewals
from driftline.schemas import Rejection, RejectionCode, RejectionFeedback, UsageError

pytestmark = pytest.mark.filterwarnings("ignore:.*using the `ReadOnly` qualifier:UserWarning")

RENEWAL = {"customer_id": "c-1", "contract": "One year", "monthly_charges": 80.0, "churn_signal": False}
KEY = CallKey("d", "e")
SYSTEM = {"role": "system", "content": "Give a discount of at most 30 %."}
KEYS = st.builds(
    CallKey,
    decision_id=st.text(max_size=8),
    workflow=st.text(max_size=8),
    attempt=st.integers(1, 3),
    arm=st.sampled_from(["log", "baseline", "candidate"]),
    run=st.text(max_size=4),
    replicate=st.integers(0, 5),
    seed=st.integers(0, 2**63),
)


def chat(renewal: Mapping[str, Any] = RENEWAL, *more: Message) -> Sequence[Message]:
    return [SYSTEM, {"role": "user", "content": f"Decide:\n{json.dumps(renewal)}"}, *more]


def ask(messages: Sequence[Message], version: str = "renewals", key: CallKey = KEY, **parameters: Any) -> Answer:
    request = ProposalRequest(f"sim/{version}", messages, key, parameters)
    return asyncio.run(LiteLLMProposer().propose(request))


def proposed(answer: Answer) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(answer.text or "")
    return value


def rejected(code: str, path: str = "", expected: str = "") -> Message:
    told = RejectionFeedback(rejections=(Rejection(code=code, path=path, expected=expected),))
    return {"role": "user", "content": told.model_dump_json()}


def test_an_answer_says_that_it_was_simulated_and_cost_nothing() -> None:
    answer = ask(chat())
    assert (answer.model_reported, answer.fingerprint) == ("sim/renewals", "driftline-simulator-1")
    assert (answer.cost_usd, answer.finish_reason) == (0.0, "stop")
    assert (answer.usage.prompt_tokens or 0) > 10
    assert (answer.usage.completion_tokens or 0) > 10
    assert answer.latency_ms is not None


def test_an_unknown_version_lists_those_that_there_are() -> None:
    with pytest.raises(UsageError, match=r"no version 'gpt-9'; it has sim/renewals, sim/renewals-inflated"):
        ask(chat(), "gpt-9")


def test_a_prompt_without_a_renewal_is_the_users_mistake() -> None:
    with pytest.raises(UsageError, match=r"no user message holds .* end the prompt with"):
        ask([SYSTEM, {"role": "user", "content": 'Decide: {"customer_id": "c"}'}])


def test_the_last_renewal_of_the_user_messages_is_the_one_to_decide() -> None:
    other = {**RENEWAL, "contract": "Month-to-month", "churn_signal": True}
    example = {"role": "user", "content": f"Example: {json.dumps(RENEWAL)}. Now decide {json.dumps(other)} {{ok}}"}
    assert proposed(ask([SYSTEM, example]))["type"] == f"{NAMESPACE}.ContractChurned"


@pytest.mark.parametrize("version", SIM_VERSIONS)
def test_the_same_call_gets_the_same_answer(version: str) -> None:
    assert ask(chat(), version) == ask(chat(), version)


def test_the_answer_is_the_same_in_another_process_with_another_hash_seed() -> None:
    program = f"""
import sys; sys.path[:0] = {sys.path!r}
from driftline.consumers.models.draws import Draws
from driftline.consumers.proposing import CallKey
print(Draws("renewals", CallKey("d", "e", arm="ü")).uniform("action").hex())
"""
    seen = {
        subprocess.run(
            [sys.executable, "-c", program], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert seen == {Draws("renewals", CallKey("d", "e", arm="ü")).uniform("action").hex()}


def test_the_draws_are_pinned() -> None:
    """Recorded demos and golden logs rest on these numbers: a change of theirs is a new REVISION."""
    draws = Draws("renewals", CallKey("decision", "event", 2, "candidate", "run", 3, 7))
    assert draws.uniform("action") == 0.8851507911535423


@given(KEYS, st.sampled_from(["action", "discount"]))
def test_a_draw_lies_in_the_unit_interval_and_depends_on_no_other_draw(key: CallKey, name: str) -> None:
    fresh, used = Draws("renewals", key), Draws("renewals", key)
    used.uniform("something else")
    assert 0 <= fresh.uniform(name) < 1
    assert fresh.uniform(name) == used.uniform(name)


@given(KEYS, KEYS)
def test_keys_that_differ_anywhere_share_no_draw(one: CallKey, other: CallKey) -> None:
    same = Draws("renewals", one).uniform("action") == Draws("renewals", other).uniform("action")
    assert same == (one == other)


@given(KEYS)
def test_each_field_of_the_key_and_the_version_alone_makes_another_draw(key: CallKey) -> None:
    changed = [
        replace(key, decision_id=key.decision_id + "x"),
        replace(key, workflow=key.workflow + "x"),
        replace(key, attempt=key.attempt + 1),
        replace(key, arm=key.arm + "x"),
        replace(key, run=key.run + "x"),
        replace(key, replicate=key.replicate + 1),
        replace(key, seed=key.seed + 1),
    ]
    draws = [Draws("renewals", each) for each in (key, *changed)] + [Draws("renewals-noisier", key)]
    assert len({each.uniform("action") for each in draws}) == 9


def test_the_analyst_follows_the_rule_of_the_workload() -> None:
    names = {
        "renewed": "ContractRenewed",
        "renewed_with_offer": "ContractRenewedWithOffer",
        "restructured": "ContractRestructured",
        "churned": "ContractChurned",
        "escalated": "RenewalEscalated",
    }
    for event in synthetic_renewals(2000, 1):
        renewal = Renewal.of(event.data)
        assert renewal is not None
        assert reference_action(renewal) == names[projection(event.data)]


def test_the_ceiling_of_the_prompt_is_kept_but_for_the_known_share() -> None:
    low = {"role": "system", "content": "The discount is AT MOST 12%."}
    discounts = [
        json.loads(answer.text)["payload"].get("discount_pct", 0.0)
        for number in range(300)
        if (answer := ask([low, chat()[1]], key=CallKey(f"d{number}", "e"))).text and answer.text.startswith("{")
    ]
    assert 0 < sum(discount > 12 for discount in discounts) < 30


LAST = {
    "type": f"{NAMESPACE}.ContractRenewedWithOffer",
    "payload": {"term_months": 12, "discount_pct": 37.0, "rationale": "r"},
}


def after(rejection: Message, last: str, tries: int = 300) -> list[str]:
    said: Message = {"role": "assistant", "content": last}
    answers = [ask(chat(RENEWAL, said, rejection), key=CallKey(f"d{n}", "e", attempt=2)) for n in range(tries)]
    return [answer.text or "" for answer in answers]


def test_after_a_policy_violation_it_obeys_what_was_expected_nine_times_of_ten() -> None:
    last = json.dumps(LAST)
    texts = after(rejected(RejectionCode.POLICY_VIOLATION, "/payload/discount_pct", "<= 30"), last)
    obeyed = [json.loads(text)["payload"]["discount_pct"] for text in texts if text != last]
    assert set(obeyed) == {30.0}
    assert 0.83 < len(obeyed) / len(texts) < 0.97


def test_a_floor_is_obeyed_upwards() -> None:
    last = json.dumps({"type": "x", "payload": {"new_monthly_charges": 20.0}})
    texts = after(rejected(RejectionCode.POLICY_VIOLATION, "/payload/new_monthly_charges", ">= 48.5"), last, 20)
    assert 48.5 in {json.loads(text)["payload"]["new_monthly_charges"] for text in texts}


def test_after_a_code_fence_it_says_the_same_without_one() -> None:
    fenced = f"```json\n{json.dumps(LAST)}\n```"
    texts = after(rejected(RejectionCode.NOT_JSON), fenced, 100)
    assert {text for text in texts if text != fenced} == {json.dumps(LAST)}


@pytest.mark.parametrize("code", [RejectionCode.SCHEMA_MISMATCH, RejectionCode.NOT_JSON, "an_apps_own"])
def test_after_any_other_rejection_it_draws_again_and_writes_plain_json(code: RejectionCode) -> None:
    prose = "I would renew."
    texts = [text for text in after(rejected(code), prose, 100) if text != prose]
    assert {json.loads(text)["type"] for text in texts} >= {f"{NAMESPACE}.ContractRenewedWithOffer"}


def test_a_rejection_that_lies_further_up_is_history() -> None:
    messages = chat(RENEWAL, rejected(RejectionCode.NOT_JSON), {"role": "user", "content": "Again, please."})
    assert ask(messages) == ask([*messages]), "and is answered like a first attempt"
    assert ask(messages).text == ask(chat()).text


def test_latency_is_told_and_not_spent_unless_asked() -> None:
    ask(chat())
    started = time.monotonic()
    told = ask(chat(), sim_latency_ms=30_000).latency_ms
    assert told is not None
    assert told > 10_000
    assert time.monotonic() - started < 5
    spent = ask(chat(), sim_latency_ms=300, sim_sleep=True).latency_ms
    assert spent is not None
    assert time.monotonic() - started >= spent / 1000


def test_a_simulated_call_can_be_slower_than_its_timeout() -> None:
    answer = ask(chat(), sim_latency_ms=1_000_000)
    assert (answer.failure, answer.latency_ms) == (ProposerFailure.TIMEOUT, 60_000.0)


def test_failures_come_at_the_rate_asked_for_and_of_every_kind() -> None:
    answers = [ask(chat(), key=CallKey(f"d{n}", "e"), sim_failure_rate=0.3) for n in range(400)]
    failures = [answer.failure for answer in answers if answer.failure]
    assert set(failures) == {
        ProposerFailure.TIMEOUT, ProposerFailure.RATE_LIMITED, ProposerFailure.PROVIDER_ERROR
    }  # fmt: skip
    assert 0.22 < len(failures) / len(answers) < 0.38
    assert all(answer.latency_ms for answer in answers)


@pytest.mark.parametrize(
    "parameters",
    [{"sim_failure_rate": 1.5}, {"sim_failure_rate": "x"}, {"sim_latency_ms": -1}, {"sim_latency_ms": True}],
)
def test_a_parameter_that_makes_no_sense_is_the_users_mistake(parameters: Mapping[str, Any]) -> None:
    with pytest.raises(UsageError, match="the parameter sim_"):
        ask(chat(), **parameters)


@pytest.mark.parametrize(
    "content",
    [
        "{" * 3000,
        '{"status": "rejected"}',
        '{"status": "rejected", "rejections": 5}',
        '{"status": "rejected", "rejections": [5]}',
        "[" * 100_000,
        "{}",
        None,
    ],
)
def test_odd_messages_break_nothing(content: str | None) -> None:
    assert ask(chat(RENEWAL, {"role": "user", "content": content})).failure is None
