"""From the raw text of an answer to a proposal: the first verifier."""

from __future__ import annotations

from driftline.consumers.judging import Proposal
from driftline.consumers.proposing import Answer
from driftline.schemas import NotCanonical, Rejection, RejectionCode, canonical_json
from driftline.schemas.canonical import parse_canonical

PARSE_VERSION = "1"
ANSWER_CHARACTERS_MAX = 100_000
"""Several answers of this length and their context fit a record of Kafka's default size (1 MiB)."""
QUOTED_CHARACTERS_MAX = 120
"""Of the answer in a rejection."""


def parse_proposal(answer: Answer) -> Proposal | Rejection:
    """The proposal in a raw answer, read strictly: one object of `type` and `payload`, and nothing around it."""
    if answer.text is None:
        return no_answer(answer)
    if len(answer.text) > ANSWER_CHARACTERS_MAX:
        return _reject(RejectionCode.NOT_JSON, f"at most {ANSWER_CHARACTERS_MAX} characters", "more")
    try:
        data = parse_canonical(answer.text)
    except NotCanonical as error:
        return _reject(RejectionCode.NOT_CANONICAL, "numbers within 2^53 and valid Unicode", "", error.message)
    except (ValueError, RecursionError) as error:
        return _reject(RejectionCode.NOT_JSON, "one JSON object, nothing around it", answer.text, str(error))
    kind, payload = (data.get("type"), data.get("payload")) if isinstance(data, dict) else (None, None)
    if not (isinstance(kind, str) and isinstance(payload, dict)):
        return _reject(RejectionCode.SCHEMA_MISMATCH, '{"type": "…", "payload": {…}}', answer.text)
    if len(data) > 2:
        extra = ", ".join(sorted(data.keys() - {"type", "payload"}))
        return _reject(RejectionCode.SCHEMA_MISMATCH, "only type and payload", extra)
    return Proposal(kind, payload)


def no_answer(answer: Answer) -> Rejection:
    """The rejection of a call that failed."""
    return _reject(RejectionCode.NO_ANSWER, "an answer", answer.failure or "nothing", answer.failure_detail)


def recorded_text(text: str | None) -> str | None:
    """What the record keeps of an answer: of one that is too long, so much that it is too long there as well."""
    return None if text is None else text[: ANSWER_CHARACTERS_MAX + 1]


def canonical_proposal(raw: str | None) -> str | None:
    """The proposal in a text as canonical JSON; None where there is none."""
    parsed = parse_proposal(Answer(raw))
    if isinstance(parsed, Rejection):
        return None
    return canonical_json([parsed.type, dict(parsed.payload)])


def unknown_action(name: str, known: str) -> Rejection:
    """The rejection of a proposal of a record that the boundary does not propose."""
    what = "the proposed record is not one that this boundary proposes"
    return _reject(RejectionCode.UNKNOWN_ACTION, f"one of {known}", name, what, "/type")


def _reject(code: RejectionCode, expected: str, actual: str, message: str = "", path: str = "") -> Rejection:
    return Rejection(
        code=code,
        path=path,
        expected=expected,
        actual=actual[:QUOTED_CHARACTERS_MAX],
        rule_id="parse",
        rule_version=PARSE_VERSION,
        message=message,
    )
