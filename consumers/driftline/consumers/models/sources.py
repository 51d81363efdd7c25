"""What an answer of driftline's own providers depends on besides the request."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

from driftline.consumers.models.recorded import split_recorded
from driftline.consumers.models.sim import REVISION

RECORDED, SIM = "recorded/", "sim/"


def is_recorded(model: str) -> bool:
    """Whether the model is a recording: its answers are read, and cost nothing."""
    return model.startswith(RECORDED)


def source_version(model: str) -> str | None:
    """Changes when the same request would get another answer; None for a real provider, who does not say.

    None too for a recording that is not there: the proposer says what is wrong with it.

    Raises:
        UsageError: The model string has not the form of a recording.
    """
    if is_recorded(model):
        path, _ = split_recorded(model.removeprefix(RECORDED))
        try:
            stat = path.stat()
        except OSError:
            return None
        return _digest(path, stat.st_mtime_ns, stat.st_size)
    return f"revision {REVISION}" if model.startswith(SIM) else None


@lru_cache(maxsize=8)
def _digest(path: Path, _mtime_ns: int, _size: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
