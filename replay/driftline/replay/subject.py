"""What is replayed: an app with its boundaries, or an imported recording with its verifier spec."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from driftline.consumers.actions import declared_features
from driftline.consumers.app import App
from driftline.consumers.artifacts import Artifact
from driftline.consumers.boundary import BoundBoundary
from driftline.consumers.judging import Case, Judge, Judgement
from driftline.consumers.machine_rows import ROW, state_of
from driftline.consumers.models.sources import is_recorded
from driftline.consumers.prompt import MessageSource, Prompt, RecordedMessages
from driftline.consumers.tools import Tool
from driftline.consumers.verifier_spec import SpecJudge
from driftline.schemas import BadInput, Contracts, Decision, UsageError, canonical_json, content_hash

RECORDED_BOUNDARY = "recorded"
"""The boundary that imported decisions went through."""


class Subject(Protocol):
    """Today's rules for decisions that were logged then."""

    @property
    def name(self) -> str:
        """App name."""

    @property
    def contracts(self) -> Contracts:
        """The contracts of its records."""

    @property
    def indicators(self) -> Sequence[str]:
        """Features of actions whose rates are compared with their sign; declared, never read off the outcomes."""

    @property
    def strata(self) -> Sequence[str]:
        """Every `boundary/stream` that can be decided today, whether or not it has been."""

    @property
    def rules(self) -> Sequence[str]:
        """Version of every verifier of today, whether or not a decision has met it."""

    def judge(self, decision: Decision) -> Judge:
        """Today's verifier of the decision's boundary and stream."""

    def require_judgeable(self, decision: Decision, model: str) -> None:
        """Refuse a model whose answers today's verifier could not judge.

        Raises:
            UsageError: It could not.
        """

    def prompt(self, decision: Decision) -> MessageSource:
        """The prompt that the decision saw."""

    def json_schema(self, decision: Decision) -> Mapping[str, Any] | None:
        """JSON Schema that the model is shown; None for free text."""

    def json_schema_hash(self, decision: Decision) -> str:
        """Hash of that schema; empty for free text."""

    def timeout_s(self, decision: Decision) -> float:
        """Of one call."""

    def tools(self, decision: Decision) -> Sequence[Tool]:
        """What the model may ask. Only their names, descriptions and arguments count here: none is asked."""

    def reads_max(self, decision: Decision) -> int:
        """Calls of tools in one attempt."""


@dataclass
class AppSubject:
    """An app that is given as code."""

    app: App
    artifacts: Mapping[str, Artifact]
    _prompts: dict[str, Prompt] = field(default_factory=dict)
    _schema_hashes: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """App name."""
        return self.app.name

    @property
    def contracts(self) -> Contracts:
        """The app's and driftline's contracts."""
        return self.app.contracts

    @property
    def indicators(self) -> Sequence[str]:
        """Every record that a boundary proposes, and every number that its schema gives a scale."""
        chains = (bound.judge for bound in self.app.bound.values())
        found = (name for chain in chains for contract in chain.proposes for name in declared_features(contract))
        return tuple(dict.fromkeys(found))

    @property
    def strata(self) -> Sequence[str]:
        """Every event type of every boundary."""
        return [f"{boundary.name}/{stream}" for boundary in self.app.boundaries for stream in boundary.on]

    @property
    def rules(self) -> Sequence[str]:
        """The version of each boundary's chain."""
        return [f"{name} {bound.judge.version}" for name, bound in sorted(self.app.bound.items())]

    def judge(self, decision: Decision) -> Judge:
        """Today's verifier chain of the decision's boundary."""
        return self._bound(decision).judge

    def require_judgeable(self, decision: Decision, model: str) -> None:
        """Nothing to refuse: the chain judges any answer."""

    def prompt(self, decision: Decision) -> MessageSource:
        """The prompt of the decision's hash, from the artifacts.

        Raises:
            BadInput: It is not on the log.
        """
        known = self._prompts.get(decision.prompt_hash)
        if known is None:
            artifact = self.artifacts.get(decision.prompt_hash)
            if artifact is None:
                raise BadInput(
                    f"prompt {decision.prompt_hash} of decision {decision.decision_id} is not on driftline.artifacts",
                    "give the prompt with --prompt FILE",
                )
            known = self._prompts[decision.prompt_hash] = Prompt(artifact.content, artifact.name)
        return known

    def json_schema(self, decision: Decision) -> Mapping[str, Any]:
        """JSON Schema of the boundary's proposals."""
        return self._bound(decision).json_schema

    def json_schema_hash(self, decision: Decision) -> str:
        """Hash of that schema, made once a boundary."""
        found = self._schema_hashes.get(decision.boundary)
        if found is None:
            found = content_hash(canonical_json(self.json_schema(decision)))
            self._schema_hashes[decision.boundary] = found
        return found

    def timeout_s(self, decision: Decision) -> float:
        """The boundary's limit."""
        return self._bound(decision).boundary.timeout_s

    def tools(self, decision: Decision) -> Sequence[Tool]:
        """The boundary's."""
        return self._bound(decision).boundary.tools

    def reads_max(self, decision: Decision) -> int:
        """The boundary's."""
        return self._bound(decision).boundary.reads_max

    def _bound(self, decision: Decision) -> BoundBoundary:
        try:
            return self.app.bound[decision.boundary]
        except KeyError:
            known = ", ".join(self.app.bound) or "none"
            raise BadInput(
                f"app {self.name} has no boundary {decision.boundary}, which the log has (it has {known})",
                "replay the decisions with the code that still has it, or select others with --stream",
            ) from None


