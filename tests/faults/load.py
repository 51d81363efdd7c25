"""What is put on the log while faults happen: renewals all the time, and records that no app should have to bear."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from uuid import UUID

from confluent_kafka import Producer
from tests.faults.worker import make_app

from driftline.log import Outgoing, Settings, to_outgoing
from driftline.producers import Publisher
from driftline.producers.renewals import synthetic_renewals
from driftline.schemas import Codec, Event, Registry

WORKFLOWS = 60
"""Few, so that every one has several events under way."""
OVERSIZE_BYTES = 300_000
"""Above what an input may have (262,144), below what the events topic takes."""
DELIVERY_TIMEOUT_S = 60.0
"""Outlasts a broker that is started again."""


def renewals(count: int, seed: int, chance: random.Random) -> list[Event]:
    """Renewals of few workflows, each with an id of its own."""
    return [
        replace(
            event,
            workflow=f"w{chance.randrange(WORKFLOWS)}",
            id=str(UUID(int=chance.getrandbits(128))),
            data={**event.data},
        )
        for event in synthetic_renewals(count, seed)
    ]


class Load:
    """Publishes so many renewals over some seconds, in a thread.

    Args:
        app: Name of the app.
        settings: Where its log is.
        events: How many a call.
        over_s: In about how many seconds.
    """

    def __init__(self, app: str, settings: Settings, events: int, over_s: float) -> None:
        self._publisher = Publisher(
            app, make_app(app).schemas, settings, source="crm", delivery_timeout_s=DELIVERY_TIMEOUT_S
        )
        self._events = events
        self._over_s = over_s

    def begin(self, seed: int, chance: random.Random) -> threading.Thread:
        """Start publishing; join the thread to know that all is delivered."""
        events = renewals(self._events, seed, chance)
        thread = threading.Thread(target=self._publish, args=[events], name="load", daemon=True)
        thread.start()
        return thread

    def close(self) -> None:
        """Flush."""
        self._publisher.close()

    def _publish(self, events: list[Event]) -> None:
        bursts = max(1, round(self._over_s / 0.1))
        size = -(-len(events) // bursts)
        for start in range(0, len(events), size):
            for event in events[start : start + size]:
                self._publisher.publish_event(event)
            time.sleep(self._over_s / bursts)
        self._publisher.flush()


class Raw:
    """Puts records on the events topic as they are, without driftline's checks."""

    def __init__(self, app: str, settings: Settings) -> None:
        self._app = make_app(app)
        self._codec = Codec(Registry(settings.require_registry()), self._app.contracts)
        self._producer: Any = Producer(
            {
                "bootstrap.servers": settings.require_bootstrap(),
                "partitioner": "murmur2_random",
                "enable.idempotence": True,
                "message.max.bytes": 2_000_000,
                "log_level": 0,
            }
        )

    def encode(self, event: Event) -> Outgoing:
        """The record of an event."""
        return to_outgoing(event, self._app.topics.events, self._codec)

    def put(self, records: Iterator[Outgoing] | list[Outgoing]) -> int:
        """Write records and wait for their delivery; how many there were."""
        count = 0
        for record in records:
            self._producer.produce(
                record.topic, record.value, record.key, headers=list(record.headers), timestamp=record.timestamp_ms
            )
            count += 1
            self._producer.poll(0)
        if self._producer.flush(DELIVERY_TIMEOUT_S):
            raise RuntimeError("the load could not be delivered")
        return count

    def corrupt(self, chance: random.Random) -> list[Outgoing]:
        """Records that must end in the dead topic, each whole."""
        good = [self.encode(event) for event in renewals(12, chance.randrange(10**6), chance)]
        value = good[0].value or b""
        values = [b"", b"\x01" + value[1:], value[:9], value + b"\x00", b"\x00\x7f\xff\xff\xff" + value[5:], None]
        broken = [replace(record, value=bad) for record, bad in zip(good, values, strict=False)]
        return [
            *broken,
            replace(good[6], value=chance.randbytes(OVERSIZE_BYTES)),
            replace(good[7], value=value + bytes(OVERSIZE_BYTES)),
            replace(good[8], key=None),
            replace(good[9], key=b"\xff\xfe"),
            replace(good[10], headers=()),
            replace(good[11], headers=[(name, b"\xff") for name, _ in good[11].headers]),
        ]

    def mutations(self, records: int, chance: random.Random) -> Iterator[Outgoing]:
        """Each byte of so many records' values changed to another, one at a time, every one a record with its id."""
        for event in renewals(records, chance.randrange(10**6), chance):
            value = self.encode(event).value or b""
            for place, byte in enumerate(value):
                changed = bytearray(value)
                changed[place] = byte ^ chance.randrange(1, 256)
                told = replace(event, id=str(UUID(int=chance.getrandbits(128))))
                yield replace(self.encode(told), value=bytes(changed))
