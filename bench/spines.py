"""Does the state-machine spine (P5) help? The same customers, app and model on both spines, asked and lived again.

    python bench/spines.py [--customers 300] [--trials 10] [--seed 7] [--json]

The contracts app lives the same facts in memory on the event log (P3) and on the state machine (P5), with the
incumbent of the simulator. Then every decision is asked again in its recorded context (*forced*: its first answer,
and the state that this leaves the customer in), and every customer is lived again from the facts alone (*free*), as
often as there are trials: by the incumbent itself (A/A) and by each other version. Each measure is one figure a
customer (one with many decisions counts as one with few), its mean over customers, and a betting interval over
customers: what happens to one customer is one draw, however many decisions it holds. The last column is what counts:
P5 less P3 of the same customer; `*` where 0 lies outside.

`pass^k` (Yao et al. 2024, tau-bench): the chance that k independent trials of a customer all succeed, C(c, k)/C(n, k)
of c successes in n trials. A trial succeeds, alike on both spines, where it ends closed, expired or with a person,
where nothing was committed that the life of a contract does not allow, and where state and outcome at the end are
those of an analyst without a fault, who follows the rules of the prompts. A case that goes to a person though the
rule would have closed it is no success. *Beyond A/A* is a version's figure less the incumbent's, customer by
customer: what is left of a divergence that the model's own noise does not explain.

The result tells what each spine makes of the same fallible analyst: how alike its lives come out, and how many of its
faults become ends. What it cannot mean:

- How often a model is tempted to a second offer, or heeds `legal`, is given (the table of
  `driftline.consumers.models.sim`), not found. Real models have other rates, and so other differences.
- That P5 commits nothing out of turn holds by construction: its verifier knows the table that is counted by here.
  `fails, nothing out of turn` is what fails otherwise; of P3 it is a lower bound, for a trial that is out of turn
  and would have failed anyhow is not in it.
- P5 asks less: nobody is asked of a case that is settled. So its decisions are others than P3's; one row compares
  those alone that both took.
- Nothing makes actions diverge less: a discount that strays does so on either spine.
- Which part of a difference is the verifier's, which the word `legal` in the prompt's, and which is due to what is
  not asked at all, is not told apart.
- The spines' draws are independent: a pair shares the customer and the facts, not the luck.
- The intervals hold one by one, not all at once: of some ninety rows a few may exclude 0 by chance.
- There is one partition, and a day's facts come before what they lead to: what lag costs P3 under load, and what
  refused transitions cost people on P5, is not in it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import comb
from pathlib import Path
from time import perf_counter
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
from bench.kit.lives import Again, End, Faultless, Lives, Reply, Trial, live
from numpy.typing import NDArray

from driftline.consumers.models.sim import CONTRACT_VERSIONS
from driftline.detectors import betting_interval
from driftline.examples.contracts.app import app as event_log_app
from driftline.examples.contracts.app import state_machine_app
from driftline.producers.contracts import Day, days_of, synthetic_contracts
from driftline.replay.testing import OwnModels

SPINES = {"P3": event_log_app, "P5": state_machine_app}
INCUMBENT = event_log_app.boundaries[0].proposer
VERSIONS = [INCUMBENT, *(f"sim/{name}" for name in CONTRACT_VERSIONS if f"sim/{name}" != INCUMBENT)]
PASS_MAX = 5
ACTION, COMMON, VERDICT, STATE = (
    "forced: another action",
    "forced: another action, both decided",
    "forced: another verdict",
    "forced: another state",
)
DEPARTS, ROW, END, RULE, BROKEN, WRONG = (
    "free: departs",
    "free: another last row",
    "free: another end (state, outcome)",
    "free: an end that is not the rule's",
    "free: something out of turn",
    "free: fails, nothing out of turn",
)
ILLEGAL, CALLS = "free: out of turn, of 1,000 decisions", "free: model calls a customer"
PASS = {k: f"pass^{k}" for k in range(1, PASS_MAX + 1)}
BEYOND = (ACTION, VERDICT, STATE, DEPARTS, ROW, END, PASS[1])
NAME_WIDTH, FIGURE_WIDTH = 50, 24
STARTED = perf_counter()

Values = NDArray[np.float64]
"""One figure a customer, customers by name."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A mean over customers, and its interval."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Values, bounds: tuple[float, float]) -> Figure:
        """The figure of values that lie within bounds, whatever comes out."""
        low, high = betting_interval(values, bounds=bounds, running=False)
        return cls(float(values.mean()), low, high)

    def overlaps(self, other: Figure) -> bool:
        """Whether the intervals have a point in common."""
        return max(self.low, other.low) <= min(self.high, other.high)


