"""The ledger: every answer is written here before it counts, so that nothing is paid twice.

SQLite in WAL mode. The key is all that an answer depends on; two decisions never share one, however equal their
contexts (DETECTION, rule 11).
"""

from __future__ import annotations

import fcntl
import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

from driftline.consumers.proposing import Answer, FailedCall, ProposerFailure, ToolCall
from driftline.replay.plain import first_line
from driftline.schemas import BadInput, Usage, UsageError, canonical_json, content_hash

BUSY_TIMEOUT_S = 30.0
"""Another run may be writing; SQLite admits one writer at a time."""
LOCKS = "locks"
"""Beside the ledger: a file a run, empty."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS answers (
    key TEXT PRIMARY KEY,          -- hash of `identity`
    identity TEXT NOT NULL,        -- canonical JSON of what the answer depends on
    decision_id TEXT NOT NULL,
    model TEXT NOT NULL,
    run_id TEXT NOT NULL,          -- the run that paid
    answered_at TEXT NOT NULL,     -- RFC 3339, UTC
    answer TEXT NOT NULL           -- JSON of the Answer
) WITHOUT ROWID
"""
_GET = """
SELECT answer FROM answers
WHERE key = ?1 AND run_id = ifnull(?2, run_id) AND answered_at >= ifnull(?3, answered_at)
"""
_PUT = "INSERT OR IGNORE INTO answers VALUES (?, ?, ?, ?, ?, ?, ?)"
_PUT_BESIDE = "INSERT INTO answers VALUES (?1 || ?8 || hex(randomblob(8)), ?2, ?3, ?4, ?5, ?6, ?7)"
RETIRED = "@"
"""In a key: the answer counts no more."""
STALE = "@stale"
"""In a key: the answer does not count, for its age or because another stands; its price still does."""
_PAID = """
SELECT sum(json_extract(answer, '$.cost_usd')) FROM answers
WHERE run_id = ?1 AND (instr(key, ?2) = 0 OR instr(key, ?3) > 0)
"""
_RETIRE = """
UPDATE answers SET key = ?2 || ?1 || hex(randomblob(8)) WHERE key = ?2 OR (key > ?2 || ?3 AND key < ?2 || ?3 || '~')
"""
_OUTDATE = "UPDATE answers SET key = key || ?1 || hex(randomblob(8)) WHERE key = ?2 AND answered_at < ?3"
_STATS = """
SELECT model, count(*), sum(instr(key, ?1) > 0), count(DISTINCT run_id), sum(json_extract(answer, '$.cost_usd')),
    sum(length(answer) + length(identity)), min(answered_at), max(answered_at)
FROM answers GROUP BY model ORDER BY model
"""
_PRUNE = """
DELETE FROM answers WHERE (?1 IS NULL OR answered_at < ?1) AND (?2 IS NULL OR model = ?2)
    AND (NOT ?3 OR instr(key, ?4) > 0)
"""


@dataclass(frozen=True, slots=True)
class LedgerStats:
    """What the ledger holds of one model."""

    model: str
    answers: int
    retired: int
    """Of them those that count no more."""
    runs: int
    """Runs that have paid for them."""
    cost_usd: float | None
    """Dollars that they cost; None when no price is known."""
    bytes: int
    """Of their texts."""
    first_at: str
    """When the oldest was answered, RFC 3339."""
    last_at: str
    """When the newest was."""


@dataclass(frozen=True, slots=True)
class AnswerKey:
    """What an answer depends on."""

    decision_id: str
    attempt_chain: str
    """Hash of the messages: context, prompt and the rejections of earlier attempts."""
    model: str
    prompt_hash: str
    parameters: str
    """Canonical JSON of the parameters with schema and endpoint."""
    purpose: str
    """`test`, `floor`, `spread` or `diagnosis`: none of them reads what another saw."""
    replicate: int = 0

    @property
    def identity(self) -> str:
        """Canonical JSON of all fields."""
        return canonical_json({name: getattr(self, name) for name in self.__slots__})

    @property
    def hash(self) -> str:
        """Primary key in the ledger."""
        return content_hash(self.identity)


