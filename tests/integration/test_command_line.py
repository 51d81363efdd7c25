"""The command line as a user meets it: the two commands on recordings, the demo, and bad input."""

from __future__ import annotations

import gzip
import json
import os
import shlex
import subprocess
import sys
from base64 import b64decode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from driftline.log import AppTopics, KafkaReader, Settings, TopicAdmin
from driftline.log.clients import make_producer

pytestmark = pytest.mark.integration

DRIFTLINE = Path(sys.executable).with_name("driftline")
DEAD_ADDRESS = "127.0.0.1:1"
RENEWALS = "driftline.examples.renewals.app:app"
SPEC = """
[streams.sums]
extract = ['= (\\d+)']
normalise = ["strip"]
accept = "equals-reference"
"""

Cli = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def cli(cluster: Settings, tmp_path: Path) -> Cli:
    """Runs `driftline` in an empty folder, against the session's cluster."""
    (tmp_path / "driftline.toml").write_text('[apps]\nrenewals = "driftline.examples.renewals.app:app"\n')

    def run(*arguments: str, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
        settings = {
            "DRIFTLINE_HOME": str(tmp_path / "home"),
            "DRIFTLINE_BOOTSTRAP_SERVERS": cluster.require_bootstrap(),
            "DRIFTLINE_REGISTRY_URL": cluster.require_registry(),
            "DRIFTLINE_KAFKA": json.dumps(cluster.kafka),
        }
        return subprocess.run(
            [DRIFTLINE, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={**os.environ, **settings, **environment},
            check=False,
            timeout=100,
        )

    return run


def recording(answers: Iterator[tuple[str, int, str, str]]) -> list[str]:
    """Lines of a recorded-decision file: (model, event, response, reference)."""
    return [
        json.dumps(
            {
                "set": "made",
                "event_id": f"q{event}",
                "stream": "sums",
                "time": "2026-01-01T00:00:00+00:00",
                "messages": [{"role": "user", "content": f"{event} + {event}?"}],
                "model": model,
                "params": {},
                "replicate": 0,
                "response": response,
                "reference": reference,
            }
        )
        for model, event, response, reference in answers
    ]


def sums(questions: int = 60) -> list[str]:
    """A model that adds well, and a later version that is one off in every third case."""

    def answers() -> Iterator[tuple[str, int, str, str]]:
        for event in range(questions):
            yield "acme/adder-1", event, f"{event} + {event} = {2 * event}", str(2 * event)
            wrong = event % 3 == 0
            yield "acme/adder-2", event, f"the sum = {2 * event + wrong}", str(2 * event)

    return recording(answers())


@pytest.fixture
def sums_file(tmp_path: Path) -> Path:
    path = tmp_path / "sums.jsonl.gz"
    with gzip.open(path, "wt") as file:
        file.write("\n".join(sums()) + "\n")
    (tmp_path / "SPEC.toml").write_text(SPEC)
    return path


def test_imported_history_is_replayed_against_a_recorded_candidate(cli: Cli, sums_file: Path, app_name: str) -> None:
    importing = ("import", "recorded", "sums.jsonl.gz", "--app", app_name, "--model", "acme/adder-1", "--verifier")
    imported = cli(*importing, "SPEC.toml", "--json")
    assert imported.returncode == 0, imported.stderr
    assert json.loads(imported.stdout)["verdicts"] == {"accepted": 60}

    replayed = cli("replay", "--app", app_name, "--candidate", "recorded/sums.jsonl.gz#acme/adder-2", "--json")
    assert replayed.returncode == 1, replayed.stderr
    report = json.loads(replayed.stdout)
    assert report["verdict"] == "diverged"
    assert report["levels"]["verdict"]["change"] == pytest.approx(-1 / 3)
    assert report["paid_calls"] < 60
    assert report["examples"][0]["at"].startswith(f"{app_name}.decisions[")

    alerts = json.loads(cli("alerts", "--app", app_name, "--json").stdout)
    assert [alert["kind"] for alert in alerts] == ["ReplayCompleted", "DivergenceAlert"]
    rows = json.loads(cli("sql", "SELECT count(*) AS flips FROM flips", "--json").stdout)
    assert rows == [{"flips": 20}]


def test_the_same_model_again_is_not_diverged(cli: Cli, sums_file: Path, app_name: str) -> None:
    model = "acme/adder-1"
    cli("import", "recorded", "sums.jsonl.gz", "--app", app_name, "--model", model, "--verifier", "SPEC.toml")
    replayed = cli("replay", "--app", app_name, "--candidate", f"recorded/sums.jsonl.gz#{model}", "--json")
    assert replayed.returncode in {0, 4}, replayed.stderr
    assert json.loads(replayed.stdout)["levels"]["bytes"]["mismatch"] == 0


def test_the_same_replay_again_pays_nothing_and_raises_no_second_alert(
    cli: Cli, sums_file: Path, app_name: str
) -> None:
    model = "acme/adder-1"
    cli("import", "recorded", "sums.jsonl.gz", "--app", app_name, "--model", model, "--verifier", "SPEC.toml")
    replay = ("replay", "--app", app_name, "--candidate", "recorded/sums.jsonl.gz#acme/adder-2", "--json")
    first, second = (json.loads(cli(*replay).stdout) for _ in range(2))
    assert (first.pop("timings")["from_ledger"], second.pop("timings")["from_ledger"]) == (0, 60)
    assert first == second
    assert len(json.loads(cli("alerts", "--app", app_name, "--json").stdout)) == 2


def test_a_malformed_line_17_stops_the_import_before_anything_is_written(
    cli: Cli, cluster: Settings, tmp_path: Path, app_name: str
) -> None:
    lines = sums()
    lines[16] = lines[16].replace('"messages"', '"massages"')
    (tmp_path / "bad.jsonl").write_text("\n".join(lines))
    (tmp_path / "SPEC.toml").write_text(SPEC)
    model = "acme/adder-1"
    done = cli("import", "recorded", "bad.jsonl", "--app", app_name, "--model", model, "--verifier", "SPEC.toml")
    assert (done.returncode, done.stdout) == (2, "")
    assert "bad.jsonl:17: messages" in done.stderr
    assert f"{app_name}.events" not in TopicAdmin(cluster).partitions()


def test_events_from_standard_input_are_decided_and_shown(cli: Cli, cluster: Settings) -> None:
    from driftline.producers.renewals import synthetic_renewals

    lines = [
        json.dumps({"workflow": e.workflow, "time": e.time.isoformat(), "type": e.type, "data": dict(e.data)})
        for e in synthetic_renewals(40, seed=3)
    ]
    created = cli("topics", "create", "renewals")
    assert created.returncode == 0, created.stderr
    published = cli("publish", "renewals", stdin="\n".join(lines))
    assert published.returncode == 0, published.stderr
    done = cli("run", "renewals", "--until-end", "--json")
    assert done.returncode == 0, done.stderr
    assert sum(json.loads(done.stdout)["decisions"].values()) == 40

    reader = KafkaReader(cluster)
    first = next(iter(reader.read(reader.span("renewals.decisions"))))
    shown = json.loads(cli("show", str(first.at)).stdout)
    assert shown["value"]["app"] == "renewals"
    assert shown["value"]["model_requested"] == "sim/renewals"
    beyond = cli("show", "renewals.decisions[0]@999999")
    assert (beyond.returncode, "no committed record lies at" in beyond.stderr) == (2, True)


BAD_INPUT = {
    "a wrong bootstrap address": (
        ("topics", "list"),
        {"DRIFTLINE_BOOTSTRAP_SERVERS": DEAD_ADDRESS},
        3,
        ("no Kafka answers at 127.0.0.1:1", "driftline kafka start"),
    ),
    "a registry that is down": (
        ("run", "renewals", "--until-end"),
        {"DRIFTLINE_REGISTRY_URL": f"http://{DEAD_ADDRESS}"},
        3,
        ("no schema registry answers at http://127.0.0.1:1", "driftline registry start"),
    ),
    "an unknown app": (("run", "nosuch"), {}, 2, ("no app 'nosuch'", "driftline.toml")),
    "an app whose module is missing": (("run", "no.such.module:app"), {}, 2, ("no.such.module",)),
    "a model without a provider": (
        ("replay", "--app", "renewals", "--candidate", "gpt4"),
        {},
        2,
        ("'gpt4' names no model", "provider/name"),
    ),
    "a missing recording": (
        ("import", "recorded", "none.jsonl", "--app", "a", "--model", "m/x", "--verifier", "SPEC.toml"),
        {},
        2,
        ("none.jsonl",),
    ),
    "a verifier file with a bad regex": (
        ("import", "recorded", "sums.jsonl.gz", "--app", "a", "--model", "acme/adder-1", "--verifier", "BAD.toml"),
        {},
        2,
        ("BAD.toml", "extract", "boxed("),
    ),
    "a model that the recording does not hold": (
        ("import", "recorded", "sums.jsonl.gz", "--app", "a", "--model", "acme/none", "--verifier", "SPEC.toml"),
        {},
        2,
        ("acme/none", "acme/adder-1"),
    ),
    "a prompt file that is not there": (
        ("replay", "--app", "renewals", "--prompt", "none.md"),
        {},
        2,
        ("none.md",),
    ),
    "coordinates of another form": (("show", "renewals"), {}, 2, ("topic[partition]@offset",)),
    "a home that cannot be written": (
        ("kafka", "start"),
        {"DRIFTLINE_HOME": "/dev/null/home"},
        3,
        ("cannot write to /dev/null/home", "DRIFTLINE_HOME"),
    ),
    "one partition in two ranges": (
        ("replay", "--app", "renewals", "--candidate", "sim/renewals", "--offsets", "0:1-2", "--offsets", "0:5-6"),
        {},
        2,
        ("partition 0 twice",),
    ),
    "a verifier spec for an app that is code": (
        ("replay", "--app", "renewals", "--candidate", "sim/renewals", "--verifier", "none.toml"),
        {},
        2,
        ("renewals is code", "--verifier"),
    ),
    "a segment file that is not there": (
        ("replay", "--app", "renewals", "--candidate", "sim/renewals", "--segment", "none.parquet"),
        {},
        2,
        ("none.parquet", "driftline segment export"),
    ),
}


@pytest.mark.parametrize(
    ("arguments", "environment", "code", "said"),
    BAD_INPUT.values(),
    ids=[name.replace(" ", "-") for name in BAD_INPUT],
)
def test_bad_input_is_one_line_that_says_what_where_and_what_to_do(
    cli: Cli,
    sums_file: Path,
    tmp_path: Path,
    arguments: tuple[str, ...],
    environment: dict[str, str],
    code: int,
    said: tuple[str, ...],
) -> None:
    (tmp_path / "BAD.toml").write_text("[streams.sums]\nextract = ['boxed(']\naccept = 'non-empty'\n")
    done = cli(*arguments, **environment)
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith("driftline: ")
    assert done.stderr.count("\n") == 1
    assert all(part in done.stderr for part in said), done.stderr


def test_an_event_that_does_not_fit_its_schema_names_the_line_and_the_field(cli: Cli) -> None:
    cli("topics", "create", "renewals")
    line = json.dumps({"workflow": "c1", "time": "2026-07-01T00:00:00Z", "data": {"customer_id": 7}})
    done = cli("publish", "renewals", "--record", "driftline.renewals.RenewalDue", stdin=line)
    assert done.returncode == 2
    assert "<stdin>:1" in done.stderr
    assert "customer_id" in done.stderr


def test_an_unknown_simulator_version_is_said_once_before_anything_is_asked(cli: Cli) -> None:
    segment = str(Path(__file__).parents[2] / "examples/driftline/examples/renewals/segment.parquet")
    done = cli("replay", "--app", "renewals", "--candidate", "sim/nosuch", "--segment", segment)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "sim/renewals-inflated" in done.stderr


def test_the_bundled_segment_is_replayed_with_no_broker_at_all(cli: Cli, tmp_path: Path) -> None:
    segment = str(Path(__file__).parents[2] / "examples/driftline/examples/renewals/segment.parquet")
    dead = {"DRIFTLINE_BOOTSTRAP_SERVERS": DEAD_ADDRESS, "DRIFTLINE_REGISTRY_URL": f"http://{DEAD_ADDRESS}"}
    replay = ("replay", "--app", "renewals", "--candidate", "sim/renewals-inflated", "--segment", segment, "--json")
    done = cli(*replay, **dead)
    assert done.returncode == 1, done.stderr
    assert json.loads(done.stdout)["verdict"] == "diverged"


def test_the_verdict_survives_a_reader_that_leaves(tmp_path: Path) -> None:
    segment = Path(__file__).parents[2] / "examples/driftline/examples/renewals/segment.parquet"

    def exit_code(candidate: str) -> int:
        replay = f"{DRIFTLINE} replay --app {RENEWALS} --candidate {candidate} --segment {segment}"
        done = subprocess.run(
            ["bash", "-c", f"{replay} | true; exit ${{PIPESTATUS[0]}}"],
            cwd=tmp_path,
            env={**os.environ, "DRIFTLINE_HOME": str(tmp_path / "home")},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stderr == ""
        return done.returncode

    assert exit_code("sim/renewals-inflated") == 1
    assert exit_code("sim/renewals-reworded") in {0, 4}


STRICT = """
from dataclasses import replace
from driftline.examples.renewals.app import app as example

boundary = example.boundaries[0]
policy = replace(boundary.verifiers[0], text="[discount]\\ncap_pct = 15\\n[restructure]\\nfloor_share = 0.6\\n")
app = replace(example, boundaries=[replace(boundary, verifiers=[policy])])
"""


def test_a_stricter_policy_makes_another_run(cli: Cli, tmp_path: Path) -> None:
    """Else the second verdict would overwrite the first, and its alert would be taken for one already raised."""
    (tmp_path / "strict.py").write_text(STRICT)
    segment = str(Path(__file__).parents[2] / "examples/driftline/examples/renewals/segment.parquet")
    replay = ("replay", "--candidate", "sim/renewals-inflated", "--segment", segment, "--json", "--app")
    runs = [json.loads(cli(*replay, name).stdout)["run_id"] for name in ("renewals", "strict:app")]
    assert len(set(runs)) == 2


def test_a_segment_of_an_imported_recording_is_replayed_with_no_broker(
    cli: Cli, sums_file: Path, app_name: str
) -> None:
    model = "acme/adder-1"
    cli("import", "recorded", "sums.jsonl.gz", "--app", app_name, "--model", model, "--verifier", "SPEC.toml")
    exported = cli("segment", "export", "sums.parquet", "--app", app_name)
    assert exported.returncode == 0, exported.stderr
    candidate = "recorded/sums.jsonl.gz#acme/adder-2"
    replay = ("replay", "--app", app_name, "--candidate", candidate, "--segment", "sums.parquet")
    done = cli(*replay, DRIFTLINE_BOOTSTRAP_SERVERS=DEAD_ADDRESS)
    assert done.returncode == 1, done.stderr
    assert "accepted 100.0% → 66.7%" in done.stdout


def test_the_demo_ends_on_a_verdict_where_no_kafka_can_be_had(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "driftline.toml").unlink()
    none = {"PATH": str(tmp_path), "DRIFTLINE_BOOTSTRAP_SERVERS": "", "DRIFTLINE_ARTIFACTS": str(tmp_path / "none")}
    done = cli("demo", **none)
    assert done.returncode == 0, done.stderr
    assert "no Kafka to be had" in done.stdout
    assert "DIVERGED" in done.stdout
    assert "/4" not in done.stdout
    head, replay, sql, start = (shlex.split(line) for line in done.stdout.splitlines()[-4:])
    assert head == ["next:"]
    assert cli(*replay[1:], **none).returncode in {0, 1, 4}
    assert cli(*sql[1:], **none).returncode == 0
    assert start[1:] == ["kafka", "start"]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., str]]:
    """Runs `driftline demo` on a local Kafka of its own, as `make demo` does."""
    tmp_path = tmp_path_factory.mktemp("demo")
    environment = {**os.environ, "DRIFTLINE_HOME": str(tmp_path / "home")}
    environment = {name: value for name, value in environment.items() if name != "DRIFTLINE_BOOTSTRAP_SERVERS"}

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [DRIFTLINE, *arguments], capture_output=True, text=True, cwd=tmp_path, env=environment, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    try:
        yield lambda *arguments: run("demo", *arguments)
    finally:
        run("registry", "stop")
        run("kafka", "stop")


@pytest.mark.timeout(400)
def test_the_demo_tells_the_whole_story_and_can_be_repeated(demo: Callable[..., str]) -> None:
    for story in (demo("--customers", "500"), demo("--customers", "500")):
        assert "500 decisions" in story
        assert "replay the last week" in story
        assert "ReplayCompleted on driftline.alerts[0]@" in story
        assert "example 1: " in story
        assert "next:" in story


@pytest.mark.timeout(400)
def test_the_demo_of_the_real_telco_customers(demo: Callable[..., str], recordings: Path) -> None:
    story = demo("--customers", "500", "--telco", str(recordings / "telco-customer-churn.csv"))
    assert "500 contracts come due" in story
    assert "500 decisions" in story
    assert "ReplayCompleted on driftline.alerts[0]@" in story


def test_a_mistyped_app_gets_no_topics(cli: Cli, cluster: Settings) -> None:
    done = cli("publish", "renewls", "--record", "driftline.renewals.RenewalDue", stdin="{}")
    assert done.returncode == 2
    assert "no app 'renewls' is configured (configured: renewals)" in done.stderr
    assert "renewls.events" not in TopicAdmin(cluster).partitions()


def test_a_recording_is_not_imported_into_an_app_that_is_code(
    cli: Cli, cluster: Settings, sums_file: Path, tmp_path: Path, app_name: str
) -> None:
    (tmp_path / "driftline.toml").write_text(f'[apps]\n{app_name} = "driftline.examples.renewals.app:app"\n')
    importing = ("import", "recorded", "sums.jsonl.gz", "--app", app_name, "--model", "acme/adder-1", "--verifier")
    done = cli(*importing, "SPEC.toml")
    assert done.returncode == 2
    assert f"{app_name!r} is an app with code of its own" in done.stderr
    assert "another name" in done.stderr
    assert f"{app_name}.events" not in TopicAdmin(cluster).partitions()


def test_records_that_others_wrote_are_shown_as_they_lie_there(cli: Cli, cluster: Settings, app_name: str) -> None:
    topics = AppTopics(app_name)
    TopicAdmin(cluster).ensure(topics.specs(1))
    producer = make_producer(cluster, {})
    headers: list[tuple[str, Any]] = [("none", None), ("bytes", b"\xff"), ("driftline_reason", b"not_wire_format")]
    producer.produce(topics.dead, b"no avro\xff", b"\xfe", partition=0, headers=headers)
    producer.produce(topics.dead, None, b"k", partition=0)
    assert producer.flush(30) == 0
    odd, empty = (cli("show", f"{topics.dead}[0]@{offset}") for offset in range(2))
    assert odd.returncode == 0, odd.stderr
    shown = json.loads(odd.stdout)
    assert shown["undecodable"].startswith("not_wire_format: ")
    assert b64decode(shown["value"]["base64"]) == b"no avro\xff"
    assert shown["key"] == {"base64": "/g=="}
    assert shown["headers"] == {"none": None, "bytes": {"base64": "/w=="}, "driftline_reason": "not_wire_format"}
    assert json.loads(empty.stdout)["undecodable"].startswith("no_value: ")
    assert json.loads(empty.stdout)["value"] is None
    listed = json.loads(cli("dead", app_name, "--json").stdout)
    assert listed["reasons"] == {"not_wire_format": 1, "": 1}
    assert [(one["at"], one["reason"], one["source"]) for one in listed["records"]] == [
        (f"{topics.dead}[0]@0", "not_wire_format", ""),
        (f"{topics.dead}[0]@1", "", ""),
    ]
