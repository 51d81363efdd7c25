"""The runtime on a real Kafka: what it decides, what it writes, and what it refuses."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, Producer, TopicPartition

from driftline.consumers import Answer, App, Boundary, Fold, OnExhausted, Prompt, ProposalRequest, Proposer
from driftline.consumers.artifacts import read_artifacts
from driftline.consumers.committing import REFUSALS_MAX
from driftline.consumers.models import LiteLLMProposer
from driftline.consumers.prepare import prepare
from driftline.consumers.runtime import Runtime, RuntimeLimits
from driftline.examples.renewals.app import OUTCOMES
from driftline.examples.renewals.app import app as renewals
from driftline.log import (
    CommitRefused,
    KafkaReader,
    Outgoing,
    Settings,
    TopicAdmin,
    TopicSpec,
    TransactionalWriter,
    to_event,
    to_outgoing,
)
from driftline.log.events import INPUT_BYTES_MAX
from driftline.producers import Publisher
from driftline.producers.renewals import synthetic_renewals
from driftline.schemas import (
    BadInput,
    Codec,
    ContractError,
    Decision,
    Event,
    KafkaUnreachable,
    Registry,
    RegistryUnreachable,
    UsageError,
    canonical_json,
)

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore:.*using the `ReadOnly` qualifier:UserWarning"),
]

NOW = datetime(2026, 11, 21, tzinfo=UTC)
EVENTS = 200
RENEWED = json.dumps({"type": OUTCOMES[0], "payload": {"term_months": 12, "rationale": "as it stands"}})


class Saying:
    """A proposer that says one thing to all."""

    def __init__(self, text: str = RENEWED) -> None:
        self.text = text
        self.requests: list[ProposalRequest] = []

    async def propose(self, request: ProposalRequest) -> Answer:
        self.requests.append(request)
        return Answer(self.text)


def run(app: App, settings: Settings, proposer: Proposer | None = None, **options: Any) -> Runtime:
    runtime = Runtime(app, settings, proposer or Saying(), lambda: NOW, **options)
    runtime.run(until_end=True)
    return runtime


def publish(app: App, settings: Settings, events: int, seed: int = 1) -> list[Event]:
    found = list(synthetic_renewals(events, seed))
    with Publisher(app.name, app.schemas, settings, source="crm") as publisher:
        for event in found:
            publisher.publish_event(event)
    return found


class Log:
    """What lies on the log of an app, read by a consumer of its own: nothing of the runtime's is used."""

    def __init__(self, app: App, settings: Settings) -> None:
        self._settings = settings
        self.app = app
        self.codec = Codec(Registry(settings.require_registry()), app.contracts)

    def messages(self, topic: str) -> Iterator[Any]:
        consumer = Consumer(
            {
                "bootstrap.servers": self._settings.require_bootstrap(),
                **self._settings.kafka,
                "group.id": "checker",
                "isolation.level": "read_committed",
                "enable.partition.eof": True,
                "enable.auto.commit": False,
            }
        )
        open_ = set(range(self._settings.partitions))
        consumer.list_topics(topic, timeout=30)  # or `assign` waits half a second for its leaders
        consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in open_])
        while open_:
            message = consumer.poll(30)
            assert message is not None, f"{topic} went silent"
            if message.error() is None:
                yield message
            else:
                error = message.error()
                assert error is not None
                assert error.code() == KafkaError._PARTITION_EOF, error
                open_.discard(message.partition())
        consumer.close()

    def decisions(self) -> list[tuple[int, Decision]]:
        """Every decision with its partition, in log order within each."""
        found = [(m.partition(), self.codec.decode(m.value())) for m in self.messages(self.app.topics.decisions)]
        return [(partition, Decision.model_validate(decoded.value)) for partition, decoded in found]

    def events(self) -> list[tuple[int, int, Event]]:
        """Every event with partition and offset."""
        reader = KafkaReader(self._settings)
        records = reader.read(reader.span(self.app.topics.events))
        return [(record.at.partition, record.at.offset, to_event(record, self.codec)) for record in records]

    def rows(self) -> dict[tuple[int, bytes], dict[str, Any]]:
        """The last row of every key, by partition."""
        found = self.messages(self.app.topics.state)
        return {(m.partition(), m.key()): self.codec.decode(m.value()).value for m in found}


@pytest.fixture
def app(cluster: Settings, app_name: str) -> App:
    app = replace(renewals, name=app_name)
    prepare(app, cluster)
    return app


