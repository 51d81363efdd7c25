"""`Publisher`: facts from user code onto an app's events topic."""

from __future__ import annotations

import asyncio
import atexit
import threading
import time as monotonic_time
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

from confluent_kafka import KafkaError, KafkaException
from opentelemetry.trace import get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from driftline.log import AppTopics, Coordinates, Outgoing, Settings, load_settings, to_outgoing
from driftline.log.clients import REQUEST_TIMEOUT_S, make_producer, require_topics
from driftline.log.events import INPUT_BYTES_MAX
from driftline.producers.checking import PayloadCheck
from driftline.producers.delivery import Delivery, Outcome
from driftline.producers.errors import DeliveryFailed, QueueFull
from driftline.schemas import BadInput, Codec, Contracts, Event, UsageError

QUEUE_RECORDS_MAX = 10_000
"""Events that wait for their delivery; when there are so many, publishing waits."""
QUEUE_KBYTES_MAX = 131_072
"""The same in bytes."""
QUEUE_FULL_TIMEOUT_S = 30.0
"""How long publishing waits for room before it raises `QueueFull`."""
QUEUE_RECHECK_S = 0.02
"""Between two looks for room; librdkafka frees it a moment after it reports the delivery."""
DELIVERY_TIMEOUT_S = 30.0
"""After this an event that no broker has confirmed has failed."""
FLUSH_MARGIN_S = 5.0
"""Beyond the delivery timeout by which every outcome is known."""
POLL_S = 0.1
"""Of the thread that serves delivery reports; bounds how late a close is seen."""


