"""Mode `shadow`: `forced` over the growing end of the log, judged as it grows."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Protocol, TypeVar

from driftline.consumers.proposing import Proposer
from driftline.detectors import JudgeSummary, LevelSummary, StratumSummary
from driftline.detectors.bernstein import RunningMeanInterval
from driftline.log import Span
from driftline.replay.arms import Candidate, Incumbent
from driftline.replay.harness import ForcedReplay
from driftline.replay.ledger import Ledger
from driftline.replay.levels import VERDICT, JudgedAnswer
from driftline.replay.result import Contrast, ForcedResult, Limits, Pair, Progress
from driftline.replay.segment import LoggedDecision, Segment
from driftline.replay.spending import Spending
from driftline.replay.subject import Subject
from driftline.replay.turns import Run

POLL_S = 0.2
"""How long a stop may take to be seen while nothing comes."""
BACKLOG_MAX = 1000
"""Decisions that wait in memory to be asked; beyond it they wait on the log."""
PLANNED = 1_000_000_000
"""Decisions that a stratum is taken to have: nobody knows how many come, and those read are no finite share."""


S = TypeVar("S", LevelSummary, StratumSummary)
Arms = Callable[[Pair], tuple[JudgedAnswer, JudgedAnswer]]
"""Which two arms of a pair are held against one another."""


class Tail(Protocol):
    """Where decisions come from as they are made."""

    def poll(self, timeout_s: float) -> Sequence[LoggedDecision]:
        """What has come since."""


class ShadowReplay(ForcedReplay):
    """One run in mode `shadow`, until a verdict, a limit, `stop` or the end of its time.

    Evidence enters in the order in which decisions came, which is fixed before any of them is asked again. Strata are
    those that the subject declares; a decision of another is passed over. A decision that comes twice counts once.

    Intervals of the verdict's net change, those of the contrasts with the incumbent too, are empirical-Bernstein
    sequences for the mean of what was read, whatever the traffic does; those of other levels take what was read for a
    sample of what is to come.

    Not guaranteed: that `equivalent` holds for later decisions where traffic changes with time; its intervals take
    what was read for a sample of what is to come. `diverged` keeps its bound on false alarms whatever the traffic.

    Args:
        run_id: As of `ForcedReplay`.
        app: Whose decisions.
        tail: Where they come from.
        subject: As of `ForcedReplay`.
        candidate: As of `ForcedReplay`.
        proposer: As of `ForcedReplay`.
        ledger: As of `ForcedReplay`.
        limits: As of `ForcedReplay`; there is nothing to read on to.
        now: As of `ForcedReplay`.
        spending: As of `ForcedReplay`.
        follow_s: Seconds after which it ends; None for no end.
        clock: Seconds from any origin, never going back.
        incumbent: As of `ForcedReplay`.
    """

    def __init__(
        self,
        run_id: str,
        app: str,
        tail: Tail,
        subject: Subject,
        candidate: Candidate,
        proposer: Proposer,
        ledger: Ledger,
        limits: Limits,
        now: Callable[[], datetime],
        spending: Spending | None = None,
        *,
        follow_s: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        incumbent: Incumbent | None = None,
    ) -> None:
        nothing_yet = Segment(app, Span(""), [])
        given = (run_id, nothing_yet, subject, candidate, proposer, ledger, limits, now, spending, incumbent)
        super().__init__(*given)
        self._tail = tail
        self._clock = clock
        self._follow_s = follow_s
        self._strata = dict.fromkeys(subject.strata, PLANNED)
        self._ids: set[str] = set()
        self._news = asyncio.Event()
        self._closed: str | None = None
        self.passed_over = 0
        """Decisions of strata that the subject does not declare."""

    @property
    def decisions(self) -> Sequence[LoggedDecision]:
        """What has come so far."""
        return self._planned

    async def run(self, on_progress: Callable[[Progress], None] = lambda progress: None) -> ForcedResult:
        """As `ForcedReplay.run`. Intervals of the verdict's change are for the mean so far, which may drift."""
        return _followed(await super().run(on_progress), self._limits.alpha)

    def stop(self, because: str = "interrupted") -> None:
        """Take no further decision; calls in flight come to their end."""
        self._closed = self._closed or because
        self._news.set()

    def _tasks(self, run: Run, on_progress: Callable[[Progress], None]) -> list[Coroutine[Any, Any, None]]:
        workers = [self._work(run, on_progress) for _ in range(self._limits.concurrency)]
        return [self._follow(run, on_progress), *workers]

    async def _follow(self, run: Run, on_progress: Callable[[Progress], None]) -> None:
        began = self._clock()
        while self._closed is None:
            if self._follow_s is not None and self._clock() - began >= self._follow_s:
                self.stop("time_ended")
            elif len(self._planned) - run.taken > BACKLOG_MAX:
                await asyncio.sleep(POLL_S)
            else:
                self._add_all(await asyncio.to_thread(self._tail.poll, POLL_S))
                on_progress(self._progress(run))

    def _add_all(self, came: Sequence[LoggedDecision]) -> None:
        for logged in came:
            if logged.decision.decision_id in self._ids:
                self._repeated += 1
            elif logged.stratum not in self._strata:
                self.passed_over += 1
            else:
                self._ids.add(logged.decision.decision_id)
                self._planned.append(logged)
        if came:
            self._news.set()

    async def _take_turn(self, run: Run) -> LoggedDecision | None:
        """The next decision, waiting for it to come; none after the end."""
        most = self._limits.calls_max
        while self._closed is None:
            if most is not None and (run.taken + 1) * len(self._calls) > most:
                self.stop("budget_ended")
            elif run.taken < len(self._planned):
                logged = self._planned[run.taken]
                self._asker.check(logged)
                return logged
            else:
                self._news.clear()
                await self._news.wait()
        return None

    def _feed(self, run: Run) -> None:
        super()._feed(run)
        if run.stopped_at is not None:
            self.stop("verdict")
        elif self._spending.ended:
            self.stop("budget_ended")

    def _ended_because(self) -> str:
        return self._closed or "interrupted"


