"""Looking at the log and at runs: `show`, `dead`, `alerts`, `topics`, `sql`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from datetime import UTC, datetime
from heapq import heappush, heappushpop
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from driftline.log import Record
    from driftline.schemas import Codec

SHOW_EXAMPLE = "Example: driftline show 'renewals.decisions[0]@12' --app renewals"
DEAD_EXAMPLE = "Example: driftline dead renewals --last 3"
ALERTS_EXAMPLE = "Example: driftline alerts --app renewals --last 3"
SQL_EXAMPLE = "Example: driftline sql 'FROM by_stream'"

AsJson = Annotated[bool, typer.Option("--json", help="Print as JSON.")]

topics_app = typer.Typer(help="The topics.", no_args_is_help=True)


def show(
    at: Annotated[str, typer.Argument(help="topic[partition]@offset")],
    app: Annotated[str | None, typer.Option(help="App whose contracts decode it; else the topic's prefix.")] = None,
) -> None:
    """Print the record at these coordinates, decoded, as JSON.

    Bytes that are no text, or that do not decode (as on the dead topic), are shown as base64.
    """
    from driftline.console.common import Log, find_app, out
    from driftline.log import Coordinates, load_settings
    from driftline.schemas import Contracts, UsageError

    settings, where = load_settings(), Coordinates.parse(at)
    found = find_app(app or where.topic.rpartition(".")[0], settings)
    log = Log(settings, found.contracts if found else Contracts.load())
    record = log.reader.read_one(where)
    if record is None:
        raise UsageError(f"no committed record lies at {where}", "the offset may be a transaction's control record")
    shown = {
        "at": str(where),
        "key": _text(record.key),
        "headers": {name: _text(value) for name, value in record.headers},
        **_value(record.value, log.codec),
    }
    out.print_json(data=shown)


def _value(raw: bytes | None, codec: Codec) -> dict[str, Any]:
    """The decoded value, or the bytes as they lie there and why they do not decode."""
    from driftline.schemas import Undecodable, to_json_data

    try:
        decoded = codec.decode(raw)
    except Undecodable as error:
        return {"record": None, "undecodable": str(error), "value": None if raw is None else _base64(raw)}
    return {"record": decoded.name, "value": to_json_data(decoded.value)}


def _text(raw: bytes | None) -> str | dict[str, str] | None:
    """Bytes that others wrote, and that need not be text."""
    try:
        return None if raw is None else raw.decode()
    except UnicodeDecodeError:
        return _base64(raw or b"")


def _base64(raw: bytes) -> dict[str, str]:
    from base64 import b64encode

    return {"base64": b64encode(raw).decode()}


def dead(
    app: Annotated[str, typer.Argument(help="App in driftline.toml, module:attribute, or the prefix of its topics.")],
    last: Annotated[int, typer.Option(min=1, help="How many, the latest by event time.")] = 10,
    as_json: AsJson = False,
) -> None:
    """List what lies on an app's dead topic, newest last: the reason, and where it lay on the input."""
    from driftline.console.common import find_app, out, say
    from driftline.log import AppTopics, KafkaReader, load_settings

    settings = load_settings()
    found = find_app(app, settings)
    topic = AppTopics(found.name if found else app).dead
    reader = KafkaReader(settings)
    reasons, latest = _latest_dead(reader.read(reader.span(topic)), last)
    if as_json:
        out.print_json(data={"topic": topic, "reasons": reasons, "records": latest})
        return
    told = ", ".join(f"{number} {reason or 'without a reason'}" for reason, number in reasons.items())
    say(f"{topic}: {told or 'empty'}")
    for one in latest:
        source = f"from {one['source']}" if one["source"] else "of unknown source"
        say(f"{one['at']}  {one['event_time']}  {source}  {one['detail'] or one['reason']}".rstrip())
    if latest:
        say(f"one whole, with its bytes: driftline show '{latest[-1]['at']}' --app {app}")


def _latest_dead(records: Iterable[Record], last: int) -> tuple[dict[str, int], list[dict[str, Any]]]:
    """How often each reason occurs, and the latest records, oldest first."""
    from driftline.consumers.dead import why_dead
    from driftline.schemas.times import format_time

    reasons: Counter[str] = Counter()
    kept: list[tuple[int, int, int, dict[str, Any]]] = []
    for record in records:
        why = why_dead(record)
        reasons[why.reason] += 1
        shown = {
            "at": str(record.at),
            "event_time": format_time(datetime.fromtimestamp(record.timestamp_ms / 1000, UTC)),
            "key": _text(record.key),
            **asdict(why),
        }
        push = heappushpop if len(kept) == last else heappush
        push(kept, (record.timestamp_ms, record.at.partition, record.at.offset, shown))
    return dict(reasons.most_common()), [shown for *_, shown in sorted(kept, key=itemgetter(0, 1, 2))]


