"""`driftline doctor` on real brokers: a good set-up has nothing to mend, a broken one is told part by part."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType  # type: ignore[attr-defined]
from confluent_kafka.cimpl import NewTopic
from tests.integration.conftest import DECIDER, OPERATOR, REPLAYER, Shut
from typer.testing import CliRunner

from driftline.console import doctor_place
from driftline.console.doctor import Finding, Status, examine, exit_code, findings_data, to_mend
from driftline.console.doctor_findings import Checked
from driftline.console.main import app as command_line
from driftline.consumers import App
from driftline.consumers.prepare import prepare
from driftline.examples.renewals.app import app as renewals
from driftline.log import Settings, TopicAdmin
from driftline.log.inspecting import CLOCK_TOPIC
from driftline.replay.ledger import Ledger
from driftline.schemas import Registry
from driftline.schemas.names import DECISION

pytestmark = pytest.mark.integration

MODULE = """
from dataclasses import replace
from driftline.examples.renewals.app import app as renewals
app = replace(renewals, name={name!r})
"""


@pytest.fixture
def app(app_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> App:
    """The renewals app as a module of the user's, under a name of its own; nothing of it is on the log."""
    (tmp_path / f"doctored_{app_name}.py").write_text(MODULE.format(name=app_name))
    monkeypatch.syspath_prepend(str(tmp_path))
    return replace(renewals, name=app_name)


def settings_of(given: Settings, app: App, home: Path) -> Settings:
    """As the settings that are given, with this app and a home of its own."""
    apps = {app.name: f"doctored_{app.name}:app"}
    return given.model_copy(update={"apps": apps, "home": home / "home"})


def found(settings: Settings, area: str = "") -> list[Finding]:
    return [one for one in examine(settings, list(settings.apps)) if area in ("", one.area)]


def wrong(findings: Sequence[Finding]) -> list[Finding]:
    return [one for one in findings if one.status is not Status.OK]


def create(settings: Settings, name: str, partitions: int, **config: str) -> None:
    admin = AdminClient({"bootstrap.servers": settings.require_bootstrap()})
    admin.create_topics([NewTopic(name, partitions, 1, config=config)])[name].result(15)


def alter(settings: Settings, topic: str, name: str, value: str) -> None:
    admin = AdminClient({"bootstrap.servers": settings.require_bootstrap()})
    entry = ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    admin.incremental_alter_configs([resource])[resource].result(15)


def test_a_good_set_up_has_nothing_to_mend(cluster: Settings, app: App, tmp_path: Path) -> None:
    settings = settings_of(cluster, app, tmp_path)
    prepare(app, settings)
    Ledger(_made(settings.home) / "ledger.sqlite").close()
    findings = found(settings)
    told = {one.area for one in findings}
    assert told == {"app", "broker", "topics", "rights", "registry", "clock", "prices", "disk", "ledger"}
    assert [one for one in wrong(findings) if one.area != "disk"] == []
    assert any("Kafka 4.0 or later" in one.what for one in findings)
    assert any(one.what == f"may decide for {app.name}" for one in findings)


def test_a_look_leaves_topics_and_subjects_as_they_are(cluster: Settings, app: App, tmp_path: Path) -> None:
    settings = settings_of(cluster, app, tmp_path)
    before = TopicAdmin(settings).partitions(), _subjects(settings)
    found(settings)
    after = TopicAdmin(settings).partitions(), _subjects(settings)
    assert after == ({**before[0], CLOCK_TOPIC: 1}, before[1])
    assert not settings.home.exists()


def test_an_app_that_was_never_set_up_is_told_in_a_line_of_topics_and_one_of_subjects_with_one_command(
    cluster: Settings, app: App, tmp_path: Path
) -> None:
    settings = settings_of(cluster, app, tmp_path)
    prepare(replace(app, name="set-up-before"), settings)
    findings = found(settings)
    topics, subjects = [one for one in wrong(findings) if one.area in ("topics", "registry")]
    assert topics.what == f"missing: 5 topics ({app.topics.events}, {app.topics.decisions}, {app.topics.state}, …)"
    count = len({*app.subjects(), (app.topics.decisions, DECISION)})
    assert subjects.what.startswith(f"not registered: {count} subjects (")
    assert {topics.mend, subjects.mend} == {f"run `driftline topics create {app.name}`"}
    assert exit_code(findings) == 1
    prepare(app, settings)
    assert [one for one in wrong(found(settings)) if one.area in ("topics", "registry")] == []


