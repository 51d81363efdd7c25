"""Recorded decisions as history: a file of what a model answered once becomes events and decisions on the log."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from driftline.log import (
    ARTIFACTS,
    AppTopics,
    Coordinates,
    KafkaReader,
    LogTransaction,
    Outgoing,
    Settings,
    TransactionalWriter,
    artifact_record,
    decision_record,
    prepare,
    to_outgoing,
)
from driftline.log.events import EPOCH
from driftline.schemas import (
    Attempt,
    BadInput,
    Codec,
    Contracts,
    Decision,
    Event,
    InputCoordinates,
    NotCanonical,
    Registry,
    Rejection,
    Usage,
    Verdict,
    canonical_json,
    content_hash,
)
from driftline.schemas.cloudevents import epoch_ms
from driftline.schemas.ids import derive_id
from driftline.schemas.names import RECORDED_INPUT
from driftline.schemas.recorded import RecordedLine, read_recorded

BOUNDARY = "recorded"
"""Boundary of every imported decision."""
SPEC_KIND = "verifier_spec"
"""Kind of the artifact that holds a spec."""
TRANSACTION_TIMEOUT_MS = 300_000
"""Fit for 100,000 lines; below the brokers' `transaction.max.timeout.ms` of 15 minutes. Committed readers of the
app's topics wait as long, should the importer die; its next start ends that."""
BATCH_LINES_MAX = 1_000
"""Events are written so many at a time, then their decisions, whose ids need the events' offsets."""
LINE_BYTES_MAX = 900_000
"""Of messages, reference and response; with the rest of a decision below the topics' limit of 1 MiB."""


@dataclass(frozen=True, slots=True)
class JudgedLine:
    """What the verifier said of one recorded answer."""

    verdict: Verdict
    rejections: tuple[Rejection, ...] = ()
    """Empty when accepted."""
    action_type: str | None = None
    """None unless accepted."""
    action_payload: str | None = None
    """Canonical JSON; None unless accepted."""


JudgeLine = Callable[[RecordedLine], JudgedLine]
"""A deterministic verifier of recorded answers."""


@dataclass(frozen=True, slots=True)
class ImportSummary:
    """What an import did."""

    app: str
    model: str
    replicate: int
    events: int
    """Events written."""
    decisions: int
    """Decisions written; one for each event."""
    skipped: int
    """Lines that are on the log already; nothing was written for them."""
    verdicts: Mapping[str, int] = field(default_factory=dict)
    """Decisions written, by verdict."""
    new_spec: str | None = None
    """Hash of the verifier spec, where it took the place of another one of the app; replays judge by it from now."""

    def __str__(self) -> str:
        """One line for a person."""
        spec = "" if self.new_spec is None else f"; the verifier spec is now {self.new_spec}"
        return self._decided() + spec

    def _decided(self) -> str:
        if not self.decisions:
            return f"nothing new: all {self.skipped} decisions of {self.model} are on {self.app}.decisions already"
        by_verdict = ", ".join(f"{number} {verdict}" for verdict, number in sorted(self.verdicts.items()))
        skipped = f"; {self.skipped} were there already" if self.skipped else ""
        return f"{self.decisions} decisions of {self.model} on {self.app}.decisions: {by_verdict}{skipped}"


