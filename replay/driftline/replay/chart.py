"""Intervals as bars on one axis, for a template to draw as SVG: positions in percent of the axis's width."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from driftline.detectors import mismatch_interval
from driftline.replay.wording import noise_of

STEPS = (0.05, 0.1, 0.2, 0.25, 0.5, 1.0)
"""Where an axis of rates may end."""
ROWS_MAX = 24


@dataclass(frozen=True, slots=True)
class Bar:
    """An interval with the measured value in it."""

    kind: str
    """`floor`, `change`, `worse` or `better`: how it is drawn."""
    lo: float
    hi: float
    at: float
    text: str
    """What it says in words."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a chart."""

    label: str
    bars: Sequence[Bar]


@dataclass(frozen=True, slots=True)
class Chart:
    """Lines on one axis."""

    title: str
    rows: Sequence[Row]
    ticks: Sequence[tuple[float, str]]
    """Position and label."""
    zero: float
    """Position of 0."""


def mismatch_chart(levels: Mapping[str, Any], floor: Mapping[str, Any] | None, alpha: float) -> Chart:
    """Level by level how many answers differ, and how many differ anyway between runs of one model."""
    found = {name: level for name, level in levels.items() if level and level["mismatch"] is not None}
    known = {name: _of_mismatch(level, alpha) for name, level in found.items()}
    noise = {name: noise_of(name, level, floor) for name, level in found.items()}
    shown = [*known.values(), *noise.values()]
    top = _end(max((_upper(measured) for measured in shown if measured), default=1.0))
    rows = []
    for name, level in known.items():
        bars = [_share_bar("change", level, top, "candidate against baseline")]
        beside = noise[name]
        if beside and beside["mismatch"] is not None:
            bars.append(_share_bar("floor", beside, top, "noise floor"))
        rows.append(Row(name, bars))
    ticks = [(100 * tick / 4, f"{25 * tick * top:.3g} %") for tick in range(5)]
    return Chart("How many answers differ", rows, ticks, 0.0)


def change_chart(report: Mapping[str, Any]) -> Chart:
    """The net change of the accepted rate, over all and stream by stream, with its intervals."""
    over_all = report["levels"].get("verdict")
    measured = [("all streams", over_all)] if over_all else []
    strata = [stratum for stratum in report["strata"] if stratum["level"] == "verdict"]
    if len(strata) > 1:
        measured += [(stratum["stream"], stratum) for stratum in strata]
    measured = [(label, one) for label, one in measured if one["change"] is not None][:ROWS_MAX]
    top = _end(max((max(map(abs, one["interval"])) for _, one in measured), default=1.0))
    rows = [Row(label, [_change_bar(one, top)]) for label, one in measured]
    ticks = [(50 + 25 * tick, f"{50 * tick * top:+.3g}" if tick else "0") for tick in range(-2, 3)]
    return Chart("Net change of the accepted rate, in points", rows, ticks, 50.0)


def _share_bar(kind: str, measured: Mapping[str, Any], top: float, what: str) -> Bar:
    lo, hi = measured.get("interval") or (measured["mismatch"],) * 2
    interval = f", interval {lo:.1%} to {hi:.1%}" if measured.get("interval") else ""
    text = f"{what}: {measured['mismatch']:.1%}{interval}"
    lo, hi, at = (100 * min(value / top, 1.0) for value in (lo, hi, measured["mismatch"]))
    return Bar(kind, lo, hi, at, text)


def _change_bar(measured: Mapping[str, Any], top: float) -> Bar:
    lo, hi = measured["interval"]
    kind = "worse" if hi < 0 else "better" if lo > 0 else "change"
    text = f"{100 * measured['change']:+.1f} points, interval {100 * lo:+.1f} to {100 * hi:+.1f}"
    lo, hi, at = (50 + 50 * value / top for value in (lo, hi, measured["change"]))
    return Bar(kind, lo, hi, at, text)


def _of_mismatch(level: Mapping[str, Any], alpha: float) -> Mapping[str, Any]:
    """The level with the interval of what differs: the report's own is of the net change where there is one."""
    if level["change"] is None:
        return level
    if level.get("flips_down") is None or not level.get("events"):
        return {**level, "interval": None}
    flips = level["flips_down"] + level["flips_up"]
    differ = [1.0] * flips + [0.0] * (level["events"] - flips)
    return {**level, "interval": mismatch_interval(differ, alpha, running=False)}


def _upper(measured: Mapping[str, Any]) -> float:
    return float((measured.get("interval") or (0, measured["mismatch"] or 0.0))[1])


def _end(largest: float) -> float:
    return next((step for step in STEPS if largest <= step), math.ceil(largest))
