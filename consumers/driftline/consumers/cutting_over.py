"""The way over from the event log to the state machine: rows built from the log, and a switch at an offset."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from hashlib import blake2b

from driftline.consumers.app import App
from driftline.consumers.control import control_record, make_setting, read_controls
from driftline.consumers.moved import cut_places
from driftline.consumers.restoring import RowRestorer
from driftline.consumers.rows import Row, Rows, row_record
from driftline.consumers.seeding import SeededPartition, seed_partition
from driftline.consumers.sources import is_own
from driftline.consumers.stopped import require_stopped, standing_of
from driftline.log import (
    CommitRefused,
    KafkaReader,
    Outgoing,
    Settings,
    Span,
    TransactionalWriter,
    Unfinished,
    to_event,
)
from driftline.schemas import Codec, Undecodable, UsageError
from driftline.schemas.control import EVENT_LOG, STATE_MACHINE, SpineCut
from driftline.schemas.ids import derive_id
from driftline.schemas.names import CLOCK_TICKED

RECORDS_A_TRANSACTION = 1_000
"""Ticks have no row; answers to requests are nobody's on an event log, where no spine gives any."""


class CutOver:
    """Moves one app's log to the state-machine spine. The app's processes must have stopped.

    Rows are what the log folds to: each event that was decided on, in log order, moves its workflow's row by the
    transition table. Events that a boundary committed count where they lie, as the event log had it; what only a
    boundary may commit and another source said counts nowhere, as on the state machine.

    Args:
        app: On the state-machine spine.
        settings: Where the log is.
        codec: Reads events and rows, and writes rows.

    Raises:
        UsageError: The app has no transition table.
    """

    def __init__(self, app: App, settings: Settings, codec: Codec) -> None:
        app.require_machine()
        self._app = app
        self._settings = settings
        self._codec = codec
        self._reader = KafkaReader(settings)
        self._restorer = RowRestorer(app, self._reader, codec)

    def done(self) -> SpineCut | None:
        """Where the log was cut over; None where it was not.

        Raises:
            EnvironmentUnreachable: A broker or the registry does not answer.
        """
        cut = read_controls(self._reader, self._app.topics, self._codec).state.spine
        return cut if cut is not None and cut.spine == STATE_MACHINE else None

    def seed(self) -> Iterator[SeededPartition]:
        """The rows of each partition, as of what the group has finished; nothing is written.

        Raises:
            UsageError: The app still runs, has committed what it has not read yet, or its position was lost or reset.
            EnvironmentUnreachable: A broker or the registry does not answer.
        """
        require_stopped(self._app, self._settings)
        for partition in sorted(self._reader.span(self._app.topics.events).ranges):
            yield self._seed(partition)

    def stored(self, partition: int) -> Rows:
        """The rows as they lie on the state topic."""
        return self._restorer.stored(partition)

    def run(self, by: str, now: datetime) -> SpineCut:
        """Switch, exactly once: a log that was cut over stays as it is, and is told as it was.

        1. build the rows; 2. write those that the state topic has otherwise; 3. write the switch, alone in its
        transaction; 4. look whether a process of the app has come meanwhile, and take the switch back if so. Whoever
        comes later sees the switch: a process looks for it once it is in the group. Interrupted before the third,
        the log is an event log still, whose rows are a cache; before the fourth, saying it again tells that it is
        done, and a process of the event log that had come meanwhile has stopped when it saw the switch.

        Of two at once the one that began later goes on: the writer is taken over before the first step, which ends
        the other's, and every transaction up to the switch looks first whether there is one already.

        Raises:
            UsageError: As `seed`, a process of the app or another cut-over came meanwhile, or the log was cut over
                with another table.
            EnvironmentUnreachable: A broker or the registry does not answer; doing it again goes on.
        """
        done = self.done()
        if done is not None:
            self._require_same_rows(done)
            return done
        writer = TransactionalWriter(self._settings, f"driftline.{self._app.name}.cut-over")
        try:
            writer.open()
            return self._move(writer, by, now)
        except CommitRefused as error:
            if not error.fenced:
                raise
            raise self._overtaken() from error
        finally:
            writer.close()

    def _move(self, writer: TransactionalWriter, by: str, now: datetime) -> SpineCut:
        seeded = list(self.seed())
        self._require_first(writer)
        self._require_unmoved(seeded)
        for records in self._batches(seeded):
            self._require_first(writer)
            writer.commit(records)
        cut = SpineCut(
            spine=STATE_MACHINE,
            rows_version=_version(self._app),
            offsets={str(one.partition): one.offset for one in seeded},
            rows_hash=rows_hash(seeded),
            machine_hash=self._app.require_machine().hash,
        )
        self._require_first(writer)
        self._require_unmoved(seeded)
        self._switch(writer, cut, "cut over from the event log", by, now)
        self._confirm(writer, seeded, cut, by, now)
        return cut

    def _require_first(self, writer: TransactionalWriter) -> None:
        """Prove, with the writer in hand, that the log was not cut over meanwhile.

        Every time: a writer that had trouble with a transaction takes its id over anew, and so ends who had ended it.
        """
        writer.open()
        if self.done() is not None:
            raise self._overtaken()

    def _overtaken(self) -> UsageError:
        return UsageError(
            f"{self._app.name}: another cut-over of its log has come meanwhile, and this one writes nothing more",
            "say it again when that one has ended",
        )

    def _switch(self, writer: TransactionalWriter, cut: SpineCut, reason: str, by: str, now: datetime) -> None:
        setting = make_setting(cut, reason, by, now)
        id_ = derive_id(self._app.name, "cut-over", cut.spine, cut.rows_hash)
        writer.commit([control_record(setting, self._app.topics, self._codec, id_)])

    def _confirm(
        self, writer: TransactionalWriter, seeded: Sequence[SeededPartition], cut: SpineCut, by: str, now: datetime
    ) -> None:
        try:
            self._require_unmoved(seeded)
        except UsageError:
            back = cut.model_copy(update={"spine": EVENT_LOG})
            self._switch(writer, back, "the app was started meanwhile", by, now)
            raise

    def _seed(self, partition: int) -> SeededPartition:
        standing = standing_of(self._app, self._settings, partition)
        self._restorer.checked(partition, standing)
        self._require_read(partition, standing)
        return seed_partition(self._app, self._reader, self._codec, partition, standing)

    def _batches(self, seeded: Sequence[SeededPartition]) -> Iterator[list[Outgoing]]:
        for one in seeded:
            records = self._differing(one)
            for start in range(0, len(records), RECORDS_A_TRANSACTION):
                yield records[start : start + RECORDS_A_TRANSACTION]

    def _differing(self, seeded: SeededPartition) -> list[Outgoing]:
        """What makes the rows on the state topic those that were built."""
        there = dict(self.stored(seeded.partition).items())
        topic = self._app.topics.state
        folded: dict[bytes, Row] = dict(seeded.rows.items())
        records = [
            row_record(topic, seeded.partition, key, seeded.times_ms[key], row, self._codec)
            for key, row in folded.items()
            if there.get(key) != row
        ]
        return records + [Outgoing(topic, key, None, 1, (), seeded.partition) for key in there.keys() - folded.keys()]

    def _require_read(self, partition: int, standing: Unfinished) -> None:
        """What the event log committed and did not fold yet, the state machine would take for folded."""
        low, high = self._reader.span(self._app.topics.events).ranges[partition]
        for record in self._reader.read(Span(self._app.topics.events, {partition: (max(low, standing.base), high)})):
            if standing.is_finished(record.at.offset):
                continue
            try:
                event = to_event(record, self._codec)
            except Undecodable:
                continue
            if is_own(self._app.name, event.source) and event.record != CLOCK_TICKED:
                raise UsageError(
                    f"{record.at} was committed by {event.source} and is not read yet",
                    f"let the app read to its end first: driftline run {self._app.name} --until-end",
                )

    def _require_unmoved(self, seeded: Sequence[SeededPartition]) -> None:
        require_stopped(self._app, self._settings)
        for one in seeded:
            if standing_of(self._app, self._settings, one.partition) != one.standing:
                what = f"{self._app.topics.events}[{one.partition}] was decided on meanwhile"
                raise UsageError(what, "stop the app and cut over again")

    def _require_same_rows(self, cut: SpineCut) -> None:
        """A second cut-over puts no other table in the place of the first one's."""
        name, version = self._app.name, _version(self._app)
        if cut.rows_version != version:
            raise UsageError(
                f"the log of {name} is on the state-machine spine {cut_since(self._app, cut)} with rows of version "
                f"{cut.rows_version}, and this app's are of version {version}; a log is cut over once",
                "a running app brings rows to a new version by its Fold(..., upgrades=...)",
            )
        _require_same_table(self._app, cut)
        machine = self._app.require_machine()
        partitions = self._reader.span(self._app.topics.state).ranges
        held = (row for partition in partitions for _, row in self.stored(partition).items())
        strange = {str(row.state) for row in held if row.fold_version == version} - set(machine.states)
        if strange:
            raise UsageError(
                f"the log of {name} is on the state-machine spine {cut_since(self._app, cut)} and holds rows in the "
                f"state {', '.join(sorted(strange))}, which this app's table does not have; a log is cut over once",
                "run the app with the table that it was cut over with",
            )