@pytest.fixture(scope="module")
def decided(cluster: Settings) -> tuple[App, Runtime, Log]:
    """Two hundred renewals, decided by the simulator."""
    app = replace(renewals, name="quarter")
    prepare(app, cluster)
    publish(app, cluster, EVENTS)
    runtime = run(app, cluster, LiteLLMProposer(), seed=7)
    return app, runtime, Log(app, cluster)


def test_every_event_has_exactly_one_decision(decided: tuple[App, Runtime, Log]) -> None:
    _, _, log = decided
    inputs = {(partition, offset) for partition, offset, event in log.events() if event.source == "crm"}
    found = Counter((decision.input.partition, decision.input.offset) for _, decision in log.decisions())
    assert found == Counter(inputs)
    assert len(inputs) == EVENTS


def test_a_decision_lies_beside_its_input_and_a_workflow_keeps_its_order(decided: tuple[App, Runtime, Log]) -> None:
    _, _, log = decided
    offsets = defaultdict(list)
    for partition, decision in log.decisions():
        assert partition == decision.input.partition
        offsets[decision.workflow].append(decision.input.offset)
    assert sum(map(len, offsets.values())) == EVENTS
    assert all(found == sorted(found) for found in offsets.values())


def test_what_was_committed_is_what_the_decisions_name(decided: tuple[App, Runtime, Log]) -> None:
    _, _, log = decided
    committed = {event.id: (p, event) for p, _, event in log.events() if event.source != "crm"}
    named = {id_: decision for _, decision in log.decisions() for id_ in decision.committed_event_ids}
    assert committed.keys() == named.keys()
    for id_, (partition, event) in committed.items():
        decision = named[id_]
        assert (partition, event.workflow) == (decision.input.partition, decision.workflow)
        assert event.causation_id == decision.input.event_id
        if decision.verdict == "accepted":
            assert event.record == decision.action_type
            assert canonical_json(json.loads(decision.action_payload or "")) == canonical_json(_json(event.data))
        else:
            assert event.record == "driftline.Escalated"


def _json(data: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: int(value) if isinstance(value, float) and value.is_integer() else value for name, value in data.items()
    }


def test_the_rows_are_the_fold_of_the_log(decided: tuple[App, Runtime, Log]) -> None:
    app, _, log = decided
    assert app.fold is not None
    rows: dict[tuple[int, bytes], dict[str, Any]] = {}
    for partition, offset, event in log.events():
        key = (partition, event.workflow.encode())
        before = rows.get(key, {"version": 0, "data": {}})
        data = dict(app.fold.function(before["data"], event))
        rows[key] = {"version": before["version"] + 1, "as_of": offset, "fold_version": "1", "data": data}
    found = {key: {**row, "data": json.loads(row["data"])} for key, row in log.rows().items()}
    assert {key: {**row, "state": None} for key, row in rows.items()} == found
    assert len(rows) == EVENTS


def test_a_decision_names_the_version_of_the_row_that_it_saw(decided: tuple[App, Runtime, Log]) -> None:
    _, _, log = decided
    for _, decision in log.decisions():
        assert decision.row_version_before == decision.context_value()["row"]["times_due"] == 1


def test_the_summary_counts_what_is_on_the_log(decided: tuple[App, Runtime, Log]) -> None:
    _, runtime, log = decided
    decisions = [decision for _, decision in log.decisions()]
    summary = runtime.summary
    assert summary.decisions == Counter(decision.verdict for decision in decisions)
    assert summary.attempts == sum(len(decision.attempts) for decision in decisions)
    assert (summary.events, summary.folded, summary.dead.total()) == (2 * EVENTS, EVENTS, 0)
    assert summary.mended > 0
    assert summary.decisions["accepted"] > EVENTS * 0.9


def test_what_a_decision_names_lies_among_the_artifacts(cluster: Settings, decided: tuple[App, Runtime, Log]) -> None:
    app, _, log = decided
    artifacts = read_artifacts(KafkaReader(cluster), log.codec)
    _, decision = log.decisions()[0]
    assert artifacts[decision.prompt_hash].content == app.boundaries[0].prompt.text
    verifier = json.loads(artifacts[decision.verifier_version].content)
    (policy,) = verifier["verifiers"]
    assert "cap_pct = 30" in json.loads(artifacts[policy].content)[0]


