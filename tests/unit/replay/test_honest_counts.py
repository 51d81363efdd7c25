"""What a run counts and files: every decision once, every paid call, and answers by what they depend on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from driftline.consumers import SpecJudge
from driftline.consumers.models import LiteLLMProposer
from driftline.consumers.proposing import Answer, ProposalRequest
from driftline.replay import (
    Candidate,
    ForcedReplay,
    ForcedResult,
    Ledger,
    Limits,
    RecordedSubject,
    Segment,
    Selection,
)
from driftline.replay.alerting import alerts_of
from driftline.replay.segment import load_segment
from driftline.replay.testing import log_of
from driftline.schemas import ArmRef, Contracts, Decision, DivergenceAlert, UsageError

NOW = datetime(2026, 9, 30, tzinfo=UTC)
ARM = ArmRef(model="acme/last", prompt_hash="p", verifier_version="v")
Replay = Callable[..., ForcedResult]


class AlwaysNo:
    """A model that answers `no`, at a cent a call."""

    def __init__(self) -> None:
        self.asked = 0

    async def propose(self, request: ProposalRequest) -> Answer:
        self.asked += 1
        return Answer("no", cost_usd=0.01)


def test_a_decision_that_was_logged_twice_counts_once(
    make_question: Callable[..., Decision], contracts: Contracts
) -> None:
    decisions = [make_question(number) for number in range(4)]
    segment = load_segment(*log_of([*decisions, decisions[2]], contracts), "quiz", Selection())
    assert [logged.decision.decision_id for logged in segment.decisions] == ["d0", "d1", "d2", "d3"]
    assert segment.repeated == 1


def test_calls_that_are_paid_to_read_on_are_counted_and_priced(
    replay: Replay, questions: Callable[..., Segment]
) -> None:
    model = AlwaysNo()
    result = replay(questions(60), model, read_on=True)
    assert result.paid_calls + result.overspent_calls + result.estimate_calls == model.asked == 60
    assert result.estimate_calls > 0
    assert result.cost_usd == pytest.approx(0.60)


def test_an_alert_speaks_of_what_entered_the_test_and_of_nothing_read_later(
    replay: Replay, questions: Callable[..., Segment]
) -> None:
    segment = questions(60)
    result = replay(segment, AlwaysNo(), read_on=True)
    _, diverged = alerts_of(segment, ARM, ARM, result, Limits(), NOW)
    assert isinstance(diverged, DivergenceAlert)
    assert {stratum.events for stratum in diverged.named} == {result.judged.events_at_stop}
    assert result.judged.events_at_stop < 60


def test_a_live_answer_is_never_held_against_a_recorded_judges_flag(
    questions: Callable[..., Segment], ledger: Ledger, contracts: Contracts
) -> None:
    """Every live answer would be rejected for want of the flag, and a model would diverge from itself."""
    subject = RecordedSubject("quiz", SpecJudge.parse('[streams.quiz]\naccept = "reference-flag"\n'), contracts)
    model = AlwaysNo()
    run = ForcedReplay("r", questions(9), subject, Candidate("acme/next"), model, ledger, Limits(), lambda: NOW)
    with pytest.raises(UsageError, match="recorded reference flag"):
        asyncio.run(run.run())
    assert model.asked == 0


def recording(path: Path, answer: str) -> Path:
    lines = [
        {
            "event_id": f"w{number}",
            "stream": "quiz",
            "time": "2026-01-01T00:00:00Z",
            "messages": [],
            "model": "acme/next",
            "response": answer,
        }
        for number in range(30)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_a_recording_that_was_rewritten_is_read_again(
    tmp_path: Path, questions: Callable[..., Segment], quiz: RecordedSubject, ledger: Ledger
) -> None:
    def verdict(answer: str) -> str:
        path = recording(tmp_path / "answers.jsonl", answer)
        candidate = Candidate(f"recorded/{path}#acme/next")
        run = ForcedReplay("r", questions(30), quiz, candidate, LiteLLMProposer(), ledger, Limits(), lambda: NOW)
        return asyncio.run(run.run()).verdict

    assert verdict("certainly not") == "diverged"
    assert verdict("yes") != "diverged"


def test_what_a_recording_costs_is_told_up_to_the_stop(
    tmp_path: Path, questions: Callable[..., Segment], quiz: RecordedSubject, ledger: Ledger
) -> None:
    path = recording(tmp_path / "answers.jsonl", "no")
    priced = [json.dumps({**json.loads(line), "cost_usd": 0.01}) for line in path.read_text().splitlines()]
    path.write_text("\n".join(priced))
    candidate = Candidate(f"recorded/{path}#acme/next")
    limits = replace(Limits(), read_on=True, concurrency=1)
    run = ForcedReplay("r", questions(30), quiz, candidate, LiteLLMProposer(), ledger, limits, lambda: NOW)
    result = asyncio.run(run.run())
    assert len(result.pairs) == 30
    assert result.cost_usd == pytest.approx(0.01 * result.paid_calls)
    assert result.estimate_calls == 0
