"""Writing to the log: everything in one transaction, or nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicPartition

from driftline.log.clients import (
    REQUEST_TIMEOUT_S,
    kafka_error,
    make_producer,
    require_topics,
    unreachable,
)
from driftline.log.records import Coordinates, LogTransaction, Outgoing, Position
from driftline.log.settings import Settings
from driftline.schemas import KafkaUnreachable, UsageError

TRANSACTION_TIMEOUT_MS = 10_000
"""At most 10 s, so that a dead process holds readers up no longer than that."""
SOCKET_TIMEOUT_MS = 10_000
"""librdkafka sends a request again that got no answer for so long; not above `TRANSACTION_TIMEOUT_MS`."""
QUEUE_RECHECK_S = 0.1
"""How long to serve deliveries before another try, when the producer's queue is full."""
EXIT_FENCED = 75
"""EX_TEMPFAIL of sysexits.h: who took the id may be gone by the next start."""


class CommitRefused(UsageError):
    """The broker or the client refused the transaction; it was aborted and nothing of it is visible.

    Attributes:
        fenced: Another process took over the transactional id, or the coordinator, which tells it alike, gave a
            transaction up that outlived its timeout: this writer is done.
        stale_group: The group was rebalanced since `group` was read: go back to the committed positions and go on.
    """

    def __init__(self, message: str, fenced: bool = False, stale_group: bool = False) -> None:
        super().__init__(message, "another process may run with the same app and slot" if fenced else "")
        self.fenced = fenced
        self.stale_group = stale_group
        self.exit_code = EXIT_FENCED if fenced else UsageError.exit_code


class OutcomeUnknown(KafkaUnreachable):
    """The commit got no answer: the transaction may be visible or aborted. The group's positions tell which."""


class WriterFenced(UsageError):
    """Another process has taken the transactional id over since; only an explicit `open` takes it back."""

    exit_code = EXIT_FENCED


