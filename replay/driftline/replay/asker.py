"""Asking: what the ledger knows of a call, else what the budget lets through and a model answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

from driftline.consumers.proposing import Answer, Proposer
from driftline.replay.arms import ArmCall
from driftline.replay.ledger import AnswerKey, Ledger
from driftline.replay.result import NOT_PAID
from driftline.replay.rounds import Rounds, ask_on, rounds_of
from driftline.replay.segment import LoggedDecision
from driftline.replay.spending import Spending
from driftline.replay.subject import Subject
from driftline.schemas.cloudevents import format_time

AGE_MAX = timedelta(days=1)
"""Of an answer of the incumbent of today, and of what is held against it."""


def oldest(now: datetime) -> str:
    """RFC 3339: an answer of the incumbent, or beside it, that is older than this is a miss."""
    return format_time(now - AGE_MAX)


@dataclass(frozen=True, slots=True)
class Call:
    """One call for one decision."""

    logged: LoggedDecision
    rounds: Rounds
    """How far it has come; one that was looked up goes on from there when it is paid."""
    not_before: str | None
    """RFC 3339; an earlier answer counts for nothing."""
    is_free: bool


class Asker:
    """Asks for one run.

    Args:
        run_id: Who pays.
        subject: Today's rules.
        calls: Those that each decision takes.
        proposer: Answers them.
        ledger: Where answers are written before they count.
        spending: Lets calls through while the run's budget lasts.
        seed: Of the run.
        now: The wall clock. What it says now is when the run began: nothing ages while a run lasts.
    """

    def __init__(
        self,
        run_id: str,
        subject: Subject,
        calls: Sequence[ArmCall],
        proposer: Proposer,
        ledger: Ledger,
        spending: Spending,
        seed: int,
        now: Callable[[], datetime],
    ) -> None:
        self.calls = calls
        self._run_id = run_id
        self._subject = subject
        self._proposer = proposer
        self._ledger = ledger
        self._spending = spending
        self._seed = seed
        self._now = now
        self._oldest = oldest(now())

    def with_calls(self, calls: Sequence[ArmCall]) -> Asker:
        """One that asks for other calls, of the same day."""
        other = copy(self)
        other.calls = calls
        return other

    def call(self, logged: LoggedDecision, place: int) -> Call:
        """The call at a place among those of a decision.

        Raises:
            UsageError: As `Candidate.request`.
        """
        wanted, decision = self.calls[place], logged.decision
        request = wanted.arm.request(decision, self._subject, self._run_id, self._seed, wanted.asking)
        key = wanted.arm.key(decision, self._subject, request, wanted.asking)
        rounds = rounds_of(decision, self._subject, request, key)
        return Call(logged, rounds, self._oldest if wanted.ages else None, wanted.arm.is_free)

    def check(self, logged: LoggedDecision) -> None:
        """Refuse what could not be asked or judged.

        Raises:
            UsageError: One of the decision's calls.
        """
        for place in range(len(self.calls)):
            self._subject.require_judgeable(logged.decision, self.call(logged, place).rounds.request.model)

    def known(self, call: Call) -> Answer | None:
        """What was answered before. Past the end of the budget only what this run itself has paid: how far others
        have read on depends on what they found."""
        return self.paid(call) if self._spending.ended else call.rounds.carry(self._get(call))

    def paid(self, call: Call) -> Answer | None:
        """What was answered before and paid by this run."""
        return call.rounds.carry(self._get(call, self._run_id))

    async def pay(self, call: Call) -> Answer:
        """Ask what is not known, if the budget allows it; what a recording costs was paid by whoever recorded it."""
        spending = None if call.is_free else self._spending

        def put(key: AnswerKey, answer: Answer) -> Answer:
            return self._ledger.put(key, answer, self._run_id, format_time(self._now()), call.not_before)

        return await ask_on(call.rounds, call.logged, self._proposer, put, spending) or NOT_PAID

    def _get(self, call: Call, paid_by: str | None = None) -> Callable[[AnswerKey], Answer | None]:
        return partial(self._ledger.get, paid_by=paid_by, not_before=call.not_before)
