"""What `driftline nightly` says: one summary of all apps and nights, for the terminal, a pull request or a script."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from driftline.console.nightly import INCUMBENT, VERIFY, NightDone
from driftline.replay.markdown import escaped
from driftline.replay.report import EXIT_CODES
from driftline.replay.wording import cost_text, e_text, interval_text, signed_text

NOT_ASKED = "not asked any more, 0 calls: take it out of the file, or give it another prompt or model"
EXIT_CODES_BY_WEIGHT = (3, 2, 1, 4, 0)
"""Of all apps and nights the first of these: where one could not be counted, the same command is to be run again."""


def exit_code(done: Sequence[NightDone]) -> int:
    """The worst of all; 0 for nights in which nothing was decided.

    A candidate that diverged counts on the night of its alarm alone: it is asked no more, and so says nothing new.
    """
    found = {code for night in done for code in _codes(night)}
    return next((code for code in EXIT_CODES_BY_WEIGHT if code in found), 0)


def summary_data(done: Sequence[NightDone]) -> dict[str, Any]:
    """The summary as JSON data."""
    return {"exit_code": exit_code(done), "nights": [_data(night) for night in done]}


def summary_lines(done: Sequence[NightDone]) -> Iterator[tuple[str, str]]:
    """The summary for a terminal: lines, each with its verdict, empty where it has none."""
    for night in done:
        again = "  already counted: nothing asked, nothing paid, nothing published" if night.already else ""
        yield f"{night.night}  {night.app}  {_decisions(night)}{again}", ""
        for part, verdict, told in _rows(night):
            yield f"  {part:9}  {verdict:12}  {told}", verdict


def summary_markdown(done: Sequence[NightDone]) -> str:
    """The summary as GitHub's Markdown."""
    lines = ["| night | app | decided | part | verdict | |", "|---|---|---|---|---|---|"]
    for night in done:
        head = f"| {night.night} | {escaped(night.app)} | {_decisions(night)}"
        cells = [(part, verdict, escaped(told)) for part, verdict, told in _rows(night)] or [("", "", "")]
        lines += [f"{head} | {part} | {verdict} | {told} |" for part, verdict, told in cells]
    return "\n".join(lines) + "\n"


def _data(night: NightDone) -> dict[str, Any]:
    errors = [{"message": one.message, "mend": one.mend, "exit_code": one.exit_code} for one in night.errors]
    told = {"app": night.app, "night": night.night, "decisions": night.decisions, "already": night.already}
    return {**told, "parts": night.parts, "error": next(iter(errors), None), "errors": errors}


def _codes(night: NightDone) -> Iterator[int]:
    yield from (error.exit_code for error in night.errors)
    for name, part in night.parts.items():
        verdict = part["verdict"] if part.get("asked", True) else None
        # That the watch did not alarm is all that one asks of it: it never shows that nothing moved.
        if verdict is not None and not (name == INCUMBENT and verdict != "diverged"):
            yield EXIT_CODES[verdict]


def _decisions(night: NightDone) -> str:
    if night.errors and not night.parts:
        return "not counted"
    return f"{night.decisions:,} decisions{', not all of it counted' if night.errors else ''}"


def _rows(night: NightDone) -> Iterator[tuple[str, str, str]]:
    """Part, verdict, and what to know of it."""
    for error in night.errors:
        yield "error", "", str(error)
    for name, part in night.parts.items():
        if part["verdict"] is None:
            continue
        if name == VERIFY:
            yield VERIFY, part["verdict"], _verified(part)
        elif name == INCUMBENT:
            yield INCUMBENT, "diverged" if part["drifted"] else "quiet", _watched(part)
        else:
            yield "candidate", part["verdict"], _tried(part)


def _verified(part: Mapping[str, Any]) -> str:
    ways = f"{part['newly_rejected']} now rejected, {part['newly_accepted']} now accepted"
    return f"today's rules: accepted then {part['accepted_then']}, now {part['accepted_now']}; {ways}"


def _watched(part: Mapping[str, Any]) -> str:
    value = f"e-detector {e_text(part['value'])} (alarm at {part['alarm_at']:g})"
    return f"{part['arms'][0]} as of today: {value}; {_night(part)}"


def _tried(part: Mapping[str, Any]) -> str:
    since = f" {'on' if part['asked'] else 'since'} {part['diverged_on']}" if part["diverged_on"] else ""
    carried = f"e = {e_text(part['e_value'])} over {part['events']} decisions in {part['nights']} nights"
    named = sorted({one["stratum"] for one in part["strata"] if one["named"]})
    where = f"; in {', '.join(named)}" if named else ""
    told = f"{part['name']}{since}: {carried}{where}"
    return f"{told}; {_night(part)}{_tested_for(part)}" if part["asked"] else f"{told}; {NOT_ASKED}"


def _tested_for(part: Mapping[str, Any]) -> str:
    """What another `min_effect` does: the bets are others, and what was won by the old ones does not go on."""
    if "min_effect_later" in part:
        later = f"{part['min_effect_later']:g} holds from the next night on"
        return f"; counted with min_effect {part['min_effect']:g}, {later}"
    return f"; its evidence begins anew with min_effect {part['min_effect']:g}" if part["begins_anew"] else ""


def _night(part: Mapping[str, Any]) -> str:
    change = part["change"]
    rate = (
        "" if change["change"] is None else f", {signed_text(change['change'])} {interval_text(change['interval'])}"
    )
    calls = f"{part['paid_calls'] + part['overspent_calls']} calls, {cost_text(part['cost_usd'])}"
    return f"tonight {part['compared']} compared{rate}, {calls}"
