"""JSON lines onto the real log: all of them, or none."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from driftline.log import AppTopics, KafkaReader, Settings, TopicAdmin, to_event
from driftline.producers import LineForm, PublishSummary, publish_lines
from driftline.schemas import BadInput, Codec, Contracts, Event, Registry, UsageError

pytestmark = pytest.mark.integration

ORDER = {
    "type": "record",
    "name": "Order",
    "namespace": "shop",
    "fields": [
        {"name": "sku", "type": "string"},
        {"name": "number", "type": "int"},
        {"name": "due", "type": ["null", {"type": "long", "logicalType": "timestamp-millis"}], "default": None},
    ],
}


@pytest.fixture
def schemas(tmp_path: Path) -> Path:
    folder = tmp_path / "avsc" / "shop.Order"
    folder.mkdir(parents=True)
    (folder / "1.avsc").write_text(json.dumps(ORDER))
    return folder.parent


def _line(workflow: str = "c-1", **other: Any) -> bytes:
    whole = {"workflow": workflow, "time": "2026-07-01T00:00:00Z", "data": {"sku": "x", "number": 1}, **other}
    return json.dumps(whole).encode() + b"\n"


def _events(cluster: Settings, schemas: Path, app: str) -> list[Event]:
    codec = Codec(Registry(cluster.require_registry()), Contracts.load(schemas))
    reader = KafkaReader(cluster)
    return [to_event(record, codec) for record in reader.read(reader.span(AppTopics(app).events))]


def test_each_line_is_an_event_and_blank_lines_are_none(cluster: Settings, schemas: Path, app_name: str) -> None:
    lines = [_line("c-1"), b"\n", _line("c-2", type="order-placed", id="mine"), _line("c-1")]
    form = LineForm("shop.Order", source="till")
    summary = publish_lines(lines, app=app_name, form=form, settings=cluster, schemas=schemas)
    assert summary == PublishSummary(f"{app_name}.events", 3, 2, {"order-placed": 1, "shop.Order": 2})
    events = _events(cluster, schemas, app_name)
    assert {event.source for event in events} == {"till"}
    assert len({event.id for event in events}) == 3
    assert "mine" in {event.id for event in events}


def test_the_same_input_gives_the_same_ids(cluster: Settings, schemas: Path, app_name: str) -> None:
    for _ in range(2):
        publish_lines(
            [_line(), _line()], app=app_name, form=LineForm("shop.Order"), settings=cluster, schemas=schemas
        )
    ids = [event.id for event in _events(cluster, schemas, app_name)]
    assert (len(ids), len(set(ids))) == (4, 2)


def test_a_bare_payload_names_its_workflow_and_time_by_field(cluster: Settings, schemas: Path, app_name: str) -> None:
    bare = json.dumps({"sku": "x", "number": 1, "due": "2026-08-01T00:00:00+02:00"}).encode()
    form = LineForm("shop.Order", "order", key_field="sku", time_field="due")
    publish_lines([bare], app=app_name, form=form, settings=cluster, schemas=schemas)
    (event,) = _events(cluster, schemas, app_name)
    assert (event.workflow, event.type) == ("x", "order")
    assert event.data["due"] == event.time
    assert event.time.isoformat() == "2026-07-31T22:00:00+00:00"


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (b"{", "not JSON"),
        (b"\xff", "not JSON"),
        (b"[]", "not an object"),
        (b'{"workflow": 1}', "workflow: "),
        (_line(""), "workflow: empty"),
        (_line(time="soon"), "time: "),
        (_line(time="2026-07-01T00:00:00"), "time: "),
        (_line(time="1969-07-01T00:00:00Z"), "time: "),
        (_line(data={"sku": "x"}), "shop.Order.number: expected int, found nothing"),
        (_line(data={"sku": "x", "number": "1"}), "shop.Order.number: expected int, found '1'"),
        (_line(data={"sku": "x", "number": 1, "skew": 2}), "shop.Order.skew is no field"),
        (_line(data={"sku": "x", "number": 1, "due": "soon"}), "data.due: "),
        (_line(data={"sku": "\ud800", "number": 1}), "a lone surrogate"),
        (_line(record="shop.Nothing"), "no contract for the record shop.Nothing"),
        (_line(unknown=1), "unknown: "),
        (_line(data={"sku": "x" * 300_000, "number": 1}), "300"),
    ],
)
def test_a_bad_line_17_is_told_and_nothing_is_written(
    cluster: Settings, schemas: Path, app_name: str, line: bytes, told: str
) -> None:
    lines = [*[_line()] * 16, line]
    with pytest.raises(BadInput) as wrong:
        publish_lines(lines, app=app_name, form=LineForm("shop.Order"), settings=cluster, schemas=schemas)
    assert wrong.value.message.startswith(f"<stdin>:17: {told}")
    assert AppTopics(app_name).events not in TopicAdmin(cluster).partitions()


def test_more_than_memory_may_hold_is_refused(
    cluster: Settings, schemas: Path, app_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("driftline.producers.lines.INPUT_BYTES_TOTAL_MAX", 3 * len(_line()))
    with pytest.raises(BadInput, match=r"<stdin>:4: .*split the input"):
        publish_lines([_line()] * 4, app=app_name, form=LineForm("shop.Order"), settings=cluster, schemas=schemas)


def test_a_form_needs_both_fields_or_neither() -> None:
    with pytest.raises(UsageError, match="--time-field"):
        LineForm("shop.Order", key_field="sku")


COMMAND = """
import typer
from driftline.console.publish_commands import publish
from driftline.schemas import DriftlineError
app = typer.Typer()
app.command()(publish)
try:
    app(standalone_mode=False)
except DriftlineError as error:
    raise SystemExit(str(error))
"""


def _run(cluster: Settings, given: bytes, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    env = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(sys.path),
        "DRIFTLINE_BOOTSTRAP_SERVERS": cluster.require_bootstrap(),
        "DRIFTLINE_REGISTRY_URL": cluster.require_registry(),
        "DRIFTLINE_KAFKA": json.dumps(cluster.kafka),
    }
    return subprocess.run(
        [sys.executable, "-c", COMMAND, *arguments], input=given, capture_output=True, env=env, check=False
    )


def test_the_command_tells_its_summary_as_json_on_stdout_alone(
    cluster: Settings, schemas: Path, app_name: str
) -> None:
    ran = _run(cluster, _line() * 3, app_name, "--record", "shop.Order", "--schemas", str(schemas), "--json")
    assert (ran.returncode, ran.stderr) == (0, b"")
    assert json.loads(ran.stdout) == {
        "topic": f"{app_name}.events",
        "events": 3,
        "workflows": 1,
        "streams": {"shop.Order": 3},
    }


def test_the_command_ends_with_one_line_about_a_bad_line(cluster: Settings, schemas: Path, app_name: str) -> None:
    ran = _run(cluster, _line() * 16 + b"{", app_name, "--record", "shop.Order", "--schemas", str(schemas))
    assert ran.returncode != 0
    assert ran.stdout == b""
    assert ran.stderr.startswith(b"<stdin>:17: not JSON")
    assert ran.stderr.count(b"\n") == 1