@dataclass(frozen=True, slots=True)
class Row:
    """One measure of one version on both spines."""

    version: str
    measure: str
    p3: Figure
    p5: Figure
    overlap: bool
    paired: Figure
    """P5 less P3, customer by customer."""


@dataclass(frozen=True)
class Scene:
    """Both spines with the same customers behind them.

    Attributes:
        lives: By spine.
        wanted: The end that the rule gives each customer; None where it gives another on either spine.
        calls_max: Of one customer, as the facts and the attempts of a boundary have it.
    """

    lives: Mapping[str, Lives]
    wanted: Mapping[str, End | None]
    calls_max: int
    seed: int


def told(progress: str) -> None:
    print(f"{perf_counter() - STARTED:5.0f} s  {progress}", file=sys.stderr)


async def scene_of(days: Sequence[Day], seed: int) -> Scene:
    """Live the days on both spines, with the incumbent and without a fault."""
    lives, ends = {}, []
    for name, app in SPINES.items():
        told(f"{name}: {sum(len(day.facts) for day in days)} facts of {len(days)} days")
        lives[name] = Lives(app, await live(app, days, OwnModels(), seed), seed)
        ruled = Lives(app, await live(app, days, Faultless(), seed), seed)
        ends.append({one.name: ruled.logged(one).end for one in ruled.workflows})
    wanted = {name: end if ends[1].get(name) == end else None for name, end in ends[0].items()}
    asked = Counter(fact.workflow for day in days for fact in day.facts if fact.type in event_log_app.by_stream)
    attempts = max(boundary.max_attempts for boundary in event_log_app.boundaries)
    return Scene(lives, wanted, max(asked.values()) * attempts, seed)


async def measured(scene: Scene, spine: str, version: str, trials: int) -> dict[str, Values]:
    """What a version makes of every customer on a spine."""
    lives = scene.lives[spine]
    proposers = [Again(version, trial, scene.seed) for trial in range(trials)]
    common = frozenset.intersection(*(decided_facts(each) for each in scene.lives.values()))
    found: dict[str, list[float]] = {}
    for workflow in lives.workflows:
        replies = [one for proposer in proposers for one in await lives.forced(workflow, proposer)]
        again = [await lives.free(workflow, proposer) for proposer in proposers]
        then = lives.logged(workflow).end
        measures = {**forced(replies, common), **free(again, then, scene.wanted[workflow.name])}
        for name, value in measures.items():
            found.setdefault(name, []).append(value)
    told(f"{spine}: {version}, {trials} trials")
    return {name: np.array(values) for name, values in found.items()}


def decided_facts(lives: Lives) -> frozenset[str]:
    """Ids of the facts that were decided on a spine."""
    return frozenset(one.decision.input.event_id for workflow in lives.workflows for one in workflow.decisions)


def forced(replies: Sequence[Reply], common: frozenset[str]) -> dict[str, float]:
    """Shares of one customer's answers that differ from the logged ones."""
    return {
        ACTION: share(one.action for one in replies),
        COMMON: share(one.action for one in replies if one.fact in common),
        VERDICT: share(one.verdict for one in replies),
        STATE: share(one.state for one in replies),
    }


def free(trials: Sequence[Trial], then: End, wanted: End | None) -> dict[str, float]:
    """Shares of one customer's trials, and the estimates of pass^k."""
    succeeded, n = sum(trial.succeeded(wanted) for trial in trials), len(trials)
    return {
        DEPARTS: share(trial.departed for trial in trials),
        ROW: share(trial.row_changed for trial in trials),
        END: share(trial.end != then for trial in trials),
        RULE: share(wanted not in (None, trial.end) for trial in trials),
        BROKEN: share(trial.illegal > 0 for trial in trials),
        WRONG: share(not trial.illegal and not trial.succeeded(wanted) for trial in trials),
        **{name: comb(succeeded, k) / comb(n, k) for k, name in PASS.items()},
        ILLEGAL: 1000 * sum(trial.illegal for trial in trials) / sum(trial.decisions for trial in trials),
        CALLS: sum(trial.calls for trial in trials) / n,
    }


def share(values: Iterator[bool]) -> float:
    """The share that is true; 0 of none."""
    known = list(values)
    return sum(known) / len(known) if known else 0.0