@dataclass(frozen=True)
class RecordedSubject:
    """An imported recording: its spec judges, its messages are the prompt."""

    name: str
    spec: SpecJudge
    contracts: Contracts
    call_timeout_s: float = 120.0

    @property
    def indicators(self) -> Sequence[str]:
        """None: a recording declares no actions."""
        return ()

    @property
    def strata(self) -> Sequence[str]:
        """Every stream of the spec."""
        return [f"{RECORDED_BOUNDARY}/{stream}" for stream in self.spec.streams]

    @property
    def rules(self) -> Sequence[str]:
        """The version of the spec."""
        return [self.spec.version]

    def judge(self, decision: Decision) -> Judge:
        """The spec's judge of the decision's stream."""
        return self.spec.for_stream(decision.stream)

    def require_judgeable(self, decision: Decision, model: str) -> None:
        """A `reference-flag` is a recorded judge's word on one recorded answer: a live answer has none.

        Raises:
            UsageError: The stream is judged so, and the model is not a recording.
        """
        judge = self.spec.for_stream(decision.stream)
        if judge.spec.accept == "reference-flag" and not is_recorded(model):
            raise UsageError(
                f"stream {decision.stream} is accepted by the recorded reference flag, which answers of {model} lack",
                "give a recorded/ candidate, or a --verifier that judges the answer itself",
            )

    def prompt(self, decision: Decision) -> MessageSource:
        """The recorded messages."""
        return RecordedMessages()

    def json_schema(self, decision: Decision) -> None:
        """None: what the recorded model was shown is in its messages and parameters."""
        return

    def json_schema_hash(self, decision: Decision) -> str:
        """Empty: free text."""
        return ""

    def timeout_s(self, decision: Decision) -> float:
        """One limit for all."""
        return self.call_timeout_s

    def tools(self, decision: Decision) -> Sequence[Tool]:
        """None: what a recorded model was told by tools is in its messages."""
        return ()

    def reads_max(self, decision: Decision) -> int:
        """None."""
        return 0


def case_of(decision: Decision) -> Case:
    """What a verifier may look at, from the recorded context."""
    context = decision.context_value()
    return Case(context, reference=context.get("reference") if decision.boundary == RECORDED_BOUNDARY else None)


def state_after(subject: Subject, decision: Decision, judgement: Judgement) -> str | None:
    """The state that an answer would leave the recorded row in: a refused one leaves it where it is.

    None where the subject has no state machine, or the decision was made before it had one.
    """
    machine = subject.app.machine if isinstance(subject, AppSubject) else None
    row = decision.context_value().get(ROW) if machine is not None else None
    if machine is None or not isinstance(row, dict):
        return None
    state = state_of(machine, row)
    if not judgement.accepted or judgement.proposal is None:
        return state
    return machine.target(state, judgement.proposal.type) or state
