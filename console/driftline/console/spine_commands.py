"""`driftline approve`, `reject`, `tick`: facts that move the rows of an app; `driftline state diagram`."""

from __future__ import annotations

import time as monotonic_time
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from driftline.console.state_command import state_app

if TYPE_CHECKING:
    from driftline.consumers.app import App
    from driftline.log import Coordinates, Settings

APPROVE_EXAMPLE = "Example: driftline approve S7-000010 --app contracts-machine --expected-version 14 --by mara"
REJECT_EXAMPLE = APPROVE_EXAMPLE.replace("approve", "reject") + " --reason 'too dear'"
TICK_EXAMPLE = "Example: driftline tick contracts-machine --every 60s"
DIAGRAM_EXAMPLE = "Example: driftline state diagram contracts-machine"
ANSWER_S_DEFAULT = 10.0
POLL_S = 0.2
TICK_EVERY_MIN = timedelta(seconds=1)
"""Ticks are kept for ever, one a partition."""
EXIT_REFUSED, EXIT_UNANSWERED = 1, 4


def check_by(by: str) -> str:
    """Who asks, as `--by` names them: somebody, and none of the sources of what driftline commits itself.

    Raises:
        UsageError: It is empty, or begins as those sources do.
    """
    from driftline.consumers.sources import source_of
    from driftline.schemas import UsageError

    own = source_of("", "").removesuffix("/")
    if not by.strip():
        raise UsageError(f"--by {by!r} is nobody", "name a person or a system, for example --by mara")
    if by.startswith(own):
        raise UsageError(
            f"--by {by!r}: {own} is kept for what driftline commits itself", "name a person or a system: --by mara"
        )
    return by


Workflow = Annotated[str, typer.Argument(help="Key of the workflow.")]
ExpectedVersion = Annotated[
    int, typer.Option("--expected-version", min=0, help="Version of the row that you have looked at.")
]
By = Annotated[str, typer.Option("--by", help="Who asks: the audit trail.", callback=check_by)]
AppName = Annotated[str | None, typer.Option("--app", help="App; else the only one in driftline.toml.")]
Reason = Annotated[str, typer.Option("--reason", help="Why, for whoever reads the log.")]
Wait = Annotated[float, typer.Option("--wait-s", min=0, help="Seconds to wait for the answer; 0: do not.")]


def approve(
    workflow: Workflow,
    expected_version: ExpectedVersion,
    by: By,
    app: AppName = None,
    reason: Reason = "",
    wait_s: Wait = ANSWER_S_DEFAULT,
) -> None:
    """Ask for the transition `approve` of a row, as it was at a version: the way out of what waits for a person.

    Exits 0 accepted, 1 refused (the row has moved on, or does not allow it; it is shown), 4 not answered yet.
    """
    _ask("approve", workflow, expected_version, by, app, reason, wait_s)


def reject(
    workflow: Workflow,
    expected_version: ExpectedVersion,
    by: By,
    app: AppName = None,
    reason: Reason = "",
    wait_s: Wait = ANSWER_S_DEFAULT,
) -> None:
    """Ask for the transition `reject` of a row, as it was at a version. Exits as `driftline approve`."""
    _ask("reject", workflow, expected_version, by, app, reason, wait_s)


def tick(
    app: Annotated[str, typer.Argument(help="App in driftline.toml, or module:attribute.")],
    to: Annotated[str | None, typer.Option("--to", help="Event time to tell, ISO 8601; else the clock's.")] = None,
    every: Annotated[
        str | None, typer.Option("--every", help="Tell the clock's time again and again: 60s; at least 1s.")
    ] = None,
) -> None:
    """Tell an app how far event time has come, so that its timers fire. Once, or with --every until stopped."""
    from driftline.console.common import now, require_app, say
    from driftline.console.replay_options import time_of
    from driftline.log import load_settings
    from driftline.producers.ticking import Ticker
    from driftline.schemas import UsageError

    if to is not None and every is not None:
        raise UsageError("--to tells one time, --every the clock's", "give one of them")
    pause = None if every is None else _pause_of(every)
    settings = load_settings()
    with Ticker(require_app(app, settings).name, settings) as ticker:
        told: datetime = time_of("--to", to, now()) or now()
        say(f"{app}: {ticker.tick(told)} partitions told that it is {told.isoformat()}")
        while pause is not None:
            monotonic_time.sleep(pause.total_seconds())
            ticker.tick(now())


