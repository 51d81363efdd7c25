"""Rules for raising an alarm: those of driftline, and those that people use in their place.

A rule takes draws and gives the number of events at which each of them alarms, at each level; infinite where it never
does. None where a rule needs more answers to an event than the scene has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from bench.kit.scenes import FLOOR_RUNS, Draws
from numpy.typing import NDArray
from scipy.stats import binom, norm

from driftline.detectors import (
    BettingEProcesses,
    Observation,
    SequentialJudge,
    SoftRanks,
    SwapLearner,
    floor_reading,
    mmd_statistic,
    spread_difference,
)
from driftline.detectors.betting import log_mean_exp

LEVELS = (0.05, 0.01)
PEEK_EVERY = 50
FIRST_EVENTS, CHANGED_SHARE = 200, 0.1
WINDOW = 100

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Alarms = Floats | None
"""Shape (draws, LEVELS)."""


@dataclass(frozen=True)
class Rule:
    name: str
    alarms: Callable[[Draws], Alarms]
    calls_per_event: int = 1
    valid: bool = True
    """Whether its level is kept by construction, however often one looks."""
    slow: bool = False
    """Whether it goes through the events one by one, in Python."""


class _First:
    """Remembers when each draw first reached each level."""

    def __init__(self, draws: int) -> None:
        self.at = np.full((draws, len(LEVELS)), np.inf)

    def look(self, number: int, log_e_values: Floats) -> None:
        reached = log_e_values[:, None] >= -np.log(LEVELS)
        self.at[reached & np.isinf(self.at)] = number

    def note(self, draw: int, number: int, log_e_value: float) -> bool:
        """As `look`, of one draw; whether it has reached all levels."""
        reached = log_e_value >= -np.log(LEVELS)
        self.at[draw, reached & np.isinf(self.at[draw])] = number
        return bool(np.isfinite(self.at[draw]).all())


def _bet(differences: Floats, two_sided: bool = True) -> Floats:
    """Alarms of betting on differences; shape (draws, events)."""
    return _bet_on_all([(differences, two_sided)])


def _bet_on_all(bets: Sequence[tuple[Floats, bool]]) -> Floats:
    """Alarms of capital that lies evenly on bets: differences, shape (draws, events), and whether on both signs."""
    draws = len(bets[0][0])
    processes = [BettingEProcesses(draws, two_sided=two_sided) for _, two_sided in bets]
    first, every = _First(draws), np.arange(draws)
    for number in range(bets[0][0].shape[1]):
        columns = [differences[:, number] for differences, _ in bets]
        for process, column in zip(processes, columns, strict=True):
            process.update(every, column)
        if any(column.any() for column in columns):
            first.look(number + 1, log_mean_exp(np.array([process.log_e_values for process in processes]), axis=0))
    return first.at


def signed(draws: Draws) -> Alarms:
    accepted = draws.accepted()
    return _bet(accepted[:, :, 0] - accepted[:, :, 1])


def soft_rank(draws: Draws) -> Alarms:
    if not draws.floor:
        return None
    actions = draws.level("action")[draws.samples[:, :, : FLOOR_RUNS + 1]]
    ranks, first, every = SoftRanks(len(actions)), _First(len(actions)), np.arange(len(actions))
    for number, event in enumerate(actions.transpose(1, 0, 2), start=1):
        ranks.update(every, event)
        first.look(number, ranks.log_e_values)
    return first.at


def excess(draws: Draws) -> Alarms:
    if not draws.floor:
        return None
    actions = draws.level("action")[draws.samples[:, :, : FLOOR_RUNS + 1]]
    return _bet(_by_pattern(actions, lambda event: floor_reading(event[0], event[1:]).excess))


def mmd(draws: Draws) -> Alarms:
    """Two answers of each arm at the action level."""
    four = _two_of_each(draws)
    if four is None:
        return None
    halves = _by_pattern(four, lambda event: mmd_statistic((event[1], event[2]), (event[0], event[3])) / 2)
    return _bet(halves, two_sided=False)


def spread(draws: Draws) -> Alarms:
    """Half of the capital on MMD, half on the difference of spreads."""
    four = _two_of_each(draws)
    if four is None:
        return None
    halves = _by_pattern(four, lambda event: mmd_statistic((event[1], event[2]), (event[0], event[3])) / 2)
    differences = _by_pattern(four, lambda event: spread_difference((event[1], event[2]), (event[0], event[3])))
    return _bet_on_all([(halves, False), (differences, True)])


def _two_of_each(draws: Draws) -> Ints | None:
    """Codes of the candidate's first answer, two of the incumbent and the candidate's second, at the action level."""
    if draws.second is None:
        return None
    answers = np.concatenate([draws.samples[:, :, :3], draws.second[:, :, None]], axis=2)
    return np.asarray(draws.level("action")[answers])


def _by_pattern(codes: Ints, statistic: Callable[[list[int]], float]) -> Floats:
    """A statistic of codes of shape (…, samples) that looks at their equality alone: once a pattern of equality."""
    samples = codes.shape[-1]
    pairs = [codes[..., i] == codes[..., j] for i in range(samples) for j in range(i)]
    pattern = sum(equal.astype(np.int64) << place for place, equal in enumerate(pairs))
    _, first, which = np.unique(pattern, return_index=True, return_inverse=True)
    values = [statistic(codes.reshape(-1, samples)[index].tolist()) for index in first]
    return np.array(values)[which.reshape(pattern.shape)]


def _differing(draws: Draws, draw: int, samples: int) -> Iterator[tuple[int, list[int]]]:
    """Events of a draw whose first samples differ in verdict or action: no other moves an e-value."""
    answers = draws.samples[draw, :, :samples]
    codes = draws.level("action")[answers] * 2 + (np.array([one.accepted for one in draws.outcomes])[answers] > 0.5)
    for index in np.flatnonzero((codes != codes[:, :1]).any(axis=1)).tolist():
        yield index, answers[index].tolist()


def swap(draws: Draws) -> Alarms:
    first = _First(len(draws.samples))
    for draw in range(len(draws.samples)):
        learner = SwapLearner()
        for index, (candidate, baseline) in _differing(draws, draw, 2):
            learner.update(draws.outcomes[baseline].features, draws.outcomes[candidate].features)
            if first.note(draw, index + 1, learner.log_e_value):
                break
    return first.at


def judge(draws: Draws) -> Alarms:
    """The whole judge, one stratum for each; an equivalence that came before its alarm is not taken."""
    return _judged(draws, floor_runs=0)


def judge_with_floor(draws: Draws) -> Alarms:
    return _judged(draws, FLOOR_RUNS) if draws.floor else None


def _judged(draws: Draws, floor_runs: int) -> Floats:
    found = np.full((len(draws.samples), len(LEVELS)), np.inf)
    for draw in range(len(draws.samples)):
        for place, alpha in enumerate(LEVELS):
            found[draw, place] = _alarm_of_judge(draws, draw, floor_runs, alpha)
            if np.isinf(found[draw, place]):
                break  # a smaller level is not reached either
    return found


def _alarm_of_judge(draws: Draws, draw: int, floor_runs: int, alpha: float) -> float:
    planned = dict.fromkeys(draws.strata, int(draws.samples.shape[1]))
    one = SequentialJudge(draws.strata, planned=planned, alpha=alpha, delta=1e-6, floor_runs=floor_runs)
    for index, (candidate, *others) in _differing(draws, draw, max(2, floor_runs + 1)):
        runs = tuple(draws.outcomes[other] for other in others)
        stratum = draws.strata[draws.stratum[draw, index]]
        one.observe(Observation(stratum, runs[0], draws.outcomes[candidate], runs if floor_runs else ()))
        if one.decision is not None:
            return index + 1
    return np.inf


def _flips(draws: Draws) -> tuple[Ints, Ints]:
    """Verdicts lost and gained up to each event; shape (draws, events)."""
    accepted = draws.accepted()
    change = accepted[:, :, 0] - accepted[:, :, 1]
    return np.cumsum(change < 0, axis=1), np.cumsum(change > 0, axis=1)


def _mcnemar(down: Ints, up: Ints) -> Floats:
    """Exact p-values of counts of flips."""
    return np.minimum(1.0, 2 * binom.cdf(np.minimum(down, up), down + up, 0.5))


def mcnemar_once(draws: Draws) -> Alarms:
    """Looked at once, when all events were read."""
    down, up = _flips(draws)
    rejected = _mcnemar(down[:, -1], up[:, -1])[:, None] <= np.array(LEVELS)
    return np.where(rejected, float(down.shape[1]), np.inf)


def mcnemar_by_stratum(draws: Draws) -> Alarms:
    """Looked at once in each stratum, with a level divided by their number (Bonferroni)."""
    accepted = draws.accepted()
    change = accepted[:, :, 0] - accepted[:, :, 1]
    smallest = np.ones(len(change))
    for stratum in range(len(draws.strata)):
        here = draws.stratum == stratum
        down, up = (here & (change < 0)).sum(axis=1), (here & (change > 0)).sum(axis=1)
        smallest = np.minimum(smallest, _mcnemar(down, up))
    rejected = smallest[:, None] * len(draws.strata) <= np.array(LEVELS)
    return np.where(rejected, float(change.shape[1]), np.inf)


def mcnemar_peeked(draws: Draws) -> Alarms:
    down, up = _flips(draws)
    looks = np.arange(PEEK_EVERY, down.shape[1] + 1, PEEK_EVERY)
    rejected = _mcnemar(down[:, looks - 1], up[:, looks - 1])[:, :, None] <= np.array(LEVELS)
    return _first_true(rejected, looks)


def rolling_z(draws: Draws) -> Alarms:
    """Two acceptance rates over the last so many events, held against each other after every event."""
    totals = np.cumsum(np.pad(draws.accepted()[:, :, :2], ((0, 0), (1, 0), (0, 0))), axis=1)
    rates = (totals[:, WINDOW:] - totals[:, :-WINDOW]) / WINDOW
    pooled = rates.mean(axis=2)
    error = np.sqrt(np.maximum(2 * pooled * (1 - pooled) / WINDOW, 1e-12))
    z = np.abs(rates[:, :, 0] - rates[:, :, 1]) / error
    needed = norm.ppf(1 - np.array(LEVELS) / 2)
    return _first_true(z[:, :, None] >= needed, np.arange(WINDOW, totals.shape[1]))


def exact_match(draws: Draws) -> Alarms:
    """Any byte that differs from the log's."""
    differs = _changed(draws, "bytes")
    return _first_true(np.repeat(differs[:, :, None], len(LEVELS), axis=2), np.arange(1, differs.shape[1] + 1))


