"""Each version of the simulator differs from the incumbent as its table says, and in nothing else.

Seeds are fixed, so a test that passes always passes; bounds lie at four standard errors.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from statistics import fmean, pstdev
from typing import Any

import pytest

from driftline.consumers.models.answers import ProviderCall
from driftline.consumers.models.sim import answer_sim
from driftline.consumers.proposing import CallKey
from driftline.producers.renewals import synthetic_renewals

EVENTS = tuple(synthetic_renewals(6000, 20260701))
NOT_JSON = ("not json",)
Action = tuple[Any, ...]


@cache
def texts(version: str, arm: str, ceiling: int = 30) -> tuple[str, ...]:
    return asyncio.run(_texts(version, arm, ceiling))


async def _texts(version: str, arm: str, ceiling: int) -> tuple[str, ...]:
    system = {"role": "system", "content": f"at most {ceiling} %"}
    calls = (
        ProviderCall(
            version,
            (system, {"role": "user", "content": json.dumps(dict(event.data))}),
            CallKey(event.id, event.workflow, arm=arm),
            {},
            60.0,
        )
        for event in EVENTS
    )
    return tuple([(await answer_sim(call)).text or "" for call in calls])


def parsed(text: str) -> dict[str, Any] | None:
    try:
        value: dict[str, Any] = json.loads(text)
    except ValueError:
        return None
    return value


def action(text: str) -> Action:
    value = parsed(text)
    if value is None:
        return NOT_JSON
    return (value["type"], *sorted((name, term) for name, term in value["payload"].items() if name != "rationale"))


def actions(version: str, arm: str, ceiling: int = 30) -> Sequence[Action]:
    return [action(unfenced(text)) for text in texts(version, arm, ceiling)]


def unfenced(text: str) -> str:
    return text.removeprefix("```json\n").removesuffix("\n```")


def disagreement(one: Sequence[Any], other: Sequence[Any]) -> float:
    return fmean(a != b for a, b in zip(one, other, strict=True))


def discounts(version: str, arm: str, which: Callable[[str], bool], ceiling: int = 30) -> list[float]:
    return [
        dict(decided[1:])["discount_pct"]
        for event, decided in zip(EVENTS, actions(version, arm, ceiling), strict=True)
        if decided[0].endswith("WithOffer") and which(event.data["contract"])
    ]


def any_contract(_contract: str) -> bool:
    return True


def within(seen: float, expected: float, samples: int, errors: float = 4.0) -> bool:
    return abs(seen - expected) < errors * math.sqrt(expected * (1 - expected) / samples)


def test_the_incumbent_disagrees_with_itself_as_a_model_does() -> None:
    floor = disagreement(actions("renewals", "log"), actions("renewals", "baseline"))
    assert 0.11 < floor < 0.16
    types = [[each[0] for each in actions("renewals", arm)] for arm in ("log", "baseline")]
    assert 0.06 < disagreement(*types) < 0.10


def test_the_incumbents_rates_are_those_of_its_table() -> None:
    decided = actions("renewals", "log")
    assert within(fmean(each == NOT_JSON for each in decided), 0.01, len(decided))
    given = discounts("renewals", "log", any_contract)
    assert within(fmean(each > 30 for each in given), 0.04, len(given))


@pytest.mark.parametrize("version", ["renewals-fenced", "renewals-reworded", "renewals-inflated", "renewals-noisier"])
def test_no_version_shares_the_incumbents_draws(version: str) -> None:
    """Equal draws would show as less disagreement than the incumbent has with itself."""
    floor = disagreement(actions("renewals", "log"), actions("renewals", "baseline"))
    seen = disagreement(actions("renewals", "log"), actions(version, "log"))
    assert seen > floor - 4 * math.sqrt(2 * floor * (1 - floor) / len(EVENTS))


def test_inflated_gives_two_year_contracts_twelve_points_more_and_others_nothing() -> None:
    def two_year(contract: str) -> bool:
        return contract == "Two year"

    def other(contract: str) -> bool:
        return contract != "Two year"

    more = fmean(discounts("renewals-inflated", "log", two_year)) - fmean(discounts("renewals", "log", two_year))
    assert 10.5 < more < 13.5
    assert 0.4 < fmean(each > 30 for each in discounts("renewals-inflated", "log", two_year)) < 0.65
    assert abs(fmean(discounts("renewals-inflated", "log", other)) - fmean(discounts("renewals", "log", other))) < 0.8
    assert shares_agree("renewals-inflated")


def test_fenced_wraps_two_thirds_and_decides_the_same() -> None:
    given = texts("renewals-fenced", "log")
    wrapped = [text for text in given if text.startswith("```json\n")]
    assert within(len(wrapped) / len(given), 2 / 3 * 0.99, len(given))
    assert shares_agree("renewals-fenced")
    floor = disagreement(actions("renewals", "log"), actions("renewals", "baseline"))
    assert abs(disagreement(actions("renewals", "log"), actions("renewals-fenced", "log")) - floor) < 0.025


def test_reworded_shares_no_rationale_and_all_else() -> None:
    assert rationales("renewals").isdisjoint(rationales("renewals-reworded"))
    assert shares_agree("renewals-reworded")
    floor = disagreement(actions("renewals", "log"), actions("renewals", "baseline"))
    assert abs(disagreement(actions("renewals", "log"), actions("renewals-reworded", "log")) - floor) < 0.025


def rationales(version: str) -> set[str]:
    return {value["payload"]["rationale"] for text in texts(version, "log") if (value := parsed(text))}


def test_noisier_strays_further_about_the_same_means() -> None:
    assert shares_agree("renewals-noisier")
    floor = disagreement(actions("renewals", "log"), actions("renewals", "baseline"))
    assert disagreement(actions("renewals-noisier", "log"), actions("renewals-noisier", "baseline")) > floor + 0.03
    incumbent, noisier = (discounts(version, "log", any_contract) for version in ("renewals", "renewals-noisier"))
    assert abs(fmean(incumbent) - fmean(noisier)) < 4 * pstdev(incumbent) * math.sqrt(2 / len(incumbent))
    assert spread_about_standing("renewals-noisier") > 1.6 * spread_about_standing("renewals")


def spread_about_standing(version: str) -> float:
    """How far the discounts that keep the ceiling stray from one run to the next."""
    pairs = zip(actions(version, "log"), actions(version, "baseline"), strict=True)
    offers = [
        (float(dict(one[1:])["discount_pct"]), float(dict(other[1:])["discount_pct"]))
        for one, other in pairs
        if one[0].endswith("WithOffer") and other[0].endswith("WithOffer")
    ]
    return pstdev([one - other for one, other in offers if max(one, other) <= 30])


def shares_agree(version: str) -> bool:
    """Whether the version decides for each action as often as the incumbent does."""
    incumbent, candidate = (Counter(each[0] for each in actions(arm, "log")) for arm in ("renewals", version))
    return all(
        abs(incumbent[name] - candidate[name]) < 4 * math.sqrt(2 * max(incumbent[name], 1))
        for name in incumbent | candidate
    )


def test_a_prompt_with_a_lower_ceiling_lowers_the_discounts_and_nothing_else() -> None:
    high, low = (discounts("renewals", "log", any_contract, ceiling) for ceiling in (30, 20))
    assert 0.8 < fmean(high) - fmean(low) < 2.0
    assert [each[0] for each in actions("renewals", "log", 20)] == [
        each[0] for each in actions("renewals", "log", 30)
    ]
