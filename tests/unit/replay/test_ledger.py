"""The ledger: what was paid for is there, once, whatever became of the run that paid."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from driftline.consumers.proposing import Answer, FailedCall, ProposalRequest, ProposerFailure
from driftline.replay import AnswerKey, Candidate, ForcedResult, Ledger, Segment
from driftline.schemas import BadInput, Decision, Usage, UsageError

KEY = AnswerKey("d1", "chain", "acme/next", "prompt", "{}", "test")
ANSWER = Answer(
    "yes \ud800 \x00 é",
    model_reported="next-1",
    facts={"reference": ["yes", 1.5]},
    usage=Usage(prompt_tokens=3),
    cost_usd=0.25,
    latency_ms=12.5,
)
WRITER = """
import sys
from pathlib import Path
from driftline.consumers.proposing import Answer
from driftline.replay import AnswerKey, Ledger
ledger = Ledger(Path(sys.argv[1]))
for number in range(100):
    key = AnswerKey(f"d{number}", "chain", "acme/next", "prompt", "{}", "test")
    stands = ledger.put(key, Answer(sys.argv[2]), sys.argv[2], "2026-09-22T12:00:00Z")
    assert ledger.get(key) == stands
"""

HOLDER = """
import sys
from pathlib import Path
from driftline.replay import Ledger
with Ledger(Path(sys.argv[1])).asking("run"):
    print("asking", flush=True)
    sys.stdin.read()
