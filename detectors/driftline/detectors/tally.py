"""What was read, kept for rates and intervals; it decides nothing."""

from array import array
from collections import defaultdict

import numpy as np

from driftline.detectors.betting import Floats
from driftline.detectors.outcomes import Observation

VERDICT = "verdict"
POOLED = None


class Tally:
    """Verdicts and mismatches of the events read, in the order read, per stratum and pooled.

    Memory grows by a number per event and by one per mismatch. `upto` in the queries takes the first so many events
    of that stratum (of all, for `POOLED`).
    """

    __slots__ = ("_accepted", "_mismatches", "_verdicts", "levels")

    def __init__(self, levels: tuple[str, ...] = (VERDICT,)) -> None:
        self.levels = list(levels)
        self._verdicts: defaultdict[str | None, array[float]] = defaultdict(lambda: array("d"))
        self._mismatches: defaultdict[tuple[str | None, str], array[int]] = defaultdict(lambda: array("q"))
        self._accepted = [0.0, 0.0]

    def add(self, observation: Observation) -> None:
        """Take in one event; levels not met before are added to `levels` in sorted order."""
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

    def events(self, stratum: str | None = POOLED) -> int:
        """How many events were read."""
        return len(self._verdicts[stratum]) if stratum in self._verdicts else 0

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
