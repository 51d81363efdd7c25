"""The engine: decides one event, as a generator that asks for answers and returns an outcome.

It knows nothing of Kafka, clocks, threads or files. The Kafka runtime, the replay harness and tests drive it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

from driftline.consumers.boundary import BoundBoundary, OnExhausted
from driftline.consumers.conversing import Steps, converse
from driftline.consumers.judging import Case, Judgement
from driftline.consumers.machine_rows import LEGAL, ROW, ROW_VERSION, without_memory
from driftline.consumers.parsing import no_answer, recorded_text
from driftline.consumers.proposing import Answer, CallKey, FailedCall, Message, ProposalRequest, ProposerFailure
from driftline.consumers.tools import read_messages
from driftline.schemas import (
    Attempt,
    Decision,
    Event,
    InputCoordinates,
    NotCanonical,
    Rejection,
    RejectionFeedback,
    Verdict,
    canonical_json,
    content_hash,
    to_json_data,
)
from driftline.schemas.ids import derive_id
from driftline.schemas.names import ESCALATED

Deciding = Steps["Outcome"]


@dataclass(frozen=True)
class Input:
    """One event to decide, with all that the decision may depend on."""

    app: str
    bound: BoundBoundary
    event: Event
    at: InputCoordinates
    row: Mapping[str, Any]
    """The workflow's folded data, the event included."""
    row_version: int | None = None
    seed: int = 0
    legal: Sequence[str] | None = None
    """Which of the boundary's records the row's state allows; None where the spine has no such rule."""

    @cached_property
    def context_json(self) -> str:
        """The variables that the prompt sees, as canonical JSON.

        Raises:
            NotCanonical: The event holds a number or a text that canonical JSON refuses.
        """
        row = without_memory(self.row)
        data: dict[str, Any] = {"event": dict(self.event.data), "stream": self.event.type, ROW: row}
        if self.legal is not None:
            data |= {LEGAL: list(self.legal), ROW_VERSION: self.row_version or 0}
        return canonical_json(to_json_data(data))

    @cached_property
    def context(self) -> dict[str, Any]:
        """The exact variables that the prompt sees: read back from `context_json`, as a replay reads them.

        Raises:
            NotCanonical: As `context_json`.
        """
        context: dict[str, Any] = json.loads(self.context_json)
        return context

    @cached_property
    def decision_id(self) -> str:
        """UUIDv5 of (app, boundary, topic, partition, offset)."""
        return derive_id(self.app, self.bound.boundary.name, str(self.at))


@dataclass(frozen=True)
class Outcome:
    """A decided event: everything but the time at which it was decided."""

    given: Input
    attempts: tuple[Attempt, ...]
    verdict: Verdict
    emitted: tuple[Event, ...]
    action_type: str | None = None
    action_payload: str | None = None

    def decision(
        self, decided_at: datetime, control_offset: int | None = None, row_version_after: int | None = None
    ) -> Decision:
        """The record of the decision.

        Args:
            decided_at: When the verdict fell.
            control_offset: Of the last setting of the control topic that was in force.
            row_version_after: Of the row with what is committed in it; None where that is not in it yet.
        """
        given, boundary = self.given, self.given.bound.boundary
        return Decision(
            decision_id=given.decision_id,
            app=given.app,
            boundary=boundary.name,
            stream=given.event.type,
            workflow=given.event.workflow,
            input=given.at,
            context=given.context_json,
            context_hash=content_hash(given.context_json),
            prompt_hash=boundary.prompt.hash,
            model_requested=boundary.proposer,
            parameters=boundary.parameters_json,
            attempts=self.attempts,
            verdict=self.verdict,
            action_type=self.action_type,
            action_payload=self.action_payload,
            verifier_version=given.bound.judge.version,
            committed_event_ids=tuple(event.id for event in self.emitted),
            row_version_before=given.row_version,
            row_version_after=given.row_version if row_version_after is None else row_version_after,
            control_offset=control_offset,
            decided_at=decided_at,
        )


def decide(given: Input) -> Deciding:
    """Decide one event: propose, verify, feed the rejects back, until one is accepted or the attempts are spent.

    Failed calls that came before an answer are on the record as attempts of their own, and count as none of
    `max_attempts`.

    Yields:
        A request for each attempt; send the `Answer` in. Where that calls tools, `ToolsAsked`, for which reads are
        sent in, and the request that tells them: see `converse`.

    Returns:
        The outcome, with the events to commit.

    Raises:
        NotCanonical: The context cannot be recorded; nothing was asked.
        UsageError: The prompt or a rule of the app fails on this event.
    """
    boundary = given.bound.boundary
    messages = boundary.prompt.messages(given.context)
    attempts: list[Attempt] = []
    for _ in range(boundary.max_attempts):
        request = _request(given, messages, _next_number(attempts))
        answer = yield from converse(request, boundary.tools, boundary.reads_max)
        attempts += [failed_attempt(call) for call in answer.earlier]
        judgement = given.bound.judge.judge(answer, Case(given.context, earlier=tuple(attempts)))
        attempts.append(attempt_of(_next_number(attempts), answer, judgement.rejections))
        if judgement.accepted:
            return _accepted(given, tuple(attempts), judgement)
        if not all(rejection.retryable for rejection in judgement.rejections):
            break
        messages = [*messages, *feedback(attempts[-1])]
    return _exhausted(given, tuple(attempts))


