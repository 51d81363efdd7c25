import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from driftline.console.local.processes import (
    ProcessRef,
    birth_of,
    is_alive,
    last_lines,
    spawn,
    terminate,
    wait_until,
)

SLEEP = ["/bin/sleep", "60"]
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="dying with the caller is a service of Linux")

# Starts a sleeping child, prints its pid and birth, and waits to be killed.
CALLER = """
import pathlib, sys, time
from driftline.console.local.processes import spawn
child = spawn(["/bin/sleep", "60"], {}, pathlib.Path(sys.argv[1]), die_with_caller=sys.argv[2] == "bound")
print(child.pid, child.birth, flush=True)
time.sleep(60)
"""


def test_a_child_is_known_and_stopped(tmp_path: Path) -> None:
    child = spawn(SLEEP, {}, tmp_path / "log", die_with_caller=True)
    assert is_alive(child)
    terminate(child, grace_s=5)
    assert not is_alive(child)
    terminate(child, grace_s=5)


def test_output_and_environment_reach_the_child(tmp_path: Path) -> None:
    log = tmp_path / "log"
    child = spawn(
        ["/bin/sh", "-c", "echo $GREETING; echo oops >&2"], {"GREETING": "hello"}, log, die_with_caller=False
    )
    assert wait_until(lambda: not is_alive(child), 5)
    assert last_lines(log, 10) == ["hello", "oops"]
    assert last_lines(log, 1) == ["oops"]
    assert last_lines(tmp_path / "none", 1) == []


def test_who_ignores_the_polite_signal_is_killed_after_the_grace(tmp_path: Path) -> None:
    script = "trap '' TERM; echo ready; while :; do sleep 1; done"
    child = spawn(["/bin/sh", "-c", script], {}, tmp_path / "log", die_with_caller=True)
    assert wait_until(lambda: last_lines(tmp_path / "log", 1) == ["ready"], 5)
    terminate(child, grace_s=0.2)
    assert not is_alive(child)


def test_a_recycled_pid_is_neither_taken_for_ours_nor_killed(tmp_path: Path) -> None:
    stranger = spawn(SLEEP, {}, tmp_path / "log", die_with_caller=True)
    record = ProcessRef(stranger.pid, birth="the one who had this pid before")
    assert not is_alive(record)
    terminate(record, grace_s=1)
    assert birth_of(stranger.pid) == stranger.birth
    terminate(stranger, grace_s=0)


def test_a_zombie_is_dead() -> None:
    child = subprocess.Popen(["/bin/true"])
    assert wait_until(lambda: birth_of(child.pid) is None, 5)
    assert child.wait() == 0


def _killed_caller(log: Path, kind: str) -> ProcessRef:
    """Run a caller that starts a child, kill the caller the hard way, and return its child."""
    with subprocess.Popen(
        [sys.executable, "-c", CALLER, str(log), kind],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as caller:
        assert caller.stdout is not None
        pid, birth = caller.stdout.readline().split(maxsplit=1)
        caller.send_signal(signal.SIGKILL)
    return ProcessRef(int(pid), birth.strip())


@LINUX
def test_a_bound_child_dies_with_its_killed_caller(tmp_path: Path) -> None:
    child = _killed_caller(tmp_path / "log", "bound")
    assert wait_until(lambda: not is_alive(child), 5)


def test_an_unbound_child_outlives_its_killed_caller(tmp_path: Path) -> None:
    child = _killed_caller(tmp_path / "log", "free")
    assert is_alive(child)
    terminate(child, grace_s=5)


@LINUX
def test_a_bound_child_outlives_the_thread_that_asked_for_it(tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as pool:
        child = pool.submit(spawn, SLEEP, {}, tmp_path / "log", die_with_caller=True).result()
    assert not wait_until(lambda: not is_alive(child), 0.3)
    terminate(child, grace_s=0)


def test_waiting_ends_at_the_deadline_of_its_clock() -> None:
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    assert not wait_until(lambda: False, 3, clock=lambda: now[0], sleep=sleep)
    assert 3 <= now[0] < 3.1
    assert wait_until(lambda: True, 0, clock=lambda: now[0], sleep=sleep)
