"""Effectors on a real Kafka: effects at least once under one key, reports exactly once.

The file is also the program that is killed: `python test_effectors.py APP BOOTSTRAP REGISTRY FOLDER POINT`.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import stamina

from driftline.consumers import App
from driftline.consumers.control import make_setting, write_setting
from driftline.consumers.effector_runner import EffectorRunner, EffectorSummary
from driftline.consumers.effectors import Act, EffectFailed, Effector, EffectResult
from driftline.consumers.prepare import prepare
from driftline.examples.renewals.app import OUTCOMES, RENEWED
from driftline.examples.renewals.app import app as renewals
from driftline.examples.renewals.crm import FILE_VARIABLE, record_renewal
from driftline.log import KafkaReader, Outgoing, Settings, TransactionalWriter, to_event, to_outgoing
from driftline.schemas import Codec, ContractError, EnvironmentUnreachable, Event, Registry, UsageError
from driftline.schemas.control import Kill
from driftline.schemas.ids import derive_id
from driftline.schemas.names import EFFECT_REPORTED

pytestmark = pytest.mark.integration

NOW = datetime(2026, 11, 21, tzinfo=UTC)
TIME = datetime(2026, 7, 1, tzinfo=UTC)
DRIFTLINE = Path(sys.executable).with_name("driftline")
EVENTS = 8
NEVER = "never:0"


@dataclass
class Place:
    """An app of its own on the log."""

    app: App
    settings: Settings

    @property
    def codec(self) -> Codec:
        return Codec(Registry(self.settings.require_registry()), self.app.contracts)

    def put(self, *outgoing: Outgoing) -> None:
        TransactionalWriter(self.settings, f"{self.app.name}-test").commit(outgoing)

    def commit(self, number: int, *, record: str = OUTCOMES[0], source: str = "", first: int = 0) -> list[Event]:
        """Events as the app's boundary commits them, or as another source puts them onto the topic."""
        data = {"term_months": 12, "rationale": "as it stands"}
        events = [
            Event(
                id=f"e{n}",
                type=record,
                source=source or f"driftline:{self.app.name}/renewal",
                workflow=f"c-{n}",
                time=TIME + timedelta(hours=n),
                record=record,
                data=data if record == OUTCOMES[0] else {"rationale": "let go"},
                causation_id=f"due-{n}",
                traceparent="00-trace-01",
            )
            for n in range(first, first + number)
        ]
        codec = self.codec
        self.put(*(to_outgoing(e, self.app.topics.events, codec, n % 2) for n, e in enumerate(events)))
        return events

    def reports(self) -> list[tuple[int, Event]]:
        """What effectors have reported, with the partition."""
        reader, codec, source = KafkaReader(self.settings), self.codec, f"driftline:{self.app.name}/effector/"
        return [
            (r.at.partition, to_event(r, codec))
            for r in reader.read(reader.span(self.app.topics.events))
            if dict(r.headers).get("ce_source", b"").startswith(source.encode())
        ]

    def runner(self, act: Act | None = None, slot: int = 0, result: str = EFFECT_REPORTED) -> EffectorRunner:
        """A runner whose clock runs fast: a transaction holds two records."""
        effector = self.app.effectors[0]
        if act is not None:
            effector = replace(effector, act=act, result=result)
        seconds = itertools.count()
        app = replace(self.app, effectors=[effector])
        return EffectorRunner(app, effector, self.settings, lambda: NOW, slot, clock=lambda: next(seconds))

    def run(self, act: Act | None = None, **options: Any) -> EffectorSummary:
        return self.runner(act, **options).run(until_end=True)

    def set_kill(self, killed: bool, id_: str) -> None:
        setting = make_setting(Kill(killed=killed), "", "ana", NOW)
        write_setting(setting, self.app.topics, self.settings, self.codec, id_)


class Noting:
    """An effector that notes the keys it is called with."""

    def __init__(self, before: Callable[[int], None] = lambda call: None) -> None:
        self.keys: list[str] = []
        self._before = before

    def __call__(self, event: Event, idempotency_key: str) -> Mapping[str, Any]:
        self._before(len(self.keys) + 1)
        self.keys.append(idempotency_key)
        return {"customer": event.workflow}


