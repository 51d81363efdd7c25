"""The swap learner: learns in which direction answers move, and bets on what it had learnt before."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from driftline.detectors.betting import Floats, e_from_log, log_mean_exp
from driftline.detectors.carried import Saved, State, carried
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

    __slots__ = ("_capital", "_drag", "_gradients", "_min_effect", "_n", "_rates", "_scales", "_stakes", "_weights")

    def __init__(
        self, dimensions: int = 256, *, min_effect: float = 0.0, rates: Sequence[float] = LEARNING_RATES
    ) -> None:
        if dimensions < 1 or not len(rates) or not 0.0 <= min_effect < 1.0:
            raise ValueError("a swap learner needs a dimension, a rate, and min_effect in [0, 1)")
        self._rates = np.asarray(rates, dtype=np.float64)
        self._min_effect = min_effect
        self._stakes = np.asarray(LEARNER_STAKES) / (1.0 + min_effect)
        self._drag = self._stakes * min_effect
        # One row a coordinate, so that the few of an event are read and written in one go.
        self._weights = np.zeros((dimensions, len(rates)))
        self._gradients = np.zeros((dimensions, len(rates)))
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
        self._bet(*hashed_difference(baseline, candidate, self._scales.size))

    def update_difference(self, difference: ArrayLike) -> None:
        """Bet on one event whose features have places of their own: phi(candidate) - phi(baseline), unhashed.

        Do not mix with `update`, which gives the places other meanings.

        Args:
            difference: finite numbers of any unit; shape (dimensions,).

        Raises:
            ValueError: the shape is another, or a number is not finite.
        """
        x = np.asarray(difference, dtype=np.float64)
        if x.shape != self._scales.shape or not np.isfinite(x).all():
            raise ValueError(f"a difference must be {self._scales.size} finite numbers")
        coordinates = np.flatnonzero(x)
        self._bet(coordinates, x[coordinates])

    def state(self) -> State:
        """Return what `from_state` needs to go on exactly from here: plain JSON data, as long as coordinates seen."""
        seen = np.flatnonzero(self._scales)
        return carried(
            "swap learner",
            dimensions=self._scales.size,
            min_effect=self._min_effect,
            rates=self._rates.tolist(),
            n=self._n,
            capital=self._capital.tolist(),
            coordinates=seen.tolist(),
            scales=self._scales[seen].tolist(),
            weights=self._weights[seen].tolist(),
            gradients=self._gradients[seen].tolist(),
        )

    @classmethod
    def from_state(cls, data: object) -> "SwapLearner":
        """Return the learner that `state` described; what it is fed next gives the same e-values to the last bit.

        Raises:
            ValueError: `data` are not the state of such a learner, or of another format.
        """
        saved = Saved(data, "swap learner")
        rates = saved.floats("rates", (-1,))
        learner = cls(saved.whole("dimensions"), min_effect=saved.number("min_effect"), rates=rates.tolist())
        seen = saved.wholes("coordinates", (-1,))
        saved.require(np.unique(seen).size == seen.size and bool(np.all(seen < learner._scales.size)), "coordinates")
        learner._n = saved.whole("n")
        learner._capital = saved.floats("capital", learner._capital.shape)
        learner._scales[seen] = saved.floats("scales", seen.shape)
        saved.require(bool(np.all(learner._scales[seen] > 0.0)), "scales")
        learner._weights[seen] = saved.floats("weights", (seen.size, rates.size))
        learner._gradients[seen] = saved.floats("gradients", (seen.size, rates.size))
        return learner

    def _bet(self, coordinates: NDArray[np.int64], values: Floats) -> None:
        self._n += 1
        if not coordinates.size:
            self._capital += np.log1p(-self._drag)
            return
        x = self._scaled(coordinates, values)
        weights = self._weights[coordinates]
        bets = np.tanh((x @ weights) / 2)
        self._capital += np.log1p(np.multiply.outer(bets, self._stakes) - self._drag)
        self._weights[coordinates] = weights + self._step(coordinates, x, bets)

    def _scaled(self, coordinates: NDArray[np.int64], values: Floats) -> Floats:
        scales = np.maximum(self._scales[coordinates], np.abs(values))
        self._scales[coordinates] = scales
        x = values / scales
        norm = max(math.sqrt(x @ x), SMALLEST_NORM)
        return np.asarray(x * (DIFFERENCE_NORM / norm), dtype=np.float64)

    def _step(self, coordinates: NDArray[np.int64], x: Floats, bets: Floats) -> Floats:
        """What is learnt from the event; shape (coordinates, rates)."""
        gradient = np.multiply.outer(x, 0.5 - 0.5 * bets)
        squares = self._gradients[coordinates] + gradient * gradient
        self._gradients[coordinates] = squares
        root = np.sqrt(np.where(squares > 0.0, squares, 1.0))
        return np.asarray(self._rates * gradient / root, dtype=np.float64)
