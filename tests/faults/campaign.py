"""The faults campaign: real processes on a real Kafka, one fault a round, and every input decided exactly once.

    python -m tests.faults.campaign [--rounds N] [--seed S] [--rivals N] [--json FILE]

Exits 1 on any violation, and when a control was not caught.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from tests.faults.checker import Report, longest_gap
from tests.faults.controls import Control, run_controls
from tests.faults.faults import Fault, Scene, deal
from tests.faults.load import Load, Raw
from tests.faults.machine_checker import MachineReport
from tests.faults.race import great_race
from tests.faults.stand import Ground, Stand
from tests.faults.tracing import Traced, hit_inside

ROUNDS = 200
EVENTS = 200
"""Renewals a round."""
LOAD_S = 1.5
"""Over which they are published."""
FAULT_S_MAX = 1.0
"""Into the load at which the fault happens, at most."""
SETTLE_S_MAX = 90.0
"""After a round; beyond every timeout of broker, client and runtime together."""
RIVALS = 10_000
"""Of the race for the rows of a state machine that follows the rounds."""
RACE_FAULTS = 20
MUTATED = 20
"""Records of which every byte is changed once."""


@dataclass(frozen=True)
class Round:
    """One round."""

    number: int
    fault: str
    seconds: float
    gap_s: float
    """Longest time without a decision."""
    unsettled: str
    """What was not done when the time was up; empty where all was."""
    violations: Sequence[str]
    """New in this round."""


@dataclass
class Figures:
    """What a campaign comes to."""

    seed: int
    rounds: list[Round] = field(default_factory=list)
    report: Report | None = None
    mutations: int = 0
    kills: int = 0
    exits: dict[int, int] = field(default_factory=dict)
    """Exit codes of workers, kills left out."""
    last_words: dict[str, int] = field(default_factory=dict)
    inside: int = 0
    """Faults that hit while a transaction was open."""
    calls_made: int = 0
    controls: Sequence[Control] = ()
    race: MachineReport | None = None
    """What came of the race; None where there was none."""
    race_unsettled: str = ""
    seconds: float = 0.0

    @property
    def failures(self) -> list[str]:
        """Why the campaign has failed; empty where it has not."""
        broken = [str(violation) for violation in self.report.violations] if self.report else ["nothing was checked"]
        stuck = [f"round {r.number} ({r.fault}): not settled: {r.unsettled}" for r in self.rounds if r.unsettled]
        missed = [f"control not as expected: {c.name}" for c in self.controls if not c.as_expected]
        raced = [str(violation) for violation in self.race.violations] if self.race else []
        late = [f"the race: not settled: {self.race_unsettled}"] if self.race_unsettled else []
        return [*broken, *stuck, *missed, *raced, *late]


class Campaign:
    """Rounds on one stand.

    Args:
        stand: Where.
        seed: Of faults, moments and load.
        say: Told one line a round.
        events: Renewals a round.
    """

    def __init__(self, stand: Stand, seed: int, say: Callable[[str], None], events: int = EVENTS) -> None:
        self.figures = Figures(seed)
        self._stand = stand
        self._say = say
        self._load = Load(stand.app.name, stand.settings, events, LOAD_S)
        self._raw = Raw(stand.app.name, stand.settings)
        self._marks: list[float] = []
        self._known: set[str] = set()

    def run(self, faults: Sequence[Fault], mutated: int) -> Figures:
        """One round a fault; one more of mutations. It ends early when a round does not settle."""
        self._stand.fleet.start()
        for number, fault in enumerate(self._with_mutations(faults, mutated), 1):
            done = self._round(number, fault)
            self.figures.rounds.append(done)
            self._say(_line(done))
            if done.unsettled:
                break
        return self._sum_up()

    def close(self) -> None:
        """End the load."""
        self._load.close()

    def _with_mutations(self, faults: Sequence[Fault], mutated: int) -> list[Fault]:
        def mutate(scene: Scene) -> None:
            self.figures.mutations = scene.raw.put(scene.raw.mutations(mutated, scene.chance))

        extra = [Fault(f"every byte of {mutated} records changed", 1, mutate)] if mutated else []
        return [*extra, *faults]

    def _round(self, number: int, fault: Fault) -> Round:
        began, decided = time.monotonic(), len(self._stand.seen.decisions)
        chance = random.Random(f"{self.figures.seed}/{number}")
        scene = Scene(self._stand, self._raw, chance)
        publishing = self._load.begin(number, chance)
        time.sleep(chance.uniform(0.05, FAULT_S_MAX))
        fault.happen(scene)
        publishing.join()
        unsettled = self._stand.settle(SETTLE_S_MAX)
        self.figures.report = report = self._stand.report()
        self._marks.extend(scene.marks)
        new = [str(violation) for violation in report.violations if str(violation) not in self._known]
        self._known.update(new)
        gap_s = longest_gap(one.decided_at for one in self._stand.seen.decisions[decided:])
        return Round(number, fault.name, time.monotonic() - began, gap_s, unsettled, new)

    def _sum_up(self) -> Figures:
        """Once more, since a repeat of the last round may come after its check."""
        self._stand.settle(SETTLE_S_MAX)
        self.figures.report = self._stand.report()
        figures, fleet, traces = self.figures, self._stand.fleet, self._stand.traces
        traced = traces.transactions()
        figures.kills = sum(times for code, times in fleet.exits.items() if code < 0)
        figures.exits = {code: times for code, times in fleet.exits.items() if code >= 0}
        figures.last_words = dict(fleet.last_words)
        figures.inside = faults_inside(traced, self._marks)
        figures.calls_made = traces.calls
        return figures


def faults_inside(traced: Sequence[Traced], marks: Sequence[float]) -> int:
    """Faults that hit an open transaction: processes that did not live to see its end, and moments within one."""
    ended = [one for one in traced if one.ended is not None]
    return len(traced) - len(ended) + sum(hit_inside(ended, mark) for mark in marks)


def run(
    home: Path,
    rounds: int,
    seed: int,
    say: Callable[[str], None],
    mutated: int = MUTATED,
    controls: bool = True,
    faults: Sequence[Fault] | None = None,
    rivals: int = 0,
) -> Figures:
    """The whole campaign in an empty folder, with its controls and, where there are rivals, their race."""
    began = time.monotonic()
    with Ground(home) as ground:
        stand = Stand(ground, "campaign", random.Random(f"fleet/{seed}"))
        campaign = Campaign(stand, seed, say)
        try:
            figures = campaign.run(deal(seed, rounds) if faults is None else faults, mutated)
        finally:
            campaign.close()
            stand.close()
        if controls:
            figures.controls = run_controls(ground, seed)
        if rivals:
            figures.race_unsettled, figures.race = great_race(ground, rivals, RACE_FAULTS, seed, say)
        figures.seconds = time.monotonic() - began
        return figures


def _line(done: Round) -> str:
    told = [f"not settled: {done.unsettled}"] if done.unsettled else []
    head = f"{done.number:4}  {done.seconds:5.1f} s  gap {done.gap_s:5.1f} s  {done.fault}"
    return "\n      ".join([head, *told, *done.violations])


def table(figures: Figures) -> Table:
    """The figures for people."""
    report = figures.report
    assert report is not None
    made = Table("faults campaign", "", title=None)
    rows: list[tuple[str, Any]] = [
        ("rounds", len(figures.rounds)),
        ("seed", figures.seed),
        ("minutes", f"{figures.seconds / 60:.1f}"),
        ("input events", report.inputs),
        ("one-byte mutations among them", figures.mutations),
        ("decided / dead / folded only", f"{report.decided} / {report.dead} / {report.folded}"),
        ("kills", figures.kills),
        ("workers that gave up and were started again", sum(figures.exits.values())),
        ("faults inside a transaction", figures.inside),
        ("aborted records on the log / visible", f"{report.aborted} / {report.aborted_visible}"),
        ("lost", report.lost),
        ("repeated", report.repeated),
        ("reordered", report.reordered),
        ("model calls made / needed", f"{figures.calls_made} / {report.calls_needed}"),
        ("longest gap between decisions in a round", f"{max(r.gap_s for r in figures.rounds):.1f} s"),
        *((f"control: {c.name}", f"caught: {'yes' if c.violations else 'no'}") for c in figures.controls),
    ]
    if (race := figures.race) is not None:
        rows += [
            ("race: requests accepted / refused", f"{race.accepted} / {race.rejected}"),
            ("race: timers that moved a row / void", f"{race.fired} / {race.void}"),
            ("race: version of the row most raced for", race.versions_max),
        ]
    for name, value in rows:
        made.add_row(name, str(value))
    return made


def to_json(figures: Figures) -> str:
    """The figures for machines."""
    return json.dumps({**asdict(figures), "failures": figures.failures}, indent=2)


def main(arguments: Sequence[str]) -> int:
    """Run what the command line asks for; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.campaign", description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--mutate", type=int, default=MUTATED, help="records of which every byte is changed once")
    parser.add_argument(
        "--rivals", type=int, default=RIVALS, help="who race for the rows of a state machine; 0: none"
    )
    parser.add_argument("--only", default="", help="draw only faults whose name contains this")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args(arguments)
    console = Console()
    home = Path(tempfile.mkdtemp(prefix="driftline-faults-"))
    faults = [fault for fault in deal(given.seed, 50 * given.rounds) if given.only in fault.name][: given.rounds]
    figures = run(home, given.rounds, given.seed, console.out, given.mutate, faults=faults, rivals=given.rivals)
    if given.json:
        given.json.write_text(to_json(figures))
    console.print(table(figures))
    for failure in figures.failures:
        console.out(failure)
    if figures.failures:
        console.out(f"what the workers noted is in {home}")
        return 1
    shutil.rmtree(home)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
