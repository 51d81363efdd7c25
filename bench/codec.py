"""What the wire format costs: `Codec` against bare fastavro on the same record, in the same run.

    .venv/bin/python bench/codec.py

Fails where `Codec` takes more than `RATIO_MAX` of fastavro's time.
"""

from __future__ import annotations

import gc
import sys
import timeit
from collections.abc import Callable
from datetime import UTC, datetime
from io import BytesIO
from typing import Any

from fastavro import schemaless_reader, schemaless_writer

from driftline.schemas import Attempt, Codec, Contract, Contracts, Decision, InputCoordinates, Registry, Usage

RATIO_MAX = 1.3
CALLS = 2_000
ROUNDS = 15
"""The fastest round counts: everything slower is the machine's other work."""

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
EVENT = Contract(
    "bench.ContractDue",
    [
        {
            "type": "record",
            "name": "bench.ContractDue",
            "fields": [
                *({"name": f"text_{number}", "type": "string"} for number in range(8)),
                *({"name": f"note_{number}", "type": ["null", "string"], "default": None} for number in range(4)),
                *({"name": f"amount_{number}", "type": "double"} for number in range(4)),
                *({"name": f"count_{number}", "type": "int"} for number in range(4)),
                {"name": "due", "type": {"type": "long", "logicalType": "timestamp-millis"}},
            ],
        }
    ],
)


def an_event() -> dict[str, Any]:
    """400 bytes on the wire."""
    texts = {f"text_{number}": "x" * 35 for number in range(8)}
    notes = {f"note_{number}": "y" * 15 if number % 2 else None for number in range(4)}
    amounts = {f"amount_{number}": 29.85 * number for number in range(4)}
    counts = {f"count_{number}": number for number in range(4)}
    return {**texts, **notes, **amounts, **counts, "due": NOW}


def a_decision() -> dict[str, Any]:
    """1.7 KB on the wire."""
    attempt = Attempt(
        number=1,
        model_reported="gpt-4o-2024-08-06",
        raw_response="r" * 330,
        finish_reason="stop",
        usage=Usage(prompt_tokens=812, completion_tokens=40),
        cost_usd=0.0021,
        latency_ms=731.5,
    )
    decision = Decision(
        decision_id="d" * 36,
        app="renewals",
        boundary="offer",
        stream="ContractDue",
        workflow="7590-VHVEG",
        input=InputCoordinates(
            topic="renewals.events", partition=3, offset=123456, event_id="e" * 36, event_time=NOW
        ),
        context="c" * 500,
        context_hash="h" * 32,
        prompt_hash="p" * 32,
        model_requested="openai/gpt-4o",
        parameters='{"temperature":0}',
        attempts=(attempt, attempt),
        verdict="accepted",
        action_type="renewals.Offer",
        action_payload="a" * 100,
        verifier_version="v" * 32,
        committed_event_ids=("f" * 36,),
        decided_at=NOW,
    )
    return decision.model_dump()


def best_us(*calls: Callable[[], Any]) -> list[float]:
    """Microseconds of each call, the rounds of all of them interleaved so that a busy moment hits all alike."""
    best = [float("inf")] * len(calls)
    gc.disable()
    for _ in range(ROUNDS):
        for index, call in enumerate(calls):
            best[index] = min(best[index], timeit.timeit(call, number=CALLS) / CALLS * 1e6)
    gc.enable()
    return best


def rows(label: str, contract: Contract, value: dict[str, Any]) -> list[tuple[str, float, float]]:
    """(what, µs of fastavro, µs of Codec) of encoding and decoding."""
    codec = Codec(Registry("mock://"), Contracts([contract]))
    schema, name = contract.parsed, contract.name
    data = codec.encode("bench", name, value)
    body = data[5:]

    def bare_encode() -> bytes:
        out = BytesIO()
        schemaless_writer(out, schema, value)
        return out.getvalue()

    bare_out, out, bare_in, back = best_us(
        bare_encode,
        lambda: codec.encode("bench", name, value),
        lambda: schemaless_reader(BytesIO(body), schema, None),
        lambda: codec.decode(data),
    )
    [proved] = best_us(lambda: codec.encode("bench", name, value, prove=True))
    size = f"{label}, {len(data)} bytes"
    return [
        (f"encode {size}", bare_out, out),
        (f"decode {size}", bare_in, back),
        (f"  prove {size}", bare_out, proved),
    ]


def main() -> int:
    """Print the table; 1 where a ratio is over the limit."""
    own = Contracts.load()
    found = [*rows("Decision", own["driftline.Decision"], a_decision()), *rows("event", EVENT, an_event())]
    print(f"{'':32} {'fastavro µs':>12} {'Codec µs':>9} {'ratio':>6}  (limit {RATIO_MAX})")
    for what, bare, ours in found:
        limit = "no limit: every type proved first" if "prove" in what else ""
        print(f"{what:32} {bare:12.1f} {ours:9.1f} {ours / bare:6.2f}  {limit}")
    return int(any(ours / bare > RATIO_MAX for what, bare, ours in found if "prove" not in what))


if __name__ == "__main__":
    sys.exit(main())
