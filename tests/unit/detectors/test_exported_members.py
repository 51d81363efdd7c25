from driftline import detectors


def test_the_public_names_are_exactly_these() -> None:
    assert detectors.__all__ == [
        "Advice",
        "ArmOutcome",
        "BettingEProcess",
        "BettingEProcesses",
        "Cause",
        "Decision",
        "Decomposition",
        "Diagnosis",
        "EDetector",
        "FailingBatch",
        "FloorEvidence",
        "FloorReading",
        "Interval",
        "JudgeSummary",
        "LevelSummary",
        "MeanExceeds",
        "MmdEProcess",
        "Moved",
        "Noise",
        "Observation",
        "PowerEstimate",
        "Reliability",
        "RepeatedEvent",
        "RunningMeanInterval",
        "SequentialJudge",
        "Slope",
        "SoftRank",
        "SoftRanks",
        "SpreadEProcess",
        "Standing",
        "StratumChange",
        "StratumSummary",
        "SwapLearner",
        "Tally",
        "advise",
        "betting_interval",
        "cause_of",
        "decompose",
        "e_bh",
        "events_needed",
        "excess_mismatch",
        "floor_reading",
        "global_e_value",
        "mismatch_interval",
        "mmd_statistic",
        "next_stratum",
        "planned_order",
        "power_by_simulation",
        "power_over_strata",
        "smallest_detectable_change",
        "spread_difference",
    ]


def test_every_public_name_exists_and_says_what_it_promises() -> None:
    for name in detectors.__all__:
        member = getattr(detectors, name)
        if name not in {"Decision", "Interval"}:
            assert member.__doc__, name
