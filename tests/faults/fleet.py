"""The workers of a campaign: one process a slot, started again whenever it ends (crash-only)."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from tests.faults.worker import Orders

ROOT = Path(__file__).parents[2]
RESTART_S_MIN = 0.3
"""Between two starts in one slot: what cannot start must not eat the machine."""
SUPERVISION_S = 0.05
LAST_WORDS = 300


@dataclass(eq=False)
class Worker:
    """One process."""

    slot: int
    process: subprocess.Popen[str]
    errors: Path
    started: float
    stopped: bool = False
    """By SIGSTOP."""

    @property
    def pid(self) -> int:
        """Of the process."""
        return self.process.pid

    @property
    def alive(self) -> bool:
        """Whether the process has not ended."""
        return self.process.poll() is None

    def tell(self, command: str) -> None:
        """Write one command to the worker; one that is dead hears nothing."""
        if self.process.stdin is not None:
            with suppress(OSError, ValueError):  # its pipe is broken, or closed by now
                self.process.stdin.write(command + "\n")
                self.process.stdin.flush()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, unless the process has ended."""
        self.stopped = number is signal.SIGSTOP or (self.stopped and number is not signal.SIGCONT)
        self.process.send_signal(number)

    def bury(self) -> None:
        """Kill it if it lives, and let its pipe go."""
        self.process.kill()
        self.process.wait()
        if self.process.stdin is not None:
            with suppress(OSError):  # what it was told last, and never read
                self.process.stdin.close()

    def last_words(self) -> str:
        """The last line of what it wrote to its standard error."""
        lines = self.errors.read_text(errors="replace").strip().splitlines() or [""]
        return lines[-1][:LAST_WORDS]


class Fleet:
    """Keeps one worker alive in each of its slots.

    Args:
        orders: What workers are told; slot, seed and trace are set for each.
        folder: Where they leave their traces and errors.
        slots: Which slots there are at first.
        chance: Draws among workers.
    """

    def __init__(self, orders: Orders, folder: Path, slots: int, chance: random.Random) -> None:
        self.exits: Counter[int] = Counter()
        """Exit codes seen."""
        self.last_words: Counter[str] = Counter()
        """Of the workers that ended by an error of their own."""
        self._orders = orders
        self._folder = folder
        self._slots = set(range(slots))
        self._chance = chance
        self._workers: list[Worker] = []
        self._lock = threading.RLock()
        self._ending = threading.Event()
        self._number = 0
        self._supervisor = threading.Thread(target=self._supervise, name="fleet", daemon=True)

    def start(self) -> None:
        """Start a worker in each slot and keep it so."""
        self._supervisor.start()

    def stop(self) -> None:
        """Kill every worker."""
        self._ending.set()
        if self._supervisor.ident is not None:
            self._supervisor.join()
        for worker in self._workers:
            worker.bury()

    def alive(self) -> list[Worker]:
        """Those that run, one that is stopped included."""
        with self._lock:
            return [worker for worker in self._workers if worker.alive]

    def any(self) -> Worker:
        """One of those that run, at random; waits for one."""
        while not (running := self.alive()):
            time.sleep(SUPERVISION_S)
        return self._chance.choice(running)

    def spawn(self, slot: int) -> Worker:
        """Start a worker in a slot now, also where one runs already."""
        with self._lock:
            self._number += 1
            base = self._folder / f"{self._orders.app}-{slot}-{self._number}"
            orders = replace(self._orders, slot=slot, seed=self._number, trace=str(base.with_suffix(".trace")))
            errors = base.with_suffix(".err")
            with errors.open("w") as stderr:
                process = subprocess.Popen(
                    [sys.executable, "-m", "tests.faults.worker", orders.json()],
                    cwd=ROOT,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    stderr=stderr,
                    text=True,
                )
            worker = Worker(slot, process, errors, time.monotonic())
            self._workers.append(worker)
            return worker

    def add_slot(self, slot: int) -> None:
        """Have one more member."""
        with self._lock:
            self._slots.add(slot)

    def drop_slot(self, slot: int) -> list[Worker]:
        """Have one member less; its workers run on until somebody ends them."""
        with self._lock:
            self._slots.discard(slot)
            return [worker for worker in self.alive() if worker.slot == slot]

    def tell_all(self, command: str) -> None:
        """Write one command to every worker."""
        for worker in self.alive():
            worker.tell(command)

    def _supervise(self) -> None:
        while not self._ending.is_set():
            with self._lock:
                for worker in self._reap():
                    self.exits[worker.process.returncode] += 1
                    if worker.process.returncode > 0:
                        self.last_words[worker.last_words()] += 1
                for slot in self._empty_slots():
                    self.spawn(slot)
            self._ending.wait(SUPERVISION_S)

    def _reap(self) -> Iterator[Worker]:
        for worker in [one for one in self._workers if not one.alive]:
            if time.monotonic() - worker.started >= RESTART_S_MIN:
                self._workers.remove(worker)
                worker.bury()
                yield worker

    def _empty_slots(self) -> set[int]:
        return self._slots - {worker.slot for worker in self._workers}
