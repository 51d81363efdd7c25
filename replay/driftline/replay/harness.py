"""The harness: re-runs a segment in mode `forced`, feeds the judges in planned order, stops as soon as it knows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from driftline.consumers.proposing import Proposer
from driftline.detectors import SequentialJudge
from driftline.replay.arms import Candidate, Incumbent, calls_of
from driftline.replay.asker import Asker
from driftline.replay.contrasts import Contrasts, Stop
from driftline.replay.counting import result_of
from driftline.replay.ledger import Ledger
from driftline.replay.levels import EXIT_FAMILY
from driftline.replay.reading import AHEAD_FACTOR, Reading
from driftline.replay.recordings import is_logged_run, require_distinct_runs
from driftline.replay.result import ForcedResult, Limits, Pair, Progress
from driftline.replay.segment import Segment
from driftline.replay.spending import Spending
from driftline.replay.spread import open_strata, spread_calls, spread_limits, spread_on
from driftline.replay.subject import Subject
from driftline.replay.turns import planned_decisions

__all__ = ["AHEAD_FACTOR", "ForcedReplay", "ForcedResult", "Limits", "Pair", "Progress"]


class ForcedReplay(Reading):
    """One run in mode `forced`: each decision with its recorded context, its first attempt asked again.

    Args:
        run_id: Names the run; the same plan has the same id, so that the same command resumes it.
        segment: The decisions.
        subject: Today's rules.
        candidate: What is tried.
        proposer: Answers the calls, of every arm.
        ledger: Where answers are written before they count.
        limits: What the run may do.
        now: The wall clock, for the ledger alone.
        spending: Lets calls through while the run's budget lasts; None for no budget.
        incumbent: Asked the same decisions beside the candidate; None for the log against the candidate alone.
        stop: Decides in place of the run's own test of log against candidate; None where that decides.
    """

    def __init__(
        self,
        run_id: str,
        segment: Segment,
        subject: Subject,
        candidate: Candidate,
        proposer: Proposer,
        ledger: Ledger,
        limits: Limits,
        now: Callable[[], datetime],
        spending: Spending | None = None,
        incumbent: Incumbent | None = None,
        stop: Stop | None = None,
    ) -> None:
        spending, seed = spending or Spending(), limits.order_seed
        first = Asker(run_id, subject, calls_of(candidate, incumbent), proposer, ledger, spending, seed, now)
        super().__init__(planned_decisions(segment, limits, len(first.calls)), subject, first, limits, spending)
        self._run_id = run_id
        self._segment = segment
        self._arms = candidate, incumbent
        self._stop = stop
        self._cut_short = len(self._planned) < len(segment.decisions)
        self._strata = segment.planned()
        self._repeated = segment.repeated
        self._fresh = first.with_calls(spread_calls(candidate, incumbent))
        self._second = spread_limits(limits, candidate, incumbent)

    @property
    def decisions_max(self) -> int:
        """Decisions that are asked, if the verdict comes in with the last of them."""
        return len(self._planned)

    async def run(self, on_progress: Callable[[Progress], None] = lambda progress: None) -> ForcedResult:
        """Ask, judge, decide.

        What was answered before an interruption is in the ledger, is not paid again and counts as it stands there.
        Not guaranteed: that a provider does not charge for calls that were in flight at an interruption; that a run
        which asks the incumbent and goes on after more than a day finds answers as they were.

        Raises:
            UsageError: A boundary or prompt is gone, a prompt lacks a variable, or the model does not exist. Where
                all decisions of a stream lack it, nothing was paid yet; else what was paid is in the ledger. A
                recording does not hold the runs of the incumbent, or one of them is the candidate's.
        """
        self._check()
        copied = is_logged_run(self._segment, self._arms[1])
        given = len(self._calls) - 1, self._limits.locate, copied, self._limits.decisions_min, self._stop
        contrasts = Contrasts(self._new_judge, *given)
        read = await self.read(contrasts, on_progress)
        ended = self._ended_because()
        result = result_of(self._run_id, read, contrasts, self._calls, self._limits, self._repeated, ended)
        result = replace(result, open_strata=open_strata(result, self._limits.delta))
        left = None if self._second is None else self._second.after(result)
        if left is None:
            return replace(result, overrun=self._spending.overrun)
        still_open = [logged for logged in self._planned if logged.stratum in result.open_strata]
        planned = still_open if left.calls_max is None else still_open[: left.calls_max // len(self._fresh.calls)]
        again = Reading(planned, self._subject, self._fresh, left, self._spending)
        result = await spread_on(result, again, left, len(planned) < len(still_open), on_progress)
        return replace(result, overrun=self._spending.overrun)

    def _check(self) -> None:
        """Make one request of each kind, so that what cannot be asked is known before anything is paid."""
        require_distinct_runs(*self._arms)
        kinds = {(logged.stratum, logged.decision.prompt_hash): logged for logged in self._planned}
        for logged in kinds.values():
            self._subject.judge(logged.decision)
            self._asker.check(logged)

    def _new_judge(self, *, locate: bool = False, floor_runs: int = 0) -> SequentialJudge:
        return SequentialJudge(
            list(self._strata),
            planned=self._strata,
            alpha=self._limits.alpha,
            delta=self._limits.delta,
            min_effect=self._limits.min_effect,
            indicators=self._subject.indicators,
            exit_levels=EXIT_FAMILY,
            locate=locate,
            read_on=self._limits.read_on,
            floor_runs=floor_runs,
        )

    def _ended_because(self) -> str:
        """Why there is no more evidence, where there is no verdict."""
        return "budget_ended" if self._cut_short or self._spending.ended else "segment_ended"
