"""Whether a workflow should move its spine from P3, the log, to P5, a versioned row: a decision table over evidence.

Nothing is measured here. Divergence has to be confirmed, has to recur, and the workflows have to be of the kind whose
truth is a row: that they pause, that their state does not follow from their input, and that the world moves on
meanwhile. Each of these is evidence with an interval; what is not known never counts as shown.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import combinations
from typing import Literal

from driftline.detectors.outcomes import Interval

MigrationConclusion = Literal[
    "migrate", "pin", "gate", "adapt the parser", "environment drift", "not the model", "unknown", "nothing moved"
]
RunKind = Literal["confirmed", "form only", "not the model", "unknown", "equivalent"]
RecursBy = Literal["windows", "candidates", "end_date"]

PAUSES, STATE, WORLD = "pauses", "state_not_reconstructible", "world_moves_on"
PREDICATES = (PAUSES, STATE, WORLD)
"""All three have to hold."""
DIVERGED = "diverged"


@dataclass(frozen=True, slots=True)
class Effect:
    """How much moved at one level: a mean paired change, or an excess of differing answers over the noise floor.

    Over all decisions, or over those of a stratum that e-BH names: strata may move in opposite directions and cancel.
    Of what is so named, a level of a stratum each, a share of at most alpha is expected not to have moved. Each
    interval by itself misses with a chance of at most alpha.

    Not guaranteed: that all intervals hold at once, or that the strata which are named for what they showed hold
    theirs as often: of k effects one may miss with a chance of up to k times alpha.
    """

    level: str
    """`verdict` or `state`, and `of BOUNDARY/STREAM` where it is that of a stratum."""
    against: str
    """`incumbent` for A' against B, `log` for L against B."""
    change: float
    interval: Interval

    def clears(self, delta: float) -> bool:
        """Whether the whole interval lies beyond `delta` on one side."""
        return self.interval[0] > delta or self.interval[1] < -delta


@dataclass(frozen=True, slots=True)
class RunEvidence:
    """What one replay run and the diagnosis of its failing batch say; None is: not known.

    Attributes:
        run_id: Of the run.
        candidate: What was tried, in the words of the run: model, prompt and parameters.
        environment: Verdict of the log against the incumbent today, L against A'.
        change: Verdict of the incumbent today against the candidate, A' against B.
        verdict: Verdict of the log against the candidate, L against B.
        effects: At the verdict and state level, where there is an interval; all decisions first, then the strata
            that are named.
        diagnosis: Conclusion of the failing batch, asked afresh under both models.
        diagnosis_e_value: Evidence of it.
        alpha: Bound on the false alarms of each test.
        delta: Half-width of the equivalence region.
        form_only: Whether bytes or canonical text moved and no verdict, action or state did.
        window: Event times of the first and last decision.
        offsets: Per partition, first and last offset of the decisions.
        started_at: When its calls began.
        completed_at: When they had ended.
        candidate_id: Equal where the same was tried, whatever its prompt's file was called; the words where empty.
        stopped_early: Whether it read no further than its verdict took, so that its intervals are wide.
    """

    run_id: str
    candidate: str
    environment: str | None
    change: str | None
    verdict: str
    effects: tuple[Effect, ...]
    diagnosis: str | None
    diagnosis_e_value: float | None
    alpha: float
    delta: float
    form_only: bool
    window: tuple[datetime, datetime]
    offsets: tuple[tuple[str, int, int, int], ...] = ()
    """Topic, partition, first, last."""
    started_at: datetime | None = None
    completed_at: datetime | None = None
    candidate_id: str = ""
    stopped_early: bool = False

    @property
    def tried(self) -> str:
        """What tells it from another candidate."""
        return self.candidate_id or self.candidate

    @property
    def cleared(self) -> Effect | None:
        """The first effect whose interval clears delta."""
        return next((effect for effect in self.effects if effect.clears(self.delta)), None)


@dataclass(frozen=True, slots=True)
class JudgedRun:
    """What follows from one run by itself."""

    run: RunEvidence
    kind: RunKind
    environment_drift: bool
    """L against A' alarmed. It says nothing about the candidate, either way."""
    missing: tuple[str, ...]
    """What would have to be shown before the divergence is confirmed."""


