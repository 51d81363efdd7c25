"""Migration advice for an app: what was measured, what follows, as JSON data and as an alert.

The table that decides is `driftline.detectors.migration`; here its evidence is gathered and told.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from driftline.detectors.migration import (
    Effect,
    JudgedRun,
    MigrationAdvice,
    MigrationConclusion,
    Recurrence,
    advise_migration,
)
from driftline.log import LogReader
from driftline.replay.confirmed import PastRun, PastRuns, read_past_runs
from driftline.replay.identity import RUN_ID_DIGITS
from driftline.replay.plain import plain
from driftline.replay.predicates import Measured, WorkflowKind, measure_state, measure_workflows
from driftline.schemas import (
    MigrationAlert,
    MigrationPredicate,
    MigrationRun,
    canonical_json,
    content_hash,
)
from driftline.schemas.cloudevents import format_time

EXIT_CODES = {"migrate": 1, "evidence missing": 4}
"""Anything else is 0."""
_NEXT: Mapping[MigrationConclusion, str] = {
    "migrate": "keep {incumbent}, and move {boundaries} of {app} to spine P5: the row becomes the truth, and a "
    "boundary proposes a transition against the version that it saw",
    "pin": "keep {incumbent}; no migration is advised",
    "gate": "put {boundaries} behind an approval or a tighter policy before {incumbent} ends; "
    "no migration is advised",
    "adapt the parser": "let the parser take the new form, and replay again; no migration is advised",
    "environment drift": "look at verifier, harness and provider; nothing is said about a candidate, either way",
    "not the model": "the failing batch fails under the incumbent too: look at its inputs and rules",
    "unknown": "show what is missing; until then nothing is advised",
    "nothing moved": "nothing is to be done",
}


@dataclass(frozen=True)
class Gathered:
    """All evidence about an app, and what follows from it."""

    app: str
    kind: WorkflowKind
    state: Measured
    past: PastRuns
    advice: MigrationAdvice
    incumbent_ends_at: datetime | None

    @property
    def measured(self) -> tuple[Measured, ...]:
        """The three predicates in their order."""
        return self.kind.pauses, self.state, self.kind.world

    @property
    def run_id(self) -> str:
        """Id of the advice. Figures are not in it: as the log grows, what is advised is not advised again."""
        rests = self.advice.recurrence
        identity = {
            "app": self.app,
            "conclusion": self.advice.conclusion,
            "recurs_by": rests and rests.by,
            "runs": [run.run_id for run in rests.runs] if rests else [],
            "incumbent_ends_at": self.incumbent_ends_at and format_time(self.incumbent_ends_at),
        }
        return content_hash(canonical_json(identity))[:RUN_ID_DIGITS]

    @property
    def exit_code(self) -> int:
        """0 nothing advised, 1 migration advised, 4 evidence missing."""
        said = "evidence missing" if self.advice.evidence_missing else self.advice.conclusion
        return EXIT_CODES.get(said, 0)

    @property
    def next_step(self) -> str:
        """What to do, in one sentence."""
        rests = {run.run_id for run in self.advice.recurrence.runs} if self.advice.recurrence else set()
        models = {past.incumbent for past in self.past.runs if not rests or past.evidence.run_id in rests}
        return _NEXT[self.advice.conclusion].format(
            app=self.app,
            boundaries=" and ".join(self.kind.boundaries) or "its boundaries",
            incumbent=" and ".join(sorted(models)) or "the incumbent",
        )


def gather(reader: LogReader, runs: Path, app: str, incumbent_ends_at: datetime | None = None) -> Gathered:
    """Measure the predicates on the log, read the history of runs, and put both to the table.

    Args:
        reader: Of the log.
        runs: The folder of all runs.
        app: Whose.
        incumbent_ends_at: When the provider takes the incumbent away; None where nobody said.

    Raises:
        UsageError: The app has no topics.
        KafkaUnreachable: No broker answers.
    """
    kind, state, past = measure_workflows(reader, app), measure_state(runs, app), read_past_runs(runs, app)
    predicates = [one.predicate for one in (kind.pauses, state, kind.world)]
    advice = advise_migration([one.evidence for one in past.runs], predicates, incumbent_ends_at)
    return Gathered(app, kind, state, past, advice, incumbent_ends_at)


def migration_data(found: Gathered) -> dict[str, Any]:
    """The advice as plain JSON data: what scripts read and the page is made of."""
    advice = found.advice
    rests = {run.run_id for run in advice.recurrence.runs} if advice.recurrence else set()
    past = {one.evidence.run_id: one for one in found.past.runs}
    data = {
        "run_id": found.run_id,
        "app": found.app,
        "conclusion": advice.conclusion,
        "evidence_missing": advice.evidence_missing,
        "advice": found.next_step,
        "boundaries": found.kind.boundaries,
        "streams": found.kind.streams,
        "workflows": found.kind.workflows,
        "unreadable_records": found.kind.unreadable,
        "recurs_by": advice.recurrence and advice.recurrence.by,
        "incumbent_ends_at": found.incumbent_ends_at and format_time(found.incumbent_ends_at),
        "runs": [_run(judged, past[judged.run.run_id], judged.run.run_id in rests) for judged in advice.runs],
        "unreadable_runs": found.past.unreadable,
        "predicates": [_predicate(one) for one in found.measured],
        "holds": advice.holds,
        "missing": advice.missing,
    }
    told: dict[str, Any] = plain(data)
    return told


def migration_alert(found: Gathered, now: datetime) -> MigrationAlert | None:
    """The alert; None where no migration is advised."""
    rests = found.advice.recurrence
    if found.advice.conclusion != "migrate" or rests is None:
        return None
    return MigrationAlert(
        run_id=found.run_id,
        app=found.app,
        boundaries=found.kind.boundaries,
        streams=found.kind.streams,
        recurs_by=rests.by,
        incumbent_ends_at=found.incumbent_ends_at,
        runs=tuple(_alert_runs(rests, found.past.runs)),
        predicates=tuple(_alert_predicate(one) for one in found.measured),
        advice=found.next_step,
        raised_at=now,
    )


def _run(judged: JudgedRun, past: PastRun, rests: bool) -> dict[str, Any]:
    run = judged.run
    return {
        "run_id": run.run_id,
        "incumbent": past.incumbent,
        "candidate": run.candidate,
        "kind": judged.kind,
        "rests": rests,
        "environment_drift": judged.environment_drift,
        "contrasts": {"environment": run.environment, "candidate": run.change},
        "verdict": run.verdict,
        "why": (past.report.get("attribution") or {}).get("why"),
        "diagnosis": run.diagnosis,
        "diagnosis_e_value": run.diagnosis_e_value,
        "diagnosis_advice": past.advice,
        "effects": [{**_effect(one), "clears": one.clears(run.delta)} for one in run.effects],
        "alpha": run.alpha,
        "delta": run.delta,
        "first_event_time": format_time(run.window[0]),
        "last_event_time": format_time(run.window[1]),
        "offsets": _offsets(run.offsets),
        "missing": judged.missing,
    }


def _effect(effect: Effect) -> dict[str, Any]:
    return {
        "level": effect.level,
        "against": effect.against,
        "change": effect.change,
        "interval": list(effect.interval),
    }


def _predicate(measured: Measured) -> dict[str, Any]:
    one = measured.predicate
    return {
        "name": one.name,
        "holds": one.holds,
        "share": one.measure,
        "interval": list(one.interval),
        "threshold": one.threshold,
        "count": measured.count,
        "workflows": measured.workflows,
        "longest_s": measured.longest_s,
        "examples": measured.examples,
        "source": measured.source,
        "missing": one.missing or None,
    }


def _alert_runs(rests: Recurrence, runs: Sequence[PastRun]) -> list[MigrationRun]:
    past = {one.evidence.run_id: one for one in runs}
    return [
        MigrationRun(
            run_id=run.run_id,
            incumbent=past[run.run_id].incumbent,
            candidate=run.candidate,
            level=effect.level,
            against=effect.against,
            effect=effect.change,
            interval_lo=effect.interval[0],
            interval_hi=effect.interval[1],
            confidence=1 - run.alpha,
            delta=run.delta,
            diagnosis_e_value=run.diagnosis_e_value or 0.0,
            first_event_time=run.window[0],
            last_event_time=run.window[1],
            offsets=tuple(_offsets(run.offsets)),
        )
        for run in rests.runs
        if (effect := run.cleared) is not None
    ]


def _alert_predicate(measured: Measured) -> MigrationPredicate:
    one = measured.predicate
    return MigrationPredicate(
        name=one.name,
        measure=one.measure or 0.0,
        interval_lo=one.interval[0],
        interval_hi=one.interval[1],
        threshold=one.threshold,
        workflows=measured.workflows,
        examples=measured.examples,
    )


def _offsets(offsets: Sequence[tuple[str, int, int, int]]) -> list[str]:
    return [f"{topic}[{partition}]@{first}-{last}" for topic, partition, first, last in offsets]
