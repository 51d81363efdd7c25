"""The reject signal of the boundary: a typed value, never an exception."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from driftline.schemas.fields import Logged, Quoted


class RejectionCode(StrEnum):
    """Why a proposal was not accepted. A string on the wire, so that a new code breaks no reader."""

    NO_ANSWER = "no_answer"
    """The provider failed, timed out, refused or answered nothing."""
    NOT_JSON = "not_json"
    """The text could not be parsed as one JSON object."""
    NOT_CANONICAL = "not_canonical"
    """It parsed, but canonical JSON refuses a value in it."""
    NOT_EXTRACTED = "not_extracted"
    """No extractor of the verifier spec found an answer in the text."""
    UNKNOWN_ACTION = "unknown_action"
    """The proposed action is none that the boundary proposes."""
    SCHEMA_MISMATCH = "schema_mismatch"
    """The payload does not have the shape of the registered Avro schema."""
    POLICY_VIOLATION = "policy_violation"
    """A deterministic rule refused the payload."""
    WRONG_ANSWER = "wrong_answer"
    """The verifier spec's acceptance test did not hold."""
    REPEATED_PROPOSAL = "repeated_proposal"
    """The same proposal came again after it had been rejected."""
    BUDGET_EXCEEDED = "budget_exceeded"
    """The decision has spent what it may spend."""
    ILLEGAL_TRANSITION = "illegal_transition"
    """The state machine has no such transition out of the row's state."""
    STALE_VERSION = "stale_version"
    """The row has moved on from the version that was expected."""


class Rejection(Logged):
    """Why a verifier did not accept a proposal, in a form that a model and a query can both read."""

    code: str
    """A `RejectionCode`, or a code of an app's own rule."""
    path: Quoted = ""
    """JSON Pointer (RFC 6901) into the proposal; empty for the whole."""
    expected: Quoted = ""
    """What would have been accepted."""
    actual: Quoted = ""
    """What was found."""
    rule_id: str = ""
    """The verifier or rule that refused."""
    rule_version: str = ""
    """Its declared version."""
    retryable: bool = True
    """Whether another attempt of the same proposer can mend it."""
    message: Quoted = ""
    """One sentence for a person."""


class RejectionFeedback(Logged):
    """The structured message that goes back to the proposer: never readable as a completed call.

    Source of the danger: openai-agents-js#1104, where a rejected call read as a completed one.
    """

    status: Literal["rejected"] = "rejected"
    """Always `rejected`: nothing was done, nothing was committed."""
    committed: Literal[False] = False
    """Always false, said a second time for models that skip the status."""
    rejections: tuple[Rejection, ...]
    """What was wrong."""
