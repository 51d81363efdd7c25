"""Mode `verify`: recorded proposals through today's verifier. Asks no model, costs nothing, holds no decision.

Each decision is walked as it went: its attempts in order, until today's rules accept one or say that none may follow.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from driftline.consumers.garbage import rare_collections
from driftline.consumers.judging import Case, Judge
from driftline.consumers.proposing import Answer, ProposerFailure
from driftline.log import AppTopics, Coordinates, LogReader, Record
from driftline.replay.segment import EmptySegment, Selection, decision_of, span_of
from driftline.replay.segment_file import iter_decisions
from driftline.replay.subject import RECORDED_BOUNDARY, Subject
from driftline.schemas import Attempt, Codec, Decision, Rejection, Undecodable, Usage, Verdict
from driftline.schemas.canonical import read_json
from driftline.schemas.names import DECISION

EXAMPLES_MAX = 3
"""Coordinates kept of each kind of change."""
TOLD_EVERY = 5000
"""Decisions between two words on progress."""

ACCEPTED, REJECTED = "accepted", "rejected"

NO_USAGE = Usage()

Plain = Mapping[str, Any]
"""A record as it was decoded: to validate each as a whole would cost more than to judge it."""
Source = Iterable[tuple[Coordinates, Plain]]
"""Decisions with their coordinates."""


@dataclass(frozen=True, slots=True)
class Change:
    """Decisions that today's rules decide otherwise in the same way."""

    boundary: str
    stream: str
    then: str
    now: str
    code: str
    """Of the first rejection: today's where it is rejected now, else that of then."""
    rule_id: str
    decisions: int
    examples: tuple[str, ...]
    """Coordinates of the first of them."""


@dataclass(frozen=True, slots=True)
class VerifyResult:
    """What today's rules say of history."""

    decisions: int
    accepted_then: int
    accepted_now: int
    newly_rejected: int
    """Accepted then, rejected by today's rules."""
    newly_accepted: int
    """The reverse."""
    other_attempt: int
    """Accepted then and now, but another attempt: a proposal that was mended would not have had to be."""
    other_rule: int
    """Rejected then and now, by another rule first."""
    verifier_versions: Mapping[str, int]
    """Decisions by the version of the verifier that judged them then."""
    verifier_version: Mapping[str, str]
    """Today's version by boundary."""
    changes: tuple[Change, ...]
    """Every kind of change, commonest first; those that leave the verdict as it was come last."""

    @property
    def verdict(self) -> str:
        """`diverged` when any decision's verdict is another today, else `equivalent`."""
        return "diverged" if self.newly_rejected or self.newly_accepted else "equivalent"


def verify_log(
    reader: LogReader,
    codec: Codec,
    subject: Subject,
    selection: Selection,
    on_progress: Callable[[int], None] = lambda decisions: None,
    on_decision: Callable[[Coordinates, Plain], None] = lambda at, decision: None,
) -> VerifyResult:
    """Verify what a selection takes of the log, in memory that does not grow with it.

    A decision that lies on the log twice counts twice. `on_decision` is shown each, as it was decoded.

    Raises:
        EmptySegment: The selection takes none.
        UsageError: A boundary is gone.
        BadInput: A record of the decisions topic is no decision; names its coordinates.
    """
    span = span_of(reader, AppTopics(subject.name).decisions, selection)
    return _verify(_decoded(reader.read(span, headers=False), codec, selection), subject, on_progress, on_decision)


def verify_file(
    path: Path, subject: Subject, selection: Selection, on_progress: Callable[[int], None] = lambda decisions: None
) -> VerifyResult:
    """Verify what a selection takes of a segment file.

    Raises:
        UsageError: As `verify_log`.
        BadInput: No such file, or no segment file.
    """
    found = ((at, decision.model_dump()) for at, decision in iter_decisions(path, selection))
    return _verify(found, subject, on_progress)


def verify_data(app: str, result: VerifyResult) -> dict[str, Any]:
    """The result as JSON data."""
    return {"app": app, "mode": "verify", "verdict": result.verdict, **asdict(result)}


def _verify(
    source: Source,
    subject: Subject,
    on_progress: Callable[[int], None],
    on_decision: Callable[[Coordinates, Plain], None] = lambda at, decision: None,
) -> VerifyResult:
    verifying = _Verifying(subject)
    with rare_collections():
        for at, decision in source:
            verifying.add(at, decision)
            on_decision(at, decision)
            if verifying.decisions % TOLD_EVERY == 0:
                on_progress(verifying.decisions)
    if not verifying.decisions:
        raise EmptySegment("the segment is empty", "widen --from, --to, --offsets, --stream or --key")
    return verifying.result()


def _decoded(records: Iterable[Record], codec: Codec, selection: Selection) -> Source:
    everything = selection == Selection()
    for record in records if everything else filter(selection.may_take, records):
        try:
            decoded = codec.decode(record.value)
        except Undecodable:
            decision_of(record, codec)  # says what is wrong, and where
            raise
        if decoded.name == DECISION:
            value = decoded.value
            told = value["stream"], value["workflow"], value["input"]["event_time"]
            if everything or selection.takes_fields(*told, record.at, value["decided_at"]):
                yield record.at, value


