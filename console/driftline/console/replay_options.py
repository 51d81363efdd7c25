"""The options of `driftline replay` as Typer shows them, and what their texts mean."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from driftline.replay.arms import Incumbent
    from driftline.replay.segment import Selection


class Mode(StrEnum):
    """How history is replayed."""

    FORCED = "forced"
    VERIFY = "verify"
    FREE = "free"
    SHADOW = "shadow"


class What(StrEnum):
    """What is done in place of the replay."""

    PLAN = "plan"


CANDIDATE, SEGMENT, TEST, OUTPUT = "What is tried", "Which decisions", "The test", "Output"
BESIDE, SPENDING = "What it is held against beside the log", "What it may cost"
LOG_INCUMBENT = "log"
"""The incumbent is what the log says: its model, prompt and parameters."""

Action = Annotated[What | None, typer.Argument(help="plan: say what it will cost and can find, and spend nothing.")]
AppName = Annotated[str, typer.Option(help="App in driftline.toml, module:attribute, or an imported app.")]
ReplayMode = Annotated[
    Mode,
    typer.Option(
        help="forced: each decision anew. verify: today's rules, no calls. free: whole workflows in a sandbox. "
        "shadow: the live topic."
    ),
]
Candidates = Annotated[
    list[str] | None,
    typer.Option(
        help="Model, provider/name, or log for the log's. What it has of its own stands behind commas: "
        "openai/gpt-4o,prompt=v2.md,temperature=0.2. Several are tried one after another.",
        rich_help_panel=CANDIDATE,
    ),
]
PromptName = Annotated[
    str | None,
    typer.Option(
        help="Prompt file, or six digits or more of the hash of a prompt on the log; else the log's. Of all "
        "candidates that name none.",
        rich_help_panel=CANDIDATE,
    ),
]
Parameters = Annotated[
    list[str] | None,
    typer.Option(help="NAME=JSON over the log's, of all candidates.", rich_help_panel=CANDIDATE),
]
Spec = Annotated[
    str | None,
    typer.Option(help="Verifier spec for an imported app, of all that name none.", rich_help_panel=CANDIDATE),
]

IncumbentModel = Annotated[
    str | None,
    typer.Option(
        "--incumbent",
        help="Ask the incumbent too, as it is today, to tell environment from model: log for what the log says, or "
        "a model.",
        rich_help_panel=BESIDE,
    ),
]
FloorRuns = Annotated[
    int | None,
    typer.Option(
        "--floor", min=1, help="So many runs of the incumbent: how it differs from itself.", rich_help_panel=BESIDE
    ),
]
Mmd = Annotated[
    bool | None,
    typer.Option(
        "--mmd/--no-mmd",
        help="Four further calls a decision where strata stay open. Unless said: where an incumbent is asked and a "
        "budget has some left.",
        rich_help_panel=TEST,
        show_default=False,
    ),
]

From = Annotated[
    str | None,
    typer.Option("--from", help="First event time: ISO 8601, today, yesterday, 7d, 12h.", rich_help_panel=SEGMENT),
]
To = Annotated[str | None, typer.Option("--to", help="Event time at which it ends.", rich_help_panel=SEGMENT)]
Offsets = Annotated[list[str] | None, typer.Option(help="PARTITION:START-STOP.", rich_help_panel=SEGMENT)]
Streams = Annotated[list[str] | None, typer.Option(help="Only this event type.", rich_help_panel=SEGMENT)]
Keys = Annotated[list[str] | None, typer.Option(help="Only this workflow.", rich_help_panel=SEGMENT)]
Sample = Annotated[
    int | None, typer.Option(help="So many workflows, drawn by --order-seed.", rich_help_panel=SEGMENT)
]
SegmentFile = Annotated[Path | None, typer.Option(help="A segment file in place of Kafka.", rich_help_panel=SEGMENT)]

Alpha = Annotated[float, typer.Option(help="Bound on the chance of a false alarm.", rich_help_panel=TEST)]
Delta = Annotated[float, typer.Option(help="Rates this close are equivalent.", rich_help_panel=TEST)]
MinEffect = Annotated[float, typer.Option(help="The smallest change worth an alarm.", rich_help_panel=TEST)]
OrderSeed = Annotated[int, typer.Option(help="Of the order of workflows.", rich_help_panel=TEST)]
Locate = Annotated[bool, typer.Option("--locate", help="Go on until a stratum is named.", rich_help_panel=TEST)]
Estimate = Annotated[bool, typer.Option("--estimate", help="Read on for the interval.", rich_help_panel=TEST)]
For = Annotated[str | None, typer.Option("--for", help="shadow: follow for so long, 10m.", rich_help_panel=TEST)]

Budget = Annotated[
    float | None,
    typer.Option("--budget-usd", help="Dollars that the run of each candidate may pay.", rich_help_panel=SPENDING),
]
MaxCalls = Annotated[
    int | None, typer.Option(help="Calls that may be paid of each candidate.", rich_help_panel=SPENDING)
]
Concurrency = Annotated[int, typer.Option(help="Calls in flight.", rich_help_panel=SPENDING)]
RequestRate = Annotated[
    float | None, typer.Option("--requests-per-minute", help="Of each model.", rich_help_panel=SPENDING)
]
TokenRate = Annotated[
    float | None, typer.Option("--tokens-per-minute", help="Of each model.", rich_help_panel=SPENDING)
]
AllowUnpriced = Annotated[
    bool, typer.Option("--allow-unpriced", help="Run though a price is unknown.", rich_help_panel=SPENDING)
]
Refresh = Annotated[
    bool,
    typer.Option("--refresh", help="Ask anew what the ledger holds; resume without it.", rich_help_panel=SPENDING),
]

Html = Annotated[Path | None, typer.Option(help="Write the run as one HTML page.", rich_help_panel=OUTPUT)]
Markdown = Annotated[Path | None, typer.Option(help="Write it as Markdown.", rich_help_panel=OUTPUT)]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.", rich_help_panel=OUTPUT)]


def given_in(context: typer.Context) -> list[str]:
    """Names of the parameters that the command line itself gives, be it with their default."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return [name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"]