class Publisher:
    """Publishes events of one app, each at least once and in order per workflow; connects at the first event.

    Idempotent: a retry of the producer's own is written once. An event that the caller publishes again after
    `DeliveryFailed` may lie on the log twice; give it the same id, and readers can tell. Safe for many threads.

    Not guaranteed: order among calls of `apublish` that were not awaited one after the other, and that topics
    exist: `driftline topics create APP` makes them.

    Args:
        app: Name of the app.
        schemas: Folder of the app's `.avsc` files, `<record name>/<version>.avsc`; None knows driftline's own.
        settings: Where the log is; None reads them as the command line does.
        source: `ce_source` of the events: a system or a person.
        clock: Event time of events that are given none; without a clock they are refused.
        new_id: Draws the id of an event that is given none, once, before it is enqueued.
        queue_records_max: See `QUEUE_RECORDS_MAX`.
        queue_full_timeout_s: See `QUEUE_FULL_TIMEOUT_S`.
        delivery_timeout_s: See `DELIVERY_TIMEOUT_S`.

    Raises:
        UsageError: The app's name cannot be one.
        ContractError: A schema file is wrong.
    """

    def __init__(
        self,
        app: str,
        schemas: Path | None = None,
        settings: Settings | None = None,
        *,
        source: str,
        clock: Callable[[], datetime] | None = None,
        new_id: Callable[[], str] = lambda: str(uuid4()),
        queue_records_max: int = QUEUE_RECORDS_MAX,
        queue_full_timeout_s: float = QUEUE_FULL_TIMEOUT_S,
        delivery_timeout_s: float = DELIVERY_TIMEOUT_S,
    ) -> None:
        self._topic = AppTopics(app).events
        self._contracts = Contracts.load(*([] if schemas is None else [schemas]))
        self._settings = load_settings() if settings is None else settings
        self._source = source
        self._clock = clock
        self._new_id = new_id
        self._queue_records_max = queue_records_max
        self._full_timeout_s = queue_full_timeout_s
        self._delivery_timeout_s = delivery_timeout_s
        self._checks: dict[str, PayloadCheck] = {}
        self._met: set[str] = set()
        self._connecting = threading.Lock()
        self._changed = threading.Condition()
        self._waiting = 0
        self._failed: list[DeliveryFailed] = []
        self._codec: Codec | None = None
        self._producer: Any = None
        self._thread: threading.Thread | None = None
        self._closed = False

    def publish(
        self,
        record: str,
        data: Mapping[str, Any],
        *,
        workflow: str,
        type: str | None = None,
        time: datetime | None = None,
        id: str | None = None,
        traceparent: str | None = None,
        causation_id: str | None = None,
    ) -> Delivery:
        """Enqueue one event.

        Args:
            record: Avro record name of the payload.
            data: The payload.
            workflow: The record's key.
            type: The stream; the record name when None.
            time: Event time, with a zone.
            id: The event's id.
            traceparent: W3C trace context; that of the caller's current span, if there is one, when None.
            causation_id: `ce_id` of the event that led to this one.

        Returns:
            What became of it, once it is known.

        Raises:
            ContractError: The payload does not fit the record; names the field.
            BadInput: No time, no workflow, or too large.
            QueueFull: There was no room for as long as the publisher may wait; the event was not taken.
            UsageError: The app's topics are not there, or the publisher is closed.
            EnvironmentUnreachable: The brokers or the registry do not answer to the first event.
        """
        return self.publish_event(self._event(record, data, workflow, type, time, id, traceparent, causation_id))

    def publish_event(self, event: Event) -> Delivery:
        """As `publish`, of an event that is put together already."""
        outgoing = self._ready(event)
        delivery = Delivery(event.id, self._topic, self._changed)
        deadline = monotonic_time.monotonic() + self._full_timeout_s
        while not self._offer(outgoing, delivery):
            self._refuse_after(deadline)
            with self._changed:
                self._changed.wait(QUEUE_RECHECK_S)
        return delivery

    async def apublish(
        self,
        record: str,
        data: Mapping[str, Any],
        *,
        workflow: str,
        type: str | None = None,
        time: datetime | None = None,
        id: str | None = None,
        traceparent: str | None = None,
        causation_id: str | None = None,
    ) -> Coordinates:
        """Publish one event and wait for its delivery; where it came to lie. Arguments and errors as `publish`.

        Raises:
            DeliveryFailed: It was not delivered.
        """
        event = self._event(record, data, workflow, type, time, id, traceparent, causation_id)
        # Only the first event of a record type talks to the registry and the brokers.
        outgoing = self._ready(event) if record in self._met else await asyncio.to_thread(self._ready, event)
        delivery = Delivery(event.id, self._topic, self._changed)
        deadline = monotonic_time.monotonic() + self._full_timeout_s
        while not self._offer(outgoing, delivery):
            self._refuse_after(deadline)
            await asyncio.sleep(QUEUE_RECHECK_S)
        return await delivery.arrival()

    def flush(self, timeout: float | None = None) -> None:
        """Wait until the outcome of every event is known.

        Args:
            timeout: Seconds; None waits as long as a delivery may take.

        Raises:
            DeliveryFailed: Events failed since the last flush, or are still waiting after the timeout.
        """
        timeout = self._delivery_timeout_s + FLUSH_MARGIN_S if timeout is None else timeout
        with self._changed:
            self._changed.wait_for(lambda: self._waiting == 0, timeout)
            waiting, failed = self._waiting, list(self._failed)
            self._failed.clear()
        if failed:
            raise self._failure_of(failed)
        if waiting:
            raise DeliveryFailed(
                f"{self._topic}: {waiting} events still wait after {timeout:g} s", self._topic, "", waiting
            )

    def close(self, timeout: float | None = None) -> None:
        """Flush, then let the producer go. Closing again does nothing.

        Raises:
            DeliveryFailed: As `flush`; what still waited is given up.
        """
        if self._closed:
            return
        try:
            self.flush(timeout)
        finally:
            self._closed = True
            atexit.unregister(self.close)
            if self._thread is not None:
                self._producer.purge()
                self._thread.join()
                self._producer = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close; what was not delivered is told, but never hides the error that ended the block."""
        try:
            self.close()
        except DeliveryFailed as failure:
            if error is None:
                raise
            error.add_note(str(failure))

    def _event(
        self,
        record: str,
        data: Mapping[str, Any],
        workflow: str,
        type: str | None,
        time: datetime | None,
        id: str | None,
        traceparent: str | None,
        causation_id: str | None,
    ) -> Event:
        if time is None and self._clock is None:
            raise BadInput("time: an event needs its time", "give `time`, or the publisher a `clock`")
        return Event(
            id=self._new_id() if id is None else id,
            type=record if type is None else type,
            source=self._source,
            workflow=workflow,
            time=time or self._clock(),  # type: ignore[misc]  # one of the two was given
            record=record,
            data=data,
            causation_id=causation_id,
            traceparent=_current_traceparent() if traceparent is None else traceparent,
        )

    def _ready(self, event: Event) -> Outgoing:
        """Check and encode an event; connects for the first."""
        if self._closed:
            raise UsageError("the publisher is closed", "make a new one")
        if not event.workflow:
            raise BadInput("workflow: an event needs its workflow", "give the id that orders and groups it")
        self._check(event)
        outgoing = to_outgoing(event, self._topic, self._codec or self._connect())
        if len(outgoing.value or b"") > INPUT_BYTES_MAX:
            raise BadInput(
                f"data: {len(outgoing.value or b'')} bytes, at most {INPUT_BYTES_MAX}", "store it elsewhere"
            )
        self._met.add(event.record)
        return outgoing

    def _check(self, event: Event) -> None:
        check = self._checks.get(event.record)
        if check is None:
            check = self._checks[event.record] = PayloadCheck(self._contracts.require(event.record))
        check(event.data)

    def _connect(self) -> Codec:
        """1. prove that the topic is there; 2. start serving delivery reports."""
        with self._connecting:
            if self._codec is None:
                codec = self._settings.codec(self._contracts)
                producer = make_producer(self._settings, self._producer_settings())
                require_topics(producer, self._settings, [self._topic], REQUEST_TIMEOUT_S)
                self._producer = producer
                self._thread = threading.Thread(target=self._serve, name=f"publisher {self._topic}", daemon=True)
                self._thread.start()
                atexit.register(self.close)
                self._codec = codec
            return self._codec

    def _producer_settings(self) -> dict[str, Any]:
        return {
            "enable.idempotence": True,
            "acks": "all",
            "delivery.timeout.ms": round(self._delivery_timeout_s * 1000),
            "queue.buffering.max.messages": self._queue_records_max,
            "queue.buffering.max.kbytes": QUEUE_KBYTES_MAX,
        }

    def _serve(self) -> None:
        producer = self._producer
        while not self._closed or self._waiting:
            producer.poll(POLL_S)

    def _offer(self, outgoing: Outgoing, delivery: Delivery) -> bool:
        """Hand the event to the producer; False when its queue is full."""
        with self._changed:
            self._waiting += 1
        try:
            self._producer.produce(
                outgoing.topic,
                value=outgoing.value,
                key=outgoing.key,
                headers=list(outgoing.headers),
                timestamp=outgoing.timestamp_ms,
                on_delivery=lambda error, message: self._report(delivery, error, message),
            )
        except BaseException as error:
            with self._changed:
                self._waiting -= 1
            if isinstance(error, BufferError):
                return False
            if isinstance(error, KafkaException):
                raise _failure(delivery, error.args[0]) from error
            raise
        return True

    def _report(self, delivery: Delivery, error: KafkaError | None, message: Any) -> None:
        """Note what became of one event; runs in the serving thread."""
        outcome: Outcome
        if error is None:
            outcome = Coordinates(message.topic(), message.partition(), message.offset())
        else:
            outcome = _failure(delivery, error)
        with self._changed:
            self._waiting -= 1
            if isinstance(outcome, DeliveryFailed):
                self._failed.append(outcome)
            delivery.settle(outcome)
            self._changed.notify_all()

    def _refuse_after(self, deadline: float) -> None:
        if monotonic_time.monotonic() > deadline:
            raise QueueFull(self._topic, self._queue_records_max, self._full_timeout_s)

    def _failure_of(self, failed: list[DeliveryFailed]) -> DeliveryFailed:
        first = failed[0]
        if len(failed) == 1:
            return first
        return DeliveryFailed(
            f"{len(failed)} events were not delivered; the first: {first.message}",
            self._topic,
            first.event_id,
            len(failed),
            all(one.retryable for one in failed),
        )


def _current_traceparent() -> str | None:
    if not get_current_span().get_span_context().is_valid:
        return None
    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return carrier["traceparent"]


def _failure(delivery: Delivery, error: KafkaError) -> DeliveryFailed:
    timed_out = error.code() in {KafkaError._MSG_TIMED_OUT, KafkaError._TIMED_OUT, KafkaError._PURGE_QUEUE}
    message = f"{delivery.topic}: the event {delivery.event_id} was not delivered: {error.str()}"
    return DeliveryFailed(message, delivery.topic, delivery.event_id, retryable=timed_out or error.retriable())