def make_place(name: str, settings: Settings) -> Place:
    app = replace(renewals, name=name)
    prepare(app, settings)
    return Place(app, settings)


@pytest.fixture
def place(cluster: Settings, app_name: str) -> Place:
    return make_place(app_name, cluster)


@pytest.fixture(autouse=True)
def no_back_off() -> Iterator[None]:
    with stamina.set_testing(True, attempts=3):
        yield


def ids(events: Sequence[Event]) -> list[str]:
    return [event.id for event in events]


def test_what_a_boundary_has_committed_is_acted_on_and_reported_beside_it(place: Place) -> None:
    events, act = place.commit(EVENTS), Noting()
    summary = place.run(act)
    assert Counter(act.keys) == Counter(ids(events))
    assert (summary.done, summary.failed, summary.calls) == (EVENTS, 0, EVENTS)
    by_cause = {report.causation_id: (partition, report) for partition, report in place.reports()}
    assert len(place.reports()) == EVENTS
    for number, event in enumerate(events):
        partition, report = by_cause[event.id]
        assert partition == number % 2
        assert report.id == derive_id(place.app.name, "crm", event.id)
        assert (report.workflow, report.time, report.traceparent) == (event.workflow, event.time, event.traceparent)
        assert (report.data["status"], json.loads(report.data["data"])) == ("done", {"customer": event.workflow})


def test_events_of_a_partition_are_acted_on_in_their_order(place: Place) -> None:
    place.commit(EVENTS)
    act = Noting()
    place.run(act)
    for partition in (0, 1):
        numbers = [int(key[1:]) for key in act.keys if int(key[1:]) % 2 == partition]
        assert numbers == sorted(numbers)


def test_a_second_run_finds_nothing_to_do(place: Place) -> None:
    place.commit(EVENTS)
    place.run(Noting())
    assert place.run(act := Noting()).done == 0
    assert act.keys == []
    assert len(place.reports()) == EVENTS


@pytest.mark.parametrize("source", ["crm", "driftline:other/renewal", "driftline:{}/effector/crm", "driftline:{}"])
def test_a_fact_that_no_boundary_of_the_app_committed_is_never_acted_on(place: Place, source: str) -> None:
    place.commit(2, source=source.format(place.app.name))
    summary = place.run(act := Noting())
    assert (act.keys, summary.skipped) == ([], 2)


def test_a_type_that_the_effector_does_not_name_is_passed_over(place: Place) -> None:
    place.commit(2, record=OUTCOMES[3])
    summary = place.run(act := Noting())
    assert (act.keys, summary.skipped) == ([], 2)


def test_what_does_not_decode_is_passed_over(place: Place) -> None:
    (event,) = place.commit(1)
    good = to_outgoing(event, place.app.topics.events, place.codec, 0)
    place.put(replace(good, value=b"poison"), replace(good, headers=()), replace(good, key=None))
    place.commit(1, first=1)
    place.run(act := Noting())
    assert sorted(act.keys) == ["e0", "e1"]
    assert len(place.reports()) == 2


def test_an_effect_that_fails_for_good_is_a_fact_and_the_rest_goes_on(place: Place) -> None:
    events = place.commit(4)

    def refuse(call: int) -> None:
        if call == 1:
            act.keys.append("refused")
            raise EffectFailed("the CRM knows no such customer")

    act = Noting(refuse)
    summary = place.run(act)
    assert (summary.done, summary.failed) == (3, 1)
    reports = [report.data for _, report in place.reports()]
    assert Counter(report["status"] for report in reports) == Counter(done=3, failed=1)
    assert [r["detail"] for r in reports if r["status"] == "failed"] == ["the CRM knows no such customer"]
    assert {report.causation_id for _, report in place.reports()} == set(ids(events))