def import_recorded(
    path: Path,
    *,
    app: str,
    model: str,
    judge: JudgeLine,
    judge_version: str,
    spec_text: str,
    prompt_hash: str,
    settings: Settings,
    replicate: int | None = None,
    contracts: Contracts | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> ImportSummary:
    """Put the recorded answers of one model onto an app's topics, as if the app had decided them then.

    1. read and judge the whole file; 2. create topics and subjects; 3. take the app's import slot, which ends
    another import of it; 4. see what is on the log already; 5. write the rest in one transaction, and the spec
    with it unless it is the app's newest there.

    Holds the model's lines in memory: 100,000 lines of 3 KB were 800 MB, and took 20 s.

    Args:
        path: The recording.
        app: Whose history it becomes.
        model: `provider/name` as the lines have it.
        judge: Judges a line.
        judge_version: Hash of the verifier spec.
        spec_text: The spec; it is put on `driftline.artifacts` under its hash.
        prompt_hash: What the decisions say of their prompt.
        settings: Where the log is.
        replicate: Which run of the model; None takes the lowest.
        contracts: Defaults to driftline's own.
        on_progress: Told the decisions written so far and in all; they are visible only at the end.

    Raises:
        BadInput: A line is malformed or twice there, or no line is of the model; nothing was written.
        CommitRefused: The broker refused, or another import of the app took over; nothing was written.
        EnvironmentUnreachable: The broker or the registry does not answer.
    """
    lines = _prepare_lines(path, model, replicate, judge)
    topics = AppTopics(app)
    packaged = contracts or Contracts.load()
    prepare(topics, [(topics.events, RECORDED_INPUT)], packaged, settings)
    importing = _Import(
        topics, Codec(Registry(settings.require_registry()), packaged), judge_version, spec_text, prompt_hash
    )
    writer = TransactionalWriter(settings, f"driftline.{app}.import", TRANSACTION_TIMEOUT_MS)
    try:
        writer.open()
        known = _known_ids(settings, topics.events, {line.event.id for line in lines})
        new = [line for line in lines if line.event.id not in known]
        before = _newest_spec(settings, app, importing.codec)
        if new or before != judge_version:
            with writer.transaction() as transaction:
                if before != judge_version:
                    transaction.write([importing.spec(lines[-1])])
                importing.write(transaction, new, on_progress)
    finally:
        writer.close()
    return _summary(app, lines, new, judge_version if before not in {None, judge_version} else None)


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A line with all that is written for it but its coordinates."""

    line: RecordedLine
    event: Event
    context: str
    parameters: str
    facts: str
    judged: JudgedLine


@dataclass(frozen=True, slots=True)
class _Import:
    topics: AppTopics
    codec: Codec
    judge_version: str
    spec_text: str
    prompt_hash: str

    def write(
        self, transaction: LogTransaction, lines: Sequence[_Prepared], on_progress: Callable[[int, int], None]
    ) -> None:
        """Batch after batch the events and their decisions."""
        for start in range(0, len(lines), BATCH_LINES_MAX):
            batch = lines[start : start + BATCH_LINES_MAX]
            placed = transaction.write([to_outgoing(line.event, self.topics.events, self.codec) for line in batch])
            decided = [self._decision(line, at) for line, at in zip(batch, placed, strict=True)]
            transaction.write([decision_record(one, self.topics.decisions, self.codec) for one in decided])
            on_progress(start + len(batch), len(lines))

    def spec(self, last: _Prepared) -> Outgoing:
        """The record of the verifier spec."""
        time_ms = epoch_ms(last.event.time)
        return artifact_record(self.judge_version, SPEC_KIND, self.topics.app, self.spec_text, self.codec, time_ms)

    def _decision(self, given: _Prepared, at: Coordinates) -> Decision:
        return Decision(
            decision_id=derive_id(self.topics.app, BOUNDARY, str(at)),
            app=self.topics.app,
            boundary=BOUNDARY,
            stream=given.event.type,
            workflow=given.event.workflow,
            input=InputCoordinates(
                topic=at.topic,
                partition=at.partition,
                offset=at.offset,
                event_id=given.event.id,
                event_time=given.event.time,
            ),
            context=given.context,
            context_hash=content_hash(given.context),
            prompt_hash=self.prompt_hash,
            model_requested=given.line.model,
            parameters=given.parameters,
            attempts=(_attempt(given),),
            verdict=given.judged.verdict.value,
            action_type=given.judged.action_type,
            action_payload=given.judged.action_payload,
            verifier_version=self.judge_version,
            decided_at=given.event.time,
        )


def _attempt(given: _Prepared) -> Attempt:
    line = given.line
    return Attempt(
        number=1,
        model_reported=line.model,
        raw_response=line.response,
        facts=given.facts,
        usage=Usage(completion_tokens=line.completion_tokens),
        cost_usd=line.cost_usd,
        latency_ms=line.latency_ms,
        rejections=given.judged.rejections,
    )


def _prepare_lines(path: Path, model: str, replicate: int | None, judge: JudgeLine) -> list[_Prepared]:
    """The lines of one run of the model, judged; the rest of the file is only read."""
    numbered = _read_run(path, model, replicate)
    digest = _sha256(path)
    seen: dict[str, int] = {}
    prepared = []
    for number, line in numbered:
        where = f"{path}:{number}"
        one = _prepare(where, digest, number, line, judge)
        for name, value in (("event_id", one.event.workflow), ("id", one.event.id)):
            earlier = seen.setdefault(f"{name} {value}", number)
            if earlier != number:
                raise BadInput(
                    f"{where}: {name}: {value!r} is on line {earlier} already", "number runs by `replicate`"
                )
        prepared.append(one)
    return prepared


def _read_run(path: Path, model: str, replicate: int | None) -> list[tuple[int, RecordedLine]]:
    """The numbered lines of one run of the model: of that replicate, or of the lowest."""
    held: dict[str, set[int]] = {}
    kept: list[tuple[int, RecordedLine]] = []
    chosen = replicate
    for number, line in read_recorded(path):
        held.setdefault(line.model, set()).add(line.replicate)
        if line.model != model:
            continue
        if replicate is None and (chosen is None or line.replicate < chosen):
            chosen = line.replicate
            kept.clear()
        if line.replicate == chosen:
            kept.append((number, line))
    if not kept:
        raise _none_of(path, model, replicate, held)
    return kept


def _none_of(path: Path, model: str, replicate: int | None, held: Mapping[str, set[int]]) -> BadInput:
    if model in held:
        runs = ", ".join(str(number) for number in sorted(held[model]))
        return BadInput(f"{path} holds no replicate {replicate} of {model}", f"it holds {runs}")
    models = ", ".join(sorted(held)) or "no line at all"
    return BadInput(f"{path} holds no line of the model {model!r}", f"it holds {models}")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _prepare(where: str, digest: str, number: int, line: RecordedLine, judge: JudgeLine) -> _Prepared:
    messages = list(line.messages)
    if line.time <= EPOCH:
        raise BadInput(f"{where}: time: {line.time} is not after 1970-01-01", "give the time of the answer")
    reference = _canonical(where, "reference", line.reference)
    event = Event(
        id=line.id if line.id is not None else derive_id(digest, str(number)),
        type=line.stream,
        source=f"recording:{line.set}",
        workflow=line.event_id,
        time=line.time,
        record=RECORDED_INPUT,
        data={
            "set": line.set,
            "messages": _canonical(where, "messages", messages),
            "reference": None if line.reference is None else reference,
        },
    )
    context = canonical_json({"messages": messages, "reference": line.reference})
    if len(context.encode()) + len((line.response or "").encode()) > LINE_BYTES_MAX:
        raise BadInput(f"{where}: response: with the messages over {LINE_BYTES_MAX} bytes", "leave the line out")
    return _Prepared(
        line=line,
        event=event,
        context=context,
        parameters=_canonical(where, "params", dict(line.params)),
        facts=canonical_json({"reference": line.reference}),
        judged=judge(line),
    )


def _canonical(where: str, name: str, value: Any) -> str:
    try:
        return canonical_json(value)
    except NotCanonical as error:
        raise BadInput(f"{where}: {name}: {error.message}", "write the number or text in another form") from error


def _known_ids(settings: Settings, topic: str, wanted: Collection[str]) -> set[str]:
    """Which of the ids are on the topic; headers alone are looked at, and others may have written them."""
    reader = KafkaReader(settings)
    by_bytes = {event_id.encode(): event_id for event_id in wanted}
    found = (dict(record.headers).get("ce_id", b"") for record in reader.read(reader.span(topic)))
    return {by_bytes[raw] for raw in found if raw in by_bytes}


def _newest_spec(settings: Settings, app: str, codec: Codec) -> str | None:
    """Hash of the spec that a replay of the app would judge by; None where there is none."""
    reader = KafkaReader(settings)
    found = (codec.decode(record.value).value for record in reader.read(reader.span(ARTIFACTS)))
    specs = [str(value["hash"]) for value in found if value["kind"] == SPEC_KIND and value["name"] == app]
    return specs[-1] if specs else None


def _summary(app: str, lines: Sequence[_Prepared], new: Sequence[_Prepared], new_spec: str | None) -> ImportSummary:
    run = lines[0].line
    return ImportSummary(
        app=app,
        model=run.model,
        replicate=run.replicate,
        events=len(new),
        decisions=len(new),
        skipped=len(lines) - len(new),
        verdicts=dict(Counter(line.judged.verdict.value for line in new)),
        new_spec=new_spec,
    )
