"""Betting e-processes: capital that cannot be expected to grow while nothing has changed."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

# Shares of the capital that are staked, mixed with equal weights. The smallest serves drifts of a percent
# over thousands of events, the largest alarms on a handful of flips that all point the same way.
STAKES: tuple[float, ...] = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.97)

# exp() of more overflows a double; an e-value beyond it is no different in use.
LOG_E_MAX = 709.0


def mixture_coefficients(min_effect: float = 0.0, two_sided: bool = True) -> Floats:
    """Return the signed stakes of the mixture, scaled so that no bet can lose all the capital.

    Raises:
        ValueError: `min_effect` is outside [0, 1).
    """
    if not 0.0 <= min_effect < 1.0:
        raise ValueError(f"min_effect must be in [0, 1), got {min_effect}")
    stakes = np.asarray(STAKES) / (1.0 + min_effect)
    return np.concatenate([stakes, -stakes]) if two_sided else stakes


def log_mean_exp(values: Floats, axis: int | None = None) -> Floats:
    """Return log(mean(exp(values))) along `axis`, without overflow."""
    top = np.max(values, axis=axis, keepdims=True)
    mean = np.mean(np.exp(values - top), axis=axis, keepdims=True)
    return np.asarray(np.squeeze(top + np.log(mean), axis=axis), dtype=np.float64)


def e_from_log(log_e: float) -> float:
    """Return exp(log_e), held at the largest double instead of overflowing."""
    return math.exp(min(log_e, LOG_E_MAX))


class BettingEProcess:
    """An e-process for "the mean difference is at most `min_effect` in size", one event at a time.

    After each `update`, `e_value` is the mean over a fixed grid of stakes of prod(1 + stake * (d - min_effect)),
    and, two-sided, the mean of that for d and for -d. If E[d | past] lies within +-`min_effect` (one-sided: is at
    most `min_effect`), the chance that `e_value` *ever* reaches 1/alpha is at most alpha, at any stopping time.
    Computed in log space, in memory that does not grow.

    Not guaranteed: anything if the order of events depends on their outcome, or if d is scaled after the fact.

    Source: Waudby-Smith & Ramdas 2024; Ville's inequality.
    """

    __slots__ = ("_coefficients", "_drag", "_log_capital", "_n")

    def __init__(self, min_effect: float = 0.0, two_sided: bool = True) -> None:
        self._coefficients = mixture_coefficients(min_effect, two_sided)
        self._drag = np.abs(self._coefficients) * min_effect
        self._log_capital = np.zeros_like(self._coefficients)
        self._n = 0

    @property
    def n(self) -> int:
        """How many differences were fed."""
        return self._n

    @property
    def log_e_value(self) -> float:
        """Natural logarithm of the current e-value."""
        return float(log_mean_exp(self._log_capital))

    @property
    def e_value(self) -> float:
        """The current e-value (not its running maximum), held at the largest double."""
        return e_from_log(self.log_e_value)

    def update(self, d: float) -> None:
        """Bet on one difference in [-1, 1]: candidate minus baseline.

        Raises:
            ValueError: `d` is outside [-1, 1] or not a number.
        """
        if not -1.0 <= d <= 1.0:
            raise ValueError(f"a difference must be in [-1, 1], got {d}")
        self._n += 1
        self._log_capital += np.log1p(self._coefficients * d - self._drag)


class BettingEProcesses:
    """Many independent `BettingEProcess` at once, one per stratum, with the same contract for each."""

    __slots__ = ("_coefficients", "_drag", "_log_capital", "_n")

    def __init__(self, strata: int, min_effect: float = 0.0, two_sided: bool = True) -> None:
        self._coefficients = mixture_coefficients(min_effect, two_sided)
        self._drag = np.abs(self._coefficients) * min_effect
        self._log_capital = np.zeros((strata, self._coefficients.size))
        self._n = np.zeros(strata, dtype=np.int64)

    @property
    def n(self) -> NDArray[np.int64]:
        """How many differences each stratum was fed; shape (strata,)."""
        return self._n.copy()

    @property
    def log_e_values(self) -> Floats:
        """Natural logarithms of the current e-values; shape (strata,)."""
        return log_mean_exp(self._log_capital, axis=1)

    @property
    def e_values(self) -> Floats:
        """The current e-values; shape (strata,)."""
        return np.exp(np.minimum(self.log_e_values, LOG_E_MAX))

    def update(self, stratum_indices: Sequence[int] | NDArray[np.int64], differences: ArrayLike) -> None:
        """Bet on `differences[i]` in stratum `stratum_indices[i]`; a stratum may occur several times.

        Peek only between calls: within one call there is no order.

        Raises:
            ValueError: shapes differ, or a difference is outside [-1, 1] or not a number.
            IndexError: there is no such stratum.
        """
        indices = np.asarray(stratum_indices, dtype=np.int64)
        values = np.asarray(differences, dtype=np.float64)
        if indices.shape != values.shape or indices.ndim != 1:
            raise ValueError("stratum_indices and differences must be one-dimensional and equally long")
        if not np.all(np.abs(values) <= 1.0):
            raise ValueError("every difference must be in [-1, 1]")
        if indices.size and not (indices.min() >= 0 and indices.max() < self._n.size):
            raise IndexError(f"stratum indices must be in [0, {self._n.size})")
        np.add.at(self._n, indices, 1)
        np.add.at(self._log_capital, indices, np.log1p(np.outer(values, self._coefficients) - self._drag))
