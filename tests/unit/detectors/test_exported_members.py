from driftline import detectors


def test_the_public_names_are_exactly_these() -> None:
    assert detectors.__all__ == [
        "ArmOutcome",
        "BettingEProcess",
        "BettingEProcesses",
        "Decision",
        "Interval",
        "JudgeSummary",
        "LevelSummary",
        "MeanExceeds",
        "Observation",
        "PowerEstimate",
        "SequentialJudge",
        "SoftRank",
        "StratumSummary",
        "SwapLearner",
        "Tally",
        "betting_interval",
        "e_bh",
        "events_needed",
        "global_e_value",
        "mismatch_interval",
        "planned_order",
        "power_by_simulation",
    ]


def test_every_public_name_exists_and_says_what_it_promises() -> None:
    for name in detectors.__all__:
        member = getattr(detectors, name)
        if name not in {"Decision", "Interval"}:
            assert member.__doc__, name
