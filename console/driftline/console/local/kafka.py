"""A real single-node Apache Kafka in KRaft mode, as a child process."""

import base64
import shutil
import subprocess
import uuid
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from driftline.console.local.errors import ExitedEarlyError
from driftline.console.local.service import HOST, Launch, Run, Service, free_port

# Below librdkafka's own socket timeout and long enough for a busy machine: the broker needs 1-2 s when idle.
READY_TIMEOUT_S = 60.0
# The broker hands over and writes its state in about a second; a hanging disk is not waited for for ever.
STOP_GRACE_S = 20.0
FORMAT_TIMEOUT_S = 60
PROBE_TIMEOUT_S = 0.5

SECURED = "SECURED"
"""Name of the listener of `Secured`."""

_JVM = ("-Xmx512m", "-XX:+UseSerialGC", "-Djava.awt.headless=true")
_LOG4J = Path(__file__).with_name("kafka-log4j2.xml")

_SETTINGS: Mapping[str, str] = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    # One node: every internal topic has one partition and one replica.
    "offsets.topic.num.partitions": "1",
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.num.partitions": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "share.coordinator.state.topic.num.partitions": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "group.initial.rebalance.delay.ms": "0",
    # After a kill the controller takes the broker back only when the old session is over: 3 s and not 9.
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "500",
    # A year: a cluster on a laptop must not forget its consumers' positions over a holiday (default 7 days).
    "offsets.retention.minutes": "525600",
    "auto.create.topics.enable": "false",
    "log.cleaner.threads": "1",
    "log.cleaner.dedupe.buffer.size": "2097152",
    "num.network.threads": "2",
    "num.io.threads": "4",
}


@dataclass(frozen=True, slots=True)
class KafkaStatus:
    """The local Kafka as one look found it."""

    running: bool
    bootstrap_servers: str | None
    """What clients connect to; None where it does not run."""
    pid: int | None
    version: str
    """The broker's version: of the running one, else the one a start would run."""
    data_dir: Path | None
    started_now: bool
    """Whether this call started it."""
    ephemeral: bool
    log_file: Path


@dataclass(frozen=True, slots=True)
class Proxied:
    """A second listener that clients reach through a proxy: for tests that stand between client and broker."""

    port: int
    """Where the broker listens and the proxy connects to."""
    advertised_port: int
    """Where the proxy listens: what the broker tells clients of this listener to connect to."""


@dataclass(frozen=True, slots=True)
class Secured:
    """A second listener, SASL_SSL, for tests of secured clients; the first stays as it is."""

    port: int
    """Where it listens."""
    properties: Mapping[str, str]
    """Broker settings that it needs: its certificates, its mechanisms, an authorizer."""
    scram: Sequence[str]
    """Users, as `kafka-storage format --add-scram` takes them; created with the data."""


class LocalKafka:
    """The local Kafka of one home folder.

    It survives the process that started it, unless it is ephemeral, and its data survives any stop. It listens
    on 127.0.0.1 alone, without authentication: a tool for one machine.
    """

    def __init__(
        self,
        home: Path,
        artifacts: Path | None = None,
        say: Callable[[str], None] = lambda _: None,
        *,
        proxied: Proxied | None = None,
        secured: Secured | None = None,
    ) -> None:
        """Name the home folder; nothing is touched or started.

        Args:
            home: Its run record, log and data live in `home/kafka`.
            artifacts: Where the jars are or will be; by default `$DRIFTLINE_ARTIFACTS`, else in the default
                home, shared by all homes.
            say: Told one line before a step that takes long (a download).
            proxied: A second listener, of a start by this object.
            secured: Another one, of a start by this object.
        """
        self._service = Service(_KafkaRecipe(proxied, secured), home, artifacts, say)

    def start(
        self, port: int | None = None, ephemeral: bool = False, *, die_with_caller: bool | None = None
    ) -> KafkaStatus:
        """Start Kafka unless it runs, and return once it has answered a metadata request.

        Args:
            port: A port that must be taken; by default the last run's, else 9092, else any free one.
            ephemeral: Keep the data in a temporary folder that a stop removes, on any free port.
            die_with_caller: Whether the broker is killed with this process; by default if ephemeral. Linux only.

        Raises:
            LocalServiceError: One of its kinds; no process is left behind.
        """
        bound = ephemeral if die_with_caller is None else die_with_caller
        run, started = self._service.start(port, ephemeral=ephemeral, die_with_caller=bound)
        return self._status(run, started)

    def status(self) -> KafkaStatus:
        """Say whether it runs (its process lives) and where; no request is made."""
        return self._status(self._service.running(), False)

    def stop(self) -> bool:
        """Stop it cleanly and wait until it is gone; False if it did not run."""
        return self._service.stop()

    def logs(self, lines: int = 50) -> list[str]:
        """Return the last lines of the broker's log, oldest first."""
        return self._service.logs(lines)

    def _status(self, run: Run | None, started: bool) -> KafkaStatus:
        service = self._service
        if run is None:
            return KafkaStatus(False, None, None, service.pinned_version(), None, False, False, service.log_file)
        return KafkaStatus(
            running=True,
            bootstrap_servers=service.recipe.endpoint(run.port),
            pid=run.pid,
            version=run.version,
            data_dir=Path(run.work) / "data",
            started_now=started,
            ephemeral=run.ephemeral,
            log_file=service.log_file,
        )


