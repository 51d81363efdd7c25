"""Apps: what is refused when they are made and when they are named."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from driftline.consumers import App, load_app
from driftline.consumers.boundary import BoundBoundary
from driftline.examples.renewals.app import app as renewals
from driftline.schemas import ContractError, UnknownApp, UsageError
from driftline.schemas.names import SPINE_RECORDS

Bind = Callable[..., BoundBoundary]


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Callable[[str], str]:
    """Write a module into the working folder; its name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def write(code: str) -> str:
        name = f"app_of_{request.node.name.split('[')[0]}"
        (tmp_path / f"{name}.py").write_text(code)
        return name

    return write


def one_line(error: BaseException) -> str:
    assert "\n" not in str(error)
    return str(error)


def test_two_boundaries_on_one_stream_are_refused(bound: Bind, tmp_path: Path) -> None:
    boundaries = [bound(name="one").boundary, bound(name="two").boundary]
    with pytest.raises(UsageError, match=r"app shop: two boundaries with the event type shop\.RefundRequested"):
        App("shop", boundaries, tmp_path)


def test_two_boundaries_of_one_name_are_refused(bound: Bind, tmp_path: Path) -> None:
    boundaries = [bound().boundary, bound(on=["other"]).boundary]
    with pytest.raises(UsageError, match="app shop: two boundaries with the name refund"):
        App("shop", boundaries, tmp_path)


def test_a_missing_schema_folder_is_one_line(bound: Bind, tmp_path: Path) -> None:
    with pytest.raises(ContractError, match=r"no schema folder at .*none") as caught:
        _ = App("shop", [bound().boundary], tmp_path / "none").contracts
    one_line(caught.value)


def test_a_proposed_record_without_a_schema_is_one_line(bound: Bind, tmp_path: Path) -> None:
    with pytest.raises(ContractError, match=r"no contract for the record shop\.RefundGranted"):
        _ = App("shop", [bound().boundary], tmp_path).bound


def test_a_name_that_can_be_no_topic_is_refused(bound: Bind, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'My Shop' cannot name an app"):
        _ = App("My Shop", [bound().boundary], tmp_path).topics


def test_an_app_is_found_in_the_working_folder(module: Callable[[str], str]) -> None:
    name = module("from driftline.examples.renewals.app import app as mine\n")
    assert load_app(f"{name}:mine") is renewals


@pytest.mark.parametrize("reference", ["renewals", ":app", "module:", ""])
def test_a_reference_without_module_or_attribute_is_refused(reference: str) -> None:
    with pytest.raises(UnknownApp, match="does not name an app; write it as module:attribute"):
        load_app(reference)


def test_an_unknown_module_is_one_line() -> None:
    with pytest.raises(UnknownApp, match="app no_such_module:app: No module named 'no_such_module'; check") as caught:
        load_app("no_such_module:app")
    one_line(caught.value)


def test_a_wrong_attribute_is_one_line(module: Callable[[str], str]) -> None:
    name = module("import collections\n")
    with pytest.raises(UnknownApp, match=f"app {name}:app: the module has no app"):
        load_app(f"{name}:app")


def test_an_attribute_that_is_no_app_is_one_line(module: Callable[[str], str]) -> None:
    name = module("app = {}\n")
    with pytest.raises(UnknownApp, match="app is a dict, not an App"):
        load_app(f"{name}:app")


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("def app(:\n", "SyntaxError"),
        ("import collections\ncollections.no_such_thing\n", "AttributeError: .*no_such_thing"),
        ("1 / 0\n", "ZeroDivisionError"),
    ],
)
def test_a_module_that_fails_is_one_line(module: Callable[[str], str], code: str, why: str) -> None:
    name = module(code)
    with pytest.raises(UnknownApp, match=f"app {name}:app: importing it fails: {why}") as caught:
        load_app(f"{name}:app")
    one_line(caught.value)
    sys.modules.pop(name, None)


def test_the_example_writes_what_it_declares() -> None:
    records = [record for topic, record in renewals.subjects() if topic == "renewals.events"]
    assert records[0] == "driftline.renewals.RenewalDue"
    assert records[-6:] == ["driftline.Escalated", *SPINE_RECORDS]
    assert {record for _, record in renewals.subjects()} <= set(renewals.contracts)
