"""Restoring the rows of a partition: from its state topic, or from the log where their fold is a new one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from driftline.consumers.app import App
from driftline.consumers.dead import undecided_offset
from driftline.consumers.rows import Rows
from driftline.consumers.spine import spine_of
from driftline.log import LogReader, Record, Span, Unfinished, to_event
from driftline.schemas import Codec, UsageError

BEAT_RECORDS = 256
"""Between two beats: milliseconds."""
DECISIONS_CHECKED = 200
"""Offsets at the end of the decisions that are held against the position; control records count too."""


class RowRestorer:
    """Restores rows when a partition is assigned.

    Args:
        app: Whose rows.
        reader: Reads the log.
        codec: Reads events and rows.
        beat: Called again and again, since it may take minutes.

    Not guaranteed: that rows folded anew reach the state topic before the next event of their workflow;
    `driftline state rebuild` writes them.
    """

    def __init__(self, app: App, reader: LogReader, codec: Codec, beat: Callable[[], None] = lambda: None) -> None:
        self._app = app
        self._spine = spine_of(app)
        self._beat = beat
        self._reader = reader
        self._codec = codec

    def restore(self, partition: int, standing: Unfinished | None) -> Rows:
        """The rows of all events that are finished, and of no other.

        A group without a position begins at the beginning, and only where nothing was decided yet.

        1. read the state topic to its latest offset, open transactions included (KAFKA-10167); 2. where there are no
        rows, or such of another fold version, fold every finished event of the log anew. On the state-machine spine
        rows are the truth: those of another version are upgraded, and missing ones are an error.

        Raises:
            UsageError: The fold fails on an event, a row or a decision has seen an event that the group's position
                says is still to be decided, or rows that are the truth are missing, of a version without upgrade, or
                in a state that the transition table does not have.
            EnvironmentUnreachable: A broker or the registry does not answer.
        """
        standing = standing or Unfinished(0, 0)
        rows = self.checked(partition, standing)
        if self._app.row_fold is None:
            return rows
        if self._app.machine is not None:
            return self._truth(partition, standing, rows)
        return rows if len(rows) and rows.current else self.refold(partition, standing)

    def checked(self, partition: int, standing: Unfinished) -> Rows:
        """The rows as they lie on the state topic, none of which has seen more than the group's position says.

        Raises:
            UsageError: A row or a decision has seen an event that is still to be decided by the position.
            EnvironmentUnreachable: A broker or the registry does not answer.
        """
        self._check_decisions(partition, standing)
        if self._app.row_fold is None:
            return Rows(None)
        rows = self.stored(partition)
        self._check_position(partition, standing, rows)
        return rows

    def _truth(self, partition: int, standing: Unfinished, rows: Rows) -> Rows:
        if not len(rows):
            moved = next(self.folding(Rows(self._app.row_fold), partition, standing), None)
            if moved is not None:
                raise UsageError(
                    f"{self._app.topics.state}[{partition}] holds no rows, though {moved.at} moved one, and for a "
                    "state machine they are the truth",
                    "bring the topic back from a copy; nothing else makes them anew",
                )
        rows.upgrade()
        self._check_states(rows)
        return rows

    def _check_states(self, rows: Rows) -> None:
        """Nothing leads out of a state that the transition table does not have: such a row would stand still."""
        machine = self._app.require_machine()
        for number, (key, state) in enumerate(rows.states()):
            if not number % BEAT_RECORDS:
                self._beat()
            if state is None or state in machine.table:
                continue
            row = rows.get(key)
            version = "" if row is None else row.fold_version
            raise UsageError(
                f"the row of {key.decode(errors='replace')} is in the state {state}, which the transition table "
                f"of {self._app.name} does not have",
                "take the state back into the table; or raise the machine's version, and let "
                f"Fold(..., upgrades={{{version!r}: function}}) bring such rows into another state",
            )

    def stored(self, partition: int) -> Rows:
        """The rows as they lie on the state topic."""
        state = self._reader.read_to_latest(self._app.topics.state, partition)
        return Rows.restored(self._app.row_fold, self._beating(state), self._codec)

    def refold(self, partition: int, standing: Unfinished) -> Rows:
        """The rows that the finished events of the log make."""
        rows = Rows(self._app.row_fold)
        for _ in self.folding(rows, partition, standing):
            pass
        return rows

    def folding(self, rows: Rows, partition: int, standing: Unfinished) -> Iterator[Record]:
        """Let every finished event of the log move the rows; the records that did, one after another.

        Events that went to the dead topic undecided were never folded.
        """
        dead = self.dead(partition)
        span = Span(self._app.topics.events, {partition: (0, standing.end)})
        for record in self._beating(self._reader.read(span)):
            if standing.is_finished(record.at.offset) and record.at.offset not in dead:
                key = record.key or b""
                taken = self._spine.take(rows, key, to_event(record, self._codec), record.at.offset)
                if taken.moved:
                    rows.keep(key, taken.row)
                    yield record

    def dead(self, partition: int) -> set[int]:
        """Offsets of events that went to the dead topic undecided."""
        records = self._reader.read_to_latest(self._app.topics.dead, partition)
        return {offset for offset in map(undecided_offset, records) if offset is not None}

    def _beating(self, records: Iterable[Record]) -> Iterator[Record]:
        for number, record in enumerate(records):
            if not number % BEAT_RECORDS:
                self._beat()
            yield record

    def _check_decisions(self, partition: int, standing: Unfinished) -> None:
        """Decisions and position are committed together, so what the last decisions decided is finished.

        Positions expire after a week without members, people reset them, and a broker that was killed may serve an
        old one; decided events must not be decided anew.
        """
        topics = self._app.topics
        low, high = self._reader.span(topics.decisions).ranges[partition]
        tail = Span(topics.decisions, {partition: (max(low, high - DECISIONS_CHECKED), high)})
        decided = [self._codec.decode(record.value).value["input"]["offset"] for record in self._reader.read(tail)]
        ahead = [offset for offset in decided if not standing.is_finished(offset)]
        if ahead:
            raise UsageError(
                f"{topics.events}[{partition}]: offset {max(ahead)} is decided, but the group {self._app.group} "
                f"would go on from {standing.base}: its position expired, was reset or is an old one, and "
                "events would be decided a second time",
                f"start again; if it stays so, set it with kafka-consumer-groups --reset-offsets to where "
                f"{topics.decisions} ends, or give the app a new name",
            )

    def _check_position(self, partition: int, standing: Unfinished, rows: Rows) -> None:
        """Rows and position are committed together: one that lies behind the other was lost or reset since."""
        seen = max((offset for offset in rows.last_seen if not standing.is_finished(offset)), default=None)
        if seen is not None:
            raise UsageError(
                f"{self._app.topics.events}[{partition}]: the rows have seen offset {seen}, but the group "
                f"{self._app.group} would go on from {standing.base}: its position was lost or reset, and events "
                "would be decided a second time",
                f"set it with kafka-consumer-groups --reset-offsets to where {self._app.topics.decisions} ends, "
                "or give the app a new name",
            )
