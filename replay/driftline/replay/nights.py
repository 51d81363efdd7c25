"""Evidence over many nights: e-processes that go on from night to night, on new decisions only.

Judged anew every night, a candidate that changes nothing would be told to diverge on one night in twenty. Carried
over, the evidence is one test, whose bound on false alarms holds at whatever night one looks (Ville); alpha is spent
anew on a new candidate alone (DETECTION, "Over many nights").
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import numpy as np

from driftline.detectors import (
    BettingEProcess,
    Interval,
    Observation,
    RunningMeanInterval,
    SwapLearner,
    e_bh,
)
from driftline.detectors.betting import e_from_log, log_mean_exp
from driftline.detectors.evidence import signed_differences
from driftline.replay.levels import ACTION, EXIT_FAMILY, VERDICT
from driftline.replay.result import Pair

FORM = 1
"""Of a saved process; goes up when its evidence is gathered otherwise."""
DIVERGED, EQUIVALENT, INCONCLUSIVE = "diverged", "equivalent", "inconclusive"


@dataclass(frozen=True, slots=True)
class CarriedTest:
    """What a candidate is tested for. With another `min_effect` or `indicators` it is another test, whose evidence
    begins anew; `alpha` and `delta` merely read the evidence."""

    alpha: float = 0.05
    delta: float = 0.05
    min_effect: float = 0.0
    indicators: tuple[str, ...] = ()
    """Features of actions whose rates are compared with their sign."""


@dataclass(frozen=True, slots=True)
class CarriedStratum:
    """Where the evidence of one stratum stands."""

    stratum: str
    events: int
    change: float | None
    """Mean change of the verdict over all nights."""
    interval: Interval
    """For that mean, whatever the traffic does."""
    e_values: Mapping[str, float]
    """By level."""
    named: frozenset[str]
    """Levels that e-BH names."""


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a candidate stands after its nights."""

    verdict: str
    """`diverged` from the night of its alarm on, `equivalent` or `inconclusive`."""
    e_value: float
    """The global e-value: at the alarm, where there was one."""
    events: int
    nights: int
    diverged_on: str | None
    """The night of the alarm."""
    strata: tuple[CarriedStratum, ...]


def first_weights(count: int) -> list[float]:
    """Shares of hypotheses in the order in which they appear, of which nobody knows how many will: 6 / (pi k)^2."""
    return [6 / (math.pi * (place + 1)) ** 2 for place in range(count)]


class CarriedProcess:
    """The evidence on one candidate, over all nights.

    Per stratum and level an e-process: the signed difference of verdicts; for the action half a swap learner, half
    the mean over the signed indicators. Over the levels, which share events, the mean; over the strata half the mean,
    weighted by `first_weights`, and half the product.

    If log and candidate are exchangeable given each decision, on whichever nights these come and whatever was
    stopped when, the chance that it ever says `diverged` is at most alpha. `equivalent` is what the intervals say
    tonight: traffic that changes may end it.

    Not guaranteed: anything, if a decision is fed twice. A night is taken once; that a decision does not lie in two
    nights is for the caller.
    """

    def __init__(self, test: CarriedTest) -> None:
        self.test = test
        self.nights: list[str] = []
        self._strata: dict[str, _Stratum] = {}
        self._alarm: tuple[str, float] | None = None

    def add(self, night: str, pairs: Iterable[Pair]) -> bool:
        """Take a night's evidence, in its planned order; False, and nothing taken, where the night is in already."""
        if night in self.nights:
            return False
        self.nights.append(night)
        for observation in evidence_of(pairs):
            self.take(observation)
        return True

    def take(self, observation: Observation) -> None:
        """Take the next evidence of the night that was added last."""
        self._stratum(observation.stratum).update(observation)
        log_e = self._log_e_value()
        if self._alarm is None and log_e >= -math.log(self.test.alpha):
            self._alarm = self.nights[-1], log_e

    @property
    def verdict(self) -> str:
        """`diverged` from the night of its alarm on, `equivalent` or `inconclusive`."""
        if self._alarm is not None:
            return DIVERGED
        inside = all(stratum.is_equivalent for stratum in self._strata.values())
        return EQUIVALENT if self._strata and inside else INCONCLUSIVE

    @property
    def e_value(self) -> float:
        """The global e-value: at the alarm, where there was one."""
        return e_from_log(self._log_e_value() if self._alarm is None else self._alarm[1])

    @property
    def strata(self) -> Set[str]:
        """Those of which there is evidence."""
        return self._strata.keys()

    def standing(self) -> Standing:
        """Where it stands now."""
        return Standing(
            verdict=self.verdict,
            e_value=self.e_value,
            events=sum(stratum.events for stratum in self._strata.values()),
            nights=len(self.nights),
            diverged_on=None if self._alarm is None else self._alarm[0],
            strata=self._standings(),
        )

    def state(self) -> dict[str, Any]:
        """What `from_state` goes on from, plain JSON data."""
        return {
            "form": FORM,
            "nights": list(self.nights),
            "alarm": None if self._alarm is None else list(self._alarm),
            "strata": {name: stratum.state() for name, stratum in self._strata.items()},
        }

    @classmethod
    def from_state(cls, data: Mapping[str, Any], test: CarriedTest) -> CarriedProcess:
        """The process that `state` described, read with the alpha and delta of `test`.

        An alarm that the alpha of today would not have raised is none.

        Raises:
            ValueError: `data` are not the state of such a process, or of another form.
        """
        if data.get("form") != FORM:
            raise ValueError(f"evidence of form {data.get('form')!r} is not continued, only of form {FORM}")
        process = cls(test)
        process.nights = [str(night) for night in data["nights"]]
        alarm = None if data["alarm"] is None else (str(data["alarm"][0]), float(data["alarm"][1]))
        process._alarm = alarm if alarm is not None and alarm[1] >= -math.log(test.alpha) else None
        process._strata = {name: _Stratum.from_state(saved, test) for name, saved in data["strata"].items()}
        return process

    def _stratum(self, name: str) -> _Stratum:
        return self._strata.setdefault(name, _Stratum(self.test))

    def _log_e_value(self) -> float:
        logs = np.array([stratum.log_e_value for stratum in self._strata.values()])
        mean = log_first_weighted(logs, 0.0)
        return float(log_mean_exp(np.array([mean, logs.sum()])))

    def _standings(self) -> tuple[CarriedStratum, ...]:
        weights = first_weights(len(self._strata))
        levels = [stratum.e_values for stratum in self._strata.values()]
        # Weights that sum to 1 take the place of 1 / K each; half of a stratum's is that of each level.
        flat = [
            w / len(EXIT_FAMILY) * by[level] for w, by in zip(weights, levels, strict=True) for level in EXIT_FAMILY
        ]
        rejected = e_bh([len(flat) * value for value in flat], self.test.alpha) if flat else []
        named = {divmod(index, len(EXIT_FAMILY)) for index in rejected}
        return tuple(
            stratum.standing(name, frozenset(EXIT_FAMILY[column] for at, column in named if at == row))
            for row, (name, stratum) in enumerate(self._strata.items())
        )


