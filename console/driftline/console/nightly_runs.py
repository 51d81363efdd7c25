"""The runs of a night: the incumbent against the log, and each candidate; their files, alerts and evidence."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from driftline.console.common import Log, now, progress_bar
from driftline.console.nightly_config import NightlyApp, NightlyCandidate, NightlyIncumbent
from driftline.console.nightly_files import keep_parquet
from driftline.console.replay_arms import Arms, EveryArm, named_arms
from driftline.console.replay_progress import note_of
from driftline.console.replay_run import LEDGER, ReplayRequest, publish, run_row, timings
from driftline.consumers.models.litellm_proposer import LiteLLMProposer
from driftline.consumers.models.sources import source_version
from driftline.replay.arms import Candidate, calls_of
from driftline.replay.asker import oldest
from driftline.replay.contrasts import Stop
from driftline.replay.harness import ForcedReplay, ForcedResult, Limits
from driftline.replay.identity import RUN_ID_DIGITS, run_id_of
from driftline.replay.ledger import Ledger
from driftline.replay.night_results import as_carried, as_watched
from driftline.replay.night_stop import CarriedStop, WatchStop
from driftline.replay.nights import CarriedTest, Standing
from driftline.replay.nights_kept import KeptNights
from driftline.replay.plain import plain
from driftline.replay.plan import planned_calls, require_priced, room_in_usd
from driftline.replay.pricing import PriceMap
from driftline.replay.report import report_data, tried_data
from driftline.replay.run_request import write_request
from driftline.replay.segment import Segment, Selection
from driftline.replay.spending import Spending
from driftline.replay.store import write_store
from driftline.replay.subject import Subject
from driftline.schemas import canonical_json, content_hash

INCUMBENT_MODE = "incumbent"
"""Of alerts: what the incumbent shows takes the place of nothing that a candidate shows."""
DECISIONS_MIN = 34
"""Of a candidate's run: a divergence of fewer than 30 pairs wakes nobody (deploy/prometheus/rules.yml), and a tenth
of the answers may be lost before a run has no verdict."""


@dataclass(frozen=True)
class NightRun:
    """What a run of a night is given."""

    night: str
    app: NightlyApp
    kept: KeptNights
    """Its evidence is taken in; it is not saved here."""
    subject: Subject
    log: Log
    segment: Segment
    usd: float | None
    """Dollars that the run may pay."""
    parquet: Path
    """Folder of the night."""

    @property
    def limits(self) -> Limits:
        """Of the run."""
        return self.app.run_limits(self.usd)


@dataclass(frozen=True)
class Asked:
    """A run of which all was asked that is to be asked."""

    result: ForcedResult
    limits: Limits
    paid_usd: float
    """By all attempts at the run."""
    price_map: str | None
    started: datetime
    seconds: float


def run_candidate(tonight: NightRun, given: NightlyCandidate) -> dict[str, Any]:
    """Ask a candidate about the night's decisions, and take the answers into the evidence of its nights.

    One that diverged on another night is asked no more, and nothing is published of it.
    """
    limits, arms = tonight.limits, named_arms(tonight.segment, tonight.subject, given.arm, None)
    test = CarriedTest(limits.alpha, limits.delta, limits.min_effect, tuple(tonight.subject.indicators))
    identity = _identity(arms, given.arm, test)
    process = tonight.kept.process(identity, test)
    standing, begins_anew = process.standing(), not process.nights and _had_evidence(tonight, given)
    if standing.diverged_on is not None:
        return _not_asked(tonight, given, arms, standing)
    stop = CarriedStop(tonight.kept.process(identity, test), tonight.night, tonight.segment.planned().keys())
    asked = _ask(tonight, given.arm, stop)
    process.add(tonight.night, [] if asked.result.stopped_because == "coverage" else asked.result.pairs)
    standing = process.standing()
    told = as_carried(asked.result, standing)
    named = {"name": given.name, "asked": True, "min_effect": limits.min_effect, "begins_anew": begins_anew}
    part = _finish(tonight, given.arm, arms, asked, told, {**named, **_standing(standing)})
    # Not before: a part that failed would leave its evidence to be saved with the next one.
    tonight.kept.processes[identity] = process.state()
    return {**part, "verdict": told.verdict}


def run_incumbent(tonight: NightRun, given: NightlyIncumbent) -> dict[str, Any]:
    """Ask the incumbent about a sample of the night's decisions, and let the watch look at the answers."""
    arms = named_arms(tonight.segment, tonight.subject, given.arm, None)
    watched = tuple(tonight.subject.indicators), given.decisions_between_alarms
    watch = tonight.kept.provider_watch(*watched)
    asked = _ask(tonight, given.arm, WatchStop(tonight.kept.provider_watch(*watched), tonight.night))
    lost = asked.result.stopped_because == "coverage"
    drifted = watch.add(tonight.night, [] if lost else asked.result.pairs)
    told = as_watched(asked.result, drifted, watch.value)
    limits = replace(asked.limits, alpha=1 / given.decisions_between_alarms)
    standing: dict[str, Any] = {"drifted": drifted, "value": watch.value, "events": watch.events}
    standing |= {
        "nights": len(watch.nights),
        "alarm_at": given.decisions_between_alarms,
        "alarms": list(watch.alarms),
    }
    asked_as = replace(asked, limits=limits)
    both = replace(arms, incumbent=arms.candidate)
    part = _finish(tonight, given.arm, both, asked_as, told, standing, INCUMBENT_MODE)
    tonight.kept.watch = watch.state()
    return {**part, "verdict": told.verdict}


