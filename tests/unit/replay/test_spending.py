"""Budgets are hard: nothing is asked that does not fit, and where a run ends depends on prices, not on timing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import pytest

from driftline.consumers.models import Patience
from driftline.consumers.proposing import Answer, CallKey, ProposalRequest, ProposerFailure
from driftline.replay import Candidate, ForcedReplay, ForcedResult, Ledger, Limits, RecordedSubject, Segment
from driftline.replay.arms import Incumbent
from driftline.replay.asking import steady
from driftline.replay.result import Progress
from driftline.replay.spending import Spending
from driftline.replay.turns import planned_decisions
from driftline.schemas import EnvironmentUnreachable, UsageError

NOON = datetime(2026, 9, 22, 12, tzinfo=UTC)
CENT = 0.01


class Priced:
    """Answers `yes` at a cent a call, the later calls of a batch first."""

    def __init__(self) -> None:
        self.calls = 0

    async def propose(self, request: ProposalRequest) -> Answer:
        self.calls += 1
        for _ in range(20 - self.calls % 8):
            await asyncio.sleep(0)
        return Answer("yes", cost_usd=CENT)


class LosesOnce(Priced):
    """The call for one decision comes to nothing."""

    async def propose(self, request: ProposalRequest) -> Answer:
        answer = await super().propose(request)
        return Answer(None, ProposerFailure.TIMEOUT) if request.key.decision_id == self.lost else answer

    lost = ""


@pytest.fixture
def spend(ledger: Ledger, quiz: RecordedSubject, questions: Callable[..., Segment]) -> Callable[..., ForcedResult]:
    """Run 60 questions within a budget, counting what the run has paid before."""

    def run(
        proposer: Priced,
        usd_max: float,
        progress: Sequence[Progress] = (),
        room: float = CENT,
        incumbent: Incumbent | None = None,
    ) -> ForcedResult:
        spending = Spending(usd_max, ledger.paid_usd("run"), lambda logged, request: room)
        given = ("run", questions(60), quiz, Candidate("acme/next"), proposer, ledger, Limits(delta=0.001))
        replay = ForcedReplay(*given, lambda: NOON, spending, incumbent)
        return asyncio.run(replay.run(progress.append if isinstance(progress, list) else lambda at: None))

    return run


def test_a_run_pays_what_its_budget_holds_and_not_a_cent_more(spend: Callable[..., ForcedResult]) -> None:
    model = Priced()
    result = spend(model, 0.25)
    assert model.calls == 25
    assert result.cost_usd == pytest.approx(0.25)
    assert (result.verdict, result.stopped_because) == ("inconclusive", "budget_ended")
    assert (result.paid_calls, result.overspent_calls, len(result.pairs)) == (25, 0, 25)


def test_the_same_budget_again_pays_nothing_and_says_the_same(spend: Callable[..., ForcedResult]) -> None:
    first, again = spend(Priced(), 0.25), Priced()
    resumed = spend(again, 0.25)
    assert again.calls == 0
    assert resumed.judged == first.judged
    assert (resumed.paid_calls, resumed.stopped_because) == (first.paid_calls, first.stopped_because)


def test_a_larger_budget_goes_on_with_what_is_left_of_it(spend: Callable[..., ForcedResult]) -> None:
    spend(Priced(), 0.25)
    more = Priced()
    result = spend(more, 0.40)
    assert more.calls == 15
    assert result.paid_calls == 40


def test_a_call_that_was_lost_stays_a_hole_when_the_budget_has_ended_since(
    spend: Callable[..., ForcedResult], questions: Callable[..., Segment]
) -> None:
    model = LosesOnce()
    model.lost = planned_decisions(questions(60), Limits())[5].decision.decision_id
    first = spend(model, 0.20)
    again = spend(Priced(), 0.20)
    assert [pair.index for pair in first.pairs if pair.lost] == [5]
    assert [pair.lost for pair in again.pairs] == [pair.lost for pair in first.pairs]
    assert again.judged == first.judged


def test_a_budget_holds_the_calls_of_every_arm_and_ends_within_a_decision(
    spend: Callable[..., ForcedResult],
) -> None:
    """Three calls a decision: the ninth decision has its candidate's answer and none of the incumbent's."""
    model, beside = Priced(), Incumbent(Candidate(incumbent=True), 2)
    result = spend(model, 0.25, incumbent=beside)
    again = Priced()
    resumed = spend(again, 0.25, incumbent=beside)
    assert (model.calls, again.calls) == (25, 0)
    assert result.cost_usd == pytest.approx(0.25)
    assert (result.paid_calls, result.stopped_because, len(result.pairs)) == (25, "budget_ended", 9)
    assert [run.lost for run in result.pairs[-1].floor] == [True, True]
    assert resumed.judged == result.judged
    assert (resumed.environment, resumed.change) == (result.environment, result.change)


def test_calls_that_turn_out_cheaper_leave_their_room_to_those_that_wait(spend: Callable[..., ForcedResult]) -> None:
    model = Priced()
    result = spend(model, 0.25, room=3 * CENT)
    assert model.calls == 23, "the next needs room for three cents, and two are left"
    assert result.stopped_because == "budget_ended"


class Verbose(Priced):
    """Writes three times what the log did; as many calls at a time as are let through come back together."""

    def __init__(self) -> None:
        super().__init__()
        self.in_flight: list[int] = []
        self._now = 0

    async def propose(self, request: ProposalRequest) -> Answer:
        self._now += 1
        self.in_flight.append(self._now)
        answer = await super().propose(request)
        self._now -= 1
        return answer


def test_a_model_that_writes_more_than_the_log_did_keeps_to_the_budget_all_the_same(
    spend: Callable[..., ForcedResult],
) -> None:
    model, again = Verbose(), Verbose()
    result = spend(model, 0.25, room=CENT / 3)
    resumed = spend(again, 0.25, room=CENT / 3)
    assert (model.calls, result.stopped_because) == (25, "budget_ended")
    assert (again.calls, resumed.judged) == (0, result.judged)


def test_few_calls_are_made_before_it_is_known_what_an_answer_costs(spend: Callable[..., ForcedResult]) -> None:
    """The very first may still be too many: what an answer costs is known once it has come."""
    model = Verbose()
    spend(model, 0.005, room=CENT / 300)
    assert model.calls == max(model.in_flight) == 4
    later = Verbose()
    spend(later, 0.50, room=CENT)
    assert max(later.in_flight) > 4, "once one has come, all go"


def test_what_calls_have_cost_counts_for_the_model_that_asked_for_it(questions: Callable[..., Segment]) -> None:
    """A dear incumbent beside a cheap candidate takes no room from it."""
    logged = questions(1).decisions[0]

    async def rooms() -> tuple[float, ...]:
        spending = Spending(2.0, room=lambda logged, request: 0.001)
        dear, cheap = (ProposalRequest(name, (), CallKey("d0", "w0")) for name in ("acme/dear", "acme/cheap"))
        first = await spending.admit(logged, dear)
        assert first is not None
        spending.settle(first, [Answer("yes", cost_usd=0.5)])
        return tuple([await spending.admit(logged, request) or 0.0 for request in (cheap, dear)])

    assert asyncio.run(rooms()) == pytest.approx((0.001, 0.5))


@pytest.mark.parametrize(("cost", "said"), [(0.04, ""), (0.2, "has cost $0.2000, more than its budget of $0.1:")])
def test_a_budget_that_was_passed_is_told(cost: float, said: str, questions: Callable[..., Segment]) -> None:
    async def spent() -> Spending:
        spending = Spending(0.1, room=lambda logged, request: 0.05)
        room = await spending.admit(questions(1).decisions[0], ProposalRequest("acme/new", (), CallKey("d0", "w0")))
        spending.settle(room or 0.0, [Answer("yes", cost_usd=cost)])
        return spending

    overrun = asyncio.run(spent()).overrun
    assert said in overrun
    assert bool(overrun) == bool(said)


def test_progress_tells_what_is_spent_and_what_may_be(spend: Callable[..., ForcedResult]) -> None:
    told: list[Progress] = []
    spend(Priced(), 0.25, told)
    assert told[-1].spent_usd == pytest.approx(0.25)
    assert {progress.usd_max for progress in told} == {0.25}


@pytest.mark.parametrize("limit", ["usd_max", "requests_per_minute", "tokens_per_minute"])
def test_a_limit_that_lets_nothing_through_is_refused(limit: str) -> None:
    with pytest.raises(UsageError, match="above 0"):
        Limits(**{limit: 0.0})  # type: ignore[arg-type]


class Down:
    """A provider that never answers."""

    def __init__(self) -> None:
        self.calls = 0

    async def propose(self, request: ProposalRequest) -> Answer:
        self.calls += 1
        return Answer(None, ProposerFailure.PROVIDER_ERROR, "503")


def test_a_provider_that_stays_away_ends_the_run_with_a_word_on_resuming(
    questions: Callable[..., Segment], quiz: RecordedSubject, ledger: Ledger
) -> None:
    times = iter(range(0, 100_000, 100))
    patience = Patience(wait_s=0, wait_s_max=0, jitter_s=0, probe_s=0.001, probe_s_max=0.001)
    proposer = steady(Down(), Limits(), patience, outage_s_max=300.0, clock=lambda: float(next(times)))
    run = ForcedReplay("r", questions(9), quiz, Candidate("acme/next"), proposer, ledger, Limits(), lambda: NOON)
    with pytest.raises(EnvironmentUnreachable, match="acme/next has not answered for 5 minutes: 503"):
        asyncio.run(run.run())


def test_what_fails_for_a_while_is_asked_again_and_costs_no_coverage(
    questions: Callable[..., Segment], quiz: RecordedSubject, ledger: Ledger
) -> None:
    class Stumbles(Down):
        async def propose(self, request: ProposalRequest) -> Answer:
            failed = await super().propose(request)
            return failed if request.key.attempt == 1 else Answer("yes", cost_usd=0.0)

    patience = Patience(wait_s=0, wait_s_max=0, jitter_s=0, probe_s=0.001, probe_s_max=0.001)
    proposer = steady(Stumbles(), Limits(), patience)
    limits = Limits(concurrency=1)
    run = ForcedReplay("r", questions(9), quiz, Candidate("acme/next"), proposer, ledger, limits, lambda: NOON)
    result = asyncio.run(run.run())
    assert result.coverage == 1.0
    assert all(len(pair.candidate.answer.earlier) == 1 for pair in result.pairs)
