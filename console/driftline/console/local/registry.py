"""A real schema registry (Apicurio, with Confluent's REST API), as a child process."""

import shutil
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from driftline.console.local.service import HOST, Launch, Run, Service

# It answers after 2 s on an idle machine; a busy one with a cold disk takes its time for 115 MB of jars.
READY_TIMEOUT_S = 90.0
STOP_GRACE_S = 15.0
PROBE_TIMEOUT_S = 2.0

API_PATH = "/apis/ccompat/v7"
LAUNCH_HEADER = "Driftline-Launch"
"""Every answer carries it, with what this launch alone knows."""

_JVM = ("-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Djava.awt.headless=true")


@dataclass(frozen=True, slots=True)
class RegistryStatus:
    """The local registry as one look found it."""

    running: bool
    url: str | None
    """What clients connect to (Confluent's API); None where it does not run."""
    pid: int | None
    version: str
    data_dir: Path | None
    """Where the schemas are kept; None where it does not run or keeps them in memory."""
    started_now: bool
    """Whether this call started it."""
    ephemeral: bool
    log_file: Path


class LocalRegistry:
    """The local schema registry of one home folder: survives as `LocalKafka` does, on 127.0.0.1 alone."""

    def __init__(
        self, home: Path, artifacts: Path | None = None, say: Callable[[str], None] = lambda _: None
    ) -> None:
        """Name the home folder; nothing is touched or started.

        Args:
            home: Its run record, log and data live in `home/registry`.
            artifacts: Where its files are or will be; as for `LocalKafka`.
            say: Told one line before a step that takes long (a download).
        """
        self._service = Service(_RegistryRecipe(), home, artifacts, say)

    def start(
        self, port: int | None = None, ephemeral: bool = False, *, die_with_caller: bool | None = None
    ) -> RegistryStatus:
        """Start the registry unless it runs, and return once it has listed its subjects.

        Args:
            port: A port that must be taken; by default the last run's, else 8081, else any free one.
            ephemeral: Keep the schemas in memory, on any free port.
            die_with_caller: Whether it is killed with this process; by default if ephemeral. Linux only.

        Raises:
            LocalServiceError: One of its kinds; no process is left behind.
        """
        bound = ephemeral if die_with_caller is None else die_with_caller
        run, started = self._service.start(port, ephemeral=ephemeral, die_with_caller=bound)
        return self._status(run, started)

    def status(self) -> RegistryStatus:
        """Say whether it runs (its process lives) and where; no request is made."""
        return self._status(self._service.running(), False)

    def stop(self) -> bool:
        """Stop it cleanly and wait until it is gone; False if it did not run."""
        return self._service.stop()

    def logs(self, lines: int = 50) -> list[str]:
        """Return the last lines of its log, oldest first."""
        return self._service.logs(lines)

    def _status(self, run: Run | None, started: bool) -> RegistryStatus:
        service = self._service
        if run is None:
            return RegistryStatus(False, None, None, service.pinned_version(), None, False, False, service.log_file)
        return RegistryStatus(
            running=True,
            url=service.recipe.endpoint(run.port),
            pid=run.pid,
            version=run.version,
            data_dir=None if run.ephemeral else Path(run.work) / "data",
            started_now=started,
            ephemeral=run.ephemeral,
            log_file=service.log_file,
        )


class _RegistryRecipe:
    name = "registry"
    title = "the schema registry"
    endpoint_key = "registry_url"
    preferred_port = 8081
    ready_timeout_s = READY_TIMEOUT_S
    stop_grace_s = STOP_GRACE_S

    def endpoint(self, port: int) -> str:
        return f"http://{HOST}:{port}{API_PATH}"

    def version(self, files: Path, pinned: str) -> str:
        return pinned

    def prepare(self, java: str, files: Path, work: Path, port: int, *, durable: bool) -> Launch:
        temp = work / "tmp"
        shutil.rmtree(temp, ignore_errors=True)
        temp.mkdir(parents=True)
        jar = next(files.glob("apicurio-registry-app-*-runner.jar"))
        env = {
            "QUARKUS_HTTP_HOST": HOST,
            "QUARKUS_HTTP_PORT": str(port),
            # A line for every request would fill the log with nothing.
            "QUARKUS_HTTP_ACCESS_LOG_ENABLED": "false",
        }
        if durable:
            # By default H2 writes half a second after it has said yes: a kill would lose schemas whose ids
            # are in records already.
            env["APICURIO_DATASOURCE_URL"] = f"jdbc:h2:file:{work / 'data' / 'registry'};WRITE_DELAY=0"
        launch = str(uuid.uuid4())
        header = f'-Dquarkus.http.header."{LAUNCH_HEADER}".value={launch}'
        command = [java, *_JVM, f"-Djava.io.tmpdir={temp}", header, "-jar", str(jar)]
        return Launch(command, env, self._probe(port, launch))

    def _probe(self, port: int, launch: str) -> Callable[[], bool]:
        """Ask for the subjects; another registry may have bound the port first, and answers without our header."""
        from http.client import OK, HTTPConnection, HTTPException

        def answers() -> bool:
            # A plain connection, so never through a proxy: the address is this machine's.
            connection = HTTPConnection(HOST, port, timeout=PROBE_TIMEOUT_S)
            try:
                connection.request("GET", f"{API_PATH}/subjects")
                response = connection.getresponse()
                return response.status == OK and response.getheader(LAUNCH_HEADER) == launch
            except (OSError, HTTPException):
                return False
            finally:
                connection.close()

        return answers
