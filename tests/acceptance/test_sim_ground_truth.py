"""The simulator's versions differ in known ways: a real replay finds what is there, names it, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path

import pytest

from driftline.consumers.artifacts import Artifact
from driftline.detectors import BettingEProcess, JudgeSummary, LevelSummary, MmdEProcess, excess_mismatch
from driftline.examples.renewals.app import app as renewals
from driftline.producers.renewals import synthetic_renewals
from driftline.replay import AppSubject, Candidate, ForcedReplay, ForcedResult, Ledger, Limits, Segment
from driftline.replay.arms import Asking, Incumbent, judge_answer, judge_logged
from driftline.replay.levels import JudgedAnswer
from driftline.replay.testing import OwnModels, decided, segment_of

CUSTOMERS, SEED = 3000, 21
NOON = datetime(2026, 9, 22, 12, tzinfo=UTC)
TWO_YEAR = "renewal/renewal-due.two-year"
ORDERS = range(3)
CONTROLS, CONTROL_DECISIONS, FLOOR_DECISIONS = range(20), 500, 200
INCUMBENT = Candidate(incumbent=True)

Replay = Callable[..., ForcedResult]


@pytest.fixture(scope="module")
def history() -> Segment:
    """What the renewals app decided of a quarter, with the simulated incumbent."""
    events = synthetic_renewals(CUSTOMERS, SEED)
    return segment_of(decided(renewals, events, OwnModels(), SEED))


@pytest.fixture(scope="module")
def subject() -> AppSubject:
    prompts = [boundary.prompt for boundary in renewals.boundaries]
    return AppSubject(renewals, {p.hash: Artifact(p.hash, "prompt", p.name, p.text) for p in prompts})


@contextmanager
def ledger_of_its_own() -> Iterator[Ledger]:
    """A ledger knows no runs: in one that is shared, the second run would be told the first one's answers."""
    ledger = Ledger(Path(":memory:"))
    try:
        yield ledger
    finally:
        ledger.close()


@pytest.fixture(scope="module")
def replay(history: Segment, subject: AppSubject) -> Replay:
    """The history, or as many decisions of it, against a version; a number is the run's name and its order's seed."""

    def run(
        version: str, number: int, decisions: int = CUSTOMERS, floor_runs: int = 0, **limits: object
    ) -> ForcedResult:
        forced = partial(
            ForcedReplay,
            f"{version}-{number}",
            segment_of([logged.decision for logged in history.decisions[:decisions]]),
            subject,
            Candidate(f"sim/{version}"),
            OwnModels(),
            limits=Limits(order_seed=number, **limits),  # type: ignore[arg-type]
            now=lambda: NOON,
            incumbent=Incumbent(INCUMBENT, floor_runs) if floor_runs else None,
        )
        with ledger_of_its_own() as ledger:
            return asyncio.run(forced(ledger=ledger).run())

    return run


def level(judged: JudgeSummary, name: str) -> LevelSummary:
    return next(found for found in judged.levels if found.level == name)


def mismatch(result: ForcedResult, name: str) -> float:
    return level(result.judged, name).mismatch or 0.0


def named(result: ForcedResult) -> set[str]:
    return {stratum.stratum for stratum in result.judged.strata if stratum.named}


@pytest.mark.parametrize("order", ORDERS)
def test_inflated_discounts_diverge_and_name_the_two_year_contracts_alone(replay: Replay, order: int) -> None:
    result = replay("renewals-inflated", order, locate=True)
    assert result.verdict == "diverged"
    assert named(result) == {TWO_YEAR}
    assert result.paid_calls < CUSTOMERS / 5


@pytest.mark.parametrize("order", ORDERS)
def test_a_code_fence_is_found_at_the_verdict_within_a_hundred_calls(replay: Replay, order: int) -> None:
    result = replay("renewals-fenced", order)
    assert result.verdict == "diverged"
    assert level(result.judged, "verdict").interval_at_stop[1] < 0
    assert result.paid_calls + result.overspent_calls < 100


def test_a_code_fence_leaves_the_canonical_text_as_it_was(replay: Replay) -> None:
    fenced, same = replay("renewals-fenced", 0, read_on=True), replay("renewals", 0, read_on=True)
    assert mismatch(fenced, "bytes") > mismatch(same, "bytes")
    assert mismatch(fenced, "canonical") == pytest.approx(mismatch(same, "canonical"), abs=0.03)
    assert level(fenced.judged, "verdict").change == pytest.approx(-2 / 3, abs=0.05)
    in_fence = [pair.candidate for pair in fenced.pairs if (pair.candidate.answer.text or "").startswith("```")]
    assert len(in_fence) == pytest.approx(CUSTOMERS * 2 / 3, rel=0.1)
    assert all(candidate.verdict == "rejected" for candidate in in_fence)


@pytest.mark.parametrize("version", ["renewals", "renewals-reworded"])
def test_what_changes_neither_action_nor_verdict_alarms_in_at_most_5_percent_of_runs(
    replay: Replay, version: str
) -> None:
    results = [replay(version, number, CONTROL_DECISIONS) for number in CONTROLS]
    assert sum(result.verdict == "diverged" for result in results) <= 0.05 * len(results)
    assert sum(bool(named(result)) for result in results) <= 0.05 * len(results)
    reworded = version != "renewals"
    assert all((mismatch(result, "bytes") > 0.95) == reworded for result in results)
    assert all(0.05 < mismatch(result, "action") < 0.2 for result in results)


