"""The failing batch of a stored run, and what else moved in it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from driftline.consumers.proposing import Answer, ProposalRequest
from driftline.replay import ForcedResult, Segment, report_data, write_store
from driftline.replay.failing import StoredBatch, decisions_of, failing_batch, moved_in, require_compared
from driftline.replay.result import Limits
from driftline.schemas import UsageError


class FailsSome:
    """Fails the first two questions: one by another answer, one by a right answer in other words."""

    async def propose(self, request: ProposalRequest) -> Answer:
        return Answer({"d0": "no", "d1": "```\nyes\n```"}.get(request.key.decision_id, "yes"))


@pytest.fixture
def stored(
    tmp_path: Path, replay: Callable[..., ForcedResult], questions: Callable[..., Segment]
) -> tuple[Path, dict[str, Any]]:
    result = replay(questions(9), FailsSome())
    report = report_data("quiz", "acme/last", "acme/next", result, Limits())
    return write_store(tmp_path, result, {**report, "report": report}), report


def test_the_batch_is_what_the_baseline_passed_and_the_candidate_failed(stored: tuple[Path, dict[str, Any]]) -> None:
    batch = failing_batch(stored[0])
    assert set(batch.decision_ids) == {"d0", "d1"}
    assert batch.workflows == {"w0", "w1"}


def test_answers_that_differ_in_form_alone_are_counted(stored: tuple[Path, dict[str, Any]]) -> None:
    database, report = stored
    moved = moved_in(database, report, failing_batch(database))
    assert (moved.batch, moved.same_text, moved.actions, moved.text) == (2, 1, False, None)


@pytest.mark.parametrize(("excess", "moved"), [((0.01, 0.4), True), ((-0.2, 0.1), False)])
def test_texts_moved_where_they_differ_more_than_the_floor(
    excess: tuple[float, float], moved: bool, stored: tuple[Path, dict[str, Any]]
) -> None:
    database, report = stored
    report["noise_floor"] = {"levels": {"bytes": {"excess_interval": excess}, "canonical": None}}
    assert moved_in(database, report, failing_batch(database)).text is moved


def test_the_decisions_are_found_again_in_log_order(questions: Callable[..., Segment]) -> None:
    found = decisions_of(questions(9), StoredBatch(["d7", "d2"], frozenset(), 0))
    assert [logged.decision.decision_id for logged in found.decisions] == ["d2", "d7"]


def test_decisions_that_are_gone_from_the_log_are_said_to_be(questions: Callable[..., Segment]) -> None:
    with pytest.raises(UsageError, match=r"none of the 1 failing decisions is still in quiz\.decisions"):
        decisions_of(questions(3), StoredBatch(["d99"], frozenset(), 0))


def test_texts_are_held_against_the_incumbents_own_runs_before_the_logs(stored: tuple[Path, dict[str, Any]]) -> None:
    """An environment that drifted moves the log's texts away from every arm of today."""
    database, report = stored
    report["noise_floor"] = {"levels": {"bytes": {"excess_interval": (0.2, 0.4)}}}
    report["levels"]["bytes"]["noise"] = {"excess_interval": (-0.1, 0.1)}
    assert moved_in(database, report, failing_batch(database)).text is False


def test_a_run_that_compared_no_decisions_has_no_failing_batch(stored: tuple[Path, dict[str, Any]]) -> None:
    _, report = stored
    require_compared(report)
    with pytest.raises(UsageError, match=r"is of the mode free, which .*; name a run of the mode forced or shadow"):
        require_compared(report | {"mode": "free"})