class Ledger:
    """Answers on disk, for any number of runs at once.

    What was put survives the end of the process, however it ends. Not guaranteed: that the last answers before a
    power failure do (WAL is not flushed at each); they would be asked again.

    Raises:
        BadInput: The file is no ledger or cannot be written; from every method.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._db: sqlite3.Connection | None = None
        try:
            with self._wrapped():
                path.parent.mkdir(parents=True, exist_ok=True)
                self._db = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None)
                self._db.execute("PRAGMA journal_mode=WAL")
                self._db.execute("PRAGMA synchronous=NORMAL")
                self._db.execute(_SCHEMA)
                self._db.execute(_GET, ("", None, None))
        except BadInput:
            self.close()
            raise

    @contextmanager
    def asking(self, run_id: str) -> Iterator[None]:
        """Let one process at a time ask for a run: two would pay each call twice, and each spend the whole budget.

        The lock goes with the process, however it ends; nobody waits for it. Not guaranteed: that a process on
        another machine is kept out, where the file system does not carry `flock` there.

        Raises:
            UsageError: Another process asks for this run.
        """
        path = self.path.parent / LOCKS / run_id
        with self._wrapped():
            path.parent.mkdir(parents=True, exist_ok=True)
            held = path.open("a")
        with held:
            with self._wrapped():
                _lock(held, run_id)
            yield

    def get(self, key: AnswerKey, paid_by: str | None = None, not_before: str | None = None) -> Answer | None:
        """The answer that was paid for; None when there is none that counts.

        Args:
            key: What it depends on.
            paid_by: Only what this run has paid for.
            not_before: RFC 3339, UTC; only what was answered then or later.
        """
        with self._wrapped() as db:
            row = db.execute(_GET, (key.hash, paid_by, not_before)).fetchone()
            return None if row is None else _from_json(row[0])

    def put(
        self, key: AnswerKey, answer: Answer, run_id: str, answered_at: str, not_before: str | None = None
    ) -> Answer:
        """Write an answer; the one that stands, which is the first that was written for the key.

        One that was answered earlier than `not_before` does not stand: it counts no more. What does not stand was
        paid for all the same: its price counts in `paid_usd`.
        """
        identity = key.identity
        hash_ = content_hash(identity)
        row = (hash_, identity, key.decision_id, key.model, run_id, answered_at, _to_json(answer))
        with self._wrapped() as db:
            if not_before is not None:
                db.execute(_OUTDATE, (STALE, hash_, not_before))
            if db.execute(_PUT, row).rowcount:
                return answer
            db.execute(_PUT_BESIDE, (*row, STALE))
            return _from_json(db.execute(_GET, (hash_, None, None)).fetchone()[0])

    def paid_usd(self, run_id: str) -> float:
        """Dollars that a run has paid, but for what was retired; an unknown price counts as nothing."""
        with self._wrapped() as db:
            paid: float | None = db.execute(_PAID, (run_id, RETIRED, STALE)).fetchone()[0]
            return paid or 0.0

    def retire(self, keys: Iterable[AnswerKey]) -> int:
        """Let the answers of these keys count no more, so that they are asked for again; how many there were.

        What was paid for is kept, under a name that nothing asks for, until it is pruned.
        """
        with self._wrapped() as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                retired = [db.execute(_RETIRE, (RETIRED, key.hash, STALE)).rowcount for key in keys]
                db.execute("COMMIT")
            except BaseException:
                db.execute("ROLLBACK")
                raise
            return sum(retired)

    def stats(self) -> list[LedgerStats]:
        """What the ledger holds, by model."""
        with self._wrapped() as db:
            return [LedgerStats(*row) for row in db.execute(_STATS, (RETIRED,))]

    def prune(self, before: str | None = None, model: str | None = None, retired_only: bool = False) -> int:
        """Remove answers for good; how many. They are paid for again by whoever asks again.

        Args:
            before: RFC 3339, UTC; only what was answered earlier.
            model: Only this model's.
            retired_only: Only what counts no more.
        """
        with self._wrapped() as db:
            removed: int = db.execute(_PRUNE, (before, model, retired_only, RETIRED)).rowcount
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            db.execute("VACUUM")
            return removed

    def close(self) -> None:
        """Close the file; to close it twice does nothing."""
        if self._db is not None:
            self._db.close()
            self._db = None

    @contextmanager
    def _wrapped(self) -> Iterator[Any]:
        try:
            yield self._db
        except (OSError, sqlite3.Error, ValueError, TypeError, KeyError) as error:
            mend = "make room, or free or move the file away, or set DRIFTLINE_HOME; what it holds was paid for"
            raise BadInput(f"ledger {self.path}: {first_line(error)}", mend) from error


def _lock(held: TextIO, run_id: str) -> None:
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        mend = "wait for it or end it; the same command then goes on from what the ledger holds"
        raise UsageError(f"run {run_id} is being made by another process", mend) from None


def _to_json(answer: Answer) -> str:
    data: dict[str, Any] = {name: getattr(answer, name) for name in answer.__slots__}
    data["usage"] = answer.usage.model_dump()
    data["facts"] = None if answer.facts is None else dict(answer.facts)
    data["earlier"] = [asdict(call) for call in answer.earlier]
    data["tool_calls"] = [asdict(call) for call in answer.tool_calls]
    data["thinking"] = [dict(block) for block in answer.thinking]
    del data["reads"]  # of the attempt, which is more than one answer; they are on the decision
    return json.dumps(data)


def _from_json(text: str) -> Answer:
    data = json.loads(text)
    data["usage"] = Usage(**data["usage"])
    data["failure"] = None if data["failure"] is None else ProposerFailure(data["failure"])
    data["earlier"] = tuple(_failed_call(call) for call in data.get("earlier", ()))
    data["tool_calls"] = tuple(ToolCall(**call) for call in data.get("tool_calls", ()))
    data["thinking"] = tuple(data.get("thinking", ()))
    return Answer(**data)


def _failed_call(data: dict[str, Any]) -> FailedCall:
    return FailedCall(**{**data, "failure": ProposerFailure(data["failure"])})
