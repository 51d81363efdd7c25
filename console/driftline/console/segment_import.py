"""`driftline segment import`: a segment file becomes an app's history on a cluster that has none of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from driftline.console.common import SPEC_KIND, Log, find_app, progress_bar
from driftline.consumers.app import App
from driftline.consumers.artifacts import Artifact
from driftline.log import (
    AppTopics,
    Outgoing,
    TransactionalWriter,
    artifact_record,
    decision_record,
    load_settings,
    prepare,
)
from driftline.replay.segment import LoggedDecision, Segment, Selection
from driftline.replay.segment_file import read_segment_file
from driftline.schemas import Contracts, UsageError
from driftline.schemas.cloudevents import epoch_ms

BATCH_RECORDS_MAX = 1_000
TRANSACTION_TIMEOUT_MS = 300_000
"""As of the import of recordings: below the brokers' `transaction.max.timeout.ms` of 15 minutes."""


def import_segment(path: Path, name: str) -> int:
    """Write a file's decisions, and the artifacts they need, onto the app's decisions topic; how many decisions.

    In order: 1. read the file, and refuse what is another app's; 2. create topics and subjects; 3. take the app's
    import slot, which ends another import of it; 4. prove that the topic holds nothing; 5. write all in one
    transaction.

    Ids and contexts stay as they were, so that a replay here has the run id and finds the ledger's answers of one
    there. The events are not in the file: input coordinates go on naming the log that the decisions came from.

    Raises:
        BadInput: No such file, or no segment file.
        UsageError: The app is code and lacks a boundary that decided in the file: nothing was created. Or the topic
            holds records already: two histories are never mixed.
        EnvironmentUnreachable: A broker or the registry does not answer.
    """
    settings = load_settings()
    app = find_app(name, settings)
    contracts = Contracts.load() if app is None else app.contracts
    topics = AppTopics(name if app is None else app.name)
    segment, artifacts = read_segment_file(path, topics.app, Selection())
    if app is not None:
        _require_boundaries(app, segment, path)
    prepare(topics, [] if app is None else app.subjects(), contracts, settings)
    log = Log(settings, contracts)
    writer = TransactionalWriter(settings, f"driftline.{topics.app}.import", TRANSACTION_TIMEOUT_MS)
    try:
        writer.open()
        _require_empty(log, topics.decisions)
        with writer.transaction() as transaction, progress_bar("importing", len(segment.decisions)) as show:
            transaction.write(_artifacts(segment, artifacts, topics.app, log))
            for first in range(0, len(segment.decisions), BATCH_RECORDS_MAX):
                batch = segment.decisions[first : first + BATCH_RECORDS_MAX]
                transaction.write([_record(logged, topics, log) for logged in batch])
                show(first + len(batch))
    finally:
        writer.close()
    return len(segment.decisions)


def _artifacts(segment: Segment, artifacts: Mapping[str, Artifact], app: str, log: Log) -> list[Outgoing]:
    """A verifier spec is found by the name of its app, which may be another here."""
    time_ms = epoch_ms(segment.decisions[-1].decision.input.event_time)
    named = [replace(one, name=app) if one.kind == SPEC_KIND else one for one in artifacts.values()]
    return [artifact_record(a.hash, a.kind, a.name, a.content, log.codec, time_ms, app=app) for a in named]


def _record(logged: LoggedDecision, topics: AppTopics, log: Log) -> Outgoing:
    """The key decides the partition: there may be fewer of them here."""
    return replace(decision_record(logged.decision, topics.decisions, log.codec), partition=None)


def _require_boundaries(app: App, segment: Segment, path: Path) -> None:
    """What no boundary can judge would stand in the way of every replay, and of the right history."""
    known = {boundary.name for boundary in app.boundaries}
    missing = {logged.decision.boundary for logged in segment.decisions} - known
    if missing:
        has = ", ".join(sorted(known)) or "none"
        raise UsageError(
            f"{path} holds decisions of {', '.join(sorted(missing))}, and app {app.name} has no such boundary"
            f" (it has {has})",
            "import it with the --app whose history it is",
        )


def _require_empty(log: Log, topic: str) -> None:
    if next(iter(log.reader.read(log.reader.span(topic))), None) is not None:
        raise UsageError(
            f"{topic} holds decisions already, and two histories are never mixed",
            "replay the file itself with `driftline replay --segment FILE`, or import it under another --app",
        )
