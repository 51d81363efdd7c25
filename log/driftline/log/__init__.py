"""The Kafka log: settings, topics, transactions, ranges, and a twin in memory."""

from driftline.log.events import artifact_record, decision_record, to_event, to_outgoing
from driftline.log.group import GroupConsumer
from driftline.log.memory import MemoryLog, partition_of
from driftline.log.positions import Tracker, Unfinished
from driftline.log.prepare import prepare
from driftline.log.reader import KafkaReader
from driftline.log.records import (
    Coordinates,
    LogReader,
    LogTransaction,
    LogWriter,
    Outgoing,
    Position,
    Record,
    Span,
)
from driftline.log.settings import Settings, load_home, load_settings
from driftline.log.topics import ALERTS, ARTIFACTS, AppTopics, TopicAdmin, TopicSpec
from driftline.log.writer import CommitRefused, OutcomeUnknown, TransactionalWriter, WriterFenced

__all__ = [
    "ALERTS",
    "ARTIFACTS",
    "AppTopics",
    "CommitRefused",
    "Coordinates",
    "GroupConsumer",
    "KafkaReader",
    "LogReader",
    "LogTransaction",
    "LogWriter",
    "MemoryLog",
    "OutcomeUnknown",
    "Outgoing",
    "Position",
    "Record",
    "Settings",
    "Span",
    "TopicAdmin",
    "TopicSpec",
    "Tracker",
    "TransactionalWriter",
    "Unfinished",
    "WriterFenced",
    "artifact_record",
    "decision_record",
    "load_home",
    "load_settings",
    "partition_of",
    "prepare",
    "to_event",
    "to_outgoing",
]
