"""Replay on the real broker: it reads an app's log, leaves no trace on it, and alerts once."""

from __future__ import annotations

import asyncio
import json
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace as changed
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient
from tests.integration.traces import ends, groups, positions
from typer.testing import CliRunner

from driftline.console.main import app as command_line
from driftline.console.replay_run import LEDGER, ReplayDone, ReplayRequest, run_replay
from driftline.console.segment_import import import_segment
from driftline.consumers import App, Prompt
from driftline.consumers.artifacts import read_artifacts
from driftline.consumers.prepare import prepare
from driftline.consumers.runtime import Runtime
from driftline.examples import renewals as example
from driftline.examples.renewals.app import app as renewals
from driftline.log import ALERTS, CommitRefused, KafkaReader, Outgoing, Settings, TopicAdmin, TransactionalWriter
from driftline.producers import Publisher
from driftline.producers.renewals import synthetic_renewals
from driftline.replay import (
    AppSubject,
    Candidate,
    ForcedReplay,
    Ledger,
    Limits,
    ReplayWriter,
    Segment,
    Selection,
    export_segment,
    load_segment,
    publish_alerts,
    read_segment_file,
)
from driftline.replay.alerting import TRANSACTIONAL_ID_PREFIX
from driftline.replay.arms import Incumbent
from driftline.replay.following import DecisionTail
from driftline.replay.shadow import ShadowReplay
from driftline.replay.testing import OwnModels
from driftline.schemas import (
    Alert,
    ArmRef,
    Codec,
    DivergenceAlert,
    EnvironmentDriftAlert,
    Event,
    Registry,
    ReplayCompleted,
    UsageError,
)

pytestmark = pytest.mark.integration

NAME = "replayed"
CUSTOMERS = 150
NOON = datetime(2026, 10, 1, 12, tzinfo=UTC)
COMMAND = """
import sys
from driftline.console.main import main
sys.argv = ["driftline", *sys.argv[1:]]
main()
"""
ANSWERED = 40
HELD = f"""
import asyncio, dataclasses, faulthandler, itertools
faulthandler.enable()
from driftline.consumers.models.gateway import OWN_PROVIDERS

asked, simulator = itertools.count(1), OWN_PROVIDERS["sim"]

async def answer(call):
    if next(asked) > {ANSWERED}:
        await asyncio.Event().wait()
    return await simulator.answer(call)

OWN_PROVIDERS["sim"] = dataclasses.replace(simulator, answer=answer)
"""
"""Before `COMMAND`: the simulator answers so many calls and no more, so that the replay cannot come to its end."""


@pytest.fixture(scope="module")
def app(cluster: Settings) -> App:
    """The renewals app under a name of its own, with a history that its runtime decided on the broker."""
    app = changed(renewals, name=NAME)
    prepare(app, cluster)
    with Publisher(app.name, source="crm", schemas=app.schemas, settings=cluster) as publisher:
        for event in synthetic_renewals(CUSTOMERS, seed=5):
            publisher.publish_event(event)
    Runtime(app, cluster, OwnModels(), lambda: NOON, seed=5).run(until_end=True)
    return app


@pytest.fixture(scope="module")
def codec(app: App, cluster: Settings) -> Codec:
    return Codec(Registry(cluster.require_registry()), app.contracts)


@pytest.fixture(scope="module")
def segment(app: App, cluster: Settings, codec: Codec) -> Segment:
    return load_segment(KafkaReader(cluster), codec, app.name, Selection())


