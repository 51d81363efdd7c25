"""Betting e-processes: capital that cannot be expected to grow while nothing has changed."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from driftline.detectors.carried import Saved, State, carried

Floats = NDArray[np.float64]

# Shares of the capital that are staked, mixed with equal weights. The smallest serves drifts of a percent
# over thousands of events, the largest alarms on a handful of flips that all point the same way.
STAKES: tuple[float, ...] = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.97)

# Differences that are counted instead of added up: a difference of verdicts is one of these, and so is most else.
COUNTED: tuple[float, ...] = (-1.0, 0.0, 1.0)
# The column in which differences are counted that are none of these.
OTHERS = len(COUNTED)

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
    if axis is None:
        # Asked for after every event: a third of the calls below.
        highest = values.max()
        return np.asarray(highest + np.log(np.exp(values - highest).sum() / values.size), dtype=np.float64)
    top = np.max(values, axis=axis, keepdims=True)
    mean = np.mean(np.exp(values - top), axis=axis, keepdims=True)
    return np.asarray(np.squeeze(top + np.log(mean), axis=axis), dtype=np.float64)


def e_from_log(log_e: float) -> float:
    """Return exp(log_e), held at the largest double instead of overflowing."""
    return math.exp(min(log_e, LOG_E_MAX))


class Stakes:
    """The signed stakes of the mixture, and what each wins on a difference.

    Raises:
        ValueError: `min_effect` is outside [0, 1).
    """

    __slots__ = ("_drag", "coefficients", "min_effect", "two_sided")

    def __init__(self, min_effect: float, two_sided: bool) -> None:
        self.min_effect, self.two_sided = min_effect, two_sided
        self.coefficients = mixture_coefficients(min_effect, two_sided)
        self._drag = np.abs(self.coefficients) * min_effect

    def gains(self, d: float) -> Floats:
        """Logarithms of what each stake's capital is multiplied by; shape (stakes,).

        Raises:
            ValueError: `d` is outside [-1, 1] or not a number.
        """
        if not -1.0 <= d <= 1.0:
            raise ValueError(f"a difference must be in [-1, 1], got {d}")
        return np.log1p(self.coefficients * d - self._drag)

    def gains_of_all(self, differences: Floats) -> Floats:
        """As `gains`, of differences that were checked; shape (differences, stakes)."""
        return np.asarray(np.log1p(np.outer(differences, self.coefficients) - self._drag), dtype=np.float64)


class BettingEProcess:
    """An e-process for "the mean difference is at most `min_effect` in size", one event at a time.

    After each `update`, `e_value` is the mean over a fixed grid of stakes of prod(1 + stake * (d - min_effect)),
    and, two-sided, the mean of that for d and for -d. If E[d | past] lies within +-`min_effect` (one-sided: is at
    most `min_effect`), the chance that `e_value` *ever* reaches 1/alpha is at most alpha, at any stopping time.
    Computed in log space, in memory that does not grow.

    Not guaranteed: anything if the order of events depends on their outcome, or if d is scaled after the fact.

    Source: Waudby-Smith & Ramdas 2024; Ville's inequality.
    """

    __slots__ = ("_log_capital", "_n", "_stakes")

    def __init__(self, min_effect: float = 0.0, two_sided: bool = True) -> None:
        self._stakes = Stakes(min_effect, two_sided)
        self._log_capital = np.zeros_like(self._stakes.coefficients)
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
        self._log_capital += self._stakes.gains(d)
        self._n += 1

    def state(self) -> State:
        """Return what `from_state` needs to go on exactly from here: plain JSON data."""
        return carried(
            "betting",
            min_effect=self._stakes.min_effect,
            two_sided=self._stakes.two_sided,
            n=self._n,
            log_capital=self._log_capital.tolist(),
        )

    @classmethod
    def from_state(cls, data: object) -> "BettingEProcess":
        """Return the process that `state` described; what it is fed next gives the same e-values to the last bit.

        Raises:
            ValueError: `data` are not the state of such a process, or of another format.
        """
        saved = Saved(data, "betting")
        process = cls(saved.number("min_effect"), saved.flag("two_sided"))
        process._n = saved.whole("n")
        process._log_capital = saved.floats("log_capital", process._log_capital.shape)
        return process


class BettingEProcesses:
    """Many independent `BettingEProcess` at once, one per stratum, with the same contract for each.

    Differences of -1, 0 and 1 are counted and cost nothing until an e-value is asked for; others are bet on at once.
    An e-value depends on what was fed alone, never on when it was asked for.
    """

    __slots__ = ("_counts", "_log_capital", "_stakes")

    def __init__(self, strata: int, min_effect: float = 0.0, two_sided: bool = True) -> None:
        self._stakes = Stakes(min_effect, two_sided)
        self._counts = np.zeros((strata, OTHERS + 1), dtype=np.int64)
        # Capital won on differences that are not counted.
        self._log_capital = np.zeros((strata, self._stakes.coefficients.size))

    @property
    def n(self) -> NDArray[np.int64]:
        """How many differences each stratum was fed; shape (strata,)."""
        return np.asarray(self._counts.sum(axis=1), dtype=np.int64)

    @property
    def log_e_values(self) -> Floats:
        """Natural logarithms of the current e-values; shape (strata,)."""
        capital = self._log_capital.copy()
        for column, row in enumerate(self._stakes.gains_of_all(np.asarray(COUNTED))):
            if row.any():
                capital += np.outer(self._counts[:, column], row)
        return log_mean_exp(capital, axis=1)

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
        values = np.asarray(differences, dtype=np.float64)
        indices = checked_indices(stratum_indices, values.shape, self._counts.shape[0], "differences")
        if not np.all(np.abs(values) <= 1.0):
            raise ValueError("every difference must be in [-1, 1]")
        rounded = np.rint(values)
        counted = rounded == values
        columns = np.where(counted, rounded + 1.0, OTHERS).astype(np.int64)
        # One-dimensional, where numpy's unbuffered addition is fast.
        np.add.at(self._counts.reshape(-1), indices * (OTHERS + 1) + columns, 1)
        if not counted.all():
            others = values[~counted]
            distinct, which = np.unique(others, return_inverse=True)
            add_rows(self._log_capital, indices[~counted], self._stakes.gains_of_all(distinct)[which])

    def state(self) -> State:
        """Return what `from_state` needs to go on exactly from here: plain JSON data."""
        return carried(
            "betting of many strata",
            min_effect=self._stakes.min_effect,
            two_sided=self._stakes.two_sided,
            counts=self._counts.tolist(),
            log_capital=self._log_capital[self._counts[:, OTHERS] > 0].tolist(),
        )

    @classmethod
    def from_state(cls, data: object) -> "BettingEProcesses":
        """Return the processes that `state` described; as `BettingEProcess.from_state`.

        Raises:
            ValueError: `data` are not the state of such processes, or of another format.
        """
        saved = Saved(data, "betting of many strata")
        counts = saved.wholes("counts", (-1, OTHERS + 1))
        processes = cls(counts.shape[0], saved.number("min_effect"), saved.flag("two_sided"))
        processes._counts = counts
        uncounted = np.flatnonzero(counts[:, OTHERS])
        shape = (uncounted.size, processes._stakes.coefficients.size)
        processes._log_capital[uncounted] = saved.floats("log_capital", shape)
        return processes


def checked_indices(
    stratum_indices: Sequence[int] | NDArray[np.int64], shape: tuple[int, ...], strata: int, what: str
) -> NDArray[np.int64]:
    """Return the indices as an array, one for each of the values of this `shape`.

    Raises:
        ValueError: there are not as many indices as values, or either has more than one dimension.
        IndexError: there is no such stratum.
    """
    indices = np.asarray(stratum_indices, dtype=np.int64)
    if indices.shape != shape or indices.ndim != 1:
        raise ValueError(f"stratum_indices and {what} must be one-dimensional and equally long")
    if indices.size and not (indices.min() >= 0 and indices.max() < strata):
        raise IndexError(f"stratum indices must be in [0, {strata})")
    return indices


def add_rows(totals: Floats, indices: NDArray[np.int64], rows: Floats) -> None:
    """Add `rows[i]` to `totals[indices[i]]`, in place; an index may occur several times."""
    if np.all(indices[1:] > indices[:-1]) or np.unique(indices).size == indices.size:
        totals[indices] += rows
    else:
        np.add.at(totals, indices, rows)
