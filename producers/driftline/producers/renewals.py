"""The renewals workload: a simulated quarter in which every customer's contract comes due once.

From the IBM Telco Customer Churn CSV where it is given, else from made-up customers of like proportions.
"""

from __future__ import annotations

import csv
import hashlib
import math
import random
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5

from driftline.schemas import BadInput, Event, UsageError

RECORD = "driftline.renewals.RenewalDue"
SOURCE = "crm"
QUARTER_START = datetime(2026, 7, 1, tzinfo=UTC)
QUARTER_DAYS = 90
NOTICE_DAYS = 30
"""An event comes this long before the contract ends."""

_IDS = UUID("b0f2d4b6-1f0e-5c0b-9d57-6e3f6d1f8a55")
"""Namespace of the event ids."""


def telco_renewals(
    csv_path: Path, *, start: datetime = QUARTER_START, days: int = QUARTER_DAYS, limit: int | None = None
) -> Iterator[Event]:
    """One `RenewalDue` for each row of the telco CSV, in event-time order.

    Args:
        csv_path: The IBM Telco Customer Churn file.
        start: Beginning of the quarter, with a zone.
        days: Its length.
        limit: How many rows of the file to take, from its beginning; all of them by default.

    Raises:
        BadInput: The file or a row is malformed; names file, line and column.
        UsageError: The quarter is none.
    """
    return iter(_quarter(islice(_telco_rows(csv_path), limit), "telco", start, days))


def synthetic_renewals(
    customers: int, seed: int, *, start: datetime = QUARTER_START, days: int = QUARTER_DAYS
) -> Iterator[Event]:
    """One `RenewalDue` for each of so many made-up customers, in event-time order; equal arguments, equal events.

    Contract shares, and by contract the tenure, the charges and the churn, resemble the telco data.

    Raises:
        UsageError: A negative number of customers, or the quarter is none.
    """
    if customers < 0:
        raise UsageError(f"{customers} customers cannot be made up", "give a number from 0")
    rows = (_made_up(number, seed) for number in range(customers))
    return iter(_quarter(rows, f"synthetic-{seed}", start, days))


def projection(row: Mapping[str, Any]) -> str:
    """What the reference implementation of arXiv 2605.20173 makes of a `RenewalDue`.

    One of `renewed`, `renewed_with_offer`, `restructured`, `churned`, `escalated`.
    """
    monthly = row["contract"] == "Month-to-month"
    if row["churn_signal"]:
        return "churned" if monthly else "escalated"
    if row["monthly_charges"] > 95 and monthly:
        return "restructured"
    return "renewed_with_offer" if row["monthly_charges"] > 70 else "renewed"


def stream_of(contract: str) -> str:
    """The event type for a contract: `renewal-due.month-to-month`, `.one-year` or `.two-year`."""
    return f"renewal-due.{contract.lower().replace(' ', '-')}"


def _quarter(rows: Iterable[dict[str, Any]], population: str, start: datetime, days: int) -> list[Event]:
    if start.tzinfo is None:
        raise UsageError(f"the quarter's start {start} has no time zone", "give one, e.g. 2026-07-01T00:00:00Z")
    if days < 1:
        raise UsageError(f"a quarter of {days} days holds nothing", "give at least 1")
    events = [_event(row, population, start.astimezone(UTC), days) for row in rows]
    return sorted(events, key=lambda event: (event.time, event.workflow))


def _event(row: dict[str, Any], population: str, start: datetime, days: int) -> Event:
    customer = row["customer_id"]
    time = start + timedelta(seconds=int(_place(population, customer) * days * 86_400))
    renewal_on = (time + timedelta(days=NOTICE_DAYS)).date().isoformat()
    return Event(
        id=str(uuid5(_IDS, f"{population}/{customer}/{renewal_on}")),
        type=stream_of(row["contract"]),
        source=SOURCE,
        workflow=customer,
        time=time,
        record=RECORD,
        data={**row, "renewal_on": renewal_on},
    )


