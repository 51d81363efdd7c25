"""An interrupted run goes on where it stopped: nothing is paid twice, and the result is that of an unbroken run."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from driftline.consumers.proposing import Answer, ProposalRequest
from driftline.examples.renewals.app import app as renewals
from driftline.replay import (
    AppSubject,
    Candidate,
    ForcedReplay,
    ForcedResult,
    Ledger,
    Limits,
    Segment,
    export_segment,
)
from driftline.replay.arms import Incumbent
from driftline.replay.testing import OwnModels
from driftline.schemas import BadInput

NOON = datetime(2026, 9, 22, 12, tzinfo=UTC)
INFLATED = Candidate("sim/renewals-inflated")
INCUMBENT = Incumbent(Candidate(incumbent=True), 2)
Called = tuple[str, str, int]
"""A decision, the arm that was asked, and its replicate."""
KILLED = """
import asyncio, os, signal, sys
from datetime import UTC, datetime
from pathlib import Path
from driftline.examples.renewals.app import app
from driftline.replay import Candidate, ForcedReplay, Ledger, Limits, Selection, open_segment_file
from driftline.replay.arms import Incumbent
from driftline.replay.testing import OwnModels

folder, dies_at, runs = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])

class Dies(OwnModels):
    calls = 0

    async def propose(self, request):
        self.calls += 1
        if self.calls == dies_at:
            os.kill(os.getpid(), signal.SIGKILL)
        await asyncio.sleep(0)
        answer = await super().propose(request)
        with (folder / "answered").open("a") as file:
            file.write(f"{request.key.decision_id} {request.key.arm} {request.key.replicate}\\n")
        return answer

subject, segment = open_segment_file(folder / "segment.parquet", app, Selection())
ledger = Ledger(folder / "killed.sqlite")
candidate = Candidate("sim/renewals-inflated")
incumbent = Incumbent(Candidate(incumbent=True), runs) if runs else None
noon = datetime(2026, 9, 22, 12, tzinfo=UTC)
given = ("run", segment, subject, candidate, Dies(), ledger, Limits(), lambda: noon)
asyncio.run(ForcedReplay(*given, incumbent=incumbent).run())
"""


class Counted(OwnModels):
    """Counts what was answered, by call."""

    def __init__(self) -> None:
        self.answered: Counter[Called] = Counter()

    async def propose(self, request: ProposalRequest) -> Answer:
        await asyncio.sleep(0)
        answer = await super().propose(request)
        self.answered[request.key.decision_id, request.key.arm, request.key.replicate] += 1
        return answer


class Interrupted(Counted):
    """Interrupts its own run at a chosen call, as Ctrl-C does: the main task is cancelled."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.at = at
        self.run: asyncio.Task[ForcedResult] | None = None
        self.calls = 0

    async def propose(self, request: ProposalRequest) -> Answer:
        self.calls += 1
        if self.calls == self.at and self.run is not None:
            self.run.cancel()
        return await super().propose(request)


def verdict_of(result: ForcedResult) -> tuple[object, ...]:
    evidence = [
        (pair.logged.at, pair.evidence, [answer.hashes for answer in pair.answers])
        for pair in result.pairs[: result.judged.events_at_stop]
    ]
    sides = [side and (side.verdict, side.judged) for side in (result.environment, result.change)]
    return (result.verdict, result.paid_calls, result.judged.e_value, result.judged.events_at_stop, sides, evidence)


@pytest.fixture(params=[None, INCUMBENT], ids=["alone", "beside the incumbent"])
def incumbent(request: pytest.FixtureRequest) -> Incumbent | None:
    found: Incumbent | None = request.param
    return found


@pytest.fixture
def unbroken(
    replay: Callable[..., ForcedResult],
    renewals_history: Segment,
    renewals_subject: AppSubject,
    incumbent: Incumbent | None,
) -> ForcedResult:
    result = replay(renewals_history, OwnModels(), subject=renewals_subject, candidate=INFLATED, incumbent=incumbent)
    assert result.paid_calls > 30, "the scenarios need a run that can be interrupted"
    return result


