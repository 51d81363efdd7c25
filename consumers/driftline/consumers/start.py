"""What must hold before the first event is consumed."""

from __future__ import annotations

from driftline.consumers.app import App
from driftline.log import Settings, TopicAdmin
from driftline.log.clients import REQUEST_TIMEOUT_S
from driftline.schemas import Codec, UsageError


def check_start(app: App, settings: Settings, codec: Codec) -> None:
    """Prove that the app can run: its schemas are registered as packaged, its topics fit one another.

    Raises:
        ContractError: The registry does not hold a packaged schema.
        UsageError: A topic is missing or has another partition count.
        EnvironmentUnreachable: A broker or the registry does not answer.
    """
    for topic, record in app.subjects():
        codec.registry.resolve(topic, app.contracts.require(record))
    _check_topics(app, TopicAdmin(settings, REQUEST_TIMEOUT_S).partitions())


def _check_topics(app: App, partitions: dict[str, int]) -> None:
    """What belongs to one workflow shares a partition number, so the counts must be equal."""
    topics = app.topics
    for name in (topics.events, topics.decisions, topics.state, topics.dead):
        if name not in partitions:
            raise UsageError(f"there is no topic {name}", f"`driftline topics create {app.name}` makes it")
        if partitions[name] != partitions[topics.events]:
            raise UsageError(
                f"{name} has {partitions[name]} partitions and {topics.events} {partitions[topics.events]}",
                "make them equal: a workflow's records share a partition",
            )
