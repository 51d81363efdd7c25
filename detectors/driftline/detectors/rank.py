"""Soft rank: is the candidate the odd one out more often than one of the incumbent's own runs would be?"""

from collections.abc import Hashable, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from driftline.detectors.betting import LOG_E_MAX, STAKES, Floats, add_rows, checked_indices, e_from_log, log_mean_exp
from driftline.detectors.carried import Saved, State, carried

# Numbers of cached baselines for which the rows of log capital are kept; a replay has one such number.
BASELINE_COUNTS_KEPT = 16
# Beyond so many baselines a table of all pairs of scores is larger than a batch of events.
BASELINES_TABLED_MAX = 16


class SoftRank:
    """An e-process for "the candidate's answer is exchangeable with k cached answers of the incumbent".

    Per event, s_j is the number of the other k samples that sample j differs from, and the candidate's
    E = (k + 1) * s_B / sum of all s (1 where all agree); the capital is the mean over a fixed grid of stakes of
    prod(1 - stake + stake * E). If the candidate is exchangeable with the k baselines given the past, E has mean 1
    and the chance that `e_value` ever reaches 1/alpha is at most alpha. One paid call an event; baselines are cached.

    Not guaranteed: anything if the baselines were used to choose the events; a floor estimated from the same
    samples gives false alarms always. One-sided: a candidate that varies *less* than the incumbent is not seen.

    Source: Waudby-Smith & Ramdas 2024 for the betting.
    """

    __slots__ = ("_log_capital", "_n")

    def __init__(self) -> None:
        self._log_capital = np.zeros(len(STAKES))
        self._n = 0

    @property
    def n(self) -> int:
        """How many events were fed."""
        return self._n

    @property
    def log_e_value(self) -> float:
        """Natural logarithm of the current e-value."""
        return float(log_mean_exp(self._log_capital))

    @property
    def e_value(self) -> float:
        """The current e-value (not its running maximum), held at the largest double."""
        return e_from_log(self.log_e_value)

    def update(self, candidate: Hashable, baselines: Sequence[Hashable]) -> None:
        """Bet on one event: the candidate's answer against the cached ones, compared by equality.

        Raises:
            ValueError: there is no baseline.
        """
        if not baselines:
            raise ValueError("a soft rank needs at least one cached baseline")
        self._n += 1
        self._log_capital += np.log1p(np.asarray(STAKES) * (rank_e_value(candidate, baselines) - 1.0))

    def state(self) -> State:
        """Return what `from_state` needs to go on exactly from here: plain JSON data."""
        return carried("soft rank", n=self._n, log_capital=self._log_capital.tolist())

    @classmethod
    def from_state(cls, data: object) -> "SoftRank":
        """Return the process that `state` described; what it is fed next gives the same e-values to the last bit.

        Raises:
            ValueError: `data` are not the state of such a process, or of another format.
        """
        saved = Saved(data, "soft rank")
        process = cls()
        process._n = saved.whole("n")
        process._log_capital = saved.floats("log_capital", (len(STAKES),))
        return process


