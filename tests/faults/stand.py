"""What a campaign runs on: a real Kafka behind a proxy, a real registry, an app with its fleet, and a checker."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from confluent_kafka import KafkaException
from tests.faults.checker import LogSeen, Report, check, stale_rows, undecided
from tests.faults.fleet import Fleet
from tests.faults.proxy import Proxy
from tests.faults.reading import LogView
from tests.faults.tracing import TraceFiles
from tests.faults.worker import EXACTLY_ONCE, Orders, make_app
from tests.ports import steady_port

from driftline.console.local import LocalKafka, LocalRegistry
from driftline.console.local.kafka import Proxied
from driftline.consumers.prepare import prepare
from driftline.log import Settings

SESSION_TIMEOUT_MS = 6_000
"""The least that a broker takes by default: what is waited for when a member is silent."""
POLL_INTERVAL_MS_MAX = 7_000
"""A model may be slower."""
SOCKET_TIMEOUT_MS = 4_000
"""librdkafka sends a request again after so long."""
KAFKA: dict[str, str | int | bool] = {
    "session.timeout.ms": SESSION_TIMEOUT_MS,
    "heartbeat.interval.ms": 1_000,
    "max.poll.interval.ms": POLL_INTERVAL_MS_MAX,
    "socket.timeout.ms": SOCKET_TIMEOUT_MS,
    "reconnect.backoff.max.ms": 500,
}
SETTLE_POLL_S = 0.1


class Ground:
    """The services, as long as the block lasts. Their data is durable: they may be killed and started again.

    Args:
        home: An empty folder.
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        behind, before = steady_port(), steady_port()
        self.kafka = LocalKafka(home, proxied=Proxied(behind, before))
        self.registry = LocalRegistry(home)
        self.proxy = Proxy(behind, before)

    def __enter__(self) -> Self:
        """Start them."""
        try:
            self.kafka.start(steady_port(), die_with_caller=True)
            self.registry.start(steady_port(), die_with_caller=True)
            self.proxy.start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop them."""
        self.proxy.stop()
        self.registry.stop()
        self.kafka.stop()

    def start_kafka(self) -> None:
        """Start the broker on the port that it had."""
        self.kafka.start(die_with_caller=True)

    def start_registry(self) -> None:
        """Start the registry on the port that it had."""
        self.registry.start(die_with_caller=True)

    def settings(self, partitions: int) -> Settings:
        """Direct, not through the proxy."""
        brokers, url = self.kafka.status().bootstrap_servers, self.registry.status().url
        return Settings(home=self.home, bootstrap_servers=brokers, registry_url=url, partitions=partitions)


@dataclass(frozen=True)
class Standing:
    """What is not settled yet."""

    undecided: int
    stale: int
    open: int

    def __bool__(self) -> bool:
        return bool(self.undecided or self.stale or self.open)

    def __str__(self) -> str:
        """One line."""
        return (
            f"{self.undecided} undecided, {self.stale} rows behind, {self.open} partitions with an open transaction"
        )


class Stand:
    """One app on a ground: its workers go through the proxy, its checker does not.

    Args:
        ground: The services.
        app: Name of the app.
        chance: Draws among workers.
        partitions: Of its topics.
        slots: Workers.
        mode: What the workers are.
        latency_s: Mean time that the model takes.
    """

    def __init__(
        self,
        ground: Ground,
        app: str,
        chance: random.Random,
        partitions: int = 4,
        slots: int = 2,
        mode: str = EXACTLY_ONCE,
        latency_s: float = 0.05,
    ) -> None:
        self.ground = ground
        self.app = make_app(app, mode)
        self.settings = ground.settings(partitions)
        prepare(self.app, self.settings)
        url = self.settings.require_registry()
        folder = ground.home / "traces" / app
        folder.mkdir(parents=True, exist_ok=True)
        orders = Orders(app, f"127.0.0.1:{ground.proxy.port}", url, "", latency_s=latency_s, kafka=KAFKA, mode=mode)
        self.fleet = Fleet(orders, folder, slots, chance)
        self.traces = TraceFiles(folder)
        self.streams = [stream for boundary in self.app.boundaries for stream in boundary.on]
        self._view = LogView(self.settings.require_bootstrap(), url, app, partitions)

    @property
    def seen(self) -> LogSeen:
        """What the checker has read so far."""
        return self._view.seen

    def standing(self) -> Standing:
        """What is not settled at this moment; reads on first.

        Raises:
            KafkaException: The broker does not answer.
        """
        self._view.refresh()
        seen = self.seen
        waiting = undecided(seen, self.streams)
        stale = 0 if waiting or self.app.fold is None else len(stale_rows(seen))
        return Standing(waiting, stale, len(seen.open))

    def settle(self, timeout_s: float) -> str:
        """Wait until all inputs are decided, all rows written and no transaction is open; what is not, in time."""
        deadline = time.monotonic() + timeout_s
        told = ""
        while time.monotonic() < deadline:
            try:
                standing = self.standing()
            except KafkaException as error:
                told = str(error)
                continue
            if not standing:
                return ""
            told = str(standing)
            time.sleep(SETTLE_POLL_S)
        return told

    def report(self) -> Report:
        """Judge everything that was read so far; the log must be at rest."""
        return check(self.seen, self.streams, self.traces.transactions(), self.app.fold is not None)

    def close(self) -> None:
        """End the workers and let the consumers go."""
        self.fleet.stop()
        self._view.close()