def _identity(arms: Arms, candidate: Candidate, test: CarriedTest) -> str:
    """What makes a test the same test on another night: both arms with their rules, and what the bets are on.

    Not alpha and delta, which merely read the evidence: another alpha would be spent anew on the same candidate.
    """
    tried = [arms.candidate.model_dump(), plain(candidate.parameters), source_version(arms.candidate.model)]
    bets = [test.min_effect, list(test.indicators)]
    return content_hash(canonical_json([arms.baseline.model_dump(), *tried, *bets]))


def _had_evidence(tonight: NightRun, given: NightlyCandidate) -> bool:
    """Whether the candidate was tested for another effect on other nights."""
    label, min_effect = tonight.app.label(given), tonight.limits.min_effect
    told = (night.parts.get(label, {}) for night in tonight.kept.nights.values())
    return any(part.get("min_effect", min_effect) != min_effect for part in told)


def _not_asked(tonight: NightRun, given: NightlyCandidate, arms: Arms, standing: Standing) -> dict[str, Any]:
    """The part of a candidate that diverged on another night: where it stands, at no cost."""
    part: dict[str, Any] = plain(
        {
            "run_id": None,
            "decisions": len(tonight.segment.decisions),
            **dict.fromkeys(("compared", "paid_calls", "overspent_calls"), 0),
            **dict.fromkeys(("paid_usd", "cost_usd"), 0.0),
            **dict.fromkeys(("coverage", "stopped_because", "change")),
            "arms": [arms.baseline.model, arms.candidate.model],
            "alerts": {},
            "name": given.name,
            "asked": False,
            "min_effect": tonight.limits.min_effect,
            "begins_anew": False,
            **_standing(standing),
        }
    )
    return {**part, "verdict": standing.verdict}


def _ask(tonight: NightRun, candidate: Candidate, stop: Stop) -> Asked:
    started, began, prices = now(), time.monotonic(), PriceMap()
    segment, subject = tonight.segment, tonight.subject
    limits = _reading(tonight.limits, candidate)
    run_id = _run_id(tonight, candidate, limits)
    ledger = Ledger(tonight.log.settings.home / LEDGER)
    try:
        _check(tonight, candidate, ledger, prices)
        spending = Spending(limits.usd_max, ledger.paid_usd(run_id), partial(room_in_usd, candidate, prices))
        given = (run_id, segment, subject, candidate, EveryArm(limits), ledger, limits, now, spending)
        replay = ForcedReplay(*given, stop=stop)
        with progress_bar(f"{segment.app} {tonight.night}: replaying", replay.decisions_max) as show:
            result = asyncio.run(replay.run(lambda at: show(at.read, note_of(at, time.monotonic() - began))))
        paid = ledger.paid_usd(run_id)
    finally:
        ledger.close()
    return Asked(result, limits, paid, prices.version, started, time.monotonic() - began)


def _reading(limits: Limits, candidate: Candidate) -> Limits:
    """A candidate's is long enough to be told of. A recording costs nothing and is read to the end."""
    limits = limits if candidate.incumbent else replace(limits, decisions_min=DECISIONS_MIN)
    return replace(limits, concurrency=1, read_on=True) if candidate.is_free else limits


