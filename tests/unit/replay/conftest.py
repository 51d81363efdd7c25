"""What the replay tests share: a history of renewals, questions with known answers, and a run in one call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from driftline.consumers import App, SpecJudge
from driftline.consumers.artifacts import Artifact
from driftline.consumers.prompt import RecordedMessages
from driftline.consumers.proposing import Answer, ProposalRequest
from driftline.examples.renewals.app import app as renewals
from driftline.producers.renewals import synthetic_renewals
from driftline.replay import (
    AppSubject,
    Candidate,
    ForcedReplay,
    ForcedResult,
    Ledger,
    Limits,
    RecordedSubject,
    Segment,
)
from driftline.replay.testing import OwnModels, decided, segment_of
from driftline.schemas import (
    Attempt,
    Contracts,
    Decision,
    InputCoordinates,
    Rejection,
    canonical_json,
    content_hash,
)

NOON = datetime(2026, 9, 22, 12, tzinfo=UTC)
SPEC = SpecJudge.parse('[streams.quiz]\naccept = "equals-reference"\n[streams.other]\naccept = "equals-reference"\n')
CANDIDATE = Candidate("acme/next")


def subject_of(app: App) -> AppSubject:
    """An app with the prompts of its code as artifacts."""
    prompts = [boundary.prompt for boundary in app.boundaries]
    return AppSubject(app, {p.hash: Artifact(p.hash, "prompt", p.name, p.text) for p in prompts})


def question(
    number: int, attempts: Sequence[Attempt] = (), stream: str = "quiz", asked: str = "yes or no?", **changed: Any
) -> Decision:
    """A logged decision of an imported quiz: the right answer is `yes`, and `yes` was answered."""
    context = canonical_json({"messages": [{"role": "user", "content": asked}], "reference": "yes"})
    given = InputCoordinates(
        topic="quiz.events",
        partition=0,
        offset=number,
        event_id=f"e{number}",
        event_time=NOON + timedelta(minutes=number),
    )
    decision = Decision(
        decision_id=f"d{number}",
        app="quiz",
        boundary="recorded",
        stream=stream,
        workflow=f"w{number}",
        input=given,
        context=context,
        context_hash=content_hash(context),
        prompt_hash=RecordedMessages.hash,
        model_requested="acme/last",
        parameters="{}",
        attempts=tuple(attempts) or (Attempt(number=1, raw_response="yes"),),
        verdict="accepted",
        verifier_version=SPEC.version,
        decided_at=NOON,
    )
    return decision.model_copy(update=changed)


def lost(number: int, failure: str = "timeout") -> Attempt:
    """An attempt that came to nothing through no fault of the model's."""
    return Attempt(number=number, failure=failure, rejections=(Rejection(code="no_answer"),))


@pytest.fixture(scope="session")
def contracts() -> Contracts:
    return Contracts.load()


@pytest.fixture(scope="session")
def quiz(contracts: Contracts) -> RecordedSubject:
    return RecordedSubject("quiz", SPEC, contracts)


@pytest.fixture
def questions() -> Callable[..., Segment]:
    """A segment of so many questions that were all answered `yes`, or of the decisions given."""

    def make(number: int = 0, decisions: Sequence[Decision] = ()) -> Segment:
        return segment_of(list(decisions) or [question(index) for index in range(number)])

    return make


@pytest.fixture(scope="session")
def make_question() -> Callable[..., Decision]:
    return question


@pytest.fixture(scope="session")
def lost_attempt() -> Callable[..., Attempt]:
    return lost


@pytest.fixture(scope="session")
def renewals_history() -> Segment:
    """What the example app decided of 400 renewals with the simulated incumbent."""
    return segment_of(decided(renewals, synthetic_renewals(400, seed=11), OwnModels(), seed=11))


@pytest.fixture(scope="session")
def renewals_subject() -> AppSubject:
    return subject_of(renewals)


@pytest.fixture(scope="session")
def as_subject() -> Callable[[App], AppSubject]:
    return subject_of


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = Ledger(tmp_path / "ledger.sqlite")
    yield opened
    opened.close()


@pytest.fixture
def replay(ledger: Ledger, quiz: RecordedSubject) -> Callable[..., ForcedResult]:
    """Run a segment against a candidate; by default the quiz and a model of nobody's."""

    def run(segment: Segment, proposer: Any, **given: Any) -> ForcedResult:
        limits: Mapping[str, Any] = {name: value for name, value in given.items() if name in Limits.__slots__}
        forced = ForcedReplay(
            given.get("run_id", "run"),
            segment,
            given.get("subject", quiz),
            given.get("candidate", CANDIDATE),
            proposer,
            given.get("ledger", ledger),
            Limits(**limits),
            lambda: given.get("now", NOON),
            incumbent=given.get("incumbent"),
        )
        return asyncio.run(forced.run(given.get("on_progress", lambda progress: None)))

    return run


class Says:
    """A model that always answers the same."""

    def __init__(self, text: str) -> None:
        self.text = text

    async def propose(self, request: ProposalRequest) -> Answer:
        return Answer(self.text)


@pytest.fixture(scope="session")
def says() -> Callable[[str], Says]:
    return Says


@pytest.fixture
def wild(replay: Callable[..., ForcedResult], questions: Callable[..., Segment]) -> ForcedResult:
    """A run that diverged, with a candidate that wrote what a page must not obey."""
    text = "<script>alert(1)</script> <img src=x onerror=alert(2)> ]]> {{ 7 * 7 }} \ud800 \u202e '\""
    return replay(questions(60), Says(text), read_on=True)
