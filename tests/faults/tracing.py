"""What a worker notes of itself as it goes: one JSON line a step, readable after any `kill -9`.

A line is one `write` to a file opened with O_APPEND: it is there whole or not at all.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Place = tuple[str, int, int]
"""Topic, partition, offset."""

BEGIN, PRODUCE, FLUSHED, POSITIONS, COMMIT, COMMITTED, ABORTED = (
    *("begin", "produce", "flushed", "positions", "commit", "committed", "aborted"),
)
"""Steps of a transaction, noted before they are taken but for those in the past tense."""
CALL = "call"
"""The model is asked."""


class Trace:
    """Appends steps to a file."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def note(self, step: str, **facts: Any) -> None:
        """Append one line."""
        line = json.dumps({"step": step, "at": time.time(), "pid": os.getpid(), **facts}, separators=(",", ":"))
        os.write(self._file, line.encode() + b"\n")


@dataclass
class Traced:
    """One transaction as the process that ran it has noted it."""

    pid: int
    began: float
    steps: list[str] = field(default_factory=list)
    placed: list[Place] = field(default_factory=list)
    """Where its records came to lie, as far as their delivery was reported."""
    ended: float | None = None
    """When it was committed or aborted; None where the process did not live to see it."""

    @property
    def must_be_invisible(self) -> bool:
        """Whether nothing of it may ever be read as committed: it was aborted, or nobody asked for its commit."""
        return ABORTED in self.steps or COMMIT not in self.steps


def transactions(lines: Iterable[dict[str, Any]]) -> list[Traced]:
    """The transactions of one file, in order."""
    found: list[Traced] = []
    for line in lines:
        step = line["step"]
        if step == BEGIN:
            found.append(Traced(line["pid"], line["at"]))
        if step == CALL or not found or found[-1].pid != line["pid"]:
            continue
        found[-1].steps.append(step)
        found[-1].placed.extend((topic, partition, offset) for topic, partition, offset in line.get("placed", ()))
        if step in {COMMITTED, ABORTED}:
            found[-1].ended = line["at"]
    return found


def hit_inside(traced: Sequence[Traced], when: float, pids: Iterable[int] | None = None) -> bool:
    """Whether any transaction (of these processes) was open at a moment."""
    among = None if pids is None else set(pids)
    return any(
        one.began <= when and (one.ended is None or when <= one.ended) and (among is None or one.pid in among)
        for one in traced
    )


class TraceFiles:
    """All that the workers of a folder have noted so far, read on from where the last look ended."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._places: dict[Path, int] = {}
        self._lines: dict[Path, list[dict[str, Any]]] = {}
        self.calls = 0
        """Times that a model was asked."""

    def transactions(self) -> list[Traced]:
        """Every transaction noted so far."""
        for path in sorted(self._folder.glob("*.trace")):
            for line in self._new(path):
                self.calls += line["step"] == CALL
                if line["step"] != CALL:
                    self._lines.setdefault(path, []).append(line)
        return [one for lines in self._lines.values() for one in transactions(lines)]

    def _new(self, path: Path) -> Iterator[dict[str, Any]]:
        with path.open("rb") as handle:
            handle.seek(self._places.get(path, 0))
            for raw in handle:
                if raw.endswith(b"\n"):
                    self._places[path] = self._places.get(path, 0) + len(raw)
                    yield json.loads(raw)
