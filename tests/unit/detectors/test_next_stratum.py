from collections.abc import Callable
from math import inf, log
from statistics import median

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from driftline.detectors import BettingEProcess, Standing, e_bh, global_e_value, next_stratum

ALPHA = 0.05
PLANNED = 300
Choose = Callable[[dict[str, Standing], int], str | None]

Standings = st.dictionaries(
    st.text(max_size=3),
    st.builds(Standing, st.floats(-3, 9), st.integers(0, 50), st.integers(0, 2), st.booleans()),
    max_size=8,
)


def round_robin(standings: dict[str, Standing], seed: int) -> str | None:
    left = [(standing.events, name) for name, standing in standings.items() if standing.left]
    return min(left)[1] if left else None


class Run:
    """Signed e-processes of several strata, one of which may have changed, read in the order of a rule."""

    def __init__(self, strata: int, planned: int, changed: str | None, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.processes = {f"s{number}": BettingEProcess() for number in range(strata)}
        self.logs = dict.fromkeys(self.processes, 0.0)
        self.planned, self.changed, self.seed = planned, changed, seed

    def step(self, choose: Choose) -> bool:
        """Read one event; False when none is left."""
        standings = {
            name: Standing(self.logs[name], process.n, self.planned - process.n)
            for name, process in self.processes.items()
        }
        name = choose(standings, self.seed)
        if name is None:
            return False
        discordant, up = (0.5, 0.9) if name == self.changed else (0.1, 0.5)
        drawn = self.rng.random()
        self.processes[name].update(1.0 if drawn < discordant * up else -1.0 if drawn < discordant else 0.0)
        self.logs[name] = self.processes[name].log_e_value
        return True

    def named(self) -> list[str]:
        if max(self.logs.values()) < log(1 / ALPHA):
            return []
        names = list(self.logs)
        return [names[index] for index in e_bh([self.processes[name].e_value for name in names], ALPHA)]


def events_until_named(choose: Choose, seed: int) -> float:
    run, events = Run(20, PLANNED, f"s{seed % 20}", seed), 0
    while run.step(choose):
        events += 1
        if run.changed in run.named():
            return events
    return inf


def test_one_changed_stratum_of_twenty_is_named_with_less_than_half_the_events_of_round_robin() -> None:
    chosen = [events_until_named(next_stratum, seed) for seed in range(20)]
    in_turn = [events_until_named(round_robin, seed) for seed in range(20)]
    assert median(chosen) < median(in_turn) / 2


def test_with_nothing_changed_false_alarms_stay_at_the_nominal_rate_when_peeked_at_always() -> None:
    paths, named, alarmed = 150, 0, 0
    for seed in range(paths):
        run, any_named, any_alarm = Run(6, 40, None, 1000 + seed), False, False
        while run.step(next_stratum):
            any_named = any_named or bool(run.named())
            any_alarm = any_alarm or global_e_value([p.e_value for p in run.processes.values()]) >= 1 / ALPHA
        named, alarmed = named + any_named, alarmed + any_alarm
    assert named <= binom.ppf(0.999, paths, ALPHA)
    assert alarmed <= binom.ppf(0.999, paths, ALPHA)


@settings(deadline=None)
@given(Standings, st.integers(0, 3), st.randoms(use_true_random=False))
def test_the_order_in_which_strata_are_stored_does_not_matter(
    standings: dict[str, Standing], seed: int, random: object
) -> None:
    names = list(standings)
    random.shuffle(names)  # type: ignore[attr-defined]
    assert next_stratum({name: standings[name] for name in names}, seed) == next_stratum(standings, seed)


@settings(deadline=None)
@given(Standings)
def test_only_a_stratum_that_is_open_is_chosen_and_one_is_as_long_as_there_is_any(
    standings: dict[str, Standing],
) -> None:
    chosen = next_stratum(standings, seed=1)
    open_names = {name for name, standing in standings.items() if standing.left and not standing.settled}
    assert (chosen in open_names) if open_names else (chosen is None)


def test_ties_are_broken_by_the_seed_and_not_by_the_name() -> None:
    standings = {f"s{number}": Standing(0.0, 0, 5) for number in range(20)}
    assert len({next_stratum(standings, seed) for seed in range(30)}) > 5


def test_more_evidence_from_as_many_events_is_preferred_and_what_is_hardly_known_comes_next() -> None:
    assert next_stratum({"a": Standing(2.0, 20, 5), "b": Standing(-1.0, 20, 5)}, seed=1) == "a"
    assert next_stratum({"a": Standing(-1.0, 50, 5), "b": Standing(-1.0, 500, 5), "c": Standing(0.0, 0, 5)}, 1) == "c"


def test_a_stratum_that_began_badly_is_still_read_while_another_grows_slowly() -> None:
    events = dict.fromkeys(["grows", "sleeps"], 0)
    for _ in range(3000):
        standings = {
            "grows": Standing(0.02 * events["grows"], events["grows"], 1),
            "sleeps": Standing(-0.1 * min(events["sleeps"], 5), events["sleeps"], 1),
        }
        chosen = next_stratum(standings, seed=1)
        assert chosen is not None
        events[chosen] += 1
    assert 30 < events["sleeps"] < 300
