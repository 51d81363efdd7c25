"""`driftline state rebuild` on a real Kafka: the log has the last word on what a row holds."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from driftline.consumers import Answer, App, Fold, ProposalRequest
from driftline.consumers.prepare import prepare
from driftline.consumers.rebuilding import Rebuilder
from driftline.consumers.rows import Rows
from driftline.consumers.runtime import Runtime
from driftline.examples.renewals.app import OUTCOMES, fold
from driftline.examples.renewals.app import app as renewals
from driftline.log import GroupConsumer, KafkaReader, Outgoing, Settings, TransactionalWriter
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


def rows(app: App, settings: Settings) -> dict[bytes, int]:
    """The rows on the log: workflow to version."""
    codec, reader = Codec(Registry(settings.require_registry()), app.contracts), KafkaReader(settings)
    found: dict[bytes, int] = {}
    for partition in range(settings.partitions):
        restored = Rows.restored(app.fold, reader.read_to_latest(app.topics.state, partition), codec)
        found |= {key: row.version for key, row in restored.items()}
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
