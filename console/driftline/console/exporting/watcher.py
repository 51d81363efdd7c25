"""Keeping up with the log for the exporter: the alerts as they come, and every app's standing every few seconds."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from pydantic import TypeAdapter, ValidationError

from driftline.console.exporting.board import AlertBoard, LabelLimits
from driftline.console.exporting.collector import LogState
from driftline.console.exporting.standings import REQUEST_TIMEOUT_S, AppStanding, read_standing
from driftline.console.health import Health
from driftline.log import ALERTS, KafkaReader, Record, Settings
from driftline.log.tail import TopicTail
from driftline.schemas import (
    Alert,
    Codec,
    Contracts,
    EnvironmentUnreachable,
    Registry,
    Undecodable,
    UsageError,
)
from driftline.schemas.registry import subject_name

LOOK_S = 15.0
"""Between two looks at the apps' standing; a scrape interval."""
RETRY_S = 5.0
"""After a failure, before the log is asked again."""
POLL_S = 0.2
"""Bounds how long a stop waits while all is well."""

_ASKED = subject_name(ALERTS, "driftline.ReplayCompleted")
"""Of the registry, whether it is there: its answer is small, and no client keeps it."""
_ALERT: TypeAdapter[Alert] = TypeAdapter(Alert)
_log = logging.getLogger("driftline.exporter")


class Watcher:
    """Reads `driftline.alerts` from its beginning and then follows it, in no group and writing nothing.

    A broker or registry that is away ends nothing: what was seen stays on show with `up` at 0, and after `RETRY_S`
    the topic is read anew.

    Args:
        settings: Where the log is.
        show: Told the state each time it changed.
        health: Told that the loop turns, and whether the log answers.
        look_s: See `LOOK_S`.
        retry_s: See `RETRY_S`.
        limits: Bounds on the label sets.
        nights: Dollars that a night may cost, by each app that has nights; None where nobody said which have, and
            every configured app is one that is to have them.
        clock: Seconds, never going back.
        sleep: Waits.
    """

    def __init__(
        self,
        settings: Settings,
        show: Callable[[LogState], None],
        health: Health,
        look_s: float = LOOK_S,
        retry_s: float = RETRY_S,
        limits: LabelLimits | None = None,
        nights: Mapping[str, float | None] | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._settings = settings
        self._show = show
        self._health = health
        self._look_s = look_s
        self._retry_s = retry_s
        self._limits = limits
        self._clock = clock
        self._sleep = sleep
        budgets = {app: usd for app, usd in (nights or {}).items() if usd is not None}
        self._state = LogState(apps=tuple(settings.apps if nights is None else nights), budgets=budgets)

    def run(self, stopped: Callable[[], bool]) -> None:
        """Follow the log until `stopped`."""
        self._show(self._state)
        while not stopped():
            try:
                self._follow(stopped)
            except (EnvironmentUnreachable, UsageError, TimeoutError) as error:
                _log.warning("the log cannot be read: %s", error)
                self._tell(up=False, why=str(error))
                self._wait(stopped)

    def _follow(self, stopped: Callable[[], bool]) -> None:
        """From the beginning of the alerts until a stop."""
        KafkaReader(self._settings, REQUEST_TIMEOUT_S).span(ALERTS)  # fails sooner than the tail would
        registry = Registry(self._settings.require_registry(), timeout_s=REQUEST_TIMEOUT_S)
        fold = _Fold(Codec(registry, Contracts.load()), self._limits)
        tail = TopicTail(self._settings, ALERTS)
        try:
            fold.take(tail.open())
            look_at = self._clock()
            while not stopped():
                if self._clock() >= look_at:
                    self._look(fold)
                    look_at = self._clock() + self._look_s
                records = tail.poll(POLL_S)
                self._health.beat()
                if records:
                    fold.take(records)
                    self._put(fold)
        finally:
            tail.close()

    def _look(self, fold: _Fold) -> None:
        KafkaReader(self._settings, REQUEST_TIMEOUT_S).span(ALERTS)  # with no app it is the only question
        fold.registry.versions(_ASKED)
        standings = {}
        for app in self._settings.apps:
            if (standing := self._standing(app)) is not None:
                standings[app] = standing
        self._state = replace(self._state, standings=standings)
        self._put(fold)

    def _standing(self, app: str) -> AppStanding | None:
        """None for an app that cannot be asked about: most likely it has no topics yet."""
        try:
            return read_standing(self._settings, app)
        except UsageError as error:
            _log.warning("%s is not shown: %s", app, error)
            return None

    def _put(self, fold: _Fold) -> None:
        self._state = replace(self._state, board=fold.board.snapshot(), unreadable=fold.unreadable)
        self._tell(up=True)

    def _tell(self, up: bool, why: str = "") -> None:
        self._state = replace(self._state, up=up)
        self._show(self._state)
        self._health.ready(up, why)

    def _wait(self, stopped: Callable[[], bool]) -> None:
        again_at = self._clock() + self._retry_s
        while not stopped() and self._clock() < again_at:
            self._health.beat()
            self._sleep(POLL_S)


class _Fold:
    """A board, and how many records could not be read onto it."""

    def __init__(self, codec: Codec, limits: LabelLimits | None) -> None:
        self.board = AlertBoard(limits)
        self.unreadable = 0
        self._codec = codec

    @property
    def registry(self) -> Registry:
        """Which knows the schemas of the records."""
        return self._codec.registry

    def take(self, records: Sequence[Record]) -> None:
        """Fold records in; one that no retry can read is counted and passed over.

        Raises:
            RegistryUnreachable: A schema is new and the registry does not answer: read anew later.
        """
        for record in records:
            try:
                self.board.take(_ALERT.validate_python(self._codec.decode(record.value).value))
            except (Undecodable, ValidationError):
                self.unreadable += 1
                _log.warning("%s cannot be read as an alert", str(record.at))
