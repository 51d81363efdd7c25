"""Reads an app's topics for the checker: consumers of its own, fastavro, schemas over HTTP."""

from __future__ import annotations

import hashlib
import json
import struct
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, IsolationLevel, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]
from fastavro import parse_schema, schemaless_reader
from tests.faults.checker import DeadSeen, DecisionSeen, EventSeen, LogSeen, RowSeen

ROLES = ("events", "decisions", "dead", "state")
WHY = frozenset(
    ("driftline_reason", "driftline_detail", "driftline_topic", "driftline_partition", "driftline_offset")
)
"""Headers that a dead record has on top of its input's."""
REQUEST_TIMEOUT_S = 10.0
MESSAGES_MAX = 2_000


class Schemas:
    """Writers' schemas by id, asked for once."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._known: dict[int, Any] = {}

    def decode(self, value: bytes) -> dict[str, Any]:
        """The fields of a value in Confluent's wire format."""
        schema_id = struct.unpack_from(">bI", value)[1]
        if schema_id not in self._known:
            with urllib.request.urlopen(f"{self._url}/schemas/ids/{schema_id}", timeout=REQUEST_TIMEOUT_S) as answer:
                self._known[schema_id] = parse_schema(json.loads(json.load(answer)["schema"]))
        body = BytesIO(value)
        body.seek(5)
        return dict(schemaless_reader(body, self._known[schema_id], None))  # type: ignore[arg-type]


class LogView:
    """What lies on an app's topics, read twice: committed and uncommitted. Grows with every `refresh`.

    Args:
        bootstrap: Of the brokers, not through any proxy.
        registry: URL of the registry.
        app: Name of the app.
        partitions: Of each of its topics.
    """

    def __init__(self, bootstrap: str, registry: str, app: str, partitions: int) -> None:
        self.seen = LogSeen({role: f"{app}.{role}" for role in ROLES})
        self._places = [(self.seen.topics[role], part) for role in ROLES for part in range(partitions)]
        self._schemas = Schemas(registry)
        self._bootstrap = bootstrap
        self._admin = self._make_admin()
        self._take: Mapping[str, Callable[[Any], None]] = {
            self.seen.topics["events"]: self._event,
            self.seen.topics["decisions"]: self._decision,
            self.seen.topics["dead"]: self._dead_record,
            self.seen.topics["state"]: self._row,
        }
        self._committed = _Following(bootstrap, "read_committed", self._places)
        self._uncommitted = _Following(bootstrap, "read_uncommitted", self._places)

    def refresh(self, timeout_s: float = 5.0) -> bool:
        """Read both views up to the present end; False where the committed one is held up by an open transaction.

        Raises:
            KafkaException: The broker does not answer.
        """
        try:
            ends = self._ends(IsolationLevel.READ_UNCOMMITTED)
            stable = self._ends(IsolationLevel.READ_COMMITTED)
        except KafkaException:
            self._admin = (
                self._make_admin()
            )  # a client asks with the leader epochs of before a broker's restart for ever
            raise
        self.seen.open = [place for place in self._places if stable[place] < ends[place]]
        deadline = time.monotonic() + timeout_s
        for message in self._committed.read_to(stable, deadline):
            self.seen.committed.add((message.topic(), message.partition(), message.offset()))
            self._take[message.topic()](message)
        ends = {place: max(end, self._committed.reached[place]) for place, end in ends.items()}
        for message in self._uncommitted.read_to(ends, deadline):
            self.seen.uncommitted.add((message.topic(), message.partition(), message.offset()))
        return not self.seen.open

    def close(self) -> None:
        """Let the consumers go."""
        self._committed.close()
        self._uncommitted.close()

    def _make_admin(self) -> Any:
        return AdminClient({"bootstrap.servers": self._bootstrap, "log_level": 0})

    def _ends(self, isolation: IsolationLevel) -> dict[tuple[str, int], int]:
        asked = {TopicPartition(*place): OffsetSpec.latest() for place in self._places}  # type: ignore[no-untyped-call]
        found = self._admin.list_offsets(asked, isolation_level=isolation, request_timeout=REQUEST_TIMEOUT_S)
        return {(at.topic, at.partition): future.result().offset for at, future in found.items()}

    def _event(self, message: Any) -> None:
        headers = dict(message.headers() or ())
        self.seen.events.append(
            EventSeen(
                at=(message.partition(), message.offset()),
                key=message.key(),
                id=_text(headers.get("ce_id")),
                stream=_text(headers.get("ce_type")),
                source=_text(headers.get("ce_source")),
                digest=digest(message),
            )
        )

    def _decision(self, message: Any) -> None:
        value = self._schemas.decode(message.value())
        self.seen.decisions.append(
            DecisionSeen(
                at=(message.partition(), message.offset()),
                input=(value["input"]["partition"], value["input"]["offset"]),
                workflow=value["workflow"],
                emitted=tuple(value["committed_event_ids"]),
                attempts=len(value["attempts"]),
                decided_at=value["decided_at"].timestamp(),
            )
        )

    def _dead_record(self, message: Any) -> None:
        headers = dict(message.headers())
        input_at = int(headers["driftline_partition"]), int(headers["driftline_offset"])
        self.seen.dead.append(DeadSeen((message.partition(), message.offset()), input_at, digest(message)))

    def _row(self, message: Any) -> None:
        place = (message.partition(), message.key())
        if message.value() is None:
            self.seen.rows.pop(place, None)
            return
        value = self._schemas.decode(message.value())
        self.seen.rows[place] = RowSeen(value["version"], value["as_of"])


class _Following:
    """A consumer that reads on from where it stopped, up to ends that it is given."""

    def __init__(self, bootstrap: str, isolation: str, places: Sequence[tuple[str, int]]) -> None:
        self.reached = dict.fromkeys(places, 0)
        self._consumer: Any = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": "faults-checker",
                "isolation.level": isolation,
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "fetch.wait.max.ms": 50,
                "reconnect.backoff.max.ms": 500,
                "log_level": 0,
            }
        )
        self._consumer.assign([TopicPartition(*place, OFFSET_BEGINNING) for place in places])

    def read_to(self, ends: Mapping[tuple[str, int], int], deadline: float) -> list[Any]:
        found = []
        while any(self.reached[place] < end for place, end in ends.items()) and time.monotonic() < deadline:
            for message in self._consumer.consume(MESSAGES_MAX, 0.05):
                place, error = (message.topic(), message.partition()), message.error()
                if error is None:
                    found.append(message)
                    self.reached[place] = max(self.reached[place], message.offset() + 1)
                elif error.code() == KafkaError._PARTITION_EOF:
                    self.reached[place] = max(self.reached[place], message.offset())
                elif not error.retriable():
                    raise KafkaException(error)
        return found

    def close(self) -> None:
        self._consumer.close()


def digest(message: Any) -> bytes:
    """Of a message's key, value and headers; headers that say why it is dead are left out."""
    headers = [(name, value) for name, value in message.headers() or () if name not in WHY]
    return hashlib.blake2b(repr((message.key(), message.value(), headers)).encode(), digest_size=16).digest()


def _text(raw: bytes | None) -> str:
    return "" if raw is None else raw.decode(errors="replace")
