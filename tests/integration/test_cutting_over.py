"""Moving a log to the state machine on a real Kafka while others are about: one wins, the rest write nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from driftline.consumers import Answer, App, Boundary, Fold, Machine, Prompt, ProposalRequest, Transition
from driftline.consumers import cutting_over as cutting_over_module
from driftline.consumers.control import make_setting, write_setting
from driftline.consumers.cutting_over import CutOver
from driftline.consumers.prepare import prepare
from driftline.consumers.rows import Row, Rows
from driftline.consumers.runtime import Runtime
from driftline.consumers.seeding import SeededPartition
from driftline.log import KafkaReader, Outgoing, Settings, TransactionalWriter
from driftline.producers import Publisher
from driftline.schemas import Codec, Registry, UsageError
from driftline.schemas.names import TRANSITION_REQUESTED

pytestmark = pytest.mark.integration

NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)
WORKFLOWS = 12


def table(offered: str = "offered", version: str = "1", more: Sequence[Transition] = ()) -> Machine:
    moves = [
        *more,
        Transition("init", "desk.Asked", "open"),
        Transition("open", "desk.Offered", offered),
        Transition(offered, "approve", "closed"),
    ]
    return Machine("init", ["closed"], moves, version=version)


class Offering:
    async def propose(self, request: ProposalRequest) -> Answer:
        return Answer(json.dumps({"type": "desk.Offered", "payload": {"text": "here you are"}}))


@pytest.fixture
def event_log(cluster: Settings, app_name: str, tmp_path: Path) -> App:
    """On the event-log spine, stopped, with a decided log."""
    for name in ("Asked", "Offered"):
        (tmp_path / f"desk.{name}").mkdir()
        text = {"name": "text", "type": "string", "default": ""}
        schema = {"type": "record", "name": name, "namespace": "desk", "fields": [text]}
        (tmp_path / f"desk.{name}" / "1.avsc").write_text(json.dumps(schema))
    boundary = Boundary("sell", ["desk.Asked"], Prompt("{{ event | tojson }}"), "acme/seller", ["desk.Offered"])
    fold = Fold(lambda row, event: {**row, "seen": row.get("seen", 0) + 1}, "1")
    app = App(app_name, [boundary], tmp_path, ["desk.Asked"], fold)
    prepare(app, cluster)
    publish(app, cluster, "desk.Asked", {"text": ""})
    run(app, cluster)
    return app


@pytest.fixture
def machine(event_log: App) -> App:
    """The same app on the state-machine spine."""
    return replace(event_log, spine="state-machine", machine=table())


def publish(app: App, settings: Settings, record: str, data: dict[str, Any]) -> None:
    with Publisher(app.name, app.schemas, settings, source="web", clock=lambda: NOON) as publisher:
        for number in range(WORKFLOWS):
            publisher.publish(record, data, workflow=f"w{number}")


def run(app: App, settings: Settings) -> None:
    Runtime(app, settings, Offering(), lambda: NOON).run(until_end=True)


def codec_of(app: App, settings: Settings) -> Codec:
    return Codec(Registry(settings.require_registry()), app.contracts)


def cut_over(app: App, settings: Settings) -> CutOver:
    return CutOver(app, settings, codec_of(app, settings))


def cut_over_and_approve(app: App, settings: Settings) -> None:
    """Move the log over, and let the app close every workflow on its new spine."""
    cut_over(app, settings).run("ada", NOON)
    publish(
        app,
        settings,
        TRANSITION_REQUESTED,
        {"transition": "approve", "expected_version": 2, "by": "ada", "reason": ""},
    )
    run(app, settings)


def rows(app: App, settings: Settings) -> dict[bytes, Row]:
    codec, reader = codec_of(app, settings), KafkaReader(settings)
    found: dict[bytes, Row] = {}
    for partition in range(settings.partitions):
        found |= dict(Rows.restored(app.row_fold, reader.read_to_latest(app.topics.state, partition), codec).items())
    return found


def states(app: App, settings: Settings) -> set[tuple[str | None, int]]:
    return {(row.state, row.version) for row in rows(app, settings).values()}


class Stalled(CutOver):
    """A cut-over in whose midst something else happens: once its rows are built and nothing is written."""

    def __init__(self, app: App, settings: Settings, meanwhile: Callable[[], None]) -> None:
        super().__init__(app, settings, codec_of(app, settings))
        self._meanwhile = meanwhile

    def seed(self) -> Iterator[SeededPartition]:
        yield from super().seed()
        self._meanwhile()


class Interrupted(Exception):
    """As if the command had been stopped."""


def test_a_cut_over_that_another_one_overtook_puts_no_row_back(cluster: Settings, machine: App) -> None:
    stalled = Stalled(machine, cluster, lambda: cut_over_and_approve(machine, cluster))
    with pytest.raises(UsageError) as caught:
        stalled.run("mara", NOON)
    assert states(machine, cluster) == {("closed", 3)}
    assert "another cut-over" in str(caught.value)
    assert cut_over(machine, cluster).run("mara", NOON).spine == "state-machine"


def test_a_cut_over_that_another_one_began_after_is_fenced_and_told_so_in_one_line(
    cluster: Settings, event_log: App, machine: App
) -> None:
    def stop() -> None:
        raise Interrupted

    def begin_another() -> None:
        with pytest.raises(Interrupted):
            Stalled(machine, cluster, stop).run("ada", NOON)

    before = rows(event_log, cluster)
    stalled = Stalled(machine, cluster, begin_another)
    with pytest.raises(UsageError, match=r"another cut-over of its log .*; say it again"):
        stalled.run("mara", NOON)
    assert rows(event_log, cluster) == before
    assert stalled.done() is None
    cut_over_and_approve(machine, cluster)
    assert states(machine, cluster) == {("closed", 3)}


class Disturbed(CutOver):
    """A cut-over whose writer lets its producer go after the first transaction, as after a slow one."""

    meanwhile: Callable[[], None] = staticmethod(lambda: None)
    writer: TransactionalWriter

    def _require_first(self, writer: TransactionalWriter) -> None:
        self.writer = writer
        super()._require_first(writer)

    def _batches(self, seeded: Sequence[SeededPartition]) -> Iterator[list[Outgoing]]:
        batches = super()._batches(seeded)
        yield next(batches)
        self.writer.close()
        self.meanwhile()
        yield from batches


def test_a_cut_over_that_takes_its_writer_up_again_looks_first_whether_another_one_has_come(
    cluster: Settings, machine: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cutting_over_module, "RECORDS_A_TRANSACTION", 1)
    disturbed = Disturbed(machine, cluster, codec_of(machine, cluster))
    disturbed.meanwhile = lambda: cut_over_and_approve(machine, cluster)
    with pytest.raises(UsageError) as caught:
        disturbed.run("mara", NOON)
    assert states(machine, cluster) == {("closed", 3)}
    assert "another cut-over" in str(caught.value)


def test_an_event_that_was_decided_on_while_rows_were_built_lets_nothing_be_written(
    cluster: Settings, event_log: App, machine: App
) -> None:
    def decide_more() -> None:
        publish(event_log, cluster, "desk.Asked", {"text": "again"})
        run(event_log, cluster)

    with pytest.raises(UsageError, match="was decided on meanwhile"):
        Stalled(machine, cluster, decide_more).run("mara", NOON)
    assert {row.fold_version for row in rows(event_log, cluster).values()} == {"1"}


@pytest.mark.parametrize(
    ("other", "told"),
    [
        (table(version="2"), r"rows of version 1/1, and this app's are of version 2/1; .*upgrades"),
        (table(offered="sent"), r"another transition table of the same version; .*give this one another version"),
        (table(more=[Transition("open", "close", "closed")]), r"another transition table of the same version"),
    ],
)
def test_another_table_is_not_taken_for_the_one_that_a_log_was_cut_over_with(
    cluster: Settings, machine: App, other: Machine, told: str
) -> None:
    cut_over(machine, cluster).run("mara", NOON)
    before = rows(machine, cluster)
    with pytest.raises(UsageError, match=told):
        cut_over(replace(machine, machine=other), cluster).run("mara", NOON)
    assert rows(machine, cluster) == before


def test_a_log_whose_cut_over_tells_no_tables_hash_is_held_against_the_states_of_its_rows(
    cluster: Settings, machine: App
) -> None:
    cut = cut_over(machine, cluster).run("mara", NOON)
    setting = make_setting(cut.model_copy(update={"machine_hash": ""}), "", "mara", NOON)
    write_setting(setting, machine.topics, cluster, codec_of(machine, cluster), "old")
    other = replace(machine, machine=table(offered="sent"))
    with pytest.raises(UsageError, match=r"rows in the state offered, which this app's table does not have"):
        cut_over(other, cluster).run("mara", NOON)


def test_another_table_is_not_run_for_the_one_that_a_log_was_cut_over_with(cluster: Settings, machine: App) -> None:
    cut_over(machine, cluster).run("mara", NOON)
    other = replace(machine, machine=table(more=[Transition("open", "close", "closed")]))
    with pytest.raises(UsageError, match=r"since .*\.events.* another transition table of the same version"):
        run(other, cluster)
    run(machine, cluster)


def test_another_table_is_not_run_for_the_one_that_a_log_began_with(cluster: Settings, machine: App) -> None:
    born = replace(machine, name=f"{machine.name}-born")
    prepare(born, cluster)
    run(born, cluster)
    other = replace(born, machine=table(more=[Transition("open", "close", "closed")]))
    with pytest.raises(UsageError, match=r"since its first start .*another transition table of the same version"):
        run(other, cluster)
    run(replace(other, machine=replace(other.require_machine(), version="2")), cluster)


def test_what_an_outsider_said_for_a_boundary_makes_no_row_of_a_state_machine(
    cluster: Settings, event_log: App, machine: App
) -> None:
    publish(event_log, cluster, "desk.Offered", {"text": "95 %"})
    run(event_log, cluster)
    assert {row.data["seen"] for row in rows(event_log, cluster).values()} == {3}, "on the event log it is a fact"
    cut_over(machine, cluster).run("mara", NOON)
    assert {row.data["seen"] for row in rows(machine, cluster).values()} == {2}
    publish(machine, cluster, "desk.Offered", {"text": "95 %"})
    run(machine, cluster)
    assert states(machine, cluster) == {("offered", 2)}


def test_who_runs_a_state_machine_on_an_event_log_is_told_a_command_that_can_be_typed(
    cluster: Settings, machine: App
) -> None:
    with pytest.raises(UsageError, match="`driftline migrate cut-over MODULE:ATTRIBUTE --by NAME`"):
        run(machine, cluster)


def test_who_runs_the_event_log_after_the_cut_over_is_told_from_where_on_it_is_over(
    cluster: Settings, event_log: App, machine: App
) -> None:
    cut = cut_over(machine, cluster).run("mara", NOON)
    with pytest.raises(UsageError) as caught:
        run(event_log, cluster)
    places = [f"{machine.topics.events}[{partition}]@{offset}" for partition, offset in sorted(cut.offsets.items())]
    assert f"is on the state-machine spine since {', '.join(places)}" in str(caught.value)
