"""What `LiteLLMProposer` costs in CPU, beside LiteLLM alone calling the same providers.

Prints microseconds of CPU a call (all threads, best of several rounds) and the ratio to bare LiteLLM.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from driftline.consumers.models import LiteLLMProposer
from driftline.consumers.models.answers import CALL, Carried, ProviderCall
from driftline.consumers.models.gateway import OWN_PROVIDERS, load_litellm
from driftline.consumers.proposing import CallKey, ProposalRequest
from driftline.producers.renewals import synthetic_renewals

CALLS = 300
ROUNDS = 5
EVENTS = list(synthetic_renewals(CALLS, 1))
Call = Callable[[ProposalRequest], Awaitable[Any]]


def requests(model: str) -> list[ProposalRequest]:
    system = {"role": "system", "content": "at most 30 %"}
    return [
        ProposalRequest(
            model,
            [system, {"role": "user", "content": json.dumps(dict(event.data))}],
            CallKey(event.id, event.workflow),
        )
        for event in EVENTS
    ]


async def bare_litellm(request: ProposalRequest) -> Any:
    """LiteLLM calling our provider, nothing of ours around it."""
    provider, _, name = request.model.partition("/")
    metadata = {CALL: Carried(name, request.key, {})}
    messages = list(request.messages)
    return await load_litellm().acompletion(model=f"{provider}/driftline", messages=messages, metadata=metadata)


async def provider_alone(request: ProposalRequest) -> Any:
    provider, _, name = request.model.partition("/")
    call = ProviderCall(name, tuple(request.messages), request.key, {}, 60.0)
    return await OWN_PROVIDERS[provider].answer(call)


def cpu_us(call: Call, asked: list[ProposalRequest]) -> float:
    async def run() -> float:
        started = time.process_time()
        for request in asked:
            await call(request)
        return (time.process_time() - started) / len(asked) * 1e6

    return min(asyncio.run(run()) for _ in range(ROUNDS))


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "answers.jsonl"
        path.write_text("".join(json.dumps(recorded_line(event.workflow)) + "\n" for event in EVENTS))
        print(f"{'provider':10} {'alone µs':>9} {'bare LiteLLM µs':>16} {'proposer µs':>12} {'ratio':>6}")
        for model in ("sim/renewals", f"recorded/{path}#a/b"):
            asked = requests(model)
            alone, bare, ours = (cpu_us(c, asked) for c in (provider_alone, bare_litellm, LiteLLMProposer().propose))
            print(f"{model.partition('/')[0]:10} {alone:9.0f} {bare:16.0f} {ours:12.0f} {ours / bare:6.2f}")


def recorded_line(event_id: str) -> dict[str, Any]:
    fixed = {"stream": "s", "time": "2026-01-01T00:00:00Z", "messages": [], "model": "a/b", "response": "x" * 200}
    return {"event_id": event_id, **fixed}


if __name__ == "__main__":
    main()