def rows_of(scene: Scene, by_version: Mapping[str, Mapping[str, Mapping[str, Values]]]) -> list[Row]:
    """Every measure of every version, then what of it is beyond A/A; `by_version` is version → spine → measure."""
    tops = {ILLEGAL: 1000.0, CALLS: float(scene.calls_max)}
    rows = []
    for version, spines in by_version.items():
        p3, p5 = spines["P3"], spines["P5"]
        rows += [row(version, name, p3[name], p5[name], (0.0, tops.get(name, 1.0))) for name in p3]
        if version != INCUMBENT:
            floor = by_version[INCUMBENT]
            for name in BEYOND:
                excess = (p3[name] - floor["P3"][name], p5[name] - floor["P5"][name])
                rows.append(row(version, f"beyond A/A, {name}", *excess, (-1.0, 1.0)))
    return rows


def row(version: str, measure: str, p3: Values, p5: Values, bounds: tuple[float, float]) -> Row:
    one, other = Figure.of(p3, bounds), Figure.of(p5, bounds)
    width = bounds[1] - bounds[0]
    return Row(version, measure, one, other, one.overlaps(other), Figure.of(p5 - p3, (-width, width)))


def on_the_log(lives: Lives) -> dict[str, Any]:
    """What the incumbent did when the facts came."""
    trials = [lives.logged(workflow) for workflow in lives.workflows]
    ends = Counter(" ".join(part for part in trial.end if part) for trial in trials)
    totals = {name: sum(getattr(trial, name) for trial in trials) for name in ("decisions", "calls", "illegal")}
    return {**totals, "ends": dict(sorted(ends.items()))}


def run(customers: int, trials: int, seed: int) -> dict[str, Any]:
    """The whole comparison, as JSON data; equal arguments, equal data."""
    return asyncio.run(_run(customers, trials, seed))


async def _run(customers: int, trials: int, seed: int) -> dict[str, Any]:
    scene = await scene_of(list(days_of(synthetic_contracts(customers, seed))), seed)
    by_version = {
        version: {spine: await measured(scene, spine, version, trials) for spine in SPINES} for version in VERSIONS
    }
    return {
        "customers": customers,
        "trials": trials,
        "seed": seed,
        "rule_gives_an_end": sum(end is not None for end in scene.wanted.values()),
        "log": {spine: on_the_log(lives) for spine, lives in scene.lives.items()},
        "rows": [asdict(one) for one in rows_of(scene, by_version)],
    }


def table(data: Mapping[str, Any]) -> Iterator[str]:
    """The data as lines to print."""
    yield f"{data['customers']} customers, {data['trials']} trials of each, seed {data['seed']}"
    yield f"the rule gives {data['rule_gives_an_end']} of them an end, the same on both spines"
    for spine, log in data["log"].items():
        ends = ", ".join(f"{count} {end}" for end, count in log["ends"].items())
        yield f"{spine} on the log: {log['decisions']} decisions, {log['calls']} calls, {log['illegal']} out of turn"
        yield f"   ends: {ends}"
    version = None
    for one in data["rows"]:
        if one["version"] != version:
            version = one["version"]
            asked = f"{version}, asked again (A/A)" if version == INCUMBENT else version
            yield ""
            yield (
                f"{asked:<{NAME_WIDTH}}"
                + "".join(f"{head:<{FIGURE_WIDTH}}" for head in ("P3", "P5"))
                + (f"{'overlap':<9}P5 - P3 by customer")
            )
        yield line(one)


def line(one: Mapping[str, Any]) -> str:
    scaled = one["measure"] in (ILLEGAL, CALLS)
    p3, p5, paired = (cell(one[name], scaled) for name in ("p3", "p5", "paired"))
    star = "" if one["paired"]["low"] <= 0 <= one["paired"]["high"] else " *"
    overlap = "yes" if one["overlap"] else "no"
    return f"  {one['measure']:<{NAME_WIDTH - 2}}{p3:<{FIGURE_WIDTH}}{p5:<{FIGURE_WIDTH}}{overlap:<9}{paired}{star}"


def cell(figure: Mapping[str, float], scaled: bool) -> str:
    """Percent, or points of them; numbers as they are where they are no shares."""
    mean, low, high = (figure[name] * (1 if scaled else 100) for name in ("mean", "low", "high"))
    return f"{mean:.2f} [{low:.2f}, {high:.2f}]" if scaled else f"{mean:.1f} % [{low:.1f}, {high:.1f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--customers", type=int, default=300)
    parser.add_argument("--trials", type=int, default=10, help=f"of each customer and version, {PASS_MAX} or more")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--json", action="store_true", help="print the data instead of the table")
    given = parser.parse_args()
    if given.trials < PASS_MAX or given.customers < 1:
        parser.error(f"give at least one customer and {PASS_MAX} trials, which pass^{PASS_MAX} takes")
    data = run(given.customers, given.trials, given.seed)
    print(json.dumps(data, indent=2) if given.json else "\n".join(table(data)))


if __name__ == "__main__":
    main()
