"""The plan: what a replay will cost and can find, told before anything is spent."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from typing import Any

import pytest

from driftline.consumers.prompt import Prompt
from driftline.consumers.proposing import Answer
from driftline.detectors import StratumChange, power_over_strata, smallest_detectable_change
from driftline.replay import Candidate, Ledger, Limits, RecordedSubject, Segment
from driftline.replay.arms import Asking, Incumbent, calls_of
from driftline.replay.identity import prompt_diff
from driftline.replay.plan import ReplayPlan, plan_data, plan_replay, require_priced, room_in_usd
from driftline.replay.pricing import PriceMap, Tokens, expected_tokens
from driftline.schemas import Attempt, Decision, Read, Usage, UsageError

GPT = Candidate("openai/gpt-4o")
MINI = Incumbent(Candidate("openai/gpt-4o-mini", incumbent=True), 2)
UNKNOWN = Candidate("openai/somebodys-own")
MakePlan = Callable[..., ReplayPlan]


@pytest.fixture
def measured(make_question: Callable[..., Decision], questions: Callable[..., Segment]) -> Segment:
    """Forty questions whose log says that each read 1,000 tokens and wrote 100."""
    usage = Usage(prompt_tokens=1000, completion_tokens=100)
    attempt = Attempt(number=1, raw_response="yes", usage=usage)
    return questions(decisions=[make_question(number, [attempt]) for number in range(40)])


@pytest.fixture
def make_plan(measured: Segment, quiz: RecordedSubject, ledger: Ledger) -> MakePlan:
    def make(
        candidate: Candidate, limits: Limits | None = None, segment: Segment | None = None, **beside: Any
    ) -> ReplayPlan:
        return plan_replay(segment or measured, quiz, candidate, ledger, limits or Limits(), PriceMap(), **beside)

    return make


def test_dollars_are_the_logs_tokens_at_the_maps_prices(make_plan: MakePlan) -> None:
    calls = make_plan(GPT).calls
    (price,) = calls.prices
    assert price.prompt_usd is not None
    assert price.completion_usd is not None
    assert (calls.calls, calls.prompt_tokens, calls.completion_tokens) == (40, 40_000, 4_000)
    assert calls.usd == pytest.approx(40_000 * price.prompt_usd + 4_000 * price.completion_usd)
    assert calls.recorded_usage == 1.0


def test_the_price_map_is_named_by_litellms_version_and_its_hash(make_plan: MakePlan) -> None:
    version = make_plan(GPT).calls.price_map
    assert version is not None
    assert version.startswith("litellm ")
    assert len(version.rpartition(" ")[2]) == 12


def test_driftlines_own_models_cost_nothing_and_need_no_map(make_plan: MakePlan) -> None:
    calls = make_plan(Candidate("sim/renewals")).calls
    assert (calls.usd, calls.price_map, calls.unpriced) == (0.0, None, [])


def test_where_the_log_counted_no_tokens_the_length_of_texts_tells(
    make_plan: MakePlan, questions: Callable[..., Segment]
) -> None:
    calls = make_plan(GPT, segment=questions(8)).calls
    assert calls.recorded_usage == 0.0
    assert calls.prompt_tokens == 8 * math.ceil(len("yes or no?") / 4)
    assert calls.completion_tokens == 8, "three characters are a token"


def test_every_round_reads_the_tools_again_and_what_they_told(
    make_question: Callable[..., Decision], questions: Callable[..., Segment], quiz: RecordedSubject
) -> None:
    read = Read(call_id="c", name="payments", arguments="{}", arguments_hash="h", status="ok", answer="[1, 2, 3]")
    reads = tuple(read.model_copy(update={"round": number}) for number in (1, 2))
    (logged,) = questions(
        decisions=[make_question(0, [Attempt(number=1, raw_response="yes", reads=reads)])]
    ).decisions
    tools = ({"name": "payments"},)
    request = dataclasses.replace(GPT.request(logged.decision, quiz, "run", 0, Asking()), tools=tools)
    shown, told = len("yes or no?") + len(json.dumps(tools[0])), len("{}[1, 2, 3]")
    assert expected_tokens(logged, request, same_prompt=False).prompt == math.ceil((3 * shown + (2 + 1) * told) / 4)


def test_an_unknown_price_is_refused_unless_it_is_allowed(make_plan: MakePlan) -> None:
    calls = make_plan(UNKNOWN).calls
    assert (calls.usd, calls.unpriced) == (None, ["openai/somebodys-own"])
    with pytest.raises(UsageError, match="--allow-unpriced"):
        require_priced(calls, Limits(), allow_unpriced=False)
    require_priced(calls, Limits(), allow_unpriced=True)


def test_no_budget_is_promised_where_no_price_is_known(make_plan: MakePlan) -> None:
    with pytest.raises(UsageError, match="no budget can be held"):
        require_priced(make_plan(UNKNOWN).calls, Limits(usd_max=1.0), allow_unpriced=True)


def test_what_the_ledger_holds_is_not_priced_again(
    make_plan: MakePlan, measured: Segment, quiz: RecordedSubject, ledger: Ledger
) -> None:
    before = make_plan(GPT).calls
    for logged in measured.decisions[:10]:
        key = GPT.key(logged.decision, quiz, GPT.request(logged.decision, quiz, "r", 0))
        ledger.put(key, Answer("yes", cost_usd=0.1), "r", "2026-09-22T12:00:00Z")
    after = make_plan(GPT).calls
    assert (after.calls, after.in_ledger, after.to_pay) == (40, 10, 30)
    assert after.usd == pytest.approx(0.75 * (before.usd or 0.0))


def test_calls_that_may_be_paid_bound_the_plan(make_plan: MakePlan) -> None:
    assert make_plan(GPT, Limits(calls_max=7)).calls.calls == 7


def test_more_decisions_show_smaller_changes(make_plan: MakePlan, questions: Callable[..., Segment]) -> None:
    few, many = make_plan(GPT, segment=questions(60)), make_plan(GPT, segment=questions(600))
    assert few.smallest_change is not None
    assert many.smallest_change is not None
    assert many.smallest_change < few.smallest_change
    assert [one.power for one in many.power] == sorted(one.power for one in many.power)


def test_a_plan_over_few_decisions_says_that_it_finds_nothing(make_plan: MakePlan) -> None:
    plan = make_plan(GPT, Limits(calls_max=3))
    assert plan.smallest_change is None
    assert plan.strata[0].smallest_change is None


def test_the_plan_is_plain_json_data(make_plan: MakePlan) -> None:
    import json

    data = json.loads(json.dumps(plan_data(make_plan(GPT)), allow_nan=False))
    assert data["to_pay"] == 40
    assert data["power"]["by_change"][0].keys() == {"change", "power", "events", "usd"}


def test_the_room_for_a_call_is_bounded_by_what_its_parameters_allow(
    measured: Segment, quiz: RecordedSubject
) -> None:
    prices, logged = PriceMap(), measured.decisions[0]
    price = prices.of("openai/gpt-4o")
    assert price.prompt_usd is not None
    assert price.completion_usd is not None
    capped = Candidate("openai/gpt-4o", parameters={"max_tokens": 120})
    rooms = [
        room_in_usd(candidate, prices, logged, candidate.request(logged.decision, quiz, "r", 0))
        for candidate in (capped, GPT)
    ]
    read = 1000 * price.prompt_usd
    assert rooms == pytest.approx([read + 120 * price.completion_usd, read + 200 * price.completion_usd])


def test_room_is_made_for_more_than_a_short_text_where_the_log_counted_no_tokens(
    quiz: RecordedSubject, questions: Callable[..., Segment]
) -> None:
    prices, (logged, *_) = PriceMap(), questions(8).decisions
    price = prices.of("openai/gpt-4o")
    assert price.completion_usd is not None
    room = room_in_usd(GPT, prices, logged, GPT.request(logged.decision, quiz, "r", 0))
    assert room > 64 * price.completion_usd


def test_a_resumed_run_makes_room_for_what_the_answers_in_the_ledger_have_cost(
    make_plan: MakePlan, measured: Segment, quiz: RecordedSubject, ledger: Ledger
) -> None:
    prices, (first, second, *_) = PriceMap(), measured.decisions
    request = GPT.request(second.decision, quiz, "r", 0)
    before = room_in_usd(GPT, prices, second, request)
    key = GPT.key(first.decision, quiz, GPT.request(first.decision, quiz, "r", 0))
    ledger.put(key, Answer("yes", cost_usd=0.1), "r", "2026-09-22T12:00:00Z")
    plan_replay(measured, quiz, GPT, ledger, Limits(), prices)
    assert before < 0.01
    assert room_in_usd(GPT, prices, second, request) == pytest.approx(0.1)


@pytest.mark.parametrize("model", ["foo/bar", "nobodys-provider/gpt"])
def test_a_model_of_a_provider_that_nobody_knows_is_the_users_mistake(model: str, make_plan: MakePlan) -> None:
    with pytest.raises(UsageError, match=f"no provider is known for the model '{model}'"):
        make_plan(Candidate(model))


def test_a_changed_prompt_is_shown_as_a_diff(measured: Segment, quiz: RecordedSubject) -> None:
    candidate = Candidate("openai/gpt-4o", Prompt("{{ messages }}\nBe brief."))
    diff = prompt_diff(measured, quiz, candidate)
    assert diff.splitlines()[3:] == [" {{ messages }}", "+Be brief."]


def test_a_prompt_that_is_the_logs_has_no_diff(measured: Segment, quiz: RecordedSubject) -> None:
    assert prompt_diff(measured, quiz, Candidate("openai/gpt-4o")) == ""
    assert prompt_diff(measured, quiz, Candidate("openai/gpt-4o", Prompt("{{ messages }}"))) == ""


def test_a_plan_counts_and_prices_the_calls_of_every_arm(make_plan: MakePlan) -> None:
    alone, beside = make_plan(GPT).calls, make_plan(GPT, incumbent=MINI).calls
    by_model = {price.model: price for price in beside.prices}
    mini = by_model["openai/gpt-4o-mini"]
    assert (beside.calls, beside.pairs, beside.incumbent_calls) == (120, 40, 80)
    assert mini.prompt_usd is not None
    assert mini.completion_usd is not None
    assert alone.usd is not None
    assert beside.usd == pytest.approx(alone.usd + 80_000 * mini.prompt_usd + 8_000 * mini.completion_usd)


def test_power_is_of_pairs_however_many_calls_each_takes(make_plan: MakePlan) -> None:
    alone, beside = make_plan(GPT), make_plan(GPT, incumbent=MINI)
    assert [one.power for one in alone.power] == [one.power for one in beside.power]
    dearer = [(one.usd, other.usd) for one, other in zip(alone.power, beside.power, strict=True) if one.usd]
    assert dearer
    assert all(other is not None and one is not None and other > one for one, other in dearer)


def test_what_was_answered_yesterday_is_planned_to_be_paid_again_beside_the_incumbent(
    make_plan: MakePlan, measured: Segment, quiz: RecordedSubject, ledger: Ledger
) -> None:
    for logged in measured.decisions[:10]:
        for call in calls_of(GPT, MINI):
            request = call.arm.request(logged.decision, quiz, "r", 0, call.asking)
            key = call.arm.key(logged.decision, quiz, request, call.asking)
            ledger.put(key, Answer("yes", cost_usd=0.1), "r", "2026-09-22T12:00:00.000Z")
    today = make_plan(GPT, incumbent=MINI, not_before="2026-09-22T00:00:00.000Z").calls
    tomorrow = make_plan(GPT, incumbent=MINI, not_before="2026-09-23T00:00:00.000Z").calls
    alone = make_plan(GPT, not_before="2026-09-23T00:00:00.000Z").calls
    assert (today.in_ledger, tomorrow.in_ledger, alone.in_ledger) == (30, 0, 10)


def test_the_room_for_a_call_of_the_incumbent_is_that_of_the_logs_own_prompt(
    measured: Segment, quiz: RecordedSubject
) -> None:
    prices, logged = PriceMap(), measured.decisions[0]
    longer = Candidate("openai/gpt-4o", Prompt("{{ messages }}" + "Think twice. " * 1000))
    tried, asked_today = (
        call.arm.request(logged.decision, quiz, "r", 0, call.asking)
        for call in calls_of(longer, Incumbent(Candidate("openai/gpt-4o", incumbent=True)))
    )
    assert room_in_usd(longer, prices, logged, asked_today) < room_in_usd(longer, prices, logged, tried)


def test_power_over_strata_is_that_of_what_decides_over_all_of_them(
    make_plan: MakePlan, questions: Callable[..., Segment], make_question: Callable[..., Decision]
) -> None:
    split = [make_question(number, stream="quiz" if number % 4 else "other") for number in range(200)]
    plan = make_plan(GPT, segment=questions(decisions=split))
    strata = [StratumChange(0.25, 0.9, events) for events in (50, 150)]
    told = next(one.power for one in plan.power if one.change == 0.20)
    assert told == power_over_strata(strata, weight=0.5, paths=500).power
    assert plan.smallest_change == smallest_detectable_change([50, 150], 0.05, weight=0.5, paths=500)


def test_a_stratum_that_the_calls_do_not_reach_still_counts_among_the_hypotheses(
    make_plan: MakePlan, questions: Callable[..., Segment], make_question: Callable[..., Decision]
) -> None:
    split = [make_question(number, stream="quiz" if number else "other") for number in range(200)]
    both = make_plan(GPT, Limits(calls_max=60), questions(decisions=split))
    alone = make_plan(GPT, Limits(calls_max=60), questions(decisions=split[1:]))
    assert sum(one.power for one in both.power) < sum(one.power for one in alone.power)


def test_the_dollars_of_fresh_answers_in_open_strata_are_told(make_plan: MakePlan) -> None:
    none, open_ = make_plan(GPT, incumbent=MINI).calls, make_plan(GPT, Limits(mmd=True), incumbent=MINI).calls
    half = make_plan(GPT, Limits(mmd=True, calls_max=200), incumbent=MINI).calls
    assert (none.spread_calls, none.spread_usd) == (0, 0.0)
    assert none.usd is not None
    candidate, incumbent = (price.usd(Tokens(40_000, 4_000)) for price in open_.prices)
    assert candidate is not None
    assert incumbent is not None
    assert open_.spread_usd == pytest.approx(2 * candidate + 2 * incumbent)
    assert half.spread_calls == 80
    assert half.spread_usd == pytest.approx((open_.spread_usd or 0.0) / 2)
