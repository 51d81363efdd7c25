"""What is kept of an app's nights: one JSON file, written whole or not at all, with the nights that are in it."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from driftline.replay.night_watch import ProviderWatch
from driftline.replay.nights import CarriedProcess, CarriedTest
from driftline.replay.plain import first_line
from driftline.schemas import BadInput, UsageError

KEPT_FORM = 1
KEPT, LOCK = "nights.json", ".lock"
"""In the folder of the app's nights."""


@dataclass
class Night:
    """One night as far as it is counted."""

    decisions: int
    """That were made in it."""
    parts: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What came out, by part: `verify`, `incumbent`, or the name of a candidate. What is here is done."""


@dataclass
class KeptNights:
    """All of an app's nights, and the evidence that goes on from one to the next."""

    app: str
    nights: dict[str, Night] = field(default_factory=dict)
    processes: dict[str, dict[str, Any]] = field(default_factory=dict)
    """State of each carried process, by the identity of its test."""
    watch: dict[str, Any] | None = None
    """State of the provider watch."""

    def process(self, identity: str, test: CarriedTest) -> CarriedProcess:
        """The carried process of a test; a new one where there was none.

        Raises:
            BadInput: What was kept cannot be continued.
        """
        saved = self.processes.get(identity)
        with _readable(self.app):
            return CarriedProcess(test) if saved is None else CarriedProcess.from_state(saved, test)

    def provider_watch(self, indicators: tuple[str, ...], decisions_between: float) -> ProviderWatch:
        """The watch over the app's provider.

        Raises:
            BadInput: What was kept cannot be continued.
        """
        if self.watch is None:
            return ProviderWatch(indicators, decisions_between)
        with _readable(self.app):
            return ProviderWatch.from_state(self.watch, indicators, decisions_between)


class NightsFolder:
    """The folder of an app's nights, `home/nights/<app>`."""

    def __init__(self, home: Path, app: str) -> None:
        self.path = home / "nights" / app
        self._app = app

    def of_night(self, night: str) -> Path:
        """Where a night's Parquet lies: `date=YYYY-MM-DD`, as DuckDB, Spark and Hive read a partition."""
        return self.path / f"date={night}"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One process at a time; the lock goes with the process, however it ends.

        Raises:
            UsageError: Another one has it.
            BadInput: The folder cannot be written.
        """
        with _writable(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            held = os.open(self.path / LOCK, os.O_CREAT | os.O_RDWR)
        try:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                message = f"another `driftline nightly` has the nights of {self._app}"
                raise UsageError(message, "wait for its end, then run the same command") from None
            yield
        finally:
            os.close(held)

    def load(self) -> KeptNights:
        """What is kept; nothing before the first night.

        Raises:
            BadInput: The file is none of this form.
        """
        path = self.path / KEPT
        if not path.exists():
            return KeptNights(self._app)
        with _readable(self._app):
            data: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            if data["form"] != KEPT_FORM:
                raise ValueError(f"form {data['form']!r} is not {KEPT_FORM}")
            nights = {night: Night(**saved) for night, saved in data["nights"].items()}
            return KeptNights(self._app, nights, dict(data["processes"]), data["watch"])

    def save(self, kept: KeptNights) -> None:
        """Write what is kept: from here on the night's part is counted.

        Raises:
            BadInput: The folder cannot be written.
        """
        nights = {name: {"decisions": night.decisions, "parts": night.parts} for name, night in kept.nights.items()}
        data = {"form": KEPT_FORM, "app": kept.app, "nights": nights}
        data |= {"processes": kept.processes, "watch": kept.watch}
        path, beside = self.path / KEPT, self.path / f".{KEPT}.writing"
        with _writable(self.path), beside.open("w", encoding="utf-8") as file:
            json.dump(data, file, allow_nan=False)
            file.flush()
            os.fsync(file.fileno())  # a night that is told to count must not be lost with the power
            beside.replace(path)


@contextmanager
def _readable(app: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        mend = f"move nights/{app}/{KEPT} away: the evidence then begins anew, and no answer is paid again"
        raise BadInput(f"what is kept of {app}'s nights cannot be read: {first_line(error)}", mend) from error


@contextmanager
def _writable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        mend = "make room or free the folder, then run the same command: no call is paid again"
        raise BadInput(f"{path}: {first_line(error)}", mend) from error
