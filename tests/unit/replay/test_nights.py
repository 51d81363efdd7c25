"""Evidence over many nights: one test however the decisions fall on nights, and a bound that holds on every one."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from driftline.consumers.judging import Judgement
from driftline.consumers.proposing import Answer, ProposerFailure
from driftline.examples.renewals.app import app as renewals
from driftline.producers.renewals import synthetic_renewals
from driftline.replay.levels import JudgedAnswer
from driftline.replay.night_watch import ProviderWatch
from driftline.replay.nights import CarriedProcess, CarriedTest, Standing, first_weights
from driftline.replay.nights_kept import KEPT, Night, NightsFolder
from driftline.replay.result import Pair
from driftline.replay.segment import LoggedDecision
from driftline.replay.testing import OwnModels, decided, segment_of
from driftline.schemas import BadInput, Rejection, UsageError

TEST = CarriedTest()
OBJECTION = Rejection(code="policy", message="no")
Flip = tuple[bool, bool]
"""Accepted by the log, and by the candidate."""


@cache
def a_decision() -> LoggedDecision:
    return segment_of(decided(renewals, list(synthetic_renewals(1, seed=1))[:1], OwnModels())).decisions[0]


def judged(accepted: bool) -> JudgedAnswer:
    return JudgedAnswer(Answer("text"), Judgement(() if accepted else (OBJECTION,)))


JUDGED = {accepted: judged(accepted) for accepted in (False, True)}


def pairs(flips: Sequence[Flip], stream: str = "due", evidence: bool = True) -> list[Pair]:
    known = a_decision()
    logged = replace(known, decision=known.decision.model_copy(update={"stream": stream}))
    return [Pair(n, logged, JUDGED[log], JUDGED[tried], evidence) for n, (log, tried) in enumerate(flips)]


def drawn(rng: np.random.Generator, size: int, before: float, after: float) -> list[Flip]:
    log, tried = rng.random(size) < before, rng.random(size) < after
    return list(zip(log.tolist(), tried.tolist(), strict=True))


def saved(process: CarriedProcess) -> CarriedProcess:
    """As the next night finds it."""
    return CarriedProcess.from_state(json.loads(json.dumps(process.state(), allow_nan=False)), process.test)


def after_nights(nights: Sequence[Sequence[Pair]], test: CarriedTest = TEST) -> Standing:
    process = CarriedProcess(test)
    for number, night in enumerate(nights):
        process = saved(process)
        process.add(f"2026-10-{number + 1:02}", night)
    return process.standing()


def test_nights_hold_the_evidence_of_one_process_to_the_last_bit() -> None:
    rng = np.random.default_rng(3)
    flips = pairs(drawn(rng, 90, 0.8, 0.7), "due") + pairs(drawn(rng, 30, 0.5, 0.6), "lapsed")
    at_once, by_night = after_nights([flips]), after_nights([flips[:40], flips[40:41], [], flips[41:]])
    assert replace(by_night, nights=1) == at_once
    assert (by_night.events, by_night.nights) == (120, 4)


def test_a_night_counts_once() -> None:
    process = CarriedProcess(TEST)
    assert process.add("2026-10-01", pairs([(True, False)] * 3))
    before = process.standing()
    assert not process.add("2026-10-01", pairs([(True, False)] * 3))
    assert process.standing() == before


def test_a_change_that_no_night_shows_alone_is_shown_by_many() -> None:
    night = pairs([(True, False)] * 3 + [(True, True)] * 17)
    alone, together = after_nights([night]), after_nights([night] * 6)
    assert alone.verdict == "inconclusive"
    assert together.verdict == "diverged"
    assert together.diverged_on is not None
    assert together.diverged_on > "2026-10-01"
    assert together.e_value >= 1 / TEST.alpha


def test_what_diverged_stays_so() -> None:
    flips = [pairs([(True, False)] * 12), *[pairs([(False, True)] * 12)] * 3]
    assert [after_nights(flips[:count]).diverged_on for count in (1, 4)] == ["2026-10-01", "2026-10-01"]


def read_as(process: CarriedProcess, **test: float) -> CarriedProcess:
    """As the next night finds it under other limits."""
    return CarriedProcess.from_state(process.state(), replace(TEST, **test))  # type: ignore[arg-type]


def test_another_alpha_reads_the_evidence_that_is_there() -> None:
    process = CarriedProcess(TEST)
    process.add("2026-10-01", pairs([(True, False)] * 8))
    assert (process.verdict, 5 < process.e_value < 20) == ("inconclusive", True)
    looser = read_as(process, alpha=0.2)
    looser.add("2026-10-02", pairs([(True, True)]))
    assert looser.standing().diverged_on == "2026-10-02"
    assert read_as(looser, alpha=0.05).standing() == replace(read_as(looser).standing(), diverged_on=None)
    assert read_as(looser, alpha=0.05).verdict == "inconclusive"


def test_intervals_and_the_region_of_equivalence_are_those_of_today() -> None:
    process = CarriedProcess(TEST)
    process.add("2026-10-01", pairs([(True, True)] * 100))
    [strict], [loose] = (read_as(process, alpha=alpha).standing().strata for alpha in (0.01, 0.2))
    assert strict.interval[0] < loose.interval[0]
    assert [read_as(process, delta=delta).verdict for delta in (0.05, 0.9)] == ["inconclusive", "equivalent"]


def test_a_candidate_that_changes_nothing_is_seldom_told_to_diverge_on_any_night() -> None:
    rng = np.random.default_rng(11)
    runs, nights, size = 600, 6, 15
    told = [
        after_nights([pairs(drawn(rng, size, 0.7, 0.7)) for _ in range(nights)]).verdict == "diverged"
        for _ in range(runs)
    ]
    assert sum(told) <= 0.05 * runs


def test_what_came_after_the_nights_own_stop_is_no_evidence() -> None:
    early = pairs([(True, False)] * 3)
    late = pairs([(True, False)] * 50, evidence=False)
    assert after_nights([[*early, *late]]) == after_nights([early])


def test_lost_answers_are_no_evidence() -> None:
    lost = JudgedAnswer(Answer(None, ProposerFailure.TIMEOUT), Judgement((OBJECTION,)))
    assert after_nights([[replace(pair, candidate=lost) for pair in pairs([(True, True)] * 9)]]).events == 0


def test_quiet_nights_come_to_be_equivalent() -> None:
    night = pairs([(True, True)] * 100)
    assert after_nights([night]).verdict == "inconclusive"
    assert after_nights([night] * 8).verdict == "equivalent"


def test_the_changed_stratum_is_named_and_the_others_are_not() -> None:
    nights = [pairs([(True, True)] * 20, "due") + pairs([(True, False)] * 20, "lapsed")] * 2
    standing = after_nights(nights)
    named = {stratum.stratum.partition("/")[2]: stratum.named for stratum in standing.strata}
    assert named == {"due": frozenset(), "lapsed": frozenset({"verdict"})}
    assert [stratum.events for stratum in standing.strata] == [40, 40]


def test_weights_of_strata_that_may_yet_come_sum_to_one_at_most() -> None:
    assert sum(first_weights(10_000)) == pytest.approx(1, abs=1e-4)
    assert sum(first_weights(10_000)) < 1


def watched(nights: Sequence[Sequence[Flip]], between: float = 1000) -> tuple[ProviderWatch, list[bool]]:
    watch, told = ProviderWatch((), between), []
    for number, night in enumerate(nights):
        watch = ProviderWatch.from_state(json.loads(json.dumps(watch.state(), allow_nan=False)), (), between)
        told.append(watch.add(f"2026-10-{number + 1:02}", pairs(night)))
    return watch, told


def test_the_watch_sees_a_change_after_quiet_nights_and_begins_anew() -> None:
    quiet, drift = [(True, True)] * 40, [(True, False)] * 40
    watch, told = watched([quiet, quiet, drift, quiet])
    assert told == [False, False, True, False]
    assert watch.alarms == ["2026-10-03"]
    assert watch.value < 1000


def test_a_night_that_the_watch_has_seen_is_passed_over() -> None:
    watch, _ = watched([[(True, False)] * 40])
    before = watch.state()
    assert watch.add("2026-10-01", pairs([(True, False)] * 40))
    assert watch.state() == before


def test_the_watch_alarms_no_oftener_than_it_may() -> None:
    rng = np.random.default_rng(5)
    nights = [drawn(rng, 20, 0.7, 0.7) for _ in range(150)]
    watch, _ = watched(nights, between=300)
    assert len(watch.alarms) <= 150 * 20 / 300


@pytest.fixture
def folder(tmp_path: Path) -> NightsFolder:
    return NightsFolder(tmp_path, "renewals")


def test_what_is_kept_is_found_again(folder: NightsFolder) -> None:
    with folder.locked():
        kept = folder.load()
        process = kept.process("one", TEST)
        process.add("2026-10-01", pairs([(True, False)] * 3))
        kept.processes["one"] = process.state()
        kept.nights["2026-10-01"] = Night(3, {"verify": {"verdict": "equivalent"}})
        folder.save(kept)
    again = folder.load()
    assert again == kept
    assert again.process("one", TEST).standing() == process.standing()
    assert again.process("another", TEST).standing().events == 0


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text[: len(text) // 2],
        lambda text: text.replace('"form": 1', '"form": 2'),
        lambda text: "[]",
    ],
    ids=["cut short", "of a later form", "something else"],
)
def test_what_cannot_be_continued_is_refused_and_left(folder: NightsFolder, spoil: Callable[[str], str]) -> None:
    with folder.locked():
        folder.save(folder.load())
    path = folder.path / KEPT
    path.write_text(spoil(path.read_text()))
    with pytest.raises(BadInput, match="move nights/renewals"):
        folder.load()


def test_evidence_of_another_test_is_not_continued(folder: NightsFolder) -> None:
    kept = folder.load()
    process = kept.process("one", TEST)
    process.add("2026-10-01", pairs([(True, False)] * 3))
    kept.processes["one"] = process.state()
    with pytest.raises(BadInput, match="other indicators"):
        kept.process("one", CarriedTest(indicators=("action=refund",)))


def test_one_process_at_a_time_has_the_nights(folder: NightsFolder) -> None:
    with folder.locked(), pytest.raises(UsageError, match="another"), folder.locked():
        pass
    with folder.locked():
        pass
