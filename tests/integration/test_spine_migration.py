"""`driftline migrate plan | seed | check | cut-over` on a real Kafka, as commands, over a log of the example app."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from driftline.consumers import App
from driftline.consumers.models import LiteLLMProposer
from driftline.consumers.prepare import prepare
from driftline.consumers.rows import Rows
from driftline.consumers.runtime import Runtime
from driftline.examples.renewals.app import app as renewals
from driftline.log import KafkaReader, Outgoing, Settings, TransactionalWriter
from driftline.producers import Publisher
from driftline.producers.renewals import synthetic_renewals
from driftline.schemas import Codec, Registry

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore:.*using the `ReadOnly` qualifier:UserWarning"),
]

WORKFLOWS = 150
DRIFTLINE = Path(sys.executable).with_name("driftline")


@pytest.fixture
def place(cluster: Settings, app_name: str, tmp_path: Path) -> Path:
    """A folder with the app on both spines, its log decided on the event log, and a command line that finds it."""
    app = replace(renewals, name=app_name)
    decide(app, cluster)
    (tmp_path / "driftline.toml").write_text(
        f'bootstrap_servers = "{cluster.bootstrap_servers}"\nregistry_url = "{cluster.registry_url}"\n'
        f'partitions = {cluster.partitions}\n[apps]\n{app_name} = "before:app"\n'
    )
    (tmp_path / "before.py").write_text(
        "from dataclasses import replace\nfrom driftline.examples.renewals.app import app as renewals\n"
        f'app = replace(renewals, name="{app_name}")\n'
    )
    (tmp_path / "after.py").write_text(
        "from dataclasses import replace\nfrom before import app as before\nfrom table import machine\n"
        'app = replace(before, spine="state-machine", machine=machine)\n'
    )
    return tmp_path


def decide(app: App, settings: Settings) -> None:
    prepare(app, settings)
    with Publisher(app.name, app.schemas, settings, source="crm") as publisher:
        for event in synthetic_renewals(WORKFLOWS, 3):
            publisher.publish_event(event)
    Runtime(app, settings, LiteLLMProposer(), lambda: datetime.now(UTC), seed=3).run(until_end=True)


def driftline(place: Path, *arguments: str, code: int = 0) -> str:
    return said(place, *arguments, code=code)[0]


def said(place: Path, *arguments: str, code: int = 0) -> tuple[str, str]:
    """What a command wrote to stdout and to stderr."""
    command = [str(DRIFTLINE), *arguments]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == code, (arguments, done.stdout, done.stderr)
    return done.stdout, done.stderr


def as_json(place: Path, *arguments: str, code: int = 0) -> Any:
    return json.loads(driftline(place, *arguments, "--json", code=code))


def test_a_mined_table_takes_every_decision_that_it_was_mined_from_and_the_log_is_cut_over_by_it(
    place: Path, app_name: str
) -> None:
    mined = as_json(place, "migrate", "plan", app_name, "--out", "table.py")
    assert mined["workflows"] == WORKFLOWS
    assert sum(edge["times"] for edge in mined["edges"] if edge["source"] == "init") == WORKFLOWS
    assert "renewal_due" in mined["states"]
    assert "renewal_due" not in mined["terminal"]
    checked = as_json(place, "migrate", "check", "after:app")
    assert (checked["verdict"], checked["decisions"]) == ("equivalent", WORKFLOWS)
    seeded = as_json(place, "migrate", "seed", "after:app")
    assert (seeded["workflows"], sum(seeded["states"].values())) == (WORKFLOWS, WORKFLOWS)
    first = driftline(place, "migrate", "cut-over", "after:app", "--by", "mara")
    assert seeded["hash"] in first
    assert "already" in driftline(place, "migrate", "cut-over", "after:app", "--by", "mara")
    again = as_json(place, "migrate", "seed", "after:app", "--check")
    assert (again["differing"], again["hash"], again["recorded_hash"]) == ([], seeded["hash"], seeded["hash"])
    assert "stateDiagram-v2" in driftline(place, "state", "diagram", "after:app")


def test_a_log_that_has_moved_on_is_seeded_and_checked_up_to_its_cut_over_and_not_advised_or_planned(
    cluster: Settings, place: Path, app_name: str
) -> None:
    driftline(place, "migrate", "plan", app_name, "--out", "table.py")
    reopen_churned(place / "table.py")
    seeded = as_json(place, "migrate", "seed", "after:app")
    checked = as_json(place, "migrate", "check", "after:app")
    driftline(place, "migrate", "cut-over", "after:app", "--by", "mara")
    workflow, version = churned(app_name, cluster)
    asked = ("--app", "after:app", "--expected-version", str(version), "--by", "mara", "--wait-s", "0")
    driftline(place, "approve", workflow, *asked)
    driftline(place, "run", "after:app", "--until-end")
    again = as_json(place, "migrate", "seed", "after:app", "--check")
    assert (again["hash"], again["recorded_hash"], again["differing"]) == (seeded["hash"], seeded["hash"], [])
    until = as_json(place, "migrate", "check", "after:app")
    assert until == {**checked, "until": seeded["offsets"]}
    advice = as_json(place, "migrate", "advise", app_name)
    assert (advice["conclusion"], advice["since"]["by"], advice["alert"]) == ("moved", "mara", None)
    _, err = said(place, "migrate", "plan", app_name, code=2)
    assert f"{app_name} is already on the state-machine spine, since {app_name}.events[0]@" in err


def test_rows_are_built_up_to_an_offset_and_the_same_log_gives_the_same_hash(place: Path, app_name: str) -> None:
    driftline(place, "migrate", "plan", app_name, "--out", "table.py")
    whole = as_json(place, "migrate", "seed", "after:app")
    early = 10
    part = as_json(place, "migrate", "seed", "after:app", "--offsets", f"0:{early}")
    assert part["offsets"] == {**whole["offsets"], "0": early}
    assert 0 < part["workflows"] < WORKFLOWS
    _, err = said(place, "migrate", "seed", "after:app", "--offsets", f"0:{whole['offsets']['0'] + 1}", code=2)
    assert "where the app stands" in err
    driftline(place, "migrate", "cut-over", "after:app", "--by", "mara")
    assert as_json(place, "migrate", "seed", "after:app", "--offsets", f"0:{early}") == part
    _, err = said(place, "migrate", "seed", "after:app", "--offsets", f"0:{early}", "--check", code=2)
    assert "leave --offsets out" in err


def test_a_row_that_was_lost_since_the_cut_over_is_named(cluster: Settings, place: Path, app_name: str) -> None:
    driftline(place, "migrate", "plan", app_name, "--out", "table.py")
    driftline(place, "migrate", "cut-over", "after:app", "--by", "mara")
    lost, _ = churned(app_name, cluster)
    writer = TransactionalWriter(cluster, f"{app_name}-vandal")
    topic = f"{app_name}.state"
    writer.commit([Outgoing(topic, lost.encode(), None, 1, (), part) for part in range(cluster.partitions)])
    writer.close()
    assert as_json(place, "migrate", "seed", "after:app", "--check", code=1)["differing"] == [lost]


def test_a_log_that_began_on_the_state_machine_has_nothing_to_seed_or_check(place: Path, app_name: str) -> None:
    driftline(place, "migrate", "plan", app_name, "--out", "table.py")
    name = f"{app_name}-born"
    (place / "born.py").write_text(
        f'from dataclasses import replace\nfrom after import app as after\napp = replace(after, name="{name}")\n'
    )
    driftline(place, "topics", "create", "born:app")
    driftline(place, "run", "born:app", "--until-end")
    for command in ("seed", "check"):
        _, err = said(place, "migrate", command, "born:app", code=2)
        assert f"{name} is already on the state-machine spine, since its first start (by driftline.{name}.0" in err
        assert "it never was an event log" in err


def reopen_churned(table: Path) -> None:
    """Let a person bring a churned contract back: an edge that no history has."""
    lines = table.read_text().splitlines()
    at = lines.index("    transitions=[")
    ends = lines[at - 1].replace('"contract_churned", ', "").replace(', "contract_churned"', "")
    edge = 'Transition("contract_churned", "approve", "contract_renewed"),'
    table.write_text("\n".join([*lines[: at - 1], ends, lines[at], edge, *lines[at + 1 :]]))


def churned(app_name: str, settings: Settings) -> tuple[str, int]:
    """A workflow whose contract churned, and the version of its row."""
    app = replace(renewals, name=app_name)
    codec, reader = Codec(Registry(settings.require_registry()), app.contracts), KafkaReader(settings)
    for partition in range(settings.partitions):
        restored = Rows.restored(app.fold, reader.read_to_latest(app.topics.state, partition), codec)
        for key, row in restored.items():
            if row.state == "contract_churned":
                return key.decode(), row.version
    raise AssertionError("no contract churned")


def test_a_seed_of_an_event_log_is_compared_with_nothing_and_says_why(place: Path, app_name: str) -> None:
    driftline(place, "migrate", "plan", app_name, "--out", "table.py")
    out, err = said(place, "migrate", "seed", "after:app", "--check", code=2)
    assert out == ""
    assert f"the log of {app_name} is an event log: {app_name}.state holds no rows of a state machine" in err


def test_a_table_that_forbids_what_happened_is_told_decision_by_decision(place: Path, app_name: str) -> None:
    driftline(place, "migrate", "plan", app_name, "--out", "table.py")
    text = (place / "table.py").read_text()
    churned = next(line for line in text.splitlines() if "ContractChurned" in line)
    kept = text.replace(churned, "").replace('"contract_churned", ', "").replace(', "contract_churned"', "")
    (place / "table.py").write_text(kept)
    checked = as_json(place, "migrate", "check", "after:app", code=1)
    assert {one["proposed"] for one in checked["differences"]} == {"driftline.renewals.ContractChurned"}
    assert all(one["why"] == "illegal_transition" for one in checked["differences"])
    assert checked["decisions"] - checked["agree"] == sum(one["decisions"] for one in checked["differences"])


def test_the_plan_names_what_it_leaves_out_of_the_table_and_what_must_be_edited(
    cluster: Settings, place: Path, app_name: str
) -> None:
    contracts = replace(renewals, name=app_name)
    with Publisher(contracts.name, contracts.schemas, cluster, source="crm") as publisher:
        [event] = list(synthetic_renewals(1, 3))
        publisher.publish_event(replace(event, workflow="asked-twice", id="first"))
        publisher.publish_event(replace(event, workflow="asked-twice", id="second"))
    said = driftline(place, "migrate", "plan", app_name, "--out", "table.py")
    assert "renewal_due → renewal_due: driftline.renewals.RenewalDue, 1 times" in said
    assert "left out: rare" in said
    assert "to edit" not in said
    driftline(place, "migrate", "check", "after:app")
