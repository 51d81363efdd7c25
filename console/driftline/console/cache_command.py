"""`driftline cache`: what the ledger of answers holds, and making it smaller."""

from __future__ import annotations

from typing import Annotated

import typer

cache_app = typer.Typer(help="The ledger: answers that were paid for.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print as JSON.")]


@cache_app.command("stats", epilog="Example: driftline cache stats")
def stats(as_json: AsJson = False) -> None:
    """Answers, dollars and age of what the ledger holds, by model."""
    from dataclasses import asdict

    from driftline.console.common import out, say
    from driftline.console.replay_run import LEDGER
    from driftline.log import load_settings
    from driftline.replay.ledger import Ledger

    path = load_settings().home / LEDGER
    held = []
    if path.exists():
        ledger = Ledger(path)
        held = ledger.stats()
        ledger.close()
    if as_json:
        out.print_json(data={"ledger": str(path), "models": [asdict(one) for one in held]})
        return
    say(f"{path}: {sum(one.answers for one in held)} answers")
    for one in held:
        cost = "price unknown" if one.cost_usd is None else f"${one.cost_usd:.4f}"
        retired = f" ({one.retired} retired)" if one.retired else ""
        span = f"{one.first_at[:16]} to {one.last_at[:16]}"
        say(f"  {one.model}: {one.answers} answers{retired}, {one.runs} runs, {cost}, {one.bytes:,} bytes, {span}")


@cache_app.command("prune", epilog="Example: driftline cache prune --older-than 90d")
def prune(
    older_than: Annotated[str | None, typer.Option("--older-than", help="Answered before: 90d, 12h.")] = None,
    model: Annotated[str | None, typer.Option(help="Only this model's.")] = None,
    retired: Annotated[bool, typer.Option("--retired", help="Only what --refresh has replaced.")] = False,
) -> None:
    """Remove answers for good: what is asked again is paid again. Without an option nothing is removed."""
    from driftline.console.common import now, say
    from driftline.console.replay_options import duration_of
    from driftline.console.replay_run import LEDGER
    from driftline.log import load_settings
    from driftline.replay.ledger import Ledger
    from driftline.schemas import UsageError
    from driftline.schemas.cloudevents import format_time

    if older_than is None and model is None and not retired:
        raise UsageError("say what is to be removed", "give --older-than 90d, --model NAME or --retired")
    before = None if older_than is None else format_time(now() - duration_of("--older-than", older_than))
    path = load_settings().home / LEDGER
    if not path.exists():
        say(f"{path}: there is no ledger")
        return
    ledger = Ledger(path)
    try:
        say(f"{ledger.prune(before, model, retired)} answers removed from {path}")
    finally:
        ledger.close()
