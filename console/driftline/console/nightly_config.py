"""The file of `driftline nightly`: which apps are replayed every night, against what, and what it may cost."""

from __future__ import annotations

import tomllib
from datetime import UTC, date, datetime, time, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, field_validator

from driftline.consumers.prompt import Prompt
from driftline.replay.arms import Candidate
from driftline.replay.plain import plain
from driftline.replay.result import Limits
from driftline.schemas import BadInput, UsageError, canonical_json, content_hash

LABEL_DIGITS = 12
APP_NAME = r"^[a-z][a-z0-9_-]{0,99}$"
FIRST_NIGHT = date(1970, 1, 2)
"""Kafka's time begins on the day before, and a night is looked for beyond its ends."""


class _Given(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class NightlyLimits(_Given):
    """What one night of an app may do and cost, all its runs together."""

    budget_usd: float | None = Field(default=None, gt=0)
    """Dollars; what a run leaves, those after it may use."""
    max_calls: int | None = Field(default=None, ge=1)
    """Calls, one or more for each run; shared out evenly beforehand, so that what one run finds changes no other."""
    alpha: float = Field(default=0.05, gt=0, lt=1)
    """Bound on the chance of a false alarm of a candidate, over all nights together. Another one reads the same
    evidence, on the nights to come."""
    delta: float = Field(default=0.05, gt=0, le=1)
    """Rates this close are equivalent."""
    min_effect: float = Field(default=0.0, ge=0, lt=1)
    """The smallest change worth an alarm. With another one evidence begins anew, on the nights to come."""
    concurrency: int = Field(default=8, ge=1)
    """Calls in flight."""
    requests_per_minute: float | None = Field(default=None, gt=0)
    """Of each model."""
    tokens_per_minute: float | None = Field(default=None, gt=0)
    """Of each model, read and written."""
    allow_unpriced: bool = False
    """Run though a price is unknown."""


class NightlyIncumbent(_Given):
    """The check of the log against the incumbent of today."""

    model: str = "log"
    """What is asked: `log` for what the log says, or a model."""
    sample: int = Field(default=100, ge=1)
    """Workflows a night, drawn by `order_seed`, each with all its decisions of the night."""
    decisions_between_alarms: float = Field(default=10_000.0, gt=1)
    """Of the e-detector: the mean number of decisions up to a false alarm is at least this."""

    @property
    def arm(self) -> Candidate:
        """Who is asked."""
        return Candidate(None if self.model == "log" else self.model, incumbent=True)


class NightlyCandidate(_Given):
    """What is tried; what is left out is the log's."""

    model: str | None = None
    """`provider/name`."""
    prompt: Path | None = None
    """A file, from the folder of the configuration."""
    parameters: dict[str, JsonValue] = {}
    """Laid over the log's."""

    @cached_property
    def arm(self) -> Candidate:
        """It, ready to be asked.

        Raises:
            BadInput: The prompt cannot be read.
            UsageError: It changes nothing, or its model has no provider.
        """
        return Candidate(self.model, None if self.prompt is None else Prompt.from_file(self.prompt), self.parameters)

    @property
    def name(self) -> str:
        """For people."""
        prompt = "" if self.prompt is None else self.prompt.name
        parameters = "" if not self.parameters else canonical_json(self.parameters)
        return " ".join(part for part in (self.model, prompt, parameters) if part)


class NightlyApp(_Given):
    """One app's night."""

    incumbent: NightlyIncumbent | None = None
    candidates: list[NightlyCandidate] = []
    limits: NightlyLimits = NightlyLimits()
    sample: int | None = Field(default=None, ge=1)
    """Workflows a night that candidates are asked about, drawn by `order_seed`; None for all."""
    order_seed: int = 0
    """Of the order of workflows, and of the draws."""
    verifier: Path | None = None
    """Verifier spec of an imported app."""

    def label(self, candidate: NightlyCandidate) -> str:
        """What a candidate's part of a night is called: the same for the same candidate, whatever the limits.

        So a night counts once for it: other limits hold on the nights that are not counted yet.
        """
        arm = candidate.arm
        prompt = None if arm.prompt is None else arm.prompt.hash
        return content_hash(canonical_json([arm.model, prompt, plain(arm.parameters)]))[:LABEL_DIGITS]

    @property
    def runs(self) -> int:
        """How many of a night ask somebody."""
        return len(self.candidates) + (self.incumbent is not None)

    def run_limits(self, usd: float | None) -> Limits:
        """Of one of the night's runs, that may pay so many dollars."""
        given = self.limits
        return Limits(
            alpha=given.alpha,
            delta=given.delta,
            min_effect=given.min_effect,
            order_seed=self.order_seed,
            concurrency=given.concurrency,
            calls_max=None if given.max_calls is None else given.max_calls // max(1, self.runs),
            usd_max=usd,
            requests_per_minute=given.requests_per_minute,
            tokens_per_minute=given.tokens_per_minute,
        )


class NightlyConfig(_Given):
    """All apps of the file."""

    timezone: str = "UTC"
    """A night is a calendar day in it, by the time of decision."""
    apps: dict[str, NightlyApp] = {}
    """Empty where no app has nights, as in an empty file."""

    @field_validator("timezone")
    @classmethod
    def _known(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (KeyError, OSError, ValueError):
            raise ValueError("no such time zone; name it as Europe/Prague") from None
        return name

    @field_validator("apps")
    @classmethod
    def _named(cls, apps: dict[str, NightlyApp]) -> dict[str, NightlyApp]:
        import re

        for name, app in apps.items():
            if not re.fullmatch(APP_NAME, name):
                raise ValueError(f"{name!r} is no app's name: name it as in driftline.toml")
            labels = [app.label(candidate) for candidate in app.candidates]
            if len(set(labels)) != len(labels):
                raise ValueError(f"{name} tries one candidate twice")
            if app.limits.max_calls is not None and app.limits.max_calls < app.runs:
                few, runs = app.limits.max_calls, app.runs
                raise ValueError(f"{name}: max_calls = {few} does not hold one call for each of its {runs} runs")
        return apps

    def span(self, night: date) -> tuple[datetime, datetime]:
        """Beginning and end of a night, UTC."""
        zone = ZoneInfo(self.timezone)
        days = night, night + timedelta(days=1)
        first, last = (datetime.combine(day, time(), zone).astimezone(UTC) for day in days)
        return first, last

    def nights(self, last: date | None, since: date | None, now: datetime) -> list[date]:
        """The nights that are asked for, in order; without a date the last one that is over.

        Raises:
            UsageError: One of them is not over or before `FIRST_NIGHT`, or they end before they begin.
        """
        today = now.astimezone(ZoneInfo(self.timezone)).date()
        last = last or today - timedelta(days=1)
        if last >= today:
            raise UsageError(
                f"the night of {last} is not over in {self.timezone}", f"wait, or give a --date before {today}"
            )
        first = since or last
        if first > last:
            raise UsageError(f"--since {first} is after {last}", "give an earlier day")
        if first < FIRST_NIGHT:
            raise UsageError(f"nothing was decided in the night of {first}", f"give a day from {FIRST_NIGHT} on")
        return [first + timedelta(days=number) for number in range((last - first).days + 1)]


def load_config(path: Path) -> NightlyConfig:
    """Read the file; paths in it are taken from its folder.

    Raises:
        BadInput: It cannot be read, or says what cannot be.
    """
    mend = "deploy/nightly.example.toml shows all that can be said"
    try:
        given = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}", "give the file with --config") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: not TOML: {error}", mend) from error
    try:
        return NightlyConfig.model_validate(_resolved(given, path.resolve().parent))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BadInput(f"{path}: {where}: {first['msg'].removeprefix('Value error, ')}", mend) from None


def _resolved(given: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The same with paths that hold wherever the command is run."""
    apps = given.get("apps")
    for app in apps.values() if isinstance(apps, dict) else ():
        if not isinstance(app, dict):
            continue
        candidates = app.get("candidates")
        places = [(app, "verifier"), *((one, "prompt") for one in candidates or () if isinstance(one, dict))]
        for holder, name in places:
            if isinstance(holder.get(name), str):
                holder[name] = folder / holder[name]
    return given
