"""Replaying: history re-run against a candidate, its answers in a ledger, its differences in DuckDB, its verdict."""

from driftline.replay.alerting import ForbiddenTopic, ReplayWriter, alerts_of, publish_alerts
from driftline.replay.arms import Candidate
from driftline.replay.harness import ForcedReplay
from driftline.replay.ledger import AnswerKey, Ledger
from driftline.replay.levels import JudgedAnswer, canonical_text
from driftline.replay.report import EXIT_CODES, report_data
from driftline.replay.result import ForcedResult, Limits, Pair, Progress
from driftline.replay.segment import LoggedDecision, Segment, Selection, load_segment
from driftline.replay.segment_file import export_segment, open_segment_file, read_segment_file
from driftline.replay.store import query, write_store
from driftline.replay.subject import AppSubject, RecordedSubject, Subject

__all__ = [
    "EXIT_CODES",
    "AnswerKey",
    "AppSubject",
    "Candidate",
    "ForbiddenTopic",
    "ForcedReplay",
    "ForcedResult",
    "JudgedAnswer",
    "Ledger",
    "Limits",
    "LoggedDecision",
    "Pair",
    "Progress",
    "RecordedSubject",
    "ReplayWriter",
    "Segment",
    "Selection",
    "Subject",
    "alerts_of",
    "canonical_text",
    "export_segment",
    "load_segment",
    "open_segment_file",
    "publish_alerts",
    "query",
    "read_segment_file",
    "report_data",
    "write_store",
]