Kind = tuple[str, str, str, str, str, str]
"""Boundary, stream, then, now, code, rule."""


class _Verifying:
    """Counts; nothing of a decision is kept but its place, and that of the first of a kind."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._judges: dict[tuple[str, str], Judge] = {}
        self._kinds: Counter[Kind] = Counter()
        self._examples: dict[Kind, list[str]] = {}
        self._versions: Counter[str] = Counter()
        self._then = self._now = self._other_attempt = 0
        self.decisions = 0

    def add(self, at: Coordinates, decision: Plain) -> None:
        """Judge one decision anew."""
        judge = self._judges.get((decision["boundary"], decision["stream"])) or self._learn(decision)
        taken, rejections = _walk(judge, decision)
        was = _accepted_attempt(decision)
        self.decisions += 1
        self._versions[decision["verifier_version"]] += 1
        self._then += was is not None
        self._now += taken is not None
        if was is None or taken is None:
            self._count(at, decision, was is not None, rejections)
        else:
            self._other_attempt += was != taken

    def _learn(self, given: Plain) -> Judge:
        decision = Decision.model_validate(given)
        judge = self._subject.judge(decision)
        self._judges[decision.boundary, decision.stream] = judge
        return judge

    def _count(self, at: Coordinates, decision: Plain, was: bool, rejections: tuple[Rejection, ...]) -> None:
        now, before = not rejections, _first_rule(decision)
        today = ("", "") if now else (rejections[0].code, rejections[0].rule_id)
        if not was and not now and before == today:
            return
        code, rule = before if now else today
        names = {True: ACCEPTED, False: REJECTED}
        kind = decision["boundary"], decision["stream"], names[was], names[now], code, rule
        self._kinds[kind] += 1
        examples = self._examples.setdefault(kind, [])
        if len(examples) < EXAMPLES_MAX:
            examples.append(str(at))

    def result(self) -> VerifyResult:
        """What was counted."""
        changes = [Change(*kind, count, tuple(self._examples[kind])) for kind, count in self._kinds.items()]
        changes.sort(key=lambda change: (change.then == change.now, -change.decisions, change.examples))
        by_way = Counter[tuple[str, str]]()
        for change in changes:
            by_way[change.then, change.now] += change.decisions
        return VerifyResult(
            decisions=self.decisions,
            accepted_then=self._then,
            accepted_now=self._now,
            newly_rejected=by_way[ACCEPTED, REJECTED],
            newly_accepted=by_way[REJECTED, ACCEPTED],
            other_attempt=self._other_attempt,
            other_rule=by_way[REJECTED, REJECTED],
            verifier_versions=dict(sorted(self._versions.items())),
            verifier_version={boundary: judge.version for (boundary, _), judge in sorted(self._judges.items())},
            changes=tuple(changes),
        )


def _walk(judge: Judge, decision: Plain) -> tuple[int | None, tuple[Rejection, ...]]:
    """The attempt that today's rules accept, counted from 0, or None; and what they said last."""
    context = read_json(decision["context"])
    reference = context.get("reference") if decision["boundary"] == RECORDED_BOUNDARY else None
    earlier: tuple[Attempt, ...] = ()
    rejections: tuple[Rejection, ...] = ()
    for number, attempt in enumerate(decision["attempts"]):
        if number:
            earlier = (*earlier, Attempt.model_validate(decision["attempts"][number - 1]))
        rejections = judge.judge(_answer(attempt), Case(context, reference, earlier)).rejections
        if not rejections:
            return number, ()
        if not all(rejection.retryable for rejection in rejections):
            break
    return None, rejections


def _accepted_attempt(decision: Plain) -> int | None:
    """Which attempt was accepted then, counted from 0: the last, since an accepted one ends it."""
    return len(decision["attempts"]) - 1 if decision["verdict"] == Verdict.ACCEPTED else None


def _first_rule(decision: Plain) -> tuple[str, str]:
    """Code and rule of the rejection that ended it then; empty where it was accepted."""
    found = decision["attempts"][-1]["rejections"]
    return (found[0]["code"], found[0]["rule_id"]) if found else ("", "")


def _answer(attempt: Plain) -> Answer:
    """As `answer_of`, but for the tokens, which no judge is shown."""
    failure, facts = attempt["failure"], attempt["facts"]
    return Answer(
        text=attempt["raw_response"],
        failure=None if failure is None else ProposerFailure(failure),
        model_reported=attempt["model_reported"],
        fingerprint=attempt["fingerprint"],
        finish_reason=attempt["finish_reason"],
        facts=None if facts is None else json.loads(facts),
        usage=NO_USAGE,
        cost_usd=attempt["cost_usd"],
        latency_ms=attempt["latency_ms"],
        model_requested=attempt.get("model_requested"),
    )
