"""The verifiers of a boundary, in order: parse, schema, the app's own, budget. The first that rejects ends it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any, Protocol

from driftline.consumers.actions import action_of
from driftline.consumers.budget import Budget
from driftline.consumers.judging import Case, Judgement, Proposal
from driftline.consumers.parsing import PARSE_VERSION, parse_proposal, unknown_action
from driftline.consumers.proposing import Answer
from driftline.schemas import Contract, Rejection, Shape, canonical_json, content_hash

MISMATCHES_TOLD_MAX = 20
"""Of the ways in which one payload does not fit: a model mends no more at once, and the record stays small."""


class Verifier(Protocol):
    """Deterministic code that may refuse a proposal. Never a model."""

    @property
    def version(self) -> str:
        """What its verdicts depend on: declared versions and content hashes, never source text."""

    def verify(self, proposal: Proposal, case: Case) -> Sequence[Rejection]:
        """Why the proposal is refused; empty when it is not."""


@dataclass(frozen=True)
class VerifierChain:
    """The judge of a boundary: parse, schema, the app's verifiers; what they reject, budget may make final."""

    proposes: Sequence[Contract]
    verifiers: Sequence[Verifier] = ()
    budget: Budget = field(default_factory=Budget)

    @cached_property
    def shapes(self) -> dict[str, Shape]:
        """The proposed records as shapes of JSON data, by full name."""
        return {contract.name: Shape(contract) for contract in self.proposes}

    @cached_property
    def content(self) -> str:
        """Canonical JSON of all that the version depends on: fingerprints, hashes, declared versions, limits."""
        parts = {
            "parse": PARSE_VERSION,
            "schemas": {contract.name: contract.fingerprint for contract in self.proposes},
            "verifiers": [verifier.version for verifier in self.verifiers],
            "budget": self.budget.version,
        }
        return canonical_json(parts)

    @cached_property
    def version(self) -> str:
        """Hash of `content`."""
        return content_hash(self.content)

    def json_schema(self) -> dict[str, Any]:
        """JSON Schema of a proposal: `{"type": <record name>, "payload": <record>}`.

        Its root is one closed object, as strict structured output asks; which payload goes with which type is left
        to the verifiers.
        """
        payloads = [shape.json_schema() for shape in self.shapes.values()]
        return {
            "type": "object",
            "properties": {
                "type": {"type": "string", "enum": list(self.shapes)},
                "payload": payloads[0] if len(payloads) == 1 else {"anyOf": payloads},
            },
            "required": ["type", "payload"],
            "additionalProperties": False,
        }

    def judge(self, answer: Answer, case: Case) -> Judgement:
        """Run the verifiers in order; the first that rejects ends it, and budget says whether for good.

        Raises:
            UsageError: An app's rule raised; whatever the text, nothing else does.
        """
        judgement = self._verify(answer, case)
        if judgement.accepted:
            return judgement
        final = self.budget.verify(answer, judgement.proposal, case)
        return replace(judgement, rejections=(*judgement.rejections, *final)) if final else judgement

    def _verify(self, answer: Answer, case: Case) -> Judgement:
        parsed = parse_proposal(answer)
        if isinstance(parsed, Rejection):
            return Judgement((parsed,))
        shape = self.shapes.get(parsed.type)
        if shape is None:
            return Judgement((unknown_action(parsed.type, ", ".join(self.shapes)),), parsed)
        mismatches = shape.mismatches(parsed.payload, at="/payload")
        if mismatches:
            return Judgement(tuple(mismatches[:MISMATCHES_TOLD_MAX]), parsed)
        act = partial(action_of, shape, parsed)
        for verifier in self.verifiers:
            rejections = tuple(verifier.verify(parsed, case))
            if rejections:
                return Judgement(rejections, parsed, act)
        return Judgement((), parsed, act)
