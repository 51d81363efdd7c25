"""What a verifier says of an answer: the deterministic side of the boundary."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

from driftline.consumers.proposing import Answer
from driftline.schemas import Attempt, Rejection


@dataclass(frozen=True, slots=True)
class Action:
    """What a proposal would do, reduced to what is compared: free text is left out.

    Attributes:
        type: Record name of the proposed event, or `answer` for a recording.
        compared: The payload's compared fields.
        features: The action as numbers for the detectors: one-hot values and numbers scaled to [0, 1].
    """

    type: str
    compared: Mapping[str, Any]
    features: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Proposal:
    """A proposal that could be parsed: accepted or not."""

    type: str
    payload: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Case:
    """What a verifier may look at besides the answer: nothing else, so that a replay judges alike."""

    context: Mapping[str, Any]
    """The variables that the prompt saw."""
    reference: Any = None
    """The reference answer that came with a recording."""
    earlier: Sequence[Attempt] = ()
    """Attempts before this one."""


@dataclass(frozen=True)
class Judgement:
    """What the verifiers said of one answer."""

    rejections: tuple[Rejection, ...] = ()
    proposal: Proposal | None = None
    """The parsed proposal, even where it was rejected; None where nothing could be parsed."""
    act: Callable[[], Action] | None = field(default=None, compare=False)
    """Makes `action`, which only a replay asks for."""

    @cached_property
    def action(self) -> Action | None:
        """What it would do; None where nothing could be parsed, or not as an action."""
        return None if self.act is None else self.act()

    @property
    def accepted(self) -> bool:
        """Whether no verifier objected."""
        return not self.rejections


class Judge(Protocol):
    """A deterministic verifier of answers: equal inputs give equal judgements, on every machine."""

    @property
    def version(self) -> str:
        """Hash of everything that the judgement depends on but the inputs."""

    def judge(self, answer: Answer, case: Case) -> Judgement:
        """Judge one answer; never raises for what a model wrote."""
