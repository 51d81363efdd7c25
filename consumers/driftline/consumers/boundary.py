"""The stochastic-deterministic boundary: proposer, verifier, commit, reject (Srinivasan 2026, arXiv 2605.20173)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Any

from driftline.consumers.budget import Budget
from driftline.consumers.machine import Machine
from driftline.consumers.machine_rows import StateVerifier
from driftline.consumers.prompt import Prompt
from driftline.consumers.tools import READS_MAX_DEFAULT, READS_OF_DECISION_MAX, Tool
from driftline.consumers.verifiers import Verifier, VerifierChain
from driftline.schemas import Contracts, NotCanonical, Shape, UsageError, canonical_json


class OnExhausted(StrEnum):
    """What happens when no proposal was accepted."""

    ESCALATE = "escalate"
    """A `driftline.Escalated` event hands the case to a person."""
    REJECT = "reject"
    """Nothing but the decision is written."""
    DEAD = "dead"
    """The decision is `rejected` and commits nothing; the input goes to the dead topic as well, whole."""


@dataclass(frozen=True)
class Boundary:
    """Where model output may become an action, and the four parts that it must pass.

    Args:
        name: Unique in the app.
        on: Event types that it decides.
        prompt: What the model is told.
        proposer: `provider/name` of the model.
        proposes: Full record names of the events that may be committed.
        verifiers: The app's own, after parse and schema and before budget.
        parameters: Passed to the provider as they stand.
        max_attempts: Proposals per decision; each reject is fed back.
        on_exhausted: What happens after the last.
        budget: What one decision may spend on being mended.
        timeout_s: Of one call.
        fallbacks: Models to ask, in order, while the proposer is in trouble; they get the same parameters.
        tools: What the proposer may read while it makes a proposal.
        reads_max: Calls of tools in one attempt; past them the proposer must answer.

    Raises:
        UsageError: A limit below 1, nothing to decide or to propose, a model or a tool that is named twice, or
            parameters that cannot be recorded.
    """

    name: str
    on: Sequence[str]
    prompt: Prompt
    proposer: str
    proposes: Sequence[str]
    verifiers: Sequence[Verifier] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict)
    max_attempts: int = 3
    on_exhausted: OnExhausted = OnExhausted.ESCALATE
    budget: Budget = field(default_factory=Budget)
    timeout_s: float = 60.0
    fallbacks: Sequence[str] = ()
    tools: Sequence[Tool] = ()
    reads_max: int = READS_MAX_DEFAULT

    def __post_init__(self) -> None:
        if self.reads_max < 1 or len({tool.name for tool in self.tools}) < len(self.tools):
            raise UsageError(f"boundary {self.name}: tools have names of their own, and `reads_max` is at least 1")
        if self.tools and self.reads_max * self.max_attempts > READS_OF_DECISION_MAX:
            what = f"`reads_max` times `max_attempts` is more than {READS_OF_DECISION_MAX}"
            raise UsageError(f"boundary {self.name}: {what}", "what tools told would not fit the decision's record")
        if self.max_attempts < 1 or not self.on or not self.proposes:
            raise UsageError(f"boundary {self.name}: needs `on`, `proposes` and at least one attempt")
        if isinstance(self.fallbacks, str) or len({self.proposer, *self.fallbacks}) <= len(self.fallbacks):
            what = "`fallbacks` is a list of models other than the proposer, each named once"
            raise UsageError(f"boundary {self.name}: {what}")
        try:
            _ = self.parameters_json
        except NotCanonical as error:
            raise UsageError(f"boundary {self.name}: parameters: {error.message}") from error

    @cached_property
    def tools_shown(self) -> tuple[Mapping[str, Any], ...]:
        """The tools as the model is shown them."""
        return tuple(tool.shown for tool in self.tools)

    @cached_property
    def parameters_json(self) -> str:
        """The parameters as the decisions record them: canonical JSON."""
        return canonical_json(dict(self.parameters))

    def chain(self, contracts: Contracts, machine: Machine | None = None) -> VerifierChain:
        """The judge of this boundary over an app's contracts; a machine has its say after the app's verifiers.

        Raises:
            ContractError: A record that is proposed or that a tool answers has no contract, or one that JSON cannot
                carry.
        """
        for tool in self.tools:
            if tool.record is not None:
                Shape(contracts.require(tool.record))
        verifiers = self.verifiers if machine is None else (*self.verifiers, StateVerifier(machine))
        chain = VerifierChain([contracts.require(name) for name in self.proposes], verifiers, self.budget)
        _ = chain.shapes
        return chain


@dataclass(frozen=True)
class BoundBoundary:
    """A boundary with its judge: what the engine decides with."""

    boundary: Boundary
    judge: VerifierChain

    @cached_property
    def json_schema(self) -> dict[str, Any]:
        """JSON Schema shown to the model."""
        return self.judge.json_schema()
