"""What can go wrong: each fault happens once, at the moment it is called, and is over or will end by itself after."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tests.faults import tracing
from tests.faults.load import Raw
from tests.faults.proxy import ADD_OFFSETS, END_TXN, NAMES, PRODUCE, TXN_OFFSET_COMMIT, Rule
from tests.faults.stand import POLL_INTERVAL_MS_MAX, SESSION_TIMEOUT_MS, SOCKET_TIMEOUT_MS, Stand
from tests.faults.worker import ANSWERED, RESTORING, client_id

GUEST_SLOT = 7
"""Of a worker that joins and leaves; nobody starts it again."""
CAUGHT_S_MAX = 5.0
"""How long a fault waits for its moment under load."""
LONG_HOLD_S = SOCKET_TIMEOUT_MS / 1000 * 0.6
"""Over half of the client's patience, but within it."""
PAST_S = SOCKET_TIMEOUT_MS / 1000 + 1.0
LATE_S = 15.0
"""At most; the next transaction of the same id releases it."""
RESTART_S_MAX = 15.0
"""Until a worker that was started has its partitions back."""
LOOK_S = 0.02


@dataclass
class Scene:
    """Where a fault happens."""

    stand: Stand
    raw: Raw
    chance: random.Random
    marks: list[float] = field(default_factory=list)
    """Moments at which a fault hit all workers, seconds since 1970."""

    missed: list[str] = field(default_factory=list)
    """What was to happen and did not in time."""

    def expect(self, what: str, condition: Callable[[], bool], timeout_s: float) -> None:
        """Wait until the condition holds, and note where it does not."""
        if not self.wait(condition, timeout_s):
            self.missed.append(what)

    def mark(self) -> None:
        """Note that the fault hits now."""
        self.marks.append(time.time())

    def wait(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        """Wait until the condition holds; whether it came to that in time."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline:
                return False
            time.sleep(LOOK_S)
        return True


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault and how often it is drawn."""

    name: str
    weight: int
    happen: Callable[[Scene], None]


def kill(scene: Scene) -> None:
    """`kill -9` of one worker."""
    scene.stand.fleet.any().signal(signal.SIGKILL)


def kill_all(scene: Scene) -> None:
    """`kill -9` of every worker at once."""
    for worker in scene.stand.fleet.alive():
        worker.signal(signal.SIGKILL)


def die_at(point: str, after_ms: tuple[float, float] = (0.0, 0.0)) -> Callable[[Scene], None]:
    """A worker kills itself at a point of its work, or some milliseconds after it came there."""

    def happen(scene: Scene) -> None:
        worker = scene.stand.fleet.any()
        worker.tell(f"die {point} {scene.chance.uniform(*after_ms)}")
        if not scene.wait(lambda: not worker.alive, CAUGHT_S_MAX):
            worker.tell("die never")

    return happen


def stop_broker(scene: Scene) -> None:
    """The broker is stopped cleanly and started again."""
    scene.mark()
    scene.stand.ground.kafka.stop()
    scene.stand.ground.start_kafka()


def kill_broker(scene: Scene) -> None:
    """`kill -9` of the broker, and its start."""
    kafka = scene.stand.ground.kafka
    pid = kafka.status().pid
    assert pid is not None
    scene.mark()
    os.kill(pid, signal.SIGKILL)
    scene.wait(lambda: not kafka.status().running, 10)
    scene.stand.ground.start_kafka()


def freeze(seconds: float) -> Callable[[Scene], None]:
    """A worker is stopped as by a debugger or a paging machine, and goes on after."""

    def happen(scene: Scene) -> None:
        worker = scene.stand.fleet.any()
        worker.signal(signal.SIGSTOP)
        scene.mark()
        time.sleep(seconds)
        worker.signal(signal.SIGCONT)

    return happen


def freeze_and_replace(scene: Scene) -> None:
    """A worker is stopped, another takes its slot, and the first wakes up and thinks that nothing has happened."""
    worker = scene.stand.fleet.any()
    worker.signal(signal.SIGSTOP)
    scene.mark()
    scene.stand.fleet.spawn(worker.slot)
    time.sleep(scene.chance.uniform(2.0, 4.0))
    worker.signal(signal.SIGCONT)


def isolate(seconds: float) -> Callable[[Scene], None]:
    """The network of a worker falls apart and heals: meanwhile another owns its partitions, and it does not know."""

    def happen(scene: Scene) -> None:
        worker, proxy = scene.stand.fleet.any(), scene.stand.ground.proxy
        scene.mark()
        proxy.isolate(client_id(worker.slot))
        time.sleep(seconds)
        proxy.heal(client_id(worker.slot))

    return happen


def die_restoring(scene: Scene) -> None:
    """A worker is killed, and so is its successor, while it restores the rows."""
    fleet, victim = scene.stand.fleet, scene.stand.fleet.any()
    victim.signal(signal.SIGKILL)
    scene.wait(lambda: not victim.alive, CAUGHT_S_MAX)
    scene.wait(lambda: any(worker.slot == victim.slot for worker in fleet.alive()), CAUGHT_S_MAX)
    successors = [worker for worker in fleet.alive() if worker.slot == victim.slot]
    for worker in successors:
        worker.tell(f"die {RESTORING}")
    scene.expect("death while restoring", lambda: not any(worker.alive for worker in successors), RESTART_S_MAX)
    for worker in successors:
        worker.tell("die never")


def restore_over_open(scene: Scene) -> None:
    """A worker dies with a transaction open that nobody takes over; who gets its partitions restores across it."""
    fleet = scene.stand.fleet
    worker = fleet.any()
    fleet.drop_slot(worker.slot)
    worker.tell(f"die {tracing.COMMIT}")
    scene.expect("death before commit", lambda: not worker.alive, CAUGHT_S_MAX)
    scene.mark()
    time.sleep(SESSION_TIMEOUT_MS / 1000 + 2.0)
    worker.tell("die never")
    fleet.add_slot(worker.slot)


def same_slot(scene: Scene) -> None:
    """A second process is started in a slot that is taken: one of the two must give way."""
    older = scene.stand.fleet.any()
    newer = scene.stand.fleet.spawn(older.slot)
    scene.wait(lambda: not (older.alive and newer.alive), CAUGHT_S_MAX)


def guest(scene: Scene) -> None:
    """One more member joins for a while, and leaves or is killed."""
    worker = scene.stand.fleet.spawn(GUEST_SLOT)
    time.sleep(scene.chance.uniform(1.5, 3.0))
    if scene.chance.random() < 0.5:
        worker.signal(signal.SIGKILL)
    worker.tell("stop")


def storm(scene: Scene) -> None:
    """Members come and go so fast that the group is never at rest."""
    for number in range(4):
        worker = scene.stand.fleet.spawn(GUEST_SLOT + 1 + number % 2)
        time.sleep(scene.chance.uniform(0.6, 1.6))
        worker.signal(signal.SIGKILL)


def hang(seconds: float, calls: int) -> Callable[[Scene], None]:
    """The model does not answer some calls for so long."""

    def happen(scene: Scene) -> None:
        scene.stand.fleet.any().tell(f"hang {seconds} {calls}")

    return happen


def babble(scene: Scene) -> None:
    """The model answers garbage, mostly."""
    scene.stand.fleet.tell_all("garbage 0.7")
    time.sleep(1.0)
    scene.stand.fleet.tell_all("garbage 0.1")


def corrupt(scene: Scene) -> None:
    """Corrupt, oversize, keyless and headerless records among the inputs."""
    scene.raw.put(scene.raw.corrupt(scene.chance))


def registry_gone(scene: Scene) -> None:
    """The registry is killed while unknown schema ids come in and a worker has to start."""
    registry = scene.stand.ground.registry
    pid = registry.status().pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    scene.wait(lambda: not registry.status().running, 10)
    corrupt(scene)
    kill(scene)
    time.sleep(1.0)
    scene.stand.ground.start_registry()


def registry_silent(scene: Scene) -> None:
    """The registry takes connections and does not answer."""
    pid = scene.stand.ground.registry.status().pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        corrupt(scene)
        time.sleep(2.0)
    finally:
        os.kill(pid, signal.SIGCONT)


def meet(make: Callable[[], Rule]) -> Callable[[Scene], None]:
    """A rule of the proxy meets the next request of its kind."""

    def happen(scene: Scene) -> None:
        proxy = scene.stand.ground.proxy
        rule = proxy.add(make())
        if rule.caught.wait(CAUGHT_S_MAX):
            scene.mark()
        else:
            proxy.release(rule)

    return happen


def cut_all(scene: Scene) -> None:
    """Every connection to the broker breaks."""
    scene.mark()
    scene.stand.ground.proxy.cut_all()


def _proxied(kind: int) -> list[Fault]:
    name = NAMES[kind]
    return [
        Fault(f"{name} held 0.5 s", 2, meet(lambda: Rule(kind, 0.5))),
        Fault(f"{name} held {LONG_HOLD_S:g} s", 1, meet(lambda: Rule(kind, LONG_HOLD_S))),
        Fault(f"{name} held past the timeout", 1, meet(lambda: Rule(kind, PAST_S))),
        Fault(f"{name} answered 1 s late", 2, meet(lambda: Rule(kind, 1.0, on_response=True))),
        Fault(f"{name} cut, undelivered", 2, meet(lambda: Rule(kind, 0.0, cut=True))),
        Fault(f"{name} cut, delivered", 3, meet(lambda: Rule(kind, 0.0, on_response=True, cut=True))),
    ]


FAULTS: Sequence[Fault] = (
    Fault("kill -9", 8, kill),
    Fault("kill -9 of all", 3, kill_all),
    *(
        Fault(f"death before {point}", 4, die_at(point))
        for point in (tracing.CALL, ANSWERED, tracing.BEGIN, tracing.PRODUCE, tracing.FLUSHED, tracing.POSITIONS)
    ),
    Fault("death before commit", 6, die_at(tracing.COMMIT)),
    Fault("death inside commit", 12, die_at(tracing.COMMIT, (0.1, 12.0))),
    Fault("death after commit", 4, die_at(tracing.COMMITTED)),
    Fault("broker stopped", 2, stop_broker),
    Fault("broker kill -9", 3, kill_broker),
    Fault("SIGSTOP 1 s", 3, freeze(1.0)),
    Fault("SIGSTOP past the session", 2, freeze(SESSION_TIMEOUT_MS / 1000 + 1.5)),
    Fault("SIGSTOP and a successor", 3, freeze_and_replace),
    Fault("network apart 2 s", 3, isolate(2.0)),
    Fault("network apart past the session", 3, isolate(SESSION_TIMEOUT_MS / 1000 + 2.0)),
    Fault("death while restoring", 4, die_restoring),
    Fault("restore over an open transaction", 2, restore_over_open),
    Fault("two in one slot", 5, same_slot),
    Fault("a guest", 4, guest),
    Fault("rebalance storm", 2, storm),
    Fault("model hangs 2 s", 4, hang(2.0, 3)),
    Fault("model slower than the poll interval", 2, hang(POLL_INTERVAL_MS_MAX / 1000 + 2.0, 3)),
    Fault("70 % garbage", 3, babble),
    Fault("corrupt records", 4, corrupt),
    Fault("registry kill -9", 1, registry_gone),
    Fault("registry silent", 2, registry_silent),
    Fault("all connections cut", 5, cut_all),
    Fault("EndTxn delayed into the next transaction", 3, meet(lambda: Rule(END_TXN, LATE_S, until=ADD_OFFSETS))),
    *(fault for kind in (END_TXN, ADD_OFFSETS, TXN_OFFSET_COMMIT, PRODUCE) for fault in _proxied(kind)),
)


def deal(seed: int, rounds: int) -> list[Fault]:
    """So many faults: a deck with each as often as its weight, shuffled; the next when it is used up."""
    chance, dealt = random.Random(f"faults/{seed}"), list[Fault]()
    while len(dealt) < rounds:
        deck = [fault for fault in FAULTS for _ in range(fault.weight)]
        chance.shuffle(deck)
        dealt.extend(deck)
    return dealt[:rounds]
