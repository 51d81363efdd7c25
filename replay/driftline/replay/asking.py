"""How a replay asks: with retries and rates, and not for ever."""

from __future__ import annotations

import time
from collections.abc import Callable

from driftline.consumers.models import BreakerState, CallLimits, Patience, SteadyProposer
from driftline.consumers.proposing import Proposer
from driftline.replay.result import Limits
from driftline.schemas import EnvironmentUnreachable

OUTAGE_S_MAX = 300.0
"""A runtime waits for its models for ever; a replay is asked for by somebody who waits for it."""


def steady(
    inner: Proposer,
    limits: Limits,
    patience: Patience | None = None,
    outage_s_max: float = OUTAGE_S_MAX,
    clock: Callable[[], float] = time.monotonic,
) -> SteadyProposer:
    """A proposer with retries within the limits' rates, that raises when its model stays away.

    Dollars are not its business: `Spending` counts those of earlier attempts at the same run too.

    Raises:
        EnvironmentUnreachable: From `propose`: a model has not answered for `outage_s_max` seconds.
    """
    rates = CallLimits(limits.requests_per_minute, limits.tokens_per_minute)
    gone_since: dict[str, float] = {}

    def on_breaker(model: str, state: BreakerState, why: str) -> None:
        if state is BreakerState.CLOSED:
            gone_since.pop(model, None)
        elif clock() - gone_since.setdefault(model, clock()) >= outage_s_max:
            minutes = f"{outage_s_max / 60:g} minutes"
            raise EnvironmentUnreachable(
                f"{model} has not answered for {minutes}: {why}", "the same command goes on where this one stopped"
            )

    return SteadyProposer(inner, patience, rates, on_breaker=on_breaker, clock=clock)
