"""What a comparison of recordings says beyond its verdict: where it changed, and of how much that is known."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from driftline.consumers.verifier_spec import SpecJudge
from driftline.replay.compare import Comparing, Comparison, compare_recordings
from driftline.schemas import UsageError

SPEC = '[streams.up]\naccept = "equals-reference"\n[streams.down]\naccept = "equals-reference"\n'
NUMBER = 200
Compare = Callable[..., Comparison]


def answer(model: str, number: int) -> str | None:
    """`old` is right on every second event of a stream, `new` on all of the one and on none of the other."""
    stream, place = number % 2, number // 2
    if model.startswith("acme/old"):
        return "yes" if place % 2 else "no"
    if model == "acme/patchy" and number % 20 == 0:
        return None
    return "no" if stream else "yes"


@pytest.fixture
def compare(tmp_path: Path) -> Compare:
    file, spec = tmp_path / "answers.jsonl", tmp_path / "SPEC.toml"
    spec.write_text(SPEC)
    models = [("acme/old", 0), ("acme/old", 1), ("acme/older", 0), ("acme/older", 1)]
    lines = [
        {
            **{"set": "quiz", "event_id": f"e{number}", "stream": "down" if number % 2 else "up"},
            **{"time": "2026-03-01T12:00:00Z", "messages": [{"role": "user", "content": f"question {number}"}]},
            **{"model": model, "replicate": run, "response": answer(model, number), "reference": "yes"},
        }
        for model, run in [*models, ("acme/new", 0), ("acme/patchy", 0)]
        for number in range(NUMBER)
        if answer(model, number) is not None
    ]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))

    def run(candidate: str, floor: str | None = None) -> Comparison:
        return compare_recordings(Comparing(file, "acme/old", candidate, SpecJudge.from_file(spec), floor=floor))

    return run


def test_strata_that_move_against_each_other_are_both_named_once_all_is_read(compare: Compare) -> None:
    result = compare("acme/new").result
    assert (result.verdict, result.stopped_because) == ("diverged", "alarm")
    assert result.paid_calls < NUMBER / 2
    named = {(one.stratum.rpartition("/")[2], one.change) for one in result.judged.strata if one.named}
    assert {("up", 0.5), ("down", -0.5)} <= named


def test_coverage_is_that_of_the_segment_and_not_of_the_few_events_before_an_alarm(compare: Compare) -> None:
    result = compare("acme/patchy").result
    assert (result.verdict, result.coverage) == ("diverged", 0.95)


def test_what_is_equivalent_in_net_rate_alone_says_so_beside_the_cause(compare: Compare) -> None:
    found = compare("acme/old@1")
    assert found.result.verdict == "equivalent"
    assert found.report["attribution"]["cause"] == "none"
    assert found.report["attribution"]["why"].startswith("net rate equivalent over the decisions of this segment")


def test_the_excess_that_is_told_is_the_one_that_the_verdict_rests_on(compare: Compare) -> None:
    found = compare("acme/new", floor="acme/old@0,1")
    told = found.report["noise_floor"]["levels"]
    decided = {level.level: level.noise for level in found.result.judged.levels}
    assert {"bytes", "verdict"} <= decided.keys()
    for name, noise in decided.items():
        assert noise is not None
        assert (told[name]["excess"], tuple(told[name]["excess_interval"])) == (noise.excess, noise.excess_interval)


def test_a_floor_of_another_model_is_refused(compare: Compare) -> None:
    with pytest.raises(UsageError, match="of another model than the baseline"):
        compare("acme/new", floor="acme/older@0,1")
