"""What `driftline replay --mode free` prints for a person."""

from __future__ import annotations

from typing import Any

import pytest

from driftline.console.free_run import print_free_findings

WILD = "no\x1b[2J\x9b\u202e"


def report_of(payload: str, workflow: str) -> dict[str, Any]:
    """A report of one workflow, which departed to a payload that a model wrote."""
    rate = {"count": 1, "workflows": 1, "rate": 1.0, "interval": [0.0, 1.0]}
    arm = {"departed": rate, "state_changed": {**rate, "workflows": 0}, "travel": {}}
    taken = {"verdict": "accepted", "type": "acme.Renewed", "payload": {"text": payload}}
    first = {
        "index": 0,
        "boundary": "renewals",
        "stream": "due",
        "at": "a.decisions[0]@0",
        "then": taken,
        "now": taken,
    }
    place = {"index": 0, "boundary": "renewals", "stream": "due", "then": "Renewed", "now": "Renewed"}
    return {
        "verdict": "inconclusive",
        "app": "renewals",
        "baseline": "acme/old",
        "candidate": "acme/new",
        "alpha": 0.05,
        "arms": {"candidate": arm, "incumbent": None},
        "departures": [{"workflow": workflow, "first": first}],
        "by_place": [{**place, "workflows": 1, "state_changed": 0, "example": workflow}],
        "workflows": {"compared": 1, "planned": 1, "ended_early": {}, "undecided": 0, "headless": 0},
        "coverage": 1.0,
        "calls": 1,
        "cost_usd": 0.0,
        "stopped_because": "no_incumbent",
        "run_id": "0",
        "e_value": None,
        "note": "",
    }


def test_neither_a_payload_nor_a_name_drives_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    print_free_findings(report_of(WILD, f"customer {WILD}"))
    told = capsys.readouterr().out
    assert r"customer no\x1b[2J\x9b\u202e departs at" in told
    assert r"[2J\x9b\u202e" in told.partition("then accepted")[2]
    assert not set(told) & {"\x1b", "\x9b", "\u202e"}