def test_a_topic_of_another_partition_count_is_told(cluster: Settings, app: App, tmp_path: Path) -> None:
    settings = settings_of(cluster, app, tmp_path)
    create(settings, app.topics.events, settings.partitions + 1)
    prepare_rest(app, settings)
    [count] = [one for one in wrong(found(settings, "topics")) if "partition counts" in one.what]
    assert f"{app.topics.events} has {settings.partitions + 1}, not {settings.partitions}" in count.what
    assert app.topics.decisions not in count.what


def test_counts_that_agree_are_mended_in_the_configuration(cluster: Settings, app: App, tmp_path: Path) -> None:
    settings = settings_of(cluster, app, tmp_path)
    prepare(app, settings)
    configured = settings.model_copy(update={"partitions": settings.partitions + 3})
    [count] = [one for one in wrong(found(configured, "topics")) if "partition counts" in one.what]
    assert count.mend == f"set `partitions = {settings.partitions}` in driftline.toml"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("retention.ms", "604800000"),
        ("message.timestamp.type", "LogAppendTime"),
        ("message.timestamp.after.max.ms", "3600000"),
    ],
)
def test_a_wrong_setting_of_a_topic_is_told_with_the_command_that_mends_it(
    cluster: Settings, app: App, tmp_path: Path, name: str, value: str
) -> None:
    settings = settings_of(cluster, app, tmp_path)
    prepare(app, settings)
    alter(settings, app.topics.decisions, name, value)
    [setting] = wrong(found(settings, "topics"))
    assert setting.status is Status.FAIL
    assert f"{app.topics.decisions}: {name} is {value}" in setting.what
    assert f"--entity-name {app.topics.decisions} --add-config {name}=" in setting.mend


def test_a_subject_that_is_gone_is_told_by_its_name(cluster: Settings, app: App, tmp_path: Path) -> None:
    settings = settings_of(cluster, app, tmp_path)
    TopicAdmin(settings).ensure(app.topics.specs(settings.partitions))
    registered = [one for one in app.subjects() if one != (app.topics.decisions, DECISION)]
    for topic, record in registered:
        Registry(settings.require_registry()).ensure(topic, app.contracts.require(record))
    [gone] = [one for one in wrong(found(settings, "registry")) if app.name in one.what]
    assert gone.what == f"not registered: 1 subject ({app.topics.decisions}-{DECISION})"


def test_a_registry_that_is_down_is_told_and_the_rest_is_looked_at(
    cluster: Settings, app: App, tmp_path: Path
) -> None:
    settings = settings_of(cluster, app, tmp_path).model_copy(update={"registry_url": "http://127.0.0.1:9"})
    findings = found(settings)
    [down] = [one for one in findings if one.unreachable]
    assert (down.area, down.status) == ("registry", Status.FAIL)
    assert {"broker", "disk", "ledger"} <= {one.area for one in findings}
    assert exit_code(findings) == 3


def test_a_broker_that_is_down_is_told_once(cluster: Settings, app: App, tmp_path: Path) -> None:
    settings = settings_of(cluster, app, tmp_path).model_copy(update={"bootstrap_servers": "127.0.0.1:9"})
    findings = found(settings)
    assert [one.area for one in findings if one.unreachable] == ["broker"]
    assert not {"topics", "rights"} & {one.area for one in findings}
    assert exit_code(findings) == 3


@pytest.mark.parametrize(
    ("off_s", "status"), [(0, Status.OK), (20, Status.WARN), (-20, Status.WARN), (600, Status.FAIL)]
)
def test_a_clock_that_is_off_is_told(cluster: Settings, off_s: int, status: Status) -> None:
    [clock] = doctor_place.clock(Checked(cluster, {}), lambda: datetime.now(UTC) + timedelta(seconds=off_s))
    assert clock.status is status