@pytest.fixture
def workplace(tmp_path: Path, cluster: Settings, app: App, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder: the app as a module of hers, and the cluster in the environment."""
    module = "from dataclasses import replace\nfrom driftline.examples.renewals.app import app as renewals\n"
    (tmp_path / "my_replayed_app.py").write_text(f"{module}app = replace(renewals, name={app.name!r})\n")
    (tmp_path / "driftline.toml").write_text(f'[apps]\n{app.name} = "my_replayed_app:app"\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("DRIFTLINE_BOOTSTRAP_SERVERS", cluster.require_bootstrap())
    monkeypatch.setenv("DRIFTLINE_REGISTRY_URL", cluster.require_registry())
    monkeypatch.setenv("DRIFTLINE_KAFKA", json.dumps(cluster.kafka))
    monkeypatch.setenv("DRIFTLINE_HOME", str(tmp_path / "home"))
    return tmp_path


def test_a_whole_replay_leaves_no_trace_on_the_app(workplace: Path, cluster: Settings, app: App) -> None:
    """No record, not even an aborted one; no position moved; the app's transactional id is still its own."""
    slot = TransactionalWriter(cluster, f"driftline.{app.name}.0")
    slot.open()
    before, groups_before = (ends(cluster, f"{app.name}."), positions(cluster, app.group)), groups(cluster)
    assert len(before[1]) == cluster.partitions
    v2 = Prompt.from_file(Path(example.__path__[0]) / "prompts" / "v2.md")
    done = run_replay(
        ReplayRequest(app.name, Candidate("sim/renewals-fenced", v2), limits=Limits(read_on=True, concurrency=16))
    )
    assert done.report["verdict"] == "diverged"
    assert done.report["events"] == CUSTOMERS
    assert (ends(cluster, f"{app.name}."), positions(cluster, app.group)) == before
    assert groups(cluster) <= groups_before
    value = f"{app.name} goes on".encode()
    at = slot.commit([Outgoing(app.topics.dead, b"w", value, 1_800_000_000_000, (), 0)])[0]
    slot.close()
    record = KafkaReader(cluster).read_one(at)
    assert record is not None
    assert record.value == value


MODES = {
    "plan": ["plan", "--candidate", "sim/renewals-fenced"],
    "forced": ["--candidate", "sim/renewals-fenced", "--candidate", "sim/renewals-inflated", "--order-seed", "7"],
    "verify": ["--mode", "verify"],
    "free": ["--mode", "free", "--candidate", "sim/renewals-fenced", "--sample", "100"],
    "shadow": ["--mode", "shadow", "--candidate", "sim/renewals-fenced", "--from", "2026-01-01", "--for", "60s"],
    "incumbent": ["--candidate", "sim/renewals-fenced", "--incumbent", "log", "--floor", "2", "--mmd"],
    "shadow beside the incumbent": [
        *("--mode", "shadow", "--candidate", "sim/renewals-fenced", "--incumbent", "sim/renewals"),
        *("--from", "2026-01-01", "--for", "60s"),
    ],
}


@pytest.mark.parametrize("mode", ["incumbent", "free", "shadow"])
def test_a_run_that_another_process_makes_is_refused_and_asks_nothing(mode: str, workplace: Path, app: App) -> None:
    words = ["replay", *MODES[mode], "--app", app.name, "--json"]
    first = CliRunner().invoke(command_line, words)
    run_id = json.loads(first.stdout)["run_id"]
    path = workplace / "home" / LEDGER
    path.unlink()
    with closing(Ledger(path)) as ledger:
        with ledger.asking(run_id):
            command = [sys.executable, "-c", COMMAND, *words]
            refused = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert (refused.returncode, refused.stdout, ledger.stats()) == (2, "", [])
    assert f"run {run_id} is being made by another process" in refused.stderr


@pytest.mark.parametrize("mode", MODES)
def test_no_mode_leaves_a_record_a_position_or_a_group_with_the_app(
    mode: str, workplace: Path, cluster: Settings, app: App
) -> None:
    """The latest offsets count every record there ever was, aborted ones and transaction markers too."""
    before, groups_before = (ends(cluster, f"{app.name}."), positions(cluster, app.group)), groups(cluster)
    command = ["replay", *MODES[mode], "--app", app.name, "--json"]
    ran = CliRunner().invoke(command_line, command)
    assert ran.exit_code in {0, 1, 4}, (ran.stderr, ran.exception)
    assert json.loads(ran.stdout), "it did its work"
    assert (ends(cluster, f"{app.name}."), positions(cluster, app.group)) == before
    assert groups(cluster) <= groups_before


def test_a_shadow_judges_what_is_decided_while_it_follows_and_nothing_earlier(
    app: App, cluster: Settings, codec: Codec, tmp_path: Path
) -> None:
    other = changed(app, name="shadowed")
    prepare(other, cluster)
    decide_more(other, cluster, first=0, count=20)
    tail, ledger = DecisionTail(cluster, codec, other.name, Selection()), Ledger(tmp_path / "l.sqlite")
    tail.open()
    decide_more(other, cluster, first=20, count=60)
    subject, candidate = AppSubject(other, read_artifacts(KafkaReader(cluster), codec)), Candidate("sim/renewals")
    given = ("s", other.name, tail, subject, candidate, OwnModels(), ledger, Limits(calls_max=60), lambda: NOON)
    result = asyncio.run(ShadowReplay(*given, follow_s=60.0).run())
    tail.close()
    ledger.close()
    assert (result.stopped_because, len(result.pairs)) == ("budget_ended", 60)
    assert {pair.logged.decision.workflow for pair in result.pairs} == {e.workflow for e in more_events(20, 60)}


def decide_more(app: App, cluster: Settings, first: int, count: int) -> None:
    with Publisher(app.name, source="crm", schemas=app.schemas, settings=cluster) as publisher:
        for event in more_events(first, count):
            publisher.publish_event(event)
    Runtime(app, cluster, OwnModels(), lambda: NOON, seed=5).run(until_end=True)


def more_events(first: int, count: int) -> list[Event]:
    return list(synthetic_renewals(100, seed=9))[first : first + count]


def test_a_segment_file_becomes_the_history_of_an_app_once_and_whole(
    workplace: Path, cluster: Settings, codec: Codec, segment: Segment, app_name: str
) -> None:
    export_segment(segment, {}, workplace / "all.parquet")
    assert import_segment(workplace / "all.parquet", app_name) == CUSTOMERS
    again = load_segment(KafkaReader(cluster), codec, app_name, Selection())
    assert [one.decision for one in again.decisions] == [one.decision for one in segment.decisions]
    with pytest.raises(UsageError, match="two histories are never mixed"):
        import_segment(workplace / "all.parquet", app_name)


def test_the_history_of_another_app_is_refused_before_anything_is_there_and_the_right_one_is_taken(
    workplace: Path, cluster: Settings, segment: Segment, app_name: str
) -> None:
    module = "from dataclasses import replace\nfrom driftline.examples.renewals.app import app as renewals\n"
    (workplace / f"{app_name}.py").write_text(f"{module}app = replace(renewals, name={app_name!r})\n")
    foreign = [
        changed(logged, decision=logged.decision.model_copy(update={"boundary": name}))
        for name, logged in zip(("analysis", "review"), segment.decisions, strict=False)
    ]
    export_segment(changed(segment, decisions=[*foreign, *segment.decisions[2:]]), {}, workplace / "foreign.parquet")
    said = rf"decisions of analysis, review, and app {app_name} has no such boundary \(it has renewal\)"
    with pytest.raises(UsageError, match=said):
        import_segment(workplace / "foreign.parquet", f"{app_name}:app")
    assert [topic for topic in TopicAdmin(cluster).partitions() if topic.startswith(app_name)] == []
    export_segment(segment, {}, workplace / "own.parquet")
    assert import_segment(workplace / "own.parquet", f"{app_name}:app") == CUSTOMERS


def test_a_segment_that_reaches_to_what_was_deleted_says_from_where_history_exists(
    workplace: Path, cluster: Settings, codec: Codec, segment: Segment, app_name: str
) -> None:
    export_segment(segment, {}, workplace / "all.parquet")
    import_segment(workplace / "all.parquet", app_name)
    reader, topic = KafkaReader(cluster), f"{app_name}.decisions"
    admin = AdminClient({"bootstrap.servers": cluster.require_bootstrap()})
    for future in admin.delete_records([TopicPartition(topic, 0, 12)]).values():
        future.result(60)
    left = load_segment(reader, codec, app_name, Selection())
    assert left.history_from == {0: 12}
    late = max(logged.decision.input.event_time for logged in left.decisions)
    assert load_segment(reader, codec, app_name, Selection(start=late)).history_from == {}
    with pytest.raises(UsageError, match=r"holds \[0\] offsets 12 to .*; what lay below 12 has been deleted"):
        load_segment(reader, codec, app_name, Selection(offsets={0: (3, 20)}))


def test_the_writer_of_a_replay_is_refused_the_apps_topics(cluster: Settings, app: App) -> None:
    before = ends(cluster, app.name)
    writer = TransactionalWriter(cluster, f"{TRANSACTIONAL_ID_PREFIX}.refused")
    try:
        with pytest.raises(UsageError, match="replay may not write to"):
            ReplayWriter(writer).commit([Outgoing(app.topics.events, b"w", b"", 1_800_000_000_000)])
    finally:
        writer.close()
    assert ends(cluster, app.name) == before


MODELS = {f"driftline.{one.__name__}": one for one in (ReplayCompleted, DivergenceAlert, EnvironmentDriftAlert)}


def alerts_on(cluster: Settings, codec: Codec, run_id: str) -> list[Alert]:
    reader = KafkaReader(cluster)
    decoded = [codec.decode(record.value) for record in reader.read(reader.span(ALERTS))]
    return [MODELS[one.name].model_validate(one.value) for one in decoded if one.value["run_id"] == run_id]


@pytest.fixture
def diverged(workplace: Path, app: App) -> ReplayDone:
    return run_replay(ReplayRequest(app.name, Candidate("sim/renewals-fenced"), limits=Limits(order_seed=1)))


def test_alerts_come_back_from_the_broker_as_the_run_told_them(
    diverged: ReplayDone, cluster: Settings, codec: Codec
) -> None:
    completed, divergence = alerts_on(cluster, codec, diverged.report["run_id"])
    assert isinstance(completed, ReplayCompleted)
    assert isinstance(divergence, DivergenceAlert)
    assert (completed.verdict, completed.paid_calls) == ("diverged", diverged.report["paid_calls"])
    assert completed.candidate.model == "sim/renewals-fenced"
    assert divergence.e_value == diverged.report["e_value"] >= 20
    example = divergence.examples[0]
    assert example.startswith(f"{NAME}.decisions[")
    assert set(diverged.alerts) == {"ReplayCompleted", "DivergenceAlert"}


def test_the_same_run_again_is_answered_by_the_ledger_and_alerts_no_more(
    diverged: ReplayDone, app: App, cluster: Settings, codec: Codec
) -> None:
    run_id = diverged.report["run_id"]
    before = alerts_on(cluster, codec, run_id)
    again = run_replay(ReplayRequest(app.name, Candidate("sim/renewals-fenced"), limits=Limits(order_seed=1)))
    assert {**again.report, "timings": None} == {**diverged.report, "timings": None}
    paid = again.report["paid_calls"] + again.report["overspent_calls"]
    assert again.report["timings"]["from_ledger"] == paid
    assert again.alerts == diverged.alerts
    assert alerts_on(cluster, codec, run_id) == before


def test_a_run_without_divergence_raises_no_divergence_alert(
    workplace: Path, app: App, cluster: Settings, codec: Codec
) -> None:
    done = run_replay(ReplayRequest(app.name, Candidate("sim/renewals")))
    assert done.report["verdict"] != "diverged"
    (alert,) = alerts_on(cluster, codec, done.report["run_id"])
    assert isinstance(alert, ReplayCompleted)
    assert list(done.alerts) == ["ReplayCompleted"]


def test_an_incumbent_that_moved_is_alerted_as_environment_and_says_nothing_of_the_candidate(
    workplace: Path, app: App, cluster: Settings, codec: Codec
) -> None:
    """Today the incumbent answers in code fences, and so does the candidate."""
    fenced = Candidate("sim/renewals-fenced", incumbent=True)
    request = ReplayRequest(app.name, Candidate("sim/renewals-fenced"), incumbent=Incumbent(fenced))
    done = run_replay(request)
    completed, drift = alerts_on(cluster, codec, done.report["run_id"])
    assert isinstance(completed, ReplayCompleted)
    assert isinstance(drift, EnvironmentDriftAlert)
    assert (completed.verdict, drift.incumbent.model) == ("diverged", "sim/renewals-fenced")
    assert drift.e_value >= 20
    assert (done.report["attribution"]["cause"], set(done.alerts)) == (
        "environment",
        {"ReplayCompleted", "EnvironmentDriftAlert"},
    )


def test_of_two_processes_that_publish_for_one_run_one_is_told_and_the_alert_is_there_once(
    cluster: Settings, codec: Codec, app: App
) -> None:
    arm = ArmRef(model="acme/one", prompt_hash="p", verifier_version="v")
    told = ReplayCompleted(
        run_id="twice",
        app=app.name,
        mode="forced",
        baseline=arm,
        candidate=arm,
        verdict="equivalent",
        stopped_because="equivalent",
        alpha=0.05,
        delta=0.05,
        events=1,
        compared=1,
        paid_calls=1,
        overspent_calls=0,
        cost_usd=None,
        coverage=1.0,
        e_value=1.0,
        strata=(),
        completed_at=NOON,
    )
    reader = KafkaReader(cluster)
    early, late = (TransactionalWriter(cluster, f"{TRANSACTIONAL_ID_PREFIX}.twice") for _ in range(2))
    early.open()
    placed = publish_alerts(ReplayWriter(late), reader, codec, [told])
    with pytest.raises(CommitRefused):
        ReplayWriter(early).commit([Outgoing(ALERTS, b"k", b"v", 1_800_000_000_000)])
    assert publish_alerts(ReplayWriter(late), reader, codec, [told]) == placed
    for writer in (early, late):
        writer.close()
    assert alerts_on(cluster, codec, "twice") == [told]


def test_times_and_offsets_select_on_the_broker_what_they_select_of_the_whole(
    app: App, cluster: Settings, codec: Codec, segment: Segment
) -> None:
    reader = KafkaReader(cluster)
    assert len(segment.decisions) == CUSTOMERS
    start = segment.decisions[40].decision.input.event_time
    stop = segment.decisions[90].decision.input.event_time + timedelta(milliseconds=1)
    for selection in (
        Selection(start=start, stop=stop),
        Selection(offsets={0: (3, 30)}),
        Selection(start=start, streams=frozenset({"renewal-due.two-year"})),
        Selection(keys=frozenset({segment.decisions[7].decision.workflow})),
    ):
        found = load_segment(reader, codec, app.name, selection).decisions
        assert found == [one for one in segment.decisions if selection.takes(one.decision, one.at)]
        assert found


def test_an_empty_segment_says_what_the_broker_holds(app: App, cluster: Settings, codec: Codec) -> None:
    with pytest.raises(UsageError, match=rf"{app.name}\.decisions holds \[0\] offsets 0 to \d+.* from 2026-07-01T"):
        load_segment(KafkaReader(cluster), codec, app.name, Selection(start=NOON + timedelta(days=900)))


def test_a_segment_travels_in_a_file_and_its_replay_is_that_of_the_broker(
    app: App, cluster: Settings, codec: Codec, segment: Segment, tmp_path: Path
) -> None:
    artifacts = read_artifacts(KafkaReader(cluster), codec)
    export_segment(segment, artifacts, tmp_path / "week.parquet")
    again, carried = read_segment_file(tmp_path / "week.parquet", app.name, Selection())
    assert again.decisions == segment.decisions
    results = []
    for number, (one, known) in enumerate(((segment, artifacts), (again, carried))):
        ledger = Ledger(tmp_path / f"{number}.sqlite")
        candidate = Candidate("sim/renewals-inflated")
        subject = AppSubject(app, known)
        replay = ForcedReplay("r", one, subject, candidate, OwnModels(), ledger, Limits(), lambda: NOON)
        results.append(asyncio.run(replay.run()))
        ledger.close()
    assert results[0] == results[1]


@pytest.fixture
def command(workplace: Path) -> Iterator[list[str]]:
    yield [sys.executable, "-c", COMMAND, "replay", "--app", NAME, "--json"]


@pytest.mark.parametrize(
    ("candidate", "code"), [("sim/renewals-fenced", 1), ("sim/renewals-nowhere", 2), ("sim/renewals", None)]
)
def test_the_exit_code_is_the_verdict(candidate: str, code: int | None, command: list[str]) -> None:
    ran = subprocess.run(
        [*command, "--candidate", candidate], capture_output=True, text=True, timeout=90, check=False
    )
    assert ran.returncode == code if code is not None else ran.returncode in {0, 4}, ran.stderr
    assert "Traceback" not in ran.stderr
    assert "never retrieved" not in ran.stderr


def wait_for_answers(running: subprocess.Popen[str], home: Path) -> None:
    """Wait until the ledger holds what was paid, or the command has ended."""
    ledger = home / "ledger.sqlite"
    while running.poll() is None and not (ledger.exists() and answers_in(ledger)):
        time.sleep(0.05)


def answers_in(ledger: Path) -> int:
    with closing(sqlite3.connect(f"file:{ledger}?mode=ro", uri=True, timeout=60)) as opened:
        if not opened.execute("SELECT 1 FROM sqlite_master WHERE name = 'answers'").fetchall():
            return 0
        return int(opened.execute("SELECT count(*) FROM answers").fetchone()[0])


def ended(running: subprocess.Popen[str]) -> tuple[str, str]:
    """What a command has printed; one that does not end is made to show where it stands."""
    try:
        return running.communicate(timeout=90)
    except subprocess.TimeoutExpired:
        running.send_signal(signal.SIGABRT)
        pytest.fail("".join(running.communicate(timeout=60)))


def test_ctrl_c_ends_with_130_and_the_same_command_goes_on_from_the_ledger(
    command: list[str], workplace: Path
) -> None:
    python, option, program, *words = [*command, "--candidate", "sim/renewals"]
    held = [python, option, HELD + program, *words]
    running = subprocess.Popen(held, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for_answers(running, workplace / "home")
    running.send_signal(signal.SIGINT)
    _, stderr = ended(running)
    assert running.returncode == 130, stderr
    assert "Traceback" not in stderr
    assert "never retrieved" not in stderr
    paid = answers_in(workplace / "home" / "ledger.sqlite")
    again = subprocess.run([python, option, program, *words], capture_output=True, text=True, timeout=90, check=False)
    assert again.returncode in {0, 4}, again.stderr
    assert json.loads(again.stdout)["timings"]["from_ledger"] == paid > 0


def test_ctrl_c_ends_a_shadow_with_its_verdict_so_far(workplace: Path) -> None:
    follow = [sys.executable, "-c", COMMAND, "replay", "--app", NAME, "--json", "--mode", "shadow"]
    follow += ["--candidate", "sim/renewals", "--from", "2026-01-01", "--alpha", "0.0001", "--delta", "0.001"]
    running = subprocess.Popen(follow, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for_answers(running, workplace / "home")
    running.send_signal(signal.SIGINT)
    stdout, stderr = running.communicate(timeout=60)
    assert running.returncode == 130, stderr
    report = json.loads(stdout)
    assert (report["mode"], report["stopped_because"], report["verdict"]) == ("shadow", "interrupted", "inconclusive")
    assert report["paid_calls"] > 0


def test_a_shadow_is_diagnosed_as_any_run_is(workplace: Path) -> None:
    command = [sys.executable, "-c", COMMAND]
    follow = ["replay", "--app", NAME, "--json", *MODES["shadow"]]
    followed = subprocess.run([*command, *follow], capture_output=True, text=True, timeout=120, check=False)
    assert followed.returncode == 1, followed.stderr
    run_id = json.loads(followed.stdout)["run_id"]
    asked = [*command, "diagnose", run_id, "--json", "--alpha", "0.2"]
    diagnosed = subprocess.run(asked, capture_output=True, text=True, timeout=120, check=False)
    assert diagnosed.returncode in {1, 4}, diagnosed.stderr
    assert json.loads(diagnosed.stdout)["run_id"] == run_id
