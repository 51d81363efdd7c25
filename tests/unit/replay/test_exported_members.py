from driftline import replay


def test_the_public_names_are_exactly_these() -> None:
    assert replay.__all__ == [
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


def test_every_public_name_exists_and_says_what_it_promises() -> None:
    for name in replay.__all__:
        assert name == "EXIT_CODES" or getattr(replay, name).__doc__, name