class _KafkaRecipe:
    name = "kafka"
    title = "Kafka"
    endpoint_key = "bootstrap_servers"
    preferred_port = 9092
    ready_timeout_s = READY_TIMEOUT_S
    stop_grace_s = STOP_GRACE_S

    def __init__(self, proxied: Proxied | None = None, secured: Secured | None = None) -> None:
        self._proxied = proxied
        self._secured = secured

    def endpoint(self, port: int) -> str:
        return f"{HOST}:{port}"

    def version(self, files: Path, pinned: str) -> str:
        """Read the version that the broker's own jar states."""
        jar = next(files.glob("kafka-clients-*.jar"), None)
        if jar is None:
            return pinned
        with zipfile.ZipFile(jar) as archive:
            lines = archive.read("kafka/kafka-version.properties").decode("utf-8").splitlines()
        return next((line.partition("=")[2] for line in lines if line.startswith("version=")), pinned)

    def prepare(self, java: str, files: Path, work: Path, port: int, *, durable: bool) -> Launch:
        """Write the settings and format the data folder if it is new."""
        temp = _emptied(work / "tmp")
        jvm = [java, *_JVM, f"-Djava.io.tmpdir={temp}", f"-Dlog4j2.configurationFile={_LOG4J}"]
        jvm += ["-cp", f"{files}/*"]
        settings = {**_SETTINGS, **_addresses(port, free_port(), self._proxied, self._secured)}
        settings.update({} if self._secured is None else self._secured.properties)
        if not (work / "data" / "meta.properties").exists():
            _format(jvm, settings, work, () if self._secured is None else self._secured.scram)
        config = _write_properties(work / "server.properties", {**settings, "log.dirs": str(work / "data")})
        answers = self._probe(port, _cluster_id(work / "data" / "meta.properties"))
        return Launch([*jvm, "kafka.Kafka", str(config)], {}, answers)

    def _probe(self, port: int, cluster_id: str) -> Callable[[], bool]:
        """Ask for the cluster's metadata; a broker that is not registered yet is not listed there.

        Another broker may have bound the port first, and answer as well: it has another cluster id.
        """
        from confluent_kafka import KafkaException
        from confluent_kafka.admin import AdminClient

        admin = AdminClient(
            {
                "bootstrap.servers": self.endpoint(port),
                # Connections refused while it starts are what is waited out, nothing to report.
                "log_level": 0,
                "reconnect.backoff.ms": 20,
                "reconnect.backoff.max.ms": 100,
            }
        )

        def answers() -> bool:
            try:
                metadata = admin.list_topics(timeout=PROBE_TIMEOUT_S)
            except KafkaException:
                return False
            return bool(metadata.brokers) and metadata.cluster_id == cluster_id

        return answers


def _addresses(
    port: int, controller_port: int, proxied: Proxied | None, secured: Secured | None = None
) -> dict[str, str]:
    listeners = {"PLAINTEXT": port} if proxied is None else {"PLAINTEXT": port, "PROXIED": proxied.port}
    if secured is not None:
        listeners[SECURED] = secured.port
    advertised = listeners if proxied is None else {**listeners, "PROXIED": proxied.advertised_port}
    bound = {**listeners, "CONTROLLER": controller_port}
    protocols = {name: "SASL_SSL" if name == SECURED else "PLAINTEXT" for name in bound}
    return {
        "controller.quorum.voters": f"1@{HOST}:{controller_port}",
        "listeners": _listed(bound),
        "advertised.listeners": _listed(advertised),
        "listener.security.protocol.map": ",".join(f"{name}:{protocol}" for name, protocol in protocols.items()),
        "inter.broker.listener.name": "PLAINTEXT",
    }


def _listed(ports: Mapping[str, int]) -> str:
    return ",".join(f"{name}://{HOST}:{port}" for name, port in ports.items())


def _format(jvm: list[str], settings: Mapping[str, str], work: Path, scram: Sequence[str] = ()) -> None:
    """Format a new data folder; renamed into place, so that one that is half formatted is never used."""
    staging = _emptied(work / "data.formatting")
    config = _write_properties(work / "format.properties", {**settings, "log.dirs": str(staging)})
    command = [*jvm, "kafka.tools.StorageTool", "format", "-t", new_cluster_id(), "-c", str(config)]
    command += [word for user in scram for word in ("--add-scram", user)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=FORMAT_TIMEOUT_S, check=False)
    if done.returncode != 0:
        lines = (done.stdout + done.stderr).strip().splitlines() or ["it said nothing"]
        raise ExitedEarlyError(
            f"Kafka cannot format {work / 'data'}: {lines[-1]}; make room or set DRIFTLINE_HOME elsewhere", lines
        )
    config.unlink()
    staging.rename(work / "data")


def _cluster_id(meta: Path) -> str:
    """Read what the broker will call its cluster; empty if the file is damaged, which the broker tells itself."""
    lines = meta.read_text(encoding="utf-8", errors="replace").splitlines()
    return next((line.partition("=")[2].strip() for line in lines if line.startswith("cluster.id=")), "")


def new_cluster_id() -> str:
    """Return a random cluster id in Kafka's form: 16 bytes in URL-safe base 64.

    It never begins with `-`, which Kafka's own tools would read as an option.
    """
    while True:
        identity = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode("ascii").rstrip("=")
        if not identity.startswith("-"):
            return identity


def _emptied(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _write_properties(path: Path, settings: Mapping[str, str]) -> Path:
    """Write a Java properties file, which is Latin-1 with escapes for the rest."""
    lines = [f"{key}={_escaped(value)}\n" for key, value in settings.items()]
    path.write_text("".join(lines), encoding="ascii")
    return path


def _escaped(value: str) -> str:
    units = value.replace("\\", "\\\\").encode("utf-16-be")
    codes = [int.from_bytes(units[i : i + 2], "big") for i in range(0, len(units), 2)]
    return "".join(chr(code) if code < 128 else f"\\u{code:04x}" for code in codes)
