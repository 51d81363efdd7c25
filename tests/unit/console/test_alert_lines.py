"""`driftline alerts`: each kind of alert is one line of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from driftline.console.log_commands import alert_line

GOLDEN = Path(__file__).parents[2] / "contract" / "golden"
AT = "driftline.alerts[0]@7"


def golden(name: str) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((GOLDEN / name).read_text())["value"]
    return {"at": AT, **value}


@pytest.mark.parametrize(
    ("name", "line"),
    [
        (
            "driftline.EnvironmentDriftAlert.1.named.json",
            f"{AT}  EnvironmentDriftAlert  renewals  openai/gpt-4o-2024-08-06 against the log  "
            "e = 20.2 after 824 paid calls  in ContractDue × verdict",
        ),
        (
            "driftline.MigrationAlert.1.windows.json",
            f"{AT}  MigrationAlert  renewals  offer  P3 to P5  recurs by windows: "
            "openai/gpt-4o-mini (20260301-1000-7f), openai/gpt-5-mini (20260302-1000-7f)",
        ),
    ],
)
def test_an_alert_is_one_line_that_says_what_it_is_about(name: str, line: str) -> None:
    assert alert_line(golden(name)) == line


def test_candidates_of_one_model_are_told_apart_by_mode_parameters_and_prompt() -> None:
    alert = golden("driftline.ReplayCompleted.1.diverged.json")
    own = {"parameters_hash": "5e6f7a8b9c0d", "prompt_hash": "1a2b3c4d5e6f"}
    line = alert_line(alert | {"mode": "shadow", "candidate": alert["candidate"] | own})
    assert line.startswith(
        f"{AT}  ReplayCompleted  renewals  shadow  openai/gpt-4o-mini?5e6f7a8b#1a2b3c4d  diverged  "
    )


def test_a_divergence_names_its_candidate_as_the_completed_replay_does() -> None:
    alert = golden("driftline.DivergenceAlert.1.named.json")
    line = alert_line(alert | {"candidate": alert["candidate"] | {"prompt_hash": "1a2b3c4d5e6f"}})
    assert line.startswith(f"{AT}  DivergenceAlert  renewals  openai/gpt-4o-mini#1a2b3c4d  e = 20.2 after 824")


def test_a_record_that_does_not_decode_is_a_line_with_its_coordinates_and_the_reason() -> None:
    line = alert_line({"at": AT, "undecodable": "not_wire_format: 8 bytes without the magic byte"})
    assert line == f"{AT}  does not decode: not_wire_format: 8 bytes without the magic byte"


def test_an_alert_of_a_later_driftline_still_says_where_and_of_what_app_it_is() -> None:
    assert alert_line({"at": AT, "kind": "FloodAlert", "app": "renewals"}) == f"{AT}  FloodAlert  renewals"
