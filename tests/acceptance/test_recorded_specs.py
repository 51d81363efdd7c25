"""The example specs over the recordings of real models: how often each model is accepted."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from string import ascii_uppercase

import pytest

from driftline.consumers import Answer, Case, Judgement, SpecJudge
from driftline.schemas.recorded import RecordedLine, read_recorded

SPECS = Path(__file__).parents[2] / "examples" / "driftline" / "examples" / "recordings"

pytestmark = pytest.mark.acceptance


def judged(recording: Path, spec: str) -> list[tuple[RecordedLine, Judgement]]:
    judge = SpecJudge.from_file(SPECS / f"{spec}.toml")
    lines = [line for _, line in read_recorded(recording)]
    return [(line, judge.for_stream(line.stream).judge(answer(line), Case({}, line.reference))) for line in lines]


def answer(line: RecordedLine) -> Answer:
    return Answer(line.response or None, facts={"reference": line.reference})


def acceptance(recording: Path, spec: str) -> dict[str, float]:
    """Share of accepted answers by model."""
    found = judged(recording, spec)
    lines = Counter(line.model.removeprefix("openai/") for line, _ in found)
    accepted = Counter(line.model.removeprefix("openai/") for line, judgement in found if judgement.accepted)
    return {model: accepted[model] / count for model, count in lines.items()}


def test_happy_numbers_are_accepted_as_often_as_the_paper_has_it(recordings: Path) -> None:
    assert acceptance(recordings / "llmdrift-happy.jsonl.gz", "happy-number") == pytest.approx(
        {"gpt-4-0314": 0.836, "gpt-4-0613": 0.352, "gpt-3.5-turbo-0301": 0.306, "gpt-3.5-turbo-0613": 0.482}
    )


def test_programs_are_accepted_by_the_recorded_flag(recordings: Path) -> None:
    found = acceptance(recordings / "llmdrift-leetcode.jsonl.gz", "leetcode")
    assert (found["gpt-4-0314"], found["gpt-4-0613"]) == pytest.approx((0.52, 0.10))


@pytest.mark.parametrize("name", ["logical-deduction", "navigate", "ruin-names"])
def test_strict_json_and_free_text_are_both_read(recordings: Path, name: str) -> None:
    found = judged(recordings / f"stability-{name}.jsonl.gz", "stability")
    read = Counter(line.model for line, judgement in found if judgement.proposal is not None)
    for model, lines in Counter(line.model for line, _ in found).items():
        assert read[model] / lines > 0.95


@pytest.mark.parametrize("name", ["logical-deduction", "navigate", "ruin-names"])
def test_what_is_read_is_an_answer_of_the_references_kind(recordings: Path, name: str) -> None:
    found = judged(recordings / f"stability-{name}.jsonl.gz", "stability")
    answers = {judgement.proposal.payload["answer"] for _, judgement in found if judgement.proposal is not None}
    assert answers <= ({"YES", "NO"} if name == "navigate" else set(ascii_uppercase))