@dataclass(frozen=True, slots=True)
class Predicate:
    """A share of workflows that have a property, against a threshold; `measure` None is: not measured."""

    name: str
    measure: float | None
    interval: Interval
    threshold: float
    missing: str = ""
    """What measures it."""

    @property
    def holds(self) -> bool:
        """Whether the share is shown to be above the threshold."""
        return self.measure is not None and self.interval[0] > self.threshold

    @property
    def refuted(self) -> bool:
        """Whether it was measured and no larger share than the threshold was seen."""
        return self.measure is not None and self.measure <= self.threshold


@dataclass(frozen=True, slots=True)
class Recurrence:
    """Why the divergence will come again, and the runs that show it."""

    by: RecursBy
    runs: tuple[RunEvidence, ...]


@dataclass(frozen=True, slots=True)
class MigrationAdvice:
    """The conclusion, what it rests on, and what is missing for a migration to be advised."""

    conclusion: MigrationConclusion
    runs: tuple[JudgedRun, ...]
    recurrence: Recurrence | None
    predicates: tuple[Predicate, ...]
    holds: tuple[str, ...]
    missing: tuple[str, ...]
    """Empty if and only if the conclusion is `migrate`."""

    @property
    def evidence_missing(self) -> bool:
        """Whether what is not known decides: a migration is not advised, and not shown to be out of place either."""
        if self.conclusion == "migrate" or any(one.refuted for one in self.predicates):
            return False
        confirmed = any(one.kind == "confirmed" for one in self.runs)
        return self.recurrence is not None if confirmed else self.conclusion == "unknown"


def advise_migration(
    runs: Sequence[RunEvidence],
    predicates: Sequence[Predicate],
    incumbent_ends_at: datetime | None = None,
    answer_age_max_s: float = 86_400.0,
) -> MigrationAdvice:
    """The decision table of the migration from P3 to P5, over all runs of an app.

    `migrate` takes a confirmed divergence, that it recurs, and all three predicates. Otherwise the gravest that is
    shown: a confirmed divergence is answered by `pin`, or by `gate` where the incumbent has an end date and cannot be
    pinned past it; then `adapt the parser`, `environment drift`, `not the model`, `unknown`, `nothing moved`.

    Args:
        runs: Of one app.
        predicates: The three, measured or not; one that is left out is missing.
        incumbent_ends_at: When the provider takes the incumbent away; None where nobody said.
        answer_age_max_s: An answer of the incumbent that is older is asked again: so far apart, two runs share none.

    Raises:
        ValueError: Two predicates of one name, or one of a name that is none of the three.
    """
    found = _by_name(predicates)
    judged = tuple(judge_run(run) for run in runs)
    confirmed = [one.run for one in judged if one.kind == "confirmed"]
    recurrence = recurrence_of(confirmed, incumbent_ends_at is not None, answer_age_max_s)
    missing = (*_missing_of_runs(judged, confirmed, recurrence), *_missing_of_predicates(found))
    conclusion: MigrationConclusion = "migrate"
    if missing:
        conclusion = _without_migration(judged, incumbent_ends_at is not None)
    holds = (*_holds_of_runs(confirmed, recurrence), *(f"{one.name} holds" for one in found if one.holds))
    return MigrationAdvice(conclusion, judged, recurrence, found, holds, missing)


def judge_run(run: RunEvidence) -> JudgedRun:
    """What one run shows by itself: confirmed, form only, not the model, equivalent, or unknown."""
    drift, missing = run.environment == DIVERGED, tuple(_unconfirmed(run))
    kind: RunKind = "unknown"
    if not missing:
        kind = "confirmed"
    elif run.diagnosis == "not the model":
        kind = "not the model"
    elif run.form_only and DIVERGED not in (run.change, run.verdict):
        kind = "form only"
    elif "equivalent" in (run.change, run.verdict) and DIVERGED not in (run.change, run.verdict):
        kind = "equivalent"
    return JudgedRun(run, kind, drift, missing)


