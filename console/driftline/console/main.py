"""The `driftline` command. Everything heavy is imported inside the commands: `driftline --help` answers at once."""

from __future__ import annotations

import os
import sys
import traceback
from typing import Annotated, NoReturn

import typer

from driftline.console import (
    cache_command,
    compare_command,
    control_commands,
    diagnose_command,
    doctor_command,
    effect_command,
    exporter_command,
    import_command,
    log_commands,
    nightly_command,
    publish_commands,
    reliability_command,
    replay_command,
    report_command,
    run_command,
    schemas_commands,
    segment_command,
    spine_commands,
    spine_migration,
    state_command,
)
from driftline.console.demo import demo
from driftline.console.local.commands import kafka_app, registry_app

PUBLISH_EXAMPLE = "Example: driftline publish renewals --record driftline.renewals.RenewalDue < events.jsonl"
EXIT_INTERRUPTED = 130
EXIT_BUG = 70
"""EX_SOFTWARE of sysexits.h: a fault of driftline's own must not read as `diverged`, which is 1."""

app = typer.Typer(
    name="driftline",
    help="Run LLM agents on a Kafka log, and see before an upgrade what a model or prompt would change.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
import_app = typer.Typer(help="Put what others recorded onto the log.", no_args_is_help=True)
import_app.command("recorded", epilog=import_command.EXAMPLE)(import_command.import_recorded_file)

app.command("demo", epilog="Example: driftline demo")(demo)
app.command("publish", epilog=PUBLISH_EXAMPLE)(publish_commands.publish)
app.add_typer(import_app, name="import")
app.command("run", epilog=run_command.EXAMPLE)(run_command.run)
app.command("effect", epilog=effect_command.EXAMPLE)(effect_command.effect)
app.command("exporter", epilog=exporter_command.EXAMPLE)(exporter_command.exporter)
app.command("kill", epilog=control_commands.KILL_EXAMPLE)(control_commands.kill)
app.command("resume", epilog=control_commands.RESUME_EXAMPLE)(control_commands.resume)
app.command("throttle", epilog=control_commands.THROTTLE_EXAMPLE)(control_commands.throttle)
app.command("control", epilog=control_commands.CONTROL_EXAMPLE)(control_commands.control)
app.command("approve", epilog=spine_commands.APPROVE_EXAMPLE)(spine_commands.approve)
app.command("reject", epilog=spine_commands.REJECT_EXAMPLE)(spine_commands.reject)
app.command("tick", epilog=spine_commands.TICK_EXAMPLE)(spine_commands.tick)
app.command("replay", epilog=replay_command.EXAMPLE)(replay_command.replay)
app.command("nightly", epilog=nightly_command.EXAMPLE)(nightly_command.nightly)
app.command("compare", epilog=compare_command.EXAMPLE)(compare_command.compare)
app.command("doctor", epilog=doctor_command.EXAMPLE)(doctor_command.doctor)
app.command("diagnose", epilog=diagnose_command.EXAMPLE)(diagnose_command.diagnose)
app.command("reliability", epilog=reliability_command.EXAMPLE)(reliability_command.reliability)
app.command("report", epilog=report_command.EXAMPLE)(report_command.report)
app.command("sql", epilog=log_commands.SQL_EXAMPLE)(log_commands.sql)
app.command("show", epilog=log_commands.SHOW_EXAMPLE)(log_commands.show)
app.command("dead", epilog=log_commands.DEAD_EXAMPLE)(log_commands.dead)
app.command("alerts", epilog=log_commands.ALERTS_EXAMPLE)(log_commands.alerts)
app.add_typer(log_commands.topics_app, name="topics")
app.add_typer(state_command.state_app, name="state")
app.add_typer(spine_migration.migrate_app, name="migrate")
app.add_typer(segment_command.segment_app, name="segment")
app.add_typer(cache_command.cache_app, name="cache")
app.add_typer(schemas_commands.schemas_app, name="schemas")
app.add_typer(kafka_app, name="kafka")
app.add_typer(registry_app, name="registry")


@app.callback()
def _options(
    bootstrap_servers: Annotated[
        str | None, typer.Option("--bootstrap-servers", help="Kafka brokers, host:port,…", metavar="HOST:PORT")
    ] = None,
    registry_url: Annotated[
        str | None, typer.Option("--registry-url", help="Schema registry, Confluent's REST API.", metavar="URL")
    ] = None,
) -> None:
    """Options that win over the environment and `driftline.toml` for the command that follows."""
    for name, value in (("BOOTSTRAP_SERVERS", bootstrap_servers), ("REGISTRY_URL", registry_url)):
        if value is not None:
            os.environ[f"DRIFTLINE_{name}"] = value


def main() -> None:
    """Run the command line; what a user can mend is one line on stderr and the exit code of its error."""
    try:
        code = app(standalone_mode=False) or 0
    except Exception as error:  # noqa: BLE001 - the last line of defence
        _fail_of(error)
    if code == EXIT_INTERRUPTED:
        _fail("interrupted; the same command goes on where it stopped", EXIT_INTERRUPTED)
    sys.exit(code)


def _fail_of(error: Exception) -> NoReturn:
    """Imported here: `driftline --help` needs none of it."""
    from typer.rich_utils import rich_format_error

    from driftline.console.local.errors import LocalServiceError
    from driftline.schemas import DriftlineError, EnvironmentUnreachable

    if isinstance(error, DriftlineError):
        _fail(str(error), error.exit_code)
    if isinstance(error, LocalServiceError):
        _fail(str(error), EnvironmentUnreachable.exit_code)
    if hasattr(error, "format_message") and hasattr(error, "exit_code"):  # Typer's own word on an option
        rich_format_error(error)  # type: ignore[arg-type]
        sys.exit(error.exit_code)
    traceback.print_exception(error)
    sys.exit(EXIT_BUG)


def _fail(line: str, exit_code: int) -> NoReturn:
    typer.echo("driftline: " + " ".join(line.split()), err=True)
    sys.exit(exit_code)