def _place(population: str, customer: str) -> float:
    """Where in the quarter the customer's contract comes due, in [0, 1)."""
    digest = hashlib.blake2b(f"{population}/{customer}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / (1 << 53)


def _telco_rows(path: Path) -> Iterator[dict[str, Any]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            missing = [column for column, _ in _COLUMNS.values() if column not in (reader.fieldnames or ())]
            if missing:
                raise BadInput(f"{path}:1: {missing[0]}: no such column", "give the IBM Telco Customer Churn CSV")
            for cells in reader:
                yield {name: _cell(cells, name, f"{path}:{reader.line_num}") for name in _COLUMNS}
    except FileNotFoundError:
        raise BadInput(f"no telco file at {path}", "give the path of telco-customer-churn.csv") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadInput(f"{path}: cannot be read: {error}", "give the IBM Telco Customer Churn CSV") from error


def _cell(cells: Mapping[str, str | None], name: str, where: str) -> Any:
    column, parse = _COLUMNS[name]
    text = cells[column]
    if text is None:
        raise BadInput(f"{where}: {column}: no value", "the line has fewer cells than the header")
    try:
        return parse(text)
    except ValueError as error:
        raise BadInput(f"{where}: {column}: {error}", "mend the cell, or leave the line out") from None


def _amount(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{text!r} is no amount")
    return value


def _matching(pattern: str, what: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(f"{text!r} is {what}")
        return text

    return parse


def _one_of(*allowed: str) -> Callable[[str], str]:
    return _matching("|".join(map(re.escape, allowed)), f"none of {', '.join(allowed)}")


def _flag(yes: str, no: str) -> Callable[[str], bool]:
    check = _one_of(yes, no)
    return lambda text: check(text) == yes


_TEXT, _MONTHS = _matching(r".*\S.*", "empty"), _matching("[0-9]{1,4}", "no number of months")
_COLUMNS: Mapping[str, tuple[str, Callable[[str], Any]]] = {
    "customer_id": ("customerID", _TEXT),
    "contract": ("Contract", _one_of("Month-to-month", "One year", "Two year")),
    "tenure_months": ("tenure", lambda text: int(_MONTHS(text))),
    "monthly_charges": ("MonthlyCharges", _amount),
    "total_charges": ("TotalCharges", lambda text: _amount(text) if text.strip() else None),  # 11 new customers
    "internet_service": ("InternetService", _one_of("DSL", "Fiber optic", "No")),
    "payment_method": ("PaymentMethod", _TEXT),
    "paperless": ("PaperlessBilling", _flag("Yes", "No")),
    "senior": ("SeniorCitizen", _flag("1", "0")),
    "churn_signal": ("Churn", _flag("Yes", "No")),
}
"""Field of `RenewalDue` → column of the CSV and how to read it."""


@dataclass(frozen=True, slots=True)
class _Kind:
    """Proportions of one contract type in the telco data."""

    share: float
    tenure_exponent: float
    """Tenure is 72 months times a uniform number to this power."""
    senior: float
    paperless: float
    internet: Mapping[str, tuple[float, float, float, float]]
    """Service → its share, mean and deviation of the monthly charges, share of customers about to leave."""
    payment: Mapping[str, float]


_NO, _DSL, _FIBER = "No", "DSL", "Fiber optic"
_CHECK, _MAIL = "Electronic check", "Mailed check"
_BANK, _CARD = "Bank transfer (automatic)", "Credit card (automatic)"
_KINDS: Mapping[str, _Kind] = {
    "Month-to-month": _Kind(
        *(0.550, 2.6, 0.21, 0.67),
        {_NO: (0.14, 20, 1.0, 0.19), _DSL: (0.31, 50, 12, 0.32), _FIBER: (0.55, 87, 11, 0.55)},
        {_CHECK: 0.48, _MAIL: 0.23, _BANK: 0.15, _CARD: 0.14},
    ),
    "One year": _Kind(
        *(0.209, 0.7, 0.13, 0.54),
        {_NO: (0.25, 20, 1.5, 0.03), _DSL: (0.39, 62, 14, 0.09), _FIBER: (0.36, 99, 10, 0.19)},
        {_BANK: 0.27, _CARD: 0.26, _CHECK: 0.24, _MAIL: 0.23},
    ),
    "Two year": _Kind(
        *(0.241, 0.3, 0.09, 0.46),
        {_NO: (0.38, 21.5, 2.3, 0.01), _DSL: (0.37, 70, 15, 0.02), _FIBER: (0.25, 105, 8.5, 0.07)},
        {_CARD: 0.34, _BANK: 0.33, _MAIL: 0.23, _CHECK: 0.10},
    ),
}
_TENURE_MONTHS_MAX = 72
_CHARGES_MIN, _CHARGES_MAX = 18.25, 118.75


def _made_up(number: int, seed: int) -> dict[str, Any]:
    chance = random.Random(f"driftline-renewals/{seed}/{number}")
    contract = _pick(chance, {name: kind.share for name, kind in _KINDS.items()})
    kind = _KINDS[contract]
    internet = _pick(chance, {name: row[0] for name, row in kind.internet.items()})
    _, mean, deviation, churn = kind.internet[internet]
    charges = round(min(max(chance.gauss(mean, deviation), _CHARGES_MIN), _CHARGES_MAX), 2)
    tenure = int(_TENURE_MONTHS_MAX * chance.random() ** kind.tenure_exponent)
    return {
        "customer_id": f"S{seed}-{number:06d}",
        "contract": contract,
        "tenure_months": tenure,
        "monthly_charges": charges,
        "total_charges": round(charges * tenure, 2) if tenure else None,
        "internet_service": internet,
        "payment_method": _pick(chance, kind.payment),
        "paperless": chance.random() < kind.paperless,
        "senior": chance.random() < kind.senior,
        "churn_signal": chance.random() < churn,
    }


def _pick(chance: random.Random, shares: Mapping[str, float]) -> str:
    return chance.choices(list(shares), list(shares.values()))[0]
