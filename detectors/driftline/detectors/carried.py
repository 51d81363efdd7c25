"""E-processes as plain JSON data, so that the evidence of one night is carried to the next."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Raised whenever stakes, rates or an update change: capital won under other rules is not continued.
FORMAT = 1

State = dict[str, Any]


def carried(kind: str, **fields: Any) -> State:
    """Return the state of a `kind` of process: its fields with its name and the version of the format."""
    return {"kind": kind, "format": FORMAT, **fields}


class Saved:
    """Reads a saved state field by field; whatever is not the state of a `kind` of process is refused.

    Floats survive `json.dumps` and `json.loads` exactly.

    Raises:
        ValueError: the data are of another kind or format; reading a field: it is missing or ill-formed.
    """

    __slots__ = ("_data", "_kind")

    def __init__(self, data: object, kind: str) -> None:
        self._kind = kind
        self._data: Mapping[str, Any] = data if isinstance(data, Mapping) else {}
        if self._data.get("kind") != kind:
            raise ValueError(f"this is not the saved state of a {kind}")
        if self._data.get("format") != FORMAT:
            found = self._data.get("format")
            raise ValueError(f"this state of a {kind} has format {found!r}, and only format {FORMAT} can be read")

    def number(self, name: str) -> float:
        """Return a finite number."""
        value = self._data.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise self._ill(name)
        return float(value)

    def whole(self, name: str) -> int:
        """Return a count: an integer that is not negative."""
        value = self._data.get(name)
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise self._ill(name)
        return value

    def flag(self, name: str) -> bool:
        """Return a boolean."""
        value = self._data.get(name)
        if not isinstance(value, bool):
            raise self._ill(name)
        return value

    def floats(self, name: str, shape: tuple[int, ...]) -> NDArray[np.float64]:
        """Return finite numbers; a `shape` of -1 admits any length there."""
        values = self._array(name, shape, "fi").astype(np.float64)
        if not np.all(np.isfinite(values)):
            raise self._ill(name)
        return values

    def wholes(self, name: str, shape: tuple[int, ...]) -> NDArray[np.int64]:
        """Return counts; `shape` as in `floats`."""
        values = self._array(name, shape, "i").astype(np.int64)
        if np.any(values < 0):
            raise self._ill(name)
        return values

    def inner(self, name: str) -> object:
        """Return the state of a part, which checks itself."""
        return self._data.get(name)

    def require(self, holds: bool, name: str) -> None:
        """Refuse the state if what is said of a field does not hold."""
        if not holds:
            raise self._ill(name)

    def _array(self, name: str, shape: tuple[int, ...], kinds: str) -> NDArray[Any]:
        value = self._data.get(name)
        if value == [] and 0 in (max(size, 0) for size in shape):
            return np.zeros([max(size, 0) for size in shape], dtype=np.int64)
        try:
            values = np.array(value if isinstance(value, list) else None)
        except ValueError:
            raise self._ill(name) from None
        fits = len(values.shape) == len(shape) and all(
            wanted in (-1, size) for wanted, size in zip(shape, values.shape, strict=True)
        )
        if values.dtype.kind not in kinds or not fits:
            raise self._ill(name)
        return values

    def _ill(self, name: str) -> ValueError:
        return ValueError(f"this state of a {self._kind} is damaged: {name!r} is missing or ill-formed")
