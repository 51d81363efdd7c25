"""The budget of one decision: when a rejected proposal may not be followed by another attempt."""

from __future__ import annotations

from dataclasses import dataclass

from driftline.consumers.judging import Case, Proposal
from driftline.consumers.parsing import canonical_proposal
from driftline.consumers.proposing import Answer
from driftline.schemas import Rejection, RejectionCode, canonical_json

BUDGET_VERSION = "1"


@dataclass(frozen=True, slots=True)
class Budget:
    """What one decision may spend on being mended. It ends rejected decisions early, and refuses nothing acceptable.

    Args:
        same_proposal_max: How often one and the same rejected proposal may come; once more, and it ends.
        cost_usd_max: Dollars; when the attempts have cost more, none follows. None for no limit.
    """

    same_proposal_max: int = 2
    cost_usd_max: float | None = None

    @property
    def version(self) -> str:
        """Its limits."""
        return f"{BUDGET_VERSION}:{self.same_proposal_max}:{self.cost_usd_max}"

    def verify(self, answer: Answer, proposal: Proposal | None, case: Case) -> tuple[Rejection, ...]:
        """A final rejection on top of those that an answer got, when a limit is passed."""
        spent = sum(attempt.cost_usd or 0.0 for attempt in case.earlier) + (answer.cost_usd or 0.0)
        if self.cost_usd_max is not None and spent > self.cost_usd_max:
            return (_refuse(RejectionCode.BUDGET_EXCEEDED, f"<= {self.cost_usd_max} USD", f"{spent} USD"),)
        times = 0 if proposal is None else 1 + _repeats(proposal, case)
        if times > self.same_proposal_max:
            expected = f"one proposal at most {self.same_proposal_max} times"
            return (_refuse(RejectionCode.REPEATED_PROPOSAL, expected, f"{times} times"),)
        return ()


def _repeats(proposal: Proposal, case: Case) -> int:
    if not case.earlier:
        return 0
    same = canonical_json([proposal.type, dict(proposal.payload)])
    return sum(canonical_proposal(attempt.raw_response) == same for attempt in case.earlier)


def _refuse(code: RejectionCode, expected: str, actual: str) -> Rejection:
    return Rejection(
        code=code,
        expected=expected,
        actual=actual,
        rule_id="budget",
        rule_version=BUDGET_VERSION,
        retryable=False,
        message=f"expected {expected}, and it came to {actual}",
    )