class TransactionalWriter:
    """A producer of transactions under a stable id; connects on first use.

    A producer whose commit or abort was slow, or that lost a connection meanwhile, is let go, and the next commit
    takes the id over anew, which bumps its epoch: librdkafka has no transactions v2 (KIP-890, librdkafka#5423), so a
    request that was delayed and sent again could otherwise end the *next* transaction.

    Not guaranteed: which of two writers with one id wins when both commit; the older one is fenced, and stays so.

    Args:
        settings: Where the log is.
        transactional_id: Stable over restarts, so that a start aborts the predecessor's open transaction.
        transaction_timeout_ms: After this the broker aborts what was left open; each step of a commit has as long.
        open_timeout_s: Of taking over the id; so late an address where nobody answers is told.
        clock: Seconds from any origin, never going back.
    """

    def __init__(
        self,
        settings: Settings,
        transactional_id: str,
        transaction_timeout_ms: int = TRANSACTION_TIMEOUT_MS,
        open_timeout_s: float = REQUEST_TIMEOUT_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self.transactional_id = transactional_id
        self.producers_replaced = 0
        """How often a producer was let go after a slow, disturbed, refused or unanswered transaction."""
        self._timeout_ms = transaction_timeout_ms
        self._open_timeout_s = open_timeout_s
        self._clock = clock
        self._socket_timeout_ms = int(settings.kafka.get("socket.timeout.ms", SOCKET_TIMEOUT_MS))
        self.fenced = False
        """Whether the last commit was fenced: `open` may take the id from a process that has it by right."""
        self._producer: Any = None
        self._disturbed = False
        self._topics: set[str] = set()

    def open(self) -> None:
        """Take over the transactional id: aborts its open transaction and fences its older producers.

        Raises:
            UsageError: The broker refuses the transactional id.
            KafkaUnreachable: No broker answers in time.
        """
        if self._producer is not None:
            return
        conf = {
            "transactional.id": self.transactional_id,
            "transaction.timeout.ms": self._timeout_ms,
            "socket.timeout.ms": self._socket_timeout_ms,
            "error_cb": self._note_disturbance,
        }
        producer = make_producer(self._settings, conf)
        try:
            producer.init_transactions(self._open_timeout_s)
        except KafkaException as error:
            raise kafka_error(self._settings, error) from error
        self._producer = producer
        self.fenced = False

    def commit(
        self, records: Sequence[Outgoing], positions: Sequence[Position] = (), group: Any = None
    ) -> list[Coordinates]:
        """Write the records and the group's positions, all or nothing.

        1. begin; 2. produce; 3. flush, without which the next step costs 100 ms of back-off; 4. send the
        positions under `group`'s metadata, which the broker checks for member and generation; 5. commit.

        Returns:
            Where each record came to lie, in the order given.

        Raises:
            CommitRefused: The transaction was aborted.
            UsageError: A topic is not there; nothing was begun.
            WriterFenced: An earlier commit was fenced.
            OutcomeUnknown: The last step got no answer within the deadline.
            KafkaUnreachable: An earlier step got none; nothing is visible.
        """
        with self.transaction() as transaction:
            placed = transaction.write(records)
            if positions:
                transaction.send_positions(positions, group)
        return placed

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """One transaction over several writes: committed at the end of the block, aborted when the block raises.

        For what needs the offsets of what was written just before. It holds committed readers of its partitions
        up, so nothing slow belongs in the block.

        Raises:
            CommitRefused: The transaction was aborted.
            UsageError: A topic is not there; what was written before is aborted.
            WriterFenced: An earlier commit was fenced.
            OutcomeUnknown: The last step got no answer within the deadline.
            KafkaUnreachable: An earlier step got none; nothing is visible.
        """
        if self.fenced:
            raise WriterFenced(
                f"another process took {self.transactional_id} over", "stop one of the two, or give it another slot"
            )
        self.open()
        self._producer.poll(0)  # what was lost before is no trouble of this transaction
        self._disturbed = False
        transaction = Transaction(
            self._producer, self._settings, self._timeout_ms / 1000, self._topics, lambda: self._disturbed
        )
        try:
            transaction.begin()
            yield transaction
            self._end(transaction.commit)
        except KafkaException as error:
            raise self._refusal(error, transaction) from error
        except BaseException:
            self._drop_open()
            raise

    def close(self) -> None:
        """Let the producer go; nothing is open between commits."""
        self._producer = None

    def _end(self, step: Callable[[], None]) -> None:
        """Commit or abort; a producer that had trouble with it is not used again."""
        began = self._clock()
        step()
        if self._disturbed or self._clock() - began >= self._socket_timeout_ms / 2000:
            self._replace()

    def _replace(self) -> None:
        self._producer = None
        self.producers_replaced += 1

    def _note_disturbance(self, error: KafkaError) -> None:
        self._disturbed = True

    def _refusal(self, error: KafkaException, transaction: Transaction) -> CommitRefused | KafkaUnreachable:
        """Abort what is open, and say what the error means.

        The producer is let go, and the next commit takes the id over: after a record was refused, librdkafka
        reports the first records of the next transaction as purged, though it never sent them (2.16). A group that
        moved on is no fault of the producer's.
        """
        cause = error.args[0]
        if cause.retriable() or cause.code() in _SILENT:
            self._replace()  # no abort, which would wait as long again: taking the id over aborts what is open
            if transaction.committing:
                what = f"the commit of {self.transactional_id} got no answer: {cause.str()}"
                return OutcomeUnknown(what, "try again")
            return unreachable(self._settings, error)
        if not cause.fatal():
            fatal = self._drop_open()
            if fatal is not None and fatal.code() in _FENCED:
                cause = fatal  # a record behind a fence is refused as `_FATAL`, which does not say so
        if cause.code() in _STALE_GROUP:
            return CommitRefused(f"the transaction was aborted: {cause.str()}", stale_group=True)
        self._replace()
        self.fenced = cause.code() in _FENCED
        return CommitRefused(f"the transaction was aborted: {cause.str()}", self.fenced)

    def _drop_open(self) -> KafkaError | None:
        """Abort; a producer that cannot is let go, and the next commit takes the id over.

        Returns:
            What is fatal to the producer; None where it could abort, or may not know whether it did.
        """
        producer = self._producer
        try:
            self._end(lambda: producer.abort_transaction(self._timeout_ms / 1000))
        except KafkaException as error:
            self._replace()
            return error.args[0] if error.args[0].fatal() else None
        return None


class Transaction(LogTransaction):
    """What is written within `TransactionalWriter.transaction`.

    Raises:
        KafkaException: From every method; the writer's block turns it into driftline's errors.
    """

    def __init__(
        self,
        producer: Any,
        settings: Settings,
        deadline_s: float,
        topics: set[str],
        is_disturbed: Callable[[], bool] = lambda: False,
    ) -> None:
        self._producer = producer
        self._is_disturbed = is_disturbed
        self._settings = settings
        self._deadline_s = deadline_s
        self._topics = topics
        self.committing = False
        """Whether the last step was begun: from then on the outcome is the coordinator's."""

    def begin(self) -> None:
        """Begin."""
        self._producer.begin_transaction()

    def write(self, records: Sequence[Outgoing]) -> list[Coordinates]:
        """Write the records; where each came to lie. They are not visible before the transaction is committed."""
        placed: list[Coordinates | KafkaError] = [KafkaError(KafkaError._MSG_TIMED_OUT)] * len(records)
        self._write(records, lambda index: _note_place(placed, index))
        lost = [at for at in placed if isinstance(at, KafkaError)]
        if lost:
            self.commit()  # it must fail, and alone knows why
            raise KafkaException(lost[0])
        return [at for at in placed if isinstance(at, Coordinates)]

    def send(self, records: Sequence[Outgoing]) -> None:
        """As `write`, for who need not know where they lie: it costs no Python object a record."""
        self._write(records, lambda index: None)

    def _write(self, records: Sequence[Outgoing], on_delivery: Callable[[int], Any]) -> None:
        """Produce and flush.

        Whatever is not delivered makes the commit fail; what is told of here is the first of them, with its cause.
        """
        self._require_topics({record.topic for record in records})
        deadline = time.monotonic() + self._deadline_s
        for index, record in enumerate(records):
            self._produce(record, on_delivery(index), deadline)
        if _flush(self._producer, max(0.0, deadline - time.monotonic())):
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT, "records were not delivered in time"))

    def send_positions(self, positions: Sequence[Position], group: Any) -> None:
        """Let the group's positions be committed with the transaction.

        Not over a connection that was lost since the transaction began: the step could hang for ever, whatever its
        timeout (librdkafka#5456).
        """
        if self._is_disturbed():
            raise KafkaException(KafkaError(KafkaError._TRANSPORT, "a connection to Kafka was lost"))
        offsets = [TopicPartition(p.topic, p.partition, p.offset, p.metadata) for p in positions]
        self._persist(lambda left_s: self._producer.send_offsets_to_transaction(offsets, group, left_s))

    def commit(self) -> None:
        """Commit."""
        self.committing = True
        self._persist(self._producer.commit_transaction)

    def _persist(self, step: Callable[[float], None]) -> None:
        """Run a step, and again while it says `retriable` and the deadline allows: the transaction stays as it is."""
        deadline = time.monotonic() + self._deadline_s
        while True:
            try:
                step(max(0.1, deadline - time.monotonic()))
                return
            except KafkaException as error:
                if not error.args[0].retriable() or time.monotonic() > deadline:
                    raise

    def _require_topics(self, names: set[str]) -> None:
        """A topic that is not there would cost the whole deadline and be told as silence: ask once for each."""
        if not names <= self._topics:
            require_topics(self._producer, self._settings, names, self._deadline_s)
            self._topics |= names

    def _produce(self, record: Outgoing, on_delivery: Any, deadline: float) -> None:
        where = {} if record.partition is None else {"partition": record.partition}
        while True:
            try:
                self._producer.produce(
                    record.topic,
                    value=record.value,
                    key=record.key,
                    headers=list(record.headers),
                    timestamp=record.timestamp_ms or 1,  # librdkafka takes 0 for now
                    on_delivery=on_delivery,
                    **where,
                )
                return
            except BufferError as error:
                if time.monotonic() > deadline:
                    raise KafkaException(KafkaError(KafkaError._TIMED_OUT, str(error))) from error
                self._producer.poll(QUEUE_RECHECK_S)


_SILENT = {KafkaError._TIMED_OUT, KafkaError._MSG_TIMED_OUT, KafkaError._TRANSPORT}
_FENCED = {
    KafkaError._FENCED,
    KafkaError.PRODUCER_FENCED,
    KafkaError.INVALID_PRODUCER_EPOCH,
}
_STALE_GROUP = {
    KafkaError.ILLEGAL_GENERATION,
    KafkaError.UNKNOWN_MEMBER_ID,
    KafkaError.FENCED_INSTANCE_ID,
}


def _flush(producer: Any, timeout_s: float) -> int:
    """Flush; how many are left. A fatal error within it comes out of confluent-kafka (2.16) as a SystemError."""
    try:
        left: int = producer.flush(timeout_s)
    except SystemError as error:
        cause = error.__cause__ or error.__context__
        if isinstance(cause, KafkaException):
            raise cause from error
        raise
    return left


def _note_place(placed: list[Coordinates | KafkaError], index: int) -> Any:
    def note(error: KafkaError | None, message: Any) -> None:
        placed[index] = error or Coordinates(message.topic(), message.partition(), message.offset())

    return note
