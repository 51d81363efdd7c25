"""Replaying: history re-run against a candidate, its answers in a ledger, its differences in DuckDB, its verdict."""

from driftline.replay.alerting import ForbiddenTopic, ReplayWriter, alerts_of, publish_alerts
from driftline.replay.arms import Candidate
from driftline.replay.harness import ForcedReplay
from driftline.replay.ledger import AnswerKey, Ledger
from driftline.replay.levels import JudgedAnswer, canonical_text
from driftline.replay.plan import ReplayPlan, plan_replay
from driftline.replay.pricing import PriceMap
from driftline.replay.report import EXIT_CODES, report_data
from driftline.replay.result import ForcedResult, Limits, Pair, Progress
from driftline.replay.segment import LoggedDecision, Segment, Selection, load_segment
from driftline.replay.segment_file import export_segment, open_segment_file, read_segment_file
from driftline.replay.shadow import ShadowReplay
from driftline.replay.spending import Spending
from driftline.replay.store import query, write_store
from driftline.replay.subject import AppSubject, RecordedSubject, Subject
from driftline.replay.verify import VerifyResult, verify_file, verify_log

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
    "PriceMap",
    "Progress",
    "RecordedSubject",
    "ReplayPlan",
    "ReplayWriter",
    "Segment",
    "Selection",
    "ShadowReplay",
    "Spending",
    "Subject",
    "VerifyResult",
    "alerts_of",
    "canonical_text",
    "export_segment",
    "load_segment",
    "open_segment_file",
    "plan_replay",
    "publish_alerts",
    "query",
    "read_segment_file",
    "report_data",
    "verify_file",
    "verify_log",
    "write_store",
]
