"""Maximum mean discrepancy: does the candidate spread its answers differently than the incumbent?"""

from collections.abc import Callable
from typing import Any, TypeVar

from driftline.detectors.betting import BettingEProcess
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
    if not all(0.0 <= value <= 1.0 for value in within + across):
        raise ValueError("a kernel must have values in [0, 1]")
    return sum(within) - sum(across) / 2


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
