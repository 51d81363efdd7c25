"""`driftline replay --mode verify`: history through today's rules, with no model and no broker but to read."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any, NoReturn

import typer
from rich.table import Table

from driftline.console.common import (
    open_subject,
    out,
    progress_bar,
    say,
    subject_of_file,
)
from driftline.console.history import tell_history_of
from driftline.console.render import VERDICT_STYLES
from driftline.log import AppTopics
from driftline.replay.report import EXIT_CODES
from driftline.replay.segment import Selection
from driftline.replay.segment_file import read_artifacts_of_file
from driftline.replay.verify import Change, VerifyResult, verify_data, verify_file, verify_log
from driftline.schemas import UsageError

CHANGES_SHOWN_MAX = 20
TAKEN = {"app", "mode", "verifier", "start", "stop", "offsets", "stream", "key", "segment", "as_json"}
"""Parameters of `replay` that this mode reads."""
OPTIONS = {"what": "plan", "follow_for": "--for"}
"""What a parameter is called on the command line, where that is not its name."""


def verify_and_exit(
    app: str, selection: Selection, verifier: str | None, segment: Path | None, given: Collection[str], as_json: bool
) -> NoReturn:
    """Verify, print, and exit: 0 when no verdict is another today, 1 when any is.

    Args:
        app: As `open_subject` takes it.
        selection: Which decisions.
        verifier: Path of a verifier spec for an imported app.
        segment: A segment file in place of Kafka.
        given: Parameters of `replay` that the command line names.
        as_json: Print one JSON object.

    Raises:
        UsageError: Another option than these is given: no model is asked, everything is read, and no run is kept.
    """
    _refuse(given)
    name, result = _verify(app, selection, verifier, segment)
    if as_json:
        out.print_json(data=verify_data(name, result))
    else:
        _print(name, result)
    raise typer.Exit(EXIT_CODES[result.verdict])


def _refuse(given: Collection[str]) -> None:
    """What would be passed over in silence is refused by name."""
    unfit = sorted(OPTIONS.get(name, "--" + name.replace("_", "-")) for name in given if name not in TAKEN)
    if unfit:
        raise UsageError(
            "verify asks no model, costs nothing, reads all that is selected and keeps no run",
            f"leave {', '.join(unfit)} out",
        )


def _verify(app: str, selection: Selection, verifier: str | None, segment: Path | None) -> tuple[str, VerifyResult]:
    if segment is not None:
        subject = subject_of_file(segment, app, read_artifacts_of_file(segment), verifier)
        with progress_bar("verifying", None) as show:
            return subject.name, verify_file(segment, subject, selection, show)
    subject, log = open_subject(app, verifier)
    tell_history_of(log.reader, AppTopics(subject.name).decisions, selection)
    with progress_bar("verifying", None) as show:
        return subject.name, verify_log(log.reader, log.codec, subject, selection, show)


def _print(app: str, result: VerifyResult) -> None:
    say(f"{result.verdict.upper()}  {app}: today's rules over {result.decisions} decisions", _style(result))
    rates = f"accepted then {result.accepted_then}, now {result.accepted_now}"
    say(f"  {rates}; verdicts that are others today: {_ways(result)}")
    if result.other_attempt:
        say(f"  {result.other_attempt} more would have been accepted at an earlier attempt")
    if result.other_rule:
        say(f"  {result.other_rule} are rejected then and now, by another rule first")
    versions = ", ".join(f"{version[:12]} ({count})" for version, count in result.verifier_versions.items())
    today = ", ".join(f"{boundary} {version[:12]}" for boundary, version in result.verifier_version.items())
    say(f"  verifier then {versions}; today {today}")
    if result.changes:
        out.print("", _table(result.changes[:CHANGES_SHOWN_MAX]))


def _style(result: VerifyResult) -> str:
    return VERDICT_STYLES[result.verdict]


def _ways(result: VerifyResult) -> str:
    if result.verdict == "equivalent":
        return "none"
    return f"{result.newly_rejected} now rejected, {result.newly_accepted} now accepted"


def _table(changes: tuple[Change, ...]) -> Table:
    columns: dict[str, Any] = {"boundary": "left", "stream": "left", "then → now": "left", "code": "left"}
    columns |= {"rule": "left", "decisions": "right", "first": "left"}
    table = Table(title="changes by rule", title_justify="left", title_style="bold", header_style="dim", box=None)
    table.padding, table.pad_edge = (0, 1, 0, 0), False
    for name, side in columns.items():
        table.add_column(name, justify=side, overflow="fold")
    for change in changes:
        way = f"{change.then} → {change.now}"
        cells = (change.boundary, change.stream, way, change.code, change.rule_id)
        table.add_row(*cells, str(change.decisions), change.examples[0])
    return table