def test_an_outside_world_that_stays_down_costs_no_effect(place: Place) -> None:
    events = place.commit(EVENTS)

    def close(call: int) -> None:
        if call == 4:
            raise EffectFailed("the CRM is down", retryable=True)

    first = Noting(close)
    with pytest.raises(EnvironmentUnreachable, match=r"effector crm gave up on .* the CRM is down"):
        place.run(first)
    assert len(place.reports()) == 3
    place.run(second := Noting())
    assert Counter(first.keys + second.keys) == Counter(ids(events))
    assert len(place.reports()) == EVENTS


def test_a_fault_of_the_effector_stops_it_and_the_event_waits(place: Place) -> None:
    place.commit(1)
    with pytest.raises(UsageError, match=r"effector crm fails on .* e0 of c-0: ZeroDivisionError"):
        place.run(lambda event, key: {"x": 1 / 0})
    assert place.reports() == []
    assert place.run(Noting()).done == 1


@pytest.fixture
def own_record(place: Place, tmp_path: Path) -> Place:
    """The app with a record of its own for what its effector did."""
    folder = tmp_path / "schemas"
    shutil.copytree(renewals.schemas, folder)
    fields = [{"name": "number", "type": "int", "doc": "Line in the CRM."}]
    schema = {"type": "record", "name": "shop.Written", "doc": "It is in the CRM.", "fields": fields}
    (folder / "shop.Written").mkdir()
    (folder / "shop.Written" / "1.avsc").write_text(json.dumps(schema))
    effector = replace(place.app.effectors[0], result="shop.Written")
    app = replace(place.app, schemas=folder, effectors=[effector])
    prepare(app, place.settings)
    return Place(app, place.settings)


def test_an_effector_reports_in_a_record_of_its_own(own_record: Place) -> None:
    own_record.commit(1)
    own_record.run(lambda event, key: EffectResult({"number": 7}), result="shop.Written")
    ((_, report),) = own_record.reports()
    assert (report.type, report.record, report.data) == ("shop.Written", "shop.Written", {"number": 7})


@pytest.mark.parametrize("returned", [{}, {"number": "seven"}, {"number": 3.7}])
def test_a_report_that_does_not_fit_its_record_is_told_and_the_event_waits(
    own_record: Place, returned: Mapping[str, Any]
) -> None:
    own_record.commit(1)
    with pytest.raises(ContractError, match=r"does not fit shop\.Written"):
        own_record.run(lambda event, key: returned, result="shop.Written")
    assert own_record.reports() == []
    assert own_record.run(lambda event, key: {"number": 7}, result="shop.Written").done == 1


def test_the_effectors_of_a_killed_app_stand_still(place: Place) -> None:
    place.commit(EVENTS)
    place.set_kill(True, "one")
    summary = place.run(act := Noting())
    assert (act.keys, summary.killed) == ([], True)


def test_a_killed_app_that_is_resumed_has_its_effects_done_by_the_same_process(place: Place) -> None:
    place.commit(EVENTS)
    place.set_kill(True, "one")
    resumed = threading.Event()
    early: list[int] = []
    act = Noting(lambda call: None if resumed.is_set() else early.append(call))
    runner = place.runner(act)
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(runner.run, stop=lambda: runner.summary.done == EVENTS)
        resumed.set()
        place.set_kill(False, "two")
        summary = running.result(120)
    assert (summary.done, summary.killed, early) == (EVENTS, False, [])


def test_a_kill_while_effects_are_done_keeps_what_was_done_and_leaves_the_rest(place: Place) -> None:
    place.commit(EVENTS)

    def kill(call: int) -> None:
        if call == 2:
            place.set_kill(True, "one")
            while not runner._control.poll(1.0).killed:  # the next look of the runner's sees it
                pass

    runner = place.runner(act := Noting(kill))
    summary = runner.run(until_end=True)
    assert (summary.killed, summary.done, len(act.keys)) == (True, 2, 2)
    place.set_kill(False, "two")
    place.run(rest := Noting())
    assert len(rest.keys) == EVENTS - 2
    assert len(place.reports()) == EVENTS