def _followed(result: ForcedResult, alpha: float) -> ForcedResult:
    """The result with intervals that hold in the log's own order, where traffic changes with time."""

    def told(judged: JudgeSummary, arms: Arms) -> JudgeSummary:
        return _running_summary(judged, _differences(result.pairs, arms), alpha)

    def contrast(one: Contrast | None, arms: Arms) -> Contrast | None:
        return None if one is None else replace(one, judged=told(one.judged, arms))

    return replace(
        result,
        judged=told(result.judged, lambda pair: (pair.baseline, pair.candidate)),
        environment=contrast(result.environment, lambda pair: (pair.baseline, pair.floor[0])),
        change=contrast(result.change, lambda pair: (pair.floor[0], pair.candidate)),
    )


def _differences(pairs: Sequence[Pair], arms: Arms) -> list[tuple[str, float]]:
    """Stratum and difference of the verdicts of each pair that has both, in the order in which it was read."""
    there = [(pair.logged.stratum, *arms(pair)) for pair in pairs]
    return [
        (stratum, float(after.judgement.accepted) - float(before.judgement.accepted))
        for stratum, before, after in there
        if not before.lost and not after.lost
    ]


def _running_summary(judged: JudgeSummary, read: Sequence[tuple[str, float]], alpha: float) -> JudgeSummary:
    by_stratum: dict[str, list[float]] = {}
    for stratum, difference in read[: judged.events]:
        by_stratum.setdefault(stratum, []).append(difference)
    pooled = [difference for _, difference in read[: judged.events]]
    return replace(
        judged,
        levels=tuple(_running(one, pooled, judged.events_at_stop, alpha) for one in judged.levels),
        strata=tuple(
            _running(one, by_stratum.get(one.stratum, []), one.events_at_stop, alpha) for one in judged.strata
        ),
    )


def _running(summary: S, differences: Sequence[float], events_at_stop: int, alpha: float) -> S:
    """Where the level is the verdict: both intervals, over everything read and over what was evidence."""
    if summary.level != VERDICT:
        return summary
    mean = RunningMeanInterval(alpha)
    at_stop = mean.interval
    for number, difference in enumerate(differences, start=1):
        mean.update(difference)
        if number <= events_at_stop:
            at_stop = mean.interval
    return replace(summary, interval=mean.interval, interval_at_stop=at_stop)
