"""What a run may do, and what comes out of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from driftline.consumers.proposing import Answer, ProposerFailure
from driftline.detectors import JudgeSummary
from driftline.replay.levels import JudgedAnswer
from driftline.replay.segment import LoggedDecision
from driftline.schemas import UsageError

COVERAGE_MIN = 0.9
"""Below it a verdict would speak of too few of the decisions: `inconclusive`."""

NOT_ASKED = Answer(None, ProposerFailure.NOT_RECORDED, "not asked: the log has no outcome to hold an answer against")
NOT_PAID = Answer(None, ProposerFailure.NOT_RECORDED, "not asked: the budget has ended")
NOT_NEEDED = Answer(None, ProposerFailure.NOT_RECORDED, "not asked: the test had stopped")


def was_asked(judged: JudgedAnswer) -> bool:
    """Whether a call was made for an answer, or an earlier one stands for it."""
    return not any(judged.answer is sentinel for sentinel in (NOT_ASKED, NOT_PAID, NOT_NEEDED))


@dataclass(frozen=True, slots=True)
class Limits:
    """What a run may do.

    Attributes:
        alpha: Bound on the probability of a false alarm.
        delta: Half-width of the equivalence region, in points of rate.
        min_effect: The smallest net change that is worth an alarm.
        order_seed: Of the order in which workflows enter.
        concurrency: Calls in flight.
        calls_max: Calls that may be paid, one an answer however many rounds it takes; None for no limit.
        usd_max: Dollars that may be paid, those of earlier attempts at the same run included; None for no limit.
        requests_per_minute: Calls a minute of each model; None for no limit.
        tokens_per_minute: Tokens a minute of each model, read and written; None for no limit.
        locate: Go on after an alarm until a stratum is named.
        read_on: Go on to the end of the segment after the verdict, for the interval over all of it.
        decisions_min: Read at least so many decisions, whatever the verdict.
        mmd: Ask four further calls a decision in strata that are still open; None for only where the incumbent is
            asked, calls or dollars were limited and some of them are left.

    Raises:
        UsageError: One is out of its range.
    """

    alpha: float = 0.05
    delta: float = 0.05
    min_effect: float = 0.0
    order_seed: int = 0
    concurrency: int = 8
    calls_max: int | None = None
    locate: bool = False
    read_on: bool = False
    usd_max: float | None = None
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    mmd: bool | None = None
    decisions_min: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.alpha < 1 or not 0 < self.delta <= 1 or not 0 <= self.min_effect < 1:
            raise UsageError("alpha and delta lie between 0 and 1, min-effect in [0, 1)")
        if self.concurrency < 1 or (self.calls_max is not None and self.calls_max < 1):
            raise UsageError("concurrency and max-calls are at least 1")
        rates = (self.usd_max, self.requests_per_minute, self.tokens_per_minute)
        if any(limit is not None and not limit > 0 for limit in rates):
            raise UsageError("a budget and rates a minute are above 0", "leave the option out for no limit")


@dataclass(frozen=True, slots=True)
class Pair:
    """A decision under both arms."""

    index: int
    """Place in the planned order, from 0."""
    logged: LoggedDecision
    baseline: JudgedAnswer
    candidate: JudgedAnswer
    evidence: bool
    """Whether it entered the test; False for what was lost, read on after the verdict or came too late for it."""
    floor: tuple[JudgedAnswer, ...] = ()
    """What runs of the incumbent answered; the first of them is A'. Empty where the incumbent was not asked."""

    @property
    def answers(self) -> tuple[JudgedAnswer, ...]:
        """All that was asked for: the candidate's answer, then the incumbent's."""
        return self.candidate, *self.floor

    @property
    def calls(self) -> int:
        """Calls that were made or taken from the ledger."""
        return sum(was_asked(answer) for answer in self.answers)

    @property
    def lost(self) -> bool:
        """Whether an arm has no outcome: the pair costs coverage and is no evidence."""
        return self.baseline.lost or self.candidate.lost


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run is."""

    planned: int
    read: int
    paid_calls: int
    e_value: float
    decision: str | None
    spent_usd: float = 0.0
    """Dollars of this run so far, where prices are known; what was paid before an interruption included."""
    usd_max: float | None = None


@dataclass(frozen=True)
class Contrast:
    """Two arms of a run against one another, judged on their own beside log against candidate."""

    verdict: str
    """As of a run."""
    stopped_because: str
    """`alarm`, `equivalent`, `coverage`, or `not_needed`: no more was read, since the run knew what it was asked."""
    judged: JudgeSummary
    calls: int
    """Calls that its evidence took."""


@dataclass(frozen=True)
class ForcedResult:
    """What came out of a run."""

    run_id: str
    verdict: str
    """`diverged`, `equivalent` or `inconclusive`."""
    stopped_because: str
    """`alarm`, `equivalent`, `segment_ended`, `budget_ended`, `coverage`; in `shadow` also `time_ended` or
    `interrupted`."""
    judged: JudgeSummary
    alarm_after: int | None
    """Pairs that it took to the alarm; None without one."""
    pairs: Sequence[Pair] = field(repr=False)
    """In planned order. Not in the repr, which `asyncio.run` makes of every result (Python 3.11)."""
    paid_calls: int
    """Calls made or taken from the ledger up to the stop: what the verdict cost."""
    from_ledger: int
    """How many of all calls the ledger had already."""
    overspent_calls: int
    """Calls that were paid and are no evidence, because they were in flight when the test stopped."""
    estimate_calls: int
    """Calls that were paid after the verdict, to read on for the interval; reading on in a recording is free."""
    cost_usd: float | None
    """Dollars of all calls counted above; None when the price of an answer is unknown. What the provider asks for
    a call that failed is not known, and not in it."""
    coverage: float
    """Share of what was read up to the stop that had an outcome on the log and of the candidate."""
    repeated_decisions: int
    """Decisions that lay on the log more than once; each counts once."""
    verifier_drift: int
    """Logged first attempts whose verdict today's verifier changes."""
    environment: Contrast | None = None
    """The log against the incumbent today, L against A'; None where that was not asked."""
    change: Contrast | None = None
    """The incumbent today against the candidate, A' against B; None where that was not asked."""
    open_strata: tuple[str, ...] = ()
    """Where the segment ended without a verdict: strata that were neither named nor shown to be equivalent."""
    spread_calls: int = 0
    """Calls, among those above, of four fresh answers a decision that were asked there."""
    overrun: str = ""
    """What to say of a budget that was passed; empty where it was held."""
