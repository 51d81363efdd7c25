"""The contracts workload: what happens to each customer in the 90 days before the contract ends, as facts.

Days of a customer, counted to the end of the contract: the window opens at -90, signals arrive from -85 to -31, a
product reaches its end of life at -47, outreach is due at -30, who replies does so from -25 to -10, a decision is due
at -7. Customers begin on different days, so that every day of the story brings facts of all kinds.

A reply tells what the customer would pay. It comes whether or not an offer was sent, so that it is a fact from
outside that no decision causes, and a replay under another model meets the same customers. So it names no cause.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5

from driftline.producers.renewals import QUARTER_START, synthetic_renewals, telco_renewals
from driftline.schemas import Event

NAMESPACE = "driftline.contracts"
SOURCE = "crm"
WINDOW_DAYS = 90
"""From the first fact of a customer to the end of the contract."""
SPREAD_DAYS = 30
"""Over so many days the windows of all customers open."""
END_OF_LIFE_DAY, OUTREACH_DAY, DECISION_DAY = -47, -30, -7
SIGNAL_DAYS = range(-85, OUTREACH_DAY)
REPLY_DAYS = range(-25, -9)
SIGNALS_MIN, SIGNALS_MAX = 2, 5
SIGNAL_KINDS = ("usage", "support", "payment")
ENDING_PRODUCT, SUCCESSOR = "dsl-16", "dsl-50"
ENDING_SHARE = 0.5
"""Of the customers with DSL, those who have the product that ends."""
PRODUCTS = {"DSL": SUCCESSOR, "Fiber optic": "fiber-250", "No": "voice"}

_IDS = UUID("3d3ac6a0-4d35-5f0e-9a52-0c7f7b1b6f21")
"""Namespace of the event ids."""


@dataclass(frozen=True, slots=True)
class _Temper:
    """How a customer who stays differs from one who is about to leave."""

    severity: float
    """Mean of the signals' severity."""
    replies: float
    """Probability of a reply."""
    pays: tuple[float, float]
    """Share of today's charges that the customer would pay, lowest and highest."""


STAYS = _Temper(severity=28.0, replies=0.80, pays=(0.78, 1.05))
LEAVES = _Temper(severity=62.0, replies=0.55, pays=(0.55, 0.90))
SEVERITY_DEVIATION = 18.0


@dataclass(frozen=True, slots=True)
class Day:
    """One day of the story."""

    end: datetime
    """Midnight at its end, UTC: what the clock tells when the day's facts are told."""
    facts: Sequence[Event]


def synthetic_contracts(
    customers: int, seed: int, *, start: datetime = QUARTER_START, spread_days: int = SPREAD_DAYS
) -> Iterator[Event]:
    """The facts of so many made-up customers in event-time order; equal arguments, equal events.

    Args:
        customers: How many.
        seed: Of all randomness.
        start: Day on which the first window opens, with a zone.
        spread_days: Over how many days the windows open.

    Raises:
        UsageError: A negative number of customers, a start without a zone, or no day to spread them over.
    """
    opened = synthetic_renewals(customers, seed, start=start, days=spread_days)
    return _story(opened, f"synthetic-{seed}")


def telco_contracts(
    csv_path: Path,
    *,
    limit: int | None = None,
    start: datetime = QUARTER_START,
    spread_days: int = SPREAD_DAYS,
) -> Iterator[Event]:
    """The facts of the customers of the IBM Telco Customer Churn file, otherwise as `synthetic_contracts`.

    Raises:
        BadInput: The file or a row is malformed; names file, line and column.
        UsageError: A start without a zone, or no day to spread them over.
    """
    return _story(telco_renewals(csv_path, start=start, days=spread_days, limit=limit), "telco")


