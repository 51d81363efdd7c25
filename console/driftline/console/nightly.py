"""`driftline nightly`: one night of one app after another, each part counted once however often it is run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property, partial
from typing import Any

from driftline.console.common import Log, open_subject, progress_bar
from driftline.console.nightly_config import NightlyApp, NightlyConfig
from driftline.console.nightly_runs import NightRun, run_candidate, run_incumbent
from driftline.console.publishing import publish_night
from driftline.detectors import planned_order
from driftline.log import AppTopics, Coordinates, Settings, load_settings
from driftline.replay.night_range import night_ranges, require_history
from driftline.replay.nights import INCONCLUSIVE
from driftline.replay.nights_kept import KeptNights, Night, NightsFolder
from driftline.replay.plain import plain
from driftline.replay.segment import EmptySegment, Segment, Selection, load_segment
from driftline.replay.subject import RecordedSubject, Subject
from driftline.replay.verify import Plain, verify_data, verify_log
from driftline.schemas import BadInput, DriftlineError
from driftline.schemas.alerts import NIGHTLY_MODE

VERIFY, INCUMBENT = "verify", "incumbent"
EMPTY: dict[str, Any] = {"verdict": None, "decisions": 0}
"""The part of a night in which nothing was decided."""


@dataclass(frozen=True)
class NightDone:
    """One night of one app: what was counted, now or earlier, or why it was not."""

    app: str
    night: str
    decisions: int = 0
    parts: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By part: `verify`, `incumbent`, and the labels of candidates."""
    already: bool = False
    """Whether all of it had been counted before: nothing was asked, paid or published."""
    errors: tuple[DriftlineError, ...] = ()
    """Why it is not counted, or not the parts that are missing."""

    @property
    def error(self) -> DriftlineError | None:
        """The first of them."""
        return next(iter(self.errors), None)


def run_nightly(config: NightlyConfig, nights: Sequence[date]) -> list[NightDone]:
    """Run the nights of all apps in order. What goes wrong with one app ends its nights, and no other app's.

    A part that is counted is not run again; one that was interrupted goes on from the ledger. One that fails leaves
    the other parts and nights what they are. A night whose parts are all counted is told on `driftline.alerts`, once.

    Raises:
        BadInput: The settings are wrong.
    """
    settings = load_settings()
    return [done for name, app in config.apps.items() for done in _run_app(name, app, config, nights, settings)]


def _run_app(
    name: str, app: NightlyApp, config: NightlyConfig, nights: Sequence[date], settings: Settings
) -> Iterator[NightDone]:
    folder, opened = NightsFolder(settings.home, name), _Opened(name, app)
    current = nights[0]
    try:
        with folder.locked():
            kept = folder.load()
            for current in nights:
                yield _Tonight(opened, folder, kept, config, current).run()
    except DriftlineError as error:
        yield NightDone(name, current.isoformat(), errors=(error,))


@dataclass
class _Opened:
    """An app's rules and log, connected when the first night needs them."""

    name: str
    app: NightlyApp

    @cached_property
    def _both(self) -> tuple[Subject, Log]:
        return open_subject(self.name, None if self.app.verifier is None else str(self.app.verifier))

    @property
    def subject(self) -> Subject:
        return self._both[0]

    @property
    def log(self) -> Log:
        return self._both[1]


@dataclass
class _Seen:
    """Where the night's decisions lie: what they say is read again for those alone that are asked about."""

    workflows: set[str] = field(default_factory=set)
    ranges: dict[int, tuple[int, int]] = field(default_factory=dict)

    def add(self, at: Coordinates, decision: Plain) -> None:
        self.workflows.add(decision["workflow"])
        first, stop = self.ranges.get(at.partition, (at.offset, at.offset + 1))
        self.ranges[at.partition] = min(first, at.offset), max(stop, at.offset + 1)

    def drawn(self, sample: int | None, seed: int) -> frozenset[str]:
        """So many workflows; empty for all. The larger draw of the same seed holds the smaller one."""
        names = sorted(self.workflows)
        if sample is None or sample >= len(names):
            return frozenset()
        return frozenset(names[index] for index in planned_order(names, seed)[:sample])


