"""The doctor's look at the nights: whether `driftline nightly` will know what its calls cost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from driftline.console.common import find_app
from driftline.console.doctor_findings import Checked, Finding, fail, ok
from driftline.console.nightly_config import NightlyApp, load_config
from driftline.log import Settings
from driftline.replay.plan import require_price
from driftline.replay.pricing import PriceMap
from driftline.schemas import UsageError

MEND = "in {path} name a model with a price, or set max_calls and allow_unpriced and leave budget_usd out"


def nightly(checked: Checked, path: Path) -> Iterator[Finding]:
    """Whether the price of each candidate and incumbent is known, where a night would be refused without it.

    Not guaranteed: anything of the models of an imported recording, which only the log names.

    Raises:
        BadInput: The file, or a prompt that it names, cannot be read.
        UnknownApp: An app of it cannot be imported.
    """
    prices, config = PriceMap(), load_config(path)
    for name, app in config.apps.items():
        refused = list(_refusals(app, sorted(_models(name, app, checked.settings)), prices))
        for why in refused:
            yield fail(f"{name}: {why}", MEND.format(path=path))
        if not refused:
            version = "" if prices.version is None else f" ({prices.version})"
            yield ok(f"{name}: a night knows its prices, or needs none{version}")


def _models(name: str, app: NightlyApp, settings: Settings) -> set[str]:
    """Everything that a night asks; what keeps the log's model asks the app's own."""
    arms = [candidate.arm for candidate in app.candidates]
    arms += [] if app.incumbent is None else [app.incumbent.arm]
    named = {arm.model for arm in arms if arm.model is not None}
    code = find_app(name, settings) if any(arm.model is None for arm in arms) else None
    own = () if code is None else code.boundaries
    return named | {model for one in own for model in (one.proposer, *one.fallbacks)}


def _refusals(app: NightlyApp, models: list[str], prices: PriceMap) -> Iterator[str]:
    """As the night refuses them itself, before anything is paid."""
    limits = app.run_limits(app.limits.budget_usd)
    for model in models:
        try:
            require_price(prices.of(model), prices, limits, app.limits.allow_unpriced)
        except UsageError as error:
            if prices.of(model).known:
                raise
            yield error.message