def alerts(
    app: Annotated[str | None, typer.Option(help="Only this app's.")] = None,
    last: Annotated[int, typer.Option(min=1, help="How many, counted from the end.")] = 10,
    as_json: AsJson = False,
) -> None:
    """List what lies on `driftline.alerts`, newest last; of a record that does not decode, where it lies and why."""
    from driftline.console.common import Log, out, say
    from driftline.log import ALERTS, load_settings
    from driftline.schemas import Contracts

    log = Log(load_settings(), Contracts.load())
    found = [
        _alert(record, log.codec)
        for record in log.reader.read(log.reader.span(ALERTS))
        if app is None or record.key == app.encode()
    ][-last:]
    if as_json:
        out.print_json(data=found)
        return
    for alert in found:
        say(alert_line(alert))
    if not found:
        say("no alerts")


def _alert(record: Record, codec: Codec) -> dict[str, Any]:
    from driftline.schemas import Undecodable, to_json_data

    try:
        return {"at": str(record.at), **to_json_data(codec.decode(record.value).value)}
    except Undecodable as error:
        return {"at": str(record.at), "undecodable": str(error)}


def alert_line(alert: dict[str, Any]) -> str:
    """One line for an alert of any kind; one of a later driftline shows its coordinates, kind and app."""
    if "undecodable" in alert:
        return f"{alert['at']}  does not decode: {alert['undecodable']}"
    head = f"{alert['at']}  {alert['kind']}  {alert['app']}"
    match alert["kind"]:
        case "ReplayCompleted":
            paid = f"{alert['paid_calls']} paid calls  e = {alert['e_value']:.3g}"
            return f"{head}  {alert['mode']}  {_candidate(alert)}  {alert['verdict']}  {paid}"
        case "DivergenceAlert":
            return f"{head}  {_candidate(alert)}  {_evidence(alert)}"
        case "EnvironmentDriftAlert":
            return f"{head}  {alert['incumbent']['model']} against the log  {_evidence(alert)}"
        case "MigrationAlert":
            runs = ", ".join(f"{run['candidate']} ({run['run_id']})" for run in alert["runs"])
            return f"{head}  {', '.join(alert['boundaries'])}  P3 to P5  recurs by {alert['recurs_by']}: {runs}"
    return head


def _candidate(alert: dict[str, Any]) -> str:
    """The candidate as the metrics name it: the same label finds its alert and its series."""
    from driftline.console.exporting.board import candidate_label
    from driftline.schemas import ArmRef

    def arm(name: str) -> ArmRef:
        return ArmRef(**{field: value for field, value in alert[name].items() if field in ArmRef.model_fields})

    return candidate_label(arm("baseline"), arm("candidate"))


def _evidence(alert: dict[str, Any]) -> str:
    named = ", ".join(f"{s['stream']} × {s['level']}" for s in alert["named"]) or "no single stratum"
    return f"e = {alert['e_value']:.3g} after {alert['paid_calls']} paid calls  in {named}"


@topics_app.command("list", epilog="Example: driftline topics list")
def list_topics(as_json: AsJson = False) -> None:
    """List the topics with their partitions."""
    from driftline.console.common import out, say
    from driftline.log import TopicAdmin, load_settings

    found = dict(sorted(TopicAdmin(load_settings()).partitions().items()))
    if as_json:
        out.print_json(data=found)
        return
    for name, partitions in found.items():
        say(f"{name}  {partitions}")


@topics_app.command("create", epilog="Example: driftline topics create renewals")
def create_topics(app: Annotated[str, typer.Argument(help="App in driftline.toml, or module:attribute.")]) -> None:
    """Create an app's topics and register its schemas; what is there already stays as it is."""
    from driftline.console.common import require_app, say
    from driftline.consumers.prepare import prepare
    from driftline.log import load_settings

    settings = load_settings()
    loaded = require_app(app, settings)
    prepare(loaded, settings)
    say(f"{loaded.name}: topics and subjects are there")


def sql(
    statement: Annotated[str, typer.Argument(help="DuckDB SQL over pairs, strata, run, flips, by_stream, …")],
    run: Annotated[str | None, typer.Option(help="Run id; else the newest.")] = None,
    as_json: AsJson = False,
) -> None:
    """Ask a run's DuckDB file, opened read-only."""
    from rich.table import Table

    from driftline.console.common import out
    from driftline.log import load_settings
    from driftline.replay.store import query

    columns, rows = query(_database(load_settings().home / "runs", run), statement)
    if as_json:
        out.print_json(data=[dict(zip(columns, row, strict=True)) for row in rows], default=str)
        return
    table = Table(box=None, header_style="dim", pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(_cell(value) for value in row))
    out.print(table)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "" if value is None else str(value)


def _database(runs: Path, run: str | None) -> Path:
    from driftline.replay.store import DATABASE
    from driftline.schemas import UsageError

    if run is not None:
        return runs / run / DATABASE
    found = sorted(runs.glob(f"*/{DATABASE}"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise UsageError(f"there is no run in {runs}", "run `driftline replay` first")
    return found[-1]
