"""History without a broker, and driftline's own models without LiteLLM: for tests, an app's own included."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

from driftline.consumers.app import App
from driftline.consumers.deciding import drive
from driftline.consumers.engine import Input
from driftline.consumers.models.answers import CallFailed, ProviderCall
from driftline.consumers.models.gateway import OWN_PROVIDERS
from driftline.consumers.proposing import Answer, ProposalRequest, Proposer
from driftline.log import AppTopics, Coordinates, MemoryLog, Span
from driftline.log.events import decision_record
from driftline.replay.segment import LoggedDecision, Segment, log_order
from driftline.schemas import Codec, Contracts, Decision, Event, InputCoordinates, Registry
from driftline.schemas.names import DECISION


class OwnModels:
    """Answers `sim/…` and `recorded/…` as they are answered through LiteLLM, without its import."""

    async def propose(self, request: ProposalRequest) -> Answer:
        """As `Proposer.propose`."""
        provider, _, name = request.model.partition("/")
        tools = request.tools if request.may_ask else ()
        call = ProviderCall(name, tuple(request.messages), request.key, request.parameters, request.timeout_s, tools)
        try:
            own = await OWN_PROVIDERS[provider].answer(call)
        except CallFailed as failed:
            return Answer(None, failed.failure, failed.detail, latency_ms=failed.latency_ms)
        return Answer(
            text=own.text,
            model_reported=own.model_reported,
            fingerprint=own.fingerprint,
            finish_reason=own.finish_reason,
            facts=own.facts,
            usage=own.usage,
            cost_usd=own.cost_usd,
            latency_ms=own.latency_ms,
            tool_calls=own.tool_calls,
        )


def decided(app: App, events: Iterable[Event], proposer: Proposer, seed: int = 0) -> list[Decision]:
    """The decisions that an app makes of its events, each as the first of its workflow, decided at its event time."""
    return asyncio.run(_decide_all(app, list(events), proposer, seed))


def segment_of(decisions: Sequence[Decision]) -> Segment:
    """A segment of decisions, as if they lay on one partition in this order."""
    topic = AppTopics(decisions[0].app).decisions
    logged = [LoggedDecision(Coordinates(topic, 0, offset), one) for offset, one in enumerate(decisions)]
    return Segment(decisions[0].app, Span(topic, {0: (0, len(logged))}), sorted(logged, key=log_order))


def log_of(decisions: Sequence[Decision], contracts: Contracts, partitions: int = 1) -> tuple[MemoryLog, Codec]:
    """A log in memory that holds the decisions, and the codec to read it with."""
    registry, topic = Registry("mock://replay"), AppTopics(decisions[0].app).decisions
    registry.ensure(topic, contracts.require(DECISION))
    codec, log = Codec(registry, contracts), MemoryLog(partitions)
    log.commit([decision_record(decision, topic, codec) for decision in decisions])
    return log, codec


async def _decide_all(app: App, events: Sequence[Event], proposer: Proposer, seed: int) -> list[Decision]:
    return [
        (await drive(_input(app, event, offset, seed), proposer)).decision(event.time)
        for offset, event in enumerate(events)
    ]


def _input(app: App, event: Event, offset: int, seed: int) -> Input:
    at = InputCoordinates(
        topic=app.topics.events, partition=0, offset=offset, event_id=event.id, event_time=event.time
    )
    row = {} if app.fold is None else app.fold.function({}, event)
    return Input(app.name, app.by_stream[event.type], event, at, row, 1, seed)
