"""Following the growing end of a decisions topic without a trace: no group is joined, no position committed."""

from __future__ import annotations

from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicPartition

from driftline.log import AppTopics, KafkaReader, Settings
from driftline.log.clients import kafka_error, make_reader, take
from driftline.log.reader import to_record
from driftline.replay.segment import LoggedDecision, Selection, decision_of, span_of
from driftline.schemas import Codec

GROUP_PREFIX = "driftline-replay-"
"""An app's group begins with `driftline.`."""
FETCH_WAIT_MS_MAX = 100
"""The broker answers a fetch at the end of a partition after so long."""
BATCH_RECORDS_MAX = 200
"""Few: what is taken in advance of the calls lies in memory, what is not lies on the log."""


class DecisionTail:
    """Decisions as they are committed, all partitions, each partition in offset order. Not for several threads.

    Not guaranteed: order across partitions; it is that in which they came.

    Args:
        settings: Where the log is.
        codec: Decodes.
        app: Whose decisions.
        selection: What of them; where it begins, the tail begins. Without a beginning it begins at the end.
    """

    def __init__(self, settings: Settings, codec: Codec, app: str, selection: Selection) -> None:
        self._settings = settings
        self._codec = codec
        self._app = app
        self._selection = selection
        self._consumer: Any = None

    def open(self) -> dict[int, int]:
        """Connect; partition to the offset from which it follows.

        Raises:
            UsageError: There is no such topic, or the selection is not on it.
            KafkaUnreachable: No broker answers.
        """
        topic, reader = AppTopics(self._app).decisions, KafkaReader(self._settings)
        if self._selection.start is None and self._selection.offsets is None:
            begins = {partition: high for partition, (_, high) in reader.span(topic).ranges.items()}
        else:
            begins = {p: low for p, (low, _) in span_of(reader, topic, self._selection).ranges.items()}
        conf = {"group.id": f"{GROUP_PREFIX}shadow-{self._app}", "fetch.wait.max.ms": FETCH_WAIT_MS_MAX}
        self._consumer = make_reader(self._settings, conf)
        self._consumer.assign([TopicPartition(topic, partition, offset) for partition, offset in begins.items()])
        return begins

    def poll(self, timeout_s: float) -> list[LoggedDecision]:
        """What has come since; waits no longer than the timeout for the first.

        Raises:
            BadInput: A record of the topic is no decision.
            KafkaUnreachable: The client gave up.
        """
        found = []
        for message in take(self._consumer, BATCH_RECORDS_MAX, timeout_s):
            error = message.error()
            if error is None:
                found += self._taken(to_record(message))
            elif error.code() != KafkaError._PARTITION_EOF and not error.retriable():
                raise kafka_error(self._settings, KafkaException(error))
        return found

    def close(self) -> None:
        """Let the connection go."""
        if self._consumer is not None:
            self._consumer.close()
            self._consumer = None

    def _taken(self, record: Any) -> list[LoggedDecision]:
        if not self._selection.may_take(record):
            return []
        decision = decision_of(record, self._codec)
        taken = decision is not None and self._selection.takes(decision, record.at)
        return [LoggedDecision(record.at, decision)] if decision is not None and taken else []
