"""The watch over a provider: does the incumbent of today still answer as the log says, night after night?

An e-process asks whether anything ever changed, and a quiet year costs it evidence; an e-detector asks whether
something changed of late (DETECTION, "Over many nights"; Shin, Ramdas & Rinaldo 2022).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from driftline.detectors import EDetector, Observation
from driftline.detectors.betting import e_from_log
from driftline.detectors.evidence import signed_differences
from driftline.replay.nights import FORM, evidence_of, log_first_weighted, log_mean
from driftline.replay.result import Pair


class ProviderWatch:
    """Whether the incumbent of today still answers as the log says, night after night without an end.

    Per stratum the mean of e-detectors on the signed difference of verdicts and of each indicator; over the strata
    the mean weighted by `first_weights`. After an alarm it begins anew.

    Not guaranteed: a small chance of a false alarm. As long as nothing changes, the mean number of decisions up to
    one is at least `decisions_between`.
    """

    def __init__(self, indicators: Sequence[str] = (), decisions_between: float = 10_000) -> None:
        self._indicators = tuple(indicators)
        self._between = decisions_between
        self.nights: list[str] = []
        self.alarms: list[str] = []
        """Nights on which it alarmed."""
        self._strata: dict[str, list[EDetector]] = {}
        self._peak = 0.0

    @property
    def events(self) -> int:
        """Decisions since the last alarm."""
        return sum(detectors[0].n for detectors in self._strata.values())

    @property
    def value(self) -> float:
        """What an alarm is raised on: since the last one, or at it where it was in the night that came last."""
        return self._peak or e_from_log(self._log_value())

    def add(self, night: str, pairs: Iterable[Pair]) -> bool:
        """Take a night's pairs of log and incumbent, in planned order; whether they raised an alarm.

        A night that is in already is passed over.
        """
        if night in self.nights:
            return night in self.alarms
        self.nights.append(night)
        self._peak = 0.0
        for observation in evidence_of(pairs):
            self.take(observation)
        return self.has_alarmed

    def take(self, observation: Observation) -> None:
        """Take the next evidence of the night that was added last."""
        self._update(observation)
        if self._log_value() < math.log(self._between):
            return
        self._peak = max(self._peak, e_from_log(self._log_value()))
        self._strata = {}
        if self.nights[-1] not in self.alarms:
            self.alarms.append(self.nights[-1])

    @property
    def has_alarmed(self) -> bool:
        """Whether it raised an alarm in the night that was added last."""
        return bool(self._peak)

    def state(self) -> dict[str, Any]:
        """What `from_state` goes on from, plain JSON data."""
        strata = {name: [one.state() for one in detectors] for name, detectors in self._strata.items()}
        fields = {"indicators": list(self._indicators), "nights": self.nights, "alarms": self.alarms}
        return {"form": FORM, **fields, "peak": self._peak, "strata": strata}

    @classmethod
    def from_state(cls, data: Mapping[str, Any], indicators: Sequence[str], between: float) -> ProviderWatch:
        """The watch that `state` described. Where the indicators are others now, its detectors begin anew.

        Raises:
            ValueError: `data` are not the state of a watch, or of another form.
        """
        if data.get("form") != FORM:
            raise ValueError(f"a watch of form {data.get('form')!r} is not continued, only of form {FORM}")
        watch = cls(indicators, between)
        watch.nights, watch.alarms, watch._peak = list(data["nights"]), list(data["alarms"]), float(data["peak"])
        if data["indicators"] == list(indicators):
            restored = data["strata"].items()
            watch._strata = {name: [EDetector.from_state(one) for one in saved] for name, saved in restored}
        return watch

    def _update(self, observation: Observation) -> None:
        differences = signed_differences(observation, self._indicators)
        detectors = self._strata.setdefault(observation.stratum, [EDetector() for _ in differences])
        for detector, difference in zip(detectors, differences, strict=True):
            detector.update(difference)

    def _log_value(self) -> float:
        by_stratum = [log_mean([one.log_value for one in detectors]) for detectors in self._strata.values()]
        return log_first_weighted(np.array(by_stratum), -math.inf)
