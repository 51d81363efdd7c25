"""Committing a batch: once, whatever the broker does meanwhile."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from itertools import count

from driftline.consumers.batch import Batch, positions
from driftline.consumers.watchdog import Watchdog
from driftline.log import CommitRefused, GroupConsumer, OutcomeUnknown, Position, TransactionalWriter, WriterFenced
from driftline.log.positions import read_metadata
from driftline.log.writer import TRANSACTION_TIMEOUT_MS
from driftline.schemas import KafkaUnreachable

REFUSALS_MAX = 3
"""Refused commits in a row; further ones would be refused too."""
OUTAGE_S_MAX = 60.0
"""A broker that does not take a batch for so long ends the process; below the poll interval of the group."""

_log = logging.getLogger("driftline.committing")


class Committer:
    """Brings batches into the log in one transaction each, with the positions of the group.

    Args:
        writer: Of this process slot.
        inbox: The member of the group whose positions move.
        topic: That it reads.
        is_member: Whether the member that metadata of the group is of is still in it, as the coordinator says.
        refused: Told why a transaction was not committed: `stale_group`, `fenced`, `unknown`, `unreachable` or
            `aborted`.
        beat: Called before each try, since they may take a minute together.
        watchdog: Over each transaction.
        clock: Seconds from any origin, never going back.
    """

    def __init__(
        self,
        writer: TransactionalWriter,
        inbox: GroupConsumer,
        topic: str,
        is_member: Callable[[bytes], bool],
        refused: Callable[[str], None] = lambda reason: None,
        beat: Callable[[], None] = lambda: None,
        watchdog: Watchdog | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._refused = refused
        self._beat = beat
        self._writer = writer
        self._inbox = inbox
        self._topic = topic
        self._is_member = is_member
        self._watchdog = watchdog or Watchdog()
        self._clock = clock

    def commit(self, batch: Batch) -> bool:
        """Commit the batch; False when the group has moved on: poll, drop what was lost, and come again.

        1. one transaction under the watchdog; 2. where that failed: a new producer, whose start waits until the
        coordinator is through with the old one, then `committed()`: the batch has landed if its positions have;
        3. if it has not, the same again, so that no model is asked twice.

        A fence is the coordinator's where the transaction outlived its timeout, or a successor's: only a member of
        the group takes the id back, which who has a successor under its instance id is not.

        Not guaranteed: that a successor which has the id and is not in the group yet keeps it; it is fenced then, and
        fences in its turn once it is started again and has joined.

        The same metadata of the group goes with every try: if the member is not what it was when the last poll
        returned, the coordinator refuses.

        Raises:
            CommitRefused: Another process has the slot, or the broker refuses time and again.
            WriterFenced: The transaction was fenced, and the place in the group is lost too.
            KafkaUnreachable: No broker took it within `OUTAGE_S_MAX`.
        """
        sent, group = positions(self._topic, batch.owners), self._inbox.group_metadata
        deadline = self._clock() + OUTAGE_S_MAX
        for failures in count():
            self._beat()
            try:
                self._open(group)
                if failures and self._has_landed(sent):
                    return True
                began = self._clock()
                with self._watchdog.over("a transaction"), self._writer.transaction() as transaction:
                    transaction.send(batch.outgoing)
                    transaction.send_positions(sent, group)
                return True
            except CommitRefused as error:
                self._refused("stale_group" if error.stale_group else "fenced" if error.fenced else "aborted")
                if error.stale_group:
                    return False
                if not self._may_try_again(error, failures, self._clock() - began):
                    raise
                _log.warning("%s", error.message)
            except KafkaUnreachable as error:
                self._refused("unknown" if isinstance(error, OutcomeUnknown) else "unreachable")
                if self._clock() > deadline:
                    raise
                _log.warning("%s", error.message)
        raise AssertionError("the tries never end")

    def _may_try_again(self, error: CommitRefused, failures: int, took_s: float) -> bool:
        """A transaction that outlived its timeout may have been fenced by the coordinator; any other was not."""
        timed_out = took_s >= TRANSACTION_TIMEOUT_MS / 1000
        return failures + 1 < REFUSALS_MAX and (timed_out or not error.fenced)

    def _open(self, group: bytes) -> None:
        if self._writer.fenced and not self._is_member(group):
            raise WriterFenced(
                f"{self._writer.transactional_id} was fenced, and its place in the group is lost",
                "where another process runs in the same slot, stop one of the two, or give it another slot",
            )
        self._writer.open()

    def _has_landed(self, sent: Sequence[Position]) -> bool:
        standing = self._inbox.standing([position.partition for position in sent])
        return all(standing[p.partition] == read_metadata(p.metadata, p.offset) for p in sent)
