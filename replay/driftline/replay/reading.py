"""Reading: calls of decision after decision, made ahead of the evidence, which enters in planned order.

A result that comes ahead of its turn waits (DETECTION, rule 10: fed in order of completion, a model against itself
alarms).
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from driftline.replay.arms import ArmCall, judge_answer, judge_logged
from driftline.replay.asker import Asker
from driftline.replay.result import NOT_ASKED, NOT_NEEDED, NOT_PAID, Limits, Progress, was_asked
from driftline.replay.segment import LoggedDecision
from driftline.replay.spending import Spending
from driftline.replay.subject import Subject
from driftline.replay.turns import Evidence, Run, Turn, drop_unpaid

AHEAD_FACTOR = 4
"""Calls may run ahead of the evidence by so many times the concurrency: one that hangs lets the others go on for a
while, and bounds what is paid for nothing should the test stop at it."""


@contextmanager
def heap_set_aside() -> Iterator[None]:
    """Let the garbage collector pass over all that is there by now: to look through a segment again and again takes
    it so long that every call in flight is answered late."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


class Reading:
    """Asks for decision after decision, and hands what came back to a test in planned order.

    Args:
        planned: The decisions, in an order that was fixed before any call.
        subject: Today's rules.
        asker: Makes the calls that each of them takes.
        limits: What may be in flight, and whether to read on after the stop.
        spending: The asker's.
    """

    def __init__(
        self, planned: list[LoggedDecision], subject: Subject, asker: Asker, limits: Limits, spending: Spending
    ) -> None:
        self._planned = planned
        self._subject = subject
        self._asker = asker
        self._calls = asker.calls
        self._limits = limits
        self._spending = spending

    @property
    def calls(self) -> Sequence[ArmCall]:
        """Those that each decision takes."""
        return self._calls

    @property
    def is_out_of_budget(self) -> bool:
        """Whether a call was refused because of what it would have cost."""
        return self._spending.ended

    async def read(self, evidence: Evidence, on_progress: Callable[[Progress], None]) -> Run:
        """Ask and judge until the evidence suffices or there is no more.

        Raises:
            UsageError: What was asked for cannot be; what was paid is in the ledger.
        """
        room = max(AHEAD_FACTOR * self._limits.concurrency, len(self._calls))
        run = Run(evidence, asyncio.Semaphore(room))
        try:
            with heap_set_aside():
                async with asyncio.TaskGroup() as workers:
                    for work in self._tasks(run, on_progress):
                        workers.create_task(work)
        except BaseExceptionGroup as failed:
            raise failed.exceptions[0] from None  # the others stopped because of it, or say the same
        drop_unpaid(run.pairs)
        self._count_overspent(run, room)
        return run

    def _tasks(self, run: Run, on_progress: Callable[[Progress], None]) -> list[Coroutine[Any, Any, None]]:
        workers = min(self._limits.concurrency, len(self._planned) * len(self._calls))
        return [self._work(run, on_progress) for _ in range(workers)]

    async def _work(self, run: Run, on_progress: Callable[[Progress], None]) -> None:
        """Make call after call; one worker is one call in flight."""
        while (taken := await self._next_call(run)) is not None:
            turn, place = taken
            waited = await self._answer(run, turn, place)
            if turn.complete:
                run.arrived[turn.index] = turn
                self._feed(run)
                on_progress(self._progress(run))
            if not waited:
                await asyncio.sleep(0)  # Ctrl-C and the other workers get their turn too

    async def _next_call(self, run: Run) -> tuple[Turn, int] | None:
        """The next call: of the turn that was begun, else of the next one; None when there is none to be made."""
        await run.room.acquire()
        async with run.dealing:
            turn = None if self._is_over(run) else await self._turn(run)
            if turn is None:
                run.room.release()  # whoever waits for room must see it too
                return None
            turn.begun += 1
            return turn, turn.begun - 1

    async def _turn(self, run: Run) -> Turn | None:
        """The turn that has calls left, else the next one."""
        if run.turn is not None and run.turn.begun < run.turn.calls:
            return run.turn
        logged = await self._take_turn(run)
        if logged is None:
            return None
        run.turn = Turn(run.taken, logged, judge_logged(logged, self._subject), len(self._calls))
        run.taken += 1
        return run.turn

    def _is_over(self, run: Run) -> bool:
        """Whether what is still to be asked could change nothing."""
        return run.stopped_at is not None and not self._limits.read_on

    async def _take_turn(self, run: Run) -> LoggedDecision | None:
        """The decision of the next turn; none after the last."""
        return self._planned[run.taken] if run.taken < len(self._planned) else None

    async def _answer(self, run: Run, turn: Turn, place: int) -> bool:
        """Get a call's answer; whether somebody had to be asked and waited for."""
        call = self._asker.call(turn.logged, place)
        known = NOT_ASKED if turn.baseline.lost else self._asker.known(call)
        run.from_ledger += known is not None and known is not NOT_ASKED
        answer = await self._asker.pay(call) if known is None else known
        turn.answers[place] = judge_answer(answer, turn.logged.decision, self._subject)
        return known is None and answer is not NOT_PAID

    def _feed(self, run: Run) -> None:
        """Hand the judges every turn that has come; those after the stop are counted when all are in."""
        while (turn := run.arrived.pop(len(run.pairs) + len(run.overspent), None)) is not None:
            if self._is_over(run):
                run.overspent[turn.index] = turn
            else:
                self._add(run, turn)
            for _ in range(turn.calls):
                run.room.release()

    def _add(self, run: Run, turn: Turn) -> None:
        pair = turn.pair(evidence=False)
        evidence = run.evidence.observe(turn.logged.stratum, pair.baseline, pair.candidate, pair.floor)
        run.pairs.append(turn.pair(evidence))
        if run.stopped_at is None:
            run.calls += pair.calls
            if run.evidence.done:
                run.stopped_at = len(run.pairs)

    def _count_overspent(self, run: Run, ahead: int) -> None:
        """Count what this run has paid beyond its stop, whether just now or before it was interrupted.

        What others have paid for is left out: how much of it was at hand depends on who came back when.
        """
        if not self._is_over(run) or run.stopped_at is None:
            return
        for index in range(run.stopped_at, min(run.stopped_at + ahead, len(self._planned))):
            turn = self._paid_turn(run, index)
            if turn is not None:
                pair = turn.pair(evidence=False)
                run.pairs.append(pair)
                run.evidence.observe_after_stop(turn.logged.stratum, pair.baseline, pair.candidate)

    def _paid_turn(self, run: Run, index: int) -> Turn | None:
        """A turn with the answers that this run has paid for, and with those that were lost; None without any."""
        logged, made = self._planned[index], run.begun_turn(index)
        baseline = judge_logged(logged, self._subject)
        if baseline.lost:
            return None
        turn = Turn(index, logged, baseline, len(self._calls))
        for place in range(turn.calls):
            answer = self._asker.paid(self._asker.call(logged, place))
            run.from_ledger += answer is not None and made is None
            came = None if made is None else made.answers.get(place)
            if answer is None and came is not None and came.lost:
                answer = came.answer
            turn.answers[place] = judge_answer(answer or NOT_NEEDED, logged.decision, self._subject)
        return turn if any(was_asked(answer) for answer in turn.answers.values()) else None

    def _progress(self, run: Run) -> Progress:
        return Progress(
            planned=len(self._planned),
            read=len(run.pairs),
            paid_calls=run.calls,
            e_value=run.evidence.e_value,
            decision=run.evidence.decision,
            spent_usd=self._spending.paid_usd,
            usd_max=self._spending.usd_max,
        )
