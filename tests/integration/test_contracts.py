"""The contracts example on a real Kafka: 90 days of sixty customers, lived through on both spines."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from driftline.console.contracts_demo import contract_days, events_of, live, rows_of, unlawful
from driftline.consumers import App
from driftline.consumers.effector_runner import EffectorRunner
from driftline.consumers.models import LiteLLMProposer
from driftline.consumers.prepare import prepare
from driftline.consumers.rows import Row
from driftline.consumers.summary import RunSummary
from driftline.examples.contracts.app import CUSTOMER_REPLIED, MACHINE, OFFER_SENT
from driftline.examples.contracts.app import app as event_log_app
from driftline.examples.contracts.app import state_machine_app as machine_app
from driftline.examples.contracts.outbox import FOLDER_VARIABLE
from driftline.examples.contracts.policy import POLICY
from driftline.log import KafkaReader, Settings
from driftline.producers import Publisher
from driftline.producers.contracts import Day
from driftline.replay import Selection
from driftline.replay.mining import mine, table_of
from driftline.replay.spine_check import check_spines
from driftline.replay.workflows import history_row, load_workflows
from driftline.schemas import Codec, Event, Registry
from driftline.schemas.names import TIMER_FIRED, TRANSITION_REQUESTED

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore:.*using the `ReadOnly` qualifier:UserWarning"),
]

CUSTOMERS = 60
ENDS = {"closed", "expired", "human_required"}


@dataclass(frozen=True)
class Lived:
    """An app with its story behind it."""

    app: App
    summary: RunSummary
    rows: Mapping[str, Row]
    events: Sequence[Event]


@pytest.fixture(scope="module")
def days() -> Sequence[Day]:
    return contract_days(CUSTOMERS)


def lived(app: App, settings: Settings, days: Sequence[Day]) -> Lived:
    prepare(app, settings)
    summary = live(app, settings, days, LiteLLMProposer())
    return Lived(app, summary, rows_of(app, settings), events_of(app, settings))


@pytest.fixture(scope="module")
def on_event_log(cluster: Settings, days: Sequence[Day]) -> Lived:
    return lived(replace(event_log_app, name="lived-log"), cluster, days)


@pytest.fixture(scope="module")
def on_machine(cluster: Settings, days: Sequence[Day]) -> Lived:
    return lived(replace(machine_app, name="lived-machine"), cluster, days)


@pytest.fixture(params=["on_event_log", "on_machine"])
def story(request: pytest.FixtureRequest) -> Lived:
    found: Lived = request.getfixturevalue(request.param)
    return found


def test_every_fact_is_decided_and_every_customer_comes_to_an_end(story: Lived, days: Sequence[Day]) -> None:
    assert len(story.rows) == CUSTOMERS
    assert {row.state for row in story.rows.values()} <= ENDS
    assert story.summary.events == len(story.events)
    assert not story.summary.dead
    told = {fact.id for day in days for fact in day.facts}
    assert told <= {event.id for event in story.events}


def test_no_offer_goes_out_over_the_cap_below_the_floor_or_with_a_merger(story: Lived) -> None:
    offers = [event for event in story.events if event.record == OFFER_SENT]
    discount, floor = POLICY.parameters["discount"], POLICY.parameters["price"]["floor"]
    assert len(offers) > CUSTOMERS / 4
    for offer in offers:
        charges = story.rows[offer.workflow].data["customer"]["monthly_charges"]
        assert offer.data["discount_pct"] <= discount["overrides"].get(offer.workflow, discount["cap_pct"])
        assert charges * (1 - offer.data["discount_pct"] / 100) >= floor or not offer.data["discount_pct"]
        assert offer.data["merges_contracts"] == []
    assert any("discount-cap" in reason for reason in story.summary.rejections), "nothing was ever refused"


def test_the_rows_are_what_the_spine_makes_of_the_history(story: Lived, cluster: Settings) -> None:
    codec = Codec(Registry(cluster.require_registry()), story.app.contracts)
    history = load_workflows(KafkaReader(cluster), codec, story.app, Selection())
    made = {workflow.name: history_row(story.app, workflow) for workflow in history.workflows}
    assert made == {workflow: row.json for workflow, row in story.rows.items()}


def test_offers_that_got_no_reply_expire_after_thirty_days(on_machine: Lived) -> None:
    fired = [event.workflow for event in on_machine.events if event.record == TIMER_FIRED]
    replied = {event.workflow for event in on_machine.events if event.record == CUSTOMER_REPLIED}
    expired = {workflow for workflow, row in on_machine.rows.items() if row.state == "expired"}
    assert expired
    assert sorted(expired) == sorted(fired), "each fired once"
    assert not expired & replied


def test_the_timer_that_the_fold_sets_fires_on_the_event_log_too(on_event_log: Lived) -> None:
    fired = {event.workflow for event in on_event_log.events if event.record == TIMER_FIRED}
    expired = {workflow for workflow, row in on_event_log.rows.items() if row.state == "expired"}
    assert expired == fired != set()


def test_the_state_machine_commits_nothing_out_of_turn_and_the_event_log_does(
    on_event_log: Lived, on_machine: Lived
) -> None:
    assert unlawful(MACHINE, on_machine.app, on_machine.events) == []
    offers = Counter(event.workflow for event in on_event_log.events if event.record == OFFER_SENT)
    assert OFFER_SENT in {event.record for event in unlawful(MACHINE, on_event_log.app, on_event_log.events)}
    assert max(offers.values()) > 1, "somebody got a second offer"


def test_a_person_brings_a_customer_out_of_human_required_and_the_contract_is_sent(
    cluster: Settings, on_machine: Lived, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app, waiting = on_machine.app, sorted(w for w, row in on_machine.rows.items() if row.state == "human_required")
    assert len(waiting) >= 2
    answers = dict(zip(waiting, ("approve", "reject"), strict=False))
    now = on_machine.events[-1].time
    with Publisher(app.name, app.schemas, cluster, source="mara", clock=lambda: now) as publisher:
        for workflow, transition in answers.items():
            version = on_machine.rows[workflow].version
            asked = {"transition": transition, "expected_version": version, "by": "mara", "reason": "we talked"}
            publisher.publish(TRANSITION_REQUESTED, asked, workflow=workflow)
    live(app, cluster, (), LiteLLMProposer())
    rows = rows_of(app, cluster)
    assert [rows[workflow].state for workflow in answers] == ["closed", "expired"]
    assert rows[waiting[0]].data["person"] == {"transition": "approve", "by": "mara"}
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    EffectorRunner(app, app.effectors[0], cluster, lambda: now).run(until_end=True)
    sent = [json.loads(path.read_text()) for path in tmp_path.iterdir()]
    assert sent == [{"customer": waiting[0], "approved_by": "mara"}]


def test_a_table_mined_from_the_event_log_is_taken_by_a_machine_and_tells_of_the_timer(
    cluster: Settings, on_event_log: Lived
) -> None:
    reader, codec = KafkaReader(cluster), Codec(Registry(cluster.require_registry()), on_event_log.app.contracts)
    mined = mine(reader, codec, on_event_log.app)
    names: dict[str, Any] = {}
    exec(compile(table_of(mined), "table.py", "exec"), names)
    timed = replace(names["machine"], timers=MACHINE.timers)
    app = replace(machine_app, name=on_event_log.app.name, machine=timed, effectors=())
    checked = check_spines(reader, codec, app, Selection())
    assert checked.decisions == on_event_log.summary.decisions.total()
    assert checked.agree > checked.decisions / 2
    assert [told for told in mined.to_edit if told.startswith("timer:expiry leads on from offer_sent")]


def test_the_check_of_the_event_log_leaves_nobody_with_an_offer_that_time_has_run_out_on(
    cluster: Settings, on_event_log: Lived
) -> None:
    reader, codec = KafkaReader(cluster), Codec(Registry(cluster.require_registry()), on_event_log.app.contracts)
    app = replace(machine_app, name=on_event_log.app.name, effectors=())
    checked = check_spines(reader, codec, app, Selection())
    assert checked.verdict == "diverged", "offers of the log were out of turn"
    assert set(checked.states) <= ENDS
    assert sum(checked.states.values()) == CUSTOMERS


def test_the_command_plays_the_story_and_ends_with_how_to_approve(cluster: Settings, tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "DRIFTLINE_BOOTSTRAP_SERVERS": cluster.require_bootstrap(),
        "DRIFTLINE_REGISTRY_URL": cluster.require_registry(),
        "DRIFTLINE_KAFKA": json.dumps(cluster.kafka),
        "DRIFTLINE_HOME": str(tmp_path),
        "COLUMNS": "200",
    }
    command = [str(Path(sys.executable).with_name("driftline")), "demo", "--story", "contracts", "--customers", "100"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    said = done.stdout + done.stderr
    assert "committed out of turn, by the table of the state machine: nothing" in said
    assert re.search(r"driftline approve S7-\d+ --app contracts-machine --expected-version \d+", said)
