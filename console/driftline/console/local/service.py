"""What the local Kafka and the local registry share: one process, its run record, its start and stop."""

import json
import re
import shutil
import socket
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from driftline.console.local.artifacts import find_java, find_pom, resolve
from driftline.console.local.errors import (
    EXISTING_CLUSTER,
    ExitedEarlyError,
    LocalServiceError,
    NotReadyError,
    OtherPortError,
    PortInUseError,
)
from driftline.console.local.places import default_artifacts, drop_endpoint, file_lock, set_endpoint, write_atomic
from driftline.console.local.processes import (
    ProcessRef,
    is_alive,
    last_lines,
    spawn,
    terminate,
    wait_until,
)

HOST = "127.0.0.1"
# A port found free may be taken before the service binds it; then it is started again on another.
START_ATTEMPTS_MAX = 3
# Enough to hold the error line above a Java stack trace.
LOG_TAIL_LINES = 60

_PORT_TAKEN = re.compile(r"address already in use|port already bound|in use by another process", re.IGNORECASE)
# From the most telling to the least: the root of a Java stack trace, its head, a logged error.
_TELLING_LINES = (
    re.compile(r"^\s*Caused by: (?P<what>.+)"),
    re.compile(r"(?P<what>(?:\w+\.)+\w*(?:Exception|Error): .+)"),
    re.compile(r"(?:ERROR|FATAL)\s+(?P<what>.+)"),
    re.compile(r"(?P<what>.*\S.*)"),
)


@dataclass(frozen=True, slots=True)
class Launch:
    """What to run: the command, what it adds to the environment, and how its answer is known."""

    argv: Sequence[str]
    env: Mapping[str, str]
    answers: Callable[[], bool]
    """Makes one real request; True if *this* service answered it as it should, and not another on its port."""


class Recipe(Protocol):
    """What differs between the services."""

    name: str
    """`kafka` or `registry`: folder names, and the command `driftline <name>`."""
    title: str
    """How messages call it."""
    endpoint_key: str
    """Its key in the endpoints file."""
    preferred_port: int
    ready_timeout_s: float
    stop_grace_s: float

    def endpoint(self, port: int) -> str:
        """Return what a client connects to."""
        ...

    def version(self, files: Path, pinned: str) -> str:
        """Return the version of the resolved files."""
        ...

    def prepare(self, java: str, files: Path, work: Path, port: int, *, durable: bool) -> Launch:
        """Write what the service needs into `work` and return the command that runs it in the foreground."""
        ...


@dataclass(frozen=True, slots=True)
class Run:
    """The record of one run, kept in `run.json`: the pid file, and the memory of the last port."""

    pid: int
    birth: str
    port: int
    version: str
    work: str
    ephemeral: bool

    @property
    def process(self) -> ProcessRef:
        """The process of this run, alive or not."""
        return ProcessRef(self.pid, self.birth)


@dataclass(frozen=True, slots=True)
class _Plan:
    """One start: what was found, and what was asked for."""

    java: str
    files: Path
    version: str
    port: int | None
    ephemeral: bool
    die_with_caller: bool