def feedback(attempt: Attempt) -> list[Message]:
    """What the next attempt is told of the last one, as it is on the record; nothing when there was no answer."""
    if attempt.raw_response is None:
        return []
    told = RejectionFeedback(rejections=attempt.rejections)
    return [
        *read_messages(attempt.reads),
        {"role": "assistant", "content": attempt.raw_response},
        {"role": "user", "content": told.model_dump_json()},
    ]


def failed_attempt(call: FailedCall) -> Attempt:
    """The record of a failed call that came before an answer: as it would be, had nothing come after it."""
    answer = Answer(
        text=None,
        failure=call.failure,
        failure_detail=call.failure_detail,
        model_requested=call.model_requested,
        latency_ms=call.latency_ms,
    )
    return attempt_of(call.attempt, answer, (no_answer(answer),))


def attempt_of(number: int, answer: Answer, rejections: tuple[Rejection, ...]) -> Attempt:
    """The record of one call."""
    return Attempt(
        number=number,
        model_reported=answer.model_reported,
        fingerprint=answer.fingerprint,
        raw_response=recorded_text(answer.text),
        finish_reason=answer.finish_reason,
        failure=answer.failure,
        facts=None if answer.facts is None else _facts_json(answer.facts),
        usage=answer.usage,
        cost_usd=answer.cost_usd,
        latency_ms=answer.latency_ms,
        rejections=rejections,
        reads=answer.reads,
        model_requested=answer.model_requested,
    )


def answer_of(attempt: Attempt) -> Answer:
    """The answer that an attempt recorded, so that today's verifier can judge it again."""
    return Answer(
        text=attempt.raw_response,
        failure=None if attempt.failure is None else ProposerFailure(attempt.failure),
        model_reported=attempt.model_reported,
        fingerprint=attempt.fingerprint,
        finish_reason=attempt.finish_reason,
        facts=None if attempt.facts is None else json.loads(attempt.facts),
        usage=attempt.usage,
        cost_usd=attempt.cost_usd,
        latency_ms=attempt.latency_ms,
        model_requested=attempt.model_requested,
        reads=attempt.reads,
    )


def _facts_json(facts: Mapping[str, Any]) -> str:
    """Canonical where it can be: what a provider says may hold anything."""
    try:
        return canonical_json(dict(facts))
    except NotCanonical:
        return json.dumps(dict(facts), sort_keys=True, default=str)


def _next_number(attempts: Sequence[Attempt]) -> int:
    return attempts[-1].number + 1 if attempts else 1


def _request(given: Input, messages: list[Message], number: int) -> ProposalRequest:
    boundary = given.bound.boundary
    return ProposalRequest(
        model=boundary.proposer,
        messages=tuple(messages),
        key=CallKey(given.decision_id, given.event.workflow, attempt=number, seed=given.seed),
        parameters=boundary.parameters,
        json_schema=given.bound.json_schema,
        timeout_s=boundary.timeout_s,
        fallbacks=boundary.fallbacks,
        tools=boundary.tools_shown,
        may_ask=bool(boundary.tools),
    )


def _accepted(given: Input, attempts: tuple[Attempt, ...], judgement: Judgement) -> Outcome:
    proposal = judgement.proposal
    if proposal is None:
        raise AssertionError("a judge accepted an answer without a proposal")
    event = _emit(given, proposal.type, dict(proposal.payload))
    payload = canonical_json(dict(proposal.payload))
    return Outcome(given, attempts, Verdict.ACCEPTED, (event,), proposal.type, payload)


def _exhausted(given: Input, attempts: tuple[Attempt, ...]) -> Outcome:
    if given.bound.boundary.on_exhausted is not OnExhausted.ESCALATE:
        return Outcome(given, attempts, Verdict.REJECTED, ())
    last = attempts[-1].rejections
    data = {
        "boundary": given.bound.boundary.name,
        "decision_id": given.decision_id,
        "attempts": len(attempts),
        "codes": [rejection.code for rejection in last],
        "message": last[0].message or f"{last[0].code}: expected {last[0].expected}",
    }
    return Outcome(given, attempts, Verdict.ESCALATED, (_emit(given, ESCALATED, data),))


def _emit(given: Input, record: str, data: dict[str, Any], index: int = 0) -> Event:
    """An event that the boundary commits: its id is derived, its time is its cause's."""
    boundary = given.bound.boundary.name
    return Event(
        id=derive_id(given.app, boundary, given.event.id, str(index)),
        type=record,
        source=f"driftline:{given.app}/{boundary}",
        workflow=given.event.workflow,
        time=given.event.time,
        record=record,
        data=data,
        causation_id=given.event.id,
        traceparent=given.event.traceparent,
    )
