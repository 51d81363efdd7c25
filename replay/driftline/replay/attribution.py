"""What moved: environment, verifier or candidate, read off two contrasts that are judged each on its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

DIVERGED, EQUIVALENT = "diverged", "equivalent"
COVERAGE = "coverage"
ENVIRONMENT, VERIFIER, NONE, UNKNOWN = "environment", "verifier", "none", "unknown"


@dataclass(frozen=True, slots=True)
class Attribution:
    """The cause of what a run found, and the sentence that says why it is thought so."""

    cause: str
    """`environment`, `verifier`, `none`, `unknown`, or what the candidate changes: `model`, `prompt`, `parameters`,
    several of them joined by `or`, which the contrasts cannot tell apart (`driftline diagnose` crosses them). Where
    both sides moved, `environment and …`."""
    why: str


def attribute(
    *,
    verdict: str,
    environment: str | None,
    change: str | None,
    changed: Sequence[str],
    drifted: int,
    compared: int,
    note: str = "",
    stopped_because: str = "",
) -> Attribution:
    """Return the cause, by the contrasts that were judged.

    A contrast that diverged names its side, whatever the other says: one alarm does not void the other. Where none
    did, today's rules are the cause of every logged answer that they judge otherwise. `none` is said only of what
    was shown to be equivalent, `unknown` of all the rest.

    Not guaranteed: that a cause is the only one. A side that is not known may have moved too, and the sentence says
    which is not known.

    Args:
        verdict: Of the log against the candidate, L against B: `diverged`, `equivalent` or `inconclusive`.
        environment: The verdict of the log against the incumbent today, L against A'; None without that arm.
        change: The verdict of the incumbent today against the candidate, A' against B; None without that arm.
        changed: What the candidate changes, of `model`, `prompt` and `parameters`.
        drifted: Logged answers whose verdict today's verifier changes.
        compared: Logged answers that it judged again.
        note: What limits the verdict, where it is `equivalent`.
        stopped_because: Of the run: with too little `coverage` there is no verdict, whatever was read.
    """
    side = " or ".join(changed) or "candidate"
    moved = {ENVIRONMENT: environment == DIVERGED, side: change == DIVERGED}
    if any(moved.values()):
        cause = " and ".join(name for name, diverged in moved.items() if diverged)
        though = "although log and candidate are equivalent, " if verdict == EQUIVALENT else ""
        return Attribution(cause, though + _moved(environment, change, changed))
    if verdict == DIVERGED:
        return Attribution(UNKNOWN, _unknown(environment, change))
    if drifted:
        return Attribution(VERIFIER, f"today's rules judge {drifted} of {compared} logged answers otherwise")
    known = [verdict, *(contrast for contrast in (environment, change) if contrast is not None)]
    if all(contrast == EQUIVALENT for contrast in known):
        return Attribution(NONE, note or "no contrast of the arms moved beyond the tolerated difference")
    if verdict == EQUIVALENT:
        why = "log and candidate are equivalent; too little was read to say so of both with the incumbent of today"
        return Attribution(UNKNOWN, why)
    if stopped_because == COVERAGE:
        why = "coverage is too low for a verdict: too many decisions have no outcome on the log or of the candidate"
        return Attribution(UNKNOWN, why)
    return Attribution(UNKNOWN, "nothing diverged, and too little was read to call the arms equivalent")


def attribution_data(
    found: Attribution,
    environment: Mapping[str, Any] | None = None,
    candidate: Mapping[str, Any] | None = None,
    verifier_drift: int = 0,
) -> dict[str, Any]:
    """An attribution as a report holds it, with the contrasts that it rests on; null for one that was not judged."""
    return {
        "cause": found.cause,
        "why": found.why,
        "contrasts": {"environment": environment, "candidate": candidate},
        "verifier_drift": verifier_drift,
    }


def _moved(environment: str | None, change: str | None, changed: Sequence[str]) -> str:
    candidate = f"the candidate, which changes {_listed(changed)},"
    if environment == DIVERGED == change:
        return f"the incumbent answers otherwise today than on the log, and {candidate} otherwise than it does today"
    if environment == DIVERGED:
        left = "; the candidate answers as it does" if change == EQUIVALENT else "; the candidate's part is not known"
        return f"the incumbent answers otherwise today than on the log: verifier, harness or provider{left}"
    same = (
        "answers as on the log" if environment == EQUIVALENT else "is not shown to answer otherwise than on the log"
    )
    return f"{candidate} answers otherwise than the incumbent does today, which {same}"


def _unknown(environment: str | None, change: str | None) -> str:
    if environment is None or change is None:
        return "there was no A' arm, the incumbent asked again today: give --incumbent to tell environment from model"
    return "the log and the candidate diverge, and neither contrast with the incumbent of today does on its own"


def _listed(changed: Sequence[str]) -> str:
    return " and ".join(f"the {name}" for name in changed) or "nothing that is named"
