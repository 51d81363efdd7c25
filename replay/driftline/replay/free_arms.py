"""The arms of mode `free`: the candidate (B), and the log's own model asked again (A'); both through the ledger."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, cast

from driftline.consumers.boundary import Boundary, BoundBoundary
from driftline.consumers.conversing import ToolsAsked
from driftline.consumers.engine import Input, Outcome, decide
from driftline.consumers.prompt import Prompt
from driftline.consumers.proposing import Answer, ProposalRequest, Proposer
from driftline.replay.arms import Candidate, as_logged, asked_with, chain_hash
from driftline.replay.ledger import AnswerKey, Ledger
from driftline.replay.levels import LOST as LOST_FAILURES
from driftline.replay.rounds import RecordedReads
from driftline.replay.sandbox import LOST, UNPAID, UNRECORDED, EndedEarly
from driftline.replay.segment import LoggedDecision
from driftline.replay.spending import Spending
from driftline.replay.subject import AppSubject
from driftline.schemas import Read, ReadStatus, canonical_json, content_hash
from driftline.schemas.cloudevents import format_time

PURPOSES = {"candidate": "test", "incumbent": "floor"}
"""An arm's purpose in the ledger: where the candidate is the log's own model, the arms still share no answer."""


@dataclass
class Desk:
    """What the arms of one run share: who is asked, where answers are written, and how many may be.

    Args:
        run_id: The run.
        proposer: Answers the calls.
        ledger: Where answers are written before they count.
        now: The wall clock, for the ledger alone.
        spending: Lets calls through while the run's budget lasts.
        calls_max: Answers that may be used, those in the ledger included; None for no limit.
    """

    run_id: str
    proposer: Proposer
    ledger: Ledger
    now: Callable[[], datetime]
    spending: Spending = field(default_factory=Spending)
    calls_max: int | None = None
    calls: int = 0
    """Answers used so far, lost ones left out."""
    from_ledger: int = 0
    """How many of them the ledger had already."""
    _prices: list[float | None] = field(default_factory=list)

    @property
    def cost_usd(self) -> float | None:
        """Dollars of the answers used, in whatever order they came; None where the price of one is unknown."""
        known = [price for price in self._prices if price is not None]
        return math.fsum(known) if len(known) == len(self._prices) else None

    async def answer(
        self, request: ProposalRequest, key: AnswerKey, like: LoggedDecision, *, free: bool, begins: bool
    ) -> Answer:
        """The answer to a call: from the ledger, else asked, and written there before it counts.

        Args:
            request: The call.
            key: What the ledger files it under.
            like: A logged decision of the same boundary, which tells how large the call will be.
            free: Whether the answer is read from a recording.
            begins: Whether it is the first round of an attempt, which is what counts.

        Raises:
            EndedEarly: The budget has ended, or the call was lost.
        """
        if begins and self.calls_max is not None and self.calls >= self.calls_max:
            raise EndedEarly(UNPAID)
        self.calls += begins
        known = self.ledger.get(key, paid_by=self.run_id if self.spending.ended else None)
        if known is None:
            known = await self._asked(request, key, like, free)
        else:
            self.from_ledger += 1
        self._prices.append(known.cost_usd)
        return known

    async def _asked(self, request: ProposalRequest, key: AnswerKey, like: LoggedDecision, free: bool) -> Answer:
        room = 0.0 if free else await self.spending.admit(like, request)
        if room is None:
            self.calls -= 1
            raise EndedEarly(UNPAID)
        answer = None
        try:
            answer = as_logged(await self.proposer.propose(request))
        finally:
            if not free:
                self.spending.settle(room, [] if answer is None else [answer])
        if answer.failure in LOST_FAILURES:
            self.calls -= 1
            raise EndedEarly(LOST)
        return self.ledger.put(key, answer, self.run_id, format_time(self.now()))


@dataclass
class FreeArm:
    """One arm: what of a boundary it changes, and how its answers are filed.

    Where the arm changes nothing it keeps what the logged decision had; where the log has no such decision, what the
    latest of the same boundary had; where there is none, what the code has.

    Args:
        name: `candidate` or `incumbent`.
        subject: Today's rules.
        desk: Who is asked.
        latest: The latest logged decision of each boundary.
        seed: As in `forced`.
        candidate: What is tried; None for the log's own.
    """

    name: str
    subject: AppSubject
    desk: Desk
    latest: Mapping[str, LoggedDecision]
    seed: int = 0
    candidate: Candidate | None = None
    _bound: dict[tuple[str, str, str, str], BoundBoundary] = field(default_factory=dict)
    _schema_hashes: dict[str, str] = field(default_factory=dict)

    def bound(self, bound: BoundBoundary, logged: LoggedDecision | None) -> BoundBoundary:
        """As `Decides.bound`; no fallbacks, for what answers is what is compared."""
        own = logged or self.latest.get(bound.boundary.name)
        changed = self._changed(bound.boundary, own)
        parts = (changed.name, changed.proposer, changed.prompt.hash, changed.parameters_json)
        return self._bound.setdefault(parts, BoundBoundary(changed, bound.judge))

    def _changed(self, boundary: Boundary, own: LoggedDecision | None) -> Boundary:
        changes: dict[str, Any] = {"fallbacks": ()}
        if own is not None:
            decision = own.decision
            changes |= {"proposer": decision.model_requested, "parameters": decision.parameters_value()}
        if self.candidate is None or self.candidate.prompt is None:
            prompt = boundary.prompt if own is None else self.subject.prompt(own.decision)
        else:
            prompt = self.candidate.prompt
        changes["prompt"] = cast(Prompt, prompt)  # the engine takes no more of it than any source of messages has
        if self.candidate is not None:
            own_parameters = changes.get("parameters", boundary.parameters)
            changes["parameters"] = {**own_parameters, **self.candidate.parameters}
            changes["proposer"] = self.candidate.model or changes.get("proposer", boundary.proposer)
        return replace(boundary, **changes)

    async def decide(self, given: Input, logged: LoggedDecision | None) -> Outcome:
        """As `Decides.decide`: every attempt, as the engine asks for it.

        Raises:
            EndedEarly: A call was lost, the budget has ended, or the log has no answer of a tool.
        """
        like = logged or self.latest.get(given.bound.boundary.name) or next(iter(self.latest.values()))
        deciding, recorded = decide(given), RecordedReads(None if logged is None else logged.decision)
        wanted, attempts = next(deciding), dict[int, int]()
        while True:
            if isinstance(wanted, ToolsAsked):
                reads = recorded.tell(wanted)
                if any(read.status == ReadStatus.UNRECORDED for read in reads):
                    raise EndedEarly(UNRECORDED)
                told: Answer | Sequence[Read] = reads
            else:
                asked = self._asked_as(wanted)
                begins = asked.key.attempt not in attempts
                number = attempts.setdefault(asked.key.attempt, len(attempts) + 1)
                key = self._key(asked, given, number)
                told = await self.desk.answer(asked, key, like, free=self._is_free, begins=begins)
            try:
                wanted = deciding.send(told)
            except StopIteration as finished:
                outcome: Outcome = finished.value
                return outcome

    @property
    def _is_free(self) -> bool:
        return self.candidate is not None and self.candidate.is_free

    def _asked_as(self, request: ProposalRequest) -> ProposalRequest:
        key = replace(request.key, arm=self.name, run=self.desk.run_id, seed=self.seed)
        return replace(request, key=key)

    def _key(self, request: ProposalRequest, given: Input, number: int) -> AnswerKey:
        """As `Candidate.key` has it for a first attempt, so that `forced` and `free` share what was paid for. A later
        one is told by its number too: after an answer without a text the same question is asked again."""
        chain = chain_hash(request)
        return AnswerKey(
            decision_id=given.decision_id,
            attempt_chain=chain if number == 1 else content_hash(f"{number}\n{chain}"),
            model=request.model,
            prompt_hash=given.bound.boundary.prompt.hash,
            parameters=asked_with(request, self._schema_hash(given.bound)),
            purpose=PURPOSES[self.name],
        )

    def _schema_hash(self, bound: BoundBoundary) -> str:
        name = bound.boundary.name
        if name not in self._schema_hashes:
            self._schema_hashes[name] = content_hash(canonical_json(bound.json_schema))
        return self._schema_hashes[name]
