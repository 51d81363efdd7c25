"""Making an app's place on the log: its topics and the subjects of what lies on them."""

from __future__ import annotations

from collections.abc import Iterable

from driftline.log.settings import Settings
from driftline.log.topics import ALERTS, ARTIFACTS, AppTopics, TopicAdmin, own_specs
from driftline.schemas import Contracts, Registry
from driftline.schemas.names import ARTIFACT, DECISION

SHARED_SUBJECTS = (
    (ARTIFACTS, ARTIFACT),
    (ALERTS, "driftline.ReplayCompleted"),
    (ALERTS, "driftline.DivergenceAlert"),
    (ALERTS, "driftline.EnvironmentDriftAlert"),
    (ALERTS, "driftline.MigrationAlert"),
)
"""(topic, record) of what all apps share."""


def prepare(
    topics: AppTopics, subjects: Iterable[tuple[str, str]], contracts: Contracts, settings: Settings
) -> list[str]:
    """Create the topics of an app that are missing and register the (topic, record) pairs it writes.

    1. ask the registry for anything at all: topics keep their partition count for ever, so none is made for an app
    that cannot start; 2. create the topics; 3. register the subjects. The decisions, artifacts and alerts of every
    app are among them. Doing it again changes nothing.

    Returns:
        The topics created.

    Raises:
        UsageError: A topic is there with another partition count.
        ContractError: No such contract, or the registry refuses it.
        EnvironmentUnreachable: The broker or the registry does not answer.
    """
    wanted = dict.fromkeys([*subjects, (topics.decisions, DECISION), *SHARED_SUBJECTS])
    found = [(topic, contracts.require(record)) for topic, record in wanted]
    registry = Registry(settings.require_registry())
    registry.subjects()
    created = TopicAdmin(settings).ensure([*topics.specs(settings.partitions), *own_specs()])
    for topic, contract in found:
        registry.ensure(topic, contract)
    return created
