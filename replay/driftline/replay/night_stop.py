"""When a night's reading ends: by the evidence of all nights, tonight's so far included, and by no test of tonight.

A fresh test that alarms says nothing of the verdict, which is that of the carried evidence: whoever stopped at it
would leave decisions unread that the verdict lacks, and read on where the verdict is in.
"""

from __future__ import annotations

from collections.abc import Set

from driftline.detectors import Observation
from driftline.replay.night_watch import ProviderWatch
from driftline.replay.nights import DIVERGED, INCONCLUSIVE, CarriedProcess


class CarriedStop:
    """A candidate's: ends the reading once the carried process has a verdict.

    `equivalent` ends it only where there is evidence of every stratum of the night.

    Args:
        process: A copy of its own: what is read here counts elsewhere.
        night: The night that is read.
        strata: What lies in it.
    """

    def __init__(self, process: CarriedProcess, night: str, strata: Set[str]) -> None:
        process.add(night, ())
        self._process = process
        self._strata = strata

    @property
    def done(self) -> bool:
        """Whether no more evidence is needed."""
        decision = self.decision
        return decision == DIVERGED or (decision is not None and self._strata <= self._process.strata)

    @property
    def decision(self) -> str | None:
        """`diverged`, `equivalent`, or None as long as the evidence suffices for neither."""
        verdict = self._process.verdict
        return None if verdict == INCONCLUSIVE else verdict

    @property
    def e_value(self) -> float:
        """Of all nights."""
        return self._process.e_value

    def observe(self, observation: Observation) -> None:
        """Take the next evidence of the night."""
        self._process.take(observation)


class WatchStop:
    """The incumbent's: ends the reading once the watch has alarmed; that nothing moved is not what it looks for.

    Args:
        watch: A copy of its own, as of `CarriedStop`.
        night: The night that is read.
    """

    def __init__(self, watch: ProviderWatch, night: str) -> None:
        watch.add(night, ())
        self._watch = watch

    @property
    def done(self) -> bool:
        """Whether it has alarmed tonight."""
        return self._watch.has_alarmed

    @property
    def decision(self) -> str | None:
        """`diverged` once it has alarmed, else None."""
        return DIVERGED if self.done else None

    @property
    def e_value(self) -> float:
        """What an alarm is raised on."""
        return self._watch.value

    def observe(self, observation: Observation) -> None:
        """Take the next evidence of the night."""
        self._watch.take(observation)
