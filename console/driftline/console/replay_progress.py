"""What the progress line of a replay says: paid, left, evidence, time."""

from __future__ import annotations

from datetime import timedelta

from driftline.replay.result import Progress


def note_of(progress: Progress, elapsed_s: float) -> str:
    """Calls and dollars so far and what is left of the budget, e-value, and how long it takes at most."""
    left = "" if progress.usd_max is None else f" of ${progress.usd_max:g}"
    parts = [
        f"{progress.paid_calls} paid calls",
        f"${progress.spent_usd:.4f}{left}",
        f"e = {progress.e_value:.3g}",
        progress.decision or _time_left(progress, elapsed_s),
    ]
    return ", ".join(part for part in parts if part)


def _time_left(progress: Progress, elapsed_s: float) -> str:
    """To the end of the segment, at the pace so far; the verdict may come sooner. Empty before the first pair."""
    if not progress.read or progress.read >= progress.planned:
        return ""
    seconds = elapsed_s / progress.read * (progress.planned - progress.read)
    return f"at most {timedelta(seconds=round(seconds))} left"
