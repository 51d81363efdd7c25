"""Empirical-Bernstein confidence sequence: the mean so far, where the mean itself may drift."""

import math

from driftline.detectors.carried import Saved, State, carried
from driftline.detectors.outcomes import Interval

# Shape of the stitched boundary: the intrinsic time grows by ETA from one epoch to the next, and the errors of the
# epochs fall off with the power S. The values that the paper recommends.
ETA = 2.04
S = 1.4
# Riemann's zeta function at S.
ZETA_S = 3.1055472779775806
# Intrinsic time (sum of squares, in units of the range) from which on the boundary is tight.
TIGHT_FROM = 1.0

_K1 = (ETA**0.25 + ETA**-0.25) / math.sqrt(2.0)
_K2 = (math.sqrt(ETA) + 1.0) / 2.0


def stitched_boundary(intrinsic_time: float, alpha: float) -> float:
    """Return a bound that a sum of scale 1 crosses, at any time, with a chance of at most `alpha`.

    Of order sqrt(v log log v) in the intrinsic time v.

    Source: Howard, Ramdas, McAuliffe & Sekhon 2021, equation 10, with c = 1 and m = `TIGHT_FROM`.
    """
    v = max(intrinsic_time, TIGHT_FROM)
    level = S * math.log(math.log(ETA * v / TIGHT_FROM)) + math.log(ZETA_S / (alpha * math.log(ETA) ** S))
    return math.sqrt(_K1**2 * v * level + (_K2 * level) ** 2) + _K2 * level


class RunningMeanInterval:
    """A 1 - alpha confidence sequence for the running mean of conditional means, (1/t) sum of E[x_i | past].

    The means may drift and depend on the past in any way; only the range is known. The chance that `interval` ever
    fails to cover, at any event, is at most alpha. Its width goes with the spread of the values around their mean so
    far, as sqrt(log log t / t). It follows a log in its own order, where `betting_interval` needs one mean or a
    random order. In memory that does not grow.

    Not guaranteed: anything of the mean *now*, which may have drifted off the mean so far. Intervals of earlier
    events are for other targets, so they are not intersected.

    Source: Howard, Ramdas, McAuliffe & Sekhon 2021, "Time-uniform, nonparametric, nonasymptotic confidence
    sequences", theorem 4 with the polynomial stitched boundary.

    Args:
        alpha: the chance of ever failing to cover, both sides together.
        bounds: the range of the values.
    """

    __slots__ = ("_alpha", "_high", "_low", "_n", "_squares", "_sum")

    def __init__(self, alpha: float = 0.05, bounds: tuple[float, float] = (-1.0, 1.0)) -> None:
        if not 0.0 < alpha < 1.0:
            raise ValueError(f"alpha must be in (0, 1), got {alpha}")
        if not bounds[0] < bounds[1] or not math.isfinite(bounds[1] - bounds[0]):
            raise ValueError(f"bounds must be finite and ascending, got {bounds}")
        self._alpha = alpha
        self._low, self._high = bounds
        self._n, self._sum, self._squares = 0, 0.0, 0.0

    @property
    def n(self) -> int:
        """How many values were fed."""
        return self._n

    @property
    def mean(self) -> float | None:
        """The mean of the values; None before the first."""
        return self._low + (self._high - self._low) * self._sum / self._n if self._n else None

    @property
    def interval(self) -> Interval:
        """The interval after the values so far, within the bounds; the bounds themselves before the first."""
        if not self._n:
            return (self._low, self._high)
        middle, radius = self._sum / self._n, stitched_boundary(self._squares, self._alpha / 2) / self._n
        width = self._high - self._low
        return (self._low + width * max(middle - radius, 0.0), self._low + width * min(middle + radius, 1.0))

    def update(self, x: float) -> None:
        """Take the next value.

        Raises:
            ValueError: it is outside the bounds or not a number.
        """
        if not self._low <= x <= self._high:
            raise ValueError(f"a value must be within {(self._low, self._high)}, got {x}")
        unit = (x - self._low) / (self._high - self._low)
        # What was expected of x before it was seen: the mean so far, drawn to the middle by half an event.
        expected = (self._sum + 0.5) / (self._n + 1)
        self._squares += (unit - expected) ** 2
        self._sum += unit
        self._n += 1

    def state(self) -> State:
        """Return what `from_state` needs to go on exactly from here: plain JSON data."""
        return carried(
            "running mean interval",
            alpha=self._alpha,
            bounds=[self._low, self._high],
            n=self._n,
            sum=self._sum,
            squares=self._squares,
        )

    @classmethod
    def from_state(cls, data: object) -> "RunningMeanInterval":
        """Return the interval that `state` described; what it is fed next gives the same ends to the last bit.

        Raises:
            ValueError: `data` are not the state of such an interval, or of another format.
        """
        saved = Saved(data, "running mean interval")
        low, high = saved.floats("bounds", (2,)).tolist()
        interval = cls(saved.number("alpha"), (low, high))
        interval._n, interval._sum, interval._squares = (
            saved.whole("n"),
            saved.number("sum"),
            saved.number("squares"),
        )
        return interval
