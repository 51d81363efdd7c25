"""The supervisor: one process a slot, each started again when it dies, all of them stopped together.

One for one, as Erlang's OTP supervisors do it (https://www.erlang.org/doc/system/sup_princ): a process that dies
is started again after a back-off; one that dies too often ends them all, since starting it once more helps nobody. A
process that says that it was asked for something impossible (exit 2) is not started again at all. One whose slot
another process took (exit 75) is: that one may be gone by then, and two that stay end in a crash loop of one of them.
"""

from __future__ import annotations

import logging
import random
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from threading import Thread
from typing import IO

from driftline.schemas import DriftlineError, UsageError

KILL_GRACE_S = 5.0
"""Beyond the time that the processes have to drain, before those that are left are killed."""
JOIN_S = 5.0
"""How long the output of a process that has ended is waited for; a grandchild may hold the pipe open."""
EXIT_BUG = 70
"""EX_SOFTWARE of sysexits.h, for a process that was ended by a signal."""

_log = logging.getLogger("driftline.supervisor")


class ProcessesFailed(DriftlineError):
    """The processes were ended because one of them cannot run, or did not end as it was asked to.

    Attributes:
        exit_code: That of the process, `EXIT_BUG` where a signal ended it.
    """

    def __init__(self, message: str, mend: str, exit_code: int) -> None:
        super().__init__(message, mend)
        self.exit_code = exit_code if exit_code > 0 else EXIT_BUG


@dataclass(frozen=True, slots=True)
class RestartLimits:
    """How often and how fast a process is started again."""

    restarts_max: int = 5
    """In one window; at the next end after them the process is given up."""
    window_s: float = 60.0
    backoff_s_first: float = 1.0
    """Doubles with every restart that lies within the window."""
    backoff_s_max: float = 30.0


class RestartPolicy:
    """When one process is started again. It knows nothing of processes.

    Args:
        limits: How often and how fast.
        clock: Seconds from any origin, never going back.
        rng: From [0, 1); takes up to half of a back-off away, so that processes that died together come back apart.
    """

    def __init__(self, limits: RestartLimits, clock: Callable[[], float], rng: Callable[[], float]) -> None:
        self._limits = limits
        self._clock = clock
        self._rng = rng
        self._restarts: deque[float] = deque()

    def delay_s(self) -> float | None:
        """Seconds until the process that has just ended is to be started again; None when it is given up."""
        now, limits = self._clock(), self._limits
        while self._restarts and self._restarts[0] <= now - limits.window_s:
            self._restarts.popleft()
        if len(self._restarts) >= limits.restarts_max:
            return None
        backoff_s = min(limits.backoff_s_max, limits.backoff_s_first * 2.0 ** len(self._restarts))
        delay_s = backoff_s * (1 - 0.5 * self._rng())
        self._restarts.append(now + delay_s)
        return delay_s


@dataclass(frozen=True, slots=True)
class Exited:
    """A process has ended."""

    slot: int
    exit_code: int
    output: str
    """All that it wrote to stdout."""
    last_error: str
    """The last line that it wrote to stderr."""


@dataclass(frozen=True, slots=True)
class Stop:
    """Somebody asked for the end."""


@dataclass
class Child:
    """One slot: its process, or when the next one is due."""

    slot: int
    policy: RestartPolicy
    process: subprocess.Popen[str] | None = None
    due_s: float | None = None
    restarts: int = 0
    killed: bool = False

    @property
    def state(self) -> str:
        """`running`, `waiting` to be started again, or `ended`."""
        if self.process is not None:
            return "running"
        return "ended" if self.due_s is None else "waiting"


