"""Named features of two answers into one hashed difference."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from driftline.detectors.betting import Floats

# Names repeat from event to event; a name that fell out of the cache is only hashed again.
HASHED_NAMES_MAX = 65_536
# So do whole sets of names where features are many: from so many on, their places are looked up together.
NAMES_TOGETHER_MIN = 16
LAYOUTS_MAX = 256

Difference = tuple[NDArray[np.int64], Floats]


def hashed_difference(baseline: Mapping[str, float], candidate: Mapping[str, float], dimensions: int) -> Difference:
    """Return the non-zero coordinates of phi(candidate) - phi(baseline), and their values.

    A feature that is absent is 0. Each name goes to one of `dimensions` coordinates with a sign, both from a
    stable hash of its UTF-8; names that collide add up, in the order of the names. Swapping the arms negates the
    values exactly.

    Raises:
        ValueError: a feature is not a finite number.
    """
    if len(baseline) >= NAMES_TOGETHER_MIN and baseline.keys() == candidate.keys():
        return _difference_together(baseline, candidate, dimensions)
    return _difference_by_name(baseline, candidate, dimensions)


def _difference_by_name(baseline: Mapping[str, float], candidate: Mapping[str, float], dimensions: int) -> Difference:
    sums: dict[int, float] = {}
    for name in sorted(baseline.keys() | candidate.keys()):
        difference = candidate.get(name, 0.0) - baseline.get(name, 0.0)
        if not math.isfinite(difference):
            raise _not_finite(name)
        if difference:
            coordinate, sign = _coordinate(name, dimensions)
            sums[coordinate] = sums.get(coordinate, 0.0) + sign * difference
    kept = [(coordinate, value) for coordinate, value in sorted(sums.items()) if value]
    coordinates = np.array([coordinate for coordinate, _ in kept], dtype=np.int64)
    return coordinates, np.array([value for _, value in kept], dtype=np.float64)


def _difference_together(
    baseline: Mapping[str, float], candidate: Mapping[str, float], dimensions: int
) -> Difference:
    """As `_difference_by_name`, where both arms have the same names."""
    names = tuple(baseline)
    before = np.fromiter(baseline.values(), np.float64, len(names))
    after = np.fromiter(map(candidate.__getitem__, names), np.float64, len(names))
    with np.errstate(over="ignore", invalid="ignore"):
        differences = after - before
    if not np.isfinite(differences).all():
        raise _not_finite(min(name for name, one in zip(names, differences, strict=True) if not math.isfinite(one)))
    layout = _layout(names, dimensions)
    signed = differences[layout.order] * layout.signs
    sums = np.asarray(np.bincount(layout.coordinates, signed, dimensions), dtype=np.float64)
    coordinates = np.flatnonzero(sums)
    return coordinates, sums[coordinates]


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where names go: `order` sorts them; coordinates and signs are in that order."""

    order: NDArray[np.int64]
    coordinates: NDArray[np.int64]
    signs: Floats


@lru_cache(maxsize=LAYOUTS_MAX)
def _layout(names: tuple[str, ...], dimensions: int) -> _Layout:
    order = sorted(range(len(names)), key=names.__getitem__)
    places = [_coordinate(names[index], dimensions) for index in order]
    coordinates = np.array([coordinate for coordinate, _ in places], dtype=np.int64)
    return _Layout(np.array(order, dtype=np.int64), coordinates, np.array([sign for _, sign in places]))


@lru_cache(maxsize=HASHED_NAMES_MAX)
def _coordinate(name: str, dimensions: int) -> tuple[int, float]:
    digest = blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    number = int.from_bytes(digest, "big")
    return (number >> 1) % dimensions, 1.0 if number & 1 else -1.0


def _not_finite(name: str) -> ValueError:
    return ValueError(f"feature {name!r} is not a finite number")
