"""One request on its way to an answer: what was called for it, and what became of each call."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from driftline.consumers.proposing import Answer, FailedCall, ProposalRequest, ProposerFailure

EARLIER_KEPT_MAX = 100
"""Failed calls of one request that stay on its record, the first and the last: an outage of days is many probes, and
a decision must fit a record."""


class CallLost(Exception):
    """A call failed.

    Attributes:
        answer: With the failure.
    """

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.failure)
        self.answer = answer


@dataclass(eq=False, slots=True)
class Strikes:
    """Failures of a request at a model that cannot be the model's: others were answered since the one before."""

    answered: int
    count: int = 0


@dataclass(eq=False, slots=True)
class Asking:
    """The calls of one request; compared by identity."""

    request: ProposalRequest
    last: Answer | None = None
    """Of the last call, which failed."""
    _failed: list[FailedCall] = field(default_factory=list)
    _calls: int = 0
    _strikes: dict[str, Strikes] = field(default_factory=dict)

    def next_call(self, model: str) -> ProposalRequest:
        """The request as it is put to a model: each call has a key of its own."""
        key = replace(self.request.key, attempt=self.request.key.attempt + self._calls)
        return replace(self.request, model=model, key=key)

    def note(self, model: str, answer: Answer, answered: int) -> None:
        """Keep a failed call.

        Args:
            model: That was asked.
            answer: With the failure.
            answered: Calls of others that the model has answered until now.
        """
        attempt = self.request.key.attempt + self._calls
        other = self._other(model)
        failure = answer.failure or ProposerFailure.PROVIDER_ERROR
        self._failed.append(FailedCall(attempt, failure, answer.failure_detail, other, answer.latency_ms))
        if len(self._failed) > EARLIER_KEPT_MAX + 1:
            del self._failed[EARLIER_KEPT_MAX // 2]
        self._calls += 1
        self.last = replace(answer, model_requested=other)
        strikes = self._strikes.setdefault(model, Strikes(answered))
        strikes.count += strikes.answered != answered
        strikes.answered = answered

    def strikes(self, model: str) -> int:
        """How often it failed at a model that had answered others in the meantime."""
        return self._strikes[model].count if model in self._strikes else 0

    def answered(self, model: str, answer: Answer) -> Answer:
        """The answer, with the calls that came before it."""
        other = self._other(model)
        if other is None and not self._failed:
            return answer
        return replace(answer, model_requested=other, earlier=tuple(self._failed))

    def given_up(self) -> Answer:
        """The last failure as the answer, with the calls that came before it."""
        if self.last is None:
            raise AssertionError("given up before anything was asked")
        return replace(self.last, earlier=tuple(self._failed[:-1]))

    def _other(self, model: str) -> str | None:
        return None if model == self.request.model else model
