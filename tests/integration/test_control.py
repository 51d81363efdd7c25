"""The control topic on a real Kafka: set by commands, obeyed by whoever follows it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from driftline.consumers import App
from driftline.consumers.control import (
    ControlReader,
    ControlState,
    control_record,
    make_setting,
    read_controls,
    write_setting,
)
from driftline.consumers.prepare import prepare
from driftline.examples.renewals.app import app as renewals
from driftline.log import AppTopics, Coordinates, KafkaReader, Outgoing, Settings, TopicAdmin, TransactionalWriter
from driftline.log.tail import TopicTail
from driftline.schemas import Codec, KafkaUnreachable, Registry, UsageError
from driftline.schemas.control import Kill, SpineCut, Throttle

pytestmark = pytest.mark.integration

AT = datetime(2026, 11, 21, 5, tzinfo=UTC)
DRIFTLINE = Path(sys.executable).with_name("driftline")

Cli = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def app(cluster: Settings, app_name: str) -> App:
    app = replace(renewals, name=app_name)
    prepare(app, cluster)
    return app


@pytest.fixture
def codec(cluster: Settings, app: App) -> Codec:
    return Codec(Registry(cluster.require_registry()), app.contracts)


@pytest.fixture
def new_reader(cluster: Settings, app: App, codec: Codec) -> Iterator[Callable[[], ControlReader]]:
    made: list[ControlReader] = []

    def make() -> ControlReader:
        made.append(ControlReader(cluster, app.topics, codec))
        return made[-1]

    yield make
    for reader in made:
        reader.close()


Put = Callable[..., Coordinates]


@pytest.fixture
def put(cluster: Settings, app: App, codec: Codec) -> Put:
    def put(value: Kill | Throttle | SpineCut, id_: str = "0") -> Coordinates:
        return write_setting(make_setting(value, "because", "ana", AT), app.topics, cluster, codec, id_)

    return put


def put_raw(settings: Settings, app: App, value: bytes) -> Coordinates:
    (at,) = TransactionalWriter(settings, f"{app.name}-raw").commit([Outgoing(app.topics.control, b"kill", value, 1)])
    return at


def follow(reader: ControlReader, until: Coordinates) -> ControlState:
    """The state at the first look that has seen so much."""
    state = reader.state
    while state.offset is None or state.offset < until.offset:
        state = reader.poll(1.0)
    return state


def test_an_app_that_nobody_has_set_anything_for_is_free(new_reader: Callable[[], ControlReader]) -> None:
    reader = new_reader()
    assert reader.open() == ControlState()
    assert reader.poll() == ControlState()


def test_what_was_set_before_is_in_force_once_the_reader_is_open(
    put: Put, new_reader: Callable[[], ControlReader]
) -> None:
    put(Throttle(decisions_per_minute=30, in_flight_max=8))
    at = put(Kill(killed=True))
    assert new_reader().open() == ControlState(True, 30, 8, at.offset)


def test_every_process_sees_what_is_set_while_it_runs(put: Put, new_reader: Callable[[], ControlReader]) -> None:
    readers = [new_reader(), new_reader()]
    for reader in readers:
        reader.open()
    killed = put(Kill(killed=True))
    assert [follow(reader, killed) for reader in readers] == [ControlState(True, offset=killed.offset)] * 2
    resumed = put(Kill(killed=False))
    assert [follow(reader, resumed) for reader in readers] == [ControlState(False, offset=resumed.offset)] * 2


def test_a_record_that_cannot_be_read_does_not_resume_a_killed_app(
    cluster: Settings, app: App, put: Put, new_reader: Callable[[], ControlReader], caplog: pytest.LogCaptureFixture
) -> None:
    reader = new_reader()
    reader.open()
    killed = put(Kill(killed=True))
    poison = put_raw(cluster, app, b"poison")
    after = put(Throttle(in_flight_max=1))
    assert follow(reader, after) == ControlState(True, None, 1, after.offset)
    assert killed.offset < poison.offset < after.offset
    assert f"{poison} cannot be obeyed" in caplog.text


def test_a_process_does_not_start_where_what_holds_cannot_be_known(
    cluster: Settings, app: App, put: Put, new_reader: Callable[[], ControlReader]
) -> None:
    put_raw(cluster, app, b"poison")
    with pytest.raises(UsageError, match=rf"what holds is unknown; .*`driftline resume {app.name}`"):
        new_reader().open()
    put(Kill(killed=False))
    assert not new_reader().open().killed


def test_an_app_without_a_control_topic_is_told_how_it_gets_one(
    cluster: Settings, app: App, put: Put, new_reader: Callable[[], ControlReader]
) -> None:
    TopicAdmin(cluster).delete([app.topics.control])
    for asked in (new_reader().open, lambda: put(Kill(killed=True))):
        with pytest.raises(UsageError, match=rf"no topic {app.name}\.control; `driftline topics create"):
            asked()


def test_a_setting_that_is_about_to_be_committed_is_not_passed_over(
    cluster: Settings, app: App, codec: Codec
) -> None:
    kill = control_record(make_setting(Kill(killed=True), "", "ana", AT), app.topics, codec, "0")
    with TransactionalWriter(cluster, f"{app.name}-slow").transaction() as transaction:
        transaction.write([kill])
        with pytest.raises(KafkaUnreachable, match="went silent"):
            TopicTail(cluster, app.topics.control, silence_deadline_s=0.5).open()
    (read,) = TopicTail(cluster, app.topics.control).open()
    assert read.value == kill.value


def test_people_who_set_something_at_once_do_not_fence_each_other(
    cluster: Settings, app: App, codec: Codec, put: Put
) -> None:
    with ThreadPoolExecutor(4) as people:
        placed = list(people.map(lambda number: put(Throttle(in_flight_max=number), str(number)), range(1, 5)))
    last = max(at.offset for at in placed)
    assert len({at.offset for at in placed}) == 4
    assert read_controls(KafkaReader(cluster), app.topics, codec).state.offset == last


@pytest.fixture
def cli(cluster: Settings, app: App, tmp_path: Path) -> Cli:
    """Runs `driftline` in a folder with the app, against the session's cluster."""
    (tmp_path / "mine.py").write_text(
        "from dataclasses import replace\nfrom driftline.examples.renewals.app import app\n"
        f"app = replace(app, name={app.name!r})\n"
    )
    (tmp_path / "driftline.toml").write_text(f'[apps]\n{app.name} = "mine:app"\n')
    addresses = {
        "DRIFTLINE_BOOTSTRAP_SERVERS": cluster.require_bootstrap(),
        "DRIFTLINE_REGISTRY_URL": cluster.require_registry(),
        "DRIFTLINE_KAFKA": json.dumps(cluster.kafka),
    }

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [DRIFTLINE, *arguments],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={**os.environ, **addresses, **environment},
            check=False,
            timeout=60,
        )

    return run