def _run_id(tonight: NightRun, candidate: Candidate, limits: Limits) -> str:
    """Of the night alone: the same replay by hand is another run, with alerts of its own."""
    plan = run_id_of(tonight.segment, tonight.subject, candidate, limits)
    return content_hash(canonical_json({"night": tonight.night, "run": plan}))[:RUN_ID_DIGITS]


def _check(tonight: NightRun, candidate: Candidate, ledger: Ledger, prices: PriceMap) -> None:
    """Refuse, before anything is paid, what cannot be asked or has no price."""
    segment, subject, limits = tonight.segment, tonight.subject, tonight.limits
    first = segment.decisions[0].decision
    LiteLLMProposer().check(candidate.request(first, subject, "plan", limits.order_seed))
    models = {candidate.model or logged.decision.model_requested for logged in segment.decisions}
    if not all(prices.of(model).known for model in models):
        unlimited = replace(limits, calls_max=None)
        given = segment, subject, calls_of(candidate, None), ledger, unlimited, prices
        planned = planned_calls(*given, not_before=oldest(now()))
        require_priced(planned, limits, tonight.app.limits.allow_unpriced)


def _finish(
    tonight: NightRun,
    candidate: Candidate,
    arms: Arms,
    asked: Asked,
    told: ForcedResult,
    standing: Mapping[str, Any],
    mode: str = "forced",
) -> dict[str, Any]:
    """1. the run's database; 2. its alerts; 3. its Parquet among the night's. Each may be done again."""
    report = report_data(tonight.segment.app, arms.baseline.model, arms.candidate.model, told, asked.limits)
    verifier = None if tonight.app.verifier is None else str(tonight.app.verifier)
    report["tried"] = tried_data(candidate, verifier, arms.candidate.verifier_version)
    report["timings"] = timings(asked.started, asked.seconds, report.pop("from_ledger", told.from_ledger))
    report |= {"price_map": asked.price_map, "night": tonight.night, "standing": plain(standing)}
    home = tonight.log.settings.home
    row = run_row(report, arms.baseline, arms.candidate)
    database = write_store(home / "runs" / told.run_id, told, row)
    write_request(database.parent, _request(tonight, candidate))
    placed = publish(tonight.log, tonight.segment, arms, told, asked.limits, mode)
    part: dict[str, Any] = plain(
        {
            **_counts(asked, tonight.segment),
            "arms": [arms.baseline.model, arms.candidate.model],
            "change": _change(report),
            "alerts": {kind: str(at) for kind, at in placed.items()},
            **standing,
        }
    )
    keep_parquet(tonight.parquet, database.parent, tonight.night, tonight.segment.app, part)
    return part


def _request(tonight: NightRun, candidate: Candidate) -> ReplayRequest:
    """How the run's decisions are found again: by their places."""
    verifier = tonight.app.verifier
    ranges = dict(tonight.segment.span.ranges)
    given = tonight.segment.app, candidate, Selection(offsets=ranges), tonight.limits
    return ReplayRequest(*given, verifier=None if verifier is None else str(verifier))


def _counts(asked: Asked, segment: Segment) -> dict[str, Any]:
    result = asked.result
    return {
        "run_id": result.run_id,
        "decisions": len(segment.decisions),
        "compared": sum(pair.evidence for pair in result.pairs),
        "paid_calls": result.paid_calls,
        "overspent_calls": result.overspent_calls,
        "paid_usd": asked.paid_usd,
        "cost_usd": result.cost_usd,
        "coverage": result.coverage,
        "stopped_because": result.stopped_because,
    }


def _change(report: Mapping[str, Any]) -> dict[str, Any]:
    """Of the night's verdicts alone."""
    verdict = report["levels"]["verdict"]
    return {name: verdict[name] for name in ("baseline_rate", "candidate_rate", "change", "interval")}


def _standing(standing: Standing) -> dict[str, Any]:
    strata = [
        {**asdict(one), "interval": list(one.interval), "named": sorted(one.named), "e_values": dict(one.e_values)}
        for one in standing.strata
    ]
    return {
        "e_value": standing.e_value,
        "events": standing.events,
        "nights": standing.nights,
        "diverged_on": standing.diverged_on,
        "strata": strata,
    }
