"""Rates, intervals and names out of a tally and its e-values."""

from collections.abc import Mapping
from dataclasses import dataclass

from driftline.detectors.betting import Floats
from driftline.detectors.combine import e_bh, global_e_value
from driftline.detectors.excess import VERDICT
from driftline.detectors.intervals import betting_interval, mismatch_interval
from driftline.detectors.outcomes import Decision, Interval, JudgeSummary, LevelSummary, Noise, StratumSummary
from driftline.detectors.tally import POOLED, Tally


@dataclass(frozen=True, slots=True)
class Evidence:
    """E-values where evidence ended, shape (strata, levels), with the names of both axes; `deciding` levels first."""

    levels: tuple[str, ...]
    deciding: int
    strata: tuple[str, ...]
    e_values: Floats

    def named(self, alpha: float) -> set[tuple[int, int]]:
        """Row and column of those that e-BH rejects, among those that decide."""
        rejected = e_bh(self.e_values[:, : self.deciding].ravel().tolist(), alpha)
        return {divmod(index, self.deciding) for index in rejected}

    def column(self, level: str) -> int | None:
        """Where the level is; None where it has no e-value."""
        return self.levels.index(level) if level in self.levels else None

    def decides(self, level: str) -> bool:
        """Whether the level's e-value counts."""
        return level in self.levels[: self.deciding]


@dataclass(frozen=True, slots=True)
class _Readings:
    """The tally with all that its intervals need."""

    tally: Tally
    stop: Mapping[str | None, int]
    alpha: float

    def interval(self, stratum: str | None, level: str, upto: int | None = None) -> Interval:
        if level == VERDICT:
            return betting_interval(self.tally.differences(stratum, upto), self.alpha, running=False)
        return mismatch_interval(self.tally.mismatches(stratum, level, upto), self.alpha, running=False)

    def intervals(self, stratum: str | None, level: str) -> tuple[Interval, Interval]:
        """Over everything read, and at the stop."""
        whole = self.interval(stratum, level)
        upto = self.stop.get(stratum)
        if upto is None or upto == self.tally.events(stratum):
            return whole, whole
        return whole, self.interval(stratum, level, upto)

    def mismatch(self, stratum: str | None, level: str) -> float | None:
        return _mean(self.tally.mismatches(stratum, level))

    def change(self, stratum: str | None, level: str, upto: int | None = None) -> float | None:
        return _mean(self.tally.differences(stratum, upto)) if level == VERDICT else None

    def noise(self, stratum: str | None, level: str) -> Noise | None:
        events = self.tally.floored(stratum)
        if not events:
            return None
        noise, excess = self.tally.noise(stratum, level), self.tally.excess(stratum, level)
        return Noise(
            events=events,
            mismatch=float(noise.mean()),
            interval=mismatch_interval(noise, self.alpha, running=False),
            excess=float(excess.mean()),
            excess_interval=betting_interval(excess, self.alpha, running=False),
        )

    def events_at_stop(self, stratum: str | None) -> int:
        return self.stop.get(stratum, self.tally.events(stratum))


def summarise(
    tally: Tally,
    evidence: Evidence,
    *,
    at_stop: Evidence,
    stop: Mapping[str | None, int],
    alpha: float,
    decision: Decision | None,
    note: str,
    e_value: float,
) -> JudgeSummary:
    """Return the summary of what was read.

    Args:
        tally: All that was read.
        evidence: What strata are named by.
        at_stop: What levels are told by.
        stop: Events per stratum at the decision; empty if there was none.
        alpha: Of names and intervals.
        decision: That of the judge.
        note: What limits it.
        e_value: The global one.
    """
    readings = _Readings(tally, stop, alpha)
    named = evidence.named(alpha)
    return JudgeSummary(
        decision=decision,
        note=note,
        e_value=e_value,
        events=tally.events(),
        events_at_stop=stop.get(POOLED, tally.events()),
        levels=tuple(_level(readings, level, at_stop) for level in tally.levels),
        strata=tuple(
            _stratum(readings, (row, stratum), level, evidence, named)
            for row, stratum in enumerate(evidence.strata)
            for level in tally.levels
        ),
    )


def _level(readings: _Readings, level: str, evidence: Evidence) -> LevelSummary:
    is_verdict = level == VERDICT
    rates = readings.tally.rates() if is_verdict else None
    differences = readings.tally.differences()
    interval, interval_at_stop = readings.intervals(POOLED, level)
    column = evidence.column(level)
    return LevelSummary(
        level=level,
        events=readings.tally.events(),
        mismatch=readings.mismatch(POOLED, level),
        baseline_rate=rates[0] if rates else None,
        candidate_rate=rates[1] if rates else None,
        change=readings.change(POOLED, level),
        change_at_stop=readings.change(POOLED, level, readings.events_at_stop(POOLED)),
        interval=interval,
        interval_at_stop=interval_at_stop,
        flips_down=int((differences < 0).sum()) if is_verdict else None,
        flips_up=int((differences > 0).sum()) if is_verdict else None,
        e_value=None if column is None else global_e_value(evidence.e_values[:, column].tolist()),
        decides=evidence.decides(level),
        noise=readings.noise(POOLED, level),
    )


def _stratum(
    readings: _Readings, place: tuple[int, str], level: str, evidence: Evidence, named: set[tuple[int, int]]
) -> StratumSummary:
    row, stratum = place
    column = evidence.column(level)
    interval, interval_at_stop = readings.intervals(stratum, level)
    return StratumSummary(
        stratum=stratum,
        level=level,
        events=readings.tally.events(stratum),
        events_at_stop=readings.events_at_stop(stratum),
        e_value=None if column is None else float(evidence.e_values[row, column]),
        named=(row, column) in named,
        change=readings.change(stratum, level),
        change_at_stop=readings.change(stratum, level, readings.events_at_stop(stratum)),
        mismatch=readings.mismatch(stratum, level),
        interval=interval,
        interval_at_stop=interval_at_stop,
        decides=evidence.decides(level),
        noise=readings.noise(stratum, level),
    )


def _mean(values: Floats) -> float | None:
    return float(values.mean()) if values.size else None
