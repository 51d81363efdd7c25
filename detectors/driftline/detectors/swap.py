"""The swap learner: learns in which direction answers move, and bets on what it had learnt before."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from driftline.detectors.betting import Floats, e_from_log, log_mean_exp
from driftline.detectors.features import hashed_difference

# Several learning rates and stakes, mixed with equal weights: a slow learner for noisy shifts, a fast one for
# a shift that shows in a handful of events.
LEARNING_RATES: tuple[float, ...] = (0.3, 1.0)
LEARNER_STAKES: tuple[float, ...] = (0.25, 0.5, 0.75, 0.97)

# Length to which a difference is scaled: that of "one value replaced by another" in one-hot coding.
DIFFERENCE_NORM = 2.0**0.5
# A difference that underflows when squared is left as small as it is, and moves nothing.
SMALLEST_NORM = 1e-150


class SwapLearner:
    """An e-process for "swapping the two answers to an event changes nothing", on named features.

    Per event the difference x = phi(B) - phi(L) is scaled, D = tanh(w.x / 2) is bet on, and only then is w moved
    by one step of online logistic regression (AdaGrad). D is odd in x, so if L and B are exchangeable given the
    past, E[D | past] = 0 and the chance that `e_value` ever reaches 1/alpha is at most alpha. Scaling uses |x|
    alone (the largest seen per coordinate, this event included), so units of a feature do not matter and the
    oddness stays exact. With `min_effect` m the null is wider: any law of (L, B) within total variation m of its
    swapped self.

    Not guaranteed: power against changes that move no feature, or that move answers round a circle (a to b as
    often as b to c and c to a). Which features are given is fixed before any call, or depends on the event alone.

    Source: Podkopaev & Ramdas 2023 (sequential classification tests); Duchi, Hazan & Singer 2011 (AdaGrad).

    Args:
        dimensions: coordinates that names are hashed to; memory is proportional to it.
        min_effect: the smallest effect worth an alarm, in [0, 1).
        rates: learning rates mixed with equal weights.
    """

    __slots__ = ("_capital", "_drag", "_gradients", "_n", "_rates", "_scales", "_stakes", "_weights")

    def __init__(
        self, dimensions: int = 256, *, min_effect: float = 0.0, rates: Sequence[float] = LEARNING_RATES
    ) -> None:
        if dimensions < 1 or not rates or not 0.0 <= min_effect < 1.0:
            raise ValueError("a swap learner needs a dimension, a rate, and min_effect in [0, 1)")
        self._rates = np.asarray(rates, dtype=np.float64)[:, None]
        self._stakes = np.asarray(LEARNER_STAKES) / (1.0 + min_effect)
        self._drag = self._stakes * min_effect
        self._weights = np.zeros((len(rates), dimensions))
        self._gradients = np.zeros((len(rates), dimensions))
        self._scales = np.zeros(dimensions)
        self._capital = np.zeros((len(rates), self._stakes.size))
        self._n = 0

    @property
    def n(self) -> int:
        """How many events were fed."""
        return self._n

    @property
    def log_e_value(self) -> float:
        """Natural logarithm of the current e-value."""
        return float(log_mean_exp(self._capital.ravel()))

    @property
    def e_value(self) -> float:
        """The current e-value (not its running maximum), held at the largest double."""
        return e_from_log(self.log_e_value)

    def update(self, baseline: Mapping[str, float], candidate: Mapping[str, float]) -> None:
        """Bet on one event with what was learnt before it, then learn from it.

        Raises:
            ValueError: a feature is not a finite number.
        """
        coordinates, values = hashed_difference(baseline, candidate, self._scales.size)
        self._n += 1
        if not coordinates.size:
            self._capital += np.log1p(-self._drag)
            return
        x = self._scaled(coordinates, values)
        margins = self._weights[:, coordinates] @ x
        self._capital += np.log1p(np.tanh(margins / 2)[:, None] * self._stakes - self._drag)
        self._learn(coordinates, x, margins)

    def _scaled(self, coordinates: NDArray[np.int64], values: Floats) -> Floats:
        scales = np.maximum(self._scales[coordinates], np.abs(values))
        self._scales[coordinates] = scales
        x = values / scales
        norm = max(float(np.linalg.norm(x)), SMALLEST_NORM)
        return np.asarray(x * (DIFFERENCE_NORM / norm), dtype=np.float64)

    def _learn(self, coordinates: NDArray[np.int64], x: Floats, margins: Floats) -> None:
        surprise = 0.5 - 0.5 * np.tanh(margins / 2)
        gradient = surprise[:, None] * x
        squares = self._gradients[:, coordinates] + gradient**2
        self._gradients[:, coordinates] = squares
        root = np.sqrt(np.where(squares > 0.0, squares, 1.0))
        self._weights[:, coordinates] += self._rates * gradient / root
