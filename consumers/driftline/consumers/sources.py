"""Sources of what an app commits itself: `driftline:<app>/<boundary>`, its spine, its timers, its effectors."""

from __future__ import annotations

SPINE, TIMER, EFFECTOR = "spine", "timer", "effector"
"""Where a boundary's name stands else: what the spine commits, what its timers tell, what effectors report."""
RESERVED = (SPINE, TIMER, EFFECTOR)


def source_of(app: str, name: str) -> str:
    """The source of what a boundary of an app commits, or of its spine or timers."""
    return f"driftline:{app}/{name}"


def is_own(app: str, source: str) -> bool:
    """Whether a source is a boundary of the app, one of before included, or its spine.

    Timers and effectors are none: they tell of time and of the world outside. Not guaranteed: that nobody forged it;
    who may write to an app's events may pass for the app.
    """
    prefix = source_of(app, "")
    if not source.startswith(prefix):
        return False
    name = source[len(prefix) :]
    return name != TIMER and not name.startswith(f"{EFFECTOR}/")
