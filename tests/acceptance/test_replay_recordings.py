"""Replay over what real models answered: the log is one model's recording, the candidate another's."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Callable
from functools import cache
from itertools import permutations
from pathlib import Path
from statistics import median

import pytest
from tests.acceptance.recordings import EVERY_SPEC, GPT4, GPT4O, GPT35, STABILITY

from driftline.consumers import SpecJudge
from driftline.consumers.prompt import RecordedMessages
from driftline.replay import Candidate, ForcedReplay, ForcedResult, Ledger, Limits, RecordedSubject, Segment
from driftline.replay.testing import OwnModels, segment_of
from driftline.schemas import Attempt, Contracts, Decision, InputCoordinates, canonical_json, content_hash
from driftline.schemas.recorded import RecordedLine, read_recorded

pytestmark = pytest.mark.acceptance

ORDERS = range(25)
SPEC = SpecJudge.parse(EVERY_SPEC)

Compare = Callable[..., ForcedResult]


def decision(number: int, line: RecordedLine) -> Decision:
    """The decision that an import makes of a line."""
    context = canonical_json({"messages": list(line.messages), "reference": line.reference})
    facts = canonical_json({"reference": line.reference})
    attempt = Attempt(number=1, model_reported=line.model, raw_response=line.response, facts=facts)
    return Decision(
        decision_id=f"{line.set}/{line.event_id}",
        app="recordings",
        boundary="recorded",
        stream=line.stream,
        workflow=line.event_id,
        input=InputCoordinates(
            topic="recordings.events", partition=0, offset=number, event_id=line.event_id, event_time=line.time
        ),
        context=context,
        context_hash=content_hash(context),
        prompt_hash=RecordedMessages.hash,
        model_requested=line.model,
        parameters=canonical_json(dict(line.params)),
        attempts=(attempt,),
        verdict="accepted",
        verifier_version=SPEC.version,
        decided_at=line.time,
    )


@cache
def history(path: Path, model: str, replicate: int = 0) -> Segment:
    lines = [line for _, line in read_recorded(path) if (line.model, line.replicate) == (model, replicate)]
    return segment_of([decision(number, line) for number, line in enumerate(lines)])


@pytest.fixture
def compare(tmp_path: Path) -> Compare:
    """One model of a recording against another, in a run and with a ledger of its own."""
    subject = RecordedSubject("recordings", SPEC, Contracts.load())

    def run(segment: Segment, path: Path, candidate: str, **limits: object) -> ForcedResult:
        ledger = Ledger(tmp_path / f"{len(list(tmp_path.iterdir()))}.sqlite")
        replay = ForcedReplay(
            "run",
            segment,
            subject,
            Candidate(f"recorded/{path}#{candidate}"),
            OwnModels(),
            ledger,
            Limits(concurrency=1, **limits),  # type: ignore[arg-type]
            lambda: segment.decisions[0].decision.decided_at,
        )
        try:
            return asyncio.run(replay.run())
        finally:
            ledger.close()

    return run


def told(figure: str) -> None:
    """Figures that are looked at and not asserted; pytest shows them with -s."""
    print(figure)  # noqa: T201


def recording(recordings: Path, name: str) -> Path:
    path = recordings / f"{name}.jsonl.gz"
    if not path.exists():
        pytest.skip(f"the recording {name} is not in {recordings}")
    return path


@pytest.mark.parametrize(
    ("name", "baseline", "candidate", "calls_max"),
    [
        ("llmdrift-happy", f"{GPT4}-0314", f"{GPT4}-0613", 25),
        ("llmdrift-happy", f"{GPT35}-0301", f"{GPT35}-0613", 160),
        ("llmdrift-leetcode", f"{GPT4}-0314", f"{GPT4}-0613", 35),
    ],
)
def test_a_real_upgrade_diverges_within_so_many_paid_calls(
    name: str, baseline: str, candidate: str, calls_max: int, recordings: Path, compare: Compare
) -> None:
    path = recording(recordings, name)
    results = [compare(history(path, baseline), path, candidate, order_seed=seed) for seed in ORDERS]
    paid = [result.paid_calls if result.verdict == "diverged" else float("inf") for result in results]
    told(f"{name} {baseline} → {candidate}: median {median(paid)} paid calls, {len(results)} orders")
    assert median(paid) <= calls_max
    assert all(result.overspent_calls == 0 for result in results)


def test_happy_numbers_read_to_the_end_put_the_change_between_60_and_36_points(
    recordings: Path, compare: Compare
) -> None:
    path = recording(recordings, "llmdrift-happy")
    result = compare(history(path, f"{GPT4}-0314"), path, f"{GPT4}-0613", read_on=True)
    verdict = next(level for level in result.judged.levels if level.level == "verdict")
    told(f"happy numbers: {verdict.change}, {verdict.interval}, at the stop {verdict.interval_at_stop}")
    assert (result.verdict, result.coverage, len(result.pairs)) == ("diverged", 1.0, 500)
    assert (verdict.baseline_rate, verdict.candidate_rate) == (0.836, 0.352)
    assert -0.60 <= verdict.interval[0] < verdict.interval[1] <= -0.36
    assert result.paid_calls < 60


def test_a_model_that_a_recording_does_not_hold_of_some_events_costs_coverage(
    recordings: Path, compare: Compare, tmp_path: Path
) -> None:
    path = recording(recordings, "llmdrift-happy")
    model = f'"{GPT4}-0613"'.encode()
    with gzip.open(path) as lines:
        kept = [line for number, line in enumerate(lines) if model not in line or number % 4]
    (tmp_path / "part.jsonl").write_bytes(b"".join(kept))
    segment = history(path, f"{GPT4}-0314")
    result = compare(segment, tmp_path / "part.jsonl", f"{GPT4}-0613", read_on=True, min_effect=0.9)
    assert (result.verdict, result.stopped_because) == ("inconclusive", "coverage")
    assert 0.7 < result.coverage < 0.8


@pytest.fixture
def stability(recordings: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The three recordings in one file, so that one run has all three strata."""
    path = tmp_path_factory.mktemp("stability") / "all.jsonl.gz"
    path.write_bytes(b"".join(recording(recordings, f"stability-{name}").read_bytes() for name in STABILITY))
    return path


def test_one_model_against_itself_by_the_signed_statistic_alarms_in_at_most_5_percent(
    stability: Path, compare: Compare
) -> None:
    """All ordered pairs of gpt-4o's five runs. What the whole judge says is printed: one run really differs."""
    pairs = list(permutations(range(5), 2))
    results = [
        compare(history(stability, GPT4O, first), stability, f"{GPT4O}@{second}", order_seed=number)
        for number, (first, second) in enumerate(pairs)
    ]
    diverged = [pair for pair, result in zip(pairs, results, strict=True) if result.verdict == "diverged"]
    signed = [
        next(level.e_value for level in result.judged.levels if level.level == "verdict") or 0.0 for result in results
    ]
    told(f"one model against itself: {len(diverged)} of {len(pairs)} diverged; signed at most {max(signed):.1f}")
    assert all(result.coverage == 1.0 for result in results)
    assert sum(e_value >= 20 for e_value in signed) <= 0.05 * len(pairs)
