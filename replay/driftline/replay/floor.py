"""The noise floor: how often runs of one model differ from one another, level by level, measured on recorded runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from driftline.detectors import LevelSummary, Noise, betting_interval, mismatch_interval
from driftline.replay.levels import LEVELS, JudgedAnswer
from driftline.replay.result import Pair

Hashes = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class FloorEvent:
    """One event of the floor."""

    stream: str
    differing: Mapping[str, float]
    """Level to the share of the pairs of runs that differ."""


def floor_event(stream: str, runs: Sequence[JudgedAnswer]) -> FloorEvent:
    """What at least two runs of one model, judged by today's verifier, answered to an event."""
    hashes = [run.hashes for run in runs]
    return FloorEvent(stream, {level: _differing(hashes, level) for level in LEVELS})


def floor_data(
    source: str,
    arms: Sequence[str],
    floor: Mapping[str, FloorEvent],
    pairs: Sequence[Pair],
    levels: Sequence[LevelSummary],
    alpha: float,
) -> dict[str, Any]:
    """The noise floor as a report holds it.

    `mismatch` is the mean over events of the share of pairs of runs that differ, with its 1 - `alpha` interval over
    events of this kind: pairs of one event share runs, so the event is what is counted. `excess` is the one that
    the verdict rests on, with its interval: how much more often the candidate differs from the runs of the floor than
    they do from one another (from A', where that is the only run, than the log does). Where the judge was given no
    floor, it is how much more often the candidate differs from the baseline than `mismatch`, event by event over
    those that both have.

    Not guaranteed: that all intervals hold at once; anything, if the events were chosen by how stable they are.

    Args:
        source: `replicates` or `incumbent`: what the runs are.
        arms: Their names.
        floor: Events by workflow.
        pairs: Of the candidate's run, for the excess where the judge had no floor.
        levels: Those that the answers have, as the judge summed them up.
        alpha: Of each interval.
    """
    changed = {pair.logged.decision.workflow: _changed(pair) for pair in pairs if not pair.lost}
    both = floor.keys() & changed.keys()
    shared = [(changed[workflow], floor[workflow].differing) for workflow in sorted(both)]
    measured = {}
    for one in levels:
        differences = [before[one.level] - differing[one.level] for before, differing in shared]
        measured[one.level] = {
            **_measured([event.differing[one.level] for event in floor.values()], alpha),
            **_excess(differences, one.noise, alpha),
        }
    return {
        "source": source,
        "arms": list(arms),
        "events": len(floor),
        "levels": measured,
        "strata": list(_strata(floor.values(), list(measured), alpha)),
    }


def _excess(differences: Sequence[float], noise: Noise | None, alpha: float) -> dict[str, Any]:
    if noise is not None:
        return {"excess": noise.excess, "excess_interval": noise.excess_interval}
    mean = sum(differences) / len(differences) if differences else None
    return {"excess": mean, "excess_interval": betting_interval(differences, alpha, running=False)}


def _strata(events: Iterable[FloorEvent], levels: Sequence[str], alpha: float) -> Iterable[dict[str, Any]]:
    by_stream: dict[str, list[FloorEvent]] = {}
    for event in events:
        by_stream.setdefault(event.stream, []).append(event)
    for stream, found in sorted(by_stream.items()):
        for level in levels:
            yield {"stream": stream, "level": level, **_measured([event.differing[level] for event in found], alpha)}


def _measured(differing: Sequence[float], alpha: float) -> dict[str, Any]:
    mean = sum(differing) / len(differing) if differing else None
    return {"mismatch": mean, "interval": mismatch_interval(differing, alpha, running=False)}


def _differing(answers: Sequence[Hashes], level: str) -> float:
    pairs = list(combinations((hashes.get(level) for hashes in answers), 2))
    return sum(one != other for one, other in pairs) / len(pairs)


def _changed(pair: Pair) -> dict[str, bool]:
    before, after = pair.baseline.hashes, pair.candidate.hashes
    return {level: before.get(level) != after.get(level) for level in LEVELS}