def test_a_damaged_ledger_is_told_and_kept(cluster: Settings, tmp_path: Path) -> None:
    settings = cluster.model_copy(update={"home": tmp_path})
    path = tmp_path / "ledger.sqlite"
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE answers (key TEXT PRIMARY KEY, answer TEXT)")
        db.executemany("INSERT INTO answers VALUES (?, ?)", [(str(n), "x" * 500) for n in range(200)])
        db.commit()
    whole = path.read_bytes()
    broken = whole[:8192] + bytes(8192) + whole[16384:]
    path.write_bytes(broken)
    [ledger] = doctor_place.ledger(Checked(settings, {}))
    assert ledger.status is Status.FAIL
    assert "keep it" in ledger.mend
    assert path.read_bytes() == broken


def test_a_model_without_a_price_is_told(cluster: Settings) -> None:
    priced, unpriced = (
        replace(renewals, boundaries=[replace(one, proposer=model) for one in renewals.boundaries])
        for model in ("openai/gpt-4o", "openai/nobody-knows-it")
    )
    [known] = doctor_place.prices(Checked(cluster, {"renewals": priced}))
    [unknown] = doctor_place.prices(Checked(cluster, {"renewals": unpriced}))
    assert (known.status, unknown.status) == (Status.OK, Status.WARN)
    assert "price map" in known.what
    assert "openai/nobody-knows-it" in unknown.what


