"""Personal data on a real log: tagged values are in no record of any topic and in no request to a model."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from driftline.consumers import Answer, App, Boundary, Fold, Prompt, ProposalRequest
from driftline.consumers.machine import Machine, Transition
from driftline.consumers.prepare import prepare
from driftline.consumers.runtime import Runtime
from driftline.log import ALERTS, ARTIFACTS, KafkaReader, Settings, TransactionalWriter, to_outgoing
from driftline.producers import Publisher
from driftline.producers.lines import LineForm, publish_lines
from driftline.schemas import Codec, Contracts, Event, Registry
from driftline.schemas.pii import MASKED, hashed

pytestmark = pytest.mark.integration

NOW = datetime(2026, 11, 21, tzinfo=UTC)
KEY = "0123456789abcdef-of-a-test"
ASKED, ANSWERED = "shop.Asked", "shop.Answered"
NAME, EMAIL, OTHER = "Ada Lovelace", "ada@example.org", "made-up@example.org"
PERSONAL = (NAME, EMAIL, OTHER)
FIELDS = {
    ASKED: [("name", "mask"), ("email", "hash"), ("question", None)],
    ANSWERED: [("email", "hash"), ("answer", None)],
}


class Echoing:
    """A model that answers to the address it sees, or to one that it makes up."""

    def __init__(self, email: str | None = None) -> None:
        self.requests: list[ProposalRequest] = []
        self._email = email

    async def propose(self, request: ProposalRequest) -> Answer:
        self.requests.append(request)
        seen = json.loads(request.messages[-1]["content"])["email"]
        payload = {"email": self._email or seen, "answer": "yes"}
        return Answer(json.dumps({"type": ANSWERED, "payload": payload}))


def avsc(record: str, tagged: bool = True) -> dict[str, Any]:
    fields = [
        {"name": name, "type": "string", **({"pii": tag} if tag and tagged else {})} for name, tag in FIELDS[record]
    ]
    return {"type": "record", "name": record, "fields": fields}


def keep_all(row: Mapping[str, Any], event: Event) -> Mapping[str, Any]:
    return {**row, **event.data}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for record in FIELDS:
        (tmp_path / "schemas" / record).mkdir(parents=True)
        (tmp_path / "schemas" / record / "1.avsc").write_text(json.dumps(avsc(record)))
    return tmp_path / "schemas"


@pytest.fixture
def settings(cluster: Settings) -> Settings:
    return cluster.model_copy(update={"pii_secret": SecretStr(KEY)})


@pytest.fixture
def app(app_name: str, folder: Path, settings: Settings) -> App:
    answer = Boundary(
        on=(ASKED,),
        name="answer",
        prompt=Prompt("Answer.\n---user---\n{{ event | tojson }}"),
        proposer="sim/none",
        proposes=[ANSWERED],
    )
    app = App(app_name, [answer], folder, facts=[ASKED], fold=Fold(keep_all, "1"))
    prepare(app, settings)
    return app


def asked(workflow: str) -> Event:
    data = {"name": NAME, "email": EMAIL, "question": "may I?"}
    return Event(id=workflow, type=ASKED, source="crm", workflow=workflow, time=NOW, record=ASKED, data=data)


def values(app: App, settings: Settings) -> Iterator[bytes]:
    """The bytes of every record of every topic that the app can reach: keys, values, headers."""
    reader, topics = KafkaReader(settings), app.topics
    own = (topics.events, topics.decisions, topics.state, topics.control, topics.dead)
    for topic in (*own, ALERTS, ARTIFACTS):
        for record in reader.read(reader.span(topic)):
            yield b"\0".join([record.key or b"", record.value or b"", *(value for _, value in record.headers)])


def holds_personal(data: bytes) -> bool:
    return any(personal.encode() in data for personal in PERSONAL)


def rows(app: App, settings: Settings) -> list[dict[str, Any]]:
    reader, codec = KafkaReader(settings), settings.codec(app.contracts)
    found = [codec.decode(record.value).value for record in reader.read(reader.span(app.topics.state))]
    return [json.loads(row["data"]) for row in found]


def run(app: App, settings: Settings, model: Echoing) -> Runtime:
    runtime = Runtime(app, settings, model, lambda: NOW)
    runtime.run(until_end=True)
    return runtime


def test_no_tagged_value_is_in_any_record_of_any_topic_nor_in_any_request(app: App, settings: Settings) -> None:
    with Publisher(app.name, app.schemas, settings, source="crm") as publisher:
        for number in range(5):
            publisher.publish_event(asked(f"w{number}"))
    line = {"id": "line", "workflow": "w5", "time": NOW.isoformat(), "data": dict(asked("w5").data)}
    form = LineForm(record=ASKED, source="crm")
    publish_lines([json.dumps(line).encode()], app=app.name, form=form, settings=settings, schemas=app.schemas)
    model = Echoing()
    runtime = run(app, settings, model)

    assert runtime.summary.decisions.total() == len(model.requests) == 6
    assert not any(holds_personal(repr(request).encode()) for request in model.requests)
    found = list(values(app, settings))
    assert not any(map(holds_personal, found))
    pseudonym = hashed(EMAIL, KEY.encode())
    assert sum(pseudonym.encode() in data for data in found) >= 3 * 6  # fact, decision and outcome: equal stays equal
    assert {(row["name"], row["email"]) for row in rows(app, settings)} == {(MASKED, pseudonym)}


def test_what_another_program_wrote_as_it_was_reaches_no_prompt_no_decision_and_no_row(
    app: App, settings: Settings
) -> None:
    untagged = Contracts.load(app.schemas)
    plain = Contracts([type(untagged[ASKED])(ASKED, (avsc(ASKED, tagged=False),))])
    foreign = Codec(Registry(settings.require_registry()), plain)
    writer = TransactionalWriter(settings, f"foreign.{app.name}")
    (at,) = writer.commit([to_outgoing(asked("w"), app.topics.events, foreign)])
    model = Echoing()
    run(app, settings, model)

    assert not any(holds_personal(repr(request).encode()) for request in model.requests)
    assert len(model.requests) == 1
    reader = KafkaReader(settings)
    for topic in (app.topics.events, app.topics.decisions, app.topics.state):
        records = list(reader.read(reader.span(topic)))
        found = [record for record in records if record.at != at]
        assert found
        assert [holds_personal(record.value or b"") for record in records if record.at == at] in ([], [True])
        assert not any(holds_personal(record.value or b"") for record in found), topic


@pytest.mark.parametrize("spine", ["event-log", "state-machine"])
def test_a_value_that_a_model_makes_up_is_committed_as_its_hash_in_event_row_and_action(
    app: App, settings: Settings, spine: str
) -> None:
    if spine == "state-machine":
        moves = [Transition("init", ASKED, "open"), Transition("open", ANSWERED, "done")]
        app = replace(app, spine="state-machine", machine=Machine("init", ["done"], moves))
    with Publisher(app.name, app.schemas, settings, source="crm") as publisher:
        publisher.publish_event(asked("w"))
    run(app, settings, Echoing(OTHER))
    reader, codec = KafkaReader(settings), settings.codec(app.contracts)
    (decision,) = [codec.decode(r.value).value for r in reader.read(reader.span(app.topics.decisions))]
    assert json.loads(decision["action_payload"])["email"] == hashed(OTHER, KEY.encode())
    events = [record.value or b"" for record in reader.read(reader.span(app.topics.events))]
    assert len(events) == 2
    assert not any(map(holds_personal, events))
    assert rows(app, settings)[-1]["email"] == hashed(OTHER, KEY.encode())
