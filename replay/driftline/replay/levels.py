"""The levels at which two answers are compared; each is measured on its own and none is inferred from another."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from driftline.consumers.judging import Judgement
from driftline.consumers.proposing import Answer, ProposerFailure
from driftline.detectors import ArmOutcome
from driftline.replay.level_features import json_features, text_features
from driftline.schemas import NotCanonical, canonical_json, content_hash, parse_json
from driftline.schemas.fields import escape_surrogates

BYTES, CANONICAL, ARGUMENTS, ACTION, VERDICT = "bytes", "canonical", "arguments", "action", "verdict"
STATE = "state"
"""The row's state after the decision, where the app is on the state-machine spine."""
LEVELS = (BYTES, CANONICAL, ARGUMENTS, ACTION, VERDICT)
EXIT_FAMILY = (VERDICT, ACTION)
"""The levels that decide the verdict of a replay decision by decision; the others are reported. The state after a
decision follows from its verdict and action, and would be counted twice; over whole workflows it decides too."""

LOST = frozenset(
    {
        ProposerFailure.TIMEOUT,
        ProposerFailure.RATE_LIMITED,
        ProposerFailure.PROVIDER_ERROR,
        ProposerFailure.NOT_RECORDED,
    }
)
"""Failures that say nothing of the model: they cost coverage. A refusal or an empty answer is an outcome."""

FENCE = "```"
_FENCE_LABEL = re.compile(r"[\w+.-]*[^\S\n]*")
"""What may follow an opening fence on its line."""


@dataclass(frozen=True)
class JudgedAnswer:
    """One arm's answer to one decision, with what today's verifier says of it."""

    answer: Answer
    judgement: Judgement
    state: str | None = None
    """Of the row with the answer in it; None where the app has no states."""

    @property
    def lost(self) -> bool:
        """Whether there is no outcome to compare."""
        return self.answer.failure in LOST

    @property
    def verdict(self) -> str:
        """`accepted` or `rejected`, of this one attempt."""
        return "accepted" if self.judgement.accepted else "rejected"

    @cached_property
    def hashes(self) -> dict[str, str]:
        """Hash by level; a level that the answer does not have is absent."""
        found = {BYTES: _hash(self._text), CANONICAL: _hash(self._canonical[0]), VERDICT: self.verdict}
        arguments, action = self._arguments, self.judgement.action
        if arguments is not None:
            found[ARGUMENTS] = _hash_json(arguments)
        if action is not None:
            found[ACTION] = _hash_json([action.type, dict(action.compared)])
        if self.state is not None:
            found[STATE] = self.state
        return found

    @cached_property
    def level_features(self) -> dict[str, dict[str, float]]:
        """What the answer is at the levels that decide nothing, for the detectors to learn from."""
        text, value = self._canonical
        canonical = text_features(text) if value is None else json_features(value)
        found = {BYTES: text_features(self._text), CANONICAL: canonical}
        if self._arguments is not None:
            found[ARGUMENTS] = json_features(self._arguments)
        return found

    def outcome(self) -> ArmOutcome:
        """What the detectors are told."""
        action = self.judgement.action
        return ArmOutcome(
            accepted=float(self.judgement.accepted),
            features={"action=none": 1.0} if action is None else dict(action.features),
            hashes=self.hashes,
            level_features=self.level_features,
        )

    def floor_outcome(self) -> ArmOutcome:
        """What the detectors are told of a run of the incumbent, which is held against others by equality alone."""
        return ArmOutcome(accepted=float(self.judgement.accepted), features={}, hashes=self.hashes)

    @property
    def _text(self) -> str:
        return self.answer.text or ""

    @cached_property
    def _canonical(self) -> tuple[str, Any]:
        return _canonical(self._text)

    @property
    def _arguments(self) -> dict[str, Any] | None:
        proposal = self.judgement.proposal
        return None if proposal is None or proposal.type == "answer" else dict(proposal.payload)


def canonical_text(text: str) -> str:
    """A text without what carries no meaning: code fences around all of it, JSON's layout, outer white space.

    The canonical text of a canonical text is that text. Its time grows with the length, whatever a model wrote.
    """
    return _canonical(text)[0]


def _canonical(text: str) -> tuple[str, Any]:
    """The canonical text, and the JSON value that it stands for; None where it is none, or null."""
    inner = _unfenced(text)
    try:
        value = parse_json(inner)
        return canonical_json(value), value
    except (ValueError, NotCanonical, RecursionError):
        return inner, None


def _unfenced(text: str) -> str:
    """What stands inside all fences that enclose the whole text; cuts by position, so that no layer is copied."""
    low, high = _trimmed(text, 0, len(text))
    while text.startswith(FENCE, low, high):
        line_end = text.find("\n", low, high)
        opened = line_end >= 0 and _FENCE_LABEL.fullmatch(text, low + len(FENCE), line_end)
        if not opened or not text.endswith(FENCE, line_end + 1, high):
            break
        low, high = _trimmed(text, line_end + 1, high - len(FENCE))
    return text[low:high]


def _trimmed(text: str, low: int, high: int) -> tuple[int, int]:
    while low < high and text[low].isspace():
        low += 1
    while low < high and text[high - 1].isspace():
        high -= 1
    return low, high


def _hash(text: str) -> str:
    return content_hash(escape_surrogates(text))


def _hash_json(value: Any) -> str:
    """Hash of the canonical JSON; what canonical JSON refuses is hashed in another form and stays comparable."""
    try:
        return content_hash(canonical_json(value))
    except NotCanonical:
        return content_hash(json.dumps(value, sort_keys=True))