class Service:
    """One local service in one home folder.

    Any number of processes may hold a `Service` on the same folder: what is running is read from the
    folder, and start and stop exclude each other by a file lock. Nothing is touched before the first call.
    """

    def __init__(self, recipe: Recipe, home: Path, artifacts: Path | None, say: Callable[[str], None]) -> None:
        self.recipe = recipe
        self.home = home.absolute()
        self.folder = self.home / recipe.name
        self.log_file = self.folder / f"{recipe.name}.log"
        self._artifacts = artifacts
        self._say = say

    def running(self) -> Run | None:
        """Return the run whose process is alive, if any."""
        run = self._last_run()
        return run if run is not None and is_alive(run.process) else None

    def start(self, port: int | None, *, ephemeral: bool, die_with_caller: bool) -> tuple[Run, bool]:
        """Start the service unless it runs, and return once it answers.

        1. Under the lock: a run that is alive is returned as it is.
        2. Java and the files are looked for; leftovers of a killed ephemeral run are removed.
        3. The process is started and asked until it answers; if it ends or stays silent it is stopped.
        4. Only then the run is recorded and the endpoints file names it.

        Returns:
            The run, and whether this call started it.
        """
        with self._lock():
            run = self.running()
            if run is not None:
                self._require_port(run, port)
                return run, False
            java, (files, version) = find_java(), self._files()
            self._remove_leftovers()
            run = self._start_on_a_free_port(_Plan(java, files, version, port, ephemeral, die_with_caller))
            set_endpoint(self.home, self.recipe.endpoint_key, self.recipe.endpoint(run.port))
            return run, True

    def stop(self) -> bool:
        """Stop the service and wait until it is gone; False if it did not run. Ephemeral data is removed."""
        if not self.folder.exists():
            return False
        with self._lock():
            run = self.running()
            if run is not None:
                terminate(run.process, 0 if run.ephemeral else self.recipe.stop_grace_s)
            self._remove_leftovers()
            drop_endpoint(self.home, self.recipe.endpoint_key)
            return run is not None

    def logs(self, lines: int) -> list[str]:
        """Return the last lines of the log of the last run, oldest first."""
        return last_lines(self.log_file, lines)

    def pinned_version(self) -> str:
        """Return the version that a start would run."""
        return find_pom(self.recipe.name).version

    def _lock(self) -> AbstractContextManager[None]:
        return file_lock(self.folder / ".lock")

    def _files(self) -> tuple[Path, str]:
        pom = find_pom(self.recipe.name)
        files = resolve(pom, self._artifacts or default_artifacts(), self._say)
        return files, self.recipe.version(files, pom.version)

    def _last_run(self) -> Run | None:
        try:
            return Run(**json.loads((self.folder / "run.json").read_text(encoding="utf-8")))
        except (FileNotFoundError, ValueError, TypeError):
            return None

    def _remove_leftovers(self) -> None:
        """Remove the data of the last run if it was ephemeral; its process is dead by now."""
        run = self._last_run()
        if run is not None and run.ephemeral:
            shutil.rmtree(run.work, ignore_errors=True)
            (self.folder / "run.json").unlink()

    def _require_port(self, run: Run, port: int | None) -> None:
        if port is not None and port != run.port:
            raise OtherPortError(
                f"{self.recipe.title} runs already on port {run.port}, not {port}; "
                f"stop it first: driftline {self.recipe.name} stop"
            )

    def _start_on_a_free_port(self, plan: _Plan) -> Run:
        """Try up to `START_ATTEMPTS_MAX` ports; only a port that was taken meanwhile is worth another try."""
        for attempt in range(1, START_ATTEMPTS_MAX):
            port = self._choose_port(plan.port, anywhere=plan.ephemeral or attempt > 1)
            try:
                return self._start_on(plan, port)
            except PortInUseError:
                if plan.port is not None:
                    raise
        return self._start_on(plan, free_port())

    def _start_on(self, plan: _Plan, port: int) -> Run:
        """Run the service on one port and wait for its answer; on an error no process and no folder is left."""
        if not plan.ephemeral:
            return self._start_in(plan, port, self.folder)
        work = Path(tempfile.mkdtemp(prefix=f"driftline-{self.recipe.name}-"))
        try:
            return self._start_in(plan, port, work)
        except BaseException:
            shutil.rmtree(work, ignore_errors=True)
            raise

    def _start_in(self, plan: _Plan, port: int, work: Path) -> Run:
        recipe = self.recipe
        self._keep_last_log()
        launch = recipe.prepare(plan.java, plan.files, work, port, durable=not plan.ephemeral)
        process = spawn(launch.argv, launch.env, self.log_file, die_with_caller=plan.die_with_caller)
        try:
            # Recorded before it answers: if this process is killed meanwhile, a stop still finds the child.
            run = Run(process.pid, process.birth, port, plan.version, str(work), plan.ephemeral)
            write_atomic(self.folder / "run.json", json.dumps(asdict(run)) + "\n")
            self._wait_for_answer(process, port, launch.answers)
        except BaseException:
            terminate(process, 0 if plan.ephemeral else recipe.stop_grace_s)
            raise
        return run

    def _wait_for_answer(self, process: ProcessRef, port: int, answers: Callable[[], bool]) -> None:
        recipe = self.recipe
        in_time = wait_until(lambda: not is_alive(process) or answers(), recipe.ready_timeout_s)
        tail = last_lines(self.log_file, LOG_TAIL_LINES)
        if not is_alive(process):
            raise self._exited_early(port, tail)
        if not in_time:
            raise NotReadyError(
                f"{recipe.title} did not answer within {recipe.ready_timeout_s:g} s; "
                f"see why: driftline {recipe.name} logs, or {EXISTING_CLUSTER}",
                tail,
            )

    def _exited_early(self, port: int, tail: Sequence[str]) -> LocalServiceError:
        if any(_PORT_TAKEN.search(line) for line in tail):
            return self._port_in_use(port, tail)
        return ExitedEarlyError(
            f"{self.recipe.title} ended before it answered: {telling_line(tail)}; "
            f"see more: driftline {self.recipe.name} logs, or {EXISTING_CLUSTER}",
            tail,
        )

    def _port_in_use(self, port: int, tail: Sequence[str] = ()) -> PortInUseError:
        return PortInUseError(
            f"port {port} is in use by another process; "
            f"take another: driftline {self.recipe.name} start --port {free_port()}, or {EXISTING_CLUSTER}",
            tail,
        )

    def _keep_last_log(self) -> None:
        with suppress(FileNotFoundError):
            self.log_file.replace(self.log_file.with_suffix(".log.1"))

    def _choose_port(self, asked: int | None, *, anywhere: bool) -> int:
        """Choose the asked port, else the last run's, else the usual one, else any that is free."""
        if asked is not None:
            if not is_free(asked):
                raise self._port_in_use(asked)
            return asked
        last = self._last_run()
        wanted = [] if anywhere else [*([last.port] if last else []), self.recipe.preferred_port]
        return next((port for port in wanted if is_free(port)), None) or free_port()


def telling_line(log: Sequence[str]) -> str:
    """Return the part of a log's end that says best why a Java process ended, as one line."""
    for pattern in _TELLING_LINES:
        found = [match["what"] for match in map(pattern.search, log) if match]
        if found:
            return found[-1].strip()
    return "it logged nothing"


def is_free(port: int) -> bool:
    """Say whether nobody listens on a local port now; that may change before it is used."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As the services do themselves: connections of the last run that linger do not count as use.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def free_port() -> int:
    """Return a port that the system says is free."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
