"""The fold: how a workflow's facts become its row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from driftline.schemas import Event

STATE, TIMERS = "state", "timers"
"""Names in a row's data: the state that the row is in, and timer name to the time at which it is due (RFC 3339)."""

FoldFunction = Callable[[Mapping[str, Any], Event], Mapping[str, Any]]
"""(data so far, next event of the workflow) to the data after it. Deterministic; must not change its argument."""


@dataclass(frozen=True, slots=True)
class Fold:
    """How a workflow's facts become its row. Raise the version when the function's meaning changes.

    Attributes:
        function: The fold.
        version: Declared by the app.
        upgrades: On the state-machine spine, where rows are the truth and cannot be folded anew: row version to a
            function that makes of such a row's data what today's version would have.
    """

    function: FoldFunction
    version: str
    upgrades: Mapping[str, Callable[[Mapping[str, Any]], Mapping[str, Any]]] = field(default_factory=dict)