def rows_hash(seeded: Sequence[SeededPartition]) -> str:
    """One hash of all rows."""
    return blake2b("".join(one.hash for one in seeded).encode(), digest_size=16).hexdigest()


def cut_since(app: App, cut: SpineCut) -> str:
    """Since when an app's log has its spine, in words."""
    return f"since {cut_places(app.topics, cut) or 'its first start'}"


def require_spine(app: App, cut: SpineCut | None, used: bool) -> SpineCut | None:
    """Prove that an app's spine is its log's; the switch to be written where this is the log's first start.

    Args:
        app: What is about to run.
        cut: What the control topic says.
        used: Whether anything was decided on the log, or rows were written.

    Raises:
        UsageError: The log has the other spine, or another transition table under the same version.
    """
    require_same_spine(app, cut)
    if app.machine is None or cut is not None:
        return None
    if used:
        require_same_spine(app, SpineCut(spine=EVENT_LOG, rows_version="", offsets={}))
    return SpineCut(spine=STATE_MACHINE, rows_version=_version(app), offsets={}, machine_hash=app.machine.hash)


def require_same_spine(app: App, cut: SpineCut | None) -> None:
    """Prove that what the control topic says of a log's spine, if anything, is what an app has.

    Not guaranteed: that another table is known for one once rows have got a new version. What the log began with is
    on the control topic, and nothing of later tables.

    Raises:
        UsageError: It is the other one, or has another transition table under the same version.
    """
    if cut is None:
        return
    if cut.spine == app.spine:
        _require_same_table(app, cut)
        return
    if app.machine is None:
        raise UsageError(
            f"the log of {app.name} is on the state-machine spine {cut_since(app, cut)}",
            "run the app with spine='state-machine' and its transition table",
        )
    raise UsageError(
        f"the log of {app.name} is an event log",
        "`driftline migrate cut-over MODULE:ATTRIBUTE --by NAME` moves it over; MODULE:ATTRIBUTE is the app with its "
        "transition table",
    )


def _require_same_table(app: App, cut: SpineCut) -> None:
    """The version of rows names one table; of a log that tells no table's hash, any is taken for it."""
    if app.machine is None or not cut.machine_hash or cut.rows_version != _version(app):
        return
    if cut.machine_hash != app.machine.hash:
        raise UsageError(
            f"the log of {app.name} is on the state-machine spine {cut_since(app, cut)} with rows of version "
            f"{cut.rows_version}, and this app has another transition table of the same version",
            "run it with the table that the log began with, or give this one another version: Machine(..., "
            f"version=...) and Fold(..., upgrades={{{cut.rows_version!r}: function}})",
        )


def _version(app: App) -> str:
    return "" if app.row_fold is None else app.row_fold.version
