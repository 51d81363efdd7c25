"""`SteadyProposer`: asks on through time-outs, rate limits and outages, and keeps every failed call on the record."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Mapping

import stamina
from stamina.instrumentation import set_on_retry_hooks

from driftline.consumers.models.asking import Asking, CallLost
from driftline.consumers.models.breaker import Breaker, BreakerState
from driftline.consumers.models.lines import Line, Lines, ShutOut, is_trouble
from driftline.consumers.models.patience import CallLimits, Patience
from driftline.consumers.models.rate import Rate
from driftline.consumers.models.sources import is_recorded
from driftline.consumers.proposing import Answer, ProposalRequest, Proposer, ProposerFailure
from driftline.schemas import UsageError
from driftline.schemas.errors import SpendCapReached


class SteadyProposer:
    """Asks a proposer until it answers; implements `Proposer`, for any number of requests on one event loop.

    What becomes of a request, in order:

    1. Its model is asked. Time-outs, rate limits and provider errors are retried, later each time, and not before the
       provider's Retry-After.
    2. While the model's breaker is open, or when the retries are spent, the next of `fallbacks` is asked alike.
    3. Where no model is left but those whose breaker is open, it waits, for ever if need be, until one has recovered;
       one request at a time probes. So an outage decides nothing: it only takes time.
    4. A request that fails at every model by itself, while others are answered, is an `Answer` with the last failure.

    A refusal, an empty answer or one that is no JSON is the model's answer, and is not asked for again here. A failed
    call is in `Answer.earlier` of the answer that came after it; each call has a `CallKey.attempt` of its own.

    Not promised: that a provider does not charge for a call that failed; that a request which fails by itself is told
    from an outage while nobody else asks the model. Requests that wait hold whatever their callers hold.

    Args:
        inner: Makes the calls, one for each request.
        patience: With models in trouble.
        limits: On rate and cost.
        on_breaker: Told a model, its breaker's state and the last failure whenever it opens, a probe fails, or it
            closes.
        clock: Seconds from any origin, never going back, in step with the event loop's timers.
        draw: Uniform in [0, 1): spreads out what the provider has told many at once.
    """

    def __init__(
        self,
        inner: Proposer,
        patience: Patience | None = None,
        limits: CallLimits | None = None,
        *,
        on_breaker: Callable[[str, BreakerState, str], None] = lambda model, state, why: None,
        clock: Callable[[], float] = time.monotonic,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._inner = inner
        self._patience = patience or Patience()
        self._limits = limits or CallLimits()
        self._clock = clock
        self._draw = draw
        self._lines = Lines(self._new_line, on_breaker)
        self._spent_usd = 0.0
        set_on_retry_hooks(())  # its own print to the screen; every failed call is on the record

    @property
    def breakers(self) -> Mapping[str, BreakerState]:
        """State of the breaker of each model that was asked."""
        return {model: line.breaker.state for model, line in self._lines.by_model.items()}

    @property
    def waiting(self) -> int:
        """Requests that wait for a model to recover."""
        return self._lines.waiting

    @property
    def spent_usd(self) -> float:
        """What the answers have cost, where their price is known."""
        return self._spent_usd

    async def propose(self, request: ProposalRequest) -> Answer:
        """Answer one request, or wait until it can be answered.

        Raises:
            SpendCapReached: Nothing more may be asked.
            UsageError: As the inner proposer; or a spend cap is set and a model's price is unknown.
        """
        asking = Asking(request)
        left = list(dict.fromkeys((request.model, *request.fallbacks)))
        while left:
            line = await self._lines.admitting(asking, left)
            try:
                return asking.answered(line.model, await self._retried(asking, line))
            except ShutOut:
                continue
            except CallLost as lost:
                if self._is_spent(asking, line, lost.answer):
                    left.remove(line.model)
        return asking.given_up()

    async def _retried(self, asking: Asking, line: Line) -> Answer:
        """Ask one model until it answers, it is shut, or the retries are spent.

        Raises:
            ShutOut: It may not be called now.
            CallLost: The last call failed.
        """
        patience = self._patience
        tries = stamina.retry_context(
            on=self._retry_hook(line),
            attempts=patience.rate_limited_max,
            timeout=None,
            wait_initial=patience.wait_s,
            wait_max=patience.wait_s_max,
            wait_jitter=patience.jitter_s,
        )
        async for attempt in tries:
            with attempt:
                return await self._call(asking, line)
        raise AssertionError("stamina ends by returning or raising")

    def _retry_hook(self, line: Line) -> Callable[[Exception], bool | float]:
        """Whether to call again, and after how many seconds where the provider has said so."""
        failures: Counter[bool] = Counter()

        def again(error: Exception) -> bool | float:
            if not isinstance(error, CallLost) or not is_trouble(error.answer):
                return False
            too_early = error.answer.failure is ProposerFailure.RATE_LIMITED
            failures[too_early] += 1
            if line.breaker.state is not BreakerState.CLOSED or failures[False] >= self._patience.calls_max:
                return False
            told_s = self._told_s(error.answer)
            return told_s + self._draw() * self._patience.jitter_s if told_s else True

        return again

    def _is_spent(self, asking: Asking, line: Line, lost: Answer) -> bool:
        """Whether a request is done with a model, rather than the model with everybody."""
        by_itself = asking.strikes(line.model) >= self._patience.calls_max
        return not is_trouble(lost) or by_itself or line.breaker.state is BreakerState.CLOSED

    async def _call(self, asking: Asking, line: Line) -> Answer:
        """Make one call and account for it.

        Raises:
            ShutOut: The model may not be called now.
            CallLost: It failed.
            SpendCapReached: Nothing more may be asked.
        """
        permit = await line.enter(asking)
        answer = None
        try:
            self._check_spend()
            answer = await self._inner.propose(asking.next_call(line.model))
        finally:
            self._lines.settle(line, permit, asking, answer, 0.0 if answer is None else self._told_s(answer))
        self._pay(line, answer)
        if is_trouble(answer) or answer.at_fault:
            asking.note(line.model, answer, line.answered)
            raise CallLost(answer)
        return answer

    def _told_s(self, answer: Answer) -> float:
        return min(answer.retry_after_s or 0.0, self._patience.retry_after_s_max)

    def _check_spend(self) -> None:
        most = self._limits.usd_max
        if most is not None and self._spent_usd >= most:
            what = f"the models have cost {self._spent_usd:.4f} dollars, and the process may spend {most:g}"
            raise SpendCapReached(what, "what was decided is committed; run again with a higher limit to go on")

    def _pay(self, line: Line, answer: Answer) -> None:
        line.rate.charge((answer.usage.prompt_tokens or 0) + (answer.usage.completion_tokens or 0))
        if is_recorded(line.model):
            return  # was paid by whoever recorded it
        self._spent_usd += answer.cost_usd or 0.0
        if answer.cost_usd is None and answer.failure is None and self._limits.usd_max is not None:
            what = f"the price of {line.model} is unknown, so that no limit on its cost can be held"
            raise UsageError(what, "leave the limit out, or name a model whose price LiteLLM knows")

    def _new_line(self, model: str) -> Line:
        patience, limits = self._patience, self._limits
        breaker = Breaker(patience.failures_to_open, patience.probe_s, patience.probe_s_max, self._clock)
        return Line(model, breaker, Rate(limits.requests_per_minute, limits.tokens_per_minute))
