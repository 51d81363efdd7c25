"""One attempt of an arm, round after round: what the ledger knows of it, what is asked, what tools are quoted to say.

No tool is asked in a replay. What one told then is quoted from the decision, by tool name and canonical arguments,
never by position; what the log has no answer to ends the attempt without an outcome, and costs coverage.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import cached_property

from driftline.consumers.conversing import ToolsAsked, converse
from driftline.consumers.proposing import Answer, ProposalRequest, Proposer
from driftline.consumers.tools import Tool, ToolQuestion
from driftline.replay.arms import as_logged, chain_hash
from driftline.replay.ledger import AnswerKey
from driftline.replay.levels import LOST
from driftline.replay.segment import LoggedDecision
from driftline.replay.spending import ROUNDING_USD, Spending
from driftline.replay.subject import Subject
from driftline.schemas import Attempt, Decision, Read, ReadStatus

QUOTED = frozenset({ReadStatus.OK, ReadStatus.FAILED, ReadStatus.TIMEOUT, ReadStatus.BAD_ANSWER})
"""What a tool itself has said; why it was not asked follows from the call and is found out anew."""


class RecordedReads:
    """What tools told while a decision was made, for one attempt of an arm.

    A call that is made again is told what it was told then: the k-th time the k-th answer, and after the last of them
    the last. What was told to an attempt that was lost counts only where no other attempt was told: nothing is held
    against it.
    """

    def __init__(self, decision: Decision | None) -> None:
        attempts = () if decision is None else decision.attempts
        held = _by_identity(attempt for attempt in attempts if attempt.failure not in LOST)
        self._left = {**_by_identity(attempt for attempt in attempts if attempt.failure in LOST), **held}

    def tell(self, asked: ToolsAsked) -> list[Read]:
        """A read for each question; `unrecorded` where the log has none."""
        return [self._told(question) for question in asked.questions]

    def _told(self, question: ToolQuestion) -> Read:
        if question.refusal is not None:
            return question.unanswered(question.refusal, question.reason)
        found = self._left.get(question.identity)
        if found is None:
            return question.unanswered(ReadStatus.UNRECORDED, "the log has no answer to it")
        read = found.pop(0) if len(found) > 1 else found[0]
        return question.told(ReadStatus(read.status), read.answer or "")


def _by_identity(attempts: Iterable[Attempt]) -> dict[tuple[str, str], list[Read]]:
    """What tools said, in order, by tool name and canonical arguments."""
    found: dict[tuple[str, str], list[Read]] = {}
    for attempt in attempts:
        for read in attempt.reads:
            if read.status in QUOTED and read.answer is not None:
                found.setdefault((read.name, read.arguments), []).append(read)
    return found


class Rounds:
    """One attempt.

    Attributes:
        request: The next one, while there is no answer.
        keys: What the ledger files the answer of each round under; the last is that of `request`.
        answer: Of the attempt; None while a request is to be made.
    """

    def __init__(
        self,
        request: ProposalRequest,
        key: AnswerKey,
        decision: Decision | None,
        tools: Sequence[Tool] = (),
        reads_max: int = 0,
    ) -> None:
        self.keys = [key]
        self.answer: Answer | None = None
        self._decision = decision
        self._conversing = converse(request, tools, reads_max)
        self.request = request
        next(self._conversing)

    @property
    def key(self) -> AnswerKey:
        """The last of the keys."""
        return self.keys[-1]

    @cached_property
    def _recorded(self) -> RecordedReads:
        return RecordedReads(self._decision)

    def send(self, answer: Answer) -> None:
        """Take the answer to `request`."""
        told: Answer | Sequence[Read] = answer
        try:
            while isinstance(wanted := self._conversing.send(told), ToolsAsked):
                told = self._recorded.tell(wanted)
        except StopIteration as finished:
            self.answer = finished.value
        else:
            self.request = wanted
            self.keys.append(replace(self.key, attempt_chain=chain_hash(wanted)))

    def carry(self, known: Callable[[AnswerKey], Answer | None]) -> Answer | None:
        """Go on as far as the ledger knows the answers; that of the attempt, where it knows them all."""
        while self.answer is None and (found := known(self.key)) is not None:
            self.send(found)
        return self.answer


def rounds_of(decision: Decision, subject: Subject, request: ProposalRequest, key: AnswerKey) -> Rounds:
    """An attempt at a logged decision, before its first round."""
    return Rounds(request, key, decision, subject.tools(decision), subject.reads_max(decision))


async def ask_on(
    rounds: Rounds,
    logged: LoggedDecision,
    proposer: Proposer,
    put: Callable[[AnswerKey, Answer], Answer],
    spending: Spending | None,
) -> Answer | None:
    """Ask round after round to the end of an attempt, each answer in the ledger before it counts.

    Room is asked for all rounds at once, and again only by an attempt that costs more: where a budget ends must not
    depend on whose first round came back first.

    A lost call is not written, and asked again next time. Between an answer and the ledger nothing is awaited: no
    cancellation falls in between.

    Args:
        rounds: The attempt, as far as the ledger knows it.
        logged: The decision.
        proposer: Who is asked.
        put: Writes an answer; returns the one that stands.
        spending: Lets calls through; None where they cost nothing.

    Returns:
        The answer of the attempt; None where the budget has no room for it.
    """
    room: float | None = None
    paid: list[Answer] = []
    try:
        while rounds.answer is None:
            if spending is not None and _exceeds(paid, room):
                # What it holds is given back first: two that held some and waited for more would wait for ever.
                _settle(spending, room, paid)
                paid, room = [], None
                room = await spending.admit(logged, rounds.request)
                if room is None:
                    return None
            answer = as_logged(await proposer.propose(rounds.request))
            paid.append(answer)
            if answer.failure not in LOST:
                answer = put(rounds.key, answer)
            rounds.send(answer)
    finally:
        if spending is not None:
            _settle(spending, room, paid)
    return rounds.answer


def _settle(spending: Spending, room: float | None, paid: Sequence[Answer]) -> None:
    if room is not None:
        spending.settle(room, paid)


def _exceeds(paid: Sequence[Answer], room: float | None) -> bool:
    """Whether another round that costs as much as the last one passes the room that is held; at first none is."""
    if room is None:
        return True
    prices = [answer.cost_usd or 0.0 for answer in paid]
    return sum(prices) + prices[-1] > room + ROUNDING_USD
