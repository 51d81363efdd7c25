"""How a report's numbers are written, and its verdict as a sentence: the same in a terminal, a page and Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

STOPPED_BECAUSE = {
    "alarm": "the evidence reached its threshold",
    "equivalent": "every interval lay within the tolerated difference",
    "segment_ended": "every decision was read",
    "budget_ended": "the budget of calls or dollars ended",
    "coverage": "too few decisions had an outcome in both arms",
}


def rate_text(value: float | None) -> str:
    """A share, in percent."""
    return "" if value is None else f"{value:.1%}"


def signed_text(value: float | None) -> str:
    """A change of a rate, in points."""
    return "" if value is None else f"{100 * value:+.1f} pp"


def interval_text(interval: Sequence[float], signed: bool = True, digits: int = 1) -> str:
    """Both ends, in points of rate."""
    form = f"{'+' if signed else ''}.{digits}f"
    return "[" + ", ".join(format(100 * end, form) for end in interval) + "]"


def e_text(value: float | None) -> str:
    """An e-value."""
    return "" if value is None else f"{value:.3g}"


def count_text(value: int | None) -> str:
    """A number of things."""
    return "" if value is None else str(value)


def cost_text(value: float | None) -> str:
    """Dollars."""
    return "price unknown" if value is None else f"${value:.4f}"


def sentence(report: Mapping[str, Any]) -> str:
    """The verdict, for somebody who reads one sentence."""
    return {"diverged": _diverged, "equivalent": _equivalent, "inconclusive": _inconclusive}[report["verdict"]](
        report
    )


def _diverged(report: Mapping[str, Any]) -> str:
    alarm = report.get("alarm_after") or report["paid_calls"]
    said = f"{report['candidate']} decides otherwise than {report['baseline']}: {_rates(report)}"
    return f"{said} The evidence sufficed after {alarm} compared decisions."


def _equivalent(report: Mapping[str, Any]) -> str:
    return (
        f"{report['candidate']} may take the place of {report['baseline']}: the rate of accepted answers is the same "
        f"within {100 * report['delta']:g} points. {_rates(report)}"
    )


def _inconclusive(report: Mapping[str, Any]) -> str:
    why = STOPPED_BECAUSE.get(report["stopped_because"], report["stopped_because"])
    said = f"Whether {report['candidate']} decides otherwise than {report['baseline']} is not known: {why}"
    return f"{said}, and the evidence is e = {e_text(report.get('e_value'))}. {_rates(report)}"


def _rates(report: Mapping[str, Any]) -> str:
    verdict = (report.get("levels") or {}).get("verdict")
    if not verdict or verdict["change"] is None:
        return "no pair of answers could be compared."
    confidence = f"{1 - report['alpha']:.0%} interval"
    return (
        f"{rate_text(verdict['baseline_rate'])} of the answers were accepted before and "
        f"{rate_text(verdict['candidate_rate'])} now, a change of {signed_text(verdict['change'])} "
        f"({confidence} {interval_text(verdict['interval'])})."
    )