class _Stratum:
    """The e-processes and intervals of one stratum."""

    def __init__(self, test: CarriedTest) -> None:
        self._test = test
        self._learner = SwapLearner(min_effect=test.min_effect)
        self._signed = [BettingEProcess(test.min_effect) for _ in range(1 + len(test.indicators))]
        self._means = [RunningMeanInterval(test.alpha) for _ in self._signed]

    @property
    def events(self) -> int:
        return self._signed[0].n

    @property
    def log_e_value(self) -> float:
        """Of both levels, which share events: their mean."""
        return log_mean(list(self._log_e_values().values()))

    @property
    def e_values(self) -> dict[str, float]:
        return {level: e_from_log(log_e) for level, log_e in self._log_e_values().items()}

    @property
    def is_equivalent(self) -> bool:
        delta = self._test.delta
        return all(-delta <= mean.interval[0] and mean.interval[1] <= delta for mean in self._means)

    def update(self, observation: Observation) -> None:
        differences = signed_differences(observation, self._test.indicators)
        for process, mean, difference in zip(self._signed, self._means, differences, strict=True):
            process.update(difference)
            mean.update(difference)
        self._learner.update(observation.baseline.features, observation.candidate.features)

    def standing(self, name: str, named: frozenset[str]) -> CarriedStratum:
        verdict = self._means[0]
        return CarriedStratum(name, self.events, verdict.mean, verdict.interval, self.e_values, named)

    def state(self) -> dict[str, Any]:
        signed, means = [one.state() for one in self._signed], [one.state() for one in self._means]
        return {"signed": signed, "means": means, "learner": self._learner.state()}

    @classmethod
    def from_state(cls, data: Mapping[str, Any], test: CarriedTest) -> _Stratum:
        stratum = cls(test)
        if len(data["signed"]) != len(stratum._signed) or len(data["means"]) != len(stratum._means):
            raise ValueError("the evidence of a stratum is of other indicators")
        stratum._signed = [BettingEProcess.from_state(one) for one in data["signed"]]
        stratum._means = [RunningMeanInterval.from_state({**one, "alpha": test.alpha}) for one in data["means"]]
        stratum._learner = SwapLearner.from_state(data["learner"])
        return stratum

    def _log_e_values(self) -> dict[str, float]:
        verdict, *indicators = (process.log_e_value for process in self._signed)
        learnt = self._learner.log_e_value
        action = log_mean([learnt, log_mean(indicators)]) if indicators else learnt
        return {VERDICT: verdict, ACTION: action}


def log_first_weighted(logs: Any, unseen: float) -> float:
    """The logarithm of the mean weighted by `first_weights`; what did not appear yet has the log value `unseen`."""
    weights = first_weights(len(logs))
    rest = max(1.0 - sum(weights), 0.0)
    every = np.array([*(log + math.log(weight) for log, weight in zip(logs, weights, strict=True))])
    if unseen > -math.inf:
        every = np.append(every, unseen + math.log(rest))
    return -math.inf if not every.size else float(np.logaddexp.reduce(every))


def evidence_of(pairs: Iterable[Pair]) -> Iterable[Observation]:
    """What came in planned order before the night's own stop: what came after it came by the speed of answers."""
    for pair in pairs:
        if pair.evidence and not pair.lost:
            yield Observation(pair.logged.stratum, pair.baseline.outcome(), pair.candidate.outcome())


def log_mean(logs: Sequence[float]) -> float:
    """The logarithm of a mean, from logarithms."""
    return float(np.logaddexp.reduce(np.array(logs))) - math.log(len(logs))