def days_of(facts: Iterable[Event], after: timedelta = timedelta(days=OUTREACH_DAY * -1)) -> Iterator[Day]:
    """Facts in event-time order as whole days (UTC), empty ones too, so that a clock can tick once a day.

    Args:
        facts: In event-time order.
        after: How much longer the clock runs than the facts: what they set going has time to expire.
    """
    end = None
    for date, group in groupby(facts, key=lambda fact: fact.time.astimezone(UTC).date()):
        midnight = datetime(date.year, date.month, date.day, tzinfo=UTC) + timedelta(days=1)
        yield from (Day(each, ()) for each in _midnights(end, midnight - timedelta(days=1)))
        yield Day(midnight, tuple(group))
        end = midnight
    if end is not None:
        yield from (Day(each, ()) for each in _midnights(end, end + after))


def _midnights(after: datetime | None, until: datetime) -> Iterator[datetime]:
    while after is not None and after < until:
        after += timedelta(days=1)
        yield after


def _story(opened: Iterable[Event], population: str) -> Iterator[Event]:
    facts = [fact for event in opened for fact in _facts(event, population)]
    return iter(sorted(facts, key=lambda fact: (fact.time, fact.workflow, fact.record)))


def _facts(opened: Event, population: str) -> Iterator[Event]:
    """The facts of one customer; `opened` tells who that is, and when the window opens."""
    chance = random.Random(f"driftline-contracts/{population}/{opened.workflow}")
    temper = LEAVES if opened.data["churn_signal"] else STAYS
    customer = _customer(opened, chance)
    told: list[tuple[int, str, Mapping[str, Any]]] = [(-WINDOW_DAYS, "WindowOpened", customer)]
    for day in chance.sample(SIGNAL_DAYS, chance.randint(SIGNALS_MIN, SIGNALS_MAX)):
        told.append((day, "SignalReported", _signal(temper, chance)))
    if customer["product"] == ENDING_PRODUCT:
        told.append((END_OF_LIFE_DAY, "ProductEndOfLife", {"product": ENDING_PRODUCT, "successor": SUCCESSOR}))
    told.append((OUTREACH_DAY, "OutreachDue", {"days_left": -OUTREACH_DAY}))
    if chance.random() < temper.replies:
        pays_at_most = round(customer["monthly_charges"] * chance.uniform(*temper.pays), 2)
        told.append((chance.choice(REPLY_DAYS), "CustomerReplied", {"pays_at_most": pays_at_most}))
    told.append((DECISION_DAY, "DecisionDue", {"days_left": -DECISION_DAY}))
    for day, name, data in told:
        yield _event(opened, population, day, name, data)


def _customer(opened: Event, chance: random.Random) -> dict[str, Any]:
    data = opened.data
    ends = data["internet_service"] == "DSL" and chance.random() < ENDING_SHARE
    kept = ("customer_id", "contract", "tenure_months", "monthly_charges", "payment_method")
    return {
        **{name: data[name] for name in kept},
        "product": ENDING_PRODUCT if ends else PRODUCTS[data["internet_service"]],
        "contract_end": (opened.time + timedelta(days=WINDOW_DAYS)).date().isoformat(),
    }


def _signal(temper: _Temper, chance: random.Random) -> dict[str, Any]:
    severity = round(chance.gauss(temper.severity, SEVERITY_DEVIATION))
    return {"kind": chance.choice(SIGNAL_KINDS), "severity": min(max(severity, 0), 100)}


def _event(opened: Event, population: str, day: int, name: str, data: Mapping[str, Any]) -> Event:
    return Event(
        id=str(uuid5(_IDS, f"{population}/{opened.workflow}/{opened.time.isoformat()}/{name}/{day}")),
        type=_stream(name),
        source=SOURCE,
        workflow=opened.workflow,
        time=opened.time + timedelta(days=WINDOW_DAYS + day),
        record=f"{NAMESPACE}.{name}",
        data=data,
    )


def _stream(name: str) -> str:
    """`SignalReported` is of the stream `signal-reported`."""
    return "".join(f"-{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("-")
