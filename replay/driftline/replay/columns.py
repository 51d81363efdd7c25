"""What the tables of a forced or shadow run hold: each column with its DuckDB type and where its value comes from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from driftline.consumers.judging import Judgement
from driftline.replay.fields import FieldChange, field_changes
from driftline.replay.levels import LEVELS, JudgedAnswer
from driftline.replay.result import Pair
from driftline.replay.tables import Column, Columns, column_at, columns_of, json_text
from driftline.schemas import Read
from driftline.schemas.cloudevents import epoch_ms

RUN: Columns = columns_of(
    {
        **dict.fromkeys(("run_id", "app", "mode", "baseline", "candidate", "verdict"), "VARCHAR"),
        **dict.fromkeys(("note", "stopped_because"), "VARCHAR"),
        **dict.fromkeys(("alpha", "delta", "min_effect", "e_value"), "DOUBLE"),
        **dict.fromkeys(("alarm_after", "events", "events_at_stop"), "BIGINT"),
        **dict.fromkeys(("paid_calls", "from_ledger", "overspent_calls"), "BIGINT"),
        **dict.fromkeys(("cost_usd", "coverage"), "DOUBLE"),
        "verifier_drift": "BIGINT",
        **dict.fromkeys(("baseline_prompt_hash", "candidate_prompt_hash", "verifier_version"), "VARCHAR"),
        "completed_at": "TIMESTAMP",
        "report": "JSON",
    }
)
"""Of one mapping, in which every name is present."""


@dataclass(frozen=True, slots=True)
class FloorRow:
    """What one run of the incumbent answered."""

    pair: Pair
    replicate: int
    """Which run, from 0."""
    judged: JudgedAnswer


@dataclass(frozen=True, slots=True)
class ReadRow:
    """What a tool told an arm."""

    pair: Pair
    arm: str
    """`log` or `candidate`."""
    read: Read


@dataclass(frozen=True, slots=True)
class ChangeRow:
    """One field of an action that changed."""

    pair: Pair
    change: FieldChange


def floor_rows(found: Sequence[Pair]) -> Iterator[FloorRow]:
    """Every answer of the incumbent."""
    return (FloorRow(pair, replicate, judged) for pair in found for replicate, judged in enumerate(pair.floor))


def read_rows(found: Sequence[Pair]) -> Iterator[ReadRow]:
    """Every call of a tool, of both arms; of the candidate also what the log has no answer to."""
    for pair in found:
        for arm, judged in (("log", pair.baseline), ("candidate", pair.candidate)):
            yield from (ReadRow(pair, arm, read) for read in judged.answer.reads)


def change_rows(found: Sequence[Pair]) -> Iterator[ChangeRow]:
    """Every field that changed, of the pairs with an outcome in both arms."""
    compared = (pair for pair in found if not pair.lost)
    return (ChangeRow(pair, change) for pair in compared for change in field_changes(pair.baseline, pair.candidate))


def pairs(run_id: str) -> Columns:
    """Of a `Pair`."""
    return {
        "run_id": _same(run_id),
        "turn": column_at("BIGINT", "index"),
        "evidence": column_at("BOOLEAN", "evidence"),
        "lost": column_at("BOOLEAN", "lost"),
        **_decision("logged"),
        "event_time": column_at("TIMESTAMP", "logged.decision.input.event_time", epoch_ms),
        "context": column_at("JSON", "logged.decision.context", is_text=True),
        **_arm("baseline"),
        **_arm("candidate"),
    }


def floor(run_id: str) -> Columns:
    """Of a `FloorRow`."""
    return {
        "run_id": _same(run_id),
        **_decision("pair.logged"),
        "turn": column_at("BIGINT", "pair.index"),
        "replicate": column_at("BIGINT", "replicate"),
        "lost": column_at("BOOLEAN", "judged.lost"),
        "verdict": column_at("VARCHAR", "judged.verdict"),
        "accepted": column_at("BOOLEAN", "judged.judgement.accepted"),
        "rejection_code": column_at("VARCHAR", "judged.judgement", _rejection_code),
        "rule_id": column_at("VARCHAR", "judged.judgement", _rule_id),
        "cost_usd": column_at("DOUBLE", "judged.answer.cost_usd"),
        "latency_ms": column_at("DOUBLE", "judged.answer.latency_ms"),
        **{f"{level}_hash": _hash("judged", level) for level in LEVELS},
    }


def changes(run_id: str) -> Columns:
    """Of a `ChangeRow`."""
    return {
        "run_id": _same(run_id),
        **_decision("pair.logged"),
        "turn": column_at("BIGINT", "pair.index"),
        "path": column_at("VARCHAR", "change.path"),
        "before": column_at("JSON", "change.before"),
        "after": column_at("JSON", "change.after"),
    }


def reads(run_id: str) -> Columns:
    """Of a `ReadRow`."""
    return {
        "run_id": _same(run_id),
        **_decision("pair.logged"),
        "turn": column_at("BIGINT", "pair.index"),
        "arm": column_at("VARCHAR", "arm"),
        "round": column_at("BIGINT", "read.round"),
        "name": column_at("VARCHAR", "read.name"),
        "arguments": column_at("JSON", "read.arguments", is_text=True),
        "status": column_at("VARCHAR", "read.status"),
        "told": column_at("JSON", "read.answer", is_text=True),
    }


def strata(run_id: str) -> Columns:
    """Of a `StratumSummary`."""

    def named(part: int) -> Column:
        return column_at("VARCHAR", "stratum", lambda stratum: stratum.partition("/")[part])

    def end(interval: str, which: int) -> Column:
        return column_at("DOUBLE", interval, lambda ends: ends[which])

    return {
        "run_id": _same(run_id),
        "boundary": named(0),
        "stream": named(2),
        "level": column_at("VARCHAR", "level"),
        "events": column_at("BIGINT", "events"),
        "e_value": column_at("DOUBLE", "e_value"),
        "named": column_at("BOOLEAN", "named"),
        "change": column_at("DOUBLE", "change"),
        "mismatch": column_at("DOUBLE", "mismatch"),
        "interval_at_stop_lo": end("interval_at_stop", 0),
        "interval_at_stop_hi": end("interval_at_stop", 1),
        "interval_lo": end("interval", 0),
        "interval_hi": end("interval", 1),
    }


def _decision(logged: str) -> Columns:
    names = ("decision_id", "boundary", "stream", "workflow")
    columns = {name: column_at("VARCHAR", f"{logged}.decision.{name}") for name in names}
    return {**columns, "coordinates": column_at("VARCHAR", f"{logged}.at", str)}


def _arm(arm: str) -> Columns:
    told = {
        "text": column_at("VARCHAR", f"{arm}.answer.text"),
        "failure": column_at("VARCHAR", f"{arm}.answer.failure"),
        "verdict": column_at("VARCHAR", f"{arm}.verdict"),
        "rejection_code": column_at("VARCHAR", f"{arm}.judgement", _rejection_code),
        "rule_id": column_at("VARCHAR", f"{arm}.judgement", _rule_id),
        "rejections": column_at("JSON", f"{arm}.judgement", _rejections, is_text=True),
        "action_type": column_at("VARCHAR", f"{arm}.judgement.action", lambda action: action and action.type),
        "action": column_at("JSON", f"{arm}.judgement.action", lambda action: action and dict(action.compared)),
        "cost_usd": column_at("DOUBLE", f"{arm}.answer.cost_usd"),
        "latency_ms": column_at("DOUBLE", f"{arm}.answer.latency_ms"),
        **{f"{level}_hash": _hash(arm, level) for level in LEVELS},
    }
    return {f"{arm}_{name}": column for name, column in told.items()}


def _hash(judged: str, level: str) -> Column:
    """Null where the answer does not have the level."""
    return column_at("VARCHAR", f"{judged}.hashes", lambda hashes: hashes.get(level))


def _same(text: str) -> Column:
    return Column("VARCHAR", lambda rows: [text] * len(rows))


def _rejection_code(judgement: Judgement) -> str | None:
    return judgement.rejections[0].code if judgement.rejections else None


def _rule_id(judgement: Judgement) -> str | None:
    return judgement.rejections[0].rule_id if judgement.rejections else None


def _rejections(judgement: Judgement) -> str:
    if not judgement.rejections:
        return "[]"
    return json_text([rejection.model_dump() for rejection in judgement.rejections])
