"""A race on the state-machine spine: outsiders ask for the same rows at the same versions, while faults happen.

    python -m tests.faults.race [--rivals 10000] [--faults 12] [--seed S]

Exits 1 on any violation.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from tests.faults.checker import aborted_visible, undecided
from tests.faults.faults import FAULTS, Fault, Scene
from tests.faults.load import DELIVERY_TIMEOUT_S, Raw
from tests.faults.machine_checker import MachineReport, MachineSeen, RowTold, Told, check_machine, unanswered
from tests.faults.reading import LogView
from tests.faults.stand import Ground, Stand, Standing
from tests.faults.worker import STATE_MACHINE

from driftline.producers import Publisher
from driftline.producers.ticking import Ticker
from driftline.schemas import EnvironmentUnreachable

RIVALS_A_VERSION = 20
OUTSIDERS = 8
"""Producers at once."""
WORKFLOWS = 6
"""Rivals alone race for the first of them; the others are asked for, offered and nudged again and again as well."""
NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)
FAULT_S = 3.0
"""About what a fault takes."""
TICK = timedelta(minutes=20)
TICK_S = 0.3
LAST_TICK = timedelta(days=30)
"""When all are answered: no timer is left over."""
LAST_FAULT_S = 3.0
"""About what a fault takes."""
TICK = timedelta(days=1)
"""When all are answered: no timer is left over."""
SETTLE_S_MAX = 90.0
TIMER_S_MAX = 20.0
"""From a tick to the timers that it makes fire; a race without any is no race."""
MISSED = "did not happen"
UNFIT = ("two in one slot", "corrupt records", "registry", "broker stopped", "70 % garbage")
"""Faults, by how they begin, that say nothing of the spine that they do not say of the other one."""


class MachineView(LogView):
    """Reads the desk's topics for `check_machine`."""

    def __init__(self, bootstrap: str, registry: str, app: str, partitions: int) -> None:
        super().__init__(bootstrap, registry, app, partitions)
        self.machine = MachineSeen(app)

    def _event(self, message: Any) -> None:
        super()._event(message)
        headers = {name: value.decode() for name, value in message.headers()}
        self.machine.events.append(
            Told(
                at=(message.partition(), message.offset()),
                key=message.key(),
                id=headers["ce_id"],
                type=headers["ce_type"],
                source=headers["ce_source"],
                cause=headers.get("ce_causationid", ""),
                time=datetime.fromisoformat(headers["ce_time"]),
                value=self._schemas.decode(message.value()),
            )
        )

    def _row(self, message: Any) -> None:
        super()._row(message)
        value = self._schemas.decode(message.value())
        row = RowTold(
            message.partition(),
            message.key(),
            value["version"],
            value["as_of"],
            value["state"],
            json.loads(value["data"]),
        )
        self.machine.rows.append(row)


class Desk(Stand):
    """A stand whose app is the desk."""

    def __init__(self, ground: Ground, app: str, chance: random.Random, partitions: int = 2, slots: int = 2) -> None:
        super().__init__(ground, app, chance, partitions, slots, STATE_MACHINE, latency_s=0.01)
        url = self.settings.require_registry()
        self._machine = MachineView(self.settings.require_bootstrap(), url, app, partitions)

    @property
    def machine(self) -> MachineSeen:
        """What the checker has read so far."""
        return self._machine.machine

    def standing(self) -> Standing:
        """What is not settled: asks, requests, rows behind, transactions."""
        self._machine.refresh()
        seen = self._machine.seen
        dead = {one.input for one in seen.dead}
        asked = undecided(seen, ()) + unanswered(self.machine, dead)
        stale = 0 if asked else len(self.judged().violations)
        return Standing(asked, stale, len(seen.open))

    def judged(self) -> MachineReport:
        """Judge everything that was read so far; the log must be at rest."""
        seen = self._machine.seen
        visible = aborted_visible(seen.committed, self.traces.transactions())
        more: dict[str, Sequence[object]] = {"aborted records visible": visible, "open transactions": seen.open}
        return check_machine(self.machine, seen.decisions, {one.input for one in seen.dead}, more)

    def close(self) -> None:
        """End the workers and let the consumers go."""
        super().close()
        self._machine.close()


