"""`driftline state rebuild` on a real Kafka: the log has the last word on what a row holds."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from driftline.consumers import Answer, App, Fold, ProposalRequest, rebuilding
from driftline.consumers.prepare import prepare
from driftline.consumers.rebuilding import Rebuilder
from driftline.consumers.rows import Rows
from driftline.consumers.runtime import Runtime
from driftline.examples.renewals.app import OUTCOMES, fold
from driftline.examples.renewals.app import app as renewals
from driftline.log import Coordinates, GroupConsumer, KafkaReader, Outgoing, Settings, TopicAdmin, TransactionalWriter
from driftline.producers import Publisher
from driftline.producers.renewals import synthetic_renewals
from driftline.schemas import Codec, Registry, UsageError

pytestmark = pytest.mark.integration

ANSWER = Answer(json.dumps({"type": OUTCOMES[0], "payload": {"term_months": 12, "rationale": "as it stands"}}))
WORKFLOWS = 20


class Renewing:
    async def propose(self, request: ProposalRequest) -> Answer:
        return ANSWER


@pytest.fixture
def stopped(cluster: Settings, app_name: str) -> App:
    """An app that has decided everything and does not run any more."""
    app = replace(renewals, name=app_name)
    prepare(app, cluster)
    with Publisher(app.name, app.schemas, cluster, source="crm") as publisher:
        for event in synthetic_renewals(WORKFLOWS, 1):
            publisher.publish_event(event)
    Runtime(app, cluster, Renewing(), lambda: datetime.now(UTC)).run(until_end=True)
    return app


def rebuilder(app: App, settings: Settings) -> Rebuilder:
    return Rebuilder(app, settings, Codec(Registry(settings.require_registry()), app.contracts))


def rows(app: App, settings: Settings, what: str = "version") -> dict[bytes, int]:
    """The rows on the log: workflow to version, or to another number of the row's."""
    codec, reader = Codec(Registry(settings.require_registry()), app.contracts), KafkaReader(settings)
    found: dict[bytes, int] = {}
    for partition in range(settings.partitions):
        restored = Rows.restored(app.fold, reader.read_to_latest(app.topics.state, partition), codec)
        found |= {key: getattr(row, what) for key, row in restored.items()}
    return found


def test_rows_that_were_lost_or_left_over_are_brought_to_what_the_log_folds_to(
    cluster: Settings, stopped: App
) -> None:
    before = rows(stopped, cluster)
    assert len(before) == WORKFLOWS
    found = rebuilder(stopped, cluster)
    assert [one.differing for one in found.run(write=False)] == [()] * cluster.partitions
    writer = TransactionalWriter(cluster, f"{stopped.name}-vandal")
    lost, topic = next(iter(before)), stopped.topics.state
    writer.commit([Outgoing(topic, lost, None, 1, (), p) for p in range(cluster.partitions)])
    writer.close()
    assert sum(len(one.differing) for one in found.run(write=False)) == 1
    assert [name for one in found.run(write=True) for name in one.differing] == [lost.decode()]
    assert rows(stopped, cluster) == before


def test_a_new_fold_version_is_written_for_every_workflow(cluster: Settings, stopped: App) -> None:
    newer = replace(stopped, fold=Fold(fold, version="2"))
    found = list(rebuilder(newer, cluster).run(write=True))
    assert sum(len(one.differing) for one in found) == sum(one.workflows for one in found) == WORKFLOWS
    assert [one.differing for one in rebuilder(newer, cluster).run(write=False)] == [()] * cluster.partitions


def test_an_app_that_still_runs_is_refused(cluster: Settings, app_name: str) -> None:
    app = replace(renewals, name=app_name)
    prepare(app, cluster)
    codec = Codec(Registry(cluster.require_registry()), app.contracts)
    member = GroupConsumer(cluster, app.group, app.topics.events)
    member.open(lambda standing: None, lambda partitions: None)
    while not member.owned:
        member.poll(1, 0.1)
    with pytest.raises(UsageError, match=rf"1 processes of {app.name} are in the group driftline\.{app.name}"):
        Rebuilder(app, cluster, codec)
    member.close()


def test_a_row_that_the_app_writes_meanwhile_is_never_written_over(
    cluster: Settings, stopped: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = rows(stopped, cluster, "as_of")
    lost, topic = next(iter(before)), stopped.topics.state
    vandal = TransactionalWriter(cluster, f"{stopped.name}-vandal")
    vandal.commit([Outgoing(topic, lost, None, 1, (), p) for p in range(cluster.partitions)])
    vandal.close()
    [due] = [event for event in synthetic_renewals(WORKFLOWS, 1) if event.workflow == lost.decode()]
    with Publisher(stopped.name, stopped.schemas, cluster, source="crm") as publisher:
        publisher.publish_event(replace(due, id="due-again"))
    runtime = Runtime(stopped, cluster, Renewing(), lambda: datetime.now(UTC))
    app = threading.Thread(target=runtime.run, kwargs={"until_end": True})
    monkeypatch.setattr(rebuilding, "TransactionalWriter", paused_by(lambda: start_beside(app, stopped, cluster)))
    with suppress(UsageError):  # whichever the coordinator heard first
        list(rebuilder(stopped, cluster).run(write=True))
    app.join()
    assert rows(stopped, cluster, "as_of")[lost] > before[lost]
    monkeypatch.undo()
    list(rebuilder(stopped, cluster).run(write=True))
    assert [one.differing for one in rebuilder(stopped, cluster).run(write=False)] == [()] * cluster.partitions


def start_beside(app: threading.Thread, stopped: App, settings: Settings) -> None:
    """Start the app, and wait until it is in the group beside another member, or through."""
    app.start()
    while app.is_alive() and TopicAdmin(settings).group_members(stopped.group) < 2:
        app.join(0.05)


def paused_by(meanwhile: Callable[[], None]) -> type[TransactionalWriter]:
    """Writers before whose first commit something else happens."""

    class Paused(TransactionalWriter):
        paused = False

        def commit(self, *given: Any, **named: Any) -> list[Coordinates]:
            if not self.paused:
                self.paused = True
                meanwhile()
            return super().commit(*given, **named)

    return Paused
