"""The failing-batch diagnostic: whose fault is it that a batch of decisions fails under a candidate.

The tempting form, to run the batch again on the old model and to blame the new one for what resolves, is unsafe. A
batch is picked *because* it failed once, and with no change at all about half of a noisy one passes when it is run
again (regression to the mean). Equally unsafe is to hold fresh answers of the candidate against the logged ones
that the batch was picked by: every one of them passed. Here both models answer afresh and are compared in pairs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from driftline.detectors.betting import BettingEProcess, log_mean_exp, mixture_coefficients
from driftline.detectors.intervals import betting_interval
from driftline.detectors.outcomes import Interval

Conclusion = Literal["candidate", "not the model", "unknown"]
Direction = Literal["worse", "better"]

EVENTS_SEARCHED_MAX = 10_000
"""No alpha that a double can hold needs so many."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What a batch says of a candidate.

    `candidate`: it fails more of the batch than the incumbent, which asked afresh passes it. `not the model`: over
    the batch both pass the same share, to within `delta`. `unknown`: the evidence suffices for neither.

    Attributes:
        conclusion: One of the three.
        reason: One sentence: why that, and what would tell more.
        direction: Of an alarm: `worse` or `better`; None without one.
        e_value: At the alarm, else at the end.
        alarm_after: Events read at the alarm; None without one.
        events: Events read.
        pairs: Pairs of fresh answers in them.
        shift: Mean of R over the pairs: how much less the candidate passes; None where nothing was read.
        interval: For the mean of R over the events of the batch.
    """

    conclusion: Conclusion
    reason: str
    direction: Direction | None
    e_value: float
    alarm_after: int | None
    events: int
    pairs: int
    shift: float | None
    interval: Interval


class FailingBatch:
    """Tests whether a candidate is why a batch fails: fed R_i = ok(A''_i) - ok(B''_i), both asked afresh.

    A'' is the incumbent, B'' the candidate, ok is 1 where today's verifier accepts. Events come in an order fixed
    before any call. The mean R of each event is bet on, two-sided: if both models pass an event alike, the chance
    that `alarmed` ever turns true is at most `alpha`, at whatever moment the reading stops. However many repeats an
    event has, it is one bet: one odd decision cannot make the alarm, and it speaks of decisions like these.

    A batch of fewer events than `events_to_alarm` could never alarm so. With `by_repeat` each repeat is a bet: they
    are independent given the event, so that the same bound holds, and an alarm speaks of these very decisions alone.
    Which of the two it is must be settled by the size of the batch, before any call.

    The interval is for the mean of R over the events of this batch and takes every repeat for itself. It holds where
    the number of pairs was fixed beforehand, though events differ in their means: given the events the repeats are
    independent, and by the inequality of the means a product of bets on their average expects no gain.

    Not guaranteed: anything, if an answer is one that the batch was picked by; the interval, once an alarm has
    stopped the reading (then it only describes); anything of decisions outside the batch.

    Source: Waudby-Smith & Ramdas 2024; Ville's inequality.

    Raises:
        ValueError: `alpha` or `delta` is outside (0, 1).
    """

    def __init__(self, alpha: float = 0.05, delta: float = 0.05, by_repeat: bool = False) -> None:
        if not 0.0 < alpha < 1.0 or not 0.0 < delta < 1.0:
            raise ValueError("alpha and delta must be in (0, 1)")
        self._alpha, self._delta, self._by_repeat = alpha, delta, by_repeat
        self._process = BettingEProcess()
        self._events = 0
        self._pairs: list[float] = []
        self._alarm: tuple[int, float, Direction] | None = None
        self._sum = 0.0

    @property
    def alarmed(self) -> bool:
        """Whether the evidence has reached 1 / alpha; it never turns back."""
        return self._alarm is not None

    def update(self, differences: Sequence[float]) -> None:
        """Take one event: R of each of its repeats, each in [-1, 1].

        Raises:
            ValueError: There is none, or one is out of range.
        """
        if not differences or not all(-1.0 <= one <= 1.0 for one in differences):
            raise ValueError("an event needs differences, each in [-1, 1]")
        self._events += 1
        self._pairs.extend(differences)
        for bet in differences if self._by_repeat else [sum(differences) / len(differences)]:
            self._process.update(bet)
            self._sum += bet
            if self._alarm is None and self._process.e_value >= 1.0 / self._alpha:
                # The capital of one sign alone can have grown, and it grows only with a sum of that sign.
                self._alarm = self._events, self._process.e_value, "worse" if self._sum > 0 else "better"

    def diagnosis(self) -> Diagnosis:
        """What follows from what was read."""
        interval = betting_interval(self._pairs, self._alpha, running=False)
        conclusion, reason = self._conclude(interval)
        after, e_value, direction = self._alarm or (None, self._process.e_value, None)
        return Diagnosis(
            conclusion=conclusion,
            reason=reason,
            direction=direction,
            e_value=e_value,
            alarm_after=after,
            events=self._events,
            pairs=len(self._pairs),
            shift=float(np.mean(self._pairs)) if self._pairs else None,
            interval=interval,
        )

    def _conclude(self, interval: Interval) -> tuple[Conclusion, str]:
        if self._alarm is not None:
            if self._alarm[2] == "worse":
                return "candidate", "asked afresh, the incumbent passes the batch more often than the candidate"
            return "unknown", "asked afresh, the candidate passes more of the batch than the incumbent"
        if -self._delta < interval[0] and interval[1] < self._delta:
            return "not the model", "asked afresh, both pass the same share of the batch"
        return "unknown", self._what_is_missing(interval)

    def _what_is_missing(self, interval: Interval) -> str:
        needed = events_to_alarm(self._alpha)
        if self._process.n < needed:
            return f"{self._process.n} bets were made, and fewer than {needed} cannot make an alarm"
        if not interval[0] <= 0.0 <= interval[1]:
            less = "less" if interval[0] > 0.0 else "more"
            return (
                f"of these {self._events} decisions the candidate passes {less} than the incumbent, asked afresh; "
                "they are too few to say so of decisions like them: diagnose a larger failing batch"
            )
        factor = (max(abs(end) for end in interval) / self._delta) ** 2
        return (
            f"no alarm, and to show both alike within {100 * self._delta:g} points takes a wider --delta or up to "
            f"{factor:.2g} times the repeats"
        )


def events_to_alarm(alpha: float) -> int:
    """The fewest bets that can make `FailingBatch` alarm: all of them with R = 1.

    Raises:
        ValueError: `alpha` is outside (0, 1).
    """
    if not 0.0 < alpha < 1.0:
        raise ValueError(f"alpha must be in (0, 1), got {alpha}")
    growth = np.log1p(mixture_coefficients())
    counts = range(1, EVENTS_SEARCHED_MAX)
    return next(count for count in counts if float(log_mean_exp(count * growth)) >= -np.log(alpha))


@dataclass(frozen=True, slots=True)
class Cause:
    """Which part of a candidate that changes several is why the batch fails.

    Attributes:
        name: The part, several joined by `and`, or `unknown`.
        reason: One sentence.
    """

    name: str
    reason: str


def cause_of(whole: Diagnosis, parts: Sequence[tuple[str, Diagnosis]]) -> Cause:
    """Attribute a candidate's failures to its parts, each of which was tried alone on the incumbent.

    Args:
        whole: Of the candidate as it is.
        parts: Name and diagnosis of each part that it changes; where it changes one, that alone, undiagnosed again.

    Not guaranteed: that a part which is not named is innocent, where its own diagnosis is `unknown`.
    """
    if whole.conclusion != "candidate":
        return Cause("unknown", "the candidate as a whole is not shown to be why the batch fails")
    names = [name for name, _ in parts]
    if not names:
        return Cause("unknown", "the candidate asks these decisions exactly as the incumbent does")
    if len(parts) == 1:
        return Cause(names[0], f"{_verb(names[0], 'is', 'are')} all that the candidate changes")
    guilty = [name for name, part in parts if part.conclusion == "candidate"]
    if len(guilty) == len(parts):
        return Cause(" and ".join(names), "each of them alone makes the batch fail")
    if guilty:
        alone = "each of them alone makes" if len(guilty) > 1 else _verb(guilty[0], "alone makes", "alone make")
        others = ", ".join(f"the {name} alone: {part.conclusion}" for name, part in parts if name not in guilty)
        others = others.replace("not the model", "not the cause")
        return Cause(" and ".join(guilty), f"{alone} the batch fail; {others}")
    if all(part.conclusion == "not the model" for _, part in parts):
        together = "only together do they make the batch fail, neither does alone"
        several = "none of them alone makes the batch fail; which of them do together is not known"
        return Cause(" and ".join(names), together if len(parts) == 2 else several)
    return Cause("unknown", f"{'neither' if len(parts) == 2 else 'no'} part alone is shown to make the batch fail")


def _verb(name: str, one: str, many: str) -> str:
    return f"the {name} {many if name.endswith('s') else one}"


@dataclass(frozen=True, slots=True)
class Moved:
    """What of a run moved, as far as its evidence goes.

    Attributes:
        actions: Whether the evidence at the action level reached its threshold.
        changed_and_accepted: Decisions whose action changed while both arms were accepted.
        text: Whether bytes or canonical text differ more often than runs of the incumbent do; None without a floor.
        same_text: Decisions of the failing batch whose answers are canonically equal in both arms.
        batch: Decisions of the failing batch.
    """

    actions: bool
    changed_and_accepted: int
    text: bool | None
    same_text: int
    batch: int


@dataclass(frozen=True, slots=True)
class Advice:
    """What to do about a candidate: `pin`, `gate`, `adapt parser`, or None where nothing is shown; and why."""

    name: Literal["pin", "gate", "adapt parser"] | None
    reasons: tuple[str, ...]


def advise(diagnosis: Diagnosis, moved: Moved) -> Advice:
    """What follows for operations; the gravest that is shown.

    `pin` the incumbent where the candidate is confirmed and verdicts fall; `gate` the boundary (approval, or a
    tighter policy) where it does other things that are accepted; `adapt parser` where only the form moved.
    """
    if diagnosis.conclusion == "candidate":
        reasons = ["the candidate fails decisions that the incumbent, asked afresh, passes"]
        if 2 * moved.same_text > moved.batch:
            reasons.append(
                f"{moved.same_text} of the {moved.batch} failing answers say canonically what passed before: "
                "a parser that takes their form may be all that is needed"
            )
        return Advice("pin", tuple(reasons))
    if moved.actions and moved.changed_and_accepted:
        how_many = f"{moved.changed_and_accepted} decisions would do something else, and the verifier accepts it"
        return Advice("gate", (how_many,))
    if moved.text and not moved.actions:
        return Advice("adapt parser", ("texts differ more often than the incumbent's own, actions do not",))
    if moved.text is None and not moved.actions:
        return Advice(None, ("no verdict or action is shown to move; whether texts do, only a noise floor tells",))
    return Advice(None, ("nothing is shown to move",))
