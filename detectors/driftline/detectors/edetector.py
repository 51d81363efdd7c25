"""E-detector: has something changed since an unknown moment, on a stream that never ends?"""

import math

import numpy as np

from driftline.detectors.betting import Stakes, e_from_log, log_mean_exp
from driftline.detectors.carried import Saved, State, carried


class EDetector:
    """An e-detector for "the mean difference is at most `min_effect` in size, and has been all along".

    An e-process begun at every event, added up: per stake SR_n = (1 + SR_(n-1)) * (1 + stake * d_n), and `value` is
    the mean over the grid of stakes (two-sided: of both signs). As long as E[d | past] lies within +-`min_effect`
    (one-sided: is at most `min_effect`), the mean number of events until `value` reaches 1/alpha is at least 1/alpha,
    at whatever event the reading began. A quiet year costs no evidence, which it does an e-process: the delay after
    a change hardly depends on when it comes. Computed in log space, in memory that does not grow.

    Not guaranteed: a small *chance* of a false alarm. On a stream that never ends there is one for certain, some
    time; 1/alpha bounds the mean number of events between two from below. After an alarm begin a new detector. The
    mean of the values of several detectors that follow the same moments (strata, levels) is an e-detector too; their
    product is none.

    Source: Shin, Ramdas & Rinaldo 2022, "E-detectors" (Shiryaev-Roberts form, mixture of baseline increments).
    """

    __slots__ = ("_log_sums", "_n", "_stakes")

    def __init__(self, min_effect: float = 0.0, two_sided: bool = True) -> None:
        self._stakes = Stakes(min_effect, two_sided)
        # log(1 + SR), which unlike log(SR) is finite from the start.
        self._log_sums = np.zeros_like(self._stakes.coefficients)
        self._n = 0

    @property
    def n(self) -> int:
        """How many differences were fed."""
        return self._n

    @property
    def log_value(self) -> float:
        """Natural logarithm of the current value; minus infinity before the first event."""
        log_sum = float(log_mean_exp(self._log_sums))
        # The mean of SR is the mean of (1 + SR) less 1.
        return log_sum + math.log(-math.expm1(-log_sum)) if log_sum > 0.0 else -math.inf

    @property
    def value(self) -> float:
        """The current value, 0 before the first event, held at the largest double."""
        return e_from_log(self.log_value)

    def alarms(self, alpha: float) -> bool:
        """Whether the value has reached 1 / `alpha`: at most one false alarm in 1 / `alpha` events, on average.

        Raises:
            ValueError: `alpha` is outside (0, 1).
        """
        if not 0.0 < alpha < 1.0:
            raise ValueError(f"alpha must be in (0, 1), got {alpha}")
        return self.log_value >= -math.log(alpha)

    def update(self, d: float) -> None:
        """Bet on one difference in [-1, 1].

        Raises:
            ValueError: `d` is outside [-1, 1] or not a number.
        """
        self._log_sums = np.logaddexp(0.0, self._log_sums + self._stakes.gains(d))
        self._n += 1

    def state(self) -> State:
        """Return what `from_state` needs to go on exactly from here: plain JSON data."""
        return carried(
            "e-detector",
            min_effect=self._stakes.min_effect,
            two_sided=self._stakes.two_sided,
            n=self._n,
            log_sums=self._log_sums.tolist(),
        )

    @classmethod
    def from_state(cls, data: object) -> "EDetector":
        """Return the detector that `state` described; what it is fed next gives the same values to the last bit.

        Raises:
            ValueError: `data` are not the state of such a detector, or of another format.
        """
        saved = Saved(data, "e-detector")
        detector = cls(saved.number("min_effect"), saved.flag("two_sided"))
        detector._n = saved.whole("n")
        detector._log_sums = saved.floats("log_sums", detector._log_sums.shape)
        return detector
