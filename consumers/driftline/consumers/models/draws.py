"""Named draws: randomness as a function of a key, the same in every process and on every Python version."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import astuple
from typing import TypeVar

from driftline.consumers.proposing import CallKey

T = TypeVar("T")

_BITS = 53
"""A double holds this many bits exactly."""


class Draws:
    """Uniform draws by name, each a hash of (version, call key, name).

    No draw depends on how many came before it, so that code which draws more leaves the others as they were.
    Any field of the key that differs makes all draws independent: two arms never share one.
    """

    def __init__(self, version: str, key: CallKey) -> None:
        coordinates = json.dumps([version, *astuple(key)], separators=(",", ":"))
        self._hash = hashlib.blake2b(coordinates.encode(), digest_size=8, person=b"driftline-sim")

    def uniform(self, name: str) -> float:
        """A number in [0, 1)."""
        state = self._hash.copy()
        state.update(name.encode())
        return (int.from_bytes(state.digest(), "big") >> (64 - _BITS)) / (1 << _BITS)

    def chance(self, name: str, probability: float) -> bool:
        """Whether something of this probability happens."""
        return self.uniform(name) < probability

    def pick(self, name: str, choices: Sequence[T]) -> T:
        """One of the choices, all equally likely."""
        return choices[int(self.uniform(name) * len(choices))]

    def weighted(self, name: str, weights: Mapping[T, float]) -> T:
        """One of the keys; the weights sum to 1, and what is missing from it goes to the last."""
        left = self.uniform(name)
        chosen = None
        for chosen, weight in weights.items():  # noqa: B007 - the last one stands when the weights run out
            left -= weight
            if left < 0:
                break
        if chosen is None:
            raise ValueError("nothing to choose from")
        return chosen
