"""One run against an earlier one, figure by figure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from driftline.replay.wording import (
    HASH_DIGITS,
    candidate_text,
    cost_text,
    e_text,
    interval_text,
    rate_text,
    signed_text,
)

_FIGURES: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "run": lambda report: str(report["run_id"]),
    "baseline": lambda report: str(report["baseline"]),
    "candidate": candidate_text,
    "rules": lambda report: str((report.get("tried") or {}).get("verifier_version", ""))[:HASH_DIGITS],
    "verdict": lambda report: str(report["verdict"]),
    "change": lambda report: signed_text(_verdict(report).get("change")),
    "interval": lambda report: interval_text(_verdict(report)["interval"]) if _verdict(report) else "",
    "accepted": lambda report: rate_text(_verdict(report).get("candidate_rate")),
    "e-value": lambda report: e_text(report["e_value"]),
    "named strata": lambda report: str(sum(stratum["named"] for stratum in report["strata"])),
    "decisions compared": lambda report: str(report["events"]),
    "paid calls": lambda report: str(report["paid_calls"]),
    "cost": lambda report: cost_text(report["cost_usd"]),
}


def earlier_rows(earlier: Mapping[str, Any], report: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Rows of name, what the earlier report says, what this one says.

    Not guaranteed: that the two were made over the same decisions; how many each compared is among the rows.
    """
    return [(name, figure(earlier), figure(report)) for name, figure in _FIGURES.items()]


def _verdict(report: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = report["levels"].get("verdict") or {}
    return found
