"""What comes out of a diagnosis, and its JSON data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from driftline.detectors import Advice, Cause, Diagnosis
from driftline.replay.plain import plain
from driftline.replay.segment import LoggedDecision

INCUMBENT, CANDIDATE = "incumbent", "candidate"
EXIT_CODES = {"not the model": 0, "candidate": 1, "unknown": 4}


@dataclass(frozen=True)
class DiagnosedDecision:
    """One decision of the batch: how many of its fresh answers passed, by arm."""

    logged: LoggedDecision
    passed: Mapping[str, Sequence[float | None]]
    """Arm to 1 or 0 by repeat; None where the call was lost."""

    def differences(self, arm: str) -> list[float]:
        """R of each repeat that has both answers: incumbent minus the arm."""
        both = zip(self.passed[INCUMBENT], self.passed[arm], strict=True)
        return [before - after for before, after in both if before is not None and after is not None]


@dataclass(frozen=True)
class DiagnosisResult:
    """What came out of a diagnosis."""

    run_id: str
    diagnosis: Diagnosis
    parts: Mapping[str, Diagnosis]
    """Each part of the candidate alone, at its share of `alpha`; empty where it changes one."""
    cause: Cause
    advice: Advice
    decisions: Sequence[DiagnosedDecision]
    """Those that were read, in planned order."""
    batch: int
    repeats: int
    by_repeat: bool
    """Whether the batch was so small that each repeat was a bet: an alarm speaks of these decisions alone."""
    stopped_because: str
    """`alarm`, `batch_ended`, `budget_ended`, `coverage` or `too_small` (then nothing was asked)."""
    paid_calls: int
    """Calls made or taken from the ledger."""
    from_ledger: int
    overspent_calls: int
    """Of them those that were in flight when the evidence sufficed."""
    cost_usd: float | None
    coverage: float
    """Of incumbent and candidate."""

    @property
    def exit_code(self) -> int:
        """0 not the model, 1 candidate, 4 unknown."""
        return EXIT_CODES[self.diagnosis.conclusion]


def diagnosis_data(result: DiagnosisResult) -> dict[str, Any]:
    """A diagnosis as JSON data."""
    data: dict[str, Any] = plain(
        {
            "run_id": result.run_id,
            **asdict(result.diagnosis),
            "cause": asdict(result.cause),
            "parts": {name: asdict(part) for name, part in result.parts.items()},
            "advice": asdict(result.advice),
            "batch": result.batch,
            "repeats": result.repeats,
            "by_repeat": result.by_repeat,
            "passed": {arm: _share(result.decisions, arm) for arm in _arms_of(result.decisions)},
            "stopped_because": result.stopped_because,
            "paid_calls": result.paid_calls,
            "from_ledger": result.from_ledger,
            "overspent_calls": result.overspent_calls,
            "cost_usd": result.cost_usd,
            "coverage": result.coverage,
            "decisions": [_decision_data(decision) for decision in result.decisions],
        }
    )
    return data


def _decision_data(decision: DiagnosedDecision) -> dict[str, Any]:
    logged = decision.logged
    return {
        "at": str(logged.at),
        "decision_id": logged.decision.decision_id,
        "workflow": logged.decision.workflow,
        "stream": logged.decision.stream,
        "passed": decision.passed,
    }


def _arms_of(decisions: Sequence[DiagnosedDecision]) -> Sequence[str]:
    return list(decisions[0].passed) if decisions else []


def _share(decisions: Sequence[DiagnosedDecision], arm: str) -> float | None:
    passed = [one for decision in decisions for one in decision.passed[arm] if one is not None]
    return sum(passed) / len(passed) if passed else None


def coverage_of(read: Sequence[DiagnosedDecision], arms: Sequence[str]) -> float:
    """Share of the calls under these arms that brought an outcome; 1 where nothing was read."""
    answers = [one for decision in read for arm in arms for one in decision.passed[arm]]
    return sum(one is not None for one in answers) / len(answers) if answers else 1.0
