"""Two answers of each arm: does the candidate spread its answers differently than the incumbent?"""

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from driftline.detectors.betting import BettingEProcess, e_from_log
from driftline.detectors.carried import Saved, State, carried

T = TypeVar("T")
Kernel = Callable[[T, T], float]


def same(one: object, other: object) -> float:
    """The kernel by default: 1 where two answers (or their hashes) are equal, else 0."""
    return float(one == other)


def mmd_statistic(baseline_pair: tuple[T, T], candidate_pair: tuple[T, T], kernel: Kernel[T] = same) -> float:
    """Return S = k(L, A') + k(B, B') - half of [k(L, B) + k(L, B') + k(A', B) + k(A', B')], in [-2, 2].

    If the four are exchangeable its mean is 0; if the pairs are drawn from two laws, its mean is the squared distance
    of their embeddings, so for a positive definite kernel never negative. Equality of hashes is such a kernel.

    Source: Gretton, Borgwardt, Rasch, Schölkopf & Smola 2012.

    Raises:
        ValueError: the kernel's value is outside [0, 1].
    """
    (first, second), (third, fourth) = baseline_pair, candidate_pair
    within = [kernel(first, second), kernel(third, fourth)]
    across = [kernel(first, third), kernel(first, fourth), kernel(second, third), kernel(second, fourth)]
    _require_unit(within + across)
    return sum(within) - sum(across) / 2


def spread_difference(baseline_pair: tuple[T, T], candidate_pair: tuple[T, T], kernel: Kernel[T] = same) -> float:
    """Return D = k(L, A') - k(B, B'), in [-1, 1]: above 0 where the candidate agrees less with itself.

    If the four are exchangeable its mean is 0. It is the part of `mmd_statistic` that lies within the arms, with the
    signs that make its mean grow with a change of spread itself and not with its square; a candidate that gives other
    answers and spreads them alike it does not see.

    Raises:
        ValueError: the kernel's value is outside [0, 1].
    """
    within = [kernel(*baseline_pair), kernel(*candidate_pair)]
    _require_unit(within)
    return within[0] - within[1]


def _require_unit(values: Sequence[float]) -> None:
    if not all(0.0 <= value <= 1.0 for value in values):
        raise ValueError("a kernel must have values in [0, 1]")


class MmdEProcess:
    """An e-process for "two answers of the incumbent and two of the candidate are exchangeable".

    Per event `mmd_statistic` / 2, in [-1, 1], is bet on with a fixed grid of stakes, all of one sign: under any
    change the statistic's mean is positive, and a bet on the other sign would only give away half of the capital. If
    the four answers to an event are exchangeable given the past, the chance that `e_value` ever reaches 1/alpha is at
    most alpha, at any stopping time. It sees what rates of mismatch cannot: a candidate that always gives the
    commonest answer (sharpening), or one that varies more around it. Three paid calls an event, beside the log.

    With `min_effect` m the null is wider: independent answers of two laws within total variation m of one another,
    given the event. Their embeddings lie within m * sqrt(2), so the statistic's half has a mean of at most m^2.

    Not guaranteed: power if the kernel is not positive definite. Validity holds for any kernel with values in [0, 1].

    Source: Shekhar & Ramdas 2021 (tests of two samples by betting); Waudby-Smith & Ramdas 2024.
    """

    __slots__ = ("_bets", "_kernel")

    def __init__(self, kernel: Kernel[Any] = same, min_effect: float = 0.0) -> None:
        self._kernel = kernel
        self._bets = BettingEProcess(min_effect**2, two_sided=False)

    @property
    def n(self) -> int:
        """How many events were fed."""
        return self._bets.n

    @property
    def log_e_value(self) -> float:
        """Natural logarithm of the current e-value."""
        return self._bets.log_e_value

    @property
    def e_value(self) -> float:
        """The current e-value (not its running maximum), held at the largest double."""
        return self._bets.e_value

    def update(self, baseline_pair: tuple[Any, Any], candidate_pair: tuple[Any, Any]) -> None:
        """Bet on one event: two answers of the incumbent, of which one may be the log's, and two of the candidate.

        Raises:
            ValueError: the kernel's value is outside [0, 1].
        """
        self._bets.update(mmd_statistic(baseline_pair, candidate_pair, self._kernel) / 2)

    def state(self) -> State:
        """Return what `from_state` needs to go on exactly from here: plain JSON data, without the kernel."""
        return carried("mmd", bets=self._bets.state())

    @classmethod
    def from_state(cls, data: object, kernel: Kernel[Any] = same) -> "MmdEProcess":
        """Return the process that `state` described; what it is fed next gives the same e-values to the last bit.

        Raises:
            ValueError: `data` are not the state of such a process, or of another format.
        """
        saved = Saved(data, "mmd")
        process = cls(kernel)
        process._bets = BettingEProcess.from_state(saved.inner("bets"))
        # Bets on both signs would be another process.
        saved.require(process._bets.state()["two_sided"] is False, "bets")
        return process


class SpreadEProcess:
    """An e-process for "two answers of the incumbent and two of the candidate are exchangeable", of two bets.

    Half of the capital is `MmdEProcess`, which sees any change of the law, in time that grows with the inverse fourth
    power of its size; half bets on `spread_difference` with both signs, which sees a candidate that varies more or
    less, in time that grows with the inverse square. Their mean is an e-process, whatever they share.

    With `min_effect` m the null is that of `MmdEProcess`: pairs of independent answers differ in law by at most
    m * (2 - m) then, and so does the mean of the difference.

    Source: `MmdEProcess`; Waudby-Smith & Ramdas 2024 for the bets; Vovk & Wang 2021 for the mean.
    """

    __slots__ = ("_difference", "_mmd")

    def __init__(self, min_effect: float = 0.0) -> None:
        self._mmd = MmdEProcess(min_effect=min_effect)
        self._difference = BettingEProcess(min_effect * (2.0 - min_effect))

    @property
    def log_e_value(self) -> float:
        """Natural logarithm of the current e-value."""
        return float(np.logaddexp(self._mmd.log_e_value, self._difference.log_e_value)) - math.log(2.0)

    @property
    def e_value(self) -> float:
        """The current e-value (not its running maximum), held at the largest double."""
        return e_from_log(self.log_e_value)

    def update(self, baseline_pair: tuple[object, object], candidate_pair: tuple[object, object]) -> None:
        """Bet on one event: two answers of the incumbent and two of the candidate, compared by equality."""
        self._mmd.update(baseline_pair, candidate_pair)
        self._difference.update(spread_difference(baseline_pair, candidate_pair))
