"""A benchmarked program in a process of its own, and what it says of its commits."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from driftline.log import Settings

HERE = Path(__file__).parent


class Running:
    """A child process that prints `seconds count` lines."""

    def __init__(self, command: Sequence[str]) -> None:
        self.log: list[str] = []
        self.seen: list[tuple[float, int]] = []
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=HERE.parents[1]
        )
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    @property
    def decided(self) -> int:
        return self.seen[-1][1] if self.seen else 0

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._thread.join(5)

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            first, _, rest = line.strip().partition(" ")
            try:
                self.seen.append((float(first), int(rest)))
            except ValueError:
                self.log.append(line.rstrip())


@contextmanager
def running(command: Sequence[str]) -> Iterator[Running]:
    """The program runs inside the block."""
    child = Running(command)
    try:
        yield child
    finally:
        child.stop()


@contextmanager
def ours(settings: Settings, app: str, in_flight: int, seconds: tuple[float, float] | None) -> Iterator[Running]:
    """The runtime runs inside the block; its proposer takes so many seconds, uniformly, or none."""
    spec: dict[str, Any] = {
        "app": app,
        "home": str(settings.home),
        "bootstrap": settings.require_bootstrap(),
        "registry": settings.require_registry(),
        "in_flight": in_flight,
        "seconds": seconds,
    }
    path = settings.home / f"{app}.ours.json"
    path.write_text(json.dumps(spec))
    with running([sys.executable, str(HERE / "ours.py"), str(path)]) as child:
        yield child