def test_a_second_run_finds_nothing_to_do(cluster: Settings, app: App) -> None:
    publish(app, cluster, 5)
    run(app, cluster)
    assert run(app, cluster).summary.events == 0
    assert len(Log(app, cluster).decisions()) == 5


def test_rows_go_on_after_a_restart(cluster: Settings, app: App) -> None:
    publish(app, cluster, 3)
    run(app, cluster)
    publish(app, cluster, 3)  # the same customers once more
    run(app, cluster)
    rows = Log(app, cluster).rows().values()
    assert [(row["version"], json.loads(row["data"])["times_due"]) for row in rows] == [(4, 2)] * 3


def test_a_second_record_of_one_fact_is_decided_again_with_the_same_derived_event(
    cluster: Settings, app: App
) -> None:
    publish(app, cluster, 1)
    publish(app, cluster, 1)
    run(app, cluster)
    (_, one), (_, other) = Log(app, cluster).decisions()
    assert one.decision_id != other.decision_id
    assert one.committed_event_ids == other.committed_event_ids


def count_facts(row: Mapping[str, Any], event: Event) -> Mapping[str, Any]:
    return {"facts": row.get("facts", 0) + 1}


@pytest.mark.parametrize("before", [renewals.fold, None], ids=["changed", "new"])
def test_a_fold_that_is_new_or_changed_is_folded_over_the_whole_log(
    cluster: Settings, app: App, before: Fold | None
) -> None:
    publish(app, cluster, 4)
    run(replace(app, fold=before), cluster)
    publish(app, cluster, 4)
    run(replace(app, fold=Fold(count_facts, version="2")), cluster)
    for row in Log(app, cluster).rows().values():
        assert (row["version"], row["fold_version"], json.loads(row["data"])) == (4, "2", {"facts": 4})


def test_folding_anew_passes_over_what_went_to_the_dead_topic(cluster: Settings, app: App) -> None:
    (event,) = publish(app, cluster, 1)
    raw(cluster, app, key=event.workflow.encode(), value=b"poison")
    run(app, cluster)
    publish(app, cluster, 1)
    run(replace(app, fold=Fold(count_facts, version="2")), cluster)
    (row,) = Log(app, cluster).rows().values()
    assert (row["version"], json.loads(row["data"])) == (4, {"facts": 4})


def raw(settings: Settings, app: App, **record: Any) -> None:
    producer = Producer({"bootstrap.servers": settings.require_bootstrap(), "message.max.bytes": 4_000_000})
    producer.produce(app.topics.events, **record)
    assert producer.flush(30) == 0


def good_record(app: App, settings: Settings, codec: Codec, **changes: Any) -> Outgoing:
    (event,) = synthetic_renewals(1, 99)
    return to_outgoing(replace(event, data={**event.data, **changes}), app.topics.events, codec)


LARGE = b"\x00" * (INPUT_BYTES_MAX + 1)
HUGE = b"\x00" * 2_500_000
POISON: Mapping[str, Callable[[Outgoing], dict[str, Any]]] = {
    "not_wire_format": lambda good: {"value": b"poison"},
    "no_value": lambda good: {"value": None},
    "no_key": lambda good: {"key": None},
    "unknown_schema_id": lambda good: {"value": b"\x00\x7f\xff\xff\xff" + (good.value or b"")[5:]},
    "corrupt": lambda good: {"value": (good.value or b"")[:12]},
    "trailing_bytes": lambda good: {"value": (good.value or b"") + b"\x00"},
    "oversize": lambda good: {"value": LARGE},
    "bad_headers": lambda good: {"headers": [("ce_id", b"\xff"), ("mine", None)]},
}


@pytest.mark.parametrize("reason", POISON)
def test_poison_goes_to_the_dead_topic_as_it_came_and_the_loop_goes_on(
    cluster: Settings, app: App, reason: str
) -> None:
    log = Log(app, cluster)
    good = good_record(app, cluster, log.codec)
    sent = {
        "key": good.key,
        "value": good.value,
        "headers": list(good.headers),
        **POISON[reason](good),
        "partition": 1,
    }
    raw(cluster, app, **sent)
    raw(cluster, app, key=good.key, value=good.value, headers=list(good.headers), partition=1)
    runtime = run(app, cluster)
    (dead,) = log.messages(app.topics.dead)
    assert (dead.key(), dead.value(), dead.partition()) == (sent["key"], sent["value"], 1)
    came = len(sent["headers"])
    assert dead.headers()[:came] == sent["headers"]
    why = dict(dead.headers()[came:])
    assert why["driftline_reason"] == reason.encode()
    assert (why["driftline_topic"], why["driftline_offset"]) == (app.topics.events.encode(), b"0")
    assert runtime.summary.dead == {reason: 1}
    assert [decision.input.offset for _, decision in log.decisions()] == [1]


