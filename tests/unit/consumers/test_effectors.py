"""Effectors: what is refused when an app is made, and what becomes of an effect."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import stamina

from driftline.consumers import App, Boundary, OnExhausted
from driftline.consumers.boundary import BoundBoundary
from driftline.consumers.effecting import Acting, Effect, Stopped
from driftline.consumers.effectors import Act, EffectFailed, Effector, EffectResult, check_effectors
from driftline.examples.contracts.outbox import FOLDER_VARIABLE, send_contract
from driftline.examples.renewals.app import app as renewals
from driftline.examples.renewals.crm import FILE_VARIABLE, record_renewal
from driftline.schemas import EnvironmentUnreachable, Event, UsageError
from driftline.schemas.names import EFFECT_REPORTED, ESCALATED, TRANSITION_ACCEPTED, TRANSITION_REJECTED

NOW = datetime(2026, 11, 21, tzinfo=UTC)
GRANTED = "shop.RefundGranted"
EVENT = Event(
    id="e1",
    type=GRANTED,
    source="driftline:shop/refund",
    workflow="c-17",
    time=datetime(2026, 7, 1, tzinfo=UTC),
    record=GRANTED,
    data={"amount": 40.0},
    causation_id="e0",
    traceparent="00-trace-01",
)


@pytest.fixture(autouse=True)
def no_back_off() -> Iterator[None]:
    with stamina.set_testing(True, attempts=3):
        yield


@pytest.fixture
def boundary(bound: Callable[..., BoundBoundary]) -> Boundary:
    return bound().boundary


def pay(event: Event, idempotency_key: str) -> Mapping[str, Any]:
    return {"paid": event.data["amount"], "key": idempotency_key}


def effect_of(act: Act, result: str = EFFECT_REPORTED, stop: Callable[[], bool] = lambda: False) -> Effect:
    return Acting("shop", Effector("pay", [GRANTED], act, result), lambda: NOW).outcome(EVENT, stop)


def test_an_effector_on_what_no_boundary_commits_is_refused(boundary: Boundary, tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"app shop: effector pay acts on shop\.Paid, which no boundary commits; .*RefundGranted"
    ):
        App("shop", [boundary], tmp_path, effectors=[Effector("pay", ["shop.Paid"], pay)])


def test_an_effector_on_a_fact_from_outside_is_refused(boundary: Boundary, tmp_path: Path) -> None:
    asked = "shop.RefundRequested"
    with pytest.raises(UsageError, match=f"acts on {asked}, which no boundary commits"):
        App("shop", [boundary], tmp_path, facts=[asked], effectors=[Effector("pay", [asked], pay)])


def test_two_effectors_of_one_name_are_refused(boundary: Boundary, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="app shop: two effectors with the name pay"):
        App("shop", [boundary], tmp_path, effectors=[Effector("pay", [GRANTED], pay)] * 2)


def test_an_escalation_can_be_acted_on_where_a_boundary_escalates(
    bound: Callable[..., BoundBoundary], tmp_path: Path
) -> None:
    tell = Effector("tell", [ESCALATED], pay)
    App("shop", [bound().boundary], tmp_path, effectors=[tell])
    with pytest.raises(UsageError, match=r"acts on driftline\.Escalated"):
        App("shop", [bound(on_exhausted=OnExhausted.REJECT).boundary], tmp_path, effectors=[tell])


@pytest.mark.parametrize("answer", [TRANSITION_ACCEPTED, TRANSITION_REJECTED])
def test_an_answer_to_a_request_can_be_acted_on_where_the_spine_answers(boundary: Boundary, answer: str) -> None:
    send = Effector("send", [answer], pay)
    check_effectors("shop", [boundary], [send], answers=True)
    with pytest.raises(UsageError, match=f"acts on {answer}, which the event log never commits"):
        check_effectors("shop", [boundary], [send], answers=False)


def accepted(state_after: str) -> Event:
    data = {"request_id": "r1", "by": "mara", "state_after": state_after}
    return replace(EVENT, type=TRANSITION_ACCEPTED, record=TRANSITION_ACCEPTED, data=data)


def test_the_examples_outbox_has_one_contract_for_a_key_and_none_for_a_refusal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "new"))
    told = [
        send_contract(accepted(state), key) for state, key in (("closed", "a1"), ("closed", "a1"), ("expired", "a2"))
    ]
    assert told == [{"sent": True}, {"sent": True}, {"sent": False}]
    [sent] = (tmp_path / "new").iterdir()
    assert json.loads(sent.read_text()) == {"customer": "c-17", "approved_by": "mara"}


def test_the_examples_outbox_may_be_tried_again_when_it_cannot_be_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "file"))
    with pytest.raises(EffectFailed) as failed:
        send_contract(accepted("closed"), "a1")
    assert failed.value.retryable


@pytest.mark.parametrize("name", ["", "Pay", "pay.now", "pay now"])
def test_a_name_that_can_be_no_groups_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="cannot name an effector"):
        Effector(name, [GRANTED], pay)


@pytest.mark.parametrize("on", [[], GRANTED])
def test_an_effector_needs_a_list_of_what_it_acts_on(on: Any) -> None:
    with pytest.raises(UsageError, match="effector pay: `on` is a list"):
        Effector("pay", on, pay)


def test_an_app_writes_what_its_effectors_report(boundary: Boundary, tmp_path: Path) -> None:
    app = App("shop", [boundary], tmp_path, effectors=[Effector("pay", [GRANTED], pay, "shop.Paid")])
    records = [record for topic, record in app.subjects() if topic == "shop.events"]
    assert {"shop.Paid", EFFECT_REPORTED} <= set(records)


def test_every_app_has_the_subject_of_its_control_topic() -> None:
    assert ("renewals.control", "driftline.ControlSetting") in renewals.subjects()


def test_what_an_effector_returns_is_reported_as_done() -> None:
    effect = effect_of(pay)
    assert effect.done
    assert effect.fact.data == {
        "effector": "pay",
        "status": "done",
        "detail": "",
        "data": '{"key":"e1","paid":40}',
        "reported_at": NOW,
    }


def test_a_report_names_its_cause_and_carries_its_trace_on() -> None:
    fact = effect_of(pay).fact
    assert (fact.causation_id, fact.workflow, fact.time) == ("e1", "c-17", EVENT.time)
    assert (fact.source, fact.type, fact.record) == ("driftline:shop/effector/pay", EFFECT_REPORTED, EFFECT_REPORTED)
    assert fact.traceparent == "00-trace-01"


def test_the_report_of_one_event_has_one_id_and_another_effectors_has_another() -> None:
    other = Acting("shop", Effector("mail", [GRANTED], pay), lambda: NOW).outcome(EVENT)
    assert effect_of(pay).fact.id == effect_of(pay).fact.id != other.fact.id


def test_an_effector_with_a_record_of_its_own_reports_in_it() -> None:
    effect = effect_of(lambda event, key: EffectResult({"key": key}), result="shop.Paid")
    assert (effect.fact.type, effect.fact.record, effect.fact.data) == ("shop.Paid", "shop.Paid", {"key": "e1"})


class Failing:
    """Fails so many times, then pays."""

    def __init__(self, times: int, retryable: bool = True) -> None:
        self.left = times
        self.calls = 0
        self._retryable = retryable

    def __call__(self, event: Event, idempotency_key: str) -> Mapping[str, Any]:
        self.calls += 1
        if self.left:
            self.left -= 1
            raise EffectFailed("the bank is closed", retryable=self._retryable)
        return {}


def test_an_effect_that_may_succeed_later_is_tried_again() -> None:
    act = Failing(2)
    assert effect_of(act).done
    assert act.calls == 3


def test_an_effect_that_fails_for_good_is_reported_as_failed_and_not_tried_again() -> None:
    act = Failing(1, retryable=False)
    effect = effect_of(act, result="shop.Paid")
    assert not effect.done
    assert (effect.fact.record, effect.fact.data["status"]) == (EFFECT_REPORTED, "failed")
    assert effect.fact.data["detail"] == "the bank is closed"
    assert json.loads(effect.fact.data["data"]) == {}
    assert act.calls == 1


def test_an_outside_world_that_stays_down_is_no_report_but_an_error_of_the_environment() -> None:
    act = Failing(99)
    with pytest.raises(
        EnvironmentUnreachable,
        match=rf"effector pay gave up on the {GRANTED} e1 of c-17: the bank is closed; start it",
    ):
        effect_of(act)
    assert act.calls == 3


def test_a_stop_ends_the_trying_without_a_report() -> None:
    act = Failing(99)
    with pytest.raises(Stopped):
        effect_of(act, stop=lambda: act.calls == 2)
    assert act.calls == 2


def test_a_fault_of_the_effector_is_told_and_not_tried_again() -> None:
    calls = []

    def faulty(event: Event, idempotency_key: str) -> Mapping[str, Any]:
        calls.append(idempotency_key)
        return {"x": event.data["missing"]}

    with pytest.raises(UsageError, match=rf"effector pay fails on the {GRANTED} e1 of c-17: KeyError\('missing'\)"):
        effect_of(faulty)
    assert calls == ["e1"]


@pytest.mark.parametrize(
    ("returned", "why"),
    [(None, "it returned a NoneType"), ({"n": 2**60}, "cannot be reported"), ({"t": "\ud800"}, "cannot be reported")],
)
def test_what_cannot_be_reported_is_told(returned: Any, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        effect_of(lambda event, key: returned)


def test_the_examples_crm_has_one_row_for_a_key_however_often_it_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "new" / "crm.sqlite"
    monkeypatch.setenv(FILE_VARIABLE, str(file))
    assert [record_renewal(EVENT, "k")["repeat"] for _ in range(3)] == [False, True, True]
    with closing(sqlite3.connect(file)) as crm:
        rows = crm.execute("SELECT * FROM renewals").fetchall()
    assert rows == [("k", "c-17", "RefundGranted", '{"amount":40}')]


def test_the_examples_crm_may_be_tried_again_when_its_file_cannot_be_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv(FILE_VARIABLE, str(tmp_path / "file" / "crm.sqlite"))
    with pytest.raises(EffectFailed) as failed:
        record_renewal(EVENT, "k")
    assert failed.value.retryable
