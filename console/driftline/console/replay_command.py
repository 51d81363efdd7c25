"""`driftline replay`: re-run history against a candidate, and say whether it would decide otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from datetime import datetime

    from driftline.replay.segment import Selection

EXAMPLE = "Example: driftline replay --app renewals --candidate openai/gpt-4o --from 2026-09-22"

CANDIDATE, SEGMENT, TEST, OUTPUT = "What is tried", "Which decisions", "The test", "Output"

Candidates = Annotated[
    str | None, typer.Option(help="Model, provider/name; else the log's.", rich_help_panel=CANDIDATE)
]
PromptFile = Annotated[Path | None, typer.Option(help="Prompt file; else the log's.", rich_help_panel=CANDIDATE)]
Parameters = Annotated[list[str] | None, typer.Option(help="NAME=JSON over the log's.", rich_help_panel=CANDIDATE)]
Spec = Annotated[str | None, typer.Option(help="Verifier spec for an imported app.", rich_help_panel=CANDIDATE)]
From = Annotated[str | None, typer.Option("--from", help="First event time, ISO 8601.", rich_help_panel=SEGMENT)]
To = Annotated[str | None, typer.Option("--to", help="Event time at which it ends.", rich_help_panel=SEGMENT)]
Offsets = Annotated[list[str] | None, typer.Option(help="PARTITION:START-STOP.", rich_help_panel=SEGMENT)]
Streams = Annotated[list[str] | None, typer.Option(help="Only this event type.", rich_help_panel=SEGMENT)]
Keys = Annotated[list[str] | None, typer.Option(help="Only this workflow.", rich_help_panel=SEGMENT)]
SegmentFile = Annotated[Path | None, typer.Option(help="A segment file in place of Kafka.", rich_help_panel=SEGMENT)]
Alpha = Annotated[float, typer.Option(help="Bound on the chance of a false alarm.", rich_help_panel=TEST)]
Delta = Annotated[float, typer.Option(help="Rates this close are equivalent.", rich_help_panel=TEST)]
MinEffect = Annotated[float, typer.Option(help="The smallest change worth an alarm.", rich_help_panel=TEST)]
OrderSeed = Annotated[int, typer.Option(help="Of the order of workflows.", rich_help_panel=TEST)]
Concurrency = Annotated[int, typer.Option(help="Calls in flight.", rich_help_panel=TEST)]
MaxCalls = Annotated[int | None, typer.Option(help="Calls that may be paid.", rich_help_panel=TEST)]
Locate = Annotated[bool, typer.Option("--locate", help="Go on until a stratum is named.", rich_help_panel=TEST)]
Estimate = Annotated[bool, typer.Option("--estimate", help="Read on for the interval.", rich_help_panel=TEST)]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.", rich_help_panel=OUTPUT)]


def replay(
    app: Annotated[str, typer.Option(help="App in driftline.toml, module:attribute, or an imported app.")],
    candidate: Candidates = None,
    prompt: PromptFile = None,
    param: Parameters = None,
    verifier: Spec = None,
    start: From = None,
    stop: To = None,
    offsets: Offsets = None,
    stream: Streams = None,
    key: Keys = None,
    segment: SegmentFile = None,
    alpha: Alpha = 0.05,
    delta: Delta = 0.05,
    min_effect: MinEffect = 0.0,
    order_seed: OrderSeed = 0,
    concurrency: Concurrency = 8,
    max_calls: MaxCalls = None,
    locate: Locate = False,
    estimate: Estimate = False,
    as_json: AsJson = False,
) -> None:
    """Re-run the first attempt of each logged decision with its recorded context against a candidate.

    Exits 0 equivalent, 1 diverged, 2 usage, 3 unreachable, 4 inconclusive, 130 interrupted. The same command goes
    on where an interrupted run stopped: answers that were paid for are in the ledger.
    """
    from driftline.console.common import out
    from driftline.console.render import print_report
    from driftline.console.replay_run import ReplayRequest, run_replay
    from driftline.consumers.prompt import Prompt
    from driftline.replay.arms import Candidate
    from driftline.replay.harness import Limits
    from driftline.replay.report import EXIT_CODES

    request = ReplayRequest(
        app=app,
        candidate=Candidate(
            candidate, None if prompt is None else Prompt.from_file(prompt), _parameters(param or [])
        ),
        selection=selection_of(start, stop, offsets or [], stream or [], key or []),
        limits=Limits(alpha, delta, min_effect, order_seed, concurrency, max_calls, locate, estimate),
        verifier=verifier,
        segment_file=segment,
    )
    done = run_replay(request)
    if as_json:
        out.print_json(data=done.report)
    else:
        print_report(out, done)
    raise typer.Exit(EXIT_CODES[done.report["verdict"]])


def _parameters(given: list[str]) -> dict[str, object]:
    import json

    from driftline.schemas import BadInput

    parameters = {}
    for text in given:
        name, equals, value = text.partition("=")
        try:
            parameters[name] = json.loads(value)
        except json.JSONDecodeError:
            raise BadInput(f"--param {text!r}: not NAME=JSON", "for example --param temperature=0.2") from None
        if not name or not equals:
            raise BadInput(f"--param {text!r}: not NAME=JSON", "for example --param temperature=0.2")
    return parameters


def selection_of(
    start: str | None,
    stop: str | None,
    offsets: Sequence[str] = (),
    streams: Sequence[str] = (),
    keys: Sequence[str] = (),
) -> Selection:
    """The decisions that options select.

    Raises:
        BadInput: A time or a range has another form.
    """
    from driftline.replay.segment import Selection

    return Selection(
        start=_time("--from", start),
        stop=_time("--to", stop),
        offsets=_ranges(offsets) or None,
        streams=frozenset(streams),
        keys=frozenset(keys),
    )


def _time(option: str, text: str | None) -> datetime | None:
    """A time of the user's; without a zone it is UTC, as all event times are shown."""
    from datetime import UTC, datetime

    from driftline.schemas import BadInput

    if text is None:
        return None
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise BadInput(
            f"{option} {text!r} is not an ISO 8601 time", "for example 2026-09-22 or 2026-09-22T06:00Z"
        ) from None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _ranges(texts: Sequence[str]) -> dict[int, tuple[int, int]]:
    from driftline.schemas import BadInput

    found: dict[int, tuple[int, int]] = {}
    for text in texts:
        partition, bounds = _range(text)
        if partition in found:
            raise BadInput(f"--offsets names partition {partition} twice", "give one range a partition")
        found[partition] = bounds
    return found


def _range(text: str) -> tuple[int, tuple[int, int]]:
    import re

    from driftline.schemas import BadInput

    found = re.fullmatch(r"(\d+):(\d+)-(\d+)", text)
    if found is None:
        raise BadInput(f"--offsets {text!r} is not PARTITION:START-STOP", "for example --offsets 0:100-250")
    return int(found[1]), (int(found[2]), int(found[3]))
