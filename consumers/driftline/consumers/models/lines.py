"""The line before each model: who may call it now, and who waits while it is in trouble."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from driftline.consumers.models.breaker import Breaker, BreakerState, Permit
from driftline.consumers.models.rate import Rate
from driftline.consumers.proposing import Answer, ProposerFailure

TROUBLE = frozenset({ProposerFailure.TIMEOUT, ProposerFailure.RATE_LIMITED, ProposerFailure.PROVIDER_ERROR})
"""Failures of the provider or the way to it. Any other is an answer of the model, and goes before the verifiers."""


class ShutOut(Exception):
    """The model may not be called now; nothing was asked."""


def is_trouble(answer: Answer) -> bool:
    """Whether a call failed for what may pass, so that it speaks against the model and may be made again."""
    return answer.failure in TROUBLE and not answer.at_fault


@dataclass(eq=False)
class Line:
    """One model as its callers meet it."""

    model: str
    breaker: Breaker
    rate: Rate
    waiting: set[object] = field(default_factory=set)
    """Who waits for this model, maybe among others."""
    untried: set[object] = field(default_factory=set)
    """Those of them that have not probed since it was their turn. They go first: whose probe has failed may be itself
    what fails, and a record is to hold no more failed calls than it must."""
    tried: set[object] = field(default_factory=set)
    """Whose probes have failed in this round."""
    answered: int = 0
    """Calls that the model has answered."""

    def opens_in_s(self, who: object) -> float:
        """Seconds until a caller may call: 0 when it may, infinity when only somebody else's call can change it."""
        shut = self.breaker.state is not BreakerState.CLOSED
        return math.inf if shut and who in self.tried and self.untried else self.breaker.opens_in_s

    def begin_waiting(self, who: object) -> None:
        """A caller waits."""
        self.waiting.add(who)
        if who not in self.tried:
            self.untried.add(who)

    def end_waiting(self, who: object) -> bool:
        """A caller waits no longer; whether those who let it try first have nobody left to wait for."""
        self.waiting.discard(who)
        awaited = who in self.untried
        self.untried.discard(who)
        return awaited and not self.untried

    def probe_ended(self, who: object, failed: bool) -> None:
        """Keep whose turn is next: with a failure of the last one, or a success, everybody's again."""
        if failed and self.untried:
            self.tried.add(who)
        else:
            self.tried = {who} if failed else set()
            self.untried = set(self.waiting)

    async def enter(self, who: object) -> Permit:
        """Leave to make a call, within the model's rate; a probe, being alone, does not wait for that.

        Raises:
            ShutOut: It may not be made, or no longer.
        """
        if self.breaker.state is BreakerState.CLOSED:
            await self.rate.admit()
        permit = None if self.opens_in_s(who) > 0 else self.breaker.enter()
        if permit is None:
            raise ShutOut
        return permit


class Lines:
    """The lines of all models of a process, on one event loop.

    Args:
        make: A new line for a model.
        on_breaker: As that of `SteadyProposer`.
    """

    def __init__(self, make: Callable[[str], Line], on_breaker: Callable[[str, BreakerState, str], None]) -> None:
        self._make = make
        self._on_breaker = on_breaker
        self._changed = asyncio.Event()
        self.by_model: dict[str, Line] = {}

    @property
    def waiting(self) -> int:
        """Requests that wait for a model to recover."""
        return len(set().union(*(line.waiting for line in self.by_model.values())))

    async def admitting(self, who: object, models: Sequence[str]) -> Line:
        """The first of the models that may be called; waits, for ever if need be, while none may."""
        lines = [self._line(model) for model in models]
        found = _first_open(who, lines)
        if found is not None:
            return found
        with self._in(lines, who):
            while (found := _first_open(who, lines)) is None:
                await self._change(min(line.opens_in_s(who) for line in lines))
        return found

    def settle(self, line: Line, permit: Permit, who: object, answer: Answer | None, retry_after_s: float) -> None:
        """Tell the breaker what became of a call, and those who wait what became of the breaker.

        Args:
            line: Of the model.
            permit: Of the call.
            who: Made it.
            answer: What came; None when the call was given up.
            retry_after_s: How long the provider asks not to be called.
        """
        if answer is None:
            turned = line.breaker.abandoned(permit)
        elif is_trouble(answer):
            turned = line.breaker.failed(permit, retry_after_s)
        else:
            line.answered += 1
            turned = line.breaker.succeeded(permit)
        if permit.probe and answer is not None:
            line.probe_ended(who, is_trouble(answer))
        if turned:
            self._wake()
        if turned and answer is not None:
            self._on_breaker(line.model, line.breaker.state, answer.failure_detail)

    def _line(self, model: str) -> Line:
        if model not in self.by_model:
            self.by_model[model] = self._make(model)
        return self.by_model[model]

    @contextmanager
    def _in(self, lines: Sequence[Line], who: object) -> Iterator[None]:
        for line in lines:
            line.begin_waiting(who)
        try:
            yield
        finally:
            left_alone = [line.end_waiting(who) for line in lines]
            if any(left_alone):
                self._wake()

    async def _change(self, within_s: float) -> None:
        changed = self._changed
        try:
            async with asyncio.timeout(None if math.isinf(within_s) else within_s):
                await changed.wait()
        except TimeoutError:
            pass

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


def _first_open(who: object, lines: Sequence[Line]) -> Line | None:
    return next((line for line in lines if line.opens_in_s(who) == 0), None)
