"""A proposer that is asked on through trouble: scripted providers, and a clock that jumps."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest

from driftline.consumers import Answer, CallKey, ProposalRequest, ProposerFailure
from driftline.consumers.models import BreakerState, CallLimits, Patience, SteadyProposer
from driftline.consumers.models.asking import EARLIER_KEPT_MAX
from driftline.schemas import Usage, UsageError
from driftline.schemas.errors import SpendCapReached

Run = Callable[[Coroutine[Any, Any, Any]], Any]

GOOD = Answer("{}", usage=Usage(prompt_tokens=90, completion_tokens=10), cost_usd=0.25)
DOWN = Answer(None, ProposerFailure.PROVIDER_ERROR, "ServiceUnavailableError 503: down", latency_ms=20.0)
SLOW = Answer(None, ProposerFailure.TIMEOUT, "no answer within 60 s", latency_ms=60_000.0)
EARLY = Answer(None, ProposerFailure.RATE_LIMITED, "RateLimitError 429: too early", retry_after_s=7.0)
WRONG = Answer(None, ProposerFailure.PROVIDER_ERROR, "BadRequestError 400: too long", at_fault=True)
EVEN = Patience(jitter_s=0.0)
Say = Callable[[ProposalRequest, float], Answer]


@dataclass
class Provider:
    """Says what a function of request and time says, one virtual second after it was asked."""

    say: Say
    calls: list[tuple[float, ProposalRequest]] = field(default_factory=list)
    at_once: int = 0
    at_once_max: int = 0

    async def propose(self, request: ProposalRequest) -> Answer:
        begun = asyncio.get_running_loop().time()
        self.calls.append((begun, request))
        self.at_once += 1
        self.at_once_max = max(self.at_once, self.at_once_max)
        try:
            await asyncio.sleep(1.0)
        finally:
            self.at_once -= 1
        return self.say(request, begun)

    def times(self, model: str = "m/one") -> list[float]:
        return [time for time, request in self.calls if request.model == model]


def script(*answers: Answer) -> Say:
    left = list(answers)
    return lambda request, time: left.pop(0)


def ask(name: str = "d", *fallbacks: str, attempt: int = 1) -> ProposalRequest:
    return ProposalRequest("m/one", [], CallKey(name, "w", attempt=attempt), fallbacks=fallbacks)


def steady(provider: Provider, patience: Patience = EVEN, **options: Any) -> SteadyProposer:
    def now() -> float:
        return asyncio.get_running_loop().time()

    return SteadyProposer(provider, patience, clock=now, draw=lambda: 0.5, **options)


async def all_of(proposer: SteadyProposer, requests: Sequence[ProposalRequest]) -> list[Answer]:
    return list(await asyncio.gather(*map(proposer.propose, requests)))


def test_an_answer_to_the_first_call_comes_back_as_it_is(jumping: Run) -> None:
    provider = Provider(script(GOOD))
    assert jumping(steady(provider).propose(ask())) is GOOD
    assert [request for _, request in provider.calls] == [ask()]


def test_a_failed_call_is_made_again_and_stays_on_the_record(jumping: Run) -> None:
    provider = Provider(script(SLOW, DOWN, GOOD))
    answer = jumping(steady(provider).propose(ask(attempt=3)))
    assert (answer.text, answer.failure, answer.model_requested) == ("{}", None, None)
    assert [(call.attempt, call.failure, call.latency_ms) for call in answer.earlier] == [
        (3, ProposerFailure.TIMEOUT, 60_000.0),
        (4, ProposerFailure.PROVIDER_ERROR, 20.0),
    ]
    assert answer.earlier[1].failure_detail == DOWN.failure_detail
    assert [request.key.attempt for _, request in provider.calls] == [3, 4, 5]


def test_each_retry_waits_twice_as_long_as_the_one_before(jumping: Run) -> None:
    provider = Provider(script(DOWN, DOWN, DOWN, DOWN, GOOD))
    jumping(steady(provider).propose(ask()))
    ended = [time + 1.0 for time in provider.times()]
    assert [later - end for end, later in zip(ended, provider.times()[1:], strict=False)] == [0.5, 1.0, 2.0, 4.0]


def test_a_retry_waits_for_as_long_as_the_provider_says_and_a_random_moment(jumping: Run) -> None:
    provider = Provider(script(EARLY, GOOD))
    jumping(steady(provider, Patience(jitter_s=2.0)).propose(ask()))
    assert provider.times() == [0.0, 1.0 + 7.0 + 0.5 * 2.0]


def test_a_provider_is_not_believed_for_longer_than_the_user_says(jumping: Run) -> None:
    provider = Provider(script(Answer(None, ProposerFailure.RATE_LIMITED, retry_after_s=1e9), GOOD))
    jumping(steady(provider, Patience(jitter_s=0.0, retry_after_s_max=30.0)).propose(ask()))
    assert provider.times() == [0.0, 31.0]


@pytest.mark.parametrize(
    "said",
    [
        Answer(None, ProposerFailure.REFUSED, "content filter"),
        Answer(None, ProposerFailure.EMPTY),
        Answer(None, ProposerFailure.NOT_RECORDED),
        Answer("no JSON at all"),
    ],
)
def test_what_the_model_answered_is_not_asked_for_again(jumping: Run, said: Answer) -> None:
    provider = Provider(script(said))
    assert jumping(steady(provider).propose(ask())) is said


def test_a_request_that_the_provider_calls_wrong_is_not_made_again_and_speaks_against_nobody(jumping: Run) -> None:
    provider = Provider(lambda request, time: WRONG)
    proposer = steady(provider)
    answers = jumping(all_of(proposer, [ask(f"d{number}") for number in range(20)]))
    assert (answers, len(provider.calls)) == ([WRONG] * 20, 20)
    assert proposer.breakers == {"m/one": BreakerState.CLOSED}


async def _well_and_ill(proposer: SteadyProposer, ill: ProposalRequest, seconds: int) -> Answer:
    """One request among others that come every half second."""
    asked = asyncio.create_task(proposer.propose(ill))
    for number in range(2 * seconds):
        if asked.done():
            break
        await proposer.propose(ask(f"well {number}"))
    return await asked


def ill_fails(request: ProposalRequest, time: float) -> Answer:
    return DOWN if request.key.decision_id == "ill" else GOOD


def test_a_request_that_fails_while_others_are_answered_runs_out_of_retries(jumping: Run) -> None:
    provider = Provider(ill_fails)
    answer = jumping(_well_and_ill(steady(provider), ask("ill"), 100))
    assert (answer.text, answer.failure) == (None, ProposerFailure.PROVIDER_ERROR)
    assert [call.attempt for call in answer.earlier] == [1, 2, 3, 4]


def test_a_request_that_comes_too_early_is_given_more_time_than_one_that_fails(jumping: Run) -> None:
    early = iter([EARLY] * 20)
    provider = Provider(lambda request, time: next(early, GOOD) if request.key.decision_id == "ill" else GOOD)
    answer = jumping(_well_and_ill(steady(provider), ask("ill"), 1000))
    assert (answer.failure, len(answer.earlier)) == (None, 20)


def down_until(hour: float, model: str = "m/one") -> Say:
    return lambda request, time: DOWN if request.model == model and time < hour else GOOD


def test_an_outage_turns_no_request_of_a_thousand_into_a_failure(jumping: Run) -> None:
    provider = Provider(down_until(3600.0))
    answers = jumping(all_of(steady(provider), [ask(f"d{number}") for number in range(1000)]))
    assert {(answer.text, answer.failure) for answer in answers} == {("{}", None)}
    assert {len(answer.earlier) for answer in answers} <= {1, 2}, "probes go round"


def test_while_the_breaker_is_open_one_probe_at_a_time_is_all_that_is_called(jumping: Run) -> None:
    provider = Provider(down_until(3600.0))
    jumping(all_of(steady(provider), [ask(f"d{number}") for number in range(1000)]))
    probes = [time for time in provider.times() if 1.0 <= time < 3600.0]
    assert len(probes) == len(set(probes)), "two at once"
    assert probes[:4] == [6.0, 17.0, 38.0, 79.0], "after 5, 10, 20 and 40 s, each answered in one"
    assert min(later - time for time, later in pairwise(probes[3:])) == 61.0
    assert len(provider.calls) == 1000 + len(probes) + 1 + 999


def test_no_probe_is_made_before_the_provider_says_so(jumping: Run) -> None:
    early = Answer(None, ProposerFailure.RATE_LIMITED, retry_after_s=90.0)
    provider = Provider(lambda request, time: early if time < 50.0 else GOOD)
    jumping(all_of(steady(provider), [ask(f"d{number}") for number in range(10)]))
    assert provider.times()[:11] == [0.0] * 10 + [91.0]


def test_whoever_fails_as_the_breaker_opens_waits_for_it_and_not_for_a_retry(jumping: Run) -> None:
    async def run() -> int:
        proposer = steady(Provider(down_until(30.0)), Patience(wait_s=1000.0, wait_s_max=1000.0))
        tasks = [asyncio.create_task(proposer.propose(ask(f"d{number}"))) for number in range(20)]
        await asyncio.sleep(2.0)
        waiting = proposer.waiting
        for task in tasks:
            task.cancel()
        return waiting

    assert jumping(run()) == 16, "four had failed before it opened"


def test_whoever_lets_others_probe_first_probes_when_they_have_left(jumping: Run) -> None:
    provider = Provider(down_until(10.0))

    async def run() -> Answer:
        proposer = steady(provider, Patience(failures_to_open=1))
        tasks = {name: asyncio.create_task(proposer.propose(ask(name))) for name in ("one", "other")}
        await asyncio.sleep(8.0)
        probed = provider.calls[-1][1].key.decision_id
        left = next(name for name in tasks if name != probed)
        tasks[left].cancel()
        return await tasks[probed]

    assert jumping(run()).text == "{}"
    assert provider.times() == [0.0, 0.0, 6.0, 17.0]


def test_a_single_request_outlasts_an_outage_of_a_day_and_its_record_stays_small(jumping: Run) -> None:
    provider = Provider(down_until(86_400.0))
    answer = jumping(steady(provider).propose(ask()))
    assert answer.text == "{}"
    assert EARLIER_KEPT_MAX <= len(answer.earlier) <= EARLIER_KEPT_MAX + 1
    assert answer.earlier[0].attempt == 1
    assert answer.earlier[-1].attempt == len(provider.calls) - 1
    assert len(provider.calls) > 1000


def test_the_fallback_is_asked_while_the_breaker_is_open(jumping: Run) -> None:
    provider = Provider(down_until(50.0))

    async def run() -> list[Answer]:
        proposer = steady(provider)
        await all_of(proposer, [ask(f"first {number}", "m/two") for number in range(5)])
        return [await proposer.propose(ask(f"d{number}", "m/two")) for number in range(100)]

    answers = jumping(run())
    assert {answer.failure for answer in answers} == {None}
    assert answers[0].model_requested == "m/two"
    assert answers[-1].model_requested is None, "its own model answers again, and is asked first"
    assert len([time for time in provider.times() if 1.0 <= time < 50.0]) == 3, "probes go on meanwhile"
    probe = next(answer for answer in answers if answer.earlier)
    assert (probe.model_requested, probe.earlier[0].model_requested) == ("m/two", None)


def test_fallbacks_are_asked_in_their_order(jumping: Run) -> None:
    provider = Provider(lambda request, time: WRONG if request.model != "m/three" else GOOD)
    answer = jumping(steady(provider).propose(ask("d", "m/two", "m/three", "m/four")))
    assert [(request.model, request.key.attempt) for _, request in provider.calls] == [
        ("m/one", 1),
        ("m/two", 2),
        ("m/three", 3),
    ]
    assert answer.model_requested == "m/three"
    assert [call.model_requested for call in answer.earlier] == [None, "m/two"]


def test_a_request_whose_retries_are_spent_goes_to_the_fallback(jumping: Run) -> None:
    provider = Provider(lambda request, time: GOOD if request.model == "m/two" else ill_fails(request, time))
    answer = jumping(_well_and_ill(steady(provider), ask("ill", "m/two"), 100))
    assert (answer.text, answer.model_requested, len(answer.earlier)) == ("{}", "m/two", 5)


def test_a_request_that_every_model_fails_tells_the_last_failure_and_all_before_it(jumping: Run) -> None:
    provider = Provider(lambda request, time: WRONG)
    answer = jumping(steady(provider).propose(ask("d", "m/two")))
    assert (answer.failure, answer.model_requested) == (ProposerFailure.PROVIDER_ERROR, "m/two")
    assert [(call.attempt, call.model_requested) for call in answer.earlier] == [(1, None)]


@pytest.mark.parametrize(("first", "back"), [("m/one", None), ("m/two", "m/two")])
def test_who_waits_for_two_models_goes_on_with_the_one_that_recovers_first(
    jumping: Run, first: str, back: str | None
) -> None:
    provider = Provider(lambda request, time: GOOD if request.model == first and time > 300.0 else DOWN)
    answers = jumping(all_of(steady(provider), [ask(f"d{number}", "m/two") for number in range(50)]))
    assert {(answer.text, answer.model_requested) for answer in answers} == {("{}", back)}


def test_a_request_that_fails_by_itself_holds_up_neither_the_recovery_nor_the_others(jumping: Run) -> None:
    provider = Provider(ill_fails)

    async def run() -> tuple[Answer, list[Answer]]:
        proposer = steady(provider)
        ill = asyncio.create_task(proposer.propose(ask("ill")))
        await asyncio.sleep(40.0)
        assert (proposer.breakers, proposer.waiting) == ({"m/one": BreakerState.OPEN}, 1), "alone, it looks like one"
        well: list[Answer] = []
        while not ill.done():
            well.append(await proposer.propose(ask(f"well {len(well)}")))
            await asyncio.sleep(100.0)
        return await ill, well

    ill, well = jumping(run())
    assert ill.failure is ProposerFailure.PROVIDER_ERROR
    assert {(answer.text, answer.earlier) for answer in well} == {("{}", ())}
    assert len(well) < 10


def test_a_probe_that_is_cancelled_is_followed_by_the_next(jumping: Run) -> None:
    async def run() -> list[Answer]:
        proposer = steady(provider)
        tasks = [asyncio.create_task(proposer.propose(ask(f"d{number}"))) for number in range(6)]
        await asyncio.sleep(6.5)
        assert proposer.breakers == {"m/one": BreakerState.HALF_OPEN}
        probing = provider.calls[-1][1].key.decision_id
        tasks[int(probing[1:])].cancel()
        return list(await asyncio.gather(*(task for task in tasks if task is not tasks[int(probing[1:])])))

    provider = Provider(down_until(6.2))
    answers = jumping(run())
    assert [answer.text for answer in answers] == ["{}"] * 5
    assert provider.times()[6:8] == [6.0, 6.5]


def test_a_mistake_of_the_users_is_raised_at_once_and_leaves_the_probe_to_others(jumping: Run) -> None:
    class Mistaken(Provider):
        async def propose(self, request: ProposalRequest) -> Answer:
            answer = await super().propose(request)
            if request.key.attempt == 2:
                raise UsageError("no such model")
            return answer

    async def run() -> list[Answer | BaseException]:
        proposer = steady(provider)
        return await asyncio.gather(
            *(proposer.propose(ask(f"d{number}")) for number in range(6)), return_exceptions=True
        )

    provider = Mistaken(lambda request, time: DOWN)
    found = jumping(asyncio.wait_for(run(), 100.0))
    assert [str(error) for error in found] == ["no such model"] * 6


def test_requests_a_minute_are_counted_and_come_in_their_order(jumping: Run) -> None:
    provider = Provider(lambda request, time: GOOD)
    proposer = steady(provider, limits=CallLimits(requests_per_minute=60))
    answers = jumping(all_of(proposer, [ask(f"d{number}") for number in range(300)]))
    assert len(answers) == 300
    for begin in range(0, 300, 7):
        assert sum(begin <= time < begin + 60 for time in provider.times()) <= 66
    assert provider.times()[-1] == pytest.approx(294.0), "and no slower than it may"
    assert [request.key.decision_id for _, request in provider.calls] == [f"d{number}" for number in range(300)]


def test_the_tokens_of_a_call_are_waited_for_by_the_next(jumping: Run) -> None:
    provider = Provider(lambda request, time: GOOD)

    async def run() -> None:
        proposer = steady(provider, limits=CallLimits(tokens_per_minute=600))
        for number in range(40):
            await proposer.propose(ask(f"d{number}"))

    jumping(run())
    assert provider.times()[-1] == pytest.approx(39 * 10.0, abs=10.0), "100 tokens each, 10 a second"


def test_nobody_overtakes_a_call_that_waits_for_its_tokens(jumping: Run) -> None:
    provider = Provider(lambda request, time: GOOD)

    async def run() -> None:
        proposer = steady(provider, limits=CallLimits(tokens_per_minute=600))
        for wave in range(2):
            await all_of(proposer, [ask(f"d{wave} {number}") for number in range(10)])

    jumping(run())
    begun = provider.times()
    assert begun[:10] == [0.0] * 10, "what they take is not known yet"
    assert begun[10:] == [pytest.approx(1.0 + (1000 - 60) / 10)] * 10, "1,000 tokens, 60 of them at once"


def test_a_probe_does_not_queue_for_the_rate(jumping: Run) -> None:
    provider = Provider(down_until(5.0))
    proposer = steady(provider, Patience(failures_to_open=1), limits=CallLimits(requests_per_minute=6))
    jumping(all_of(proposer, [ask(f"d{number}") for number in range(3)]))
    assert provider.times()[:2] == [0.0, 6.0]


def test_a_spend_cap_ends_it_with_one_line_and_nothing_more_is_asked(jumping: Run) -> None:
    provider = Provider(lambda request, time: GOOD)

    async def run() -> int:
        proposer = steady(provider, limits=CallLimits(usd_max=1.0))
        for number in range(10):
            try:
                await proposer.propose(ask(f"d{number}"))
            except SpendCapReached as reached:
                assert isinstance(reached, UsageError)
                assert str(reached).startswith("the models have cost 1.0000 dollars, and the process may spend 1; ")
                assert "\n" not in str(reached)
                assert proposer.spent_usd == 1.0
                return number
        raise AssertionError("it spends on")

    assert jumping(run()) == 4
    assert len(provider.calls) == 4


def test_what_is_under_way_when_the_cap_is_reached_is_still_answered(jumping: Run) -> None:
    provider = Provider(lambda request, time: GOOD)

    async def run() -> list[Answer | BaseException]:
        proposer = steady(provider, limits=CallLimits(usd_max=1.0))
        first = await asyncio.gather(*(proposer.propose(ask(f"d{number}")) for number in range(8)))
        return [*first, *await asyncio.gather(proposer.propose(ask("late")), return_exceptions=True)]

    *first, late = jumping(run())
    assert first == [GOOD] * 8
    assert isinstance(late, SpendCapReached)


def test_a_cap_on_what_has_no_price_is_refused(jumping: Run) -> None:
    provider = Provider(script(Answer("{}")))
    with pytest.raises(UsageError, match="the price of m/one is unknown"):
        jumping(steady(provider, limits=CallLimits(usd_max=1.0)).propose(ask()))


def test_what_a_recording_says_of_its_cost_was_paid_before(jumping: Run) -> None:
    provider = Provider(script(GOOD))
    proposer = steady(provider, limits=CallLimits(usd_max=0.1))
    jumping(proposer.propose(ProposalRequest("recorded/file#m", [], CallKey("d", "w"))))
    assert proposer.spent_usd == 0.0


def test_whoever_watches_is_told_when_a_breaker_opens_and_closes(jumping: Run, capfd: Any) -> None:
    told: list[tuple[str, str, str]] = []
    proposer = steady(Provider(down_until(10.0)), on_breaker=lambda *turned: told.append(turned))
    jumping(all_of(proposer, [ask(f"d{number}") for number in range(20)]))
    assert told == [
        ("m/one", "open", DOWN.failure_detail),
        ("m/one", "open", DOWN.failure_detail),
        ("m/one", "closed", ""),
    ]
    assert capfd.readouterr() == ("", ""), "retries print nothing"


@pytest.mark.parametrize(
    "wrong",
    [
        {"calls_max": 0, "failures_to_open": 0},
        {"failures_to_open": 6},
        {"rate_limited_max": 4},
        {"wait_s": -1.0},
        {"probe_s": 0.0},
        {"probe_s_max": 1.0},
    ],
)
def test_a_patience_that_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r" is .*; give at least"):
        Patience(**wrong)


@pytest.mark.parametrize("name", ["requests_per_minute", "tokens_per_minute", "usd_max"])
@pytest.mark.parametrize("limit", [0, -1.0, float("nan")])
def test_a_limit_that_lets_nothing_through_is_refused(name: str, limit: float) -> None:
    with pytest.raises(UsageError, match=f"{name} is "):
        CallLimits(**{name: limit})
