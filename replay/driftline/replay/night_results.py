"""A night's run told with the evidence of all nights: what its report and its alerts say."""

from __future__ import annotations

from dataclasses import replace

from driftline.detectors import Decision, LevelSummary, StratumSummary
from driftline.replay.levels import EXIT_FAMILY, VERDICT
from driftline.replay.nights import DIVERGED, EQUIVALENT, INCONCLUSIVE, CarriedStratum, Standing
from driftline.replay.result import Contrast, ForcedResult, Pair

_DECISIONS: dict[str, Decision] = {DIVERGED: "diverged", EQUIVALENT: "equivalent"}


def as_carried(result: ForcedResult, standing: Standing) -> ForcedResult:
    """The night's run, read until a `CarriedStop`, with the verdict, e-values and number of decisions of all nights.

    Rates of levels stay those of the night. So does the change of the verdict over all strata where there are
    several, because its interval is carried by stratum alone; the note says which it is.
    """
    verdict = standing.verdict
    if result.stopped_because == "coverage" and verdict != DIVERGED:
        verdict = INCONCLUSIVE
    judged = replace(
        result.judged,
        decision=_DECISIONS.get(verdict),
        note=_note(standing),
        e_value=standing.e_value,
        events_at_stop=standing.events,
        levels=tuple(_level(level, standing) for level in result.judged.levels),
        strata=_strata(result, standing),
    )
    alarm_after = standing.events if verdict == DIVERGED else None
    return replace(result, verdict=verdict, judged=judged, alarm_after=alarm_after)


def as_watched(result: ForcedResult, drifted: bool, value: float) -> ForcedResult:
    """The night's run of the incumbent, read until a `WatchStop`: it speaks of the environment, of no candidate."""
    verdict = DIVERGED if drifted else INCONCLUSIVE
    judged = replace(
        result.judged,
        e_value=value,
        decision=_DECISIONS.get(verdict),
        note="",
        events_at_stop=result.judged.events,
        levels=tuple(_whole(level) for level in result.judged.levels),
        strata=tuple(_whole_stratum(one) for one in result.judged.strata),
    )
    environment = Contrast(verdict, result.stopped_because, judged, result.paid_calls)
    return replace(
        result,
        verdict=verdict,
        judged=judged,
        alarm_after=judged.events if drifted else None,
        pairs=[_with_floor(pair) for pair in result.pairs],
        environment=environment,
        change=replace(environment, verdict=INCONCLUSIVE, stopped_because="not_needed"),
    )


def _note(standing: Standing) -> str:
    tonight = "rates are" if _only(standing) else "rates and the change over all strata are"
    return f"evidence of {standing.events} decisions in {standing.nights} nights; {tonight} tonight's"


def _level(level: LevelSummary, standing: Standing) -> LevelSummary:
    only = _only(standing)
    if only is None or level.level != VERDICT:
        return _whole(level)
    return replace(level, change_at_stop=only.change, interval_at_stop=only.interval)


def _whole(level: LevelSummary) -> LevelSummary:
    """Of all that was read: the night's own test did not stop it."""
    return replace(level, change_at_stop=level.change, interval_at_stop=level.interval)


def _whole_stratum(one: StratumSummary) -> StratumSummary:
    return replace(one, events_at_stop=one.events, change_at_stop=one.change, interval_at_stop=one.interval)


def _only(standing: Standing) -> CarriedStratum | None:
    """The stratum whose change is the change over all strata; None where there are several."""
    return standing.strata[0] if len(standing.strata) == 1 else None


def _with_floor(pair: Pair) -> Pair:
    """The incumbent's answer is a run of it as well."""
    return replace(pair, floor=(pair.candidate,))


def _strata(result: ForcedResult, standing: Standing) -> tuple[StratumSummary, ...]:
    carried = {stratum.stratum: stratum for stratum in standing.strata}
    tonight = {one.stratum for one in result.judged.strata}
    told = [_told(one, carried.get(one.stratum)) for one in result.judged.strata]
    return (
        *told,
        *(_of_other_nights(carried[name], level) for name in carried.keys() - tonight for level in EXIT_FAMILY),
    )


def _told(one: StratumSummary, carried: CarriedStratum | None) -> StratumSummary:
    if carried is None or one.level not in EXIT_FAMILY:
        return replace(_whole_stratum(one), named=False)
    told = replace(_whole_stratum(one), e_value=carried.e_values[one.level], named=one.level in carried.named)
    told = replace(told, events_at_stop=carried.events)
    return (
        told
        if one.level != VERDICT
        else replace(told, change_at_stop=carried.change, interval_at_stop=carried.interval)
    )


def _of_other_nights(carried: CarriedStratum, level: str) -> StratumSummary:
    interval = carried.interval if level == VERDICT else (0.0, 1.0)
    return StratumSummary(
        stratum=carried.stratum,
        level=level,
        events=0,
        events_at_stop=carried.events,
        e_value=carried.e_values[level],
        named=level in carried.named,
        change=None,
        change_at_stop=carried.change if level == VERDICT else None,
        mismatch=None,
        interval=interval,
        interval_at_stop=interval,
    )
