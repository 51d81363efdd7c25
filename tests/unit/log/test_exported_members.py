"""What the log room offers: a change here is a change for its users."""

import driftline.log


def test_the_log_room_offers_these_names() -> None:
    assert driftline.log.__all__ == [
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
    assert all(hasattr(driftline.log, name) for name in driftline.log.__all__)
