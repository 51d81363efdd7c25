"""What a night may cost, by the file of `driftline nightly`."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from driftline.console.nightly_command import NIGHTLY_FILE
from driftline.console.nightly_config import load_config
from driftline.schemas import DriftlineError

_log = logging.getLogger("driftline.exporter")


def read_budgets(path: Path | None) -> Mapping[str, float]:
    """Dollars a night by app, of the file that is given, else of `nightly.toml` in the working folder.

    Read once, when the exporter starts. Where the latter is not there, nothing is shown; where it cannot be read,
    that is logged and the exporter goes on: rules that need no budget are not to be blind for it.

    Raises:
        BadInput: The file that is given cannot be read.
        UsageError: A candidate in it changes nothing.
    """
    if path is None and not NIGHTLY_FILE.exists():
        return {}
    try:
        apps = load_config(path or NIGHTLY_FILE).apps
    except DriftlineError as error:
        if path is not None:
            raise
        _log.warning("budgets of nights are not shown: %s", error)
        return {}
    return {name: app.limits.budget_usd for name, app in apps.items() if app.limits.budget_usd is not None}
