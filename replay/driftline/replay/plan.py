"""What a replay will need, before anything is spent: calls, dollars, power, the smallest change that it can see."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

from driftline.consumers.proposing import ProposalRequest
from driftline.detectors import StratumChange, power_over_strata, smallest_detectable_change
from driftline.detectors.planning import events_needed
from driftline.replay.arms import INCUMBENT_ARM, ArmCall, Candidate, Incumbent, calls_of, judge_logged
from driftline.replay.ledger import Ledger
from driftline.replay.levels import EXIT_FAMILY
from driftline.replay.pricing import Price, PriceMap, Tokens, expected_tokens, room_for
from driftline.replay.recordings import require_distinct_runs
from driftline.replay.result import Limits
from driftline.replay.rounds import rounds_of
from driftline.replay.segment import LoggedDecision, Segment
from driftline.replay.spread import CALLS_A_DECISION, SpreadLimits, spread_calls, spread_limits
from driftline.replay.subject import Subject
from driftline.replay.turns import planned_decisions
from driftline.schemas import UsageError

NOISE_ASSUMED = 0.05
"""Share of verdicts in which a model differs from itself, half of them each way, where no floor was measured; real
models at temperature 0 showed .03 to .20."""
POWER_WANTED = 0.8
CHANGES = (0.01, 0.02, 0.03, 0.05, 0.08, 0.10, 0.15, 0.20, 0.30, 0.40, 0.60)
"""Net changes of the acceptance rate for which power is told."""
EVENTS_SIMULATED_MAX = 5000
"""Of all strata together; a longer plan is told the power of so many."""
PATHS = 500


@dataclass(frozen=True, slots=True)
class PlannedCalls:
    """What the whole segment would take, if the verdict came in with its last decision."""

    calls: int
    """At most so many answers are needed."""
    pairs: int
    """Decisions that they are of."""
    incumbent_calls: int
    """Answers of the incumbent among those calls."""
    spread_calls: int
    """Beyond those calls, at most so many in strata that are still open at the end of the segment."""
    spread_usd: float | None
    """Dollars of those further calls, at most, beyond `usd`; None when a price is unknown."""
    in_ledger: int
    """Of the calls those that were paid for already."""
    prompt_tokens: float
    """Of the calls that are to be paid."""
    completion_tokens: float
    recorded_usage: float
    """Share of those calls whose tokens the log itself tells; the others are estimated from the length of texts."""
    usd: float | None
    """Dollars of those calls; None when a price is unknown."""
    prices: Sequence[Price]
    price_map: str | None
    """Version of LiteLLM and hash of its price map; None where it was not asked."""

    @property
    def to_pay(self) -> int:
        """Calls that are to be paid, at most."""
        return self.calls - self.in_ledger

    @property
    def unpriced(self) -> list[str]:
        """Models whose price is unknown."""
        return [price.model for price in self.prices if not price.known]


@dataclass(frozen=True, slots=True)
class PlannedPower:
    """What a net change of the acceptance rate would take to be found."""

    change: float
    power: float
    """Chance of an alarm within the calls."""
    events: float | None
    """Median number of pairs to the alarm; None when fewer than half of all runs alarm."""
    usd: float | None
    """Dollars of so many pairs, what the incumbent answers to them included."""


@dataclass(frozen=True, slots=True)
class PlannedStratum:
    """What one stratum can tell."""

    stratum: str
    events: int
    smallest_change: float | None
    """The smallest net change that is named in half of all runs; None where even the largest is not."""


@dataclass(frozen=True)
class ReplayPlan:
    """A plan: nothing of it was spent."""

    calls: PlannedCalls
    power: Sequence[PlannedPower]
    smallest_change: float | None
    """In hundredths, the smallest that is found with a chance of `POWER_WANTED`; None where not even the largest."""
    strata: Sequence[PlannedStratum]
    noise: float
    """Share of verdicts that is assumed to differ with nothing changed."""


def plan_replay(
    segment: Segment,
    subject: Subject,
    candidate: Candidate,
    ledger: Ledger,
    limits: Limits,
    prices: PriceMap,
    noise: float = NOISE_ASSUMED,
    *,
    incumbent: Incumbent | None = None,
    not_before: str | None = None,
) -> ReplayPlan:
    """Plan one candidate's run.

    Power is of the verdict level under the assumed noise, all strata changing alike, by simulation of the signed
    e-process in every stratum and of the global e-value that decides. Not guaranteed: the power of other levels and
    statistics (a change may show in actions or beside a noise floor first), or of a change that a single stratum
    has; that is told by stratum, as the change that half of all runs find.

    Args:
        segment: The decisions.
        subject: Today's rules.
        candidate: What is tried.
        ledger: What need not be paid again.
        limits: Of the run.
        prices: Of calls.
        noise: Share of verdicts that is assumed to differ with nothing changed.
        incumbent: Asked beside the candidate; None where it is not.
        not_before: RFC 3339; what the incumbent answered earlier is asked again.

    Raises:
        UsageError: As `ForcedReplay.run` before it pays anything.
    """
    require_distinct_runs(candidate, incumbent)
    every = calls_of(candidate, incumbent)
    calls = planned_calls(segment, subject, every, ledger, limits, prices, not_before)
    second = spread_limits(limits, candidate, incumbent)
    if second is not None:
        further, all_of_it = spread_calls(candidate, incumbent), replace(limits, calls_max=None)
        priced = planned_calls(segment, subject, further, ledger, all_of_it, prices, not_before)
        calls = _with_spread(calls, priced, second)
    planned = Counter(logged.stratum for logged in planned_decisions(segment, limits, len(every)))
    return with_power(calls, planned, segment.planned(), limits, noise)


def with_power(
    calls: PlannedCalls, planned: Mapping[str, int], strata: Iterable[str], limits: Limits, noise: float
) -> ReplayPlan:
    """A plan of calls with what their pairs can find.

    Args:
        calls: What is asked.
        planned: Pairs by stratum.
        strata: Those of the run, also such as the calls do not reach.
        limits: Of the run.
        noise: Share of pairs that is assumed to differ with nothing changed.
    """
    usd_a_pair = None if calls.usd is None else calls.usd / max(1, calls.pairs)
    events = _simulated(planned, strata)
    power = [_power(change, events, noise, limits, usd_a_pair) for change in CHANGES]
    smallest = smallest_detectable_change(events, noise, power=POWER_WANTED, **_test(limits))
    return ReplayPlan(calls, power, smallest, _strata(planned, len(events), limits, noise), noise)


def planned_calls(
    segment: Segment,
    subject: Subject,
    calls: Sequence[ArmCall],
    ledger: Ledger,
    limits: Limits,
    prices: PriceMap,
    not_before: str | None = None,
) -> PlannedCalls:
    """The calls alone, and what they cost.

    Raises:
        UsageError: A prompt lacks a variable, or a boundary or prompt is gone.
    """
    found = count_calls(_requests(segment, subject, calls, limits), subject, ledger, prices, not_before)
    return replace(found, pairs=found.calls // len(calls))


def count_calls(
    requests: Iterable[tuple[LoggedDecision, ArmCall, ProposalRequest]],
    subject: Subject,
    ledger: Ledger,
    prices: PriceMap,
    not_before: str | None = None,
) -> PlannedCalls:
    """What calls cost, each with the decision that it is like; they are of no pairs yet.

    What answers in the ledger have cost, `prices` takes to heart: a run that is resumed makes as much room as it had
    learned to make.
    """
    asked: Counter[str] = Counter()
    paid: list[tuple[Tokens, float | None]] = []
    models: dict[str, Price] = {}
    for logged, call, request in requests:
        asked[call.asking.arm] += 1
        price = models.setdefault(request.model, prices.of(request.model))
        key = call.arm.key(logged.decision, subject, request, call.asking)
        known = partial(ledger.get, not_before=not_before if call.ages else None)
        tokens = _tokens(logged, request, call.arm)
        answer = rounds_of(logged.decision, subject, request, key).carry(known)
        if answer is None:
            paid.append((tokens, price.usd(tokens)))
        elif answer.cost_usd is not None:
            room = price.usd(room_for(tokens, request.parameters)) or 0.0
            prices.learn(request.model, room, answer.cost_usd)
    costs = [cost for _, cost in paid if cost is not None]
    return PlannedCalls(
        calls=asked.total(),
        pairs=0,
        incumbent_calls=asked[INCUMBENT_ARM],
        spread_calls=0,
        spread_usd=0.0,
        in_ledger=asked.total() - len(paid),
        prompt_tokens=sum(tokens.prompt for tokens, _ in paid),
        completion_tokens=sum(tokens.completion for tokens, _ in paid),
        recorded_usage=sum(tokens.recorded for tokens, _ in paid) / max(1, len(paid)),
        usd=sum(costs) if len(costs) == len(paid) else None,
        prices=tuple(models.values()),
        price_map=prices.version,
    )


def require_priced(calls: PlannedCalls, limits: Limits, allow_unpriced: bool) -> None:
    """Refuse what nobody knows the price of.

    Raises:
        UsageError: A price is unknown and that is not allowed, or a budget is set that could not be held.
    """
    if calls.unpriced and calls.to_pay:
        _refuse_unpriced(", ".join(calls.unpriced), calls.price_map, limits, allow_unpriced)


def require_price(price: Price, prices: PriceMap, limits: Limits, allow_unpriced: bool) -> None:
    """As `require_priced`, where nobody knows how many calls there will be.

    Raises:
        UsageError: As `require_priced`.
    """
    if not price.known:
        _refuse_unpriced(price.model, prices.version, limits, allow_unpriced)


def _refuse_unpriced(models: str, price_map: str | None, limits: Limits, allow_unpriced: bool) -> None:
    unknown = f"the price of {models} is unknown ({price_map})"
    if limits.usd_max is not None:
        raise UsageError(
            f"{unknown}, so that no budget can be held", "limit it with --max-calls and --allow-unpriced"
        )
    if not allow_unpriced:
        raise UsageError(unknown, "--allow-unpriced runs all the same, and --max-calls limits the calls")


def room_in_usd(candidate: Candidate, prices: PriceMap, logged: LoggedDecision, request: ProposalRequest) -> float:
    """Dollars that must be left for a call to be made; 0 where the price is unknown."""
    tokens = room_for(_tokens(logged, request, candidate), request.parameters)
    usd = prices.of(request.model).usd(tokens)
    return usd + prices.beyond(request.model) if usd else 0.0


def plan_data(plan: ReplayPlan) -> dict[str, Any]:
    """The plan as JSON data."""
    calls = {**asdict(plan.calls), "to_pay": plan.calls.to_pay, "unpriced": plan.calls.unpriced}
    power = {
        "noise_assumed": plan.noise,
        "power_wanted": POWER_WANTED,
        "smallest_change": plan.smallest_change,
        "by_change": [asdict(one) for one in plan.power],
        "strata": [asdict(one) for one in plan.strata],
    }
    return {**calls, "power": power}


def _requests(
    segment: Segment, subject: Subject, calls: Sequence[ArmCall], limits: Limits
) -> Iterator[tuple[LoggedDecision, ArmCall, ProposalRequest]]:
    """Every call that may be made; none where the log has no outcome to hold against its answer."""
    for logged in planned_decisions(segment, limits, len(calls)):
        if judge_logged(logged, subject).lost:
            continue
        for call in calls:
            request = call.arm.request(logged.decision, subject, "plan", limits.order_seed, call.asking)
            subject.require_judgeable(logged.decision, request.model)
            yield logged, call, request


def _tokens(logged: LoggedDecision, request: ProposalRequest, arm: Candidate) -> Tokens:
    """The incumbent is asked with the log's prompt, whatever the candidate's is."""
    same_prompt = arm.prompt is None or request.key.arm.startswith(INCUMBENT_ARM)
    return expected_tokens(logged, request, same_prompt)


def _with_spread(calls: PlannedCalls, further: PlannedCalls, second: SpreadLimits) -> PlannedCalls:
    """With the calls of the second phase, at most all strata being open, and their share of the dollars."""
    most = second.calls_max(calls.calls, calls.pairs)
    share = most / max(1, CALLS_A_DECISION * further.pairs)
    usd = None if further.usd is None else share * further.usd
    return replace(calls, spread_calls=most, spread_usd=usd)


def _simulated(planned: Mapping[str, int], strata: Iterable[str]) -> list[int]:
    """Events of each of the run's strata, also of one that the calls do not reach; no more than are simulated."""
    share = min(1.0, EVENTS_SIMULATED_MAX / max(1, sum(planned.values())))
    return [round(share * planned.get(stratum, 0)) for stratum in strata]


