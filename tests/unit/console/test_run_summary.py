"""The summaries of several processes, as one."""

from __future__ import annotations

import json
from collections import Counter

from driftline.console.run_command import RunOptions
from driftline.console.run_summary import sum_summaries, summary_data
from driftline.console.supervised_run import child_command
from driftline.consumers.summary import RunSummary


def made(accepted: int, failure: str = "") -> RunSummary:
    return RunSummary(
        events=2 * accepted,
        decisions=Counter(accepted=accepted),
        streams=Counter({("due", "accepted"): accepted}),
        rejections=Counter({"not_json (parse)": 1}),
        last_failure=failure,
        transactions=3,
        cost_usd=0.5,
    )


def test_the_sum_of_summaries_goes_through_json_and_loses_nothing() -> None:
    one, other = made(3, "timed out"), made(4)
    found = sum_summaries(json.loads(json.dumps(summary_data(summary))) for summary in (one, other))
    assert found == RunSummary(
        events=14,
        decisions=Counter(accepted=7),
        streams=Counter({("due", "accepted"): 7}),
        rejections=Counter({"not_json (parse)": 2}),
        last_failure="timed out",
        transactions=6,
        cost_usd=1.0,
    )


def test_no_summary_sums_to_nothing() -> None:
    assert sum_summaries([]) == RunSummary()


def test_a_process_of_several_is_told_what_its_supervisor_was() -> None:
    options = RunOptions("shop", until_end=True, slot=2, seed=7, processes=2, in_flight=9, http_port=9464)
    words = child_command(options, 3)
    told = {name: words[words.index(name) + 1] for name in ("run", "--slot", "--seed", "--in-flight", "--http-port")}
    assert told == {"run": "shop", "--slot": "3", "--seed": "7", "--in-flight": "9", "--http-port": "9468"}
    assert {"--json", "--until-end"} <= set(words)
    assert "--processes" not in words
