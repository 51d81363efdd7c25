"""The state-machine spine on a real Kafka: one winner a version, timers over restarts, the way over from P3."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from driftline.consumers import Answer, App, Boundary, Fold, Machine, Prompt, ProposalRequest, Timer, Transition
from driftline.consumers.control import make_setting, write_setting
from driftline.consumers.cutting_over import CutOver, rows_hash
from driftline.consumers.prepare import prepare
from driftline.consumers.rebuilding import Rebuilder
from driftline.consumers.rows import Row, Rows
from driftline.consumers.runtime import Runtime
from driftline.log import GroupConsumer, KafkaReader, Settings, TransactionalWriter, to_event
from driftline.producers import Publisher
from driftline.producers.ticking import Ticker
from driftline.schemas import Codec, Event, Registry, UsageError
from driftline.schemas.control import SpineCut
from driftline.schemas.names import (
    TIMER_FIRED,
    TRANSITION_ACCEPTED,
    TRANSITION_REJECTED,
    TRANSITION_REQUESTED,
)

pytestmark = pytest.mark.integration

NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)
MACHINE = Machine(
    "init",
    ["closed", "expired"],
    [
        Transition("init", "desk.Asked", "open"),
        Transition("open", "desk.Offered", "offered"),
        Transition("offered", "timer:expiry", "expired"),
        Transition("offered", "bump", "offered"),
        Transition("offered", "approve", "closed"),
    ],
    [Timer("expiry", "offered", timedelta(days=30))],
)
WORKFLOWS = 40
RIVALS = 500


def count(row: Mapping[str, Any], event: Event) -> Mapping[str, Any]:
    return {**row, "seen": row.get("seen", 0) + 1}


class Offering:
    async def propose(self, request: ProposalRequest) -> Answer:
        return Answer(json.dumps({"type": "desk.Offered", "payload": {"text": "here you are"}}))


@pytest.fixture
def event_log(cluster: Settings, app_name: str, tmp_path: Path) -> App:
    """On the event-log spine, with its topics."""
    for name in ("desk.Asked", "desk.Offered"):
        (tmp_path / name).mkdir()
        schema = {
            "type": "record",
            "name": name.partition(".")[2],
            "namespace": "desk",
            "fields": [{"name": "text", "type": "string", "default": ""}],
        }
        (tmp_path / name / "1.avsc").write_text(json.dumps(schema))
    boundary = Boundary("sell", ["desk.Asked"], Prompt("{{ event | tojson }}"), "acme/seller", ["desk.Offered"])
    app = App(app_name, [boundary], tmp_path, ["desk.Asked"], Fold(count, "1"))
    prepare(app, cluster)
    return app


@pytest.fixture
def machine(event_log: App) -> App:
    """The same app on the state-machine spine."""
    return replace(event_log, spine="state-machine", machine=MACHINE)


def run(app: App, settings: Settings) -> Runtime:
    runtime = Runtime(app, settings, Offering(), lambda: NOON)
    runtime.run(until_end=True)
    return runtime


def publish(app: App, settings: Settings, *facts: tuple[str, str, dict[str, Any]]) -> None:
    with Publisher(app.name, app.schemas, settings, source="web", clock=lambda: NOON) as publisher:
        for record, workflow, data in facts:
            publisher.publish(record, data, workflow=workflow)


def ask(app: App, settings: Settings, workflows: int = WORKFLOWS) -> None:
    publish(app, settings, *(("desk.Asked", f"w{number}", {"text": ""}) for number in range(workflows)))


def rows(app: App, settings: Settings) -> dict[bytes, Row]:
    codec, reader = codec_of(app, settings), KafkaReader(settings)
    found: dict[bytes, Row] = {}
    for partition in range(settings.partitions):
        found |= dict(Rows.restored(app.row_fold, reader.read_to_latest(app.topics.state, partition), codec).items())
    return found


def events(app: App, settings: Settings) -> list[Event]:
    reader, codec = KafkaReader(settings), codec_of(app, settings)
    return [to_event(record, codec) for record in reader.read(reader.span(app.topics.events))]


def codec_of(app: App, settings: Settings) -> Codec:
    return Codec(Registry(settings.require_registry()), app.contracts)


def cut_over(app: App, settings: Settings) -> CutOver:
    return CutOver(app, settings, codec_of(app, settings))


def request(transition: str, workflow: str, expected_version: int, by: str) -> tuple[str, str, dict[str, Any]]:
    data = {"transition": transition, "expected_version": expected_version, "by": by, "reason": ""}
    return TRANSITION_REQUESTED, workflow, data


def test_of_all_who_race_for_a_row_one_wins_each_version(cluster: Settings, machine: App) -> None:
    ask(machine, cluster, 1)
    run(machine, cluster)
    publish(
        machine, cluster, *(request("bump", "w0", 2 + number % 10, f"rival-{number}") for number in range(RIVALS))
    )
    run(machine, cluster)
    found = Counter(event.record for event in events(machine, cluster))
    won = [event.data["version_after"] for event in events(machine, cluster) if event.record == TRANSITION_ACCEPTED]
    assert won == list(range(3, 3 + len(won)))
    assert found[TRANSITION_ACCEPTED] + found[TRANSITION_REJECTED] == RIVALS
    assert rows(machine, cluster)[b"w0"].version == 2 + len(won)


def test_timers_of_rows_that_a_restart_brought_back_fire_once(cluster: Settings, machine: App) -> None:
    ask(machine, cluster)
    run(machine, cluster)
    with Ticker(machine.name, cluster) as ticker:
        assert ticker.tick(NOON + timedelta(days=29)) == cluster.partitions
        ticker.tick(NOON + timedelta(days=30))
        ticker.tick(NOON + timedelta(days=31))
    run(machine, cluster)
    assert {row.state for row in rows(machine, cluster).values()} == {"expired"}
    assert sum(event.record == TIMER_FIRED for event in events(machine, cluster)) == WORKFLOWS


def test_a_log_is_cut_over_once_and_goes_on_where_the_event_log_stopped(
    cluster: Settings, event_log: App, machine: App
) -> None:
    ask(event_log, cluster)
    run(event_log, cluster)
    cut = cut_over(machine, cluster).run("mara", NOON)
    assert cut_over(machine, cluster).run("somebody else", NOON) == cut
    assert {(row.state, row.version) for row in rows(machine, cluster).values()} == {("offered", 2)}
    publish(machine, cluster, *(request("approve", f"w{number}", 2, "mara") for number in range(WORKFLOWS)))
    run(machine, cluster)
    assert {(row.state, row.version) for row in rows(machine, cluster).values()} == {("closed", 3)}
    with pytest.raises(UsageError, match="is on the state-machine spine since"):
        run(event_log, cluster)


def test_the_rows_that_a_seed_builds_are_the_same_every_time(cluster: Settings, event_log: App, machine: App) -> None:
    ask(event_log, cluster)
    run(event_log, cluster)
    first, again = (list(cut_over(machine, cluster).seed()) for _ in range(2))
    assert rows_hash(first) == rows_hash(again)
    assert sum(len(one.rows) for one in first) == WORKFLOWS
    assert cut_over(machine, cluster).done() is None


def test_an_event_log_is_not_run_on_a_state_machine_before_the_cut_over(
    cluster: Settings, event_log: App, machine: App
) -> None:
    ask(event_log, cluster, 1)
    run(event_log, cluster)
    with pytest.raises(UsageError, match="is an event log"):
        run(machine, cluster)


def test_what_the_event_log_committed_and_did_not_read_must_be_read_before_the_cut_over(
    cluster: Settings, event_log: App, machine: App
) -> None:
    ask(event_log, cluster)
    runtime = Runtime(event_log, cluster, Offering(), lambda: NOON)
    runtime.run(until_end=True, stop=lambda: runtime.summary.transactions > 0)
    assert any(row.version == 1 for row in rows(event_log, cluster).values()), (
        "it read its own commits before it stopped"
    )
    with pytest.raises(UsageError, match="is not read yet"):
        cut_over(machine, cluster).run("mara", NOON)


def test_rows_of_an_earlier_version_are_upgraded_keep_their_version_and_are_raced_for_as_before(
    cluster: Settings, machine: App
) -> None:
    ask(machine, cluster, 4)
    run(machine, cluster)
    fold = Fold(lambda row, event: {**row, "noted": row["noted"] + 1}, "2", {"1/1": lambda row: {**row, "noted": 0}})
    newer = replace(machine, fold=fold)
    publish(newer, cluster, *(request("bump", f"w{number}", 2, "mara") for number in range(2)))
    run(newer, cluster)
    run(newer, cluster)
    found = {key: (row.version, row.fold_version, row.data.get("noted")) for key, row in rows(newer, cluster).items()}
    assert found[b"w0"] == found[b"w1"] == (3, "1/2", 1)
    assert found[b"w2"] == found[b"w3"] == (2, "1/1", None), "what nothing moved stays as it was written"


def test_rows_that_are_the_truth_are_not_rebuilt_by_either_app(
    cluster: Settings, event_log: App, machine: App
) -> None:
    ask(machine, cluster, 1)
    run(machine, cluster)
    before = rows(machine, cluster)
    for app in (machine, event_log):
        with pytest.raises(UsageError, match="its rows are the truth"):
            Rebuilder(app, cluster, codec_of(app, cluster))
    assert rows(machine, cluster) == before


def test_an_event_log_that_only_folds_is_an_event_log_too(cluster: Settings, event_log: App) -> None:
    folding = replace(event_log, boundaries=[])
    ask(folding, cluster, 1)
    run(folding, cluster)
    with pytest.raises(UsageError, match="is an event log"):
        run(replace(folding, spine="state-machine", machine=MACHINE), cluster)
    run(folding, cluster)


def test_an_app_of_the_event_log_stops_when_its_log_is_cut_over_beneath_it(cluster: Settings, event_log: App) -> None:
    ask(event_log, cluster)
    runtime = Runtime(event_log, cluster, Offering(), lambda: NOON)

    def cut(summary: object) -> None:
        setting = make_setting(SpineCut(spine="state-machine", rows_version="1/1", offsets={}), "", "mara", NOON)
        write_setting(setting, event_log.topics, cluster, codec_of(event_log, cluster), "cut")

    with pytest.raises(UsageError, match="is on the state-machine spine"):
        runtime.run(on_commit=cut)


class Overtaken(CutOver):
    """A cut-over that a process of the app overtakes at the last moment."""

    member: GroupConsumer | None = None

    def _switch(self, writer: TransactionalWriter, *more: Any) -> None:
        if self.member is None:
            self.member = GroupConsumer(self._settings, self._app.group, self._app.topics.events)
            self.member.open(lambda standing: None, lambda partitions: None)
            while not self.member.owned:
                self.member.poll(1, 0.1)
        super()._switch(writer, *more)


def test_a_process_that_comes_in_the_midst_of_a_cut_over_makes_it_take_the_switch_back(
    cluster: Settings, event_log: App, machine: App
) -> None:
    ask(event_log, cluster, 4)
    run(event_log, cluster)
    before = {key: row.data for key, row in rows(event_log, cluster).items()}
    overtaken = Overtaken(machine, cluster, codec_of(machine, cluster))
    with pytest.raises(UsageError, match="processes of"):
        overtaken.run("mara", NOON)
    assert overtaken.done() is None
    assert overtaken.member is not None
    overtaken.member.close()
    ask(event_log, cluster, 4)
    run(event_log, cluster)
    after = {key: row.data for key, row in rows(event_log, cluster).items()}
    assert {key: data["seen"] for key, data in after.items()} == {
        key: data["seen"] + 2 for key, data in before.items()
    }
