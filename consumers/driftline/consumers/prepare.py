"""Making an app's place on the log: its topics and its subjects; repeating it changes nothing."""

from __future__ import annotations

from driftline.consumers.app import App
from driftline.log import Settings
from driftline.log import prepare as prepare_log


def prepare(app: App, settings: Settings) -> list[str]:
    """Create the app's topics and driftline's own, and register the packaged schemas; the topics created.

    Raises:
        UsageError: A topic is there with another partition count.
        ContractError: The registry refuses a schema as incompatible.
        EnvironmentUnreachable: A broker or the registry does not answer.
    """
    return prepare_log(app.topics, app.subjects(), app.contracts, settings)
