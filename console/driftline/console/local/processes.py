"""Detached child processes: started, recognised again by a later process, stopped.

A process is known by its pid *and* its birth (boot id and start time), so that a recycled pid is never
taken for ours, and never killed.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

POLL_INTERVAL_S = 0.02
# After SIGKILL only the kernel is waited for: pages of a large process take a moment to go.
KILL_TIMEOUT_S = 10.0

# Runs in the child: asks the kernel to kill it with its parent, then becomes the service. The parent may
# have died before the request was made, hence the comparison after it.
_BOUND_START = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if os.getppid() != int(sys.argv[1]): sys.exit("the starting process is gone")
os.execv(sys.argv[2], sys.argv[2:])
"""


# The kernel means the *thread* that started the child, not its process, when it says parent. All children
# are therefore started by one thread that lives as long as the process.
# (One such thread per process: a fork does not carry threads over, hence the argument.)
@cache
def _launcher(_pid: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="driftline-launcher")


_children: dict[int, "subprocess.Popen[bytes]"] = {}
_children_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class ProcessRef:
    """One process, for good: no later process equals it."""

    pid: int
    birth: str


def spawn(argv: Sequence[str], env: Mapping[str, str], log: Path, *, die_with_caller: bool) -> ProcessRef:
    """Start a process in a session of its own, with its output appended to `log`.

    Args:
        argv: The command; its first element is an absolute path.
        env: Added to this process's environment.
        log: Receives stdout and stderr.
        die_with_caller: Kill the child when this process ends, however it ends. Linux only; elsewhere the
            child outlives a caller that was killed.
    """
    command = list(argv)
    if die_with_caller and sys.platform == "linux":
        command = [sys.executable, "-I", "-S", "-c", _BOUND_START, str(os.getpid()), *argv]
    child = _launcher(os.getpid()).submit(_popen, command, {**os.environ, **env}, log).result()
    with _children_lock:
        _children[child.pid] = child
    return ProcessRef(child.pid, birth_of(child.pid) or "gone")


def _popen(command: Sequence[str], env: Mapping[str, str], log: Path) -> "subprocess.Popen[bytes]":
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def birth_of(pid: int) -> str | None:
    """Return what tells this process from any other that ever had the pid; None if it is dead or a zombie."""
    if Path("/proc/self/stat").exists():
        return _birth_from_proc(pid)
    found = subprocess.run(
        ["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
    ).stdout.split(maxsplit=1)
    return found[1].strip() if len(found) == 2 and not found[0].startswith("Z") else None


def _birth_from_proc(pid: int) -> str | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The second field is the command in parentheses, and may itself hold spaces and parentheses.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else f"{boot}:{fields[19]}"


def is_alive(process: ProcessRef) -> bool:
    """Say whether exactly this process still runs; a child of ours that ended is reaped on the way."""
    birth = birth_of(process.pid)
    if birth is None:
        with _children_lock:
            child = _children.pop(process.pid, None)
        if child is not None:
            child.wait()
    return birth == process.birth


def wait_until(
    condition: Callable[[], bool],
    timeout_s: float,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> bool:
    """Poll until the condition holds; True if it did within the timeout. It is asked at least once."""
    deadline = clock() + timeout_s
    while not condition():
        if clock() >= deadline:
            return False
        sleep(POLL_INTERVAL_S)
    return True


def terminate(process: ProcessRef, grace_s: float) -> None:
    """End a process and wait until it is gone: SIGTERM, and SIGKILL after `grace_s`.

    Zero seconds of grace send SIGKILL at once. A process that is gone already is no error.
    """
    if grace_s > 0:
        _signal(process, signal.SIGTERM)
        if wait_until(lambda: not is_alive(process), grace_s):
            return
    _signal(process, signal.SIGKILL)
    wait_until(lambda: not is_alive(process), KILL_TIMEOUT_S)


def _signal(process: ProcessRef, number: signal.Signals) -> None:
    if not is_alive(process):
        return
    try:
        os.kill(process.pid, number)
    except ProcessLookupError:
        return


def last_lines(path: Path, count: int) -> list[str]:
    """Return the last lines of a text file, oldest first; none for no file."""
    try:
        with path.open(encoding="utf-8", errors="replace") as handle:
            return [line.rstrip("\n") for line in deque(handle, maxlen=count)]
    except FileNotFoundError:
        return []