def _test(limits: Limits) -> dict[str, Any]:
    """What a simulation is told of the test: the verdict level has its share of a stratum's e-value."""
    weight = 1 / len(EXIT_FAMILY)
    return {"alpha": limits.alpha, "weight": weight, "min_effect": limits.min_effect, "paths": PATHS}


def _power(
    change: float, events: Sequence[int], noise: float, limits: Limits, usd_a_pair: float | None
) -> PlannedPower:
    """Under the noise some verdicts differ each way; the change adds to one of them."""
    discordant, majority = min(1.0, noise + change), (noise / 2 + change) / (noise + change)
    strata = [StratumChange(discordant, majority, count) for count in events]
    found = power_over_strata(strata, **_test(limits))
    median = found.median_events
    usd = None if median is None or usd_a_pair is None else median * usd_a_pair
    return PlannedPower(change, found.power, median, usd)


def _strata(planned: Mapping[str, int], strata: int, limits: Limits, noise: float) -> list[PlannedStratum]:
    hypotheses = strata * len(EXIT_FAMILY)

    def needed(change: float) -> float:
        discordant = min(1.0, noise + change)
        majority = (noise / 2 + change) / (noise + change)
        return events_needed(discordant, majority, limits.alpha, hypotheses)

    return [PlannedStratum(stratum, events, _smallest(events, needed)) for stratum, events in sorted(planned.items())]


def _smallest(events: int, needed: Any) -> float | None:
    """The smallest change, to a tenth of a point, that needs no more than these events."""
    tenths = range(1, 1001)
    found = next((tenth for tenth in tenths if needed(tenth / 1000) <= events), None)
    return None if found is None or math.isinf(events) else found / 1000
