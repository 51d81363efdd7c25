"""`Decision`: one pass through a boundary, with everything that it depended on."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Any

from pydantic import Field

from driftline.schemas.fields import Logged, Quoted, UtcMillis
from driftline.schemas.rejection import Rejection


class Verdict(StrEnum):
    """What became of the decision."""

    ACCEPTED = "accepted"
    """A proposal passed every verifier and was committed."""
    REJECTED = "rejected"
    """No proposal passed; nothing was committed but this record."""
    ESCALATED = "escalated"
    """No proposal passed, and the boundary handed the case to a person."""


class InputCoordinates(Logged):
    """Where the decided event lies on the log."""

    topic: str
    """Topic of the input event."""
    partition: int
    """Partition of the input event."""
    offset: int
    """Offset of the input event."""
    event_id: str
    """`ce_id` of the input event."""
    event_time: UtcMillis
    """Event time of the input event, UTC, milliseconds."""

    def __str__(self) -> str:
        """The coordinates as `topic[partition]@offset`."""
        return f"{self.topic}[{self.partition}]@{self.offset}"


class Usage(Logged):
    """Tokens as the provider counted them; null where it did not say."""

    prompt_tokens: int | None = None
    """Tokens read."""
    completion_tokens: int | None = None
    """Tokens written."""


# A later field that says nothing is not written: what was exported before it keeps its bytes and its hash.
def _is_none(value: object) -> bool:
    return value is None


def _is_first(value: object) -> bool:
    return value == 1


class Read(Logged):
    """One answer of a tool that the proposer read while it made a proposal."""

    call_id: Quoted
    """Id that the model gave the call."""
    name: Quoted
    """Tool name."""
    arguments: str
    """Canonical JSON of the arguments; of what a model wrote that is none, of its text."""
    arguments_hash: str
    """Hash of `arguments`; with `name` it identifies the call."""
    answer_hash: str = ""
    """Hash of `answer`; empty where the tool gave none."""
    status: str
    """A `ReadStatus`."""
    answer: Quoted | None = Field(default=None, exclude_if=_is_none)
    """Canonical JSON of what the tool answered; null where it gave no answer."""
    round: int = Field(default=1, exclude_if=_is_first)
    """Request of the attempt, from 1, that asked for it."""


class ReadStatus(StrEnum):
    """What became of a call of a tool."""

    OK = "ok"
    UNKNOWN_TOOL = "unknown_tool"
    BAD_ARGUMENTS = "bad_arguments"
    LIMIT = "limit"
    """The attempt had made as many calls as its boundary allows; the tool was not asked."""
    FAILED = "failed"
    TIMEOUT = "timeout"
    BAD_ANSWER = "bad_answer"
    """The tool answered what canonical JSON refuses, or more than a record has room for."""
    UNRECORDED = "unrecorded"
    """In a replay alone: the log has no answer to the call."""


class Attempt(Logged):
    """One call of the proposer and what the verifiers said of it."""

    number: int
    """From 1; a number that is missing was a failed call, of too many to be all kept."""
    model_reported: Quoted | None = None
    """The model that the provider says has answered."""
    fingerprint: Quoted | None = None
    """The provider's `system_fingerprint`."""
    raw_response: Quoted | None = None
    """The text as it came; null when the call failed."""
    finish_reason: Quoted | None = None
    """The provider's finish reason."""
    failure: Quoted | None = None
    """Typed failure of the call (`timeout`, `rate_limited`, `provider_error`, `refused`); null when it answered."""
    facts: Quoted | None = None
    """Canonical JSON of what the provider said of this answer beyond its text, e.g. a recorded judge's flag."""
    usage: Usage = Usage()
    """Tokens."""
    cost_usd: float | None = None
    """Dollars; null when the price is unknown."""
    latency_ms: float | None = None
    """Milliseconds from request to the whole answer."""
    rejections: tuple[Rejection, ...] = ()
    """Empty when the proposal was accepted."""
    reads: tuple[Read, ...] = ()
    """What tools answered during the attempt."""
    model_requested: Quoted | None = Field(default=None, exclude_if=_is_none)
    """The model that was asked; null, and left out of JSON, when it was the boundary's proposer."""


class Decision(Logged):
    """One pass through a boundary, accepted or not.

    The id and every exactly-once claim are per (app, boundary, topic, partition, offset).
    """

    decision_id: str
    """UUIDv5 of (app, boundary, input coordinates)."""
    app: str
    """App name."""
    boundary: str
    """Boundary name."""
    stream: str
    """Event type of the input."""
    workflow: str
    """Key of the input."""
    input: InputCoordinates
    """Where the input lies."""
    context: str
    """Canonical JSON of the exact variables that the prompt saw."""
    context_hash: str
    """Hash of `context`."""
    context_ref: str | None = None
    """Reserved: hash of a context stored elsewhere."""
    prompt_hash: str
    """Hash of the prompt template; its text is on `driftline.artifacts`."""
    model_requested: str
    """`provider/name`."""
    parameters: str
    """Canonical JSON of the model parameters."""
    attempts: tuple[Attempt, ...]
    """In order, at least one."""
    verdict: str
    """A `Verdict`."""
    action_type: str | None = None
    """Record name of the accepted proposal."""
    action_payload: str | None = None
    """Canonical JSON of the accepted proposal's payload."""
    verifier_version: str
    """Hash of schema fingerprints, policy file and declared rule versions."""
    committed_event_ids: tuple[str, ...] = ()
    """`ce_id` of each event committed with this decision."""
    row_version_before: int | None = None
    """Version of the workflow's row that the decision saw."""
    row_version_after: int | None = None
    """Version of the row committed with the decision."""
    control_offset: int | None = None
    """Offset of the control topic up to which settings were in force."""
    decided_at: UtcMillis
    """When the verdict fell, UTC, milliseconds (the record's timestamp is the event time)."""

    def context_value(self) -> dict[str, Any]:
        """The context as data."""
        value: dict[str, Any] = json.loads(self.context)
        return value

    def parameters_value(self) -> dict[str, Any]:
        """The model parameters as data."""
        value: dict[str, Any] = json.loads(self.parameters)
        return value