def said(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_kill_says_what_holds_and_where_it_was_set(cli: Cli, app: App) -> None:
    line = said(cli("kill", app.name, "--reason", "discounts\nrun away", "--by", "ana"))
    assert line.startswith(f"{app.name}: killed, since {app.name}.control[0]@0 by ana at 20")
    assert line.endswith("Z: discounts run away\n")


def test_a_resumed_app_is_killed_no_longer(cli: Cli, app: App) -> None:
    said(cli("kill", app.name, "--reason", "x"))
    assert said(cli("resume", app.name, "--by", "ana")).startswith(f"{app.name}: not killed, since ")
    assert json.loads(said(cli("control", app.name, "--json")))["killed"] is False


def test_a_limit_that_is_not_named_does_not_hold_any_longer(cli: Cli, app: App) -> None:
    both = said(cli("throttle", app.name, "--decisions-per-minute", "30", "--in-flight", "8"))
    assert both.startswith(f"{app.name}: at most 30 decisions a minute and 8 in flight per process, since ")
    one = said(cli("throttle", app.name, "--in-flight", "2"))
    assert one.startswith(f"{app.name}: at most 2 in flight per process, since ")
    assert said(cli("throttle", app.name, "--off")).startswith(f"{app.name}: no throttle, since ")


def test_what_is_in_force_is_shown_with_its_reason(cli: Cli, app: App) -> None:
    assert said(cli("control", app.name)) == f"{app.name}: not killed\n{app.name}: no throttle\n"
    killed = said(cli("kill", app.name, "--reason", "discounts run away"))
    assert said(cli("control", app.name)) == f"{killed}{app.name}: no throttle\n"


CUT = SpineCut(spine="state-machine", rows_version="1/1", offsets={"1": 7, "0": 12}, machine_hash="abc")


def test_the_spine_of_a_log_is_shown_with_where_it_begins_and_who_said_so(cli: Cli, app: App, put: Put) -> None:
    at = put(CUT)
    shown = said(cli("control", app.name)).splitlines()[-1]
    places = f"{app.name}.events[0]@12, {app.name}.events[1]@7"
    said_so = f"since {at} by ana at 2026-11-21T05:00:00.000Z: because"
    assert shown == f"{app.name}: on the state-machine spine from {places}, {said_so}"
    told = json.loads(said(cli("control", app.name, "--json")))
    assert told["spine"] == "state-machine"
    assert told["settings"]["spine"] == {
        "value": CUT.model_dump(),
        "reason": "because",
        "by": "ana",
        "at": "2026-11-21T05:00:00.000Z",
        "offset": at.offset,
    }


def test_a_spine_that_was_taken_back_is_shown_without_places(cli: Cli, app: App, put: Put) -> None:
    at = put(CUT.model_copy(update={"spine": "event-log"}))
    shown = said(cli("control", app.name)).splitlines()[-1]
    assert shown.startswith(f"{app.name}: on the event-log spine, since {at} by ana")


def test_what_is_in_force_is_json_for_scripts(cli: Cli, app: App) -> None:
    said(cli("throttle", app.name, "--in-flight", "2", "--by", "guard", "--reason", "costs"))
    shown = json.loads(said(cli("control", app.name, "--json")))
    assert shown["settings"]["throttle"].pop("at").startswith("20")
    assert shown == {
        "app": app.name,
        "killed": False,
        "decisions_per_minute": None,
        "in_flight_max": 2,
        "spine": None,
        "offset": 0,
        "settings": {
            "throttle": {
                "value": {"decisions_per_minute": None, "in_flight_max": 2},
                "reason": "costs",
                "by": "guard",
                "offset": 0,
            }
        },
    }


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("kill",), "Missing option '--reason'"),
        (("throttle",), "name a limit, or lift both"),
        (("throttle", "--off", "--in-flight", "1"), "name a limit, or lift both"),
        (("throttle", "--in-flight", "0"), "in_flight_max: input should be greater than or equal to 1"),
        (("throttle", "--decisions-per-minute", "nan"), "decisions_per_minute: input should be"),
    ],
)
def test_what_makes_no_sense_is_refused_and_nothing_is_set(
    cli: Cli, app: App, arguments: tuple[str, ...], why: str
) -> None:
    command, *options = arguments
    done = cli(command, app.name, *options)
    assert (done.returncode, done.stdout) == (2, "")
    assert why in done.stderr
    assert json.loads(said(cli("control", app.name, "--json")))["offset"] is None


def test_imported_decisions_have_nothing_to_control(cli: Cli, cluster: Settings, app_name: str) -> None:
    imported = f"{app_name}-imported"
    TopicAdmin(cluster).ensure(AppTopics(imported).specs(1))
    for arguments in (("kill", imported, "--reason", "x"), ("control", imported)):
        done = cli(*arguments)
        assert done.returncode == 2
        assert f"'{imported}' holds imported decisions and has no code" in done.stderr


def test_a_name_that_nobody_knows_is_told(cli: Cli, app: App) -> None:
    done = cli("resume", "renewls")
    assert done.returncode == 2
    assert f"no app 'renewls' is configured (configured: {app.name})" in done.stderr


def test_a_log_that_does_not_answer_is_the_environments_fault(cli: Cli, app: App) -> None:
    done = cli("kill", app.name, "--reason", "x", DRIFTLINE_REGISTRY_URL="http://127.0.0.1:1")
    assert (done.returncode, done.stdout) == (3, "")
