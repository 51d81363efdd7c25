"""What `driftline doctor` finds, and what its checks are given."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from driftline.consumers.app import App
from driftline.log import AppTopics, Settings, TopicSpec
from driftline.log.topics import own_specs

NAMED_MAX = 3
"""Of many things that are missing; how many there are says the rest."""


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

    def setting_up(self, name: str) -> str:
        """What makes the topics and subjects of an app, and those that all apps share with them."""
        return f"run `driftline topics create {name if name in self.apps else next(iter(self.apps), 'APP')}`"

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


def counted(names: Sequence[str], what: str) -> str:
    """So many of what, and the first of them."""
    first = ", ".join(names[:NAMED_MAX])
    return f"{len(names)} {what}{'' if len(names) == 1 else 's'} ({first}{', …' if len(names) > NAMED_MAX else ''})"
