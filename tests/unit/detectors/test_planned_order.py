from collections import Counter
from itertools import groupby, permutations

from hypothesis import given
from hypothesis import strategies as st

from driftline.detectors import planned_order

Workflows = st.lists(st.text(max_size=3), max_size=30)
Seeds = st.integers(0, 2**64)


def as_fed(workflows: list[str], seed: int) -> list[tuple[str, int]]:
    """The evidence in the order fed, each record as (workflow, how many of that workflow the log has before it)."""
    seen: Counter[str] = Counter()
    place = []
    for name in workflows:
        place.append((name, seen[name]))
        seen[name] += 1
    return [place[index] for index in planned_order(workflows, seed)]


@given(Workflows, Seeds)
def test_every_record_is_fed_exactly_once(workflows: list[str], seed: int) -> None:
    assert sorted(planned_order(workflows, seed)) == list(range(len(workflows)))


@given(Workflows, Seeds)
def test_a_workflow_is_fed_whole_and_in_log_order(workflows: list[str], seed: int) -> None:
    fed = as_fed(workflows, seed)
    runs = [(name, [place for _, place in run]) for name, run in groupby(fed, key=lambda item: item[0])]
    assert [name for name, _ in runs] == list(dict.fromkeys(name for name, _ in runs))
    assert all(places == list(range(len(places))) for _, places in runs)


@given(Workflows, Seeds, st.randoms())
def test_where_records_are_stored_does_not_matter(workflows: list[str], seed: int, random: object) -> None:
    stored = list(workflows)
    random.shuffle(stored)  # type: ignore[attr-defined]
    assert as_fed(stored, seed) == as_fed(workflows, seed)


@given(Workflows, Seeds)
def test_another_workflow_in_the_log_does_not_reorder_the_rest(workflows: list[str], seed: int) -> None:
    fed = as_fed([*workflows, "added"], seed)
    assert [item for item in fed if item[0] != "added"] == as_fed(workflows, seed)


def test_over_seeds_every_order_of_workflows_comes_equally_often() -> None:
    counts = Counter(tuple(planned_order(["a", "b", "c"], seed)) for seed in range(6000))
    assert set(counts) == set(permutations(range(3)))
    assert max(abs(count - 1000) for count in counts.values()) < 4 * (1000 * 5 / 6) ** 0.5


def test_the_order_is_pinned_across_releases() -> None:
    assert planned_order(["w1", "w2", "w1", "w3", "w4"], seed=7) == [3, 1, 0, 2, 4]
