"""Evidence enters in the planned order, and what is paid beyond the stop is told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random

import pytest

from driftline.consumers.proposing import Answer, ProposalRequest
from driftline.detectors import planned_order
from driftline.replay import ForcedResult, Progress, Segment
from driftline.replay.harness import AHEAD_FACTOR
from driftline.schemas import Decision, UsageError

Replay = Callable[..., ForcedResult]
Questions = Callable[..., Segment]


def right_in_half(decision_id: str) -> str:
    return "yes" if Random(decision_id).random() < 0.5 else "no"


def always_right(decision_id: str) -> str:
    return "yes"


class InOrder:
    """Answers at once."""

    def __init__(self, rule: Callable[[str], str] = right_in_half) -> None:
        self.rule = rule
        self.asked: list[str] = []

    async def propose(self, request: ProposalRequest) -> Answer:
        self.asked.append(request.key.decision_id)
        return Answer(self.rule(request.key.decision_id), cost_usd=0.5)


class Scrambled(InOrder):
    """Lets calls wait for one another, and the oldest for most others; each arrival lets one go."""

    def __init__(self, seed: int, rule: Callable[[str], str] = right_in_half) -> None:
        super().__init__(rule)
        self._random = Random(seed)
        self._waiting: list[asyncio.Event] = []
        self.answered: list[str] = []
        self.most_in_flight = 0

    async def propose(self, request: ProposalRequest) -> Answer:
        gate = asyncio.Event()
        self._waiting.append(gate)
        self.most_in_flight = max(self.most_in_flight, len(self._waiting))
        asyncio.get_running_loop().call_soon(self._let_one_go)
        await gate.wait()
        self.answered.append(request.key.decision_id)
        return await super().propose(request)

    def _let_one_go(self) -> None:
        last = len(self._waiting) - 1
        self._waiting.pop(last if self._random.random() < 0.7 else self._random.randint(0, last)).set()


def evidence(result: ForcedResult) -> list[tuple[str, str]]:
    pairs = (pair for pair in result.pairs if pair.evidence)
    return [(pair.logged.decision.decision_id, pair.candidate.verdict) for pair in pairs]


def without_overspent(result: ForcedResult) -> tuple[object, ...]:
    judged = result.judged
    strata = tuple((stratum.e_value, stratum.interval_at_stop) for stratum in judged.strata)
    stop = (result.paid_calls, result.alarm_after, result.coverage, judged.events_at_stop, judged.e_value)
    return (result.verdict, result.stopped_because, stop, strata, evidence(result))


@pytest.mark.parametrize("seed", range(5))
def test_answers_in_scrambled_order_give_the_result_of_answers_in_order(
    seed: int, replay: Replay, questions: Questions
) -> None:
    scrambled = Scrambled(seed)
    one_by_one = replay(questions(60), InOrder(), run_id="in-order", concurrency=1, locate=True)
    result = replay(questions(60), scrambled, ledger=EmptyLedger(), concurrency=8, locate=True)
    assert (
        scrambled.answered != [pair.logged.decision.decision_id for pair in result.pairs][: len(scrambled.answered)]
    )
    assert without_overspent(result) == without_overspent(one_by_one)


def test_evidence_enters_in_the_order_that_the_seed_fixed_beforehand(replay: Replay, questions: Questions) -> None:
    segment = questions(60)
    result = replay(segment, Scrambled(1, always_right), order_seed=7, concurrency=8)
    planned = planned_order([logged.decision.workflow for logged in segment.decisions], 7)
    assert [pair.logged for pair in result.pairs] == [segment.decisions[index] for index in planned][
        : len(result.pairs)
    ]


def test_decisions_of_one_workflow_enter_in_log_order(
    replay: Replay, questions: Questions, make_question: Callable[..., Decision]
) -> None:
    decisions = [make_question(number, workflow=f"w{number % 3}") for number in range(12)]
    result = replay(questions(decisions=decisions), Scrambled(2, always_right), concurrency=5)
    for workflow in ("w0", "w1", "w2"):
        times = [
            pair.logged.decision.input.event_time
            for pair in result.pairs
            if pair.logged.decision.workflow == workflow
        ]
        assert times == sorted(times)


def test_calls_in_flight_at_the_stop_are_paid_told_and_no_evidence(replay: Replay, questions: Questions) -> None:
    proposer = Scrambled(3)
    result = replay(questions(200), proposer, concurrency=8)
    assert result.verdict == "diverged"
    assert result.overspent_calls > 0
    assert len(proposer.asked) == result.paid_calls + result.overspent_calls == len(result.pairs)
    assert len(evidence(result)) == result.paid_calls == result.judged.events_at_stop
    assert result.cost_usd == 0.5 * len(proposer.asked)


def test_one_call_at_a_time_overspends_nothing(replay: Replay, questions: Questions) -> None:
    proposer = InOrder()
    result = replay(questions(200), proposer, concurrency=1)
    assert (result.overspent_calls, len(proposer.asked)) == (0, result.paid_calls)


@pytest.mark.parametrize("concurrency", [1, 3, 8])
def test_never_more_calls_are_in_flight_than_allowed(concurrency: int, replay: Replay, questions: Questions) -> None:
    proposer = Scrambled(4, always_right)
    replay(questions(40), proposer, concurrency=concurrency)
    assert proposer.most_in_flight == concurrency


class FirstHangs(InOrder):
    """The first call is answered only when no other comes any more."""

    async def propose(self, request: ProposalRequest) -> Answer:
        answer = await super().propose(request)
        if len(self.asked) == 1:
            calls = 0
            while calls != len(self.asked):
                calls = len(self.asked)
                for _ in range(100):
                    await asyncio.sleep(0)
            self.ahead = calls
        return answer


def test_a_call_that_hangs_bounds_how_much_is_paid_ahead_of_it(replay: Replay, questions: Questions) -> None:
    proposer = FirstHangs(always_right)
    result = replay(questions(100), proposer, concurrency=4)
    assert proposer.ahead == 4 * AHEAD_FACTOR
    assert result.judged.events_at_stop == result.paid_calls


def test_max_calls_is_never_passed_and_says_so(replay: Replay, questions: Questions) -> None:
    proposer = InOrder(always_right)
    result = replay(questions(40), proposer, calls_max=10, concurrency=8)
    assert len(proposer.asked) == 10
    assert (result.verdict, result.stopped_because) == ("inconclusive", "budget_ended")


def test_a_segment_that_ends_undecided_is_inconclusive_and_not_equal(replay: Replay, questions: Questions) -> None:
    wrong_once = InOrder(lambda decision_id: "no" if decision_id == "d3" else "yes")
    result = replay(questions(10), wrong_once)
    assert (result.verdict, result.stopped_because) == ("inconclusive", "segment_ended")


def test_reading_on_takes_the_whole_segment_and_changes_no_decision(replay: Replay, questions: Questions) -> None:
    stopped = replay(questions(80), InOrder(), concurrency=1)
    read_on = replay(questions(80), InOrder(), concurrency=4, read_on=True)
    for told in ("verdict", "stopped_because", "alarm_after", "paid_calls"):
        assert getattr(read_on, told) == getattr(stopped, told)
    assert (read_on.judged.e_value, read_on.judged.events_at_stop) == (
        stopped.judged.e_value,
        stopped.judged.events_at_stop,
    )
    assert (len(read_on.pairs), read_on.overspent_calls) == (80, 0)
    levels = {level.level: level for level in read_on.judged.levels}
    assert levels["verdict"].events == 80
    assert levels["verdict"].interval != levels["verdict"].interval_at_stop


def test_locating_goes_on_behind_the_alarm_until_a_stratum_is_named(
    replay: Replay, questions: Questions, make_question: Callable[..., Decision]
) -> None:
    decisions = [make_question(number, stream="quiz" if number % 2 else "other") for number in range(200)]
    streams = {decision.decision_id: decision.stream for decision in decisions}
    wrong_in_one = InOrder(lambda decision_id: "no" if streams[decision_id] == "other" else "yes")
    alarm = replay(questions(decisions=decisions), wrong_in_one, concurrency=1)
    located = replay(questions(decisions=decisions), wrong_in_one, concurrency=1, locate=True)
    assert located.alarm_after == alarm.alarm_after
    assert located.paid_calls >= alarm.paid_calls
    named = {(stratum.stratum, stratum.level) for stratum in located.judged.strata if stratum.named}
    assert {stratum for stratum, _ in named} == {"recorded/other"}


def test_progress_tells_what_was_read_and_what_it_cost(replay: Replay, questions: Questions) -> None:
    told: list[Progress] = []
    result = replay(questions(30), Scrambled(5), concurrency=4, on_progress=told.append)
    assert [progress.read for progress in told] == sorted(progress.read for progress in told)
    assert told[-1].paid_calls == result.paid_calls
    assert told[-1].decision == "diverged"


class NoSuchModel(Scrambled):
    """Every call that is let go finds that the user was wrong."""

    async def propose(self, request: ProposalRequest) -> Answer:
        await super().propose(request)
        raise UsageError("no such model", "name another")


@pytest.mark.parametrize("concurrency", [1, 8])
def test_a_mistake_of_the_users_in_flight_is_one_error_and_leaves_no_task(
    concurrency: int, replay: Replay, questions: Questions, caplog: pytest.LogCaptureFixture
) -> None:
    proposer = NoSuchModel(6)
    with pytest.raises(UsageError, match="no such model; name another") as caught:
        replay(questions(40), proposer, concurrency=concurrency)
    assert caught.value.__cause__ is None
    assert len(proposer.asked) <= concurrency
    assert not caplog.records


class EmptyLedger:
    """Remembers nothing: two runs of one test do not share answers."""

    def get(self, key: object, paid_by: str | None = None, not_before: str | None = None) -> None:
        return None

    def put(
        self, key: object, answer: Answer, run_id: str, answered_at: str, not_before: str | None = None
    ) -> Answer:
        return answer
