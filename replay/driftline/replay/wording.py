"""How a report's numbers are written, and its verdict as a sentence: the same in a terminal, a page and Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from driftline.replay.levels import EXIT_FAMILY
from driftline.schemas import canonical_json

HASH_DIGITS = 8
"""Of the hash of a prompt or a verifier."""
VALUE_MAX = 40
"""Characters of a parameter's value."""
STOPPED_BECAUSE = {
    "alarm": "the evidence reached its threshold",
    "equivalent": "every interval lay within the tolerated difference",
    "segment_ended": "every decision was read",
    "budget_ended": "the budget of calls or dollars ended",
    "coverage": "too few decisions had an outcome in both arms",
}


def lost_lines(report: Mapping[str, Any]) -> list[str]:
    """Why decisions have no outcome to compare, a line a reason; none in reports from before this was kept."""
    return [
        f"{one['decisions']} without an outcome of the {one['arm']} ({one['failure']})"
        f"{': ' if one['detail'] else ''}{one['detail']}, first at {one['at']}"
        for one in report.get("lost", ())
    ]


def candidate_text(report: Mapping[str, Any]) -> str:
    """The candidate's model, and in brackets the prompt, the verifier and the parameters that it has of its own."""
    tried: Mapping[str, Any] = report.get("tried") or {}
    own = []
    if tried.get("prompt") is not None:
        own.append(f"prompt {tried['prompt']}#{tried['prompt_hash'][:HASH_DIGITS]}")
    if tried.get("verifier") is not None:
        own.append(f"verifier {Path(tried['verifier']).name}#{tried['verifier_version'][:HASH_DIGITS]}")
    for name, value in tried.get("parameters", {}).items():
        text = canonical_json(value)
        own.append(f"{name}={text if len(text) <= VALUE_MAX else text[:VALUE_MAX] + '…'}")
    return f"{report['candidate']} ({', '.join(own)})" if own else str(report["candidate"])


def rate_text(value: float | None) -> str:
    """A share, in percent."""
    return "" if value is None else f"{value:.1%}"


def signed_text(value: float | None) -> str:
    """A change of a rate, in points; empty for None."""
    return "" if value is None else f"{100 * value:+.1f} pp"


def interval_text(interval: Sequence[float], signed: bool = True, digits: int = 1) -> str:
    """Both ends, in points of rate."""
    form = f"{'+' if signed else ''}.{digits}f"
    return "[" + ", ".join(format(100 * end, form) for end in interval) + "]"


def e_text(value: float | None) -> str:
    """An e-value."""
    return "" if value is None else f"{value:.3g}"


def evidence_text(name: str, measured: Mapping[str, Any]) -> str:
    """The e-value of a level or of one of its strata; in brackets where it decides nothing."""
    text = e_text(measured["e_value"])
    return text if not text or decides(name, measured) else f"({text})"


def decides(name: str, measured: Mapping[str, Any]) -> bool:
    """Whether the verdict rests on a level; a report that does not say so is of the time when two did."""
    return bool(measured.get("decides", name in EXIT_FAMILY))


def noise_of(
    name: str, measured: Mapping[str, Any], floor: Mapping[str, Any] | None, stream: str | None = None
) -> Mapping[str, Any] | None:
    """The noise floor beside what was measured at a level, of one stream where it is named; None without one."""
    if measured.get("noise"):
        found: Mapping[str, Any] = measured["noise"]
        return found
    if stream is None:
        return ((floor or {}).get("levels") or {}).get(name)
    strata = (floor or {}).get("strata") or ()
    return next((one for one in strata if (one["stream"], one["level"]) == (stream, name)), None)


def noise_text(noise: Mapping[str, Any] | None) -> str:
    """How often runs of one model differ."""
    return "" if noise is None else rate_text(noise["mismatch"])


def excess_text(noise: Mapping[str, Any] | None, digits: int = 1) -> str:
    """How much more often the candidate differs from them, with its interval."""
    if noise is None or noise.get("excess") is None:
        return ""
    return f"{signed_text(noise['excess'])} {interval_text(noise['excess_interval'], digits=digits)}"


def has_noise(measured: Iterable[Mapping[str, Any] | None], floor: Mapping[str, Any] | None) -> bool:
    """Whether there is a noise floor to be shown."""
    return bool(floor) or any(one is not None and one.get("noise") for one in measured)


def cause_text(report: Mapping[str, Any]) -> str:
    """What moved, and why that is thought; empty where nothing did or nothing is said of it."""
    attribution = report.get("attribution") or {}
    cause = attribution.get("cause", "none")
    return "" if cause == "none" and not contrasts(report) else f"cause: {cause}; {attribution['why']}"


def contrasts(report: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    """The contrasts with the incumbent that were judged, by what they speak of."""
    attribution = report.get("attribution") or {}
    found = attribution.get("contrasts") or attribution
    return {name: one for name, one in found.items() if isinstance(one, Mapping) and one.get("arms")}


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
    said = f"{candidate_text(report)} decides otherwise than {report['baseline']}: {_rates(report)}"
    return f"{said} The evidence sufficed after {alarm} compared decisions."


def _equivalent(report: Mapping[str, Any]) -> str:
    """The verdict is on the decisions of the segment; more is said only where the interval for others allows it."""
    same = f"the rate of accepted answers is the same within {100 * report['delta']:g} points"
    verdict = (report.get("levels") or {}).get("verdict") or {}
    low, high = verdict.get("interval") or (-1.0, 1.0)
    if -report["delta"] <= low and high <= report["delta"]:
        return f"{candidate_text(report)} may take the place of {report['baseline']}: {same}. {_rates(report)}"
    return (
        f"On the {report['events']} decisions of this segment {candidate_text(report)} does as {report['baseline']} "
        f"did: {same}. {_rates(report)} That interval is for decisions to come, of which these are too few to say it."
    )


def _inconclusive(report: Mapping[str, Any]) -> str:
    why = STOPPED_BECAUSE.get(report["stopped_because"], report["stopped_because"])
    said = f"Whether {candidate_text(report)} decides otherwise than {report['baseline']} is not known: {why}"
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