class _Tonight:
    """One night of one app."""

    def __init__(
        self, opened: _Opened, folder: NightsFolder, kept: KeptNights, config: NightlyConfig, night: date
    ) -> None:
        self._opened = opened
        self._folder = folder
        self._kept = kept
        self._app = opened.app
        self._night = night.isoformat()
        self._span = config.span(night)
        self._seen = _Seen()

    def run(self) -> NightDone:
        """1. what today's rules say, which is free and finds the decisions; 2. the incumbent; 3. the candidates.

        Each part is counted when its alerts are published and its files written, in one write with its evidence. When
        all are, the night is told, and counts as a whole from then on.
        """
        counted = self._kept.nights.get(self._night)
        if counted is not None and not self._missing(counted) and NIGHTLY_MODE in counted.parts:
            return self._done(counted, already=True)
        night = self._verify(counted) if counted is None or self._missing(counted) else counted
        errors = self._ask(night) if night.decisions else []
        if not errors and NIGHTLY_MODE not in night.parts:
            self._tell(night)
        return self._done(night, errors=tuple(errors))

    @property
    def _wanted(self) -> list[str]:
        labels = [self._app.label(candidate) for candidate in self._app.candidates]
        return [VERIFY, *([INCUMBENT] if self._app.incumbent is not None else []), *labels]

    def _missing(self, night: Night) -> list[str]:
        return [part for part in self._wanted if part not in night.parts]

    def _done(self, night: Night, already: bool = False, errors: tuple[DriftlineError, ...] = ()) -> NightDone:
        parts = {part: self._read_today(night.parts[part]) for part in self._wanted if part in night.parts}
        return NightDone(self._opened.name, self._night, night.decisions, parts, already, errors)

    def _read_today(self, part: dict[str, Any]) -> dict[str, Any]:
        """A part with the smallest effect that later nights are tested for, where that is another one now."""
        today = self._app.limits.min_effect
        return part if part.get("min_effect", today) == today else {**part, "min_effect_later": today}

    def _verify(self, counted: Night | None) -> Night:
        log, subject = self._opened.log, self._opened.subject
        try:
            with progress_bar(f"{subject.name} {self._night}: verifying", None) as show:
                given = log.reader, log.codec, subject, self._selected(), show, self._seen.add
                result = verify_log(*given)
        except EmptySegment:
            night = self._without_decisions(counted)
        else:
            night = counted if counted is not None and counted.decisions else Night(result.decisions)
            night.parts.setdefault(VERIFY, plain(verify_data(subject.name, result)))
        self._count(night)
        return night

    def _without_decisions(self, counted: Night | None) -> Night:
        """An empty night, if it is one: what was counted of decisions that are deleted since stays."""
        if counted is not None and counted.decisions:
            return counted
        log, subject, (_, last) = self._opened.log, self._opened.subject, self._span
        if counted is None and not isinstance(subject, RecordedSubject):
            require_history(log.reader, log.codec, AppTopics(subject.name).decisions, last)
        known = {} if counted is None else counted.parts
        return Night(0, {**known, **{part: dict(EMPTY) for part in self._wanted}})

    def _selected(self) -> Selection:
        """The night's part of the log; of a recording all, because its lines lie in any order."""
        log, subject, (first, last) = self._opened.log, self._opened.subject, self._span
        if isinstance(subject, RecordedSubject):
            return Selection(decided_from=first, decided_to=last)
        offsets = night_ranges(log.reader, log.codec, AppTopics(subject.name).decisions, first, last)
        return Selection(offsets=offsets, decided_from=first, decided_to=last)

    def _ask(self, night: Night) -> list[DriftlineError]:
        """Run what is missing; what went wrong with any of it."""
        errors = []
        for part, run in self._runs():
            if part not in night.parts:
                try:
                    night.parts[part] = run(self._night_run(night, self._segment(part)))
                except DriftlineError as error:
                    errors.append(error)
                else:
                    self._count(night)
        return errors

    def _tell(self, night: Night) -> None:
        """Publish the record of the night; then it counts as a whole."""
        verdict = night.parts[VERIFY]["verdict"] or INCONCLUSIVE
        given = self._opened.name, self._night, self._span[1], night.decisions, verdict, self._app.run_limits(None)
        placed = publish_night(self._opened.log, *given)
        night.parts[NIGHTLY_MODE] = {"verdict": verdict, "decisions": night.decisions, "alert": str(placed)}
        self._count(night)

    def _runs(self) -> Iterator[tuple[str, Callable[[NightRun], dict[str, Any]]]]:
        incumbent = self._app.incumbent
        if incumbent is not None:
            yield INCUMBENT, partial(run_incumbent, given=incumbent)
        for candidate in self._app.candidates:
            yield self._app.label(candidate), partial(run_candidate, given=candidate)

    def _segment(self, part: str) -> Segment:
        incumbent = self._app.incumbent
        sample = incumbent.sample if part == INCUMBENT and incumbent is not None else self._app.sample
        keys = self._seen.drawn(sample, self._app.order_seed)
        return self._loaded(keys)

    def _loaded(self, keys: frozenset[str]) -> Segment:
        if not self._seen.workflows:
            mend = "give a later night with --since or --date: what was counted of this one stays"
            raise BadInput(f"the log no longer holds the decisions of the night of {self._night}", mend)
        log, (first, last) = self._opened.log, self._span
        wanted = Selection(offsets=dict(self._seen.ranges), keys=keys, decided_from=first, decided_to=last)
        return load_segment(log.reader, log.codec, self._opened.subject.name, wanted)

    def _night_run(self, night: Night, segment: Segment) -> NightRun:
        spent = sum(part.get("paid_usd", 0.0) for part in night.parts.values())
        return NightRun(
            night=self._night,
            app=self._app,
            kept=self._kept,
            subject=self._opened.subject,
            log=self._opened.log,
            segment=segment,
            usd=_share(self._app.limits.budget_usd, spent, len(self._missing(night))),
            parquet=self._folder.of_night(self._night),
        )

    def _count(self, night: Night) -> None:
        self._kept.nights[self._night] = night
        self._folder.save(self._kept)


def _share(budget: float | None, spent: float, runs_left: int) -> float | None:
    """Dollars of the next run; what is left of a spent budget is as good as nothing."""
    return None if budget is None else max((budget - spent) / runs_left, 1e-12)
