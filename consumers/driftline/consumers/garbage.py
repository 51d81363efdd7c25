"""Python's garbage collector, set for a process that allocates much and makes few cycles."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

ALLOCATIONS_BETWEEN = 50_000
"""Of container objects, between two looks at the youngest; Python's own 700 cost a fifth of the processor here."""


@contextmanager
def rare_collections() -> Iterator[None]:
    """Within the block what exists now is not looked at any more, and what is new less often."""
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(ALLOCATIONS_BETWEEN, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