def test_two_processes_share_the_work_and_report_nothing_twice(place: Place) -> None:
    acts = (Noting(), Noting())
    runners = [place.runner(act, slot) for slot, act in enumerate(acts)]

    def finished() -> bool:
        return sum(runner.summary.done for runner in runners) >= 2 * EVENTS

    with ThreadPoolExecutor(2) as threads:
        running = [threads.submit(runner.run, stop=finished) for runner in runners]
        events = place.commit(EVENTS) + place.commit(EVENTS, first=EVENTS)
        for one in running:
            one.result(120)
    assert set(acts[0].keys) | set(acts[1].keys) == set(ids(events))
    causes = Counter(report.causation_id for _, report in place.reports())
    assert causes == Counter(ids(events))


def main(app_name: str, bootstrap: str, registry: str, folder: str, point: str) -> None:
    """Run the example's effector to its end, or die at a point."""
    where, _, number = point.partition(":")
    os.environ[FILE_VARIABLE] = f"{folder}/crm.sqlite"
    counts = {"acted": itertools.count(1), "committed": itertools.count(1)}

    def reached(what: str) -> None:
        if what == where and next(counts[what]) == int(number):
            os.kill(os.getpid(), signal.SIGKILL)

    def act(event: Event, idempotency_key: str) -> Mapping[str, Any]:
        with Path(folder, "calls").open("a") as calls:
            calls.write(f"{idempotency_key}\n")
        done = record_renewal(event, idempotency_key)
        reached("acted")
        return done

    settings = Settings(bootstrap_servers=bootstrap, registry_url=registry)
    place = Place(replace(renewals, name=app_name), settings)
    place.runner(act).run(until_end=True, on_commit=lambda summary: reached("committed"))


def start(place: Place, folder: Path, point: str) -> int:
    """Run the program until it ends or is killed; its exit code."""
    where = [place.settings.require_bootstrap(), place.settings.require_registry()]
    done = subprocess.run(
        [sys.executable, str(Path(__file__)), place.app.name, *where, str(folder), point],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode in {0, -signal.SIGKILL}, done.stderr
    return done.returncode


@dataclass(frozen=True)
class Story:
    """Where the process dies, each time that it is started, and whether that repeats an effect."""

    points: Sequence[str]
    repeats: bool


STORIES: Mapping[str, Story] = {
    "after the first effect": Story(["acted:1"], True),
    "within a batch": Story(["acted:4"], True),
    "twice": Story(["acted:3", "acted:2"], True),
    "after a commit": Story(["committed:2"], False),
}


@dataclass
class Survivor:
    """A place whose effector was killed and started again until it came to the end."""

    place: Place
    events: list[Event]
    folder: Path
    unreported: Counter[str]
    """Effects that were done and not reported when the process died."""

    @property
    def calls(self) -> Counter[str]:
        return Counter((self.folder / "calls").read_text().split())


@pytest.fixture(scope="module")
def killed(cluster: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, Future[Survivor]]]:
    """All stories at once: a group waits 10 s for a member that was killed."""
    with ThreadPoolExecutor(len(STORIES)) as pool:
        yield {
            name: pool.submit(_kill_and_finish, f"effects{number}", story, tmp_path_factory.mktemp("crm"), cluster)
            for number, (name, story) in enumerate(STORIES.items())
        }


def _kill_and_finish(app_name: str, story: Story, folder: Path, settings: Settings) -> Survivor:
    place = make_place(app_name, settings)
    events = place.commit(EVENTS)
    survivor = Survivor(place, events, folder, Counter())
    for point in story.points:
        assert start(place, folder, point) == -signal.SIGKILL
        survivor.unreported.update(survivor.calls.keys() - {report.causation_id for _, report in place.reports()})
    assert start(place, folder, NEVER) == 0
    return survivor


@pytest.mark.parametrize("name", STORIES)
def test_a_process_killed_between_effect_and_commit_repeats_the_effect_under_the_same_key(
    killed: Mapping[str, Future[Survivor]], name: str
) -> None:
    survivor = killed[name].result(200)
    assert survivor.calls == Counter(ids(survivor.events)) + survivor.unreported
    assert (survivor.unreported.total() > 0) == STORIES[name].repeats


