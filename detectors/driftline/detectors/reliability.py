"""Variance against drift: y(t) = mu t + sigma xi(t), out of repeated answers to the same events."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from driftline.detectors.betting import Floats
from driftline.detectors.outcomes import Interval
from driftline.detectors.walk import ROUNDING, Slope, variance_growth

_Ends = tuple[float, float, float]
VARIANCES: _Ends = (0.0, 0.5, 2.0)
SHIFTS: _Ends = (-1.0, 1.0, 0.5)
"""What the value of an event can be, and so many events more at either end of it for the interval of the mean."""


@dataclass(frozen=True, slots=True)
class RepeatedEvent:
    """One event with the verdicts of several runs, each in [0, 1].

    Attributes:
        stream: What it is reported under.
        workflow: What its error is clustered by.
        baseline: Of the incumbent's runs, run by run in the same order for every event; NaN where a run has none.
        candidate: Of the candidate's runs; empty where it was not asked.
    """

    stream: str
    workflow: str
    baseline: tuple[float, ...]
    candidate: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Decomposition:
    """Variance and drift of one stream, or of all.

    Attributes:
        events: With at least two verdicts of the incumbent.
        workflows: That these belong to.
        runs: Of the incumbent.
        sigma2: Mean variance within an event; for two binary verdicts half the share that disagree.
        sigma2_interval: None with fewer than two workflows.
        paired_events: Events that the candidate answered too.
        mu: Mean shift, candidate minus the mean of the incumbent's runs; None without a candidate.
        mu_interval: Its error is clustered by workflow; None as for sigma2.
        slope: None where there are too few events for windows, or too few of them vary.
        t_star: Events beyond which drift outweighs variance, sigma2 / mu^2; infinite where mu is 0.
        t_star_interval: Ends infinite where the interval of mu holds 0: then no t is shown at which it does.
        note: What limits the figures; empty where nothing does.
    """

    events: int
    workflows: int
    runs: int
    sigma2: float | None
    sigma2_interval: Interval | None
    paired_events: int
    mu: float | None
    mu_interval: Interval | None
    slope: Slope | None
    t_star: float | None
    t_star_interval: Interval | None
    note: str


@dataclass(frozen=True, slots=True)
class Reliability:
    """The decomposition of all events together, and of each stream."""

    pooled: Decomposition
    streams: Mapping[str, Decomposition]


def decompose(events: Sequence[RepeatedEvent], alpha: float = 0.05, seed: int = 0) -> Reliability:
    """Decompose what repeated runs say into variance and drift.

    Intervals have level 1 - alpha each, nearly, from the spread between workflows (a t interval of clustered means,
    with a few events added at both ends); that of t* takes both of its parts at alpha / 2. The variance of y(t) is
    taken over disjoint windows in the order given, of sums of each run's deviations from its event's mean.

    Not guaranteed: that all intervals hold at once; anything for workflows that share a cause; a slope near 1, from
    events that were shuffled: those have slope 1 by construction. Differences between events are no variance: only
    what one event's answers differ by is.

    Args:
        events: In log order.
        alpha: Of each interval.
        seed: Of the permutations that the slope's interval is made by.

    Raises:
        ValueError: `alpha` is outside (0, 1), events have different numbers of runs, or a verdict is outside [0, 1].
    """
    _check(events, alpha)
    streams = sorted({event.stream for event in events})
    return Reliability(
        _decomposed(events, alpha, seed),
        {name: _decomposed([event for event in events if event.stream == name], alpha, seed) for name in streams},
    )


def _check(events: Sequence[RepeatedEvent], alpha: float) -> None:
    if not 0.0 < alpha < 1.0:
        raise ValueError(f"alpha must be in (0, 1), got {alpha}")
    if len({len(event.baseline) for event in events}) > 1:
        raise ValueError("every event must have the same number of runs; give NaN where one has no verdict")
    if any(not 0.0 <= y <= 1.0 for event in events for y in (*event.baseline, *event.candidate) if not math.isnan(y)):
        raise ValueError("every verdict must be in [0, 1]")


def _decomposed(events: Sequence[RepeatedEvent], alpha: float, seed: int) -> Decomposition:
    repeated = [event for event in events if len(_known(event.baseline)) > 1]
    paired = [event for event in events if _known(event.baseline) and _known(event.candidate)]
    sigma2 = _Clustered.of(repeated, lambda event: float(np.var(_known(event.baseline), ddof=1)), VARIANCES)
    mu = _Clustered.of(paired, _shift, SHIFTS)
    t_star, t_star_interval = _t_star(sigma2, mu, alpha)
    complete = [event.baseline for event in repeated if len(_known(event.baseline)) == len(event.baseline)]
    slope = variance_growth(np.array(complete), alpha, seed) if complete else None
    return Decomposition(
        events=len(repeated),
        workflows=len({event.workflow for event in repeated}),
        runs=len(events[0].baseline) if events else 0,
        sigma2=sigma2.mean,
        sigma2_interval=sigma2.interval(alpha),
        paired_events=len(paired),
        mu=mu.mean,
        mu_interval=mu.interval(alpha),
        slope=slope,
        t_star=t_star,
        t_star_interval=t_star_interval,
        note=_note(slope, t_star_interval),
    )


def _known(verdicts: Sequence[float]) -> list[float]:
    return [verdict for verdict in verdicts if not math.isnan(verdict)]


def _shift(event: RepeatedEvent) -> float:
    return float(np.mean(_known(event.candidate)) - np.mean(_known(event.baseline)))


def _note(slope: Slope | None, t_star_interval: Interval | None) -> str:
    notes = []
    if t_star_interval is not None and math.isinf(t_star_interval[1]):
        notes.append("the interval of mu holds 0: no number of events is shown beyond which drift outweighs variance")
    if slope is not None and slope.verdict == "whole-run shifts":
        notes.append(
            "whole runs shift: a sum of verdicts varies more than sigma2 says, and mu more than its interval"
        )
    return "; ".join(notes)


@dataclass(frozen=True, slots=True)
class _Clustered:
    """A mean over events, each in [low, high], with sums and numbers of events by workflow."""

    low: float
    high: float
    ends: float
    """Events that an interval adds at either end."""
    sums: Floats
    counts: Floats

    @staticmethod
    def of(events: Sequence[RepeatedEvent], value: Callable[[RepeatedEvent], float], within: _Ends) -> "_Clustered":
        sums: dict[str, float] = {}
        counts: dict[str, int] = {}
        for event in events:
            sums[event.workflow] = sums.get(event.workflow, 0.0) + value(event)
            counts[event.workflow] = counts.get(event.workflow, 0) + 1
        return _Clustered(*within, np.array(list(sums.values())), np.array(list(counts.values()), dtype=np.float64))

    @property
    def mean(self) -> float | None:
        if not self.sums.size:
            return None
        mean = float(self.sums.sum() / self.counts.sum())
        return 0.0 if abs(mean) < ROUNDING else mean

    def interval(self, alpha: float) -> Interval | None:
        """A t interval of clustered means with a few events added at both ends, held within what the mean can be.

        Without them it has no width where no event differs, and covers too seldom where few do. None for fewer than
        two workflows.

        Source: Agresti & Coull 1998; Agresti & Min 2005, for differences of pairs.
        """
        if self.sums.size < 2:
            return None
        events = self.counts.sum() + 2 * self.ends
        mean = float(self.sums.sum() + self.ends * (self.low + self.high)) / events
        squares = float(((self.sums - self.counts * mean) ** 2).sum())
        squares += self.ends * ((self.low - mean) ** 2 + (self.high - mean) ** 2)
        clusters = self.sums.size + 2 * self.ends
        error = math.sqrt(squares * clusters / (clusters - 1)) / events
        reach = t_quantile(1.0 - alpha / 2, self.sums.size - 1) * error
        return max(self.low, mean - reach), min(self.high, mean + reach)


def t_quantile(probability: float, freedom: int) -> float:
    """Student's t quantile, by the expansion of Cornish and Fisher in 1 / `freedom`; exact for 1 and 2.

    Within 0.5 % for probabilities up to .995 from 3 degrees of freedom on.

    Source: Abramowitz & Stegun 26.7.5.
    """
    if freedom == 1:
        return math.tan(math.pi * (probability - 0.5))
    if freedom == 2:
        return (2 * probability - 1) * math.sqrt(2 / (4 * probability * (1 - probability)))
    z = NormalDist().inv_cdf(probability)
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return float(sum(term / freedom**power for power, term in enumerate(terms)))


def _t_star(sigma2: _Clustered, mu: _Clustered, alpha: float) -> tuple[float | None, Interval | None]:
    if sigma2.mean is None or mu.mean is None:
        return None, None
    point = sigma2.mean / mu.mean**2 if mu.mean else math.inf
    noise, drift = sigma2.interval(alpha / 2), mu.interval(alpha / 2)
    if noise is None or drift is None:
        return point, None
    largest = max(abs(drift[0]), abs(drift[1]))
    smallest = 0.0 if drift[0] <= 0.0 <= drift[1] else min(abs(drift[0]), abs(drift[1]))
    low = noise[0] / largest**2 if largest else math.inf
    return point, (low, noise[1] / smallest**2 if smallest else math.inf)
