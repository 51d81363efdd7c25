"""`recorded/…` over the recordings of real models: each answer is the one of its line."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from driftline.consumers.models import LiteLLMProposer, RecordedAnswers
from driftline.consumers.proposing import CallKey, ProposalRequest
from driftline.schemas import UsageError
from driftline.schemas.recorded import RecordedLine, read_recorded

DATA = Path(__file__).parents[3] / "shared" / "data"
MODELS = {
    "llmdrift-happy": {
        f"openai/{name}": [0] for name in ("gpt-3.5-turbo-0301", "gpt-3.5-turbo-0613", "gpt-4-0314", "gpt-4-0613")
    },
    "llmdrift-leetcode": {
        f"openai/{name}": [0] for name in ("gpt-3.5-turbo-0301", "gpt-3.5-turbo-0613", "gpt-4-0314", "gpt-4-0613")
    },
    "stability-logical-deduction": {"openai/gpt-35": [*range(7)], "openai/gpt-4o": [*range(5)]},
    "stability-navigate": {"openai/gpt-35": [*range(6)], "openai/gpt-4o": [*range(5)]},
    "stability-ruin-names": {"openai/gpt-4o": [*range(5)]},
}

pytestmark = [
    pytest.mark.acceptance,
    pytest.mark.filterwarnings("ignore:.*using the `ReadOnly` qualifier:UserWarning"),
    pytest.mark.skipif(not DATA.is_dir(), reason=f"the recordings are not at {DATA}"),
]


def recording(name: str) -> Path:
    return DATA / f"{name}.jsonl.gz"


@pytest.mark.parametrize("name", MODELS)
def test_every_line_is_read_and_every_model_found(name: str) -> None:
    answers = RecordedAnswers.load(recording(name))
    assert answers.replicates == MODELS[name]
    assert len(answers.rows) == sum(1 for _ in read_recorded(recording(name)))


async def replay(path: Path, model: str, lines: list[RecordedLine]) -> None:
    proposer = LiteLLMProposer()
    for line in lines:
        request = ProposalRequest(f"recorded/{path}#{model}", line.messages, CallKey("d", line.event_id), line.params)
        answer = await proposer.propose(request)
        assert answer.text == line.response
        assert answer.facts == {"reference": line.reference}
        assert (answer.latency_ms, answer.cost_usd) == (line.latency_ms, line.cost_usd)
        assert answer.usage.completion_tokens == line.completion_tokens


@pytest.mark.parametrize(
    ("name", "model", "pinned"),
    [
        ("llmdrift-happy", "openai/gpt-4-0613", ""),
        ("llmdrift-leetcode", "openai/gpt-4-0314", ""),
        ("stability-ruin-names", "openai/gpt-4o", "@3"),
    ],
)
def test_the_answers_come_back_through_litellm_as_they_were_recorded(name: str, model: str, pinned: str) -> None:
    replicate = int(pinned[1:] or 0)
    lines = [line for _, line in read_recorded(recording(name)) if (line.model, line.replicate) == (model, replicate)]
    asyncio.run(replay(recording(name), f"{model}{pinned}", lines))


def test_a_relative_path_as_one_would_type_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])
    model = "recorded/../shared/data/llmdrift-happy.jsonl.gz#openai/gpt-4-0613"
    answer = asyncio.run(LiteLLMProposer().propose(ProposalRequest(model, [], CallKey("d", "0"))))
    assert answer.failure is None
    with pytest.raises(UsageError, match=r"it holds openai/gpt-3\.5-turbo-0301, "):
        asyncio.run(LiteLLMProposer().propose(ProposalRequest(f"{model}-x", [], CallKey("d", "0"))))
