"""Two recorded runs read as a replay would have paid for them: in planned order, to the end, at no call at all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from driftline.consumers.engine import answer_of
from driftline.consumers.proposing import Answer, ProposerFailure
from driftline.detectors import ArmOutcome, Observation, SequentialJudge, planned_order
from driftline.replay.arms import as_logged, first_attempt, judge_answer
from driftline.replay.levels import EXIT_FAMILY, JudgedAnswer
from driftline.replay.recordings import RecordedRun
from driftline.replay.result import COVERAGE_MIN, ForcedResult, Limits, Pair
from driftline.replay.segment import LoggedDecision, Segment
from driftline.replay.subject import Subject

NOT_RECORDED = Answer(None, ProposerFailure.NOT_RECORDED, "the recording holds no answer of this run to the event")


@dataclass
class RecordedArms:
    """The runs of a recording, every answer judged once, whichever arms it takes part in.

    Runs meet by event id, which a run answers once; what a recording calls the set it is from joins nothing.

    Args:
        segments: Each run's decisions.
        subject: Today's rules.
    """

    segments: Mapping[RecordedRun, Segment]
    subject: Subject
    _logged: dict[RecordedRun, dict[str, LoggedDecision]] = field(default_factory=dict)
    _judged: dict[tuple[RecordedRun, str], JudgedAnswer] = field(default_factory=dict)

    def logged(self, run: RecordedRun) -> Mapping[str, LoggedDecision]:
        """A run's decisions by event id, in log order."""
        if run not in self._logged:
            self._logged[run] = {one.decision.workflow: one for one in self.segments[run].decisions}
        return self._logged[run]

    def planned(self, baseline: RecordedRun, candidate: RecordedRun) -> list[LoggedDecision]:
        """Every event that one of the two runs answered: the baseline's in log order, then what it has no line of."""
        before, after = self.logged(baseline), self.logged(candidate)
        return [*before.values(), *(logged for event_id, logged in after.items() if event_id not in before)]

    def judged(self, run: RecordedRun, event_id: str) -> JudgedAnswer | None:
        """What a run answered; None where the recording does not hold it."""
        logged = self.logged(run).get(event_id)
        if logged is None:
            return None
        if (run, event_id) not in self._judged:
            answer = as_logged(answer_of(first_attempt(logged.decision)))
            self._judged[run, event_id] = judge_answer(answer, logged.decision, self.subject)
        return self._judged[run, event_id]

    def floor(self, runs: Sequence[RecordedRun], event_id: str) -> list[JudgedAnswer]:
        """What those of the runs answered that have an outcome."""
        found = [self.judged(run, event_id) for run in runs]
        return [judged for judged in found if judged is not None and not judged.lost]


def compare_runs(
    arms: RecordedArms,
    baseline: RecordedRun,
    candidate: RecordedRun,
    limits: Limits,
    floor: Sequence[RecordedRun] = (),
    run_id: str = "",
) -> ForcedResult:
    """Test one run against another, joined by event, and read on to the end for rates and intervals.

    An event that one of the two did not answer is lost, whichever of them it is: it costs coverage, and the stratum
    that it lies in is one of the run's.

    Calls and dollars are those of the candidate that a replay which makes one call at a time would have paid up to
    its stop; the runs that it is held against are taken as cached. Names and coverage are of the whole segment.

    Args:
        arms: Where all runs named here are.
        baseline: Arm L.
        candidate: Arm B.
        limits: Of the test.
        floor: Runs of the incumbent that the candidate is held against; none for no floor.
        run_id: Of the result.
    """
    events = arms.planned(baseline, candidate)
    order = planned_order([logged.decision.workflow for logged in events], limits.order_seed)
    planned = [events[index] for index in order][: limits.calls_max]
    judge = _judge(events, arms.subject, limits, len(floor))
    pairs: list[Pair] = []
    stopped_at: int | None = None
    for index, logged in enumerate(planned):
        pair = _pair(arms, index, logged, (baseline, candidate), evidence=stopped_at is None)
        pairs.append(pair)
        if not pair.lost:
            runs = arms.floor(floor, logged.decision.workflow)
            _observe(judge, logged.stratum, pair, tuple(run.floor_outcome() for run in runs))
        if stopped_at is None and judge.done:
            stopped_at = len(pairs)
    return _result(run_id, judge, pairs, stopped_at, cut_short=len(planned) < len(events))


def _judge(events: Sequence[LoggedDecision], subject: Subject, limits: Limits, floor_runs: int) -> SequentialJudge:
    strata = dict(sorted(Counter(logged.stratum for logged in events).items()))
    return SequentialJudge(
        list(strata),
        planned=strata,
        alpha=limits.alpha,
        delta=limits.delta,
        min_effect=limits.min_effect,
        indicators=subject.indicators,
        exit_levels=EXIT_FAMILY,
        locate=limits.locate,
        read_on=True,
        floor_runs=floor_runs,
    )


def _pair(
    arms: RecordedArms,
    index: int,
    logged: LoggedDecision,
    runs: tuple[RecordedRun, RecordedRun],
    evidence: bool,
) -> Pair:
    decision = logged.decision
    found = (arms.judged(run, decision.workflow) for run in runs)
    baseline, candidate = (one or judge_answer(NOT_RECORDED, decision, arms.subject) for one in found)
    return Pair(index, logged, baseline, candidate, evidence and not baseline.lost and not candidate.lost)


def _observe(judge: SequentialJudge, stratum: str, pair: Pair, floor: tuple[ArmOutcome, ...]) -> None:
    observation = Observation(stratum, pair.baseline.outcome(), pair.candidate.outcome(), floor)
    if pair.evidence:
        judge.observe(observation)
    else:
        judge.observe_after_stop(observation)


def _result(
    run_id: str, judge: SequentialJudge, pairs: Sequence[Pair], stopped_at: int | None, cut_short: bool
) -> ForcedResult:
    until_stop = pairs[:stopped_at]
    coverage = sum(not pair.lost for pair in pairs) / len(pairs) if pairs else 0.0
    verdict, because = _verdict(judge, coverage if pairs else 1.0, cut_short)
    judged = judge.summary()
    prices = [pair.candidate.answer.cost_usd for pair in until_stop if not pair.lost]
    return ForcedResult(
        run_id=run_id,
        verdict=verdict,
        stopped_because=because,
        judged=replace(judged, note="") if because == "coverage" else judged,
        alarm_after=judge.alarm_after,
        pairs=pairs,
        paid_calls=sum(not pair.baseline.lost for pair in until_stop),
        from_ledger=0,
        overspent_calls=0,
        estimate_calls=0,
        cost_usd=None if None in prices else sum(price or 0.0 for price in prices),
        coverage=coverage,
        repeated_decisions=0,  # one answer of a run to an event, or the recording is refused
        verifier_drift=0,  # a recording holds no verdict of then
    )


def _verdict(judge: SequentialJudge, coverage: float, cut_short: bool) -> tuple[str, str]:
    if coverage < COVERAGE_MIN:
        return "inconclusive", "coverage"
    if judge.decision is None:
        return "inconclusive", "budget_ended" if cut_short else "segment_ended"
    return judge.decision, "alarm" if judge.decision == "diverged" else "equivalent"
