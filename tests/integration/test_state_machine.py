"""The state-machine spine on a real Kafka: one winner a version, timers over restarts, the way over from P3."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from driftline.consumers import Answer, App, Boundary, Fold, Machine, Prompt, ProposalRequest, Timer, Transition
from driftline.consumers.control import make_setting, write_setting
from driftline.consumers.cutting_over import CutOver, rows_hash
from driftline.consumers.effector_runner import EffectorRunner
from driftline.consumers.effectors import Effector
from driftline.consumers.prepare import prepare
from driftline.consumers.rebuilding import Rebuilder
from driftline.consumers.rows import Row, Rows
from driftline.consumers.runtime import Runtime
from driftline.log import GroupConsumer, KafkaReader, Settings, TransactionalWriter, to_event, to_outgoing
from driftline.producers import Publisher
from driftline.producers.ticking import Ticker
from driftline.replay import Selection
from driftline.replay.workflows import history_row, load_workflows
from driftline.schemas import Codec, Event, Registry, UsageError
from driftline.schemas.control import SpineCut
from driftline.schemas.names import (
    EFFECT_REPORTED,
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


class Hesitating(Offering):
    """Lets all else that is ready go first, many times over."""

    async def propose(self, request: ProposalRequest) -> Answer:
        for _ in range(200):
            await asyncio.sleep(0)
        return await super().propose(request)


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


def test_a_tick_waits_for_what_lies_before_it_however_slowly_that_is_decided(machine: App, cluster: Settings) -> None:
    ask(machine, cluster)
    with Ticker(machine.name, cluster) as ticker:
        ticker.tick(NOON + timedelta(days=31))

    Runtime(machine, cluster, Hesitating(), lambda: NOON).run(until_end=True)

    assert {row.state for row in rows(machine, cluster).values()} == {"expired"}


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


def test_a_request_that_lies_on_the_log_twice_has_one_answer_over_restarts_and_in_the_history(
    cluster: Settings, machine: App
) -> None:
    ask(machine, cluster, 1)
    run(machine, cluster)
    _, workflow, data = request("approve", "w0", 2, "mara")
    asked = Event("r1", TRANSITION_REQUESTED, "web", workflow, NOON, TRANSITION_REQUESTED, data)
    for _ in range(2):
        with Publisher(machine.name, machine.schemas, cluster, source="web", clock=lambda: NOON) as publisher:
            publisher.publish_event(asked)
        run(machine, cluster)
    answers = [event for event in events(machine, cluster) if event.data.get("request_id") == "r1"]
    assert len(answers) == 2
    assert answers[0] == answers[1]
    assert (answers[0].record, rows(machine, cluster)[b"w0"].version) == (TRANSITION_ACCEPTED, 3)
    [lived] = load_workflows(KafkaReader(cluster), codec_of(machine, cluster), machine, Selection()).workflows
    assert history_row(machine, lived) == rows(machine, cluster)[b"w0"].json


@dataclass
class Sending:
    """An effector that notes what it is called with."""

    called: list[tuple[str, str]] = field(default_factory=list)

    def __call__(self, event: Event, idempotency_key: str) -> Mapping[str, Any]:
        self.called.append((event.workflow, idempotency_key))
        return {"sent": event.workflow}

    def run(self, app: App, settings: Settings) -> None:
        effector = Effector("send", [TRANSITION_ACCEPTED], self)
        sending = replace(app, effectors=[effector])
        prepare(sending, settings)
        EffectorRunner(sending, effector, settings, lambda: NOON).run(until_end=True)


def accepted_event(workflow: str, source: str) -> Event:
    data = {
        "request_id": "r",
        "transition": "approve",
        "by": "mara",
        "reason": "",
        "state_before": "offered",
        "state_after": "closed",
        "version_after": 3,
    }
    return Event(f"said-{source}", TRANSITION_ACCEPTED, source, workflow, NOON, TRANSITION_ACCEPTED, data)


def test_an_approval_that_moved_a_row_is_acted_on_under_the_answers_id_and_a_refusal_is_not(
    cluster: Settings, machine: App
) -> None:
    ask(machine, cluster, 2)
    run(machine, cluster)
    publish(machine, cluster, request("approve", "w0", 2, "mara"), request("approve", "w1", 7, "mara"))
    run(machine, cluster)
    sending = Sending()
    for _ in range(2):
        sending.run(machine, cluster)
    [accepted] = [event for event in events(machine, cluster) if event.record == TRANSITION_ACCEPTED]
    assert sending.called == [("w0", accepted.id)]
    [report] = [event for event in events(machine, cluster) if event.record == EFFECT_REPORTED]
    assert (report.causation_id, report.workflow) == (accepted.id, "w0")
    run(machine, cluster)
    assert rows(machine, cluster)[b"w0"].state == "closed", "what the effector reports is a fact as any other"


def test_an_acceptance_that_somebody_else_than_the_spine_tells_is_not_acted_on(
    cluster: Settings, machine: App
) -> None:
    codec, topic = codec_of(machine, cluster), machine.topics.events
    sources = ["web", f"driftline:{machine.name}/sell", f"driftline:{machine.name}/spine/x", "driftline:other/spine"]
    forged = [to_outgoing(accepted_event("w0", source), topic, codec, 0) for source in sources]
    told = to_outgoing(accepted_event("w1", f"driftline:{machine.name}/spine"), topic, codec, 0)
    TransactionalWriter(cluster, f"{machine.name}-test").commit([*forged, told])
    sending = Sending()
    sending.run(machine, cluster)
    assert [workflow for workflow, _ in sending.called] == ["w1"]


def test_an_answer_that_is_repeated_is_acted_on_under_the_same_key(cluster: Settings, machine: App) -> None:
    ask(machine, cluster, 1)
    run(machine, cluster)
    _, workflow, data = request("approve", "w0", 2, "mara")
    asked = Event("r1", TRANSITION_REQUESTED, "web", workflow, NOON, TRANSITION_REQUESTED, data)
    with Publisher(machine.name, machine.schemas, cluster, source="web", clock=lambda: NOON) as publisher:
        publisher.publish_event(asked)
        publisher.publish_event(asked)
    run(machine, cluster)
    sending = Sending()
    sending.run(machine, cluster)
    assert len(sending.called) == 2
    assert len(set(sending.called)) == 1


def test_an_effector_on_answers_does_not_start_on_the_event_log(cluster: Settings, event_log: App) -> None:
    with pytest.raises(UsageError, match="which the event log never commits"):
        Sending().run(event_log, cluster)


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


def test_what_only_a_spine_may_say_makes_no_row_of_a_seed_where_an_outsider_said_it(
    cluster: Settings, event_log: App, machine: App
) -> None:
    ask(event_log, cluster, 1)
    with Publisher(event_log.name, event_log.schemas, cluster, source="web", clock=lambda: NOON) as publisher:
        run(event_log, cluster)
        publisher.publish_event(accepted_event("w0", "web"))
        publisher.publish_event(accepted_event("w1", "web"))
    run(event_log, cluster)
    seeded = dict(row for one in cut_over(machine, cluster).seed() for row in one.rows.items())
    assert {key: (row.state, row.version) for key, row in seeded.items()} == {b"w0": ("offered", 2)}


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
    folding = replace(event_log, boundaries=[], facts=["desk.Asked", "desk.Offered"])
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
