"""`driftline effect`: run one effector of an app."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from driftline.consumers.app import App
    from driftline.consumers.effector_runner import EffectorSummary
    from driftline.consumers.effectors import Effector

EXAMPLE = "Example: driftline effect renewals crm --until-end"


def effect(
    app: Annotated[str, typer.Argument(help="App in driftline.toml, or module:attribute.")],
    name: Annotated[str, typer.Argument(help="Effector of the app.")],
    until_end: Annotated[bool, typer.Option("--until-end", help="Stop when every event is accounted for.")] = False,
    slot: Annotated[int, typer.Option(min=0, help="Process slot: one running process each.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as one JSON object.")] = False,
) -> None:
    """Do in the outside world what an app's boundaries committed, and report it; Ctrl-C stops after the one at hand.

    An effect is done at least once, always under the same key; its report is on the log exactly once.
    """
    from dataclasses import asdict

    from driftline.console.common import now, out, progress_bar, require_app, say
    from driftline.console.signals import stop_on_signals
    from driftline.consumers.effector_runner import EffectorRunner
    from driftline.consumers.prepare import prepare
    from driftline.log import load_settings
    from driftline.schemas import UsageError

    settings = load_settings()
    loaded = require_app(app, settings)
    effector = _find(loaded, name)
    prepare(loaded, settings)
    _tell_retries(effector.name)
    runner = EffectorRunner(loaded, effector, settings, now, slot)
    with stop_on_signals() as stopped, progress_bar(f"{loaded.name}/{effector.name}", None) as show:
        summary = runner.run(until_end, stopped, lambda counts: show(counts.done, f"{counts.failed} failed"))
    if as_json:
        out.print_json(data=asdict(summary))
    else:
        say(summary_line(f"{loaded.name}/{effector.name}", summary))
    if until_end and summary.killed:
        raise UsageError(
            f"{loaded.name} is killed, the rest waits", f"`driftline resume {loaded.name}` lets it go on"
        )


def summary_line(name: str, summary: EffectorSummary) -> str:
    """The summary for a person."""
    return (
        f"{name}: {summary.done} effects done, {summary.failed} failed, in {summary.calls} calls and "
        f"{summary.transactions} transactions; {summary.skipped} records were not for it"
    )


def _find(app: App, name: str) -> Effector:
    """The effector of a name.

    Raises:
        UsageError: The app has none.
    """
    from driftline.schemas import UsageError

    for effector in app.effectors:
        if effector.name == name:
            return effector
    known = ", ".join(effector.name for effector in app.effectors) or "none"
    raise UsageError(f"app {app.name} has no effector {name!r} (it has: {known})", "see `effectors` of its App")


def _tell_retries(name: str) -> None:
    """Say on stderr why an effect waits: stamina's own hook would write to stdout, which scripts read."""
    from stamina.instrumentation import RetryDetails, set_on_retry_hooks

    from driftline.console.common import err

    def tell(details: RetryDetails) -> Any:
        err.print(f"{name}: {details.caused_by}; again in {details.wait_for:.1f} s", style="dim", soft_wrap=True)

    set_on_retry_hooks([tell])
