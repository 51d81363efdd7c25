"""The supervisor over real processes: what is started again, what ends them all, and how they are stopped."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from driftline.console.supervisor import (
    EXIT_BUG,
    ProcessesFailed,
    RestartLimits,
    RestartPolicy,
    Supervisor,
)

FAST = RestartLimits(backoff_s_first=0.001, backoff_s_max=0.001)
SLOW = RestartLimits(backoff_s_first=600.0, backoff_s_max=600.0)
WAITS = "import sys, time; print('ready', file=sys.stderr, flush=True); time.sleep(60)"
DRAINS = """
import signal, sys, time
def end(*_):
    print("drained", flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
print("ready", file=sys.stderr, flush=True)
time.sleep(60)
"""
STUBBORN = """
import signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", file=sys.stderr, flush=True)
time.sleep(60)
"""


class Clock:
    """A clock that tests advance."""

    def __init__(self) -> None:
        self.time = 0.0

    def __call__(self) -> float:
        return self.time


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def once_then(folder: Path, first: str, later: str) -> Callable[[int], list[str]]:
    """A command whose first process of a slot runs other code than the ones after it."""

    def command(slot: int) -> list[str]:
        mark = folder / f"started-{slot}"
        code = later if mark.exists() else first
        mark.touch()
        return python(code)

    return command


class Told:
    """The lines of stderr that were passed on; does something once a line has come so many times."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.at: dict[tuple[str, int], Callable[[], None]] = {}

    def __call__(self, line: str) -> None:
        self.lines.append(line.strip())
        act = self.at.get((line.strip(), self.lines.count(line.strip())))
        if act is not None:
            act()


def test_the_back_off_doubles_up_to_its_limit() -> None:
    clock = Clock()
    policy = RestartPolicy(RestartLimits(restarts_max=8), clock, lambda: 0.0)
    assert [policy.delay_s() for _ in range(7)] == [1, 2, 4, 8, 16, 30, 30]


def test_jitter_takes_up_to_half_of_a_back_off_away() -> None:
    jitter = iter([0.0, 0.5, 0.999])
    policy = RestartPolicy(RestartLimits(backoff_s_max=1.0), Clock(), lambda: next(jitter))
    assert [policy.delay_s() for _ in range(3)] == [1.0, 0.75, pytest.approx(0.5, abs=0.001)]


def test_more_restarts_than_the_limit_within_the_window_are_a_crash_loop() -> None:
    policy = RestartPolicy(RestartLimits(), Clock(), lambda: 0.0)
    assert None not in [policy.delay_s() for _ in range(5)]
    assert policy.delay_s() is None


def test_a_process_that_dies_now_and_then_is_started_again_for_ever() -> None:
    clock = Clock()
    policy = RestartPolicy(RestartLimits(), clock, lambda: 0.0)
    delays = []
    for _ in range(20):
        clock.time += 40.0
        delays.append(policy.delay_s())
    assert set(delays[1:]) == {2.0}


def test_what_processes_print_comes_back_when_all_have_finished() -> None:
    told = Told()
    supervisor = Supervisor(
        lambda slot: python(f"import sys; print({slot}); print('aside', file=sys.stderr)"),
        slots=[3, 4],
        until_end=True,
        forward=told,
    )
    assert sorted(supervisor.run()) == ["3\n", "4\n"]
    assert told.lines == ["aside", "aside"]
    assert supervisor.states() == {3: "ended", 4: "ended"}
    assert supervisor.restarts() == 0


def test_a_process_that_was_killed_is_started_again_alone(tmp_path: Path) -> None:
    kill = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    started: list[tuple[int, int]] = []
    supervisor = Supervisor(
        lambda slot: once_then(tmp_path, kill, "print('well')")(slot) if slot else python("print('never died')"),
        slots=[0, 1],
        until_end=True,
        limits=FAST,
        on_start=lambda slot, restarts: started.append((slot, restarts)),
    )
    assert sorted(supervisor.run()) == ["never died\n", "well\n"]
    assert sorted(started) == [(0, 0), (1, 0), (1, 1)]


def test_a_process_that_ends_before_its_time_is_started_again() -> None:
    told = Told()
    supervisor = Supervisor(lambda slot: python("print()"), slots=[0], until_end=False, limits=FAST, forward=told)
    with pytest.raises(ProcessesFailed, match="ended with exit code 0 after 5 restarts"):
        supervisor.run()
    assert supervisor.restarts() == 5


def test_a_crash_loop_ends_all_and_says_the_last_line_and_the_exit_code() -> None:
    code = "import sys; print('driftline: no Kafka answers', file=sys.stderr); sys.exit(3)"
    ready = Told()
    supervisor = Supervisor(
        lambda slot: python(code if slot else WAITS), slots=[0, 1], until_end=True, limits=FAST, forward=ready
    )
    with pytest.raises(ProcessesFailed) as caught:
        supervisor.run()
    said = r"process 1 ended with exit code 3 (no Kafka answers) after 5 restarts within 60 s: a crash loop"
    assert str(caught.value).startswith(said)
    assert caught.value.exit_code == 3
    assert supervisor.states() == {0: "ended", 1: "ended"}


def test_a_process_that_was_asked_for_the_impossible_is_not_started_again() -> None:
    code = "import sys; print('driftline: no app is called so', file=sys.stderr); sys.exit(2)"
    supervisor = Supervisor(lambda slot: python(WAITS if slot else code), slots=[0, 1], limits=SLOW)
    with pytest.raises(ProcessesFailed, match=r"exit code 2 \(no app is called so\) and was not started again") as it:
        supervisor.run()
    assert (it.value.exit_code, supervisor.restarts()) == (2, 0)


@pytest.mark.parametrize("fenced", ["CommitRefused('aborted', fenced=True)", "WriterFenced('fenced')"])
def test_a_process_whose_slot_another_one_took_is_started_again(tmp_path: Path, fenced: str) -> None:
    code = f"import sys; from driftline.log import CommitRefused, WriterFenced; sys.exit({fenced}.exit_code)"
    supervisor = Supervisor(once_then(tmp_path, code, "print('well')"), slots=[0], until_end=True, limits=FAST)
    assert (supervisor.run(), supervisor.restarts()) == (["well\n"], 1)


def test_a_stop_lets_every_process_end_by_itself() -> None:
    told = Told()
    supervisor = Supervisor(lambda slot: python(DRAINS), slots=[0, 1], limits=SLOW, forward=told)
    told.at["ready", 2] = supervisor.stop
    assert supervisor.run() == ["drained\n", "drained\n"]


def test_a_stop_starts_nothing_again(caplog: pytest.LogCaptureFixture) -> None:
    supervisor = Supervisor(
        lambda slot: python("import sys; sys.exit(70)" if slot else WAITS), slots=[0, 1], limits=SLOW
    )
    waiting: list[str] = []

    class WhenOneWaits(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            waiting.append(supervisor.states()[1])
            supervisor.stop()

    logger, handler = logging.getLogger("driftline.supervisor"), WhenOneWaits()
    logger.addHandler(handler)
    try:
        assert supervisor.run() == []
    finally:
        logger.removeHandler(handler)
    assert (waiting, supervisor.restarts()) == (["waiting"], 0)
    assert "process 1 ended with exit code 70; it is started again in" in caplog.text


def test_who_does_not_end_within_the_deadline_is_killed_and_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("driftline.console.supervisor.KILL_GRACE_S", 0.0)
    told = Told()
    supervisor = Supervisor(lambda slot: python(STUBBORN), slots=[0], drain_s=0.05, forward=told)
    told.at["ready", 1] = supervisor.stop
    with pytest.raises(ProcessesFailed, match="process 0 had to be killed while it was stopped") as caught:
        supervisor.run()
    assert caught.value.exit_code == EXIT_BUG


def test_a_process_that_had_not_begun_may_be_ended_by_the_stop_itself() -> None:
    told = Told()
    supervisor = Supervisor(lambda slot: python(WAITS), slots=[0], forward=told)
    told.at["ready", 1] = supervisor.stop
    assert supervisor.run() == []


def test_a_second_stop_insists() -> None:
    told = Told()
    code = DRAINS.replace("    print", "    signal.signal(signal.SIGTERM, signal.SIG_DFL)\n    hold()\n    print")
    hold = "def hold():\n    print('asked', file=sys.stderr, flush=True)\n    time.sleep(60)\n"
    supervisor = Supervisor(lambda slot: python("import sys, time\n" + hold + code), slots=[0], forward=told)
    told.at["ready", 1] = supervisor.stop
    told.at["asked", 1] = supervisor.stop
    assert supervisor.run() == []


def test_nothing_is_left_behind_when_the_supervisor_itself_fails() -> None:
    pids: list[int] = []

    def fail(slot: int, restarts: int) -> None:
        pids.append(supervisor._children[slot].process.pid)  # type: ignore[union-attr]
        raise RuntimeError("of the caller's")

    supervisor = Supervisor(lambda slot: python(WAITS), slots=[0], on_start=fail)
    with pytest.raises(RuntimeError):
        supervisor.run()
    process = supervisor._children[0].process
    assert process is not None
    assert process.wait(60) == -signal.SIGKILL
