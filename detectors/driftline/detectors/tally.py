"""What was read, kept for rates and intervals; it decides nothing."""

from array import array
from collections import defaultdict
from collections.abc import Mapping

import numpy as np

from driftline.detectors.betting import Floats
from driftline.detectors.excess import VERDICT, FloorReading, floor_readings
from driftline.detectors.outcomes import Observation

POOLED = None
Place = tuple[str | None, str]
"""A stratum, or all of them, and a level."""


class Tally:
    """Verdicts, mismatches and noise of the events read, in the order read, per stratum and pooled.

    Memory grows by a number per event and by one or two per mismatch. `upto` in the queries takes the first so many
    events of that stratum (of all, for `POOLED`).
    """

    __slots__ = ("_accepted", "_excess", "_floored", "_mismatches", "_noise", "_verdicts", "levels")

    def __init__(self, levels: tuple[str, ...] = (VERDICT,)) -> None:
        self.levels = list(levels)
        self._verdicts: defaultdict[str | None, array[float]] = defaultdict(lambda: array("d"))
        self._mismatches: defaultdict[Place, array[int]] = defaultdict(lambda: array("q"))
        self._floored: defaultdict[str | None, int] = defaultdict(int)
        self._noise: defaultdict[Place, array[float]] = defaultdict(lambda: array("d"))
        self._excess: defaultdict[Place, array[float]] = defaultdict(lambda: array("d"))
        self._accepted = [0.0, 0.0]

    def add(self, observation: Observation) -> None:
        """Take in one event and its floor, if it has one; levels not met before are added in sorted order."""
        self.add_read(observation, floor_readings(observation))

    def add_read(self, observation: Observation, readings: Mapping[str, FloorReading] | None) -> None:
        """As `add`, of an event whose `floor_readings` are at hand."""
        baseline, candidate = observation.baseline, observation.candidate
        self._accepted[0] += baseline.accepted
        self._accepted[1] += candidate.accepted
        differing = {VERDICT} if baseline.accepted != candidate.accepted else set()
        for level in sorted((baseline.hashes.keys() | candidate.hashes.keys()) - {VERDICT}):
            if level not in self.levels:
                self.levels.append(level)
            if baseline.hashes.get(level) != candidate.hashes.get(level):
                differing.add(level)
        for stratum in (observation.stratum, POOLED):
            for level in differing:
                self._mismatches[stratum, level].append(self.events(stratum))
            self._verdicts[stratum].append(candidate.accepted - baseline.accepted)
            if readings is not None:
                self._add_floor(stratum, readings)

    def _add_floor(self, stratum: str | None, readings: Mapping[str, FloorReading]) -> None:
        self._floored[stratum] += 1
        for level, reading in readings.items():
            self._noise[stratum, level].append(reading.noise)
            self._excess[stratum, level].append(reading.excess)

    def events(self, stratum: str | None = POOLED) -> int:
        """How many events were read."""
        return len(self._verdicts[stratum]) if stratum in self._verdicts else 0

    def floored(self, stratum: str | None = POOLED) -> int:
        """How many of them had a noise floor."""
        return self._floored.get(stratum, 0)

    def rates(self) -> tuple[float, float] | None:
        """Mean verdict of the baseline and of the candidate over all events; None before the first."""
        events = self.events()
        return (self._accepted[0] / events, self._accepted[1] / events) if events else None

    def differences(self, stratum: str | None = POOLED, upto: int | None = None) -> Floats:
        """Verdict of the candidate minus the baseline's; shape (events,)."""
        return np.array(self._verdicts.get(stratum, ())[:upto], dtype=np.float64)

    def mismatches(self, stratum: str | None, level: str, upto: int | None = None) -> Floats:
        """1 where the arms differ at `level`, else 0; shape (events,)."""
        differs = np.zeros(self.events(stratum))
        differs[np.array(self._mismatches.get((stratum, level), ()), dtype=np.int64)] = 1.0
        return differs[:upto]

    def noise(self, stratum: str | None, level: str) -> Floats:
        """Share of the pairs of floor runs that differ at `level`, in no particular order; shape (floored,)."""
        return self._filled(stratum, self._noise.get((stratum, level)))

    def excess(self, stratum: str | None, level: str) -> Floats:
        """Excess mismatch of the candidate over the floor at `level`, in no particular order; shape (floored,)."""
        return self._filled(stratum, self._excess.get((stratum, level)))

    def _filled(self, stratum: str | None, values: "array[float] | None") -> Floats:
        filled = np.zeros(self.floored(stratum))
        filled[: len(values or ())] = values or ()
        return filled
