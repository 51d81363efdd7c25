"""Named features of two answers into one hashed difference."""

import math
from collections.abc import Mapping
from functools import lru_cache
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from driftline.detectors.betting import Floats

# Names repeat from event to event; a name that fell out of the cache is only hashed again.
HASHED_NAMES_MAX = 65_536


def hashed_difference(
    baseline: Mapping[str, float], candidate: Mapping[str, float], dimensions: int
) -> tuple[NDArray[np.int64], Floats]:
    """Return the non-zero coordinates of phi(candidate) - phi(baseline), and their values.

    A feature that is absent is 0. Each name goes to one of `dimensions` coordinates with a sign, both from a
    stable hash of its UTF-8; names that collide add up. Swapping the arms negates the values exactly.

    Raises:
        ValueError: a feature is not a finite number.
    """
    sums: dict[int, float] = {}
    for name in sorted(baseline.keys() | candidate.keys()):
        difference = candidate.get(name, 0.0) - baseline.get(name, 0.0)
        if not math.isfinite(difference):
            raise ValueError(f"feature {name!r} is not a finite number")
        if difference:
            coordinate, sign = _coordinate(name, dimensions)
            sums[coordinate] = sums.get(coordinate, 0.0) + sign * difference
    kept = [(coordinate, value) for coordinate, value in sorted(sums.items()) if value]
    coordinates = np.array([coordinate for coordinate, _ in kept], dtype=np.int64)
    return coordinates, np.array([value for _, value in kept], dtype=np.float64)


@lru_cache(maxsize=HASHED_NAMES_MAX)
def _coordinate(name: str, dimensions: int) -> tuple[int, float]:
    digest = blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    number = int.from_bytes(digest, "big")
    return (number >> 1) % dimensions, 1.0 if number & 1 else -1.0
