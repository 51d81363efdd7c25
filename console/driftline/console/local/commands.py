"""`driftline kafka` and `driftline registry`: start, status, stop, logs."""

import dataclasses
import json
from typing import Annotated

import typer

from driftline.console.local.kafka import KafkaStatus, LocalKafka
from driftline.console.local.places import default_home
from driftline.console.local.registry import LocalRegistry, RegistryStatus

EXIT_NOT_RUNNING = 3

kafka_app = typer.Typer(help="The local Kafka: a real single broker on this machine.", no_args_is_help=True)
registry_app = typer.Typer(
    help="The local schema registry: Apicurio, which speaks Confluent's API.", no_args_is_help=True
)

Port = Annotated[int | None, typer.Option(min=1, max=65535, help="Port to take; else the last one or the usual.")]
Ephemeral = Annotated[bool, typer.Option("--ephemeral", help="Forget the data at the next stop.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print it as one JSON object.")]
Lines = Annotated[int, typer.Option("--lines", "-n", min=1, help="How many lines, counted from the end.")]


@kafka_app.command("start", epilog="Example: driftline kafka start --port 19092")
def kafka_start(port: Port = None, ephemeral: Ephemeral = False) -> None:
    """Start Kafka unless it runs, and wait until it answers. The first start downloads it (44 MB)."""
    status = _kafka().start(port, ephemeral, die_with_caller=False)
    typer.echo(_kafka_line(status))


@kafka_app.command("status", epilog="Example: driftline kafka status --json")
def kafka_status(as_json: AsJson = False) -> None:
    """Say whether Kafka runs and where. Exits 3 if it does not."""
    status = _kafka().status()
    _show(status, _kafka_line(status), as_json)


@kafka_app.command("stop", epilog="Example: driftline kafka stop")
def kafka_stop() -> None:
    """Stop Kafka and wait until it is gone. Its data stays, unless it was started with --ephemeral."""
    typer.echo("Kafka stopped" if _kafka().stop() else "Kafka was not running")


@kafka_app.command("logs", epilog="Example: driftline kafka logs -n 200")
def kafka_logs(lines: Lines = 50) -> None:
    """Print the end of the broker's log."""
    _print_log(_kafka().logs(lines), "kafka")


@registry_app.command("start", epilog="Example: driftline registry start --port 18081")
def registry_start(port: Port = None, ephemeral: Ephemeral = False) -> None:
    """Start the registry unless it runs, and wait until it answers. The first start downloads it (109 MB)."""
    status = _registry().start(port, ephemeral, die_with_caller=False)
    typer.echo(_registry_line(status))


@registry_app.command("status", epilog="Example: driftline registry status --json")
def registry_status(as_json: AsJson = False) -> None:
    """Say whether the registry runs and where. Exits 3 if it does not."""
    status = _registry().status()
    _show(status, _registry_line(status), as_json)


@registry_app.command("stop", epilog="Example: driftline registry stop")
def registry_stop() -> None:
    """Stop the registry and wait until it is gone. Its schemas stay, unless started with --ephemeral."""
    typer.echo("The schema registry stopped" if _registry().stop() else "The schema registry was not running")


@registry_app.command("logs", epilog="Example: driftline registry logs -n 200")
def registry_logs(lines: Lines = 50) -> None:
    """Print the end of the registry's log."""
    _print_log(_registry().logs(lines), "registry")


def _kafka() -> LocalKafka:
    return LocalKafka(default_home(), say=_say)


def _registry() -> LocalRegistry:
    return LocalRegistry(default_home(), say=_say)


def _say(line: str) -> None:
    typer.echo(line, err=True)


def _kafka_line(status: KafkaStatus) -> str:
    if not status.running:
        return "Kafka is not running; start it: driftline kafka start"
    return (
        f"Apache Kafka {status.version} {_how(status)} on {status.bootstrap_servers} "
        f"(pid {status.pid}, data in {status.data_dir})"
    )


def _registry_line(status: RegistryStatus) -> str:
    if not status.running:
        return "The schema registry is not running; start it: driftline registry start"
    kept = f"data in {status.data_dir}" if status.data_dir else "schemas in memory"
    return f"Apicurio Registry {status.version} {_how(status)} on {status.url} (pid {status.pid}, {kept})"


def _how(status: KafkaStatus | RegistryStatus) -> str:
    return "started" if status.started_now else "runs"


def _show(status: KafkaStatus | RegistryStatus, line: str, as_json: bool) -> None:
    typer.echo(json.dumps(dataclasses.asdict(status), default=str) if as_json else line)
    if not status.running:
        raise typer.Exit(EXIT_NOT_RUNNING)


def _print_log(lines: list[str], service: str) -> None:
    if not lines:
        _say(f"no log yet; start it: driftline {service} start")
    for line in lines:
        typer.echo(line)