def parameters_of(given: Sequence[str]) -> dict[str, object]:
    """Model parameters of `NAME=JSON`.

    Raises:
        BadInput: One has another form.
    """
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


def incumbent_of(model: str | None, runs: int | None) -> Incumbent | None:
    """The arm A' that options name; None for none. A floor alone is one of what the log says.

    Raises:
        UsageError: The model string has no provider.
    """
    from driftline.replay.arms import Candidate, Incumbent

    if model is None and runs is None:
        return None
    asked = None if model in (None, LOG_INCUMBENT) else model
    return Incumbent(Candidate(asked, incumbent=True), runs or 1)


def selection_of(
    start: str | None,
    stop: str | None,
    offsets: Sequence[str] = (),
    streams: Sequence[str] = (),
    keys: Sequence[str] = (),
    sample: int | None = None,
    seed: int = 0,
) -> Selection:
    """The decisions that options select.

    Raises:
        BadInput: A time or a range has another form.
    """
    from driftline.console.common import now
    from driftline.replay.segment import Selection

    return Selection(
        start=time_of("--from", start, now()),
        stop=time_of("--to", stop, now()),
        offsets=_ranges(offsets) or None,
        streams=frozenset(streams),
        keys=frozenset(keys),
        sample=sample,
        sample_seed=seed,
    )


def time_of(option: str, text: str | None, now: datetime) -> datetime | None:
    """A time of the user's; without a zone it is UTC, as all event times are shown.

    Days (`today`, `yesterday`, `7d`) begin at midnight UTC, so that a command means the same all day long; hours and
    minutes (`12h`, `30m`) count back from now.

    Raises:
        BadInput: It has another form.
    """
    from datetime import UTC, datetime

    from driftline.schemas import BadInput

    if text is None:
        return None
    relative = _relative(text, now)
    if relative is not None:
        return relative
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise BadInput(
            f"{option} {text!r} is not an ISO 8601 time",
            "for example 2026-09-22, 2026-09-22T06:00Z, yesterday, 7d or 12h",
        ) from None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def duration_of(option: str, text: str) -> timedelta:
    """A length of time: `90s`, `10m`, `2h`, `1d`.

    Raises:
        BadInput: It has another form.
    """
    import re
    from datetime import timedelta

    from driftline.schemas import BadInput

    found = re.fullmatch(r"([0-9]+)([smhd])", text)
    if found is None or len(found[1]) > DIGITS_MAX:
        raise BadInput(f"{option} {text!r} is no length of time", "for example 90s, 10m, 2h or 1d")
    unit = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}[found[2]]
    return timedelta(**{unit: int(found[1])})


DIGITS_MAX = 6
"""Of a length of time; a timedelta ends at 10^9 days."""


def _relative(text: str, now: datetime) -> datetime | None:
    import re
    from datetime import timedelta

    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    if text in ("today", "yesterday"):
        return midnight - timedelta(days=text == "yesterday")
    if not re.fullmatch(r"[0-9]{1,5}[smhd]", text):
        return None
    return (midnight if text.endswith("d") else now) - duration_of("", text)


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
