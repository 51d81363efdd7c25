"""The process that is killed: one slot of the runtime over a model that misbehaves on command.

    python -m tests.faults.worker ORDERS.json

It reads commands from its standard input, one a line, and ends with the process that holds the other end.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.faults import tracing
from tests.faults.clients import AtLeastOnceProducer, Doom, RememberedConsumer, TracedProducer
from tests.faults.desk import ILLEGAL, OFFER, make_desk
from tests.faults.tracing import Trace

from driftline.consumers import Answer, App, ProposalRequest
from driftline.consumers.restoring import RowRestorer
from driftline.consumers.runtime import Runtime
from driftline.examples.renewals.app import OUTCOMES
from driftline.examples.renewals.app import app as renewals
from driftline.log import Record, Settings, clients
from driftline.schemas import DriftlineError

EXACTLY_ONCE, AT_LEAST_ONCE, STATE_MACHINE = "exactly-once", "at-least-once", "state-machine"
EXIT_ERROR = 3
"""The runtime gave up; it is started again."""
EXIT_ORPHANED = 4
"""Whoever started the worker is gone."""
ANSWERED = "answer"
"""A point to die at: the model has answered, and nobody knows."""
RESTORING = "restoring"
"""A point to die at: some rows of a partition are read, others not yet."""

RENEWED = json.dumps({"type": OUTCOMES[0], "payload": {"term_months": 12, "rationale": "as it stands"}})
TOO_GENEROUS = json.dumps({"type": OUTCOMES[1], "payload": {"discount_pct": 90, "rationale": "a good customer"}})
GARBAGE = ("", "I cannot say.", '{"type": "driftline.renewals.Contract', '{"type": 7}', TOO_GENEROUS, "\x00" * 9)


@dataclass(frozen=True)
class Orders:
    """How a worker runs."""

    app: str
    bootstrap: str
    registry: str
    trace: str
    slot: int = 0
    seed: int = 0
    latency_s: float = 0.05
    """Mean of an exponential distribution, cut at four times as much."""
    garbage: float = 0.1
    """Share of answers that are none."""
    kafka: dict[str, str | int | bool] = field(default_factory=dict)
    mode: str = EXACTLY_ONCE

    @classmethod
    def parse(cls, text: str) -> Orders:
        """Read what `json` wrote."""
        return cls(**json.loads(text))

    def json(self) -> str:
        """As one line."""
        return json.dumps(asdict(self))


def client_id(slot: int) -> str:
    """Under which a slot's clients are known to the proxy."""
    return f"worker-{slot}"


def make_app(name: str, mode: str = EXACTLY_ONCE) -> App:
    """The renewals under another name; without rows where the runtime would notice by them that it repeats itself.

    On the state-machine spine it is the desk.
    """
    if mode == STATE_MACHINE:
        return make_desk(name)
    return replace(renewals, name=name, fold=None if mode == AT_LEAST_ONCE else renewals.fold)


class Model:
    """Answers after a while; garbage now and then, late on command."""

    def __init__(self, orders: Orders, trace: Trace, doom: Doom) -> None:
        self.latency_s = orders.latency_s
        self.garbage = orders.garbage
        self._chance = random.Random(f"{orders.seed}/{orders.slot}/{os.getpid()}")
        self._trace = trace
        self._doom = doom
        self._hangs: list[float] = []
        on_machine = orders.mode == STATE_MACHINE
        self._good: str
        self._bad: Sequence[str]
        self._good, self._bad = (OFFER, (*GARBAGE, ILLEGAL)) if on_machine else (RENEWED, GARBAGE)

    def hang(self, seconds: float, calls: int) -> None:
        """The next calls take so long."""
        self._hangs.extend([seconds] * calls)

    async def propose(self, request: ProposalRequest) -> Answer:
        """A renewal, in time or not."""
        self._trace.note(tracing.CALL)
        self._doom.come_to(tracing.CALL)
        mean = self.latency_s
        drawn = self._chance.expovariate(1 / mean) if mean else 0.0
        await asyncio.sleep(self._hangs.pop() if self._hangs else min(drawn, 4 * mean))
        self._doom.come_to(ANSWERED)
        return Answer(self._chance.choice(self._bad) if self._chance.random() < self.garbage else self._good)


class Ears:
    """Obeys commands from the standard input, in a thread of its own."""

    def __init__(self, model: Model, doom: Doom) -> None:
        self.stopping = threading.Event()
        self._model = model
        self._doom = doom

    def listen(self) -> None:
        """Obey until the other end is closed, which ends the process."""
        for line in sys.stdin:
            self.obey(line.split())
        os._exit(EXIT_ORPHANED)

    def obey(self, words: Sequence[str]) -> None:
        """`die POINT [MS]`, `hang SECONDS CALLS`, `latency SECONDS`, `garbage SHARE`, `stop`."""
        match words:
            case ["die", point, *after]:
                self._doom.arm(point, float(after[0]) if after else 0.0)
            case ["hang", seconds, calls]:
                self._model.hang(float(seconds), int(calls))
            case ["latency", seconds]:
                self._model.latency_s = float(seconds)
            case ["garbage", share]:
                self._model.garbage = float(share)
            case ["stop"]:
                self.stopping.set()


def substitute(mode: str, trace: Trace, doom: Doom) -> None:
    """Let driftline make these producers where it makes librdkafka's."""
    kind = AtLeastOnceProducer if mode == AT_LEAST_ONCE else TracedProducer

    def make(conf: dict[str, Any], **options: Any) -> Any:
        return kind(conf, trace, doom, **options)

    setattr(clients, "Producer", make)  # noqa: B010  # the type checker knows it as a class of an untyped module
    beating = RowRestorer._beating

    def restoring(restorer: RowRestorer, records: Iterable[Record]) -> Iterator[Record]:
        for record in beating(restorer, records):
            yield record
            doom.come_to(RESTORING)

    setattr(RowRestorer, "_beating", restoring)  # noqa: B010
    if mode == AT_LEAST_ONCE:
        setattr(clients, "Consumer", RememberedConsumer)  # noqa: B010
        # Decisions ahead of the position stop the runtime before it repeats itself; here it is to repeat itself.
        setattr(RowRestorer, "_check_decisions", lambda restorer, partition, standing: None)  # noqa: B010


def main(orders: Orders) -> int:
    """Run the slot until it is told to stop; the exit code."""
    trace, doom = Trace(Path(orders.trace)), Doom()
    substitute(orders.mode, trace, doom)
    model = Model(orders, trace, doom)
    ears = Ears(model, doom)
    threading.Thread(target=ears.listen, daemon=True).start()
    kafka = {**orders.kafka, "client.id": client_id(orders.slot)}
    settings = Settings(bootstrap_servers=orders.bootstrap, registry_url=orders.registry, kafka=kafka)
    app = make_app(orders.app, orders.mode)
    try:
        Runtime(app, settings, model, lambda: datetime.now(UTC), orders.slot, orders.seed).run(
            stop=ears.stopping.is_set
        )
    except DriftlineError as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return EXIT_ERROR
    return 0


if __name__ == "__main__":
    code = main(Orders.parse(sys.argv[1]))
    sys.stderr.flush()
    os._exit(code)  # librdkafka's threads may outlive a broker that is gone