def test_an_input_larger_than_any_record_of_ours_does_not_hold_the_loop_up(cluster: Settings, app: App) -> None:
    """Compressed, it came under the broker's limit; it would not fit a second time."""
    producer = Producer(
        {"bootstrap.servers": cluster.require_bootstrap(), "message.max.bytes": 4_000_000, "compression.type": "gzip"}
    )
    producer.produce(app.topics.events, key=b"k", value=HUGE, partition=0)
    assert producer.flush(30) == 0
    assert run(app, cluster).summary.dead == {"oversize": 1}
    (dead,) = Log(app, cluster).messages(app.topics.dead)
    assert (dead.value(), dict(dead.headers())["driftline_value"]) == (None, b"left at the source")


def test_a_number_that_canonical_json_refuses_goes_to_the_dead_topic(cluster: Settings, app: App) -> None:
    log = Log(app, cluster)
    good = good_record(app, cluster, log.codec, monthly_charges=float(2**60))
    raw(cluster, app, key=good.key, value=good.value, headers=list(good.headers))
    assert run(app, cluster).summary.dead == {"not_canonical": 1}
    (dead,) = log.messages(app.topics.dead)
    assert dead.value() == good.value
    assert (log.decisions(), log.rows()) == ([], {})


def test_a_decision_that_no_record_can_hold_goes_to_the_dead_topic(cluster: Settings, app: App) -> None:
    publish(app, cluster, 1)
    assert run(app, cluster, Saying("\U0001f600" * 90_000)).summary.dead == {"oversize": 1}
    log = Log(app, cluster)
    assert (log.decisions(), len(list(log.messages(app.topics.dead)))) == ([], 1)


def test_a_boundary_may_decide_what_another_one_committed(cluster: Settings, app_name: str) -> None:
    follow_up = Boundary(
        name="follow-up",
        on=[OUTCOMES[0]],
        prompt=Prompt("{{ event.term_months }} {{ row.last_outcome }}"),
        proposer="test/follow-up",
        proposes=["driftline.renewals.RenewalEscalated"],
        max_attempts=1,
        on_exhausted=OnExhausted.REJECT,
    )
    app = replace(renewals, name=app_name, boundaries=[*renewals.boundaries, follow_up])
    prepare(app, cluster)
    publish(app, cluster, 3)
    proposer = Saying()
    run(app, cluster, proposer)
    log = Log(app, cluster)
    found = Counter((decision.boundary, decision.verdict) for _, decision in log.decisions())
    assert found == {("renewal", "accepted"): 3, ("follow-up", "rejected"): 3}
    committed = {event.id for _, _, event in log.events() if event.source != "crm"}
    assert {
        decision.input.event_id for _, decision in log.decisions() if decision.boundary == "follow-up"
    } == committed
    assert proposer.requests[-1].messages[0]["content"] == f"12 {OUTCOMES[0]}"


def test_a_transaction_holds_at_most_its_limit(cluster: Settings, app: App) -> None:
    publish(app, cluster, 6)
    runtime = run(app, cluster, limits=RuntimeLimits(batch_max=1))
    assert runtime.summary.transactions == runtime.summary.events == 12
    assert len(Log(app, cluster).decisions()) == 6


def committed_positions(settings: Settings, app: App) -> list[int]:
    consumer = Consumer({"bootstrap.servers": settings.require_bootstrap(), "group.id": app.group})
    found = consumer.committed([TopicPartition(app.topics.events, p) for p in range(settings.partitions)], 30)
    consumer.close()
    return [partition.offset for partition in found]


def untouched(settings: Settings, app: App) -> bool:
    return max(committed_positions(settings, app)) < 0 and not Log(app, settings).decisions()


def test_a_registry_that_is_down_is_told_before_anything_is_consumed(cluster: Settings, app: App) -> None:
    publish(app, cluster, 1)
    down = cluster.model_copy(update={"registry_url": "http://127.0.0.1:9"})
    with pytest.raises(RegistryUnreachable, match=r"no schema registry answers at http://127\.0\.0\.1:9"):
        run(app, down)
    assert untouched(cluster, app)


