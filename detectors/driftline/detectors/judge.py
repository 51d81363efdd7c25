"""The sequential judge: diverged, equivalent, or not yet known."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from driftline.detectors.betting import LOG_E_MAX, Floats, e_from_log, log_mean_exp
from driftline.detectors.combine import e_bh, log_global_e_value
from driftline.detectors.evidence import (
    EXIT_LEVELS,
    LEVELS,
    EquivalenceWatch,
    StratumEvidence,
    signed_differences,
)
from driftline.detectors.excess import AGREEMENT, FLOOR_RUNS_MIN, FloorReading, floor_readings
from driftline.detectors.outcomes import Decision, JudgeSummary, Observation
from driftline.detectors.summary import Evidence, summarise
from driftline.detectors.tally import Tally

NET_RATE_NOTE = (
    "net rate equivalent over the decisions of this segment (the intervals shown are for decisions to come);"
    " there was no noise floor, so this does not exclude that other decisions are affected at the same rate"
)
FLOOR_NOTE = (
    "equivalent over the decisions of this segment (the intervals shown are for decisions to come): in every stratum"
    " the net rate moved by less than delta, and the candidate differs from runs of the incumbent by less than delta"
    " more often than they do from one another, at each level that decides"
)
SINGLE_RUN_NOTE = (
    "equivalent over the decisions of this segment (the intervals shown are for decisions to come): in every stratum"
    " the net rate moved by less than delta, and the candidate differs from the run of the incumbent by less than"
    " delta more often than the baseline does, at each level that decides"
)


class SequentialJudge:
    """Reads paired outcomes in their planned order and decides as soon as the evidence suffices.

    A stratum is a stream of a boundary ("boundary/stream"). In each, the e-values of the exit levels are averaged
    with equal weights (they share events); over the strata half the mean and half the product is taken. After every
    `observe`, in this order: `diverged` when that global e-value reaches 1 / alpha; else `equivalent` when in every
    stratum the intervals of the net change of the verdict and of each indicator lie inside +-`delta`, and nowhere
    does the e-value of a single level stand at 1 / alpha (rates that cancel out are not called equal); else None.

    With `floor_runs` of the incumbent on each observation, soft rank and excess mismatch are part of every level's
    e-value, with weights fixed beforehand (`evidence.FLOOR_WEIGHTS`), so that a candidate that spreads over more
    answers than the incumbent, or fewer, is seen at one paid call an event; and `equivalent` needs more: in every
    stratum the interval of the excess mismatch has its upper end below +`delta` at each level that decides.

    All other levels that answers have (bytes, canonical, arguments) get e-values of their own in the summary, valid
    each by itself. They decide nothing: neither the decision nor a name rests on them.

    If the arms, and the floor where there is one, are exchangeable given each event, `diverged` has a chance of at
    most `alpha`, over all strata, levels and moments together. If in some stratum a net change, or with a floor the
    excess, over its planned events is larger than `delta`, `equivalent` has a chance of at most `alpha`.

    Not guaranteed: the first, if events are not fed in an order fixed before any call; the second, without a floor
    beyond net rates (see `note`), or exactly where a workflow has several correlated events. `diverged` may name no
    stratum.

    With `locate` the evidence goes on after the alarm until e-BH names a stratum: the alarm stands whatever comes,
    and the names are those at the one moment at which the evidence stopped. With `read_on` that moment is the end of
    what is read, which was planned: names and e-values of strata are then of all events, `e_value` and the e-values
    of levels those at the alarm.

    Args:
        strata: all that were planned; e-values of those never seen stay 1.
        planned: events planned per stratum; intervals treat what was read as drawn from them without replacement.
        indicators: names of features in [0, 1], fixed before any call, that are bet on with their sign. Values
            outside are held at 0 or 1.
        exit_levels: which of verdict, action and state decide.
        locate: whether evidence is taken after an alarm until a stratum is named.
        read_on: whether all events are read whatever is decided, so that those after an alarm tell where it was.
        floor_runs: runs of the incumbent that are planned for each event; 0 for no floor. An event with fewer than
            two of them moves neither soft rank nor excess. A single run, where no more are planned, has no soft rank,
            and its excess is how much more often the candidate differs from it than the baseline does.

    Raises:
        ValueError: strata repeat or have no plan, or a number or level is out of its range.
    """

    def __init__(
        self,
        strata: Sequence[str],
        *,
        planned: Mapping[str, int],
        alpha: float = 0.05,
        delta: float = 0.05,
        min_effect: float = 0.0,
        indicators: Sequence[str] = (),
        exit_levels: Sequence[str] = ("verdict", "action"),
        locate: bool = False,
        read_on: bool = False,
        floor_runs: int = 0,
    ) -> None:
        _check(strata, planned, alpha, delta, exit_levels)
        self._alpha, self._indicators, self._levels = alpha, tuple(indicators), tuple(exit_levels)
        self._index = {stratum: index for index, stratum in enumerate(strata)}
        self._planned = {stratum: planned[stratum] for stratum in strata}
        self._floor_runs, self._floor = floor_runs, floor_runs > 0
        self._evidence = [StratumEvidence(len(indicators), min_effect, self._floor) for _ in strata]
        signed, excesses = 1 + len(indicators), len(exit_levels) if self._floor else 0
        self._watches = [EquivalenceWatch(signed, delta, alpha, planned[name], excesses) for name in strata]
        self._outside = sum(not watch.inside for watch in self._watches)
        self._log_e = np.zeros((len(strata), len(exit_levels)))
        self._tally = Tally(tuple(exit_levels))
        self._locate, self._read_on = locate, read_on
        self._decision: Decision | None = None
        self._alarm: tuple[int, float] | None = None
        self._stop: dict[str | None, int] = {}
        self._evidence_at_stop: Evidence | None = None

    @property
    def decision(self) -> Decision | None:
        """`diverged`, `equivalent`, or None while the evidence suffices for neither."""
        return self._decision

    @property
    def done(self) -> bool:
        """Whether no more evidence is taken: it is decided and, with `locate`, a stratum is named."""
        return bool(self._stop)

    @property
    def note(self) -> str:
        """What limits the decision; empty where nothing does."""
        if self._decision != "equivalent":
            return ""
        if not self._floor:
            return NET_RATE_NOTE
        return FLOOR_NOTE if self._floor_runs >= FLOOR_RUNS_MIN else SINGLE_RUN_NOTE

    @property
    def e_value(self) -> float:
        """The global e-value, at the alarm if there was one."""
        return self._alarm[1] if self._alarm else e_from_log(self._log_e_value())

    @property
    def alarm_after(self) -> int | None:
        """How many events had been read at the alarm; None without one."""
        return self._alarm[0] if self._alarm else None

    def observe(self, observation: Observation) -> None:
        """Take the next event of the planned order, and decide.

        Raises:
            RuntimeError: it is `done`; use `observe_after_stop`.
            ValueError: the stratum was not planned, or all its planned events were read.
        """
        if self.done:
            raise RuntimeError(f"the judge has decided ({self._decision}) and takes no more evidence")
        index, readings = self._add(observation)
        differences = self._bet(index, observation, readings)
        watch = self._watches[index]
        was_inside = watch.inside
        watch.update(differences, self._excesses(readings))
        self._outside -= watch.inside and not was_inside
        self._decide()

    def observe_after_stop(self, observation: Observation) -> None:
        """Take an event that changes no decision: it counts for rates, `interval` and, with `read_on`, for names.

        Raises:
            RuntimeError: it is not `done`; use `observe`.
            ValueError: as `observe`.
        """
        if not self.done:
            raise RuntimeError("nothing is decided yet: this event is evidence")
        index, readings = self._add(observation)
        if self._read_on and self._alarm:
            self._bet(index, observation, readings)

    def summary(self) -> JudgeSummary:
        """Return rates, intervals, e-values and names, as they stand now."""
        evidence = self._all_evidence()
        return summarise(
            self._tally,
            evidence,
            at_stop=self._evidence_at_stop or evidence,
            stop=self._stop,
            alpha=self._alpha,
            decision=self._decision,
            note=self.note,
            e_value=self.e_value,
        )

    def _all_evidence(self) -> Evidence:
        """E-values of the levels that decide, and after them of those that are only reported."""
        levels = (*self._levels, *(level for level in LEVELS if level not in self._levels))
        logs = np.array([evidence.log_e_values(levels) for evidence in self._evidence])
        return Evidence(levels, len(self._levels), tuple(self._index), np.exp(np.minimum(logs, LOG_E_MAX)))

    def _excesses(self, readings: Mapping[str, FloorReading] | None) -> list[float] | None:
        if not self._floor:
            return []
        return None if readings is None else [readings.get(level, AGREEMENT).excess for level in self._levels]

    def _add(self, observation: Observation) -> tuple[int, Mapping[str, FloorReading] | None]:
        stratum = observation.stratum
        if stratum not in self._index:
            raise ValueError(f"stratum {stratum!r} was not planned")
        if self._tally.events(stratum) >= self._planned[stratum]:
            raise ValueError(f"all {self._planned[stratum]} planned events of stratum {stratum!r} were read")
        readings = floor_readings(observation, self._floor_runs) if self._floor else None
        self._tally.add_read(observation, readings)
        return self._index[stratum], readings

    def _decide(self) -> None:
        if self._decision is None:
            log_e_value = self._log_e_value()
            if log_e_value >= -math.log(self._alpha):
                self._decision = "diverged"
                self._alarm = (self._tally.events(), e_from_log(log_e_value))
            elif not self._outside and float(self._log_e.max()) < -math.log(self._alpha):
                self._decision = "equivalent"
        if self._decision == "equivalent" or (self._alarm and (not self._locate or self._names())):
            self._stop = {stratum: self._tally.events(stratum) for stratum in (None, *self._index)}
            self._evidence_at_stop = self._all_evidence()

    def _bet(
        self, index: int, observation: Observation, readings: Mapping[str, FloorReading] | None
    ) -> Sequence[float]:
        differences = signed_differences(observation, self._indicators)
        self._evidence[index].update(observation, differences, readings)
        self._log_e[index] = self._evidence[index].log_e_values(self._levels)
        return differences

    def _names(self) -> bool:
        return bool(e_bh(self._e_values().ravel().tolist(), self._alpha))

    def _e_values(self) -> Floats:
        return np.exp(np.minimum(self._log_e, LOG_E_MAX))

    def _log_e_value(self) -> float:
        return log_global_e_value(log_mean_exp(self._log_e, axis=1), len(self._index))


def _check(
    strata: Sequence[str], planned: Mapping[str, int], alpha: float, delta: float, exit_levels: Sequence[str]
) -> None:
    if not strata or len(set(strata)) != len(strata):
        raise ValueError("strata must be given, each once")
    missing = [stratum for stratum in strata if stratum not in planned]
    if missing:
        raise ValueError(f"no number of planned events for {missing}")
    if not 0.0 < alpha < 1.0 or not 0.0 < delta <= 1.0:
        raise ValueError("alpha must be in (0, 1) and delta in (0, 1]")
    if not exit_levels or len(set(exit_levels)) != len(exit_levels) or not set(exit_levels) <= set(EXIT_LEVELS):
        raise ValueError(f"exit levels must be some of {EXIT_LEVELS}, each once")
