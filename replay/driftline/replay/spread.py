"""The second phase: four fresh calls a decision in the strata that the first left open.

Two answers of the incumbent and two of the candidate show what rates cannot: a candidate that always gives the
commonest answer, or varies more around it (`SpreadEProcess`). Nothing is shared with what the first phase saw, so
that given it the four are exchangeable if nothing changed. The e-value of a stratum's second phase therefore
multiplies that of its first: a product of e-values each of which is valid given all before it is an e-value. For the
same reason the strata may be chosen by what the first phase found. Each level is tested by its own answers: a changed
action names no verdict.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from driftline.detectors import Decision, JudgeSummary, StratumSummary, e_bh, global_e_value
from driftline.detectors.mmd import SpreadEProcess
from driftline.replay.arms import INCUMBENT_ARM, ArmCall, Asking, Candidate, Incumbent
from driftline.replay.counting import cost_usd, paid_calls
from driftline.replay.levels import EXIT_FAMILY, VERDICT, JudgedAnswer
from driftline.replay.reading import Reading
from driftline.replay.result import COVERAGE_MIN, Contrast, ForcedResult, Limits, Progress

SPREAD_PURPOSE = "spread"
CALLS_A_DECISION = 4
DIVERGED: Decision = "diverged"
COVERAGE = "coverage"

ByLevel = Mapping[str, Mapping[str, float]]
"""E-value by stratum and level."""


def spread_calls(candidate: Candidate, incumbent: Incumbent | None) -> list[ArmCall]:
    """Two calls of the incumbent, by default of what the log says, and two of the candidate."""
    beside = Candidate(incumbent=True) if incumbent is None else incumbent.arm
    return [
        *(ArmCall(beside, Asking(INCUMBENT_ARM, SPREAD_PURPOSE, replicate)) for replicate in (0, 1)),
        *(ArmCall(candidate, Asking("candidate", SPREAD_PURPOSE, replicate), True) for replicate in (2, 3)),
    ]


@dataclass(frozen=True)
class SpreadLimits:
    """What the second phase may do, before anybody knows what the first leaves."""

    limits: Limits

    def after(self, first: ForcedResult) -> Limits | None:
        """What it may do once the first has ended; None where it is not to run."""
        if not first.open_strata:
            return None
        most = self.limits.calls_max
        left = None if most is None else most - first.paid_calls - first.overspent_calls - first.estimate_calls
        if left is not None and left < CALLS_A_DECISION:
            return None
        return replace(self.limits, calls_max=left, read_on=False)

    def calls_max(self, calls: int, decisions: int) -> int:
        """The most that it may call after so many calls of a first phase that read so many decisions."""
        asked = CALLS_A_DECISION * decisions
        if self.limits.calls_max is None:
            return asked
        left = self.limits.calls_max - calls
        return min(asked, left - left % CALLS_A_DECISION)


def spread_limits(limits: Limits, candidate: Candidate, incumbent: Incumbent | None) -> SpreadLimits | None:
    """Of a run that may have a second phase; None for one that has none, as one of recordings never has.

    By default that is a run which asks an incumbent, and whose user said how much may be spent.
    """
    budgeted = incumbent is not None and (limits.calls_max is not None or limits.usd_max is not None)
    wanted = budgeted if limits.mmd is None else limits.mmd
    recorded = any(call.arm.is_free for call in spread_calls(candidate, incumbent))
    return SpreadLimits(limits) if wanted and not recorded else None


def open_strata(first: ForcedResult, delta: float) -> tuple[str, ...]:
    """Strata that a segment which ended undecided has neither named nor shown to be equivalent."""
    if first.stopped_because != "segment_ended":
        return ()
    deciding = [stratum for stratum in first.judged.strata if stratum.level in EXIT_FAMILY and stratum.events]
    closed = {stratum.stratum for stratum in deciding if stratum.named or _is_equivalent(stratum, delta)}
    return tuple(dict.fromkeys(stratum.stratum for stratum in deciding if stratum.stratum not in closed))


async def spread_on(
    first: ForcedResult,
    again: Reading,
    limits: Limits,
    cut_short: bool,
    on_progress: Callable[[Progress], None],
) -> ForcedResult:
    """Read the open strata again, four fresh calls a decision; the whole run's result.

    Args:
        first: What the first phase left.
        again: Reads the decisions of its open strata.
        limits: `alpha` and `min_effect` of the run.
        cut_short: Whether it has fewer decisions than there are, because calls were limited.
        on_progress: Told calls and evidence as they come; what was read of the segment stays as it is.
    """
    evidence = SpreadEvidence(first, limits)

    def told(at: Progress) -> None:
        on_progress(replace(at, planned=len(first.pairs), read=len(first.pairs), paid_calls=before + at.paid_calls))

    before = first.paid_calls
    run = await again.read(evidence, told)
    stopped_at = len(run.pairs) if run.stopped_at is None else run.stopped_at
    cost = cost_usd(run.pairs, stopped_at, again.calls)
    made = sum(pair.calls for pair in run.pairs[:stopped_at])
    result = replace(
        first,
        paid_calls=first.paid_calls + made,
        spread_calls=made,
        overspent_calls=first.overspent_calls + paid_calls(run.pairs[stopped_at:], again.calls),
        from_ledger=first.from_ledger + run.from_ledger,
        cost_usd=None if cost is None or first.cost_usd is None else first.cost_usd + cost,
        judged=evidence.judged(first.judged),
        change=evidence.change(made),
        stopped_because="budget_ended" if cut_short or again.is_out_of_budget else first.stopped_because,
        coverage=min(first.coverage, evidence.coverage),
    )
    if evidence.coverage < COVERAGE_MIN:
        return replace(result, stopped_because=COVERAGE)
    if evidence.decision is None:
        return result
    return replace(result, verdict=DIVERGED, stopped_because="alarm")


class SpreadEvidence:
    """The first phase's e-values times those of four fresh answers a decision, stratum by stratum.

    The verdict's test goes on, and so does that of the incumbent today against the candidate, of which the fresh
    answers speak as well; log against incumbent gets nothing new.
    """

    def __init__(self, first: ForcedResult, limits: Limits) -> None:
        self._alpha = limits.alpha
        self._main = _by_level(first.judged)
        self._change = first.change
        self._fresh = {
            (stratum, level): SpreadEProcess(min_effect=limits.min_effect)
            for stratum in first.open_strata
            for level in EXIT_FAMILY
        }
        self._offered = 0
        self._entered = 0

    @property
    def e_value(self) -> float:
        """The global e-value of the verdict's test."""
        return self._global(self._main)

    @property
    def decision(self) -> Decision | None:
        """`diverged` once it has alarmed; nothing here shows that arms are equivalent."""
        return DIVERGED if self.e_value >= 1 / self._alpha else None

    @property
    def done(self) -> bool:
        """Whether the alarm is in, and that of the change where there is one to wait for."""
        return self.decision is not None and (not self._change_is_open or self._has_changed())

    @property
    def coverage(self) -> float:
        """Share of the decisions read of which all four answers came."""
        return self._entered / self._offered if self._offered else 1.0

    def observe(
        self, stratum: str, baseline: JudgedAnswer, first: JudgedAnswer, others: Sequence[JudgedAnswer]
    ) -> bool:
        """Take four fresh answers to a decision: two of the incumbent, then two of the candidate."""
        answers = [first, *others]
        self._offered += not baseline.lost
        if any(answer.lost for answer in answers):
            return False
        self._entered += 1
        for level in EXIT_FAMILY:
            one, two, three, four = (answer.hashes.get(level) for answer in answers)
            self._fresh[stratum, level].update((one, two), (three, four))
        return True

    def observe_after_stop(self, stratum: str, baseline: JudgedAnswer, first: JudgedAnswer) -> None:
        """It counts for nothing: the second phase tells no rates."""

    def judged(self, first: JudgeSummary) -> JudgeSummary:
        """The first phase's summary with the e-values and names of both."""
        strata = [
            replace(stratum, e_value=self._both(stratum.stratum, stratum.level, stratum.e_value or 0.0))
            if stratum.level in EXIT_FAMILY
            else stratum
            for stratum in first.strata
        ]
        deciding = [place for place, stratum in enumerate(strata) if stratum.level in EXIT_FAMILY]
        named = {deciding[index] for index in e_bh([strata[place].e_value or 0.0 for place in deciding], self._alpha)}
        by_level = {
            level: global_e_value([one.e_value or 0.0 for one in strata if one.level == level])
            for level in EXIT_FAMILY
        }
        return replace(
            first,
            decision=self.decision or first.decision,
            e_value=self.e_value,
            levels=tuple(replace(one, e_value=by_level.get(one.level, one.e_value)) for one in first.levels),
            strata=tuple(replace(one, named=place in named) for place, one in enumerate(strata)),
        )

    def change(self, calls: int) -> Contrast | None:
        """The incumbent today against the candidate, by both phases, of which the second took so many calls."""
        if self._change is None or not self._change_is_open:
            return self._change
        judged = replace(self._change.judged, e_value=self._global(_by_level(self._change.judged)))
        both = replace(self._change, judged=judged, calls=self._change.calls + calls)
        if self.coverage < COVERAGE_MIN:
            return replace(both, stopped_because=COVERAGE)
        if not self._has_changed():
            return both
        return replace(both, verdict=DIVERGED, stopped_because="alarm", judged=replace(judged, decision=DIVERGED))

    @property
    def _change_is_open(self) -> bool:
        """Whether fresh answers can settle it: what an arm has lost in the first phase they do not bring back."""
        change = self._change
        return change is not None and change.verdict != DIVERGED and change.stopped_because != COVERAGE

    def _has_changed(self) -> bool:
        return self._change is not None and self._global(_by_level(self._change.judged)) >= 1 / self._alpha

    def _both(self, stratum: str, level: str, first: float) -> float:
        fresh = self._fresh.get((stratum, level))
        return first if fresh is None else first * fresh.e_value

    def _global(self, first: ByLevel) -> float:
        """Over the strata, each by the mean of its levels, which share events."""
        both = [
            [self._both(stratum, level, e_value) for level, e_value in levels.items()]
            for stratum, levels in first.items()
        ]
        return global_e_value([sum(e_values) / len(e_values) for e_values in both])


def _by_level(judged: JudgeSummary) -> ByLevel:
    """E-values of the levels that decide."""
    found: dict[str, dict[str, float]] = {}
    for stratum in judged.strata:
        if stratum.level in EXIT_FAMILY and stratum.e_value is not None:
            found.setdefault(stratum.stratum, {})[stratum.level] = stratum.e_value
    return found


def _is_equivalent(stratum: StratumSummary, delta: float) -> bool:
    low, high = stratum.interval
    return stratum.level == VERDICT and -delta <= low and high <= delta