def share_changed(draws: Draws) -> Alarms:
    """More than a tenth of the first answers differ in bytes."""
    differs = _changed(draws, "bytes")[:, :FIRST_EVENTS]
    alarmed = differs.mean(axis=1) > CHANGED_SHARE
    return np.repeat(np.where(alarmed, float(differs.shape[1]), np.inf)[:, None], len(LEVELS), axis=1)


def _changed(draws: Draws, level: str) -> NDArray[np.bool_]:
    codes = draws.level(level)
    return np.asarray(codes[draws.samples[:, :, 0]] != codes[draws.samples[:, :, 1]])


def _first_true(reached: NDArray[np.bool_], numbers: Ints) -> Floats:
    """The first of the numbers at which a draw has reached a level; reached has shape (draws, looks, LEVELS)."""
    if not reached.shape[1]:
        return np.full((len(reached), len(LEVELS)), np.inf)
    return np.where(reached.any(axis=1), numbers[reached.argmax(axis=1)].astype(float), np.inf)


OURS = (
    Rule("driftline, whole judge", judge, slow=True),
    Rule(f"driftline, judge and {FLOOR_RUNS} cached runs", judge_with_floor, slow=True),
    Rule("signed", signed),
    Rule("swap learner", swap, slow=True),
    Rule(f"soft rank, {FLOOR_RUNS} cached runs", soft_rank),
    Rule(f"excess mismatch, {FLOOR_RUNS} cached runs", excess),
    Rule("MMD", mmd, calls_per_event=3),
    Rule("MMD and spread", spread, calls_per_event=3),
)
THEIRS = (
    Rule("McNemar, once", mcnemar_once),
    Rule("McNemar, once a stratum", mcnemar_by_stratum),
    Rule(f"McNemar, every {PEEK_EVERY}", mcnemar_peeked, valid=False),
    Rule(f"rolling z-test over {WINDOW}", rolling_z, valid=False),
    Rule(f"more than {CHANGED_SHARE:.0%} of {FIRST_EVENTS}", share_changed, valid=False),
    Rule("exact match", exact_match, valid=False),
)
