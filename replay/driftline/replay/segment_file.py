"""A segment as a file: decisions with the artifacts they need, so that it travels and is replayed with no broker.

Parquet with the columns `kind` (`decision` or `artifact`), `at` (`topic[partition]@offset`, or the artifact's hash)
and `body` (JSON).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb
from pydantic import ValidationError

from driftline.consumers.app import App
from driftline.consumers.artifacts import Artifact
from driftline.log import Coordinates, Span
from driftline.replay.plain import first_line, sql_text
from driftline.replay.segment import LoggedDecision, Segment, Selection, build_segment
from driftline.replay.subject import AppSubject
from driftline.replay.tables import columns_of, load
from driftline.schemas import BadInput, Decision, UsageError

ROWS_AT_ONCE = 1000
"""Taken from the file at a time: the bodies as text and as decisions are not all held together."""
_COLUMNS = columns_of({"kind": "VARCHAR", "at": "VARCHAR", "body": "VARCHAR"})


def export_segment(segment: Segment, artifacts: Mapping[str, Artifact], path: Path) -> None:
    """Write a segment with the prompts and verifier specs that it names; the file is there whole or not at all.

    Raises:
        BadInput: The file cannot be written.
    """
    try:
        with TemporaryDirectory(dir=path.parent, prefix=".segment-") as folder, duckdb.connect() as db:
            load(db, "rows", _COLUMNS, _rows(segment, artifacts))
            written = Path(folder) / "segment"
            options = "FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 19"
            db.execute(f"COPY rows TO {sql_text(written)} ({options})")
            written.replace(path)
    except (OSError, duckdb.Error) as error:
        raise BadInput(f"segment {path}: {first_line(error)}", "give the path of a file in a folder") from error


def read_segment_file(path: Path, app: str, selection: Selection) -> tuple[Segment, dict[str, Artifact]]:
    """The decisions of a file that a selection takes, and its artifacts.

    Raises:
        BadInput: No such file, or no segment file.
        UsageError: The selection takes none of them.
    """
    decisions: list[LoggedDecision] = []
    artifacts: dict[str, Artifact] = {}
    for at, body in _entries(path):
        if isinstance(body, Artifact):
            artifacts[at] = body
        elif selection.takes(body, Coordinates.parse(at)):
            decisions.append(LoggedDecision(Coordinates.parse(at), body))
    if not decisions:
        mend = "widen --from, --to, --offsets, --stream or --key"
        raise UsageError(f"the segment is empty: {path} holds no decision of it", mend)
    return build_segment(app, Span(decisions[0].at.topic), decisions, selection), artifacts


def read_artifacts_of_file(path: Path) -> dict[str, Artifact]:
    """The artifacts of a segment file alone, whatever the number of its decisions.

    Raises:
        BadInput: No such file, or no segment file.
    """
    return {at: body for at, body in _entries(path, "artifact") if isinstance(body, Artifact)}


def iter_decisions(path: Path, selection: Selection) -> Iterator[tuple[Coordinates, Decision]]:
    """The decisions of a file that a selection takes, one by one, as they lie there.

    Raises:
        BadInput: No such file, or no segment file.
    """
    for name, body in _entries(path, "decision"):
        at = Coordinates.parse(name)
        if isinstance(body, Decision) and selection.takes(body, at):
            yield at, body


def open_segment_file(path: Path, app: App, selection: Selection) -> tuple[AppSubject, Segment]:
    """An app and the decisions of a file, ready to be replayed."""
    segment, artifacts = read_segment_file(path, app.name, selection)
    return AppSubject(app, artifacts), segment


def _rows(segment: Segment, artifacts: Mapping[str, Artifact]) -> Iterator[dict[str, str]]:
    prompts = {logged.decision.prompt_hash for logged in segment.decisions}
    needed = prompts | {logged.decision.verifier_version for logged in segment.decisions}
    for hash_ in sorted(needed & artifacts.keys()):
        yield {"kind": "artifact", "at": hash_, "body": json.dumps(asdict(artifacts[hash_]))}
    for logged in segment.decisions:
        yield {"kind": "decision", "at": str(logged.at), "body": logged.decision.model_dump_json()}


def _entries(path: Path, kind: str = "%") -> Iterator[tuple[str, Artifact | Decision]]:
    """The parsed rows of a kind with what is in `at`; rows of a kind that a later version wrote are passed over."""
    if not path.exists():
        raise BadInput(f"there is no segment file {path}", "write one with `driftline segment export`")
    try:
        for kind_, at, body in _read(path, kind):
            if kind_ == "artifact":
                yield at, Artifact(**json.loads(body))
            elif kind_ == "decision":
                Coordinates.parse(at)
                yield at, Decision.model_validate_json(body)
    except (duckdb.Error, ValidationError, ValueError, TypeError, BadInput) as error:
        mend = "write one with `driftline segment export`"
        raise BadInput(f"{path}: not a segment file: {first_line(error)}", mend) from error


def _read(path: Path, kind: str) -> Iterator[tuple[str, str, str]]:
    with duckdb.connect() as db:
        found = db.execute('SELECT kind, "at", body FROM read_parquet([?]) WHERE kind LIKE ?', [_literal(path), kind])
        while rows := found.fetchmany(ROWS_AT_ONCE):
            yield from rows


def _literal(path: Path) -> str:
    """The path for DuckDB, which takes some characters of a file's name for patterns."""
    return "".join(f"[{character}]" if character in "*?[" else character for character in str(path))
