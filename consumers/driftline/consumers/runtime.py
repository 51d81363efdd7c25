"""The Kafka runtime: consume, decide, commit; one decision at a time, exactly once.

Many decisions go into one transaction with the consumer's position: decisions, committed events and rows are
visible together or not at all. The engine decides; this module only moves records.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime

from driftline.consumers.app import App
from driftline.consumers.artifacts import app_artifacts
from driftline.consumers.batch import Batch
from driftline.consumers.deciding import Decider
from driftline.consumers.proposing import Proposer
from driftline.consumers.restoring import RowRestorer
from driftline.consumers.rows import Rows
from driftline.consumers.start import check_start
from driftline.consumers.summary import RunSummary
from driftline.log import CommitRefused, GroupConsumer, KafkaReader, Record, Settings, TransactionalWriter
from driftline.schemas import Codec, Registry
from driftline.schemas.cloudevents import epoch_ms

__all__ = ["RunSummary", "Runtime"]

BATCH_EVENTS_MAX = 100
"""Events a transaction: at 2 records each far below the producer's queue, and a repeat after an abort stays cheap."""
BATCH_S_MAX = 2.0
"""A batch takes no further event after this, so that slow models cost neither freshness nor membership of the group
(`POLL_INTERVAL_MS_MAX`)."""
POLL_S = 0.5
"""How long an empty poll waits; bounds how late a stop is seen."""
REFUSALS_MAX = 3
"""Refused commits in a row; further ones would be refused too. A stale group is none of them: it ends by itself."""


class Runtime:
    """Runs one app in one process slot. Not for several threads.

    Args:
        app: What to run.
        settings: Where the log is.
        proposer: Answers the boundaries' requests.
        now: The wall clock, for `decided_at` alone.
        slot: Process slot; the transactional id is `driftline.<app>.<slot>` and survives restarts.
        seed: Of the simulator's randomness.
        clock: Seconds from any origin, never going back; bounds a batch.
    """

    def __init__(
        self,
        app: App,
        settings: Settings,
        proposer: Proposer,
        now: Callable[[], datetime],
        slot: int = 0,
        seed: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.app = app
        self.summary = RunSummary()
        self._settings = settings
        self._now = now
        self._clock = clock
        self._codec = Codec(Registry(settings.require_registry()), app.contracts)
        self._writer = TransactionalWriter(settings, f"driftline.{app.name}.{slot}")
        self._inbox = GroupConsumer(settings, app.group, app.topics.events)
        self._rows = Rows(app.fold)
        self._decider = Decider(app, self._codec, self._rows, proposer, now, seed)
        self._restorer = RowRestorer(app, KafkaReader(settings), self._codec, self._rows)
        self._owned: set[int] = set()
        self._pending: deque[Record] = deque()
        self._refusals = 0

    def run(
        self,
        until_end: bool = False,
        stop: Callable[[], bool] = lambda: False,
        on_commit: Callable[[RunSummary], None] = lambda summary: None,
    ) -> RunSummary:
        """Consume, decide and commit until `stop()` says so, or with `until_end` until every partition is read.

        Raises:
            ContractError: The registry does not hold the packaged schemas.
            UsageError: The topics are not as they must be, a prompt, rule or fold of the app fails on an event, or
                another process runs in the same slot.
            EnvironmentUnreachable: A broker or the registry does not answer; nothing uncommitted is visible.
        """
        check_start(self.app, self._settings, self._codec)
        try:
            self._writer.open()
            self._writer.commit(app_artifacts(self.app, self._codec, epoch_ms(self._now())))
            self._inbox.open(self._gain, self._lose)
            with asyncio.Runner() as runner:
                while not stop() and not (until_end and self._at_end()):
                    self._poll()
                    if self._pending:
                        self._commit(runner.run(self._decide_pending()))
                        on_commit(self.summary)
        finally:
            self._inbox.close()
            self._writer.close()
        return self.summary

    def _at_end(self) -> bool:
        return not self._pending and self._inbox.at_end()

    def _poll(self) -> None:
        """Take in what fits one batch; also with enough in hand, since polling is what keeps the membership."""
        room = max(1, BATCH_EVENTS_MAX - len(self._pending))
        found = self._inbox.poll(room, 0.0 if self._pending else POLL_S)
        self._pending.extend(record for record in found if record.at.partition in self._owned)

    async def _decide_pending(self) -> Batch:
        """Decide what is in hand, in order, until the batch is full; the first event always."""
        batch, began = Batch(), self._clock()
        for _ in range(min(len(self._pending), BATCH_EVENTS_MAX)):
            await self._decider.add(self._pending.popleft(), batch)
            if self._clock() - began > BATCH_S_MAX:
                break
        return batch

    def _commit(self, batch: Batch) -> None:
        """Commit the batch; after a refusal the rows and the consumer go back to what is committed.

        No poll lies between the batch's last decision and here: its partitions are those owned at the last poll,
        and the group's metadata is of then.
        """
        topic = self.app.topics.events
        try:
            self._writer.commit(batch.outgoing, batch.positions(topic), self._inbox.group_metadata)
        except CommitRefused as error:
            self._refuse(error)
            return
        self._refusals = 0
        self._inbox.expect_more(batch.partitions_of(topic))
        self.summary.count_batch(batch)

    def _refuse(self, error: CommitRefused) -> None:
        """Go back to what is committed, unless the same would be refused again.

        Raises:
            CommitRefused: Another process has the slot, or the broker refuses time and again.
        """
        self.summary.refused_commits += 1
        self._refusals += not error.stale_group
        if error.fenced or self._refusals >= REFUSALS_MAX:
            raise error
        self._pending.clear()
        self._inbox.rewind(self._gain)

    def _gain(self, positions: Mapping[int, int]) -> None:
        self._owned.update(positions)
        for partition, position in positions.items():
            self._restorer.restore(partition, position)

    def _lose(self, partitions: Iterable[int]) -> None:
        """Forget everything of the partitions: whoever owns them now decides their events."""
        lost = set(partitions)
        self._owned -= lost
        self._rows.drop(lost)
        self._pending = deque(record for record in self._pending if record.at.partition not in lost)
