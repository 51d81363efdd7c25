"""What `driftline doctor` says of the nights before one is run: whom they could not ask, and why."""

from __future__ import annotations

from pathlib import Path

import pytest

from driftline.console.doctor_findings import Checked, Finding, Status
from driftline.console.doctor_nightly import nightly
from driftline.log import Settings

CANDIDATE = "[[apps.renewals.candidates]]\n"


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """None of the machine's own."""
    for name in ("OPENAI_API_KEY", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_ROLE_ARN"):
        monkeypatch.delenv(name, raising=False)


def told(folder: Path, text: str) -> list[Finding]:
    path = folder / "nightly.toml"
    path.write_text(f"[apps.renewals]\n{text}")
    return list(nightly(Checked(Settings(bootstrap_servers="127.0.0.1:1"), {}), path))


def test_a_model_whose_key_is_missing_is_told_by_the_variable(tmp_path: Path) -> None:
    [finding] = told(tmp_path, f"{CANDIDATE}model = 'openai/gpt-4o'\n")
    assert (finding.status, finding.what) == (Status.FAIL, "renewals: openai/gpt-4o finds no OPENAI_API_KEY here")
    assert finding.mend.startswith("set OPENAI_API_KEY where `driftline nightly` runs")


def test_a_model_whose_key_is_there_is_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "not-a-key")
    assert [one.status for one in told(tmp_path, f"{CANDIDATE}model = 'openai/gpt-4o'\n")] == [Status.OK]


def test_an_own_server_is_not_known_to_want_a_key(tmp_path: Path) -> None:
    text = f"{CANDIDATE}model = 'openai/gpt-4o'\nparameters = {{ api_base = 'http://127.0.0.1:1' }}\n"
    assert [one.status for one in told(tmp_path, text)] == [Status.OK]


def test_credentials_that_a_machine_in_that_cloud_has_anyway_are_a_warning(tmp_path: Path) -> None:
    text = f"{CANDIDATE}model = 'bedrock/any'\n[apps.renewals.limits]\nallow_unpriced = true\nmax_calls = 1\n"
    [finding] = told(tmp_path, text)
    assert (finding.status, "AWS_ACCESS_KEY_ID" in finding.what) == (Status.WARN, True)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (f"{CANDIDATE}model = 'sim/renewals-lenient'\n", "the simulator has no version 'renewals-lenient'"),
        ("[apps.renewals.incumbent]\nmodel = 'sim/renewals-lenient'\n", "no version 'renewals-lenient'"),
        (f"{CANDIDATE}model = 'nobody/any'\n", "no provider is known for the model 'nobody/any'"),
        (f"{CANDIDATE}model = 'sim/renewals'\nparameters = {{ api_key = 'x' }}\n", "api_key is no model parameter"),
        (f"{CANDIDATE}model = 'recorded/none.jsonl#any'\n", "none.jsonl"),
    ],
    ids=["no version", "of the incumbent", "no provider", "no parameter", "no recording"],
)
def test_what_the_night_would_refuse_before_it_asks_is_told_by_day(tmp_path: Path, text: str, why: str) -> None:
    [finding] = told(tmp_path, text)
    assert (finding.status, why in finding.what) == (Status.FAIL, True), finding.what
    assert str(tmp_path / "nightly.toml") in finding.mend


def test_one_arm_that_cannot_be_asked_hides_no_other(tmp_path: Path) -> None:
    found = told(tmp_path, f"{CANDIDATE}model = 'sim/renewals-lenient'\n{CANDIDATE}model = 'openai/gpt-4o'\n")
    assert len({one.what for one in found}) == 2