def test_a_broker_that_is_down_is_told(cluster: Settings, app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("driftline.consumers.start.REQUEST_TIMEOUT_S", 1.0)
    with pytest.raises(KafkaUnreachable, match=r"no Kafka answers at 127\.0\.0\.1:9"):
        run(app, cluster.model_copy(update={"bootstrap_servers": "127.0.0.1:9"}))


def test_a_packaged_schema_that_is_not_registered_is_told_before_anything_is_consumed(
    cluster: Settings, app: App, tmp_path: Path
) -> None:
    publish(app, cluster, 1)
    for path in renewals.schemas.rglob("*.avsc"):
        schema = json.loads(path.read_text())
        schema["fields"].append({"name": "more", "type": ["null", "string"], "default": None})
        (tmp_path / path.parent.name).mkdir()
        (tmp_path / path.parent.name / path.name).write_text(json.dumps(schema))
    with pytest.raises(ContractError, match=r"does not hold the packaged version .*`driftline schemas register`"):
        run(replace(app, schemas=tmp_path), cluster)
    assert untouched(cluster, app)


def test_missing_topics_are_told(cluster: Settings, app: App) -> None:
    TopicAdmin(cluster).delete([app.topics.state])
    with pytest.raises(
        UsageError, match=rf"there is no topic {app.name}\.state; `driftline topics create {app.name}`"
    ):
        run(app, cluster)


def test_topics_whose_partitions_do_not_match_are_told(cluster: Settings, app_name: str) -> None:
    app = replace(renewals, name=app_name)
    TopicAdmin(cluster).ensure([spec for spec in app.topics.specs(3) if spec.name.endswith("dead")])
    TopicAdmin(cluster).ensure([spec for spec in app.topics.specs(2) if not spec.name.endswith("dead")])
    codec = Codec(Registry(cluster.require_registry()), app.contracts)
    for topic, record in app.subjects():
        codec.registry.ensure(topic, app.contracts.require(record))
    with pytest.raises(UsageError, match=rf"{app_name}\.dead has 3 partitions and {app_name}\.events 2"):
        run(app, cluster)


def changed(app: App, **changes: Any) -> App:
    (boundary,) = app.boundaries
    return replace(app, boundaries=[replace(boundary, **changes)])


def test_a_prompt_that_lacks_a_variable_stops_the_run_and_nothing_is_written(cluster: Settings, app: App) -> None:
    publish(app, cluster, 2)
    with pytest.raises(BadInput, match="prompt prompt: 'customer' is undefined; the context has event, row, stream"):
        run(changed(app, prompt=Prompt("{{ customer }}")), cluster)
    assert untouched(cluster, app)


def test_a_fold_that_fails_stops_the_run_and_nothing_is_written(cluster: Settings, app: App) -> None:
    publish(app, cluster, 2)
    broken = Fold(lambda row, event: {"x": row["missing"]}, version="1")
    with pytest.raises(UsageError, match=r"the fold fails on the renewal-due\..*KeyError\('missing'\)"):
        run(replace(app, fold=broken), cluster)
    assert untouched(cluster, app)


def test_a_model_that_there_is_not_stops_the_run_and_nothing_is_written(cluster: Settings, app: App) -> None:
    publish(app, cluster, 1)
    with pytest.raises(UsageError, match="the simulator has no version 'nobody'"):
        run(changed(app, proposer="sim/nobody"), cluster, LiteLLMProposer())
    assert untouched(cluster, app)


def test_a_broker_that_refuses_time_and_again_ends_the_run(cluster: Settings, app_name: str) -> None:
    app = replace(renewals, name=app_name)
    TopicAdmin(cluster).ensure([TopicSpec(app.topics.decisions, cluster.partitions, {"max.message.bytes": "200"})])
    prepare(app, cluster)
    publish(app, cluster, 1)
    runtime = Runtime(app, cluster, Saying(), lambda: NOW)
    with pytest.raises(CommitRefused, match="too large"):
        runtime.run(until_end=True)
    assert runtime.summary.refused_commits == REFUSALS_MAX
    assert untouched(cluster, app)


def test_what_another_writer_has_aborted_is_never_decided(cluster: Settings, app: App) -> None:
    log = Log(app, cluster)
    with pytest.raises(ZeroDivisionError), TransactionalWriter(cluster, f"{app.name}-other").transaction() as open_:
        open_.write([good_record(app, cluster, log.codec)])
        _ = 1 / 0
    publish(app, cluster, 2)
    run(app, cluster)
    assert len(log.decisions()) == 2
