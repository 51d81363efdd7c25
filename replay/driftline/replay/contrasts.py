"""The three tests of a run, fed in one pass: log against candidate, and what tells environment from model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from driftline.detectors import ArmOutcome, Observation, SequentialJudge
from driftline.replay.levels import JudgedAnswer
from driftline.replay.result import COVERAGE_MIN, Contrast

DIVERGED = "diverged"
COVERAGE_DECISIONS = 50
"""One answer lost among a dozen is no lack of coverage yet: a test that has decided reads on until so many."""


class NewJudge(Protocol):
    """Makes a judge of the run's strata and limits."""

    def __call__(self, *, locate: bool = False, floor_runs: int = 0) -> SequentialJudge:
        """A judge that has seen nothing."""


class Stop(Protocol):
    """Decides when a run has read enough, in place of its own first test."""

    @property
    def done(self) -> bool:
        """Whether no more evidence is needed."""

    @property
    def decision(self) -> str | None:
        """`diverged`, `equivalent`, or None as long as the evidence suffices for neither."""

    @property
    def e_value(self) -> float:
        """The evidence so far."""

    def observe(self, observation: Observation) -> None:
        """Take the next evidence of the first test."""


class Contrasts:
    """L against B, which gives the verdict; L against A' and A' against B, which give its cause.

    Each is a test of its own with the same bound on false alarms. Those of the candidate are told how runs of the
    incumbent differ, where there are two or more. Where there is one, the first is told whether log and candidate
    differ from it equally often, unless A' is a copy of the log: that holds whatever became of the environment.

    Args:
        new_judge: Makes a judge.
        runs: Runs of the incumbent; 0 for none, and then there is the first test alone.
        locate: Whether the first goes on after its alarm until a stratum is named.
        copied: Whether A' is the very run that the log holds, from which the log never differs.
        decisions_min: How many decisions are read at least.
        stop: Decides in place of the first test, which then measures only; all that is read until it is done is
            evidence. None where the first test decides.
    """

    def __init__(
        self,
        new_judge: NewJudge,
        runs: int,
        locate: bool,
        copied: bool = False,
        decisions_min: int = 1,
        stop: Stop | None = None,
    ) -> None:
        self._stop = stop
        self._runs = runs
        self._runs_of_floor = 0 if runs == 1 and copied else runs
        self.main = new_judge(locate=locate, floor_runs=self._runs_of_floor)
        self._environment = _Side(new_judge()) if runs else None
        self._change = _Side(new_judge(floor_runs=runs if runs > 1 else 0)) if runs else None
        self._coverage = _Coverage()
        self._decisions_min = decisions_min

    @property
    def done(self) -> bool:
        """Whether the verdict is in and, where it is `diverged`, what tells its cause; each with enough answers.

        Nothing is read to show that a side did not move: that would cost what the equivalence of two arms costs.
        """
        decided = (self._stop or self.main).done
        if not decided or not self._coverage.is_known or self._coverage.offered < self._decisions_min:
            return False
        if self._environment is None or self._change is None or self.decision != DIVERGED:
            return True
        return self._change.done or (self._environment.done and self._environment.judge.decision == DIVERGED)

    @property
    def e_value(self) -> float:
        """Of the test that decides."""
        return (self._stop or self.main).e_value

    @property
    def decision(self) -> str | None:
        """Of the test that decides."""
        return (self._stop or self.main).decision

    def observe(
        self, stratum: str, baseline: JudgedAnswer, first: JudgedAnswer, others: Sequence[JudgedAnswer]
    ) -> bool:
        """Take the next decision of the planned order: the candidate's answer, then the incumbent's.

        Returns whether it was evidence of the first test. What an arm has lost costs the contrasts that need it, and
        no other.
        """
        self._coverage.add(not baseline.lost and not first.lost)
        if baseline.lost:
            return False
        before, after = baseline.outcome(), None if first.lost else first.outcome()
        runs = [None if run.lost else run.outcome() for run in others]
        if self._environment is not None and self._change is not None:
            self._environment.observe(stratum, before, runs[0])
            self._change.observe(stratum, runs[0], after, self._floor(runs) if self._runs > 1 else ())
        if after is None:
            return False
        observation = Observation(stratum, before, after, self._floor(runs))
        evidence = self._stop is not None or not self.main.done
        _observe(self.main, observation)
        if self._stop is not None:
            self._stop.observe(observation)
        return evidence

    def observe_after_stop(self, stratum: str, baseline: JudgedAnswer, first: JudgedAnswer) -> None:
        """Take what was paid for nothing: it counts for rates alone, and for nothing where another test decided."""
        if self._stop is None and not baseline.lost and not first.lost:
            self.main.observe_after_stop(Observation(stratum, baseline.outcome(), first.outcome()))

    def environment(self) -> Contrast | None:
        """L against A'; None without A'."""
        return None if self._environment is None else self._environment.contrast(calls=1)

    def change(self) -> Contrast | None:
        """A' against B; None without A'."""
        return None if self._change is None else self._change.contrast(calls=1 + self._runs)

    def _floor(self, runs: Sequence[ArmOutcome | None]) -> tuple[ArmOutcome, ...]:
        return tuple(run for run in runs if run is not None) if self._runs_of_floor else ()


class _Coverage:
    """How many of the decisions that a test was offered had the answers that it needs."""

    def __init__(self) -> None:
        self.offered = 0
        self._entered = 0

    def add(self, entered: bool) -> None:
        self.offered += 1
        self._entered += entered

    @property
    def is_enough(self) -> bool:
        return self._entered >= COVERAGE_MIN * self.offered

    @property
    def is_known(self) -> bool:
        """Whether what is lacking is more than a few answers at the start."""
        return self.is_enough or self.offered >= COVERAGE_DECISIONS


class _Side:
    """One of the two contrasts with the incumbent of today."""

    def __init__(self, judge: SequentialJudge) -> None:
        self.judge = judge
        self._coverage = _Coverage()
        self._read = 0

    @property
    def done(self) -> bool:
        """Whether it has decided, with enough answers."""
        return self.judge.done and self._coverage.is_known

    def observe(
        self,
        stratum: str,
        before: ArmOutcome | None,
        after: ArmOutcome | None,
        floor: tuple[ArmOutcome, ...] = (),
    ) -> None:
        """Take a decision; one that an arm has lost is no evidence."""
        self._coverage.add(before is not None and after is not None)
        if before is None or after is None:
            return
        self._read += not self.judge.done
        _observe(self.judge, Observation(stratum, before, after, floor))

    def contrast(self, calls: int) -> Contrast:
        """What it says as it stands, at so many calls a decision."""
        verdict, because = self._verdict()
        return Contrast(verdict, because, self.judge.summary(), calls * self._read)

    def _verdict(self) -> tuple[str, str]:
        if not self._coverage.is_enough:
            return "inconclusive", "coverage"
        because = {"diverged": "alarm", "equivalent": "equivalent", None: "not_needed"}[self.judge.decision]
        return self.judge.decision or "inconclusive", because


def _observe(judge: SequentialJudge, observation: Observation) -> None:
    (judge.observe_after_stop if judge.done else judge.observe)(observation)
