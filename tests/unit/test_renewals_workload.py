"""The renewals workload: a quarter of events, alike on every run, that fits its contract."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from io import BytesIO
from itertools import islice
from pathlib import Path
from statistics import fmean, median
from typing import Any

import pytest
from fastavro import schemaless_reader, schemaless_writer
from hypothesis import given
from hypothesis import strategies as st

from driftline.consumers.prompt import Prompt
from driftline.producers.renewals import QUARTER_DAYS, QUARTER_START, projection, synthetic_renewals, telco_renewals
from driftline.schemas import BadInput, Contracts, Event, Shape, UsageError

EXAMPLE = Path(__file__).parents[2] / "examples" / "driftline" / "examples" / "renewals"
HEADER = (
    "customerID,gender,SeniorCitizen,Partner,Dependents,tenure,PhoneService,MultipleLines,InternetService,"
    "OnlineSecurity,OnlineBackup,DeviceProtection,TechSupport,StreamingTV,StreamingMovies,Contract,"
    "PaperlessBilling,PaymentMethod,MonthlyCharges,TotalCharges,Churn"
)
CELLS = (
    "7590-VHVEG,Female,0,Yes,No,1,No,No phone service,DSL,No,Yes,No,No,No,No,Month-to-month,Yes,"
    "Electronic check,29.85,29.85,No"
)


def csv_file(folder: Path, *rows: str, header: str = HEADER) -> Path:
    path = folder / "telco.csv"
    path.write_text("\n".join((header, *rows)) + "\n")
    return path


def changed(**cells: str) -> str:
    values = dict(zip(HEADER.split(","), CELLS.split(","), strict=True))
    return ",".join({**values, **cells}.values())


def test_a_row_becomes_an_event_of_the_crm(tmp_path: Path) -> None:
    (event,) = telco_renewals(csv_file(tmp_path, CELLS))
    assert (event.type, event.source, event.workflow) == ("renewal-due.month-to-month", "crm", "7590-VHVEG")
    assert event.record == "driftline.renewals.RenewalDue"
    assert event.data == {
        "customer_id": "7590-VHVEG",
        "contract": "Month-to-month",
        "tenure_months": 1,
        "monthly_charges": 29.85,
        "total_charges": 29.85,
        "internet_service": "DSL",
        "payment_method": "Electronic check",
        "paperless": True,
        "senior": False,
        "churn_signal": False,
        "renewal_on": (event.time + timedelta(days=30)).date().isoformat(),
    }


def test_a_new_customer_has_no_total_charges(tmp_path: Path) -> None:
    (event,) = telco_renewals(csv_file(tmp_path, changed(TotalCharges=" ", tenure="0")))
    assert event.data["total_charges"] is None


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        ({"Contract": "Weekly"}, "Contract: 'Weekly' is none of Month-to-month, One year, Two year"),
        ({"tenure": "-1"}, "tenure: '-1' is no number of months"),
        ({"tenure": "1.5"}, "tenure: '1.5' is no number of months"),
        ({"MonthlyCharges": "free"}, "MonthlyCharges: 'free' is no amount"),
        ({"MonthlyCharges": "nan"}, "MonthlyCharges: 'nan' is no amount"),
        ({"MonthlyCharges": "-3"}, "MonthlyCharges: '-3' is no amount"),
        ({"TotalCharges": "x"}, "TotalCharges: 'x' is no amount"),
        ({"Churn": "yes"}, "Churn: 'yes' is none of Yes, No"),
        ({"SeniorCitizen": ""}, "SeniorCitizen: '' is none of 1, 0"),
        ({"customerID": " "}, "customerID: ' ' is empty"),
    ],
)
def test_a_bad_cell_is_named_with_file_line_and_column(tmp_path: Path, cells: Mapping[str, str], said: str) -> None:
    path = csv_file(tmp_path, CELLS, changed(**cells))
    with pytest.raises(BadInput) as caught:
        telco_renewals(path)
    assert str(caught.value).startswith(f"{path}:3: {said};")


def test_a_short_row_names_the_first_column_it_lacks(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r":2: Contract: no value"):
        telco_renewals(csv_file(tmp_path, "7590-VHVEG,Female,0,Yes,No,1,No,No,DSL"))


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r":1: Churn: no such column"):
        telco_renewals(csv_file(tmp_path, header=HEADER.removesuffix(",Churn")))


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b'customerID,"\n'])
def test_a_file_that_is_no_telco_csv_is_bad_input(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "telco.csv"
    path.write_bytes(content)
    with pytest.raises(BadInput, match=str(path)):
        telco_renewals(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no telco file at"):
        telco_renewals(tmp_path / "nowhere.csv")


def test_the_quarter_may_begin_anywhere_with_a_zone() -> None:
    start = datetime(2027, 1, 1, tzinfo=timezone(timedelta(hours=2)))
    times = [event.time for event in synthetic_renewals(200, 1, start=start, days=7)]
    assert start <= min(times)
    assert max(times) < start + timedelta(days=7)
    assert {time.tzinfo for time in times} == {UTC}
    with pytest.raises(UsageError, match="has no time zone"):
        synthetic_renewals(1, 1, start=datetime(2027, 1, 1))
    with pytest.raises(UsageError, match="0 days"):
        synthetic_renewals(1, 1, days=0)
    with pytest.raises(UsageError, match="-1 customers"):
        synthetic_renewals(-1, 1)


@given(st.integers(0, 60), st.integers())
def test_events_come_in_order_once_a_customer_and_alike_on_every_run(customers: int, seed: int) -> None:
    events = list(synthetic_renewals(customers, seed))
    assert events == list(synthetic_renewals(customers, seed))
    assert [event.time for event in events] == sorted(event.time for event in events)
    assert len({event.id for event in events}) == len({event.workflow for event in events}) == customers
    for event in events:
        assert QUARTER_START <= event.time < QUARTER_START + timedelta(days=QUARTER_DAYS)


def test_more_customers_leave_those_there_were_as_they_are() -> None:
    fewer, more = ({event.id: event for event in synthetic_renewals(count, 3)} for count in (50, 80))
    assert {event_id: more[event_id] for event_id in fewer} == fewer


def test_other_seeds_make_other_customers_and_other_ids() -> None:
    one, other = (list(synthetic_renewals(50, seed)) for seed in (1, 2))
    assert {event.id for event in one}.isdisjoint(event.id for event in other)


def test_the_first_event_of_a_seed_is_pinned() -> None:
    """Demos and golden logs rest on it."""
    first = next(synthetic_renewals(20, 7))
    assert (first.id, first.workflow, first.time.isoformat()) == PINNED_EVENT
    assert (first.data["contract"], first.data["monthly_charges"], first.data["tenure_months"]) == PINNED_DATA


PINNED_EVENT = ("1dbce890-e7da-5eb1-836b-3e0e33b83361", "S7-000006", "2026-07-17T12:59:24+00:00")
PINNED_DATA = ("Month-to-month", 19.23, 45)


def test_the_made_up_customers_are_like_the_telco_ones() -> None:
    events = list(synthetic_renewals(8000, 5))
    shares = Counter(event.data["contract"] for event in events)
    for contract, share, churn, charges, tenure in MARGINALS:
        rows = [event.data for event in events if event.data["contract"] == contract]
        assert shares[contract] / len(events) == pytest.approx(share, abs=0.02)
        assert fmean(row["churn_signal"] for row in rows) == pytest.approx(churn, abs=0.03)
        assert median(row["monthly_charges"] for row in rows) == pytest.approx(charges, abs=6)
        assert median(row["tenure_months"] for row in rows) == pytest.approx(tenure, abs=6)


MARGINALS = [
    ("Month-to-month", 0.550, 0.427, 73.2, 12),
    ("One year", 0.209, 0.113, 68.8, 44),
    ("Two year", 0.241, 0.028, 64.3, 64),
]
"""Contract, its share, churn, median charges, median tenure: of the telco file."""


def row(contract: str, charges: float, churn: bool) -> dict[str, Any]:
    return {"contract": contract, "monthly_charges": charges, "churn_signal": churn}


@pytest.mark.parametrize(
    ("due", "expected"),
    [
        (row("Month-to-month", 120, True), "churned"),
        (row("One year", 20, True), "escalated"),
        (row("Two year", 120, True), "escalated"),
        (row("Month-to-month", 95.01, False), "restructured"),
        (row("Month-to-month", 95, False), "renewed_with_offer"),
        (row("One year", 95.01, False), "renewed_with_offer"),
        (row("Two year", 70.01, False), "renewed_with_offer"),
        (row("Two year", 70, False), "renewed"),
    ],
)
def test_the_projection_rule_at_its_edges(due: Mapping[str, Any], expected: str) -> None:
    assert projection(due) == expected


@pytest.fixture(scope="module")
def contracts() -> Contracts:
    return Contracts.load(EXAMPLE / "schemas")


def test_every_event_fits_its_contract_and_comes_back_from_avro(contracts: Contracts) -> None:
    for event in synthetic_renewals(300, 1):
        contract = contracts[event.record]
        assert Shape(contract).mismatches(dict(event.data)) == []
        assert avro_round_trip(contract.parsed, event) == event.data


def avro_round_trip(schema: Any, event: Event) -> Any:
    file = BytesIO()
    schemaless_writer(file, schema, dict(event.data))
    file.seek(0)
    return schemaless_reader(file, schema, None)


def test_the_contracts_say_how_their_fields_are_compared(contracts: Contracts) -> None:
    ours = {name.rpartition(".")[2]: each for name, each in contracts.items() if "renewals" in name}
    assert ours.keys() == {
        "RenewalDue",
        "ContractRenewed",
        "ContractRenewedWithOffer",
        "ContractRestructured",
        "ContractChurned",
        "RenewalEscalated",
    }
    fields = {(name, field["name"]): field for name, each in ours.items() for field in each.latest["fields"]}
    assert all(field["doc"] for field in fields.values())
    assert {name for (_, name), field in fields.items() if field.get("compare") == "free-text"} == {
        "rationale",
        "reason",
    }
    assert fields["ContractRenewedWithOffer", "discount_pct"]["scale"] == [0, 100]
    assert fields["ContractRestructured", "new_monthly_charges"]["scale"] == [0, 200]


@pytest.mark.parametrize(("version", "ceiling"), [("v1", "at most 30 %"), ("v2", "at most 20 %")])
def test_the_prompts_state_their_ceiling_and_end_with_the_event(version: str, ceiling: str) -> None:
    event = next(islice(synthetic_renewals(5, 1), 1))
    system, user = Prompt.from_file(EXAMPLE / "prompts" / f"{version}.md").messages({"event": dict(event.data)})
    assert (system["role"], user["role"]) == ("system", "user")
    assert ceiling in system["content"]
    text = user["content"]
    assert json.loads(text[text.index("{") :]) == event.data
