"""The report: plain JSON under the names that scripts will read, and the alerts that follow from it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace as changed
from typing import Any

import pytest

from driftline.consumers.proposing import Answer, ProposalRequest
from driftline.log import ALERTS, MemoryLog, Outgoing
from driftline.replay import (
    EXIT_CODES,
    AppSubject,
    Candidate,
    ForbiddenTopic,
    ForcedResult,
    Limits,
    ReplayWriter,
    Segment,
    alerts_of,
    publish_alerts,
    report_data,
)
from driftline.replay.plain import plain
from driftline.replay.testing import OwnModels
from driftline.schemas import Alert, ArmRef, Codec, Contracts, DivergenceAlert, Registry, ReplayCompleted

Replay = Callable[..., ForcedResult]
ARMS = (
    ArmRef(model="acme/last", prompt_hash="p", verifier_version="v"),
    ArmRef(model="acme/next", prompt_hash="p", verifier_version="v"),
)
TOP = {"verdict", "alpha", "delta", "events", "paid_calls", "overspent_calls", "cost_usd", "stopped_because"}
SECTIONS = {"levels", "strata", "noise_floor", "attribution", "migration"}
LEVEL = {"mismatch", "baseline_rate", "candidate_rate", "change", "interval_at_stop", "interval", "e_value"}
FLIPS = {"flips_down", "flips_up"}
STRATUM = {"stream", "level", "e_value", "named", "change", "interval"}


class Says:
    def __init__(self, text: str) -> None:
        self.text = text

    async def propose(self, request: ProposalRequest) -> Answer:
        return Answer(self.text)


@pytest.fixture
def diverged(replay: Replay, questions: Callable[..., Segment]) -> ForcedResult:
    return replay(questions(30), Says("no"))


@pytest.fixture
def equivalent(replay: Replay, questions: Callable[..., Segment]) -> ForcedResult:
    return replay(questions(30), Says("yes"), run_id="equal")


def reported(result: ForcedResult) -> dict[str, object]:
    return report_data("quiz", "acme/last", "acme/next", result, Limits())


def test_the_report_has_the_names_that_scripts_read(diverged: ForcedResult) -> None:
    report = report_data("quiz", "acme/last", "acme/next", diverged, Limits())
    assert report.keys() >= TOP | SECTIONS
    assert report["migration"] == {"recommend": None, "evidence": []}
    assert list(report["levels"]) == ["bytes", "canonical", "arguments", "action", "verdict", "state"]
    assert report["levels"]["verdict"].keys() >= LEVEL | FLIPS
    assert report["strata"][0].keys() >= STRATUM
    assert (report["levels"]["state"], report["levels"]["arguments"]) == (None, None)


def test_the_report_is_json_that_every_reader_takes(
    replay: Replay, renewals_history: Segment, renewals_subject: AppSubject
) -> None:
    candidate = Candidate("sim/renewals-fenced")
    result = replay(renewals_history, OwnModels(), subject=renewals_subject, candidate=candidate)
    report = report_data("renewals", "log", "sim/renewals-fenced", result, Limits())
    assert json.loads(json.dumps(report, allow_nan=False)) == report


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_what_json_has_no_number_for_is_null(number: float, diverged: ForcedResult) -> None:
    judged = changed(diverged.judged, e_value=number)
    strata = tuple(changed(stratum, e_value=number, interval=(number, 1.0)) for stratum in judged.strata)
    report = report_data("quiz", "a/b", "c/d", changed(diverged, judged=changed(judged, strata=strata)), Limits())
    assert report["e_value"] is None
    assert report["strata"][0]["interval"] == [None, 1.0]
    assert plain({"a": (number, 2)}) == {"a": [None, 2]}


def test_a_lone_surrogate_is_reported_escaped(replay: Replay, questions: Callable[..., Segment]) -> None:
    result = replay(questions(30), Says("no \ud800"))
    report = report_data("quiz", "a/b", "c/d", result, Limits())
    assert report["examples"][0]["candidate"]["text"] == "no \\ud800"
    assert json.dumps(report, ensure_ascii=False).encode()


def test_examples_are_changed_verdicts_with_both_sides_and_coordinates(diverged: ForcedResult) -> None:
    report = report_data("quiz", "acme/last", "acme/next", diverged, Limits())
    first = report["examples"][0]
    assert first["at"].startswith("quiz.decisions[0]@")
    assert (first["baseline"]["verdict"], first["candidate"]["verdict"]) == ("accepted", "rejected")
    assert (first["baseline"]["model"], first["candidate"]["model"]) == ("acme/last", "acme/next")
    assert first["candidate"]["rejections"][0]["code"] == "wrong_answer"


def test_a_run_without_change_has_no_example(equivalent: ForcedResult) -> None:
    assert reported(equivalent)["examples"] == []


def test_every_level_has_its_evidence_and_says_whether_it_decides(diverged: ForcedResult) -> None:
    report = reported(diverged)
    levels: dict[str, Any] = report["levels"]  # type: ignore[assignment]
    assert {name for name, level in levels.items() if level and level["decides"]} == {"verdict", "action"}
    assert all(level["e_value"] is not None for level in levels.values() if level)
    assert levels["bytes"]["noise"] is None


def test_without_an_incumbent_the_cause_is_said_only_of_what_is_equivalent(
    diverged: ForcedResult, equivalent: ForcedResult
) -> None:
    for result, cause in ((diverged, "unknown"), (changed(equivalent, verdict="equivalent"), "none")):
        attribution: dict[str, Any] = reported(result)["attribution"]  # type: ignore[assignment]
        assert (attribution["cause"], attribution["verifier_drift"]) == (cause, 0)
        assert attribution["contrasts"] == {"environment": None, "candidate": None}


def test_every_verdict_has_its_exit_code() -> None:
    assert EXIT_CODES == {"equivalent": 0, "diverged": 1, "inconclusive": 4}


def alerts(result: ForcedResult, segment: Segment) -> list[Alert]:
    return alerts_of(segment, *ARMS, result, Limits(), segment.decisions[0].decision.decided_at)


def test_a_divergence_is_alerted_beside_the_completion_and_agrees_with_it(
    diverged: ForcedResult, questions: Callable[..., Segment]
) -> None:
    completed, divergence = alerts(diverged, questions(30))
    assert isinstance(completed, ReplayCompleted)
    assert isinstance(divergence, DivergenceAlert)
    assert (completed.verdict, completed.events, completed.paid_calls) == ("diverged", 30, diverged.paid_calls)
    assert divergence.e_value == completed.e_value >= 20
    verdict = next(level for level in diverged.judged.levels if level.level == "verdict")
    assert (divergence.interval_lo, divergence.interval_hi) == verdict.interval_at_stop
    assert divergence.change == verdict.change == -1.0
    assert divergence.examples[0].startswith("quiz.decisions[0]@")


def test_without_a_divergence_only_the_completion_is_told(
    equivalent: ForcedResult, questions: Callable[..., Segment]
) -> None:
    assert [alert.kind for alert in alerts(equivalent, questions(30))] == ["ReplayCompleted"]


@pytest.mark.parametrize(
    "topic", ["renewals.events", "renewals.decisions", "driftline", "driftlinex.events", "Driftline.alerts", ""]
)
def test_replay_writes_to_no_topic_but_driftlines_own(topic: str) -> None:
    log = MemoryLog()
    own = Outgoing(ALERTS, b"quiz", b"1", 1)
    with pytest.raises(ForbiddenTopic, match="only to driftline"):
        ReplayWriter(log).commit([own, Outgoing(topic, b"quiz", b"2", 1)])
    assert (log.end(ALERTS, 0), log.end(topic, 0)) == (0, 0)
    assert [at.offset for at in ReplayWriter(log).commit([own])] == [0]


@pytest.fixture
def codec(contracts: Contracts) -> Codec:
    registry = Registry("mock://alerts")
    for kind in ("ReplayCompleted", "DivergenceAlert"):
        registry.ensure(ALERTS, contracts.require(f"driftline.{kind}"))
    return Codec(registry, contracts)


def test_the_alerts_of_a_run_are_published_once(
    diverged: ForcedResult, questions: Callable[..., Segment], codec: Codec
) -> None:
    log = MemoryLog()
    told = alerts(diverged, questions(30))
    placed = publish_alerts(ReplayWriter(log), log, codec, told)
    assert publish_alerts(ReplayWriter(log), log, codec, told) == placed
    assert log.end(ALERTS, 0) == len(placed) == 2


def test_a_run_that_comes_to_another_verdict_says_so(
    diverged: ForcedResult, questions: Callable[..., Segment], codec: Codec
) -> None:
    """Lost calls made it inconclusive; the same command answered them, and the run diverged."""
    log, segment = MemoryLog(), questions(30)
    inconclusive = changed(diverged, verdict="inconclusive", stopped_because="coverage")
    for result in (inconclusive, diverged):
        publish_alerts(ReplayWriter(log), log, codec, alerts(result, segment))
    values = [codec.decode(record.value).value for record in log.read(log.span(ALERTS))]
    assert [value.get("verdict", "alert") for value in values] == ["inconclusive", "diverged", "alert"]