def _pause_of(every: str) -> timedelta:
    from driftline.console.replay_options import duration_of
    from driftline.schemas import UsageError

    pause = duration_of("--every", every)
    if pause < TICK_EVERY_MIN:
        raise UsageError(
            f"--every {every!r}: every tick is kept for ever", "give 1s or more, for example --every 60s"
        )
    return pause


@state_app.command("diagram", epilog=DIAGRAM_EXAMPLE)
def diagram(app: Annotated[str, typer.Argument(help="App in driftline.toml, or module:attribute.")]) -> None:
    """Draw an app's transition table as a Mermaid state diagram."""
    from driftline.console.common import out, require_app
    from driftline.log import load_settings

    out.print(require_app(app, load_settings()).require_machine().mermaid(), end="")


def _ask(
    transition: str, workflow: str, expected_version: int, by: str, app: str | None, reason: str, wait_s: float
) -> None:
    from driftline.console.common import say
    from driftline.log import load_settings
    from driftline.producers import Publisher
    from driftline.schemas.names import TRANSITION_REQUESTED

    settings = load_settings()
    found = _app(app, settings)
    machine = found.require_machine()
    data = {"transition": transition, "expected_version": expected_version, "by": by, "reason": reason}
    with Publisher(found.name, found.schemas, settings, source=by, clock=_now) as publisher:
        delivery = publisher.publish(TRANSITION_REQUESTED, data, workflow=workflow)
        at = delivery.result()
    say(f"asked: {transition} {workflow} at version {expected_version}, on {at}")
    if wait_s:
        begin = f"there is no row of {workflow} yet; it would begin in the state {machine.initial} at version 0"
        _tell(_answer(found, settings, at, delivery.event_id, wait_s), begin, wait_s)


def _now() -> datetime:
    from driftline.console.common import now

    return now()


def _app(name: str | None, settings: Settings) -> App:
    from driftline.console.common import require_app
    from driftline.schemas import UsageError

    if name is None and len(settings.apps) != 1:
        raise UsageError(f"which app? driftline.toml has {', '.join(settings.apps) or 'none'}", "say --app NAME")
    return require_app(name or next(iter(settings.apps)), settings)


def _answer(app: App, settings: Settings, at: Coordinates, request_id: str, wait_s: float) -> tuple[str, Any] | None:
    """Record name and data of the answer to a request; None where it does not come in time."""
    from driftline.console.common import Log
    from driftline.log import Span
    from driftline.schemas import Undecodable
    from driftline.schemas.names import TRANSITION_ACCEPTED, TRANSITION_REJECTED

    log, begin = Log(settings, app.contracts), at.offset + 1
    deadline = monotonic_time.monotonic() + wait_s
    while monotonic_time.monotonic() < deadline:
        end = log.reader.span(at.topic).ranges[at.partition][1]
        for record in log.reader.read(Span(at.topic, {at.partition: (begin, end)})):
            try:
                decoded = log.codec.decode(record.value)
            except Undecodable:  # of somebody else
                continue
            answers = decoded.name in (TRANSITION_ACCEPTED, TRANSITION_REJECTED)
            if answers and decoded.value["request_id"] == request_id:
                return decoded.name, decoded.value
        begin = end
        monotonic_time.sleep(POLL_S)
    return None


def _tell(answer: tuple[str, Any] | None, without_row: str, wait_s: float) -> None:
    from driftline.console.common import say
    from driftline.schemas import parse_json
    from driftline.schemas.names import TRANSITION_ACCEPTED

    if answer is None:
        say(f"not answered within {wait_s:g} s: the app does not run, or has more to do first", "yellow")
        raise typer.Exit(EXIT_UNANSWERED)
    record, data = answer
    if record == TRANSITION_ACCEPTED:
        say(f"accepted: {data['state_before']} → {data['state_after']}, version {data['version_after']}", "green")
        return
    refused = parse_json(data["rejection"])
    say(f"refused: {refused['code']}: {refused['message']}", "red")
    row = f"the row is in state {data['state']} at version {data['version']}: {data['row']}"
    say(row if data["version"] else without_row)
    raise typer.Exit(EXIT_REFUSED)
