"""The producers that a worker runs with: they note every step, die at a chosen one, or do without transactions.

They take the place of `confluent_kafka.Producer` where driftline makes its clients, so that whatever the runtime is
made of, what is noted is what librdkafka was asked for.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Mapping
from typing import Any

from confluent_kafka import Consumer, Producer
from tests.faults import tracing
from tests.faults.tracing import Place, Trace


class Doom:
    """Kills its own process the next time that it comes to a chosen point."""

    def __init__(self) -> None:
        self._point = ""
        self._after_ms = 0.0

    def arm(self, point: str, after_ms: float = 0.0) -> None:
        """Die at the point, or so long after it, wherever the process is by then."""
        self._point, self._after_ms = point, after_ms

    def come_to(self, point: str) -> None:
        """Die if this is the point."""
        if point != self._point:
            return
        self._point = ""
        if self._after_ms == 0:
            die()
        timer = threading.Timer(self._after_ms / 1000, die)
        timer.daemon = True
        timer.start()


def die() -> None:
    """Be killed, as by `kill -9`."""
    os.kill(os.getpid(), signal.SIGKILL)


class TracedProducer(Producer):
    """A producer that notes the steps of its transactions.

    Args:
        conf: Of librdkafka.
        trace: Where to note.
        doom: Told every step before it is taken.
        options: Passed on.
    """

    def __init__(self, conf: Mapping[str, Any], trace: Trace, doom: Doom, **options: Any) -> None:
        super().__init__(dict(conf), **options)
        self._trace = trace
        self._doom = doom
        self._placed: list[Place] = []
        self._produced = False

    def begin_transaction(self) -> None:
        """As confluent_kafka's."""
        self._placed.clear()
        self._produced = False
        self._trace.note(tracing.BEGIN)
        self._doom.come_to(tracing.BEGIN)
        super().begin_transaction()

    def produce(self, *args: Any, **more: Any) -> None:
        """As confluent_kafka's, with `on_delivery` by name; the delivery is noted on the way."""
        on_delivery: Callable[..., None] | None = more.pop("on_delivery")

        def note(error: Any, message: Any) -> None:
            if error is None:
                self._placed.append((message.topic(), message.partition(), message.offset()))
            if on_delivery is not None:
                on_delivery(error, message)

        super().produce(*args, **{**more, "on_delivery": note})
        if not self._produced:
            self._produced = True
            self._doom.come_to(tracing.PRODUCE)

    def flush(self, *args: Any) -> int:
        """As confluent_kafka's."""
        left: int = super().flush(*args)
        self._note(tracing.FLUSHED)
        return left

    def send_offsets_to_transaction(self, *args: Any) -> None:
        """As confluent_kafka's."""
        self._note(tracing.POSITIONS)
        super().send_offsets_to_transaction(*args)

    def commit_transaction(self, *args: Any) -> None:
        """As confluent_kafka's."""
        self._note(tracing.COMMIT)
        super().commit_transaction(*args)
        self._note(tracing.COMMITTED)

    def abort_transaction(self, *args: Any) -> None:
        """As confluent_kafka's."""
        super().abort_transaction(*args)
        self._note(tracing.ABORTED)

    def _note(self, step: str) -> None:
        self._trace.note(step, placed=self._placed)
        self._placed.clear()
        self._doom.come_to(step)


class AtLeastOnceProducer(TracedProducer):
    """What many loops do instead: produce, flush, then commit the offsets. A negative control."""

    group_consumer: Any = None
    """Whose offsets are committed; set by the consumer that was made last."""

    def __init__(self, conf: Mapping[str, Any], trace: Trace, doom: Doom, **options: Any) -> None:
        plain = {name: value for name, value in conf.items() if not name.startswith("transaction")}
        super().__init__(plain, trace, doom, **options)
        self._offsets: Any = None

    def init_transactions(self, *_: Any) -> None:
        """Nothing."""

    def begin_transaction(self) -> None:
        """Nothing."""

    def send_offsets_to_transaction(self, offsets: Any, *_: Any) -> None:
        """Keep the offsets for later."""
        self._offsets = offsets

    def commit_transaction(self, *_: Any) -> None:
        """Commit the offsets; what was produced is there already."""
        super().flush()
        if self._offsets is not None:
            self._doom.come_to(tracing.COMMIT)
            type(self).group_consumer.commit(offsets=self._offsets, asynchronous=False)
            self._offsets = None

    def abort_transaction(self, *_: Any) -> None:
        """Nothing can be taken back."""


class RememberedConsumer(Consumer):
    """A consumer whose offsets `AtLeastOnceProducer` commits."""

    def subscribe(self, *args: Any, **more: Any) -> None:
        """As confluent_kafka's."""
        AtLeastOnceProducer.group_consumer = self
        super().subscribe(*args, **more)
