"""What a process may wait for, ask and spend at its models."""

from __future__ import annotations

from dataclasses import dataclass, fields

from driftline.schemas import UsageError


@dataclass(frozen=True, slots=True)
class Patience:
    """How a model in trouble is met.

    Args:
        calls_max: Timeouts and provider errors of one request at one model until its retries are spent.
        rate_limited_max: The same of calls that came too early; more, since the request is not to blame.
        wait_s: Before the first retry; doubles with each.
        wait_s_max: Before a retry at most, unless the provider says when (Retry-After).
        jitter_s: Up to so much is added at random to each wait.
        retry_after_s_max: The longest that a provider's word is taken for; then it is asked again all the same.
        failures_to_open: Failures in a row that open the model's breaker. At most `calls_max`, so that a request
            opens it before its own retries are spent, where nobody else's success shows that the model is well.
        probe_s: From a breaker's opening to the first probe; doubles with each that fails.
        probe_s_max: Between probes at most.

    Raises:
        UsageError: A number below its least, or `failures_to_open` above `calls_max`.
    """

    calls_max: int = 5
    rate_limited_max: int = 30
    wait_s: float = 0.5
    wait_s_max: float = 30.0
    jitter_s: float = 1.0
    retry_after_s_max: float = 600.0
    failures_to_open: int = 5
    probe_s: float = 5.0
    probe_s_max: float = 60.0

    def __post_init__(self) -> None:
        for name in ("calls_max", "failures_to_open"):
            _at_least(name, getattr(self, name), 1)
        for name in ("wait_s", "wait_s_max", "jitter_s", "retry_after_s_max"):
            _at_least(name, getattr(self, name), 0)
        _at_least("rate_limited_max", self.rate_limited_max, self.calls_max)
        _at_least("probe_s", self.probe_s, 0.001)
        _at_least("probe_s_max", self.probe_s_max, self.probe_s)
        _at_least("calls_max", self.calls_max, self.failures_to_open)


@dataclass(frozen=True, slots=True)
class CallLimits:
    """What the process may ask and spend; None is no limit.

    Args:
        requests_per_minute: Of each model.
        tokens_per_minute: Of each model, read and written; counted when a call is answered, waited for by the next.
        usd_max: Of all models together, since the process began. Calls under way when it is passed are still paid.

    Raises:
        UsageError: A limit that lets nothing through.
    """

    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    usd_max: float | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            limit = getattr(self, field.name)
            if limit is not None and not limit > 0:
                raise UsageError(f"{field.name} is {limit}", "give a number above 0, or leave it out for no limit")


def _at_least(name: str, value: float, least: float) -> None:
    if not value >= least:
        raise UsageError(f"{name} is {value}", f"give at least {least:g}")