@dataclass
class Supervisor:
    """Runs one process a slot until all have finished, one cannot run, or a stop is asked for.

    `run` belongs to one thread, the main one: on Linux a process may ask to be told of the death of the thread that
    started it (`PR_SET_PDEATHSIG`). `stop` and `states` may be called from anywhere, `stop` from signal handlers too.
    """

    command: Callable[[int], Sequence[str]]
    """The command of a slot."""
    slots: Sequence[int]
    until_end: bool = False
    """Whether a process that ends by itself with exit 0 has finished; else it is started again."""
    drain_s: float = 20.0
    """What the processes need to end; those that are left `KILL_GRACE_S` later are killed."""
    environment: Mapping[str, str] | None = None
    limits: RestartLimits = field(default_factory=RestartLimits)
    clock: Callable[[], float] = time.monotonic
    rng: Callable[[], float] = random.random
    forward: Callable[[str], object] = sys.stderr.write
    """Takes each line that a process writes to stderr."""
    on_start: Callable[[int, int], None] = lambda slot, restarts: None
    """Told of every process that was started, with how often its slot was restarted so far."""

    def __post_init__(self) -> None:
        self._events: SimpleQueue[Exited | Stop] = SimpleQueue()
        self._children = {slot: Child(slot, RestartPolicy(self.limits, self.clock, self.rng)) for slot in self.slots}
        self._outputs: list[str] = []
        self._stopping = False
        self._failure: ProcessesFailed | None = None
        self._kill_at: float | None = None

    def run(self) -> list[str]:
        """Start every process, and again when it dies; what those that finished wrote to stdout.

        Raises:
            ProcessesFailed: One cannot run, dies again and again, or did not end well when it was asked to.
        """
        try:
            for child in self._children.values():
                self._start(child)
            while any(child.state != "ended" for child in self._children.values()):
                self._handle(self._next_event())
        finally:
            self._kill()
        if self._failure is not None:
            raise self._failure
        return self._outputs

    def stop(self) -> None:
        """Ask every process to end; asked again, it insists."""
        self._events.put(Stop())

    def states(self) -> dict[int, str]:
        """`running`, `waiting` or `ended`, by slot."""
        return {slot: child.state for slot, child in self._children.items()}

    def restarts(self) -> int:
        """How many processes were started in place of one that had died."""
        return sum(child.restarts for child in self._children.values())

    def _next_event(self) -> Exited | Stop | None:
        """What happened next; None when a restart or the killing is due."""
        due = [child.due_s for child in self._children.values() if child.due_s is not None]
        if self._kill_at is not None:
            due.append(self._kill_at)
        try:
            return self._events.get(timeout=max(0.0, min(due) - self.clock()) if due else None)
        except Empty:
            return None

    def _handle(self, event: Exited | Stop | None) -> None:
        if isinstance(event, Stop):
            self._end_all()
        elif event is not None:
            self._ended(self._children[event.slot], event)
        now = self.clock()
        for child in self._children.values():
            if child.due_s is not None and child.due_s <= now:
                child.restarts += 1
                self._start(child)
        if self._kill_at is not None and self._kill_at <= now:
            self._kill_at = None
            self._kill()

    def _start(self, child: Child) -> None:
        child.due_s = None
        child.process = subprocess.Popen(
            self.command(child.slot),
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,  # Ctrl-C reaches this process alone, which passes it on once
        )
        Thread(target=self._watch, args=(child.slot, child.process), daemon=True).start()
        self.on_start(child.slot, child.restarts)

    def _watch(self, slot: int, process: subprocess.Popen[str]) -> None:
        """Read a process to its end; runs in a thread of its own."""
        written: list[str] = []
        last = deque([""], maxlen=1)

        def read_errors(line: str) -> None:
            self.forward(line)
            if any(letter.isalnum() for letter in line):  # the frames that are drawn around some errors say nothing
                last.append(line.strip(" │\n"))

        readers = [
            Thread(target=_read, args=(stream, take), daemon=True)
            for stream, take in ((process.stdout, written.append), (process.stderr, read_errors))
        ]
        for reader in readers:
            reader.start()
        exit_code = process.wait()
        for reader in readers:
            reader.join(JOIN_S)
        self._events.put(Exited(slot, exit_code, "".join(written), last[0]))

    def _ended(self, child: Child, event: Exited) -> None:
        child.process = None
        if self._stopping:
            self._ended_while_stopping(child, event)
        elif event.exit_code == 0 and self.until_end:
            self._outputs.append(event.output)
        elif event.exit_code == UsageError.exit_code:
            self._give_up(event, "and was not started again", "mend that and start it again")
        else:
            self._restart(child, event)

    def _ended_while_stopping(self, child: Child, event: Exited) -> None:
        if event.exit_code == 0:
            self._outputs.append(event.output)
        elif self._failure is None and (child.killed or event.exit_code != -signal.SIGTERM):
            # SIGTERM ends by itself only who had not begun to work.
            late = "had to be killed" if child.killed else _how(event)
            self._failure = ProcessesFailed(
                f"process {child.slot} {late} while it was stopped",
                "what it had not committed is decided at the next start",
                event.exit_code,
            )

    def _restart(self, child: Child, event: Exited) -> None:
        delay_s = child.policy.delay_s()
        if delay_s is None:
            limits = self.limits
            often = f"after {limits.restarts_max} restarts within {limits.window_s:g} s"
            self._give_up(event, f"{often}: a crash loop", "all processes were stopped; mend that and start again")
            return
        child.due_s = self.clock() + delay_s
        _log.warning(
            "process %d %s; it is started again in %.1f s",
            child.slot,
            _how(event),
            delay_s,
            extra={"child": child.slot, "exit_code": event.exit_code, "restarts": child.restarts},
        )

    def _give_up(self, event: Exited, why: str, mend: str) -> None:
        message = f"process {event.slot} {_how(event)} {why}"
        self._failure = ProcessesFailed(message, mend, event.exit_code)
        self._end_all()

    def _end_all(self) -> None:
        """Ask every process to end, and start none any more; the deadline is that of the first time."""
        if not self._stopping:
            self._kill_at = self.clock() + self.drain_s + KILL_GRACE_S
        self._stopping = True
        for child in self._children.values():
            child.due_s = None
            if child.process is not None:
                child.process.terminate()

    def _kill(self) -> None:
        for child in self._children.values():
            if child.process is not None:
                child.killed = True
                child.process.kill()


def _read(stream: IO[str], take: Callable[[str], object]) -> None:
    with stream:
        for line in stream:
            take(line)


def _how(event: Exited) -> str:
    """How a process ended, in words."""
    if event.exit_code < 0:
        return f"was ended by {signal.Signals(-event.exit_code).name}"
    said = f" ({event.last_error.removeprefix('driftline: ')})" if event.last_error else ""
    return f"ended with exit code {event.exit_code}{said}"
