"""What a run counts: calls, dollars and coverage, by what had come when it stopped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from driftline.replay.arms import ArmCall, drifted
from driftline.replay.contrasts import Contrasts
from driftline.replay.result import COVERAGE_MIN, ForcedResult, Limits, Pair, was_asked
from driftline.replay.turns import Run


def result_of(
    run_id: str,
    run: Run,
    contrasts: Contrasts,
    calls: Sequence[ArmCall],
    limits: Limits,
    repeated: int,
    ended_because: str,
) -> ForcedResult:
    """What came out of a run.

    Args:
        run_id: Its id.
        run: All of its turns.
        contrasts: What they were read for.
        calls: Those that each decision took.
        limits: What it might do.
        repeated: Decisions that lay on the log more than once.
        ended_because: Why there was no more evidence, where there is no verdict.
    """
    until_stop = run.pairs[: run.stopped_at]
    coverage = _coverage(run.pairs if limits.read_on else until_stop)
    verdict, because = _verdict(contrasts.decision, coverage if until_stop else 1.0, ended_because)
    later = paid_calls(run.pairs[len(until_stop) :], calls)
    return ForcedResult(
        run_id=run_id,
        verdict=verdict,
        stopped_because=because,
        judged=contrasts.main.summary(),
        alarm_after=contrasts.main.alarm_after,
        pairs=run.pairs,
        paid_calls=sum(pair.calls for pair in until_stop),
        from_ledger=run.from_ledger,
        overspent_calls=0 if limits.read_on else later,
        estimate_calls=later if limits.read_on else 0,
        cost_usd=cost_usd(run.pairs, len(until_stop), calls),
        coverage=coverage,
        repeated_decisions=repeated,
        verifier_drift=sum(drifted(pair.logged.decision, pair.baseline) for pair in run.pairs),
        environment=contrasts.environment(),
        change=contrasts.change(),
    )


def _coverage(pairs: Sequence[Pair]) -> float:
    return sum(not pair.lost for pair in pairs) / len(pairs) if pairs else 0.0


def _verdict(decision: str | None, coverage: float, ended_because: str) -> tuple[str, str]:
    if coverage < COVERAGE_MIN:
        return "inconclusive", "coverage"
    if decision is None:
        return "inconclusive", ended_because
    return decision, "alarm" if decision == "diverged" else "equivalent"


def paid_calls(pairs: Iterable[Pair], calls: Sequence[ArmCall]) -> int:
    """How many calls were made, of those that cost something; to read a recording is free."""
    return sum(
        was_asked(answer) and not call.arm.is_free
        for pair in pairs
        for call, answer in zip(calls, pair.answers, strict=True)
    )


def cost_usd(pairs: Sequence[Pair], stopped_at: int, calls: Sequence[ArmCall]) -> float | None:
    """Dollars of all answers, of lost ones what was paid before they were; of a recording's, those that the verdict
    took."""
    prices = [
        answer.answer.cost_usd
        for place, pair in enumerate(pairs)
        for call, answer in zip(calls, pair.answers, strict=True)
        if not (answer.lost and answer.answer.cost_usd is None) and (place < stopped_at or not call.arm.is_free)
    ]
    return None if None in prices else sum(price or 0.0 for price in prices)
