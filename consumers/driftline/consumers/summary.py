"""What a run did, counted as it was committed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from driftline.consumers.deciding import Decided
from driftline.schemas import Decision


@dataclass
class RunSummary:
    """Counts of one run."""

    events: int = 0
    """Input events whose position was committed, dead ones included."""
    folded: int = 0
    """Events that no boundary decides."""
    decisions: Counter[str] = field(default_factory=Counter)
    """By verdict."""
    streams: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By (event type, verdict)."""
    actions: Counter[str] = field(default_factory=Counter)
    """By action type."""
    rejections: Counter[str] = field(default_factory=Counter)
    """By code and rule, over all attempts."""
    failures: Counter[str] = field(default_factory=Counter)
    """Calls that gave no answer, by type."""
    last_failure: str = ""
    """What the last of them was told."""
    attempts: int = 0
    """Calls of the proposer."""
    mended: int = 0
    """Decisions accepted after at least one rejection was fed back."""
    dead: Counter[str] = field(default_factory=Counter)
    """By reason."""
    repeats: int = 0
    """Events whose id was met lately on the same partition: decided again, with the same derived ids."""
    transactions: int = 0
    """Committed ones."""
    refused_commits: int = 0
    """Transactions that were aborted; their events were decided again."""
    cost_usd: float = 0.0
    """Of the attempts whose price is known."""

    def count_batch(self, batch: Sequence[Decided]) -> None:
        """Add what one transaction has committed."""
        self.transactions += 1
        self.events += len(batch)
        for decided in batch:
            self.repeats += decided.repeat
            if decided.dead is not None:
                self.dead[decided.dead.value] += 1
            if decided.decision is not None:
                self.count(decided.decision)
            elif decided.dead is None:
                self.folded += 1

    def count(self, decision: Decision) -> None:
        """Add one committed decision."""
        self.decisions[decision.verdict] += 1
        self.streams[decision.stream, decision.verdict] += 1
        self.attempts += len(decision.attempts)
        answers = sum(attempt.failure is None for attempt in decision.attempts)
        self.mended += decision.verdict == "accepted" and answers > 1
        self.cost_usd += sum(attempt.cost_usd or 0.0 for attempt in decision.attempts)
        if decision.action_type is not None:
            self.actions[decision.action_type] += 1
        for attempt in decision.attempts:
            self.rejections.update(f"{r.code} ({r.rule_id})" for r in attempt.rejections)
            if attempt.failure is not None:
                self.failures[attempt.failure] += 1
                self.last_failure = " ".join(r.message for r in attempt.rejections)
