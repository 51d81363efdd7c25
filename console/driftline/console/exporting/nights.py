"""Which apps have nights, and what one may cost, by the file of `driftline nightly`."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from driftline.console.nightly_command import NIGHTLY_FILE
from driftline.console.nightly_config import load_config
from driftline.schemas import DriftlineError

_log = logging.getLogger("driftline.exporter")


def read_nights(path: Path | None) -> Mapping[str, float | None] | None:
    """Dollars a night of each app that has nights, None for one without a budget.

    Of the file that is given, else of `nightly.toml` in the working folder; read once, when the exporter starts. An
    file without apps says that none has nights. Where `nightly.toml` is not there, nobody said: None. Where it cannot
    be read it is None too; that is logged and the exporter goes on: rules that need no budget are not to be blind.

    Raises:
        BadInput: The file that is given cannot be read.
        UsageError: A candidate in it changes nothing.
    """
    if path is None and not NIGHTLY_FILE.exists():
        return None
    try:
        apps = load_config(path or NIGHTLY_FILE).apps
    except DriftlineError as error:
        if path is not None:
            raise
        _log.warning("nights and their budgets are not known: %s", error)
        return None
    return {name: app.limits.budget_usd for name, app in apps.items()}
