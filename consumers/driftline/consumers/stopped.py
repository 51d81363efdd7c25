"""Where an app stands while none of its processes runs: what must hold before its rows are written from outside."""

from __future__ import annotations

from driftline.consumers.app import App
from driftline.log import Settings, TopicAdmin, Unfinished
from driftline.log.group import group_standing
from driftline.schemas import UsageError


def require_stopped(app: App, settings: Settings) -> None:
    """Prove that no process of the app is in its group.

    Raises:
        UsageError: One is.
        EnvironmentUnreachable: No broker answers.
    """
    members = TopicAdmin(settings).group_members(app.group)
    if members:
        raise UsageError(
            f"{members} processes of {app.name} are in the group {app.group}",
            "stop them first; one that has stopped is out of the group 10 s later",
        )


def standing_of(app: App, settings: Settings, partition: int) -> Unfinished:
    """What the group has finished of a partition; nothing where it has no position.

    Raises:
        EnvironmentUnreachable: No broker answers.
    """
    found = group_standing(settings, app.group, app.topics.events, [partition])[partition]
    return found or Unfinished(0, 0)
