"""The clock of an app: facts that tell each partition of its events how far event time has come."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from types import TracebackType
from typing import Self

from driftline.log import AppTopics, KafkaReader, Outgoing, Settings, TransactionalWriter, to_outgoing
from driftline.schemas import Codec, Contracts, Event, Registry
from driftline.schemas.ids import derive_id
from driftline.schemas.names import CLOCK_KEY, CLOCK_TICKED


class Ticker:
    """Writes `ClockTicked` facts, one a partition, all of a tick in one transaction. Connects at the first tick.

    Timers whose time has come by then fire. One ticker an app: a second one ends the first (transactional id).
    Event time of rows is that of the facts; a ticker that tells the wall clock belongs to facts of today.

    Args:
        app: Name of the app.
        settings: Where the log is.
    """

    def __init__(self, app: str, settings: Settings) -> None:
        self._app = app
        self._topic = AppTopics(app).events
        self._settings = settings
        self._writer = TransactionalWriter(settings, f"driftline.{app}.ticker")
        self._codec: Codec | None = None
        self._partitions: list[int] = []

    def tick(self, time: datetime) -> int:
        """Tell every partition that event time has come to `time`; how many there are.

        The same time again writes facts of the same ids, which move nothing.

        Raises:
            UsageError: There is no such topic, or another ticker has taken over.
            EnvironmentUnreachable: A broker or the registry does not answer.
        """
        if self._codec is None:
            self._codec = Codec(Registry(self._settings.require_registry()), Contracts.load())
            self._partitions = sorted(KafkaReader(self._settings).span(self._topic).ranges)
        self._writer.commit(list(ticks(self._app, self._partitions, time, self._codec)))
        return len(self._partitions)

    def close(self) -> None:
        """Let the connection go."""
        self._writer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def ticks(app: str, partitions: Iterable[int], time: datetime, codec: Codec) -> Iterable[Outgoing]:
    """The facts of one tick."""
    topic = AppTopics(app).events
    for partition in partitions:
        id_ = derive_id(app, CLOCK_TICKED, str(partition), time.isoformat())
        event = Event(id_, CLOCK_TICKED, "driftline-ticker", CLOCK_KEY, time, CLOCK_TICKED, {"ticked_at": time})
        yield to_outgoing(event, topic, codec, partition)