@pytest.mark.parametrize("at", [1, 12, 30])
def test_a_cancelled_run_resumes_and_pays_no_decision_twice(
    at: int,
    tmp_path: Path,
    replay: Callable[..., ForcedResult],
    renewals_history: Segment,
    renewals_subject: AppSubject,
    unbroken: ForcedResult,
    incumbent: Incumbent | None,
) -> None:
    proposer, ledger = Interrupted(at), Ledger(tmp_path / "other.sqlite")
    given = ("run", renewals_history, renewals_subject, INFLATED, proposer, ledger, Limits(), lambda: NOON)
    forced = ForcedReplay(*given, incumbent=incumbent)

    async def interrupted() -> None:
        proposer.run = asyncio.ensure_future(forced.run())
        await proposer.run

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(interrupted())
    counted = Counted()
    resumed = replay(
        renewals_history,
        counted,
        subject=renewals_subject,
        candidate=INFLATED,
        ledger=ledger,
        incumbent=incumbent,
    )
    ledger.close()
    assert max((proposer.answered + counted.answered).values()) == 1
    assert resumed.from_ledger == proposer.answered.total()
    assert verdict_of(resumed) == verdict_of(unbroken)


@pytest.mark.parametrize("dies_at", [2, 25])
def test_a_killed_process_resumes_and_pays_no_decision_twice(
    dies_at: int,
    tmp_path: Path,
    replay: Callable[..., ForcedResult],
    renewals_history: Segment,
    renewals_subject: AppSubject,
    unbroken: ForcedResult,
    incumbent: Incumbent | None,
) -> None:
    export_segment(renewals_history, renewals_subject.artifacts, tmp_path / "segment.parquet")
    command = [sys.executable, "-c", KILLED, str(tmp_path), str(dies_at), str(incumbent.runs if incumbent else 0)]
    killed = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False, timeout=60)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    lines = (tmp_path / "answered").read_text().splitlines() if (tmp_path / "answered").exists() else []
    answered = [(decision, arm, int(replicate)) for decision, arm, replicate in map(str.split, lines)]
    counted, ledger = Counted(), Ledger(tmp_path / "killed.sqlite")
    resumed = replay(
        renewals_history,
        counted,
        subject=renewals_subject,
        candidate=INFLATED,
        ledger=ledger,
        incumbent=incumbent,
    )
    ledger.close()
    assert max((Counter(answered) + counted.answered).values()) == 1
    assert resumed.from_ledger == len(answered)
    assert verdict_of(resumed) == verdict_of(unbroken)


def test_what_was_overspent_before_a_kill_is_told_after_it(
    replay: Callable[..., ForcedResult],
    renewals_history: Segment,
    renewals_subject: AppSubject,
    incumbent: Incumbent | None,
) -> None:
    """The first run was interrupted with answers beyond the stop in the ledger: the second must not hide them."""
    models = Counted()
    given = {"subject": renewals_subject, "candidate": INFLATED, "concurrency": 8, "incumbent": incumbent}
    first = replay(renewals_history, models, **given)
    again = replay(renewals_history, Counted(), **given)
    assert first.overspent_calls > 0
    assert first.paid_calls + first.overspent_calls == models.answered.total()
    assert again.overspent_calls == first.overspent_calls
    assert again.judged == first.judged
    assert [pair.calls for pair in again.pairs] == [pair.calls for pair in first.pairs]


def test_a_prompt_that_needs_what_a_context_lacks_is_told_before_anything_is_paid(
    replay: Callable[..., ForcedResult], renewals_history: Segment, renewals_subject: AppSubject
) -> None:
    from driftline.consumers import Prompt

    counted = Counted()
    candidate = Candidate("sim/renewals", Prompt("{{ history }}"))
    with pytest.raises(BadInput, match="history"):
        replay(renewals_history, counted, subject=renewals_subject, candidate=candidate)
    assert not counted.answered


def test_a_boundary_that_is_gone_is_told_before_anything_is_paid(
    replay: Callable[..., ForcedResult],
    questions: Callable[..., Segment],
    as_subject: Callable[..., AppSubject],
) -> None:
    counted = Counted()
    with pytest.raises(BadInput, match="no boundary recorded, which the log has"):
        replay(questions(3), counted, subject=as_subject(renewals), candidate=INFLATED)
    assert not counted.answered
