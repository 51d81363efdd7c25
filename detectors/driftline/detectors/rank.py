"""Soft rank: is the candidate the odd one out more often than one of the incumbent's own runs would be?"""

from collections.abc import Hashable, Sequence

import numpy as np

from driftline.detectors.betting import STAKES, e_from_log, log_mean_exp


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


def rank_e_value(candidate: Hashable, baselines: Sequence[Hashable]) -> float:
    """Return E of one event, in [0, (k + 1) / 2]; see `SoftRank`."""
    answers = [candidate, *baselines]
    differing = [sum(answer != other for other in answers) for answer in answers]
    total = sum(differing)
    return len(answers) * differing[0] / total if total else 1.0