class Rivals:
    """Outsiders that ask for bumps, many for each version, and a clock that makes timers fire among them.

    Args:
        stand: Whose desk.
        chance: Draws rows and versions.
        over_s: In about how many seconds the requests are made.
    """

    def __init__(self, stand: Stand, chance: random.Random, over_s: float) -> None:
        self._stand, self._chance, self._over_s = stand, chance, over_s
        self._ending = threading.Event()
        self._threads: list[threading.Thread] = []
        self._failed: list[Exception] = []

    def ask(self) -> None:
        """Ask once for each row."""
        with self._publisher("clerk") as publisher:
            for number in range(WORKFLOWS):
                publisher.publish("desk.Asked", {"text": ""}, workflow=f"row-{number}", time=NOON)

    def begin(self, rivals: int) -> None:
        """Let so many rivals race."""
        asks = [self._request(number) for number in range(rivals)]
        for outsider in range(OUTSIDERS):
            self._start(partial(self._race, asks[outsider::OUTSIDERS], f"rival-{outsider}"))
        self._clock = threading.Thread(target=self._guarded(self._tick), daemon=True)
        self._clock.start()

    def join(self) -> None:
        """Wait until all have asked; the clock stops."""
        for thread in self._threads:
            thread.join()
        self._ending.set()
        self._clock.join()
        if self._failed:
            raise self._failed[0]

    def _request(self, number: int) -> tuple[str, int]:
        """Row and expected version: rivals come in waves, some too early, some too late."""
        row = 0 if self._chance.random() < 0.8 else self._chance.randrange(1, WORKFLOWS)
        share = 1 if row == 0 else 4 * (WORKFLOWS - 1)
        return f"row-{row}", 2 + number // RIVALS_A_VERSION // share + self._chance.choice((-1, 0, 0, 0, 1))

    def _race(self, asks: Sequence[tuple[str, int]], name: str) -> None:
        pause_s = self._over_s / max(1, len(asks))
        with self._publisher(name) as publisher:
            for row, version in asks:
                data = {"transition": "bump", "expected_version": version, "by": name, "reason": ""}
                publisher.publish("driftline.TransitionRequested", data, workflow=row, time=NOON)
                time.sleep(pause_s)

    def _tick(self) -> None:
        now = NOON
        with Ticker(self._stand.app.name, self._stand.settings) as ticker, self._publisher("clerk") as publisher:
            while not self._ending.wait(TICK_S):
                now += TICK
                with suppress(EnvironmentUnreachable):  # the next one tells more
                    ticker.tick(now)
                for number in range(1, WORKFLOWS):  # whose timer has fired wants an offer again
                    publisher.publish("desk.Asked", {"text": ""}, workflow=f"row-{number}", time=now)

    def tick_last(self) -> None:
        """Tell a time at which every timer that still runs is due."""
        with Ticker(self._stand.app.name, self._stand.settings) as ticker:
            ticker.tick(NOON + LAST_TICK)

    def _publisher(self, source: str) -> Publisher:
        app, settings = self._stand.app, self._stand.settings
        return Publisher(app.name, app.schemas, settings, source=source, delivery_timeout_s=DELIVERY_TIMEOUT_S)

    def _start(self, step: Callable[[], None]) -> None:
        thread = threading.Thread(target=self._guarded(step), daemon=True)
        self._threads.append(thread)
        thread.start()

    def _guarded(self, step: Callable[[], None]) -> Callable[[], None]:
        def guarded() -> None:
            try:
                step()
            except Exception as error:  # noqa: BLE001  # told where it is joined
                self._failed.append(error)

        return guarded


def race(
    ground: Ground,
    name: str,
    rivals: int,
    faults: Sequence[Fault],
    seed: int = 1,
    over_s: float = 4.0,
    say: Callable[[str], None] = lambda line: None,
) -> tuple[str, MachineReport]:
    """Let rivals race while faults happen one after another; what did not settle, and what the checker found."""
    chance = random.Random(f"race/{seed}")
    stand = Desk(ground, name, chance)
    try:
        stand.fleet.start()
        running = Rivals(stand, chance, over_s)
        scene = Scene(stand, Raw(name, stand.settings), chance)
        running.ask()
        scene.wait(lambda: not stand.standing() and stand.judged().decided == WORKFLOWS, SETTLE_S_MAX)
        running.begin(rivals)
        for fault in faults:
            time.sleep(chance.uniform(0.3, 1.0))
            say(fault.name)
            fault.happen(scene)
        running.join()
        for missed in scene.missed:
            say(f"{MISSED}: {missed}")
        unsettled = stand.settle(SETTLE_S_MAX)
        running.tick_last()
        scene.wait(lambda: not stand.standing() and stand.judged().fired > 0, TIMER_S_MAX)
        return unsettled or stand.settle(SETTLE_S_MAX), stand.judged()
    finally:
        stand.close()


def great_race(
    ground: Ground, rivals: int, faults: int, seed: int, say: Callable[[str], None]
) -> tuple[str, MachineReport]:
    """A race that lasts as long as so many faults take, drawn by their weight."""
    drawn = random.Random(f"race/faults/{seed}").choices(fit(), [fault.weight for fault in fit()], k=faults)
    return race(ground, "race", rivals, drawn, seed, FAULT_S * faults, say)


def fit() -> list[Fault]:
    """The faults that a race has."""
    return [fault for fault in FAULTS if not fault.name.startswith(UNFIT)]


def main(arguments: Sequence[str]) -> int:
    """Run what the command line asks for; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.race", description=__doc__)
    parser.add_argument("--rivals", type=int, default=10_000)
    parser.add_argument("--faults", type=int, default=12)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args(arguments)
    home = Path(tempfile.mkdtemp(prefix="driftline-race-"))
    console = Console()
    with Ground(home) as ground:
        unsettled, report = great_race(ground, given.rivals, given.faults, given.seed, console.out)
    for name, value in asdict(report).items():
        console.out(f"{name:14} {value}")
    if unsettled or report.violations:
        console.out(f"not as it must be: {unsettled}; what the workers noted is in {home}")
        return 1
    shutil.rmtree(home)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