class SoftRanks:
    """Many independent `SoftRank` at once, one per stratum, with the same contract for each.

    Answers come as integer codes: equal codes are equal answers. A code means something within its event only.
    """

    __slots__ = ("_log_capital", "_n")

    def __init__(self, strata: int) -> None:
        self._log_capital = np.zeros((strata, len(STAKES)))
        self._n = np.zeros(strata, dtype=np.int64)

    @property
    def n(self) -> NDArray[np.int64]:
        """How many events each stratum was fed; shape (strata,)."""
        return self._n.copy()

    @property
    def log_e_values(self) -> Floats:
        """Natural logarithms of the current e-values; shape (strata,)."""
        return log_mean_exp(self._log_capital, axis=1)

    @property
    def e_values(self) -> Floats:
        """The current e-values; shape (strata,)."""
        return np.exp(np.minimum(self.log_e_values, LOG_E_MAX))

    def update(self, stratum_indices: Sequence[int] | NDArray[np.int64], answers: ArrayLike) -> None:
        """Bet on `answers[i]`, the candidate's code and then its baselines', in stratum `stratum_indices[i]`.

        A stratum may occur several times. Peek only between calls: within one call there is no order.

        Args:
            stratum_indices: the stratum of each event; shape (events,).
            answers: integer codes; shape (events, k + 1), k >= 1.

        Raises:
            ValueError: shapes do not fit, or there is no baseline.
            IndexError: there is no such stratum.
        """
        codes = np.asarray(answers)
        indices = checked_indices(stratum_indices, codes.shape[:1], self._n.size, "answers")
        own, total = rank_scores(codes)
        np.add.at(self._n, indices, 1)
        # Where all agree nothing is won or lost.
        differing = np.flatnonzero(total)
        rows = _score_rows(codes.shape[1] - 1, own[differing], total[differing])
        add_rows(self._log_capital, indices[differing], rows)

    def update_e_values(self, stratum_indices: Sequence[int] | NDArray[np.int64], e_values: ArrayLike) -> None:
        """Bet on the E of events as `rank_e_value` gives them, where the number of baselines varies; as `update`.

        Raises:
            ValueError: shapes differ, or an E is negative or not a finite number.
            IndexError: there is no such stratum.
        """
        values = np.asarray(e_values, dtype=np.float64)
        indices = checked_indices(stratum_indices, values.shape, self._n.size, "e_values")
        if not np.all((values >= 0.0) & (values < np.inf)):
            raise ValueError("every E must be a finite number that is not negative")
        np.add.at(self._n, indices, 1)
        distinct, which = np.unique(values, return_inverse=True)
        add_rows(self._log_capital, indices, _rows(distinct)[which])

    def state(self) -> State:
        """Return what `from_state` needs to go on exactly from here: plain JSON data."""
        return carried("soft ranks of many strata", n=self._n.tolist(), log_capital=self._log_capital.tolist())

    @classmethod
    def from_state(cls, data: object) -> "SoftRanks":
        """Return the processes that `state` described; as `SoftRank.from_state`.

        Raises:
            ValueError: `data` are not the state of such processes, or of another format.
        """
        saved = Saved(data, "soft ranks of many strata")
        processes = cls(0)
        processes._n = saved.wholes("n", (-1,))
        processes._log_capital = saved.floats("log_capital", (processes._n.size, len(STAKES)))
        return processes


def rank_e_value(candidate: Hashable, baselines: Sequence[Hashable]) -> float:
    """Return E of one event, in [0, (k + 1) / 2]; see `SoftRank`."""
    answers = [candidate, *baselines]
    differing = [sum(answer != other for other in answers) for answer in answers]
    total = sum(differing)
    return len(answers) * differing[0] / total if total else 1.0


def rank_scores(codes: NDArray[np.generic]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return s_B and the sum of all s, of events whose `codes` have shape (events, k + 1), the candidate first.

    Raises:
        ValueError: the codes are not integers of that shape, or there is no baseline.
    """
    if codes.ndim != 2 or codes.dtype.kind not in "iu":
        raise ValueError("answers must be integer codes of shape (events, k + 1)")
    if codes.shape[1] < 2:
        raise ValueError("a soft rank needs at least one cached baseline")
    columns = np.ascontiguousarray(codes.T)
    own = np.zeros(codes.shape[0], dtype=np.int64)
    total = np.zeros(codes.shape[0], dtype=np.int64)
    for first in range(len(columns)):
        for second in range(first + 1, len(columns)):
            total += columns[first] != columns[second]
        if first == 0:
            own += total
    return own, 2 * total


def _score_rows(baselines: int, own: NDArray[np.int64], total: NDArray[np.int64]) -> Floats:
    if baselines > BASELINES_TABLED_MAX:
        return _rows((baselines + 1) * own / total)
    return np.asarray(_score_table(baselines)[own * _totals(baselines) + total], dtype=np.float64)


def _totals(baselines: int) -> int:
    """How many values the sum of all s can take, 0 among them."""
    return baselines * (baselines + 1) + 1


@lru_cache(maxsize=BASELINE_COUNTS_KEPT)
def _score_table(baselines: int) -> Floats:
    """The row of every (s_B, sum of all s), in this order; of pairs that cannot be, any."""
    own = np.arange(baselines + 1)[:, None]
    total = np.maximum(np.arange(_totals(baselines)), 1)
    return _rows(((baselines + 1) * own / np.maximum(total, own)).ravel())


def _rows(e_values: Floats) -> Floats:
    """What one event of each E adds to the log capital of every stake; shape (events, stakes)."""
    return np.asarray(np.log1p(np.outer(e_values - 1.0, STAKES)), dtype=np.float64)