"""


class Counting:
    """Answers by the number of the call, so that no two answers are alike."""

    def __init__(self) -> None:
        self.calls = 0

    async def propose(self, request: ProposalRequest) -> Answer:
        self.calls += 1
        return Answer(f"answer {self.calls}")


def test_an_answer_comes_back_as_it_was_put(ledger: Ledger) -> None:
    ledger.put(KEY, ANSWER, "run", "2026-09-22T12:00:00Z")
    assert ledger.get(KEY) == ANSWER


def test_the_calls_that_failed_before_an_answer_come_back_with_it(ledger: Ledger) -> None:
    earlier = (FailedCall(1, ProposerFailure.TIMEOUT, "slow"), FailedCall(2, ProposerFailure.RATE_LIMITED))
    answer = replace(ANSWER, earlier=earlier, model_requested="acme/other")
    assert ledger.put(KEY, answer, "run", "2026-09-22T12:00:00Z") == ledger.get(KEY) == answer


def test_a_failure_that_is_an_outcome_comes_back_as_one(ledger: Ledger) -> None:
    refused = Answer(None, ProposerFailure.REFUSED, "it would not")
    ledger.put(KEY, refused, "run", "2026-09-22T12:00:00Z")
    assert ledger.get(KEY) == refused


@pytest.mark.parametrize(
    "changed",
    [
        {"decision_id": "d2"},
        {"attempt_chain": "other"},
        {"model": "acme/last"},
        {"prompt_hash": "other"},
        {"parameters": '{"t":1}'},
        {"purpose": "floor"},
        {"replicate": 1},
    ],
)
def test_an_answer_is_found_only_under_all_that_it_depends_on(ledger: Ledger, changed: dict[str, str]) -> None:
    ledger.put(KEY, ANSWER, "run", "2026-09-22T12:00:00Z")
    assert ledger.get(replace(KEY, **changed)) is None  # type: ignore[arg-type]


def test_the_first_answer_stands_and_is_told_to_whoever_comes_second(ledger: Ledger) -> None:
    ledger.put(KEY, Answer("first"), "one", "2026-09-22T12:00:00Z")
    assert ledger.put(KEY, Answer("second"), "two", "2026-09-22T12:00:01Z") == Answer("first")
    assert ledger.get(KEY, paid_by="one") == Answer("first")
    assert ledger.get(KEY, paid_by="two") is None


def test_what_an_answer_cost_that_came_second_was_paid_for_too(ledger: Ledger) -> None:
    for usd in (0.25, 0.5):
        ledger.put(KEY, Answer(str(usd), cost_usd=usd), "run", "2026-09-22T12:00:00Z")
    ledger.put(KEY, Answer("of another run", cost_usd=1.0), "other", "2026-09-22T12:00:00Z")
    assert ledger.get(KEY) == Answer("0.25", cost_usd=0.25)
    assert (ledger.paid_usd("run"), ledger.paid_usd("other")) == (0.75, 1.0)
    (held,) = ledger.stats()
    assert (held.answers, held.retired, held.cost_usd) == (3, 2, 1.75)
    ledger.retire([KEY])
    assert (ledger.paid_usd("run"), ledger.paid_usd("other")) == (0.0, 0.0)


def test_one_process_asks_for_a_run_until_it_ends_however_it_ends(ledger: Ledger) -> None:
    command = [sys.executable, "-c", HOLDER, str(ledger.path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "asking\n"
        with ledger.asking("another run"):
            pass
        with pytest.raises(UsageError, match="run run is being made by another process; wait for it"):
            ledger.asking("run").__enter__()
        holder.kill()
    with ledger.asking("run"):
        pass


def test_processes_that_write_at_once_agree_on_every_answer(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(path), name], stderr=subprocess.PIPE, text=True)
        for name in ("one", "two", "three")
    ]
    for writer in writers:
        _, stderr = writer.communicate(timeout=60)
        assert (writer.returncode, stderr) == (0, "")
    with sqlite3.connect(path) as db:
        counted = db.execute("SELECT sum(instr(key, '@') = 0), count(*) FROM answers").fetchone()
        assert counted == (100, 300), "one stands for each question, and none that was paid for is lost"
    db.close()


def test_two_decisions_with_equal_contexts_never_share_an_answer(
    replay: Callable[..., ForcedResult], questions: Callable[..., Segment]
) -> None:
    proposer = Counting()
    result = replay(questions(20), proposer, calls_max=20, read_on=True)
    assert len({pair.logged.decision.context_hash for pair in result.pairs}) == 1
    assert proposer.calls == len({pair.candidate.answer.text for pair in result.pairs}) == 20


def test_a_second_run_is_answered_by_the_ledger_and_says_the_same(
    replay: Callable[..., ForcedResult], questions: Callable[..., Segment]
) -> None:
    first, second = Counting(), Counting()
    paid = replay(questions(40), first)
    again = replay(questions(40), second)
    assert (second.calls, again.from_ledger) == (0, first.calls)
    assert replace(again, from_ledger=0) == paid


def test_another_prompt_is_another_question(
    replay: Callable[..., ForcedResult], questions: Callable[..., Segment], make_question: Callable[..., Decision]
) -> None:
    proposer = Counting()
    replay(questions(5), proposer)
    reworded = [make_question(number, asked="no or yes?") for number in range(5)]
    assert replay(questions(decisions=reworded), proposer).from_ledger == 0


def test_other_parameters_are_another_question(
    replay: Callable[..., ForcedResult], questions: Callable[..., Segment]
) -> None:
    proposer = Counting()
    replay(questions(5), proposer)
    warmer = Candidate("acme/next", parameters={"temperature": 0.7})
    assert replay(questions(5), proposer, candidate=warmer).from_ledger == 0


@pytest.mark.parametrize(
    "content", [b"not a database, but long enough to be one " * 30, b"SQLite format 3\x00" + b"\xff" * 200]
)
def test_a_corrupt_ledger_is_one_line_that_names_it(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "ledger.sqlite"
    path.write_bytes(content)
    with pytest.raises(BadInput) as caught:
        Ledger(path)
    assert str(caught.value).startswith(f"ledger {path}: ")
    assert "\n" not in str(caught.value)


def test_a_database_of_somebody_elses_is_refused_as_it_stands(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE answers (question TEXT)")
    db.close()
    with pytest.raises(BadInput, match="no such column"):
        Ledger(path)


def test_a_row_that_is_no_answer_is_one_line(ledger: Ledger) -> None:
    ledger.put(KEY, ANSWER, "run", "2026-09-22T12:00:00Z")
    with sqlite3.connect(ledger.path) as db:
        db.execute("UPDATE answers SET answer = '{\"text\": 1'")
    db.close()
    with pytest.raises(BadInput, match=str(ledger.path)):
        ledger.get(KEY)


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="ledger"):
        Ledger(tmp_path / "file" / "ledger.sqlite")


def test_what_a_run_has_paid_is_the_sum_of_its_answers_that_still_count(ledger: Ledger) -> None:
    for number, run in enumerate(("one", "one", "two")):
        ledger.put(replace(KEY, decision_id=f"d{number}"), ANSWER, run, "2026-09-22T12:00:00Z")
    assert (ledger.paid_usd("one"), ledger.paid_usd("two"), ledger.paid_usd("none")) == (0.5, 0.25, 0.0)
    ledger.retire([replace(KEY, decision_id="d0")])
    assert ledger.paid_usd("one") == 0.25


def test_a_retired_answer_is_asked_for_again_and_kept_until_it_is_pruned(ledger: Ledger) -> None:
    ledger.put(KEY, Answer("old", cost_usd=1.0), "run", "2026-09-22T12:00:00Z")
    assert ledger.retire([KEY, replace(KEY, decision_id="d2")]) == 1
    assert ledger.get(KEY) is None
    ledger.put(KEY, Answer("new", cost_usd=1.0), "run", "2026-09-23T12:00:00Z")
    (held,) = ledger.stats()
    assert (held.answers, held.retired, held.cost_usd) == (2, 1, 2.0)
    assert ledger.prune(retired_only=True) == 1
    assert ledger.get(KEY) == Answer("new", cost_usd=1.0)


def test_pruning_takes_what_is_older_or_of_a_model_and_nothing_else(ledger: Ledger) -> None:
    for day, model in ((21, "acme/a"), (22, "acme/a"), (21, "acme/b")):
        key = replace(KEY, decision_id=f"d{day}", model=model)
        ledger.put(key, ANSWER, "run", f"2026-09-{day}T12:00:00.000Z")
    assert ledger.prune(before="2026-09-22T00:00:00.000Z", model="acme/a") == 1
    assert [(held.model, held.answers) for held in ledger.stats()] == [("acme/a", 1), ("acme/b", 1)]


def test_an_answer_that_is_too_old_is_a_miss_and_gives_way_to_the_next(ledger: Ledger) -> None:
    ledger.put(KEY, Answer("old"), "run", "2026-09-22T12:00:00.000Z")
    noon = "2026-09-22T12:00:00.000Z"
    assert ledger.get(KEY, not_before=noon) == Answer("old")
    later = "2026-09-22T12:00:00.001Z"
    assert ledger.get(KEY, not_before=later) is None
    assert ledger.put(KEY, Answer("new"), "other", "2026-09-23T13:00:00.000Z", later) == Answer("new")
    assert ledger.get(KEY) == Answer("new")
    (held,) = ledger.stats()
    assert (held.answers, held.retired) == (2, 1)


def test_an_answer_that_is_young_enough_stands_against_a_later_one(ledger: Ledger) -> None:
    ledger.put(KEY, Answer("first"), "one", "2026-09-22T12:00:00.000Z")
    given = ("two", "2026-09-22T13:00:00.000Z", "2026-09-22T11:00:00.000Z")
    assert ledger.put(KEY, Answer("second"), *given) == Answer("first")


def test_what_was_paid_for_an_answer_that_grew_old_stays_paid_until_the_plan_is_asked_anew(ledger: Ledger) -> None:
    ledger.put(KEY, Answer("old", cost_usd=1.0), "run", "2026-09-22T12:00:00.000Z")
    ledger.put(KEY, Answer("new", cost_usd=1.0), "run", "2026-09-24T12:00:00.000Z", "2026-09-23T12:00:00.000Z")
    assert ledger.paid_usd("run") == 2.0
    ledger.retire([KEY])
    assert ledger.paid_usd("run") == 0.0
