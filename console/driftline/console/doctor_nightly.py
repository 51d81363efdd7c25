"""The doctor's look at the nights: whether `driftline nightly` can ask what it is to ask, and what that costs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from driftline.console.common import find_app
from driftline.console.doctor_findings import Checked, Finding, fail, ok, warn
from driftline.console.nightly_config import NightlyApp, load_config
from driftline.consumers.models.gateway import OWN_PROVIDERS, load_litellm
from driftline.consumers.models.litellm_proposer import LiteLLMProposer
from driftline.consumers.proposing import CallKey, ProposalRequest
from driftline.log import Settings
from driftline.replay.arms import Candidate
from driftline.replay.plan import require_price
from driftline.replay.pricing import PriceMap
from driftline.schemas import UsageError

MEND_PRICE = "in {path} name a model with a price, or set max_calls and allow_unpriced and leave budget_usd out"
MEND_KEY = "set {names} where `driftline nightly` runs; `driftline doctor` there sees it"
KEYS = ("_API_KEY", "_TOKEN")
"""How variables end without which nobody answers; others have defaults, or a machine in that cloud needs none."""
OPEN_DOORS = ("api_base", "base_url")
"""A parameter that names another server: whether that wants a key, it alone knows."""


def nightly(checked: Checked, path: Path) -> Iterator[Finding]:
    """Whether a night would be refused: a model that nobody serves, a key that is missing, a price that is unknown.

    Nothing is asked and nobody is connected to. Not guaranteed: that a provider takes the key or has the model;
    anything of the models of an imported recording, which only the log names.

    Raises:
        BadInput: The file, or a prompt that it names, cannot be read.
        UnknownApp: An app of it cannot be imported.
    """
    prices, config = PriceMap(), load_config(path)
    for name, app in config.apps.items():
        asked = sorted(_asked(name, app, checked.settings), key=lambda one: one[0])
        refused = {found.what: found for one in asked for found in _refusals(name, path, app, *one, prices)}
        yield from refused.values()
        if not refused:
            version = "" if prices.version is None else f" ({prices.version})"
            yield ok(f"{name}: a night can ask its models, and knows their prices or needs none{version}")


def _asked(name: str, app: NightlyApp, settings: Settings) -> Iterator[tuple[str, Candidate]]:
    """Every model that a night asks, and for which arm; what keeps the log's model asks the app's own."""
    arms = [candidate.arm for candidate in app.candidates]
    arms += [] if app.incumbent is None else [app.incumbent.arm]
    code = find_app(name, settings) if any(arm.model is None for arm in arms) else None
    boundaries = () if code is None else code.boundaries
    own = {model for one in boundaries for model in (one.proposer, *one.fallbacks)}
    for arm in arms:
        for model in own if arm.model is None else (arm.model,):
            yield model, arm


def _refusals(
    name: str, path: Path, app: NightlyApp, model: str, arm: Candidate, prices: PriceMap
) -> Iterator[Finding]:
    """As the night refuses a model itself, before anything is paid; a missing key its first call would tell."""
    try:
        LiteLLMProposer().check(ProposalRequest(model, (), CallKey("", ""), arm.parameters))
    except UsageError as error:
        yield fail(f"{name}: {error.message}", f"mend it in {path}: {error.mend}")
        return
    missing = _missing_keys(model, arm)
    if missing:
        told = fail if any(one.endswith(KEYS) for one in missing) else warn
        names = " and ".join(missing)
        yield told(f"{name}: {model} finds no {names} here", MEND_KEY.format(names=names))
    try:
        require_price(prices.of(model), prices, app.run_limits(app.limits.budget_usd), app.limits.allow_unpriced)
    except UsageError as error:
        if prices.of(model).known:
            raise
        yield fail(f"{name}: {error.message}", MEND_PRICE.format(path=path))


def _missing_keys(model: str, arm: Candidate) -> list[str]:
    """Variables that LiteLLM wants for the provider, as it says itself."""
    if model.partition("/")[0] in OWN_PROVIDERS or any(door in arm.parameters for door in OPEN_DOORS):
        return []
    return [str(key) for key in load_litellm().validate_environment(model)["missing_keys"]]