def test_with_the_incumbent_asked_again_no_contrast_alarms_in_more_than_5_percent_of_runs(replay: Replay) -> None:
    results = [replay("renewals", number, FLOOR_DECISIONS, floor_runs=3) for number in CONTROLS]
    assert sum(result.verdict == "diverged" for result in results) <= 0.05 * len(results)
    for contrasts in ([one.environment for one in results], [one.change for one in results]):
        assert sum(found is not None and found.verdict == "diverged" for found in contrasts) <= 0.05 * len(results)


def test_a_noisier_version_diverges_beside_runs_of_the_incumbent_although_its_rates_stay(replay: Replay) -> None:
    """It differs from the incumbent some three points more often than that from itself; delta has to be smaller."""
    results = [replay("renewals-noisier", number, floor_runs=4, delta=0.01) for number in range(4)]
    assert sum(result.verdict == "diverged" for result in results) >= 3
    assert all(abs(level(result.judged, "verdict").change or 0.0) < 0.02 for result in results)


async def asked(history: Segment, candidate: Candidate, subject: AppSubject, asking: Asking) -> list[JudgedAnswer]:
    """What a model answers to every decision, judged by today's rules."""
    models, found = OwnModels(), []
    for logged in history.decisions:
        request = candidate.request(logged.decision, subject, "direct", SEED, asking)
        found.append(judge_answer(await models.propose(request), logged.decision, subject))
    return found


@pytest.fixture(scope="module")
def incumbent(history: Segment, subject: AppSubject) -> list[list[JudgedAnswer]]:
    """The log, and the incumbent asked again twice: by run and decision."""
    logged = [judge_logged(logged, subject) for logged in history.decisions]
    fresh = [asyncio.run(asked(history, INCUMBENT, subject, Asking("incumbent", "floor", n))) for n in range(2)]
    return [logged, *fresh]


@pytest.fixture(scope="module")
def answers(history: Segment, subject: AppSubject) -> Callable[[str], list[list[JudgedAnswer]]]:
    """A version asked twice: by run and decision."""

    @cache
    def ask(version: str) -> list[list[JudgedAnswer]]:
        candidate = Candidate(f"sim/{version}")
        return [asyncio.run(asked(history, candidate, subject, Asking(replicate=n))) for n in range(2)]

    return ask


def hashes(run: Sequence[JudgedAnswer], name: str) -> list[str | None]:
    return [judged.hashes.get(name) for judged in run]


def share_accepted(run: Sequence[JudgedAnswer]) -> float:
    return sum(judged.judgement.accepted for judged in run) / len(run)


def largest_by_mmd(before: Sequence[list[str | None]], after: Sequence[list[str | None]]) -> float:
    """The largest e-value ever, from two answers of each arm."""
    process, largest = MmdEProcess(), 1.0
    for baseline_pair, candidate_pair in zip(zip(*before, strict=True), zip(*after, strict=True), strict=True):
        process.update(baseline_pair, candidate_pair)
        largest = max(largest, process.e_value)
    return largest


def largest_by_excess(runs: Sequence[list[str | None]], candidate: Sequence[str | None]) -> float:
    """The largest e-value ever, of betting that the candidate differs from the runs more than they do, or less."""
    process, largest = BettingEProcess(), 1.0
    for answer, floor in zip(candidate, zip(*runs, strict=True), strict=True):
        process.update(excess_mismatch(answer, floor))
        largest = max(largest, process.e_value)
    return largest


Answers = Callable[[str], list[list[JudgedAnswer]]]


def test_a_noisier_version_is_seen_by_four_fresh_answers_a_decision_although_its_rates_stay(replay: Replay) -> None:
    """MMD alone grows with the square of the change; beside it the second phase holds the two spreads together."""
    result = replay("renewals-noisier", 0, delta=0.001, mmd=True)
    assert result.spread_calls > 0
    assert result.verdict == "diverged"


def test_a_noisier_version_is_seen_by_its_excess_mismatch_although_its_rates_stay(
    incumbent: list[list[JudgedAnswer]], answers: Answers
) -> None:
    noisier = answers("renewals-noisier")
    assert share_accepted(noisier[0]) == pytest.approx(share_accepted(incumbent[0]), abs=0.01)
    for run in noisier:
        runs = [hashes(one, "action") for one in incumbent]
        assert largest_by_excess(runs, hashes(run, "action")) >= 20


def test_the_bytes_of_new_wording_are_seen_by_mmd_where_one_looks_for_them(
    incumbent: list[list[JudgedAnswer]], answers: Answers
) -> None:
    before, after = incumbent[:2], answers("renewals-reworded")
    assert largest_by_mmd([hashes(run, "bytes") for run in before], [hashes(run, "bytes") for run in after]) >= 100


@pytest.mark.parametrize("version", ["renewals", "renewals-reworded"])
@pytest.mark.parametrize("name", ["action", "verdict"])
def test_what_changes_no_action_is_nothing_to_mmd_and_to_the_excess_mismatch(
    incumbent: list[list[JudgedAnswer]], answers: Answers, version: str, name: str
) -> None:
    before, after = ([hashes(run, name) for run in runs] for runs in (incumbent, answers(version)))
    assert largest_by_mmd(before[:2], after) < 20
    assert all(largest_by_excess(before, run) < 20 for run in after)