def recurrence_of(
    confirmed: Sequence[RunEvidence], has_end_date: bool, answer_age_max_s: float = 86_400.0
) -> Recurrence | None:
    """Why confirmed divergences recur; None where it is not shown.

    Two runs count twice only where no answer of the incumbent can stand in both: over disjoint windows, or so long
    after one another that what the first was answered is too old for the second.
    """
    for one, other in combinations(sorted(confirmed, key=lambda run: run.window), 2):
        if disjoint(one, other):
            return Recurrence("windows", (one, other))
        if one.tried != other.tried and _apart(one, other, answer_age_max_s):
            return Recurrence("candidates", (one, other))
    if confirmed and has_end_date:
        return Recurrence("end_date", (max(confirmed, key=lambda run: run.window),))
    return None


def disjoint(one: RunEvidence, other: RunEvidence) -> bool:
    """Whether two runs replayed different decisions, by event time or by offsets."""
    if one.window[1] < other.window[0] or other.window[1] < one.window[0]:
        return True
    ranges = {(topic, partition): (first, last) for topic, partition, first, last in one.offsets}
    overlaps = (
        first <= ranges[topic, partition][1] and ranges[topic, partition][0] <= last
        for topic, partition, first, last in other.offsets
        if (topic, partition) in ranges
    )
    return bool(one.offsets and other.offsets) and not any(overlaps)


def _apart(one: RunEvidence, other: RunEvidence, age_max_s: float) -> bool:
    first, second = sorted((one, other), key=lambda run: run.started_at.timestamp() if run.started_at else 0.0)
    if first.completed_at is None or second.started_at is None:
        return False
    return (second.started_at - first.completed_at).total_seconds() > age_max_s


def _unconfirmed(run: RunEvidence) -> list[str]:
    """What keeps a divergence from being confirmed."""
    missing = []
    if run.change is None:
        missing.append("the incumbent was not asked again (A')")
    elif run.change != DIVERGED:
        missing.append("A' against B did not alarm")
    if run.diagnosis is None:
        missing.append("the failing batch was not diagnosed")
    elif run.diagnosis != "candidate" or (run.diagnosis_e_value or 0.0) < 1.0 / run.alpha:
        missing.append("the failing batch, asked afresh under both models, does not show the candidate")
    if run.cleared is None:
        where = "no interval at the verdict or state level, of all decisions or of a named stratum,"
        mend = "; the run stopped early: repeat it with --estimate" if run.stopped_early else ""
        missing.append(f"{where} clears ±{run.delta:g}{mend}")
    return missing


def _missing_of_runs(
    judged: Sequence[JudgedRun], confirmed: Sequence[RunEvidence], recurrence: Recurrence | None
) -> list[str]:
    if not confirmed:
        each = [f"run {one.run.run_id}: {why}" for one in judged for why in one.missing]
        return ["no divergence of a candidate is confirmed", *each]
    if recurrence is None:
        return [
            "the divergence is not shown to recur: that takes a second confirmed run over another window or of "
            "another candidate, with answers of the incumbent of its own, or an end date of the incumbent"
        ]
    return []


def _missing_of_predicates(found: Sequence[Predicate]) -> list[str]:
    missing = []
    for one in found:
        if one.measure is None:
            missing.append(f"{one.name} is not measured: {one.missing}")
        elif not one.holds:
            missing.append(f"{one.name} does not hold: its share is not shown to be above {one.threshold:.0%}")
    return missing


def _holds_of_runs(confirmed: Sequence[RunEvidence], recurrence: Recurrence | None) -> list[str]:
    holds = [f"run {run.run_id}: the divergence of {run.candidate} is confirmed" for run in confirmed]
    return [*holds, f"it recurs by {recurrence.by}"] if recurrence else holds


def _without_migration(judged: Sequence[JudgedRun], has_end_date: bool) -> MigrationConclusion:
    kinds = {one.kind for one in judged}
    if "confirmed" in kinds:
        return "gate" if has_end_date else "pin"
    if "form only" in kinds:
        return "adapt the parser"
    if any(one.environment_drift for one in judged):
        return "environment drift"
    if "unknown" in kinds or not kinds:
        return "unknown"
    return "not the model" if "not the model" in kinds else "nothing moved"


def _by_name(predicates: Sequence[Predicate]) -> tuple[Predicate, ...]:
    given = {one.name: one for one in predicates}
    if len(given) != len(predicates) or not given.keys() <= set(PREDICATES):
        raise ValueError(f"predicates are some of {PREDICATES}, each once")
    return tuple(
        given.get(name) or Predicate(name, None, (0.0, 1.0), 0.0, "no figure was given") for name in PREDICATES
    )
