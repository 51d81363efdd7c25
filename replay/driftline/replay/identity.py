"""What names a run: its arms, and an id that the same plan over the same decisions has again."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from driftline.consumers.models.sources import source_version
from driftline.replay.arms import LOG_ARM, Candidate, Incumbent
from driftline.replay.plain import plain
from driftline.replay.result import Limits
from driftline.replay.segment import Segment
from driftline.replay.subject import Subject
from driftline.schemas import ArmRef, Decision, canonical_json, content_hash

RUN_ID_DIGITS = 12


def arms_of(segment: Segment, subject: Subject, candidate: Candidate) -> tuple[ArmRef, ArmRef]:
    """Both arms as alerts name them; what differs within the segment is named `log`."""
    return arm_of(segment, subject, Candidate(incumbent=True)), arm_of(segment, subject, candidate)


def arm_of(segment: Segment, subject: Subject, arm: Candidate) -> ArmRef:
    """One arm as alerts name it."""
    decisions = [logged.decision for logged in segment.decisions]
    verifier = _one({subject.judge(decision).version for decision in decisions})
    prompt = arm.prompt.hash if arm.prompt is not None else _one({decision.prompt_hash for decision in decisions})
    model = arm.model or _one({decision.model_requested for decision in decisions})
    parameters = content_hash(canonical_json(plain(arm.parameters))) if arm.parameters else ""
    return ArmRef(model=model, prompt_hash=prompt, verifier_version=verifier, parameters_hash=parameters)


def run_id_of(
    segment: Segment, subject: Subject, candidate: Candidate, limits: Limits, incumbent: Incumbent | None = None
) -> str:
    """The same plan over the same decisions has the same id, so that the same command resumes its run.

    Budgets and rates are no part of it: with a larger budget the same run goes on.
    """
    baseline, tried = arms_of(segment, subject, candidate)
    plan = {
        "app": segment.app,
        "decisions": content_hash("".join(_identity(logged.decision) for logged in segment.decisions)),
        "arms": [arm.model_dump(exclude={"parameters_hash"}) for arm in (baseline, tried)],
        "rules": _rules(segment, subject),
        "source": source_version(tried.model),
        "parameters": dict(candidate.parameters),
        "test": _test(limits),
        **_asked_beside(incumbent),
    }
    return content_hash(canonical_json(plan))[:RUN_ID_DIGITS]


def shadow_id_of(
    subject: Subject,
    candidate: Candidate,
    limits: Limits,
    begins: Mapping[int, int],
    incumbent: Incumbent | None = None,
) -> str:
    """The id of a run that follows a log: what it will read is not known yet, from where it begins is."""
    plan = {
        "app": subject.name,
        "mode": "shadow",
        "begins": {str(partition): offset for partition, offset in begins.items()},
        "candidate": [candidate.model, None if candidate.prompt is None else candidate.prompt.hash],
        "rules": list(subject.rules),
        "source": None if candidate.model is None else source_version(candidate.model),
        "parameters": dict(candidate.parameters),
        "test": _test(limits),
        **_asked_beside(incumbent),
    }
    return content_hash(canonical_json(plan))[:RUN_ID_DIGITS]


def prompt_diff(segment: Segment, subject: Subject, candidate: Candidate) -> str:
    """What the candidate's prompt changes in each that the log used, as unified diffs; empty where nothing.

    Raises:
        BadInput: As `Subject.prompt`.
    """
    tried = candidate.prompt
    if tried is None:
        return ""
    by_hash = {logged.decision.prompt_hash: logged.decision for logged in segment.decisions}
    diffs: list[str] = []
    for hash_, decision in sorted(by_hash.items()):
        if hash_ == tried.hash:
            continue
        before = subject.prompt(decision).text.splitlines()
        names = f"log {hash_[:RUN_ID_DIGITS]}", f"candidate {tried.hash[:RUN_ID_DIGITS]}"
        diffs += difflib.unified_diff(before, tried.text.splitlines(), *names, lineterm="")
    return "\n".join(diffs)


def _test(limits: Limits) -> list[Any]:
    asked = [limits.alpha, limits.delta, limits.min_effect, limits.order_seed, limits.calls_max, limits.locate]
    return asked if limits.mmd is None else [*asked, limits.mmd]


def _asked_beside(incumbent: Incumbent | None) -> dict[str, Any]:
    """Nothing where there is no incumbent: such a run keeps the id that it had before there were any."""
    if incumbent is None:
        return {}
    model = incumbent.arm.model
    return {"incumbent": [model, None if model is None else source_version(model), incumbent.runs]}


def _one(values: set[str]) -> str:
    return values.pop() if len(values) == 1 else LOG_ARM


def _rules(segment: Segment, subject: Subject) -> list[list[str]]:
    """Every rule that judges the segment, and every prompt in it: one name for several would make runs collide."""
    decisions = [logged.decision for logged in segment.decisions]
    found = {(d.boundary, d.stream, subject.judge(d).version, d.prompt_hash) for d in decisions}
    return [list(rule) for rule in sorted(found)]


def _identity(decision: Decision) -> str:
    """What the replay takes from a decision: a topic made anew may hold others at the same coordinates."""
    return f"{decision.decision_id} {decision.context_hash} {content_hash(decision.attempts[0].model_dump_json())}\n"