def nights(cluster: Settings, folder: Path, text: str, named: str = "renewals", reference: str = "") -> list[Finding]:
    """What is found of a night's file."""
    path = folder / "nightly.toml"
    path.write_text(f"[apps.{named}]\n{text}")
    settings = cluster.model_copy(update={"apps": {named: reference} if reference else {}})
    return [one for one in examine(settings, [], path) if one.area == "nightly"]


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the provider of the models that are named here; nothing is asked of it."""
    monkeypatch.setenv("OPENAI_API_KEY", "not-a-key")


KNOWN, NOBODY = "openai/gpt-4o", "openai/nobody-knows-it"
BUDGET = "[apps.renewals.limits]\nbudget_usd = 1.0\n"
UNPRICED = "[apps.renewals.limits]\nallow_unpriced = true\nmax_calls = 10\n"


@pytest.mark.parametrize(
    ("text", "refused"),
    [
        (f"[[apps.renewals.candidates]]\nmodel = '{KNOWN}'\n{BUDGET}", []),
        (f"[[apps.renewals.candidates]]\nmodel = '{NOBODY}'\n{BUDGET}", [NOBODY]),
        (f"[[apps.renewals.candidates]]\nmodel = '{NOBODY}'\n", [NOBODY]),
        (f"[[apps.renewals.candidates]]\nmodel = '{NOBODY}'\n{UNPRICED}", []),
        (f"[[apps.renewals.candidates]]\nmodel = '{NOBODY}'\n{BUDGET}allow_unpriced = true\n", [NOBODY]),
        (f"[apps.renewals.incumbent]\nmodel = '{NOBODY}'\n{BUDGET}", [NOBODY]),
        ("[[apps.renewals.candidates]]\nmodel = 'sim/renewals-inflated'\n", []),
    ],
    ids=["known", "of a candidate", "without a budget", "allowed", "no budget holds", "of the incumbent", "free"],
)
def test_a_night_that_would_be_refused_for_an_unknown_price_is_told_by_day(
    cluster: Settings, tmp_path: Path, key: None, text: str, refused: list[str]
) -> None:
    findings = nights(cluster, tmp_path, text)
    assert [one.what.partition("the price of ")[2].split()[0] for one in wrong(findings)] == refused
    assert {one.status for one in findings} == ({Status.FAIL} if refused else {Status.OK})
    assert all(str(tmp_path / "nightly.toml") in one.mend for one in wrong(findings))


def test_a_candidate_of_the_logs_model_is_priced_as_the_apps_own(
    cluster: Settings, tmp_path: Path, key: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = MODULE + f"app = replace(app, boundaries=[replace(b, proposer={NOBODY!r}) for b in app.boundaries])"
    (tmp_path / "nightly_unpriced.py").write_text(module.format(name="renewals"))
    monkeypatch.syspath_prepend(str(tmp_path))
    text = "[[apps.renewals.candidates]]\nparameters = { temperature = 0.1 }\n"
    [told] = nights(cluster, tmp_path, text, reference="nightly_unpriced:app")
    assert told.status is Status.FAIL
    assert NOBODY in told.what


def test_a_file_of_nights_that_cannot_be_read_is_told(cluster: Settings, tmp_path: Path) -> None:
    [told] = nights(cluster, tmp_path, "sampel = 3")
    assert (told.status, "sampel" in told.what) == (Status.FAIL, True)
    assert [one.area for one in examine(cluster, []) if one.area == "nightly"] == []


def test_the_command_looks_at_the_nights_that_the_nightly_command_would_run(
    cluster: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DRIFTLINE_BOOTSTRAP_SERVERS", cluster.require_bootstrap())
    monkeypatch.setenv("DRIFTLINE_REGISTRY_URL", cluster.require_registry())
    (tmp_path / "nightly.toml").write_text("[apps.renewals]\nsampel = 3\n")
    (tmp_path / "nights.toml").write_text("[apps.renewals]\nsample = 3\n")
    told = {}
    for words in ([], ["--nightly", "nights.toml"]):
        printed = CliRunner().invoke(command_line, ["doctor", "--json", *words]).stdout
        told[len(words)] = [row["status"] for row in json.loads(printed)["findings"] if row["area"] == "nightly"]
    assert told == {0: ["fail"], 2: ["ok"]}


def test_the_json_is_what_the_lines_say(cluster: Settings, app: App, tmp_path: Path) -> None:
    findings = found(settings_of(cluster, app, tmp_path))
    data = json.loads(json.dumps(findings_data(findings)))
    assert [row["status"] for row in data["findings"]] == [one.status.value for one in findings]
    assert data["exit_code"] == exit_code(findings) == 1
    assert data["mend"] == to_mend(findings)


def test_a_principal_is_told_what_it_may_not_do(shut: Shut, app: App, tmp_path: Path) -> None:
    prepare(app, settings_of(shut.settings(OPERATOR), app, tmp_path))
    [nothing] = [one for one in rights(shut, REPLAYER, app, tmp_path) if "replay" in one.what]
    assert nothing.status is Status.FAIL
    assert f"on {app.topics.decisions}" in nothing.what
    assert nothing.mend == f"let an administrator run `deploy/acl/replay-user.sh PRINCIPAL {app.name}`"
    shut.allow("replay-user.sh", f"User:{REPLAYER}", app.name)
    told = rights(shut, REPLAYER, app, tmp_path)
    assert len(told) == 2, told
    may, may_not = told
    assert (may.status, may.what) == (Status.OK, "may replay")
    assert may_not.status is Status.WARN
    assert f"WRITE on {app.topics.events}" in may_not.what
    assert f"WRITE on transactional id driftline.{app.name}." in may_not.what
    assert f"READ on {app.topics.events}" not in may_not.what


def test_the_principal_of_an_app_may_decide(shut: Shut, app: App, tmp_path: Path) -> None:
    prepare(app, settings_of(shut.settings(OPERATOR), app, tmp_path))
    shut.allow("app-user.sh", f"User:{DECIDER}", app.name)
    deciding = rights(shut, DECIDER, app, tmp_path)[1]
    assert (deciding.status, deciding.what) == (Status.OK, f"may decide for {app.name}")


def rights(shut: Shut, user: str, app: App, home: Path) -> list[Finding]:
    return found(settings_of(shut.settings(user), app, home), "rights")


def prepare_rest(app: App, settings: Settings) -> None:
    """All topics but the one that is there with another partition count."""
    rest = [spec for spec in app.topics.specs(settings.partitions) if spec.name != app.topics.events]
    TopicAdmin(settings).ensure(rest)


def _made(home: Path) -> Path:
    home.mkdir()
    return home


def _subjects(settings: Settings) -> list[str]:
    return Registry(settings.require_registry()).subjects()
