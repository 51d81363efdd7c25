"""Decisions on a log without a runtime: made once, and put there many times over under ids of their own."""

from __future__ import annotations

import json
from collections.abc import Iterator

from bench.kit.app import RENEWED, events
from bench.kit.cluster import Feed

from driftline.consumers import Answer, App, ProposalRequest
from driftline.log import Outgoing, Settings
from driftline.log.events import decision_record
from driftline.replay.testing import decided
from driftline.schemas import Codec, Registry

MADE_MAX = 20_000
"""So many are decided and encoded; more are these again, each with an id and an event id of its own. Answers name the
decision, so that no two texts of a history are equal."""
MENDED_EVERY = 20
"""One in so many was rejected at first and mended at its second attempt."""
ASKED_PCT, CAP_PCT = 45.5, 30
WHY = (
    "Tenure and charges are in the usual range for this contract; the customer asked for a cheaper plan, was "
    "told of the offers; this follows "
)
"""With it, and the decision's id behind it, a decision of one attempt is 1.7 KB long."""


class Varied:
    """Answers each decision otherwise; one in `MENDED_EVERY` asks for too much at first."""

    def __init__(self) -> None:
        self._asked = 0

    async def propose(self, request: ProposalRequest) -> Answer:
        first = request.key.attempt == 1
        self._asked += first
        over = first and self._asked % MENDED_EVERY == 0
        discount = ASKED_PCT if over else self._asked % (2 * CAP_PCT) / 2
        payload = {"term_months": 12, "discount_pct": discount, "rationale": f"{WHY}{request.key.decision_id}"}
        text = json.dumps({"type": RENEWED, "payload": payload})
        return Answer(text, model_reported="bench/varied", cost_usd=0.001, latency_ms=1000.0)


def fill(app: App, settings: Settings, count: int) -> float:
    """Write so many decisions to the app's log, by a bare producer without transactions; mean bytes of a value."""
    feed = Feed(app, settings)
    codec = Codec(Registry(settings.require_registry()), app.contracts)
    topic = app.topics.decisions
    made = decided(app, events(0, min(count, MADE_MAX)), Varied())
    records = [decision_record(decision, topic, codec) for decision in made]
    named = [(decision.decision_id.encode(), decision.input.event_id.encode()) for decision in made]
    feed.send(_again(records, named, count))
    return sum(len(record.value or b"") for record in records) / len(records)


def _again(records: list[Outgoing], named: list[tuple[bytes, bytes]], count: int) -> Iterator[Outgoing]:
    for number in range(count):
        record, (decision_id, event_id) = records[number % len(records)], named[number % len(records)]
        renamed = {decision_id: b"%036x" % number, event_id: b"due-%09d" % number}
        value = record.value or b""
        for old, new in renamed.items():
            value = value.replace(old, new)
        headers = [(name, renamed.get(told, told)) for name, told in record.headers]
        yield Outgoing(record.topic, record.key, value, record.timestamp_ms, headers)
