"""What `driftline doctor` finds, and what its checks are given."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from driftline.consumers.app import App
from driftline.log import AppTopics, Settings, TopicSpec
from driftline.log.topics import own_specs


class Status(StrEnum):
    """How it stands with one thing."""

    OK = "ok"
    WARN = "warn"
    """Something will not work, or not for long; what was asked for may."""
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line."""

    status: Status
    what: str
    mend: str = ""
    """A command, or what to tell whom; empty where there is nothing to mend."""
    area: str = ""
    unreachable: bool = False
    """Whether nobody answered."""


@dataclass
class Checked:
    """What the checks are given."""

    settings: Settings
    apps: dict[str, App | None]
    """By name; None for one that was imported and is no code."""

    def topics(self) -> Iterable[tuple[str, AppTopics]]:
        """Each app's topics."""
        return [(name, AppTopics(name) if app is None else app.topics) for name, app in self.apps.items()]

    def specs(self) -> list[tuple[str, list[TopicSpec]]]:
        """The topics that there must be, of each app and of driftline itself (named `driftline`)."""
        partitions = self.settings.partitions
        return [*((name, topics.specs(partitions)) for name, topics in self.topics()), ("driftline", own_specs())]


def ok(what: str) -> Finding:
    """All is well."""
    return Finding(Status.OK, what)


def warn(what: str, mend: str) -> Finding:
    """It will not do for everything, or not for long."""
    return Finding(Status.WARN, what, mend)


def fail(what: str, mend: str) -> Finding:
    """It will not do."""
    return Finding(Status.FAIL, what, mend)