@pytest.mark.parametrize("name", STORIES)
def test_the_outside_world_absorbs_a_repeated_effect_by_its_key(
    killed: Mapping[str, Future[Survivor]], name: str
) -> None:
    survivor = killed[name].result(200)
    with closing(sqlite3.connect(survivor.folder / "crm.sqlite")) as crm:
        written = crm.execute("SELECT idempotency_key, customer FROM renewals").fetchall()
    assert Counter(written) == Counter((event.id, event.workflow) for event in survivor.events)


@pytest.mark.parametrize("name", STORIES)
def test_a_repeated_effect_is_reported_exactly_once(killed: Mapping[str, Future[Survivor]], name: str) -> None:
    survivor = killed[name].result(200)
    reports = [report for _, report in survivor.place.reports()]
    assert Counter(report.causation_id for report in reports) == Counter(ids(survivor.events))
    repeats = {report.causation_id for report in reports if json.loads(report.data["data"])["repeat"]}
    assert repeats == {id_ for id_, count in survivor.calls.items() if count > 1}


@pytest.fixture
def command(place: Place, tmp_path: Path) -> tuple[list[str], dict[str, Any]]:
    """`driftline effect` of the app, and how it is started."""
    (tmp_path / "mine.py").write_text(
        "from dataclasses import replace\nfrom driftline.examples.renewals.app import app\n"
        f"app = replace(app, name={place.app.name!r})\n"
    )
    addresses = {
        "DRIFTLINE_BOOTSTRAP_SERVERS": place.settings.require_bootstrap(),
        "DRIFTLINE_REGISTRY_URL": place.settings.require_registry(),
        "DRIFTLINE_PARTITIONS": str(place.settings.partitions),
        FILE_VARIABLE: str(tmp_path / "crm.sqlite"),
    }
    started: dict[str, Any] = {"cwd": tmp_path, "env": {**os.environ, **addresses}, "text": True}
    return [str(DRIFTLINE), "effect", "mine:app"], started


def test_the_command_does_what_was_committed_and_ends(place: Place, command: tuple[list[str], Any]) -> None:
    place.commit(EVENTS)
    arguments, started = command
    done = subprocess.run([*arguments, "crm", "--until-end"], capture_output=True, check=False, timeout=60, **started)
    assert (done.returncode, done.stderr) == (0, "")
    line = f"{place.app.name}/crm: {EVENTS} effects done, 0 failed, in {EVENTS} calls and "
    assert done.stdout.startswith(line)
    assert len(place.reports()) == EVENTS


def test_the_command_stops_cleanly_when_it_is_interrupted(place: Place, command: tuple[list[str], Any]) -> None:
    place.commit(EVENTS)
    arguments, started = command
    with subprocess.Popen([*arguments, "crm", "--json"], stdout=subprocess.PIPE, **started) as running:
        while len(place.reports()) < EVENTS:
            assert running.poll() is None
        running.send_signal(signal.SIGINT)
        stdout, _ = running.communicate(timeout=60)
    assert running.returncode == 0
    assert json.loads(stdout)["done"] == EVENTS


def test_the_command_tells_that_the_app_is_killed(place: Place, command: tuple[list[str], Any]) -> None:
    place.set_kill(True, "one")
    arguments, started = command
    done = subprocess.run([*arguments, "crm", "--until-end"], capture_output=True, check=False, timeout=60, **started)
    assert done.returncode == 2
    assert f"{place.app.name} is killed, the rest waits; `driftline resume {place.app.name}`" in done.stderr


def test_an_effector_that_there_is_not_is_told(command: tuple[list[str], Any], place: Place) -> None:
    arguments, started = command
    done = subprocess.run([*arguments, "mail"], capture_output=True, check=False, timeout=60, **started)
    assert done.returncode == 2
    assert f"app {place.app.name} has no effector 'mail' (it has: crm)" in done.stderr


def test_the_example_acts_on_renewals_alone() -> None:
    (crm,) = renewals.effectors
    assert isinstance(crm, Effector)
    assert tuple(crm.on) == RENEWED == OUTCOMES[:3]


if __name__ == "__main__":
    main(*sys.argv[1:])
